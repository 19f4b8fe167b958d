// Warp-level operations: shuffles of all kinds and types, votes, ballots, matches, active masks, warp barriers.
#include <vector>

#include "check.h"

const int LANES = 32;

__global__ void shuffles(const int *in, int *out) {
    int lane = threadIdx.x, value = in[lane];
    out[0 * LANES + lane] = __shfl_sync(0xffffffffu, value, 5);
    out[1 * LANES + lane] = __shfl_sync(0xffffffffu, value, lane * 7);
    out[2 * LANES + lane] = __shfl_up_sync(0xffffffffu, value, 3);
    out[3 * LANES + lane] = __shfl_down_sync(0xffffffffu, value, 6);
    out[4 * LANES + lane] = __shfl_xor_sync(0xffffffffu, value, 9);
    out[5 * LANES + lane] = __shfl_sync(0xffffffffu, value, lane + 3, 8);
    out[6 * LANES + lane] = __shfl_up_sync(0xffffffffu, value, 2, 16);
    out[7 * LANES + lane] = __shfl_down_sync(0xffffffffu, value, 1, 4);
    out[8 * LANES + lane] = __shfl_xor_sync(0xffffffffu, value, 17, 16);
    double wide = __shfl_xor_sync(0xffffffffu, value * 1.5, 1);
    out[9 * LANES + lane] = static_cast<int>(wide * 2);
    long long large = __shfl_sync(0xffffffffu, static_cast<long long>(value) << 33, 31 - lane);
    out[10 * LANES + lane] = static_cast<int>(large >> 33);
    float real = __shfl_down_sync(0xffffffffu, static_cast<float>(value), 16);
    out[11 * LANES + lane] = static_cast<int>(real);
}

int shuffle_reference(int which, int lane, const int *in) {
    // Source lane, or the own lane if that is outside the segment.
    auto within = [&](int source, int width, bool ok) { return in[ok ? source : lane]; };
    switch (which) {
    case 0:
        return in[5];
    case 1:
        return in[lane * 7 % 32];
    case 2:
        return within(lane - 3, 32, lane >= 3);
    case 3:
        return within(lane + 6, 32, lane + 6 < 32);
    case 4:
        return in[lane ^ 9];
    case 5:
        return in[lane / 8 * 8 + (lane + 3) % 8];
    case 6:
        return within(lane - 2, 16, lane % 16 >= 2);
    case 7:
        return within(lane + 1, 4, lane % 4 < 3);
    case 8:
        // Beyond the end of the own segment of 16: allowed towards lower lanes only.
        return within(lane ^ 17, 16, (lane ^ 17) <= (lane | 15));
    case 9:
        return in[lane ^ 1] * 3;
    case 10:
        return in[31 - lane];
    default:
        return within(lane + 16, 32, lane < 16);
    }
}

__global__ void votes(const int *in, unsigned *out) {
    int lane = threadIdx.x, value = in[lane];
    out[0 * LANES + lane] = __ballot_sync(0xffffffffu, value % 3 == 0);
    out[1 * LANES + lane] = __any_sync(0xffffffffu, value == in[20]);
    out[2 * LANES + lane] = __all_sync(0xffffffffu, value >= 0);
    out[3 * LANES + lane] = __all_sync(0xffffffffu, lane != 13);
    out[4 * LANES + lane] = __match_any_sync(0xffffffffu, value % 4);
    int all_equal = 0;
    out[5 * LANES + lane] = __match_all_sync(0xffffffffu, 77, &all_equal);
    out[6 * LANES + lane] = all_equal;
    out[7 * LANES + lane] = __match_all_sync(0xffffffffu, lane / 31, &all_equal);
    out[8 * LANES + lane] = all_equal;
    out[9 * LANES + lane] = __match_any_sync(0xffffffffu, static_cast<unsigned long long>(value % 2) << 40);
    // In a branch: masks name the lanes that take part.
    unsigned result = 0;
    if (lane % 2 == 0)
        result = __ballot_sync(0x55555555u, lane < 10);
    else
        result = __ballot_sync(0xaaaaaaaau, lane > 20) | 0x10000u;
    out[10 * LANES + lane] = result;
    __syncwarp();
    out[11 * LANES + lane] = __activemask();
}

// Exchange through shared memory with warp barriers, neighbouring lanes diverging in between.
__global__ void warp_barriers(int *out) {
    __shared__ int cells[LANES * 2];
    int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    int *own = cells + warp * LANES;
    own[lane] = lane;
    for (int step = 1; step < LANES; step *= 2) {
        __syncwarp();
        int value = own[(lane + step) % LANES];
        if (lane % 3 == 0)
            value += 0;
        __syncwarp();
        own[lane] += value;
    }
    __syncwarp();
    out[threadIdx.x] = own[lane];
}

