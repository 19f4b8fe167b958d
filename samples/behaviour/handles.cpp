// Before initialisation, devices, and handles that are NULL, stale or of another kind.
#include "transcript.h"

SECTION(before_init) {
    int count = unset<int>();
    CUdevice device = unset<CUdevice>();
    CUcontext context = unset<CUcontext>();
    CUdeviceptr memory = unset<CUdeviceptr>();
    TRY(cuDeviceGetCount, &count);
    VALUE(count);
    TRY(cuDeviceGet, &device, 0);
    TRY(cuCtxGetCurrent, &context);
    TRY(cuCtxSetCurrent, nullptr);
    TRY(cuMemAlloc, &memory, 16);
    TRY(cuMemAlloc, nullptr, 16);
    TRY(cuMemFree, 0);
    TRY(cuCtxSynchronize);
    TRY(cuStreamSynchronize, nullptr);
    TRY(cuDevicePrimaryCtxRetain, &context, 0);
    int version = 0;
    TRY(cuDriverGetVersion, &version);
    HOLDS(version >= 12000);
    TRY(cuDriverGetVersion, nullptr);
    const char *name = nullptr;
    TRY(cuGetErrorName, CUDA_ERROR_INVALID_VALUE, &name);
    TRY(cuGetErrorName, CUresult(123456), &name);
    CLASS(name);
    TRY(cuGetErrorString, CUDA_ERROR_INVALID_VALUE, &name);
    TRY(cuInit, 1);
    TRY(cuInit, 0);
    TRY(cuInit, 7);
}

SECTION(devices) {
    TRY(cuInit, 0);
    int count = 0;
    CUdevice device = unset<CUdevice>();
    TRY(cuDeviceGetCount, &count);
    TRY(cuDeviceGetCount, nullptr);
    TRY(cuDeviceGet, &device, count);
    TRY(cuDeviceGet, &device, -1);
    VALUE(device);
    TRY(cuDeviceGet, nullptr, 0);
    TRY(cuDeviceGet, &device, 0);
    VALUE(device);
    char name[256] = {};
    TRY(cuDeviceGetName, name, 4, device);
    printf("    name: %s\n", name);
    TRY(cuDeviceGetName, name, 0, device);
    TRY(cuDeviceGetName, nullptr, 10, device);
    TRY(cuDeviceGetName, name, 256, 99);
    TRY(cuDeviceGetName, name, 256, device);
    printf("    name: %s\n", name);
    size_t bytes = 0;
    TRY(cuDeviceTotalMem, &bytes, device);
    VALUE(bytes);
    TRY(cuDeviceTotalMem, &bytes, 99);
    TRY(cuDeviceTotalMem, nullptr, device);
    CUuuid uuid = unset<CUuuid>();
    TRY(cuDeviceGetUuid, &uuid, device);
    CLASS(uuid);
    TRY(cuDeviceGetUuid, nullptr, device);
    char bus[32] = {};
    TRY(cuDeviceGetPCIBusId, bus, 32, device);
    printf("    bus: %s\n", bus);
    CUdevice by_bus = unset<CUdevice>();
    TRY(cuDeviceGetByPCIBusId, &by_bus, bus);
    VALUE(by_bus);
    TRY(cuDeviceGetByPCIBusId, &by_bus, "ffff:ff:ff.0");
    TRY(cuDeviceGetByPCIBusId, &by_bus, "nonsense");
    TRY(cuDeviceGetPCIBusId, bus, 3, device);
    int value = 0;
    TRY(cuDeviceGetAttribute, &value, CUdevice_attribute(0), device);
    TRY(cuDeviceGetAttribute, &value, CUdevice_attribute(100000), device);
    TRY(cuDeviceGetAttribute, nullptr, CU_DEVICE_ATTRIBUTE_WARP_SIZE, device);
    TRY(cuDeviceGetAttribute, &value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 99);
    for (int attribute = 1; attribute <= 140; attribute++) {
        value = unset<int>();
        const CUresult result = DRIVER(cuDeviceGetAttribute)(&value, CUdevice_attribute(attribute), device);
        printf("attribute %d: %s\n", attribute, result_name(result));
        // Clocks.
        if (attribute != 13 && attribute != 36)
            VALUE(value);
    }
    int peer = unset<int>();
    TRY(cuDeviceCanAccessPeer, &peer, device, device);
    VALUE(peer);
    TRY(cuDeviceCanAccessPeer, &peer, device, 99);
    unsigned flags = unset<unsigned>();
    int active = unset<int>();
    TRY(cuDevicePrimaryCtxGetState, device, &flags, &active);
    VALUE(flags);
    VALUE(active);
    TRY(cuDevicePrimaryCtxGetState, 99, &flags, &active);
}

