// First of two translation units that need device linking.
extern __device__ int twice(int x);

extern "C" __global__ void call_twice(int *out, int n)
{
    *out = twice(n);
}
