// Managed variables: with a value, with zeros, in the middle of an array, known in this file alone.
__device__ int plain = 7;
__managed__ int total = 5;
__managed__ int zero;
static __managed__ double weights[4] = {0.5, 1.5, 2.5, 3.5};

__global__ void use(int i) {
    weights[i] = total + plain;
    zero = i;
}
