#include <cstdio>
#include <cassert>
#include <cuda_fp16.h>
__constant__ float coeff[16] = {1.f, 2.f, 3.f};
__device__ int counter = 7;
__device__ int *pointer = &counter;
__device__ const char *words[3] = {"alpha", "beta", "gamma"};
__managed__ double managed_value = 2.5;
struct Pod { int a; double b; char c[5]; };
__device__ Pod pods[2] = {{1, 2.0, "abcd"}, {3, 4.0, "efgh"}};

extern "C" __global__ void vector_add(const float *a, const float *b, float *c, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}
extern "C" __global__ void by_value(Pod pod, float4 v, char tail, double *out) {
    out[threadIdx.x] = pod.a + pod.b + pod.c[threadIdx.x] + v.x + v.w + tail + coeff[threadIdx.x & 15];
}
extern "C" __global__ void __launch_bounds__(256, 2) reduce(const int *in, int *out, int n) {
    extern __shared__ int dynamic[];
    __shared__ int fixed[32];
    int v = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) v += in[i];
    for (int d = 16; d; d >>= 1) v += __shfl_down_sync(0xffffffffu, v, d);
    if ((threadIdx.x & 31) == 0) fixed[threadIdx.x >> 5] = v;
    dynamic[threadIdx.x] = v;
    __syncthreads();
    if (threadIdx.x == 0) { int s = 0; for (int i = 0; i < 8; i++) s += fixed[i] + dynamic[i]; atomicAdd(out, s); atomicAdd(&counter, 1); }
}
__device__ __noinline__ float helper(float x, int n) { for (int i = 0; i < n; i++) x = sinf(x) * 1.5f; return x; }
__device__ float fa(float x) { return x + 1; }
__device__ float fb(float x) { return x * 2; }
typedef float (*fn)(float);
__device__ fn table[2] = {fa, fb};
extern "C" __global__ void calls(float *x, int which) {
    x[0] = helper(x[0], which);
    x[1] = table[which](x[1]);
    printf("value %f of %d\n", x[0], which);
    assert(x[1] > 0);
}
extern "C" __global__ void switcher(int *x, int k) {
    switch (k) {
        case 0: x[0] = 1; break; case 1: x[1] = x[5] * 2; break; case 2: x[2] = 7; break; case 3: x[3] -= 5; break;
        case 4: x[4] = x[3] ^ 9; break; case 5: atomicMax(x + 5, 4); break; case 6: x[6] = clock(); break; case 7: __threadfence(); x[7] = 1; break;
        default: x[9] = 0;
    }
}
extern "C" __global__ void local_array(int *x, int k) { int buf[24]; for (int i = 0; i < 24; i++) buf[i] = x[i]; x[0] = buf[k] + buf[(k * 7) % 24]; }
extern "C" __global__ void halves(__half2 *a, __half *b) { a[0] = __hfma2(a[0], a[1], a[2]); b[0] = __float2half(__half2float(b[1]) + 1.f); }
extern "C" __global__ void inline_asm(unsigned *x) {
    unsigned r; asm volatile("{ .reg .pred p; .reg .u32 t; setp.ne.u32 p, %1, 0; @p bra DONE; mov.u32 t, 5; add.u32 %0, t, %1; DONE: }" : "=r"(r) : "r"(x[0]));
    x[1] = r;
    asm volatile("{ .reg .pred p; .reg .u32 t; setp.ne.u32 p, %1, 0; @p bra DONE; mov.u32 t, 5; add.u32 %0, t, %1; DONE: }" : "=r"(r) : "r"(x[2]));
    x[3] = r + __popc(x[4]) + __ballot_sync(~0u, x[5]) ;
}
extern "C" __global__ void mallocs(void **p) { p[0] = malloc(16); free(p[1]); }
extern "C" __global__ void textures(cudaTextureObject_t t, cudaSurfaceObject_t s, float4 *o) { o[0] = tex2D<float4>(t, 1.5f, 2.f); float f = tex3D<float>(t, 1, 2, 3); surf2Dwrite(f, s, 4, 4); }
