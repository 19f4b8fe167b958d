// Inclusive prefix sums with dynamic shared memory: per block, then over the block sums.
#include <vector>

#include "check.h"

// Scans one chunk of blockDim.x elements per block (Hillis and Steele, two buffers) and stores the chunk's sum.
__global__ void scan_chunks(const int *in, int *out, int *sums, int count) {
    extern __shared__ int buffer[];
    int *from = buffer, *to = buffer + blockDim.x;
    int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x;
    from[t] = i < count ? in[i] : 0;
    __syncthreads();
    for (int offset = 1; offset < blockDim.x; offset *= 2) {
        to[t] = t >= offset ? from[t] + from[t - offset] : from[t];
        __syncthreads();
        int *swap = from;
        from = to;
        to = swap;
    }
    if (i < count)
        out[i] = from[t];
    if (sums && t == blockDim.x - 1)
        sums[blockIdx.x] = from[t];
}

__global__ void add_offsets(int *out, const int *sums, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (blockIdx.x > 0 && i < count)
        out[i] += sums[blockIdx.x - 1];
}

// More dynamic shared memory than a kernel gets without asking for it.
__global__ void reverse_in_shared(const int *in, int *out, int count) {
    extern __shared__ int buffer[];
    for (int i = threadIdx.x; i < count; i += blockDim.x)
        buffer[i] = in[i];
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x)
        out[i] = buffer[count - 1 - i];
}

int main() {
    const int count = 200001, threads = 512, blocks = (count + threads - 1) / threads;
    std::vector<int> values(count), result(count);
    Lcg random(3);
    for (int &x : values)
        x = static_cast<int>(random.next() % 201) - 100;
    int *in, *out, *sums, *sums_scanned;
    CHECK(cudaMalloc(&in, count * sizeof(int)));
    CHECK(cudaMalloc(&out, count * sizeof(int)));
    CHECK(cudaMalloc(&sums, blocks * sizeof(int)));
    CHECK(cudaMalloc(&sums_scanned, blocks * sizeof(int)));
    CHECK(cudaMemcpy(in, values.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    EXPECT(blocks <= 1024, "%d", blocks);
    scan_chunks<<<blocks, threads, 2 * threads * sizeof(int)>>>(in, out, sums, count);
    scan_chunks<<<1, blocks, 2 * blocks * sizeof(int)>>>(sums, sums_scanned, nullptr, blocks);
    add_offsets<<<blocks, threads>>>(out, sums_scanned, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(result.data(), out, count * sizeof(int), cudaMemcpyDeviceToHost));
    int sum = 0;
    for (int i = 0; i < count; i++) {
        sum += values[i];
        EXPECT(result[i] == sum, "element %d: %d, not %d", i, result[i], sum);
    }
    printf("scan: %d elements, last %d: equal\n", count, result[count - 1]);

    const int large = 60 * 1024 / sizeof(int);
    CHECK(cudaFuncSetAttribute(reverse_in_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, large * sizeof(int)));
    reverse_in_shared<<<1, 1024, large * sizeof(int)>>>(in, out, large);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(result.data(), out, large * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < large; i++)
        EXPECT(result[i] == values[large - 1 - i], "element %d", i);
    printf("scan: %d KiB of dynamic shared memory: equal\n", 60);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
    CHECK(cudaFree(sums));
    CHECK(cudaFree(sums_scanned));
    return pass();
}
