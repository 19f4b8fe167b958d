// 256-bin histograms: atomics in global memory, and per-block histograms in shared memory that are then merged.
#include <vector>

#include "check.h"

const int BINS = 256;

__global__ void histogram_global(const unsigned char *data, int count, unsigned *bins) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        atomicAdd(&bins[data[i]], 1u);
}

__global__ void histogram_shared(const unsigned char *data, int count, unsigned *bins) {
    __shared__ unsigned local[BINS];
    for (int bin = threadIdx.x; bin < BINS; bin += blockDim.x)
        local[bin] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        atomicAdd(&local[data[i]], 1u);
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += blockDim.x)
        if (local[bin] != 0)
            atomicAdd(&bins[bin], local[bin]);
}

int main() {
    const int count = 1 << 20;
    std::vector<unsigned char> data(count);
    std::vector<unsigned> expected(BINS, 0), bins(BINS);
    Lcg random(11);
    for (unsigned char &x : data) {
        // Few values are frequent: many threads meet on the same bin.
        unsigned r = random.next();
        x = r % 4 == 0 ? r >> 24 : (r >> 24) % 8;
        expected[x]++;
    }
    unsigned char *device_data;
    unsigned *device_bins;
    CHECK(cudaMalloc(&device_data, count));
    CHECK(cudaMalloc(&device_bins, BINS * sizeof(unsigned)));
    CHECK(cudaMemcpy(device_data, data.data(), count, cudaMemcpyHostToDevice));
    for (int shared = 0; shared < 2; shared++) {
        CHECK(cudaMemset(device_bins, 0, BINS * sizeof(unsigned)));
        if (shared)
            histogram_shared<<<24, 192>>>(device_data, count, device_bins);
        else
            histogram_global<<<24, 192>>>(device_data, count, device_bins);
        CHECK_KERNEL();
        CHECK(cudaMemcpy(bins.data(), device_bins, BINS * sizeof(unsigned), cudaMemcpyDeviceToHost));
        for (int bin = 0; bin < BINS; bin++)
            EXPECT(bins[bin] == expected[bin], "bin %d: %u, not %u", bin, bins[bin], expected[bin]);
        printf("histogram: %s atomics, %d bytes: equal\n", shared ? "shared" : "global", count);
    }
    CHECK(cudaFree(device_data));
    CHECK(cudaFree(device_bins));
    return pass();
}
