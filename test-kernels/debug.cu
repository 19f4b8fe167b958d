// With -G, device functions have attribute sections of their own that are no kernels'.
__device__ __noinline__ int square(int x)
{
    return x * x;
}

extern "C" __global__ void squared(int *out, int n)
{
    *out = square(n);
}
