// The context stack, primary and created contexts, limits, flags, peers, entry points.
#include "transcript.h"

SECTION(stack) {
    TRY(cuInit, 0);
    CUcontext first = unset<CUcontext>(), second = unset<CUcontext>(), popped = unset<CUcontext>(), current = unset<CUcontext>();
    TRY(cuCtxPopCurrent, &popped);
    CLASS(popped);
    TRY(cuCtxSynchronize);
    CUdevice device = unset<CUdevice>();
    TRY(cuCtxGetDevice, &device);
    VALUE(device);
    unsigned flags = unset<unsigned>();
    TRY(cuCtxGetFlags, &flags);
    TRY(cuCtxCreate, &first, nullptr, 0x1000, 0);
    TRY(cuCtxCreate, &first, nullptr, 0, 99);
    TRY(cuCtxCreate, nullptr, nullptr, 0, 0);
    CLASS(first);
    TRY(cuCtxCreate, &first, nullptr, 0, 0);
    TRY(cuCtxCreate, &second, nullptr, CU_CTX_SCHED_BLOCKING_SYNC | CU_CTX_MAP_HOST, 0);
    TRY(cuCtxGetFlags, &flags);
    VALUE(flags);
    TRY(cuCtxPushCurrent, first);
    TRY(cuCtxPushCurrent, first);
    TRY(cuCtxPopCurrent, nullptr);
    TRY(cuCtxGetCurrent, &current);
    HOLDS(current == first);
    TRY(cuCtxPopCurrent, &popped);
    TRY(cuCtxGetCurrent, &current);
    HOLDS(current == second);
    TRY(cuCtxSetCurrent, nullptr);
    TRY(cuCtxGetCurrent, &current);
    HOLDS(current == first);
    unsigned version = unset<unsigned>();
    TRY(cuCtxGetApiVersion, first, &version);
    VALUE(version);
    TRY(cuCtxGetApiVersion, nullptr, &version);
    TRY(cuCtxGetApiVersion, first, nullptr);
    unsigned long long id = unset<unsigned long long>(), other = unset<unsigned long long>();
    TRY(cuCtxGetId, first, &id);
    TRY(cuCtxGetId, nullptr, &other);
    HOLDS(id == other);
    TRY(cuCtxDestroy, first);
    TRY(cuCtxGetCurrent, &current);
    CLASS(current);
    TRY(cuCtxSetCurrent, second);
    TRY(cuCtxDestroy, second);
    TRY(cuCtxPopCurrent, &popped);
}

SECTION(foreign_context) {
    begin();
    CUcontext primary, other;
    MUST(cuCtxGetCurrent, &primary);
    CUstream stream = new_stream();
    CUdeviceptr memory = allocate(64);
    CUfunction function = kernel("nothing");
    MUST(cuCtxCreate, &other, nullptr, 0, 0);
    // Of another context than the current one.
    TRY(cuStreamQuery, stream);
    TRY(cuMemsetD8, memory, 1, 64);
    TRY(cuMemcpyDtoD, memory, memory + 32, 16);
    TRY(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuStreamSynchronize, stream);
    TRY(cuStreamDestroy, stream);
    TRY(cuMemFree, memory);
    TRY(cuModuleUnload, module_of_process());
    TRY(cuCtxDestroy, primary);
}

SECTION(primary) {
    TRY(cuInit, 0);
    CUcontext context = unset<CUcontext>(), again = unset<CUcontext>();
    unsigned flags = unset<unsigned>();
    int active = unset<int>();
    TRY(cuDevicePrimaryCtxRelease, 0);
    TRY(cuDevicePrimaryCtxSetFlags, 0, 0x1000);
    TRY(cuDevicePrimaryCtxSetFlags, 0, CU_CTX_SCHED_SPIN);
    TRY(cuDevicePrimaryCtxGetState, 0, &flags, &active);
    VALUE(flags);
    VALUE(active);
    TRY(cuDevicePrimaryCtxRetain, &context, 0);
    TRY(cuDevicePrimaryCtxRetain, &again, 0);
    HOLDS(context == again);
    TRY(cuDevicePrimaryCtxRetain, &again, 99);
    TRY(cuDevicePrimaryCtxRetain, nullptr, 0);
    TRY(cuDevicePrimaryCtxGetState, 0, &flags, &active);
    VALUE(flags);
    VALUE(active);
    TRY(cuDevicePrimaryCtxSetFlags, 0, CU_CTX_SCHED_YIELD);
    TRY(cuDevicePrimaryCtxGetState, 0, &flags, &active);
    VALUE(flags);
    CUcontext current = unset<CUcontext>();
    TRY(cuCtxGetCurrent, &current);
    CLASS(current);
    TRY(cuCtxSetCurrent, context);
    CUdeviceptr memory = unset<CUdeviceptr>();
    TRY(cuMemAlloc, &memory, 16);
    TRY(cuDevicePrimaryCtxRelease, 0);
    TRY(cuMemFree, memory);
    TRY(cuMemAlloc, &memory, 16);
    TRY(cuDevicePrimaryCtxRelease, 0);
    TRY(cuDevicePrimaryCtxGetState, 0, &flags, &active);
    VALUE(active);
    TRY(cuMemFree, memory);
    TRY(cuCtxSynchronize);
    TRY(cuDevicePrimaryCtxRetain, &again, 0);
    TRY(cuCtxSetCurrent, again);
    TRY(cuMemAlloc, &memory, 16);
    TRY(cuDevicePrimaryCtxReset, 0);
    TRY(cuMemFree, memory);
    TRY(cuDevicePrimaryCtxReset, 99);
}

