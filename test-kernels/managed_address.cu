// A managed variable whose value only a loader knows.
__device__ int plain = 7;
__managed__ int *to_plain = &plain;

__global__ void use() { *to_plain = 1; }
