// Kernels of the micro benchmarks, as a fatbin of some 100 KiB: the size of a small library's module.

extern "C" __global__ void empty() {}

extern "C" __global__ void with_parameters(float *out, float a, float b, int n, unsigned long long flags, const float *in) {
    if (n < 0)
        out[threadIdx.x] = a * in[threadIdx.x] + b + static_cast<float>(flags);
}

// Runs for about `cycles` of the processor's clock.
extern "C" __global__ void busy(long long cycles) {
    const long long begin = clock64();
    while (clock64() - begin < cycles) {
    }
}

// Something to fill the module with: unrolled arithmetic, different in each instance.
template <int SEED> __device__ float mix(float x) {
    float y = x + SEED;
#pragma unroll
    for (int i = 1; i <= 48; i++)
        y = fmaf(y, x + static_cast<float>((SEED * 7919 + i * 104729) % 1009), static_cast<float>(i ^ SEED));
    return y;
}

#define FILLER(number)                                                                                                 \
    extern "C" __global__ void filler_##number(float *data) {                                                          \
        data[threadIdx.x] = mix<number>(data[threadIdx.x]);                                                            \
    }
#define FILLER_4(n) FILLER(n##0) FILLER(n##1) FILLER(n##2) FILLER(n##3)
FILLER_4(1) FILLER_4(2) FILLER_4(3) FILLER_4(4) FILLER_4(5) FILLER_4(6) FILLER_4(7) FILLER_4(8)
FILLER_4(10) FILLER_4(11) FILLER_4(12) FILLER_4(13) FILLER_4(14) FILLER_4(15) FILLER_4(16) FILLER_4(17)
