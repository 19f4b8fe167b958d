// Second of two translation units that need device linking.
__device__ int twice(int x)
{
    return 2 * x;
}
