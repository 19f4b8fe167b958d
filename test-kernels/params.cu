// Parameters of all shapes: by-value struct with padding, small ones that need alignment, launch bounds, shared memory.
struct Body {
    double mass;
    int id;
    char tag;
};

extern "C" __global__ void __launch_bounds__(128) by_value(char t, Body b, double *out, short s)
{
    __shared__ double tile[32];
    tile[threadIdx.x] = b.mass + b.id + b.tag + t + s;
    __syncthreads();
    *out = tile[31 - threadIdx.x];
}

// More than 4 KB of parameters: the second form of the parameter records.
struct Big {
    int values[1100];
};

extern "C" __global__ void big(Big b, int *out)
{
    *out = b.values[1099];
}
