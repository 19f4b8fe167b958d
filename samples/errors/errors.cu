// What goes wrong in programs, and the error that the runtime reports for it.
//
// Errors of calls leave the context intact and are shown in this process. Errors of kernels are sticky: every later call
// returns them, so each gets a process of its own (`errors <case>`).
#include <string>
#include <vector>

#include "check.h"
#include "child.h"

__device__ int variable[4];
__constant__ int constant[4];

__global__ void store(int *where, int value) { *where = value; }
__global__ void load_wide(const char *where, long long *out) { *out = *reinterpret_cast<const long long *>(where); }
__global__ void trap() {
    if (threadIdx.x == 3)
        __trap();
}
__global__ void overrun(int *values, size_t start) { values[start + threadIdx.x] = 1; }
__global__ void nothing() {}
__global__ void atomic_on(int *where) { atomicAdd(where, 1); }

// The result of a call, and that it is no longer the last error once it has been asked for.
void show(const char *what, cudaError_t error) {
    cudaError_t last = cudaGetLastError();
    printf("%s: %s\n", what, cudaGetErrorName(error));
    EXPECT(last == error || last == cudaSuccess, "last error is %s", cudaGetErrorName(last));
    EXPECT(cudaGetLastError() == cudaSuccess, "the last error was not cleared");
}

void show_launch(const char *what) { show(what, cudaGetLastError()); }

void calls() {
    int *device, host[4] = {1, 2, 3, 4};
    CHECK(cudaMalloc(&device, sizeof(host)));

    nothing<<<1, 2048>>>();
    show_launch("2048 threads per block");
    nothing<<<dim3(1), dim3(16, 16, 16)>>>();
    show_launch("4096 threads per block in three dimensions");
    nothing<<<1, dim3(1, 1, 128)>>>();
    show_launch("128 threads in z");
    nothing<<<0, 32>>>();
    show_launch("no blocks");
    nothing<<<1, 0>>>();
    show_launch("no threads");
    nothing<<<dim3(1, 65536), 1>>>();
    show_launch("65536 blocks in y");
    nothing<<<1, 1, 1 << 20>>>();
    show_launch("1 MiB of shared memory");
    show("shared memory limit of 1 MiB", cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 20));

    void *pointer = host;
    show("allocation of 2^60 bytes", cudaMalloc(&pointer, static_cast<size_t>(1) << 60));
    pointer = host;
    show("allocation of 0 bytes", cudaMalloc(&pointer, 0));
    EXPECT(pointer == nullptr, "%p", pointer);
    show("allocation to NULL", cudaMalloc(static_cast<void **>(nullptr), 16));
    show("free of NULL", cudaFree(nullptr));
    show("free of a host pointer", cudaFree(host));
    show("free of the middle of an allocation", cudaFree(reinterpret_cast<char *>(device) + 4));
    int *freed;
    CHECK(cudaMalloc(&freed, 64));
    CHECK(cudaFree(freed));
    show("free of freed memory", cudaFree(freed));
    show("pinned free of pageable memory", cudaFreeHost(host));

    show("copy to NULL", cudaMemcpy(nullptr, host, 4, cudaMemcpyHostToDevice));
    show("copy from NULL", cudaMemcpy(host, nullptr, 4, cudaMemcpyDeviceToHost));
    show("copy of 0 bytes to NULL", cudaMemcpy(nullptr, host, 0, cudaMemcpyHostToDevice));
    std::vector<char> large(64 << 20);
    show("copy beyond the end", cudaMemcpy(device, large.data(), large.size(), cudaMemcpyHostToDevice));
    show("copy in no direction", cudaMemcpy(device, host, 4, static_cast<cudaMemcpyKind>(9)));
    show("memset of NULL", cudaMemset(nullptr, 0, 16));
    show("symbol copy beyond the end", cudaMemcpyToSymbol(variable, host, 20));
    show("symbol copy with an offset beyond the end", cudaMemcpyToSymbol(variable, host, 4, 16));
    show("constant symbol copy beyond the end", cudaMemcpyFromSymbol(host, constant, 4, 14));
    show("address of what is no symbol", cudaGetSymbolAddress(&pointer, static_cast<const void *>(host)));
    int value;
    show("device 1000", cudaSetDevice(1000));
    show("device -1", cudaSetDevice(-1));
    show("attribute of device 1000", cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 1000));
    cudaEvent_t first, second;
    float milliseconds;
    CHECK(cudaEventCreate(&first));
    CHECK(cudaEventCreate(&second));
    show("query of an event that was not recorded", cudaEventQuery(first));
    show("time between events that were not recorded", cudaEventElapsedTime(&milliseconds, first, second));
    show("event with unknown flags", cudaEventCreateWithFlags(&second, 0x1000));
    show("stream with unknown flags",
         [&] {
             cudaStream_t stream;
             return cudaStreamCreateWithFlags(&stream, 0x1000);
         }());
    show("registration of NULL", cudaHostRegister(nullptr, 4096, 0));
    show("limit that does not exist", cudaDeviceSetLimit(static_cast<cudaLimit>(77), 1));
    cudaPointerAttributes attributes;
    show("attributes of a host pointer", cudaPointerGetAttributes(&attributes, host));
    EXPECT(attributes.type == cudaMemoryTypeUnregistered, "type %d", static_cast<int>(attributes.type));

    // The last error stays until it is asked for, and peeking does not clear it.
    cudaSetDevice(1000);
    CHECK(cudaMemcpy(device, host, 4, cudaMemcpyHostToDevice));
    EXPECT(cudaPeekAtLastError() == cudaErrorInvalidDevice, "%s", cudaGetErrorName(cudaPeekAtLastError()));
    EXPECT(cudaGetLastError() == cudaErrorInvalidDevice, "peeking cleared the error");
    EXPECT(cudaGetLastError() == cudaSuccess, "asking did not clear the error");

    // After all that the context works.
    store<<<1, 1>>>(device, 42);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(host, device, 4, cudaMemcpyDeviceToHost));
    EXPECT(host[0] == 42, "%d", host[0]);
    printf("unknown code: %s, %s\n", cudaGetErrorName(static_cast<cudaError_t>(12345)), cudaGetErrorString(static_cast<cudaError_t>(12345)));
    CHECK(cudaFree(device));
}

