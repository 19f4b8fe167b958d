// Barriers in every place where they are allowed: in loops, after divergent code, beside threads that have left,
// named barriers with counts, barrier reductions, and cooperative groups.
#include <vector>

#include <cooperative_groups.h>

#include "check.h"

namespace cg = cooperative_groups;

// A stencil in shared memory: threads do unequal work between the barriers of a uniform loop.
__global__ void stencil(const int *in, int *out, int steps) {
    __shared__ int cells[2][256];
    int t = threadIdx.x, size = blockDim.x;
    cells[0][t] = in[blockIdx.x * size + t];
    __syncthreads();
    for (int step = 0; step < steps; step++) {
        int from = step % 2;
        int value = cells[from][(t + 1) % size] + cells[from][(t + size - 1) % size];
        // Collatz: the number of rounds differs from thread to thread.
        int n = (value & 63) + 1, rounds = 0;
        while (n != 1) {
            n = n % 2 ? 3 * n + 1 : n / 2;
            rounds++;
        }
        if (rounds % 3 == 0) {
            cells[1 - from][t] = (value + rounds) & 0xffff;
            asm volatile("barrier.sync 0;" ::: "memory");
        } else {
            cells[1 - from][t] = (value ^ rounds) & 0xffff;
            // Not the same instruction as above, but the same barrier: allowed without .aligned.
            asm volatile("barrier.sync 0;" ::: "memory");
        }
    }
    out[blockIdx.x * size + t] = cells[steps % 2][t];
}

// Threads beyond the end leave at once; the others go on through barriers.
__global__ void early_exit(int *out, int count) {
    __shared__ int sum;
    if (threadIdx.x == 0)
        sum = 0;
    __syncthreads();
    if (static_cast<int>(threadIdx.x) >= count)
        return;
    for (int i = 0; i < 5; i++) {
        atomicAdd(&sum, 1);
        __syncthreads();
        if (threadIdx.x == 0)
            out[i] = sum;
        __syncthreads();
    }
}

__global__ void reductions(const int *in, int *out) {
    int value = in[threadIdx.x];
    int positive = __syncthreads_count(value > 500);
    int all = __syncthreads_and(value >= 0);
    int any = __syncthreads_or(value == in[17]);
    if (threadIdx.x == blockDim.x - 1) {
        out[0] = positive;
        out[1] = all != 0;
        out[2] = any != 0;
    }
}

// Producer warps arrive, consumer warps wait: named barriers with a thread count.
__global__ void producer_consumer(int *out) {
    __shared__ int slot[64];
    int t = threadIdx.x;
    if (t < 64) {
        for (int round = 0; round < 4; round++) {
            slot[t] = round * 100 + t;
            asm volatile("bar.arrive 1, 128;" ::: "memory");
            asm volatile("bar.sync 2, 128;" ::: "memory");
        }
    } else {
        int sum = 0;
        for (int round = 0; round < 4; round++) {
            asm volatile("bar.sync 1, 128;" ::: "memory");
            sum += slot[127 - t];
            asm volatile("bar.arrive 2, 128;" ::: "memory");
        }
        out[t - 64] = sum;
    }
}

template <typename Group> __device__ int group_sum(const Group &group, int value) {
    for (int offset = group.size() / 2; offset > 0; offset /= 2)
        value += group.shfl_xor(value, offset);
    return value;
}

__global__ void groups(const int *in, int *out) {
    __shared__ int sums[32];
    cg::thread_block block = cg::this_thread_block();
    auto tile = cg::tiled_partition<8>(block);
    int value = in[block.thread_rank()];
    int tile_sum = group_sum(tile, value);
    if (tile.thread_rank() == 0)
        sums[block.thread_rank() / 8] = tile_sum;
    block.sync();
    auto warp = cg::tiled_partition<32>(block);
    int total = 0;
    if (warp.meta_group_rank() == 0) {
        int tiles = block.size() / 8;
        total = group_sum(warp, static_cast<int>(warp.thread_rank()) < tiles ? sums[warp.thread_rank()] : 0);
    }
    // Threads that happen to be together form a group.
    int odd_count = 0;
    if (value % 2) {
        cg::coalesced_group together = cg::coalesced_threads();
        odd_count = together.size() - together.thread_rank();
        together.sync();
    }
    unsigned biggest = tile.ballot(value > 500);
    tile.sync();
    out[block.thread_rank()] = tile_sum;
    out[block.size() + block.thread_rank()] = __popc(biggest) + (tile.any(value < 0) ? 1000 : 0);
    if (block.thread_rank() == 0)
        out[2 * block.size()] = total;
    out[2 * block.size() + 1 + block.thread_rank()] = odd_count;
}

