// Device code for driver_fatbin: no host part, C names.
extern "C" {

__constant__ float weights[5];
__device__ int blocks_run;

// One-dimensional convolution with the weights in constant memory.
__global__ void convolve(const float *in, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x == 0)
        atomicAdd(&blocks_run, 1);
    if (i >= count)
        return;
    float sum = 0.0f;
    for (int k = -2; k <= 2; k++) {
        int at = i + k;
        if (at >= 0 && at < count)
            sum = fmaf(in[at], weights[k + 2], sum);
    }
    out[i] = sum;
}

// Transposes through a shared tile.
__global__ void transpose(const double *in, double *out, int size) {
    __shared__ double tile[16][17];
    int x = blockIdx.x * 16 + threadIdx.x, y = blockIdx.y * 16 + threadIdx.y;
    if (x < size && y < size)
        tile[threadIdx.y][threadIdx.x] = in[y * size + x];
    __syncthreads();
    x = blockIdx.y * 16 + threadIdx.x;
    y = blockIdx.x * 16 + threadIdx.y;
    if (x < size && y < size)
        out[y * size + x] = tile[threadIdx.x][threadIdx.y];
}

__global__ void busy(unsigned *out, int steps) {
    unsigned x = threadIdx.x;
    for (int i = 0; i < steps; i++)
        x = x * 1664525u + 1013904223u;
    out[threadIdx.x] = x;
}

}
