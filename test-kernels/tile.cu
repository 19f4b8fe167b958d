// A tile kernel (nvcc 13.3 and newer, -std=c++20 --enable-tile, with tileiras) beside an ordinary one.
#include <cuda_tile.h>

namespace ct = cuda::tiles;
using namespace ct::literals;

__tile_global__ void doubled(float *__restrict__ to, const float *__restrict__ from)
{
    ct::partition_view in{ct::tensor_span{from, ct::extents{1024_ic}}, ct::shape{64_ic}};
    ct::partition_view out{ct::tensor_span{to, ct::extents{1024_ic}}, ct::shape{64_ic}};
    auto block = ct::bid().x;
    out.store(in.load(block) * 2.0f, block);
}

__global__ void ordinary(int *out)
{
    out[threadIdx.x] = 1;
}