SECTION(limits) {
    begin();
    for (int limit = 0; limit < 10; limit++) {
        size_t value = unset<size_t>();
        printf("limit %d\n", limit);
        TRY(cuCtxGetLimit, &value, CUlimit(limit));
        VALUE(value);
    }
    size_t value = unset<size_t>();
    TRY(cuCtxGetLimit, nullptr, CU_LIMIT_STACK_SIZE);
    TRY(cuCtxSetLimit, CUlimit(99), 1);
    TRY(cuCtxSetLimit, CU_LIMIT_STACK_SIZE, 5000);
    TRY(cuCtxGetLimit, &value, CU_LIMIT_STACK_SIZE);
    VALUE(value);
    TRY(cuCtxSetLimit, CU_LIMIT_STACK_SIZE, size_t(1) << 40);
    TRY(cuCtxSetLimit, CU_LIMIT_PRINTF_FIFO_SIZE, 3 << 20);
    TRY(cuCtxGetLimit, &value, CU_LIMIT_PRINTF_FIFO_SIZE);
    VALUE(value);
    TRY(cuCtxSetLimit, CU_LIMIT_MALLOC_HEAP_SIZE, 16 << 20);
    TRY(cuCtxGetLimit, &value, CU_LIMIT_MALLOC_HEAP_SIZE);
    VALUE(value);
    TRY(cuCtxSetLimit, CU_LIMIT_MAX_L2_FETCH_GRANULARITY, 64);
    TRY(cuCtxGetLimit, &value, CU_LIMIT_MAX_L2_FETCH_GRANULARITY);
    VALUE(value);
    TRY(cuCtxSetLimit, CU_LIMIT_PERSISTING_L2_CACHE_SIZE, 1 << 20);
    TRY(cuCtxGetLimit, &value, CU_LIMIT_PERSISTING_L2_CACHE_SIZE);
    VALUE(value);
    TRY(cuCtxResetPersistingL2Cache);
    CUfunc_cache cache = unset<CUfunc_cache>();
    TRY(cuCtxGetCacheConfig, &cache);
    VALUE(cache);
    TRY(cuCtxSetCacheConfig, CU_FUNC_CACHE_PREFER_L1);
    TRY(cuCtxGetCacheConfig, &cache);
    VALUE(cache);
    TRY(cuCtxSetCacheConfig, CUfunc_cache(77));
    TRY(cuCtxSetFlags, CU_CTX_SCHED_YIELD);
    unsigned flags = unset<unsigned>();
    TRY(cuCtxGetFlags, &flags);
    VALUE(flags);
    TRY(cuCtxSetFlags, 0x4000);
}

SECTION(peers) {
    begin();
    CUcontext context;
    MUST(cuCtxGetCurrent, &context);
    TRY(cuCtxEnablePeerAccess, context, 0);
    TRY(cuCtxDisablePeerAccess, context);
    TRY(cuCtxEnablePeerAccess, nullptr, 0);
    int value = unset<int>();
    TRY(cuDeviceGetP2PAttribute, &value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 0);
    TRY(cuDeviceGetP2PAttribute, &value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 99);
}

SECTION(entry_points) {
    TRY(cuInit, 0);
    void *function = unset<void *>();
    CUdriverProcAddressQueryResult found = unset<CUdriverProcAddressQueryResult>();
    TRY(cuGetProcAddress, "cuMemAlloc", &function, 12000, 0, &found);
    CLASS(function);
    VALUE(found);
    TRY(cuGetProcAddress, "cuMemAlloc", &function, 2000, 0, &found);
    CLASS(function);
    VALUE(found);
    TRY(cuGetProcAddress, "cuNobody", &function, 12000, 0, &found);
    CLASS(function);
    VALUE(found);
    TRY(cuGetProcAddress, "cuGraphConditionalHandleCreate", &function, 11000, 0, &found);
    VALUE(found);
    TRY(cuGetProcAddress, "cuMemAlloc", &function, 12000, 0x100, &found);
    TRY(cuGetProcAddress, "cuMemAlloc", nullptr, 12000, 0, &found);
    TRY(cuGetProcAddress, nullptr, &function, 12000, 0, &found);
    TRY(cuGetProcAddress, "", &function, 12000, 0, &found);
    TRY(cuGetProcAddress, "cuStreamSynchronize", &function, 12000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, nullptr);
    const void *table = unset<const void *>();
    CUuuid nobody{};
    TRY(cuGetExportTable, &table, &nobody);
    TRY(cuGetExportTable, nullptr, &nobody);
}

int main(int count, char **arguments) { return transcript(count, arguments); }
