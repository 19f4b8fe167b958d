// Kernels that fault: which call says so, and what every call says afterwards.
#include "transcript.h"

namespace {

void launch_wild(CUdeviceptr at) {
    void *parameters[] = {&at};
    TRY(cuLaunchKernel, kernel("wild"), 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr);
}

// The error stays with the context, whatever is called.
void afterwards() {
    CUdeviceptr memory = unset<CUdeviceptr>();
    CUcontext context = unset<CUcontext>();
    CUstream stream = unset<CUstream>();
    CUevent event = unset<CUevent>();
    CUmodule module = unset<CUmodule>();
    char host[16] = {};
    TRY(cuCtxSynchronize);
    TRY(cuMemAlloc, &memory, 16);
    CLASS(memory);
    TRY(cuMemcpyHtoD, 0x1000, host, 16);
    TRY(cuStreamCreate, &stream, 0);
    TRY(cuStreamSynchronize, nullptr);
    TRY(cuStreamQuery, nullptr);
    TRY(cuEventCreate, &event, 0);
    TRY(cuModuleLoadData, &module, KERNELS);
    TRY(cuLaunchKernel, nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    void *pinned = unset<void *>();
    TRY(cuMemAllocHost, &pinned, 16);
    TRY(cuMemHostRegister, host, 16, 0);
    size_t free = unset<size_t>(), total = unset<size_t>();
    TRY(cuMemGetInfo, &free, &total);
    unsigned type = unset<unsigned>();
    TRY(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 0x1000);
    // What needs no healthy context.
    int count = unset<int>();
    TRY(cuDeviceGetCount, &count);
    VALUE(count);
    TRY(cuCtxGetCurrent, &context);
    CLASS(context);
    CUdevice device = unset<CUdevice>();
    TRY(cuCtxGetDevice, &device);
    VALUE(device);
    TRY(cuMemAlloc, nullptr, 16);
    TRY(cuCtxSynchronize);
}

} // namespace

SECTION(out_of_bounds) {
    begin();
    CUdeviceptr memory = allocate(1024);
    CUevent event;
    MUST(cuEventCreate, &event, 0);
    launch_wild(0x10);
    TRY(cuCtxSynchronize);
    TRY(cuEventRecord, event, nullptr);
    TRY(cuEventQuery, event);
    TRY(cuEventDestroy, event);
    TRY(cuMemFree, memory);
    afterwards();
}

SECTION(seen_by_a_copy) {
    begin();
    CUdeviceptr memory = allocate(1024);
    launch_wild(0x10);
    unsigned word = 77;
    TRY(cuMemcpyDtoH, &word, memory, 4);
    printf("    word: %u\n", word);
    TRY(cuMemcpyDtoH, &word, memory, 4);
    TRY(cuModuleUnload, module_of_process());
}

SECTION(seen_by_a_stream) {
    begin();
    CUstream stream = new_stream(), other = new_stream();
    CUdeviceptr at = 0x10;
    void *parameters[] = {&at};
    TRY(cuLaunchKernel, kernel("wild"), 1, 1, 1, 1, 1, 1, 0, stream, parameters, nullptr);
    TRY(cuStreamSynchronize, stream);
    TRY(cuStreamSynchronize, other);
    TRY(cuStreamQuery, other);
    TRY(cuStreamDestroy, stream);
}

SECTION(trap) {
    begin();
    TRY(cuLaunchKernel, kernel("stops"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    afterwards();
}

SECTION(misaligned) {
    begin();
    launch_wild(allocate(16) + 1);
    afterwards();
}

SECTION(host_address) {
    begin();
    // Memory of the program that the device may not reach, unless it can reach all of it.
    int pageable = 0;
    MUST(cuDeviceGetAttribute, &pageable, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0);
    VALUE(pageable);
    if (!pageable) {
        static unsigned word;
        launch_wild(reinterpret_cast<CUdeviceptr>(&word));
        TRY(cuCtxSynchronize);
    }
}

SECTION(freed_memory) {
    begin();
    const CUdeviceptr memory = allocate(64 << 20);
    MUST(cuMemFree, memory);
    launch_wild(memory);
    TRY(cuCtxSynchronize);
}

SECTION(other_context_lives) {
    begin();
    CUcontext primary, other;
    MUST(cuCtxGetCurrent, &primary);
    MUST(cuCtxCreate, &other, nullptr, 0, 0);
    MUST(cuCtxSetCurrent, primary);
    launch_wild(0x10);
    TRY(cuCtxSynchronize);
    TRY(cuCtxSetCurrent, other);
    TRY(cuCtxSynchronize);
    CUdeviceptr memory = unset<CUdeviceptr>();
    TRY(cuMemAlloc, &memory, 16);
    TRY(cuCtxDestroy, other);
}

SECTION(reset) {
    begin();
    launch_wild(0x10);
    TRY(cuCtxSynchronize);
    TRY(cuDevicePrimaryCtxReset, 0);
    CUcontext context = unset<CUcontext>();
    TRY(cuDevicePrimaryCtxRetain, &context, 0);
    TRY(cuCtxSetCurrent, context);
    CUdeviceptr memory = unset<CUdeviceptr>();
    TRY(cuMemAlloc, &memory, 16);
    TRY(cuCtxSynchronize);
}

SECTION(the_next_process) {
    begin();
    TRY(cuLaunchKernel, kernel("nothing"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuCtxSynchronize);
}

int main(int count, char **arguments) { return transcript(count, arguments); }
