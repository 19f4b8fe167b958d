// Many host threads at once, each with its own stream, memory and errors, sharing one device and its modules.
#include <atomic>
#include <thread>
#include <vector>

#include "check.h"

__device__ int arrivals;

__global__ void fill(int *values, int count, int start) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        values[i] = start + i * i;
    if (i == 0)
        atomicAdd(&arrivals, 1);
}

__global__ void add_one(int *values, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        values[i] += 1;
}

const int THREADS = 8, ROUNDS = 10;
std::atomic<int> wrong{0};

void work(int id) {
    // The current device is per thread, the last error too: this thread's error must not show in others.
    CHECK(cudaSetDevice(0));
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int round = 0; round < ROUNDS; round++) {
        int count = 1000 + 100 * id + round;
        int *device, *host;
        CHECK(cudaMalloc(&device, count * sizeof(int)));
        CHECK(cudaMallocHost(&host, count * sizeof(int)));
        fill<<<(count + 127) / 128, 128, 0, stream>>>(device, count, id * 1000 + round);
        for (int k = 0; k < 5; k++)
            add_one<<<(count + 127) / 128, 128, 0, stream>>>(device, count);
        CHECK(cudaMemcpyAsync(host, device, count * sizeof(int), cudaMemcpyDeviceToHost, stream));
        if (id % 2 == 1) {
            int *nowhere;
            if (cudaMalloc(&nowhere, ~static_cast<size_t>(0) / 2) != cudaErrorMemoryAllocation)
                wrong++;
        } else if (cudaPeekAtLastError() != cudaSuccess) {
            wrong++;
        }
        CHECK(cudaStreamSynchronize(stream));
        if (id % 2 == 1 && cudaGetLastError() != cudaErrorMemoryAllocation)
            wrong++;
        for (int i = 0; i < count; i++)
            if (host[i] != id * 1000 + round + i * i + 5)
                wrong++;
        CHECK(cudaFreeHost(host));
        CHECK(cudaFree(device));
    }
    CHECK(cudaStreamDestroy(stream));
}

int main() {
    // The threads meet an uninitialised runtime all at once.
    std::vector<std::thread> workers;
    for (int id = 0; id < THREADS; id++)
        workers.emplace_back(work, id);
    for (std::thread &worker : workers)
        worker.join();
    EXPECT(wrong == 0, "%d wrong results", wrong.load());
    int total = 0;
    CHECK(cudaMemcpyFromSymbol(&total, arrivals, sizeof(total)));
    printf("host_threads: %d threads, %d rounds each, %d first kernels: equal\n", THREADS, ROUNDS, total);
    EXPECT(total == THREADS * ROUNDS, "%d", total);

    // Short-lived threads: each use of a new thread sets its state up and takes it down.
    for (int k = 0; k < 30; k++)
        std::thread([] {
            int *p;
            CHECK(cudaMalloc(&p, 256));
            CHECK(cudaMemset(p, 1, 256));
            CHECK(cudaFree(p));
        }).join();
    printf("host_threads: 30 short-lived threads\n");

    // Memory and streams of one thread are used in another.
    int *device, value = 0;
    cudaStream_t stream;
    std::thread([&] {
        CHECK(cudaMalloc(&device, 64 * sizeof(int)));
        CHECK(cudaStreamCreate(&stream));
        fill<<<1, 64, 0, stream>>>(device, 64, 5);
        CHECK(cudaGetLastError());
    }).join();
    CHECK(cudaMemcpyAsync(&value, device + 3, sizeof(int), cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    printf("host_threads: from another thread: %d\n", value);
    EXPECT(value == 14, "%d", value);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(device));
    return pass();
}
