// Work that the kernels dominate: an all-pairs n-body step, and the cost of a launch by the runtime's <<<>>>.
#include "bench.h"

#include <cuda_runtime.h>

#define CUDA(call)                                                                                                     \
    do {                                                                                                               \
        cudaError_t error_ = (call);                                                                                   \
        if (error_ != cudaSuccess)                                                                                     \
            throw Failure{#call, error_};                                                                              \
    } while (0)

constexpr int THREADS = 256;

__global__ void step(const float4 *from, float4 *to, float4 *velocity, int count, float dt) {
    __shared__ float4 tile[THREADS];
    const int me = blockIdx.x * THREADS + threadIdx.x;
    const float4 mine = from[me];
    float x = 0, y = 0, z = 0;
    for (int start = 0; start < count; start += THREADS) {
        tile[threadIdx.x] = from[start + threadIdx.x];
        __syncthreads();
#pragma unroll 16
        for (int i = 0; i < THREADS; i++) {
            const float4 other = tile[i];
            const float dx = other.x - mine.x, dy = other.y - mine.y, dz = other.z - mine.z;
            const float inverse = rsqrtf(dx * dx + dy * dy + dz * dz + 1e-3f);
            const float force = other.w * inverse * inverse * inverse;
            x += dx * force;
            y += dy * force;
            z += dz * force;
        }
        __syncthreads();
    }
    float4 v = velocity[me];
    v.x += x * dt;
    v.y += y * dt;
    v.z += z * dt;
    velocity[me] = v;
    to[me] = make_float4(mine.x + v.x * dt, mine.y + v.y * dt, mine.z + v.z * dt, mine.w);
}

__global__ void empty(int) {}

int main() {
    const bool small = getenv("BENCH_SMALL") != nullptr;
    const int count = small ? 1024 : 65536;
    try {
        std::vector<float4> bodies(count);
        unsigned state = 1;
        auto random = [&] { return static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / (1 << 24) - 0.5f; };
        for (float4 &body : bodies)
            body = make_float4(random(), random(), random(), 1.0f / count);
        const size_t bytes = count * sizeof(float4);
        float4 *positions[2], *velocity;
        CUDA(cudaMalloc(&positions[0], bytes));
        CUDA(cudaMalloc(&positions[1], bytes));
        CUDA(cudaMalloc(&velocity, bytes));
        CUDA(cudaMemcpy(positions[0], bodies.data(), bytes, cudaMemcpyHostToDevice));
        CUDA(cudaMemset(velocity, 0, bytes));
        const int steps = 10;
        const double seconds = median_seconds([&] {
            for (int i = 0; i < steps; i++)
                step<<<count / THREADS, THREADS>>>(positions[i % 2], positions[1 - i % 2], velocity, count, 1e-3f);
            CUDA(cudaGetLastError());
            CUDA(cudaDeviceSynchronize());
        });
        figure("nbody step", seconds / steps * 1e3, "ms", "lower");
        per_operation("runtime launch + device sync", 50, [&] {
            empty<<<1, 32>>>(1);
            CUDA(cudaDeviceSynchronize());
        });
        std::vector<double> times;
        for (int round = 0; round < 12; round++) {
            const double begin = now_s();
            for (int i = 0; i < 500; i++)
                empty<<<1, 32>>>(i);
            times.push_back((now_s() - begin) / 500);
            CUDA(cudaDeviceSynchronize());
        }
        figure("runtime launch issue", median(times) * 1e6, "us", "lower");
    } catch (const Failure &failure) {
        failed("nbody", failure);
        return 1;
    }
    return 0;
}