// Runs the kernel of a case and prints three results: of the synchronisation, of a later call, and of the last error.
int sticky(const std::string &name) {
    int *device;
    CHECK(cudaMalloc(&device, 1024));
    if (name == "null")
        store<<<1, 1>>>(nullptr, 1);
    else if (name == "wild")
        store<<<4, 64>>>(reinterpret_cast<int *>(0x1000), 1);
    else if (name == "far")
        overrun<<<1, 32>>>(device, static_cast<size_t>(1) << 42);
    else if (name == "misaligned")
        load_wide<<<1, 1>>>(reinterpret_cast<char *>(device) + 4, reinterpret_cast<long long *>(device));
    else if (name == "atomic")
        atomic_on<<<1, 32>>>(nullptr);
    else if (name == "trap")
        trap<<<2, 32>>>();
    else if (name == "copy")
        store<<<1, 1>>>(nullptr, 1);
    else
        return 3;
    cudaError_t launch = cudaGetLastError();
    int host = 0;
    // The error shows at whatever waits for the kernel.
    cudaError_t waited = name == "copy" ? cudaMemcpy(&host, device, 4, cudaMemcpyDeviceToHost) : cudaDeviceSynchronize();
    void *more;
    cudaError_t later = cudaMalloc(&more, 16);
    cudaError_t freed = cudaFree(device);
    printf("%s, %s, %s, %s\n", cudaGetErrorName(launch), cudaGetErrorName(waited), cudaGetErrorName(later), cudaGetErrorName(freed));
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return sticky(argv[1]);
    calls();
    for (const char *name : {"null", "wild", "far", "misaligned", "atomic", "trap", "copy"}) {
        Child child = run_self(name);
        EXPECT(child.exit_code == 0, "%s: exit code %d, signal %d: %s", name, child.exit_code, child.signal, child.err.c_str());
        printf("%s: %s", name, child.out.c_str());
    }
    // Another process's errors are not ours.
    nothing<<<1, 1>>>();
    CHECK_KERNEL();
    return pass();
}
