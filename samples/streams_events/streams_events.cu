// Streams, events, pinned memory and asynchronous copies.
#include <vector>

#include "check.h"

__global__ void scale(float *values, int count, float factor) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        values[i] *= factor;
}

// Keeps a stream busy for a while: the result depends on every step.
__global__ void slow(unsigned *out, int steps) {
    unsigned x = threadIdx.x + 1;
    for (int i = 0; i < steps; i++)
        x = x * 1664525u + 1013904223u;
    out[threadIdx.x] = x;
}

__global__ void add_from(const unsigned *in, unsigned *out) { out[threadIdx.x] = in[threadIdx.x] + 1; }

int main() {
    // Four streams, each with its own chunk: copy in, compute, copy out.
    const int streams = 4, chunk = 1 << 16, count = streams * chunk;
    float *host, *device;
    CHECK(cudaMallocHost(&host, count * sizeof(float)));
    CHECK(cudaMalloc(&device, count * sizeof(float)));
    for (int i = 0; i < count; i++)
        host[i] = static_cast<float>(i);
    cudaStream_t stream[streams];
    cudaEvent_t start, stop;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    for (cudaStream_t &s : stream)
        CHECK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    CHECK(cudaEventRecord(start, stream[0]));
    for (int s = 0; s < streams; s++) {
        float *h = host + s * chunk, *d = device + s * chunk;
        CHECK(cudaMemcpyAsync(d, h, chunk * sizeof(float), cudaMemcpyHostToDevice, stream[s]));
        scale<<<16, 128, 0, stream[s]>>>(d, chunk, static_cast<float>(s + 2));
        CHECK(cudaGetLastError());
        CHECK(cudaMemcpyAsync(h, d, chunk * sizeof(float), cudaMemcpyDeviceToHost, stream[s]));
    }
    CHECK(cudaEventRecord(stop, stream[0]));
    for (cudaStream_t s : stream)
        CHECK(cudaStreamSynchronize(s));
    for (int i = 0; i < count; i++) {
        float expected = static_cast<float>(i) * static_cast<float>(i / chunk + 2);
        EXPECT(host[i] == expected, "element %d: %g, not %g", i, host[i], expected);
    }
    CHECK(cudaEventSynchronize(stop));
    CHECK(cudaEventQuery(stop));
    float milliseconds = 0;
    CHECK(cudaEventElapsedTime(&milliseconds, start, stop));
    EXPECT(milliseconds > 0.0f && milliseconds < 60000.0f, "elapsed time %g ms", milliseconds);
    printf("streams_events: %d streams: equal, elapsed time is positive\n", streams);

    // A stream that waits for an event of another stream sees its results.
    unsigned *first, *second, result[64], expected[64];
    CHECK(cudaMalloc(&first, sizeof(result)));
    CHECK(cudaMalloc(&second, sizeof(result)));
    cudaEvent_t done;
    CHECK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    const int steps = 300000;
    slow<<<1, 64, 0, stream[0]>>>(first, steps);
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(done, stream[0]));
    cudaError_t query = cudaEventQuery(done);
    EXPECT(query == cudaSuccess || query == cudaErrorNotReady, "%s", cudaGetErrorName(query));
    cudaGetLastError();
    CHECK(cudaStreamWaitEvent(stream[1], done, 0));
    add_from<<<1, 64, 0, stream[1]>>>(first, second);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(result, second, sizeof(result), cudaMemcpyDeviceToHost, stream[1]));
    CHECK(cudaStreamSynchronize(stream[1]));
    CHECK(cudaEventQuery(done));
    CHECK(cudaStreamQuery(stream[1]));
    for (int t = 0; t < 64; t++) {
        unsigned x = t + 1;
        for (int i = 0; i < steps; i++)
            x = x * 1664525u + 1013904223u;
        expected[t] = x + 1;
        EXPECT(result[t] == expected[t], "thread %d: %u, not %u", t, result[t], expected[t]);
    }
    printf("streams_events: wait for an event of another stream: equal\n");

    // An event is reusable, and elapsed time grows with the work between two records.
    float empty = 0, busy = 0;
    CHECK(cudaEventRecord(start, stream[2]));
    CHECK(cudaEventRecord(stop, stream[2]));
    CHECK(cudaEventSynchronize(stop));
    CHECK(cudaEventElapsedTime(&empty, start, stop));
    CHECK(cudaEventRecord(start, stream[2]));
    slow<<<1, 64, 0, stream[2]>>>(first, 500000);
    CHECK(cudaEventRecord(stop, stream[2]));
    CHECK(cudaEventSynchronize(stop));
    CHECK(cudaEventElapsedTime(&busy, start, stop));
    EXPECT(busy > empty, "%g ms with a long kernel, %g ms without", busy, empty);
    EXPECT(cudaEventElapsedTime(&busy, start, done) == cudaErrorInvalidResourceHandle, "an event without timing was timed");
    cudaGetLastError();
    printf("streams_events: events are reusable\n");

    // Device to device and memset in a stream; a default-stream operation waits for blocking streams.
    cudaStream_t blocking;
    CHECK(cudaStreamCreate(&blocking));
    slow<<<1, 64, 0, blocking>>>(first, steps);
    CHECK(cudaMemcpyAsync(second, first, sizeof(result), cudaMemcpyDeviceToDevice, blocking));
    CHECK(cudaMemcpy(result, second, sizeof(result), cudaMemcpyDeviceToHost));
    for (int t = 0; t < 64; t++)
        EXPECT(result[t] == expected[t] - 1, "thread %d: %u, not %u", t, result[t], expected[t] - 1);
    CHECK(cudaMemsetAsync(second, 0x5a, sizeof(result), blocking));
    CHECK(cudaMemcpyAsync(result, second, sizeof(result), cudaMemcpyDefault, blocking));
    CHECK(cudaStreamSynchronize(blocking));
    for (unsigned value : result)
        EXPECT(value == 0x5a5a5a5au, "%#x", value);
    printf("streams_events: legacy default stream waits for other streams\n");

    // Registered pageable memory, write-combined and mapped memory.
    std::vector<float> registered(1000, 3.0f);
    CHECK(cudaHostRegister(registered.data(), registered.size() * sizeof(float), cudaHostRegisterDefault));
    CHECK(cudaMemcpyAsync(device, registered.data(), registered.size() * sizeof(float), cudaMemcpyHostToDevice, blocking));
    scale<<<2, 64, 0, blocking>>>(device, 1000, 0.5f);
    CHECK(cudaMemcpyAsync(registered.data(), device, registered.size() * sizeof(float), cudaMemcpyDeviceToHost, blocking));
    CHECK(cudaStreamSynchronize(blocking));
    for (float value : registered)
        EXPECT(value == 1.5f, "%g", value);
    CHECK(cudaHostUnregister(registered.data()));
    float *mapped, *mapped_device;
    CHECK(cudaHostAlloc(&mapped, 1000 * sizeof(float), cudaHostAllocMapped));
    CHECK(cudaHostGetDevicePointer(&mapped_device, mapped, 0));
    for (int i = 0; i < 1000; i++)
        mapped[i] = static_cast<float>(i);
    scale<<<2, 64, 0, blocking>>>(mapped_device, 1000, 2.0f);
    CHECK(cudaStreamSynchronize(blocking));
    for (int i = 0; i < 1000; i++)
        EXPECT(mapped[i] == 2.0f * i, "mapped element %d: %g", i, mapped[i]);
    printf("streams_events: registered and mapped host memory: equal\n");

    int low, high;
    CHECK(cudaDeviceGetStreamPriorityRange(&low, &high));
    EXPECT(low >= high, "priorities %d to %d", low, high);
    cudaStream_t urgent;
    CHECK(cudaStreamCreateWithPriority(&urgent, cudaStreamNonBlocking, high));
    unsigned flags;
    CHECK(cudaStreamGetFlags(urgent, &flags));
    EXPECT(flags == cudaStreamNonBlocking, "flags %u", flags);
    CHECK(cudaStreamDestroy(urgent));
    // Destroying a busy stream lets its work finish.
    slow<<<1, 64, 0, blocking>>>(first, steps);
    CHECK(cudaStreamDestroy(blocking));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(result, first, sizeof(result), cudaMemcpyDeviceToHost));
    EXPECT(result[0] == expected[0] - 1, "%u", result[0]);
    for (cudaStream_t s : stream)
        CHECK(cudaStreamDestroy(s));
    CHECK(cudaEventDestroy(start));
    CHECK(cudaEventDestroy(stop));
    CHECK(cudaEventDestroy(done));
    CHECK(cudaFreeHost(host));
    CHECK(cudaFreeHost(mapped));
    CHECK(cudaFree(device));
    CHECK(cudaFree(first));
    CHECK(cudaFree(second));
    return pass();
}
