// What a program waits for at its start: the first call, the first kernel, the first copy.
#include "bench.h"

#include <cuda_runtime.h>

__global__ void add_one(int *value) { *value += 1; }

int main() {
    const double begin = now_s();
    cudaError_t error = cudaFree(nullptr);
    const double first_call = now_s();
    int *memory = nullptr, result = 41;
    if (error == cudaSuccess)
        error = cudaMalloc(&memory, sizeof(int));
    if (error == cudaSuccess)
        error = cudaMemcpy(memory, &result, sizeof(int), cudaMemcpyHostToDevice);
    if (error == cudaSuccess) {
        add_one<<<1, 1>>>(memory);
        error = cudaMemcpy(&result, memory, sizeof(int), cudaMemcpyDeviceToHost);
    }
    const double first_result = now_s();
    if (error != cudaSuccess || result != 42) {
        failed("first CUDA call", Failure{cudaGetErrorName(error), error});
        return 1;
    }
    figure("first CUDA call", (first_call - begin) * 1e3, "ms", "lower");
    figure("first kernel's result after it", (first_result - first_call) * 1e3, "ms", "lower");
    return 0;
}
