// Grids and blocks of all shapes: three dimensions, full blocks, very many small blocks, very many launches.
#include <vector>

#include "check.h"

__global__ void indices(unsigned *out) {
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned i = block * blockDim.x * blockDim.y * blockDim.z + thread;
    out[i] = blockIdx.x + blockIdx.y * 10 + blockIdx.z * 100 + threadIdx.x * 1000 + threadIdx.y * 100000 + threadIdx.z * 10000000;
}

__global__ void full_block(int *out) {
    __shared__ int values[1024];
    int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    values[t] = t * t;
    __syncthreads();
    out[blockIdx.x * 1024 + t] = values[1023 - t];
}

__global__ void count_blocks(unsigned long long *sum) {
    if (threadIdx.x == 0)
        atomicAdd(sum, static_cast<unsigned long long>(blockIdx.y) * gridDim.x + blockIdx.x);
}

__global__ void increment(int *value) { *value += 1; }

// Many local variables: more than registers hold, with dynamic indices.
__global__ void local_arrays(int *out) {
    int values[300];
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = 0; i < 300; i++)
        values[i] = i * t;
    int index = t % 300, sum = 0;
    for (int i = 0; i < 300; i++) {
        sum += values[index] ^ i;
        index = (index + 7 + values[i] % 3) % 300;
    }
    out[t] = sum;
}

int main() {
    const dim3 grid(5, 7, 3), block(8, 4, 2);
    const unsigned count = 5 * 7 * 3 * 8 * 4 * 2;
    std::vector<unsigned> out(count);
    unsigned *device;
    CHECK(cudaMalloc(&device, 1 << 20));
    indices<<<grid, block>>>(device);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device, count * sizeof(unsigned), cudaMemcpyDeviceToHost));
    unsigned i = 0;
    for (unsigned bz = 0; bz < 3; bz++)
        for (unsigned by = 0; by < 7; by++)
            for (unsigned bx = 0; bx < 5; bx++)
                for (unsigned tz = 0; tz < 2; tz++)
                    for (unsigned ty = 0; ty < 4; ty++)
                        for (unsigned tx = 0; tx < 8; tx++, i++) {
                            unsigned expected = bx + by * 10 + bz * 100 + tx * 1000 + ty * 100000 + tz * 10000000;
                            EXPECT(out[i] == expected, "%u: %u, not %u", i, out[i], expected);
                        }
    printf("big_grid: 5x7x3 blocks of 8x4x2 threads: equal\n");

    const dim3 full[] = {dim3(1024), dim3(16, 64), dim3(2, 512), dim3(16, 1, 64), dim3(1, 1024)};
    for (const dim3 &shape : full) {
        full_block<<<3, shape>>>(reinterpret_cast<int *>(device));
        CHECK_KERNEL();
        std::vector<int> values(3 * 1024);
        CHECK(cudaMemcpy(values.data(), device, values.size() * sizeof(int), cudaMemcpyDeviceToHost));
        for (int t = 0; t < 3 * 1024; t++)
            EXPECT(values[t] == (1023 - t % 1024) * (1023 - t % 1024), "%ux%ux%u, %d", shape.x, shape.y, shape.z, t);
    }
    printf("big_grid: blocks of 1024 threads in 5 shapes: equal\n");

    unsigned long long *sum, value = 0;
    CHECK(cudaMalloc(&sum, sizeof(value)));
    for (dim3 many : {dim3(100000), dim3(3, 65535), dim3(65536, 2)}) {
        CHECK(cudaMemset(sum, 0, sizeof(value)));
        count_blocks<<<many, 1>>>(sum);
        CHECK_KERNEL();
        CHECK(cudaMemcpy(&value, sum, sizeof(value), cudaMemcpyDeviceToHost));
        unsigned long long blocks = static_cast<unsigned long long>(many.x) * many.y;
        EXPECT(value == blocks * (blocks - 1) / 2, "%llu", value);
        printf("big_grid: %llu blocks: equal\n", blocks);
    }

    int launches = 5000, counter = 0;
    CHECK(cudaMemset(device, 0, sizeof(int)));
    for (int k = 0; k < launches; k++)
        increment<<<1, 1>>>(reinterpret_cast<int *>(device));
    CHECK_KERNEL();
    CHECK(cudaMemcpy(&counter, device, sizeof(int), cudaMemcpyDeviceToHost));
    EXPECT(counter == launches, "%d", counter);
    printf("big_grid: %d launches in order: equal\n", launches);

    const int threads = 20 * 64;
    local_arrays<<<20, 64>>>(reinterpret_cast<int *>(device));
    CHECK_KERNEL();
    std::vector<int> sums(threads);
    CHECK(cudaMemcpy(sums.data(), device, threads * sizeof(int), cudaMemcpyDeviceToHost));
    for (int t = 0; t < threads; t++) {
        int index = t % 300, expected = 0;
        for (int k = 0; k < 300; k++) {
            expected += (index * t) ^ k;
            index = (index + 7 + k * t % 3) % 300;
        }
        EXPECT(sums[t] == expected, "local arrays %d: %d, not %d", t, sums[t], expected);
    }
    printf("big_grid: local arrays: equal\n");
    CHECK(cudaFree(device));
    CHECK(cudaFree(sum));
    return pass();
}
