#include <mma.h>
#include <cooperative_groups.h>
#include <cuda/barrier>
using namespace nvcuda;
namespace cg = cooperative_groups;
extern "C" __global__ void wm(half *a, half *b, float *c) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa; wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> fb; wmma::fragment<wmma::accumulator, 16, 16, 16, float> fc;
    wmma::fill_fragment(fc, 0.f); wmma::load_matrix_sync(fa, a, 16); wmma::load_matrix_sync(fb, b, 16); wmma::mma_sync(fc, fa, fb, fc); wmma::store_matrix_sync(c, fc, 16, wmma::mem_row_major);
}
extern "C" __global__ void __cluster_dims__(2, 1, 1) cluster(int *x) { auto c = cg::this_cluster(); __shared__ int s; s = threadIdx.x; c.sync(); x[c.block_rank()] = *c.map_shared_rank(&s, 0); c.sync(); }
extern "C" __global__ void pipe(float *g, float *o) {
    __shared__ float s[256]; __shared__ cuda::barrier<cuda::thread_scope_block> bar;
    if (threadIdx.x == 0) init(&bar, blockDim.x); __syncthreads();
    cuda::memcpy_async(s + threadIdx.x * 4, g + threadIdx.x * 4, cuda::aligned_size_t<16>(16), bar);
    bar.arrive_and_wait(); o[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void grid(int *x) { cg::this_grid().sync(); x[0] = __reduce_add_sync(~0u, x[1]); cudaGridDependencySynchronize(); cudaTriggerProgrammaticLaunchCompletion(); }