SECTION(null_arguments) {
    begin();
    TRY(cuMemAlloc, nullptr, 16);
    TRY(cuMemAllocHost, nullptr, 16);
    TRY(cuMemAllocManaged, nullptr, 16, CU_MEM_ATTACH_GLOBAL);
    TRY(cuStreamCreate, nullptr, 0);
    TRY(cuEventCreate, nullptr, 0);
    TRY(cuModuleLoadData, nullptr, KERNELS);
    CUmodule module = unset<CUmodule>();
    TRY(cuModuleLoadData, &module, nullptr);
    CLASS(module);
    CUfunction function = unset<CUfunction>();
    TRY(cuModuleGetFunction, nullptr, module_of_process(), "nothing");
    TRY(cuModuleGetFunction, &function, module_of_process(), nullptr);
    TRY(cuModuleGetFunction, &function, nullptr, "nothing");
    TRY(cuModuleGetFunction, &function, module_of_process(), "nobody");
    TRY(cuModuleGetFunction, &function, module_of_process(), "");
    CLASS(function);
    TRY(cuModuleUnload, nullptr);
    TRY(cuEventDestroy, nullptr);
    TRY(cuEventRecord, nullptr, nullptr);
    TRY(cuEventSynchronize, nullptr);
    TRY(cuEventQuery, nullptr);
    TRY(cuStreamDestroy, nullptr);
    TRY(cuStreamQuery, nullptr);
    TRY(cuStreamGetFlags, nullptr, nullptr);
    TRY(cuCtxDestroy, nullptr);
    TRY(cuCtxPushCurrent, nullptr);
    TRY(cuCtxGetDevice, nullptr);
    TRY(cuCtxGetCurrent, nullptr);
    TRY(cuMemGetInfo, nullptr, nullptr);
    TRY(cuMemFree, 0);
    TRY(cuMemFreeHost, nullptr);
    TRY(cuGraphCreate, nullptr, 0);
    TRY(cuGraphDestroy, nullptr);
    TRY(cuGraphExecDestroy, nullptr);
    TRY(cuGraphLaunch, nullptr, nullptr);
    TRY(cuArrayCreate, nullptr, nullptr);
    TRY(cuArrayDestroy, nullptr);
    TRY(cuMipmappedArrayDestroy, nullptr);
    TRY(cuMemPoolDestroy, nullptr);
    TRY(cuLibraryUnload, nullptr);
    TRY(cuLinkDestroy, nullptr);
    TRY(cuDestroyExternalMemory, nullptr);
    TRY(cuDestroyExternalSemaphore, nullptr);
    TRY(cuTexObjectDestroy, 0);
    TRY(cuSurfObjectDestroy, 0);
    TRY(cuFuncGetAttribute, nullptr, CU_FUNC_ATTRIBUTE_NUM_REGS, kernel("nothing"));
    TRY(cuFuncSetAttribute, nullptr, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1);
    TRY(cuLaunchKernel, nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuLaunchHostFunc, nullptr, nullptr, nullptr);
    TRY(cuPointerGetAttribute, nullptr, CU_POINTER_ATTRIBUTE_CONTEXT, 0);
    TRY(cuMemcpyHtoD, 0, "x", 1);
    TRY(cuMemcpyHtoD, 0, "x", 0);
    TRY(cuMemcpyDtoH, nullptr, 0, 0);
    TRY(cuMemcpy2D, nullptr);
    TRY(cuMemcpy3D, nullptr);
    TRY(cuIpcGetMemHandle, nullptr, 0);
    TRY(cuIpcCloseMemHandle, 0);
}

SECTION(stale_stream) {
    begin();
    CUstream stream = new_stream();
    TRY(cuStreamDestroy, stream);
    TRY(cuStreamSynchronize, stream);
    TRY(cuStreamQuery, stream);
    TRY(cuStreamDestroy, stream);
    TRY(cuCtxSynchronize);
}

