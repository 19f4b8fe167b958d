// Built with -default-stream per-thread: every host thread has a default stream of its own.
#include <thread>
#include <vector>

#include "check.h"

#ifndef CUDA_API_PER_THREAD_DEFAULT_STREAM
#error "build with -default-stream per-thread"
#endif

__global__ void iterate(unsigned *values, int count, unsigned seed, int steps) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    unsigned x = values[i];
    for (int k = 0; k < steps; k++)
        x = x * 1664525u + seed;
    values[i] = x;
}

bool work(unsigned seed) {
    const int count = 2000, rounds = 20, steps = 50;
    unsigned *device;
    std::vector<unsigned> values(count), result(count);
    for (int i = 0; i < count; i++)
        values[i] = i;
    CHECK(cudaMalloc(&device, count * sizeof(unsigned)));
    // No synchronisation in between: the thread's own stream keeps the order.
    CHECK(cudaMemcpyAsync(device, values.data(), count * sizeof(unsigned), cudaMemcpyHostToDevice));
    for (int round = 0; round < rounds; round++) {
        iterate<<<(count + 127) / 128, 128>>>(device, count, seed, steps);
        CHECK(cudaGetLastError());
    }
    CHECK(cudaMemcpyAsync(result.data(), device, count * sizeof(unsigned), cudaMemcpyDeviceToHost, cudaStreamPerThread));
    CHECK(cudaStreamSynchronize(0));
    for (int i = 0; i < count; i++) {
        unsigned x = i;
        for (int k = 0; k < rounds * steps; k++)
            x = x * 1664525u + seed;
        if (result[i] != x)
            return false;
    }
    CHECK(cudaFree(device));
    return true;
}

int main() {
    const int threads = 4;
    bool good[threads] = {};
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; t++)
        workers.emplace_back([t, &good] { good[t] = work(2 * t + 1); });
    for (std::thread &worker : workers)
        worker.join();
    for (int t = 0; t < threads; t++)
        EXPECT(good[t], "thread %d", t);
    printf("ptds: %d threads with their default streams: equal\n", threads);

    // Events go to the thread's stream too, and the legacy stream is still there under its own name.
    unsigned *device, result = 0;
    cudaEvent_t event;
    CHECK(cudaMalloc(&device, sizeof(unsigned)));
    CHECK(cudaEventCreate(&event));
    CHECK(cudaMemset(device, 0, sizeof(unsigned)));
    iterate<<<1, 1>>>(device, 1, 7, 3);
    CHECK(cudaEventRecord(event));
    CHECK(cudaStreamWaitEvent(cudaStreamLegacy, event, 0));
    iterate<<<1, 1, 0, cudaStreamLegacy>>>(device, 1, 9, 2);
    CHECK(cudaMemcpyAsync(&result, device, sizeof(result), cudaMemcpyDeviceToHost, cudaStreamLegacy));
    CHECK(cudaStreamSynchronize(cudaStreamLegacy));
    unsigned x = 0;
    for (int k = 0; k < 3; k++)
        x = x * 1664525u + 7;
    for (int k = 0; k < 2; k++)
        x = x * 1664525u + 9;
    EXPECT(result == x, "%u, not %u", result, x);
    CHECK(cudaStreamQuery(cudaStreamPerThread));
    CHECK(cudaEventDestroy(event));
    CHECK(cudaFree(device));
    printf("ptds: per-thread and legacy stream in order: equal\n");
    return pass();
}
