// Stream capture with its errors, graphs and their nodes, updates of executable graphs.
#include "transcript.h"

SECTION(capture) {
    begin();
    CUstream stream = new_stream(), other = new_stream();
    CUgraph graph = unset<CUgraph>();
    CUstreamCaptureStatus status = unset<CUstreamCaptureStatus>();
    TRY(cuStreamEndCapture, stream, &graph);
    TRY(cuStreamIsCapturing, stream, &status);
    VALUE(status);
    TRY(cuStreamIsCapturing, nullptr, &status);
    TRY(cuStreamBeginCapture, nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL);
    TRY(cuStreamBeginCapture, stream, CUstreamCaptureMode(9));
    TRY(cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    TRY(cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    TRY(cuStreamIsCapturing, stream, &status);
    VALUE(status);
    cuuint64_t id = unset<cuuint64_t>();
    CUgraph growing = unset<CUgraph>();
    const CUgraphNode *nodes = nullptr;
    const CUgraphEdgeData *edges = nullptr;
    size_t count = unset<size_t>();
    TRY(cuStreamGetCaptureInfo, stream, &status, &id, &growing, &nodes, &edges, &count);
    CLASS(id);
    CLASS(growing);
    VALUE(count);
    TRY(cuLaunchKernel, kernel("nothing"), 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr);
    CUevent fork, join;
    MUST(cuEventCreate, &fork, CU_EVENT_DISABLE_TIMING);
    MUST(cuEventCreate, &join, CU_EVENT_DISABLE_TIMING);
    TRY(cuEventRecord, fork, stream);
    TRY(cuEventQuery, fork);
    TRY(cuStreamWaitEvent, other, fork, 0);
    TRY(cuStreamIsCapturing, other, &status);
    VALUE(status);
    TRY(cuLaunchKernel, kernel("nothing"), 1, 1, 1, 1, 1, 1, 0, other, nullptr, nullptr);
    TRY(cuEventRecord, join, other);
    TRY(cuStreamEndCapture, other, &graph);
    TRY(cuStreamWaitEvent, stream, join, 0);
    TRY(cuStreamEndCapture, stream, &graph);
    CLASS(graph);
    count = unset<size_t>();
    TRY(cuGraphGetNodes, graph, nullptr, &count);
    VALUE(count);
    TRY(cuGraphGetEdges, graph, nullptr, nullptr, nullptr, &count);
    VALUE(count);
    TRY(cuGraphGetRootNodes, graph, nullptr, &count);
    VALUE(count);
    CUgraphExec exec = unset<CUgraphExec>();
    TRY(cuGraphInstantiate, &exec, graph, 0);
    TRY(cuGraphLaunch, exec, stream);
    TRY(cuStreamSynchronize, stream);
    // The events were recorded in a capture only.
    TRY(cuEventQuery, fork);
    TRY(cuEventSynchronize, join);
}

SECTION(capture_forbids_synchronize) {
    begin();
    CUstream stream = new_stream();
    CUgraph graph = unset<CUgraph>();
    CUstreamCaptureStatus status = unset<CUstreamCaptureStatus>();
    TRY(cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    TRY(cuStreamSynchronize, stream);
    TRY(cuStreamIsCapturing, stream, &status);
    VALUE(status);
    TRY(cuLaunchKernel, kernel("nothing"), 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr);
    TRY(cuStreamEndCapture, stream, &graph);
    CLASS(graph);
    TRY(cuStreamIsCapturing, stream, &status);
    VALUE(status);
    TRY(cuStreamSynchronize, stream);
}

SECTION(capture_forbids_allocation) {
    begin();
    CUstream stream = new_stream();
    CUgraph graph = unset<CUgraph>();
    CUdeviceptr memory = unset<CUdeviceptr>();
    for (int mode : {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_RELAXED}) {
        printf("mode %d\n", mode);
        TRY(cuStreamBeginCapture, stream, CUstreamCaptureMode(mode));
        TRY(cuMemAlloc, &memory, 16);
        TRY(cuStreamQuery, nullptr);
        std::thread([&] {
            MUST(cuCtxSetCurrent, [] {
                CUcontext context;
                MUST(cuDevicePrimaryCtxRetain, &context, 0);
                return context;
            }());
            TRY(cuMemAlloc, &memory, 16);
        }).join();
        TRY(cuStreamEndCapture, stream, &graph);
    }
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    TRY(cuThreadExchangeStreamCaptureMode, &mode);
    VALUE(mode);
    mode = CUstreamCaptureMode(9);
    TRY(cuThreadExchangeStreamCaptureMode, &mode);
    TRY(cuThreadExchangeStreamCaptureMode, nullptr);
}

SECTION(capture_legacy_stream) {
    begin();
    CUstream stream = new_stream(), blocking;
    MUST(cuStreamCreate, &blocking, 0);
    CUgraph graph = unset<CUgraph>();
    TRY(cuStreamBeginCapture, blocking, CU_STREAM_CAPTURE_MODE_GLOBAL);
    TRY(cuLaunchKernel, kernel("nothing"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuMemsetD8, 0x1000, 0, 16);
    TRY(cuStreamEndCapture, blocking, &graph);
    TRY(cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    TRY(cuCtxSynchronize);
    TRY(cuStreamEndCapture, stream, &graph);
}

SECTION(capture_unjoined) {
    begin();
    CUstream stream = new_stream(), other = new_stream();
    CUgraph graph = unset<CUgraph>();
    CUevent fork;
    MUST(cuEventCreate, &fork, CU_EVENT_DISABLE_TIMING);
    TRY(cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    TRY(cuEventRecord, fork, stream);
    TRY(cuStreamWaitEvent, other, fork, 0);
    TRY(cuLaunchKernel, kernel("nothing"), 1, 1, 1, 1, 1, 1, 0, other, nullptr, nullptr);
    TRY(cuStreamEndCapture, stream, &graph);
    CLASS(graph);
    TRY(cuStreamSynchronize, other);
}

SECTION(capture_other_thread) {
    begin();
    CUstream stream = new_stream();
    CUcontext context;
    MUST(cuCtxGetCurrent, &context);
    CUgraph graph = unset<CUgraph>();
    TRY(cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    std::thread([&] {
        MUST(cuCtxSetCurrent, context);
        TRY(cuStreamEndCapture, stream, &graph);
    }).join();
    TRY(cuStreamEndCapture, stream, &graph);
    TRY(cuStreamDestroy, stream);
    stream = new_stream();
    TRY(cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    TRY(cuStreamDestroy, stream);
}

SECTION(nodes) {
    begin();
    CUgraph graph = unset<CUgraph>(), child = unset<CUgraph>();
    TRY(cuGraphCreate, &graph, 1);
    TRY(cuGraphCreate, &graph, 0);
    TRY(cuGraphCreate, &child, 0);
    CUgraphNode empty = unset<CUgraphNode>(), launch = unset<CUgraphNode>(), fill = unset<CUgraphNode>(), copy = unset<CUgraphNode>();
    TRY(cuGraphAddEmptyNode, &empty, graph, nullptr, 1);
    TRY(cuGraphAddEmptyNode, nullptr, graph, nullptr, 0);
    TRY(cuGraphAddEmptyNode, &empty, graph, nullptr, 0);
    CUdeviceptr memory = allocate(4096);
    unsigned count = 100;
    void *parameters[] = {&memory, &count};
    CUDA_KERNEL_NODE_PARAMS kernel_parameters{};
    TRY(cuGraphAddKernelNode, &launch, graph, &empty, 1, &kernel_parameters);
    kernel_parameters.func = kernel("add_one");
    kernel_parameters.gridDimX = kernel_parameters.gridDimY = kernel_parameters.gridDimZ = 1;
    kernel_parameters.blockDimX = 2000;
    kernel_parameters.blockDimY = kernel_parameters.blockDimZ = 1;
    kernel_parameters.kernelParams = parameters;
    TRY(cuGraphAddKernelNode, &launch, graph, &empty, 1, &kernel_parameters);
    kernel_parameters.blockDimX = 128;
    TRY(cuGraphAddKernelNode, &launch, graph, &empty, 1, &kernel_parameters);
    CUDA_KERNEL_NODE_PARAMS kept{};
    TRY(cuGraphKernelNodeGetParams, launch, &kept);
    VALUE(kept.blockDimX);
    HOLDS(kept.func == kernel_parameters.func);
    HOLDS(kept.kernelParams && *static_cast<CUdeviceptr *>(kept.kernelParams[0]) == memory);
    TRY(cuGraphKernelNodeGetParams, empty, &kept);
    CUcontext context;
    MUST(cuCtxGetCurrent, &context);
    CUDA_MEMSET_NODE_PARAMS fill_parameters{};
    fill_parameters.dst = memory;
    fill_parameters.value = 5;
    fill_parameters.elementSize = 3;
    fill_parameters.width = 1024;
    fill_parameters.height = 1;
    TRY(cuGraphAddMemsetNode, &fill, graph, nullptr, 0, &fill_parameters, context);
    fill_parameters.elementSize = 4;
    TRY(cuGraphAddMemsetNode, &fill, graph, nullptr, 0, &fill_parameters, context);
    CUDA_MEMCPY3D bytes{};
    bytes.srcMemoryType = bytes.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    bytes.srcDevice = memory;
    bytes.dstDevice = memory + 2048;
    bytes.WidthInBytes = 100;
    bytes.Height = bytes.Depth = 1;
    TRY(cuGraphAddMemcpyNode, &copy, graph, nullptr, 0, &bytes, context);
    CUgraphNodeType type = unset<CUgraphNodeType>();
    for (CUgraphNode node : {empty, launch, fill, copy}) {
        TRY(cuGraphNodeGetType, node, &type);
        VALUE(type);
    }
    // A cycle is noticed by the instantiation, a double edge at once.
    TRY(cuGraphAddDependencies, graph, &fill, &launch, nullptr, 1);
    TRY(cuGraphAddDependencies, graph, &fill, &launch, nullptr, 1);
    TRY(cuGraphAddDependencies, graph, &launch, &fill, nullptr, 1);
    CUgraphExec exec = unset<CUgraphExec>();
    TRY(cuGraphInstantiate, &exec, graph, 0);
    TRY(cuGraphRemoveDependencies, graph, &launch, &fill, nullptr, 1);
    TRY(cuGraphRemoveDependencies, graph, &launch, &fill, nullptr, 1);
    TRY(cuGraphAddDependencies, graph, &launch, &launch, nullptr, 1);
    TRY(cuGraphInstantiate, &exec, graph, 0x1000);
    TRY(cuGraphInstantiate, &exec, graph, 0);
    TRY(cuGraphLaunch, exec, nullptr);
    TRY(cuCtxSynchronize);
    unsigned word = 0;
    TRY(cuMemcpyDtoH, &word, memory + 4, 4);
    VALUE(word);
    fill_parameters.value = 9;
    TRY(cuGraphExecMemsetNodeSetParams, exec, fill, &fill_parameters, context);
    kernel_parameters.func = kernel("with_shared");
    TRY(cuGraphExecKernelNodeSetParams, exec, launch, &kernel_parameters);
    kernel_parameters.func = kernel("add_one");
    kernel_parameters.blockDimX = 64;
    TRY(cuGraphExecKernelNodeSetParams, exec, launch, &kernel_parameters);
    TRY(cuGraphExecKernelNodeSetParams, exec, fill, &kernel_parameters);
    TRY(cuGraphNodeSetEnabled, exec, copy, 0);
    unsigned enabled = unset<unsigned>();
    TRY(cuGraphNodeGetEnabled, exec, copy, &enabled);
    VALUE(enabled);
    TRY(cuGraphNodeSetEnabled, exec, empty, 0);
    TRY(cuGraphLaunch, exec, nullptr);
    TRY(cuMemcpyDtoH, &word, memory + 4, 4);
    VALUE(word);
    CUgraph clone = unset<CUgraph>();
    CUgraphNode found = unset<CUgraphNode>();
    TRY(cuGraphClone, &clone, graph);
    TRY(cuGraphNodeFindInClone, &found, launch, clone);
    HOLDS(found != launch);
    TRY(cuGraphNodeFindInClone, &found, found, clone);
    CUgraphExecUpdateResultInfo result = unset<CUgraphExecUpdateResultInfo>();
    TRY(cuGraphExecUpdate, exec, clone, &result);
    VALUE(result.result);
    TRY(cuGraphDestroyNode, copy);
    TRY(cuGraphExecUpdate, exec, graph, &result);
    VALUE(result.result);
    TRY(cuGraphAddChildGraphNode, &found, graph, nullptr, 0, child);
    TRY(cuGraphChildGraphNodeGetGraph, found, &clone);
    HOLDS(clone != child);
    TRY(cuGraphAddChildGraphNode, &found, graph, nullptr, 0, graph);
    CUDA_HOST_NODE_PARAMS host{};
    TRY(cuGraphAddHostNode, &found, graph, nullptr, 0, &host);
    CUgraphNode allocation = unset<CUgraphNode>();
    CUDA_MEM_ALLOC_NODE_PARAMS amount{};
    amount.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    amount.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, {0}};
    amount.bytesize = 1000;
    TRY(cuGraphAddMemAllocNode, &allocation, graph, nullptr, 0, &amount);
    CLASS(amount.dptr);
    TRY(cuGraphAddMemFreeNode, &found, graph, nullptr, 0, 0x1000);
    TRY(cuGraphAddMemFreeNode, &found, graph, &allocation, 1, amount.dptr);
    TRY(cuGraphClone, &clone, graph);
    TRY(cuGraphInstantiate, &exec, graph, CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    TRY(cuGraphLaunch, exec, nullptr);
    TRY(cuGraphUpload, exec, nullptr);
    cuuint64_t flags = unset<cuuint64_t>();
    TRY(cuGraphExecGetFlags, exec, &flags);
    VALUE(flags);
    TRY(cuDeviceGraphMemTrim, 0);
    TRY(cuGraphDestroy, graph);
    TRY(cuGraphLaunch, exec, nullptr);
    TRY(cuCtxSynchronize);
}

SECTION(user_objects) {
    begin();
    static int destroyed = 0;
    CUgraph graph;
    MUST(cuGraphCreate, &graph, 0);
    CUuserObject object = unset<CUuserObject>();
    TRY(cuUserObjectCreate, &object, &destroyed, [](void *count) { ++*static_cast<int *>(count); }, 1, 0);
    TRY(cuUserObjectCreate, &object, &destroyed, [](void *count) { ++*static_cast<int *>(count); }, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    TRY(cuGraphRetainUserObject, graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE);
    printf("    destroyed: %d\n", destroyed);
    TRY(cuGraphDestroy, graph);
    for (int i = 0; i < 200 && destroyed == 0; i++)
        usleep(10000);
    printf("    destroyed: %d\n", destroyed);
}

int main(int count, char **arguments) { return transcript(count, arguments); }