int main() {
    const int threads = 200, blocks = 6, count = threads * blocks, steps = 17;
    std::vector<int> in(count), out(count), expected(count);
    Lcg random(23);
    for (int &x : in)
        x = static_cast<int>(random.next() % 1000);
    int *device_in, *device_out;
    CHECK(cudaMalloc(&device_in, count * sizeof(int)));
    CHECK(cudaMalloc(&device_out, count * sizeof(int)));
    CHECK(cudaMemcpy(device_in, in.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    stencil<<<blocks, threads>>>(device_in, device_out, steps);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, count * sizeof(int), cudaMemcpyDeviceToHost));
    for (int block = 0; block < blocks; block++) {
        std::vector<int> cells(in.begin() + block * threads, in.begin() + (block + 1) * threads), next(threads);
        for (int step = 0; step < steps; step++) {
            for (int t = 0; t < threads; t++) {
                int value = cells[(t + 1) % threads] + cells[(t + threads - 1) % threads];
                int n = (value & 63) + 1, rounds = 0;
                while (n != 1) {
                    n = n % 2 ? 3 * n + 1 : n / 2;
                    rounds++;
                }
                next[t] = (rounds % 3 == 0 ? value + rounds : value ^ rounds) & 0xffff;
            }
            cells.swap(next);
        }
        for (int t = 0; t < threads; t++)
            EXPECT(out[block * threads + t] == cells[t], "block %d cell %d: %d, not %d", block, t, out[block * threads + t], cells[t]);
    }
    printf("barrier_loop: %d steps of a stencil: equal\n", steps);

    early_exit<<<1, 256>>>(device_out, 70);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, 5 * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 5; i++)
        EXPECT(out[i] == 70 * (i + 1), "round %d: %d", i, out[i]);
    printf("barrier_loop: threads that left are not waited for\n");

    reductions<<<1, threads>>>(device_in, device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, 3 * sizeof(int), cudaMemcpyDeviceToHost));
    int positive = 0;
    for (int t = 0; t < threads; t++)
        positive += in[t] > 500 ? 1 : 0;
    EXPECT(out[0] == positive && out[1] == 1 && out[2] == 1, "%d %d %d", out[0], out[1], out[2]);
    printf("barrier_loop: barrier with count, and, or: equal\n");

    producer_consumer<<<3, 128>>>(device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, 64 * sizeof(int), cudaMemcpyDeviceToHost));
    for (int t = 0; t < 64; t++)
        EXPECT(out[t] == 600 + 4 * (63 - t), "consumer %d: %d", t, out[t]);
    printf("barrier_loop: named barriers between warps: equal\n");

    const int group_threads = 128;
    groups<<<1, group_threads>>>(device_in, device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, (3 * group_threads + 1) * sizeof(int), cudaMemcpyDeviceToHost));
    int total = 0;
    for (int t = 0; t < group_threads; t++) {
        int sum = 0, big = 0;
        for (int k = 0; k < 8; k++) {
            sum += in[t / 8 * 8 + k];
            big += in[t / 8 * 8 + k] > 500 ? 1 : 0;
        }
        total += in[t];
        EXPECT(out[t] == sum, "tile of %d: %d, not %d", t, out[t], sum);
        EXPECT(out[group_threads + t] == big, "ballot of %d: %d, not %d", t, out[group_threads + t], big);
        int odd = out[2 * group_threads + 1 + t];
        EXPECT(in[t] % 2 ? odd >= 1 && odd <= 32 : odd == 0, "coalesced group of %d: %d", t, odd);
    }
    EXPECT(out[2 * group_threads] == total, "%d, not %d", out[2 * group_threads], total);
    printf("barrier_loop: cooperative groups: equal\n");
    CHECK(cudaFree(device_in));
    CHECK(cudaFree(device_out));
    return pass();
}
