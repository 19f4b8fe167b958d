// Reductions with warp shuffles: whole warps, and a last warp that is only partly there.
#include <climits>
#include <vector>

#include "check.h"

template <typename T> struct Sum {
    static __host__ __device__ T neutral() { return 0; }
    static __host__ __device__ T join(T a, T b) { return a + b; }
};
template <typename T> struct Max {
    static __host__ __device__ T neutral() { return T(-2147483647 - 1); }
    static __host__ __device__ T join(T a, T b) { return a > b ? a : b; }
};

template <typename T, typename Op> __device__ T warp_reduce(unsigned mask, T value) {
    for (int offset = warpSize / 2; offset > 0; offset /= 2)
        value = Op::join(value, __shfl_down_sync(mask, value, offset));
    return value;
}

// One result per block.
template <typename T, typename Op> __global__ void block_reduce(const T *in, T *out, int count) {
    __shared__ T partial[32];
    T value = Op::neutral();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        value = Op::join(value, in[i]);
    value = warp_reduce<T, Op>(0xffffffffu, value);
    int lane = threadIdx.x % warpSize, warp = threadIdx.x / warpSize;
    if (lane == 0)
        partial[warp] = value;
    __syncthreads();
    if (warp == 0) {
        int warps = blockDim.x / warpSize;
        // Only as many lanes as there are warps take part: a partial mask inside a divergent branch.
        unsigned mask = __ballot_sync(0xffffffffu, lane < warps);
        if (lane < warps) {
            value = partial[lane];
            for (int offset = warps / 2; offset > 0; offset /= 2)
                value = Op::join(value, __shfl_down_sync(mask, value, offset, warps));
            if (lane == 0)
                out[blockIdx.x] = value;
        }
    }
}

// A block whose last warp has 8 threads only: every lane gets the sum of its group of 8 by a butterfly.
__global__ void groups_of_8(const int *in, int *out) {
    int i = threadIdx.x;
    unsigned mask = i < 64 ? 0xffffffffu : 0xffu;
    int value = in[i];
    for (int step = 1; step < 8; step *= 2)
        value += __shfl_xor_sync(mask, value, step, 8);
    out[i] = value;
}

template <typename T, typename Op> T reduce(const std::vector<T> &values, int blocks, int threads) {
    T *in, *out;
    CHECK(cudaMalloc(&in, values.size() * sizeof(T)));
    CHECK(cudaMalloc(&out, blocks * sizeof(T)));
    CHECK(cudaMemcpy(in, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    block_reduce<T, Op><<<blocks, threads>>>(in, out, static_cast<int>(values.size()));
    CHECK_KERNEL();
    std::vector<T> partial(blocks);
    CHECK(cudaMemcpy(partial.data(), out, blocks * sizeof(T), cudaMemcpyDeviceToHost));
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
    T result = Op::neutral();
    for (T value : partial)
        result = Op::join(result, value);
    return result;
}

int main() {
    const int count = 200003;
    Lcg random(7);
    std::vector<int> ints(count);
    std::vector<long long> longs(count);
    std::vector<double> doubles(count);
    long long int_sum = 0, long_sum = 0;
    int int_max = INT_MIN;
    double double_sum = 0;
    for (int i = 0; i < count; i++) {
        ints[i] = static_cast<int>(random.next() % 10001) - 5000;
        longs[i] = static_cast<long long>(random.next()) * 1003 - 12345;
        doubles[i] = random.next_float();
        int_sum += ints[i];
        long_sum += longs[i];
        int_max = std::max(int_max, ints[i]);
        double_sum += doubles[i];
    }
    int sum = reduce<int, Sum<int>>(ints, 12, 256);
    EXPECT(sum == int_sum, "%d, not %lld", sum, int_sum);
    printf("reduction: int sum of %d elements: %d\n", count, sum);
    int max = reduce<int, Max<int>>(ints, 7, 64);
    EXPECT(max == int_max, "%d, not %d", max, int_max);
    printf("reduction: int max: %d\n", max);
    long long wide = reduce<long long, Sum<long long>>(longs, 5, 1024);
    EXPECT(wide == long_sum, "%lld, not %lld", wide, long_sum);
    printf("reduction: 64-bit sum: %lld\n", wide);
    // 24-bit fractions: every partial sum is exact in a double, so the order does not matter.
    double real = reduce<double, Sum<double>>(doubles, 9, 128);
    EXPECT(real == double_sum, "%.17g, not %.17g", real, double_sum);
    printf("reduction: double sum: equal\n");

    const int threads = 72;
    int *in, *out, result[threads];
    CHECK(cudaMalloc(&in, sizeof(result)));
    CHECK(cudaMalloc(&out, sizeof(result)));
    CHECK(cudaMemcpy(in, ints.data(), sizeof(result), cudaMemcpyHostToDevice));
    groups_of_8<<<1, threads>>>(in, out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(result, out, sizeof(result), cudaMemcpyDeviceToHost));
    for (int i = 0; i < threads; i++) {
        int expected = 0;
        for (int k = 0; k < 8; k++)
            expected += ints[i / 8 * 8 + k];
        EXPECT(result[i] == expected, "group of thread %d: %d, not %d", i, result[i], expected);
    }
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
    printf("reduction: groups of 8 in %d threads: equal\n", threads);
    return pass();
}