SECTION(stale_event) {
    begin();
    CUevent event;
    MUST(cuEventCreate, &event, 0);
    TRY(cuEventDestroy, event);
    TRY(cuEventQuery, event);
    TRY(cuEventRecord, event, nullptr);
    TRY(cuEventDestroy, event);
    TRY(cuCtxSynchronize);
}

SECTION(stale_module) {
    begin();
    CUfunction function = kernel("nothing");
    TRY(cuModuleUnload, module_of_process());
    TRY(cuModuleGetFunction, &function, module_of_process(), "nothing");
    TRY(cuModuleUnload, module_of_process());
}

SECTION(stale_function) {
    begin();
    CUfunction function = kernel("nothing");
    TRY(cuModuleUnload, module_of_process());
    TRY(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuCtxSynchronize);
}

SECTION(stale_context) {
    begin();
    CUcontext context;
    MUST(cuCtxCreate, &context, nullptr, 0, 0);
    CUdeviceptr memory = allocate(16);
    CUstream stream = new_stream();
    TRY(cuCtxDestroy, context);
    CUcontext current = unset<CUcontext>();
    TRY(cuCtxGetCurrent, &current);
    HOLDS(current != context);
    TRY(cuMemFree, memory);
    TRY(cuCtxPushCurrent, context);
    TRY(cuCtxSetCurrent, context);
    // A driver gives either, from run to run.
    CUresult again = DRIVER(cuCtxDestroy)(context);
    HOLDS(again == CUDA_ERROR_CONTEXT_IS_DESTROYED || again == CUDA_ERROR_INVALID_CONTEXT);
    TRY(cuStreamQuery, stream);
}

SECTION(stale_graph) {
    begin();
    CUgraph graph;
    CUgraphNode node;
    MUST(cuGraphCreate, &graph, 0);
    MUST(cuGraphAddEmptyNode, &node, graph, nullptr, 0);
    CUgraphExec exec;
    MUST(cuGraphInstantiate, &exec, graph, 0);
    TRY(cuGraphExecDestroy, exec);
    TRY(cuGraphDestroy, graph);
    TRY(cuGraphDestroy, graph);
}

SECTION(stale_graph_exec) {
    begin();
    CUgraph graph;
    MUST(cuGraphCreate, &graph, 0);
    CUgraphExec exec;
    MUST(cuGraphInstantiate, &exec, graph, 0);
    TRY(cuGraphExecDestroy, exec);
    TRY(cuGraphLaunch, exec, nullptr);
}

// A stream in the place of an event is not asked about: a driver reads what the event would have there, which says a different thing each time.
SECTION(wrong_kind_stream) {
    begin();
    CUevent event;
    MUST(cuEventCreate, &event, 0);
    TRY(cuStreamQuery, reinterpret_cast<CUstream>(event));
}

SECTION(garbage_stream) {
    begin();
    TRY(cuStreamQuery, reinterpret_cast<CUstream>(0x1234));
}

SECTION(garbage_event) {
    begin();
    TRY(cuEventQuery, reinterpret_cast<CUevent>(0x1234));
}

SECTION(garbage_function) {
    begin();
    TRY(cuLaunchKernel, reinterpret_cast<CUfunction>(0x1234), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
}

SECTION(special_streams) {
    begin();
    // The legacy and the per-thread default stream by their fixed values.
    TRY(cuStreamQuery, CU_STREAM_LEGACY);
    TRY(cuStreamQuery, CU_STREAM_PER_THREAD);
    TRY(cuStreamSynchronize, CU_STREAM_LEGACY);
    TRY(cuStreamDestroy, CU_STREAM_LEGACY);
    TRY(cuStreamDestroy, CU_STREAM_PER_THREAD);
    unsigned flags = unset<unsigned>();
    int priority = unset<int>();
    for (CUstream stream : {CUstream(nullptr), CU_STREAM_LEGACY, CU_STREAM_PER_THREAD}) {
        TRY(cuStreamGetFlags, stream, &flags);
        VALUE(flags);
        TRY(cuStreamGetPriority, stream, &priority);
        VALUE(priority);
        CUcontext context = unset<CUcontext>();
        TRY(cuStreamGetCtx, stream, &context);
        CLASS(context);
    }
}

int main(int count, char **arguments) { return transcript(count, arguments); }
