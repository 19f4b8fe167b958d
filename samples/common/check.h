// Error checks and result comparison for the samples that use the CUDA runtime.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <cuda_runtime.h>

// Ends the program with a message if a runtime call fails.
#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        cudaError_t check_error_ = (call);                                                                             \
        if (check_error_ != cudaSuccess) {                                                                             \
            fprintf(stderr, "%s:%d: %s: %s (%s)\n", __FILE__, __LINE__, #call, cudaGetErrorName(check_error_),         \
                    cudaGetErrorString(check_error_));                                                                 \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

// Checks a kernel launch, and that it ran to its end.
#define CHECK_KERNEL()                                                                                                 \
    do {                                                                                                               \
        CHECK(cudaGetLastError());                                                                                     \
        CHECK(cudaDeviceSynchronize());                                                                                \
    } while (0)

// Ends the program with a message if a condition about a result does not hold.
#define EXPECT(condition, ...)                                                                                         \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: expected %s: ", __FILE__, __LINE__, #condition);                                   \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            puts("FAIL");                                                                                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

// The last line of every sample whose checks all held.
inline int pass() {
    puts("PASS");
    return 0;
}

// A small generator, the same on host and device: numbers do not depend on any library.
struct Lcg {
    unsigned long long state;
    __host__ __device__ explicit Lcg(unsigned long long seed) : state(seed * 2862933555777941757ULL + 3037000493ULL) {}
    __host__ __device__ unsigned next() {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        return static_cast<unsigned>(state >> 32);
    }
    // Uniform in [0, 1) with 24 bits: exact in a float.
    __host__ __device__ float next_float() { return static_cast<float>(next() >> 8) * (1.0f / 16777216.0f); }
};
