// Launches by function pointer, extended launches, function attributes, occupancy, host callbacks in streams.
#include <atomic>
#include <vector>

#include "check.h"

struct Pair {
    float a;
    double b;
};

__global__ void combine(const float *in, float *out, Pair pair, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        out[i] = in[i] * pair.a + static_cast<float>(pair.b);
}

__global__ void __launch_bounds__(128) bounded(int *out) {
    __shared__ int scratch[50];
    extern __shared__ char dynamic[];
    int t = threadIdx.x;
    if (t < 50)
        scratch[t] = t;
    dynamic[t] = static_cast<char>(t);
    __syncthreads();
    out[t] = scratch[t % 50] + dynamic[blockDim.x - 1 - t];
}

struct Callback {
    std::atomic<int> calls{0};
    int seen = 0;
    const int *host = nullptr;
};

void CUDART_CB on_host(void *data) {
    Callback *callback = static_cast<Callback *>(data);
    // All earlier work of the stream is done: its results are here.
    callback->seen = callback->host[5];
    callback->calls++;
}

int main() {
    const int count = 1000;
    std::vector<float> in(count), out(count);
    for (int i = 0; i < count; i++)
        in[i] = static_cast<float>(i) * 0.25f;
    float *device_in, *device_out;
    CHECK(cudaMalloc(&device_in, count * sizeof(float)));
    CHECK(cudaMalloc(&device_out, count * sizeof(float)));
    CHECK(cudaMemcpy(device_in, in.data(), count * sizeof(float), cudaMemcpyHostToDevice));
    Pair pair = {2.0f, -1.5};
    int n = count;
    void *arguments[] = {&device_in, &device_out, &pair, &n};
    auto check = [&](const char *how) {
        CHECK_KERNEL();
        CHECK(cudaMemcpy(out.data(), device_out, count * sizeof(float), cudaMemcpyDeviceToHost));
        for (int i = 0; i < count; i++)
            EXPECT(out[i] == in[i] * pair.a - 1.5f, "%s, element %d: %g", how, i, out[i]);
        CHECK(cudaMemset(device_out, 0, count * sizeof(float)));
        printf("launch_api: %s: equal\n", how);
    };
    CHECK(cudaLaunchKernel(reinterpret_cast<const void *>(combine), dim3(8), dim3(128), arguments, 0, 0));
    check("cudaLaunchKernel");
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(8);
    config.blockDim = dim3(128);
    config.stream = stream;
    CHECK(cudaLaunchKernelExC(&config, reinterpret_cast<const void *>(combine), arguments));
    check("cudaLaunchKernelExC");
    CHECK(cudaLaunchKernelEx(&config, combine, static_cast<const float *>(device_in), device_out, pair, n));
    check("cudaLaunchKernelEx");
    CHECK(cudaLaunchCooperativeKernel(reinterpret_cast<const void *>(combine), dim3(8), dim3(128), arguments, 0, stream));
    check("cudaLaunchCooperativeKernel");

    cudaFuncAttributes attributes;
    CHECK(cudaFuncGetAttributes(&attributes, bounded));
    printf("launch_api: static shared memory %zu, constant %s, at most %d threads\n", attributes.sharedSizeBytes,
           attributes.constSizeBytes < 65536 ? "small" : "large", attributes.maxThreadsPerBlock);
    EXPECT(attributes.numRegs > 0 && attributes.numRegs <= 255, "%d registers", attributes.numRegs);
    int blocks = 0, grid = 0, block = 0;
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, bounded, 128, 1024));
    EXPECT(blocks >= 1 && blocks <= 32, "%d blocks per multiprocessor", blocks);
    CHECK(cudaOccupancyMaxPotentialBlockSize(&grid, &block, combine, 0, 0));
    EXPECT(grid >= 1 && block >= 32 && block <= 1024 && block % 32 == 0, "%d blocks of %d threads", grid, block);
    CHECK(cudaFuncSetCacheConfig(bounded, cudaFuncCachePreferShared));

    int *device_ints, *host_ints;
    CHECK(cudaMalloc(&device_ints, 128 * sizeof(int)));
    CHECK(cudaMallocHost(&host_ints, 128 * sizeof(int)));
    bounded<<<1, 128, 128, stream>>>(device_ints);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(host_ints, device_ints, 128 * sizeof(int), cudaMemcpyDeviceToHost, stream));
    Callback callback;
    callback.host = host_ints;
    CHECK(cudaLaunchHostFunc(stream, on_host, &callback));
    CHECK(cudaLaunchHostFunc(stream, on_host, &callback));
    CHECK(cudaStreamSynchronize(stream));
    for (int t = 0; t < 128; t++)
        EXPECT(host_ints[t] == t % 50 + 127 - t, "thread %d: %d", t, host_ints[t]);
    EXPECT(callback.calls == 2 && callback.seen == 5 + 122, "%d calls, saw %d", callback.calls.load(), callback.seen);
    printf("launch_api: %d host functions in stream order\n", callback.calls.load());
    // More threads than the kernel was compiled for.
    bounded<<<1, 256, 256>>>(device_ints);
    cudaError_t error = cudaGetLastError();
    printf("launch_api: 256 threads with bounds of 128: %s\n", cudaGetErrorName(error));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(device_in));
    CHECK(cudaFree(device_out));
    CHECK(cudaFree(device_ints));
    CHECK(cudaFreeHost(host_ints));
    return pass();
}
