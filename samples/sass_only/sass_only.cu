// Built with machine code alone: no backend that compiles PTX can run it. Prints what the runtime says.
#include <cstdio>

__global__ void set(int *where) { *where = 1; }

int main() {
    int *memory;
    cudaError_t allocated = cudaMalloc(&memory, 4);
    set<<<1, 1>>>(memory);
    cudaError_t launched = cudaGetLastError();
    printf("%s\n%d %s\n", cudaGetErrorName(allocated), launched, cudaGetErrorName(launched));
    // The context is as good as before.
    printf("%s\n", cudaGetErrorName(cudaMemset(memory, 0, 4)));
    return 0;
}
