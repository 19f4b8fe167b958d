// Matrix multiplication through shared-memory tiles, for sizes that are no multiple of the tile.
//
// Each element is accumulated with fused multiply-adds in ascending k on both sides, so results are bit-equal.
#include <vector>

#include "check.h"

template <int TILE>
__global__ void matmul(const float *a, const float *b, float *c, int rows, int inner, int columns) {
    __shared__ float tile_a[TILE][TILE];
    __shared__ float tile_b[TILE][TILE + 1];
    int row = blockIdx.y * TILE + threadIdx.y;
    int column = blockIdx.x * TILE + threadIdx.x;
    float sum = 0.0f;
    for (int start = 0; start < inner; start += TILE) {
        int ka = start + threadIdx.x, kb = start + threadIdx.y;
        tile_a[threadIdx.y][threadIdx.x] = row < rows && ka < inner ? a[row * inner + ka] : 0.0f;
        tile_b[threadIdx.y][threadIdx.x] = kb < inner && column < columns ? b[kb * columns + column] : 0.0f;
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TILE; k++)
            sum = fmaf(tile_a[threadIdx.y][k], tile_b[k][threadIdx.x], sum);
        __syncthreads();
    }
    if (row < rows && column < columns)
        c[row * columns + column] = sum;
}

template <int TILE> void multiply(int rows, int inner, int columns) {
    std::vector<float> a(rows * inner), b(inner * columns), c(rows * columns, -1.0f);
    Lcg random(rows + inner + columns);
    for (float &x : a)
        x = random.next_float() - 0.5f;
    for (float &x : b)
        x = random.next_float() - 0.5f;
    float *device_a, *device_b, *device_c;
    CHECK(cudaMalloc(&device_a, a.size() * sizeof(float)));
    CHECK(cudaMalloc(&device_b, b.size() * sizeof(float)));
    CHECK(cudaMalloc(&device_c, c.size() * sizeof(float)));
    CHECK(cudaMemcpy(device_a, a.data(), a.size() * sizeof(float), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_b, b.data(), b.size() * sizeof(float), cudaMemcpyHostToDevice));

    dim3 grid((columns + TILE - 1) / TILE, (rows + TILE - 1) / TILE);
    matmul<TILE><<<grid, dim3(TILE, TILE)>>>(device_a, device_b, device_c, rows, inner, columns);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(c.data(), device_c, c.size() * sizeof(float), cudaMemcpyDeviceToHost));

    for (int row = 0; row < rows; row++) {
        for (int column = 0; column < columns; column++) {
            float sum = 0.0f;
            for (int k = 0; k < inner; k++)
                sum = std::fmaf(a[row * inner + k], b[k * columns + column], sum);
            EXPECT(c[row * columns + column] == sum, "(%d,%d): %.9g, not %.9g", row, column,
                   c[row * columns + column], sum);
        }
    }
    CHECK(cudaFree(device_a));
    CHECK(cudaFree(device_b));
    CHECK(cudaFree(device_c));
    printf("matmul_tiled: %dx%d times %dx%d, tile %d: equal\n", rows, inner, inner, columns, TILE);
}

int main() {
    multiply<16>(160, 128, 96);
    multiply<16>(101, 57, 83);
    multiply<32>(130, 70, 95);
    multiply<8>(1, 300, 1);
    return pass();
}