// Warp-aggregated atomic: the lanes of a branch elect a leader that reserves space for all of them.
__global__ void compact(const int *in, int *out, int *used, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    bool keep = i < count && in[i] % 5 < 2;
    unsigned mask = __ballot_sync(0xffffffffu, keep);
    if (keep) {
        int lane = threadIdx.x % LANES, leader = __ffs(mask) - 1;
        int rank = __popc(mask & ((1u << lane) - 1)), base = 0;
        if (lane == leader)
            base = atomicAdd(used, __popc(mask));
        base = __shfl_sync(mask, base, leader);
        out[base + rank] = in[i];
    }
}

// Lanes leave one by one; those that stay keep voting.
__global__ void shrinking(int *out) {
    int lane = threadIdx.x, sum = 0;
    for (int round = 0; round < LANES; round++) {
        unsigned stay = 0xffffffffu << round;
        if (lane < round)
            break;
        sum += __popc(__ballot_sync(stay, lane % 2 == 0));
    }
    out[lane] = sum;
}

int main() {
    int in[LANES];
    Lcg random(13);
    for (int &x : in)
        x = static_cast<int>(random.next() % 1000);
    int *device_in, *device_out;
    const int outputs = 12;
    std::vector<int> out(outputs * LANES);
    CHECK(cudaMalloc(&device_in, 10000 * sizeof(int)));
    CHECK(cudaMalloc(&device_out, 10000 * sizeof(int)));
    CHECK(cudaMemcpy(device_in, in, sizeof(in), cudaMemcpyHostToDevice));
    shuffles<<<1, LANES>>>(device_in, device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, outputs * LANES * sizeof(int), cudaMemcpyDeviceToHost));
    for (int which = 0; which < outputs; which++)
        for (int lane = 0; lane < LANES; lane++) {
            int expected = shuffle_reference(which, lane, in);
            EXPECT(out[which * LANES + lane] == expected, "shuffle %d lane %d: %d, not %d", which, lane, out[which * LANES + lane],
                   expected);
        }
    printf("warp_ops: %d kinds of shuffle: equal\n", outputs);

    votes<<<1, LANES>>>(device_in, reinterpret_cast<unsigned *>(device_out));
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, outputs * LANES * sizeof(int), cudaMemcpyDeviceToHost));
    for (int lane = 0; lane < LANES; lane++) {
        unsigned ballot = 0, match = 0, parity = 0;
        for (int k = 0; k < LANES; k++) {
            ballot |= (in[k] % 3 == 0 ? 1u : 0u) << k;
            match |= (in[k] % 4 == in[lane] % 4 ? 1u : 0u) << k;
            parity |= (in[k] % 2 == in[lane] % 2 ? 1u : 0u) << k;
        }
        unsigned expected[outputs] = {ballot, 1, 1, 0, match, 0xffffffffu, 1, 0, 0, parity,
                                      lane % 2 == 0 ? 0x155u : 0xaaa00000u | 0x10000u, 0xffffffffu};
        for (int which = 0; which < outputs; which++) {
            unsigned have = static_cast<unsigned>(out[which * LANES + lane]);
            EXPECT(have == expected[which], "vote %d lane %d: %#x, not %#x", which, lane, have, expected[which]);
        }
    }
    printf("warp_ops: votes, ballots, matches: equal\n");

    warp_barriers<<<1, 2 * LANES>>>(device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, 2 * LANES * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 2 * LANES; i++)
        EXPECT(out[i] == 496, "lane %d: %d", i, out[i]);
    printf("warp_ops: warp barriers: equal\n");

    const int count = 5000;
    std::vector<int> values(count), kept(count);
    int *used, used_count = 0, expected_count = 0;
    long long sum = 0, expected_sum = 0;
    for (int &x : values) {
        x = static_cast<int>(random.next() % 100000);
        if (x % 5 < 2) {
            expected_count++;
            expected_sum += x;
        }
    }
    CHECK(cudaMalloc(&used, sizeof(int)));
    CHECK(cudaMemset(used, 0, sizeof(int)));
    CHECK(cudaMemcpy(device_in, values.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    compact<<<(count + 127) / 128, 128>>>(device_in, device_out, used, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(&used_count, used, sizeof(int), cudaMemcpyDeviceToHost));
    EXPECT(used_count == expected_count, "%d kept, not %d", used_count, expected_count);
    CHECK(cudaMemcpy(kept.data(), device_out, used_count * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < used_count; i++)
        sum += kept[i];
    EXPECT(sum == expected_sum, "sum %lld, not %lld", sum, expected_sum);
    printf("warp_ops: compaction keeps %d of %d\n", used_count, count);

    shrinking<<<1, LANES>>>(device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, LANES * sizeof(int), cudaMemcpyDeviceToHost));
    for (int lane = 0; lane < LANES; lane++) {
        int expected = 0;
        for (int round = 0; round <= lane; round++)
            expected += (LANES - round) / 2;
        EXPECT(out[lane] == expected, "shrinking lane %d: %d, not %d", lane, out[lane], expected);
    }
    printf("warp_ops: lanes that leave: equal\n");
    CHECK(cudaFree(device_in));
    CHECK(cudaFree(device_out));
    CHECK(cudaFree(used));
    return pass();
}
