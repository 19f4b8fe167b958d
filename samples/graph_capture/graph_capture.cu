// Stream capture: what is captured, how it is replayed and updated, and what a capture forbids.
#include <vector>

#include "check.h"

__global__ void scale(const float *in, float *out, int count, float factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        out[i] = in[i] * factor;
}

__global__ void add(const float *a, const float *b, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        out[i] = a[i] + b[i];
}

__global__ void increment(unsigned *value) { *value += 1; }

constexpr int count = 4096, threads = 256, blocks = count / threads;
constexpr size_t bytes = count * sizeof(float);

struct Buffers {
    float *in, *out;               // page-locked
    float *device, *first, *second;
};

// Copies in, computes twice and copies out: three times the input times `factor`.
static cudaGraph_t capture_line(cudaStream_t stream, const Buffers &b, float factor) {
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaMemcpyAsync(b.device, b.in, bytes, cudaMemcpyHostToDevice, stream));
    scale<<<blocks, threads, 0, stream>>>(b.device, b.first, count, factor);
    scale<<<blocks, threads, 0, stream>>>(b.first, b.second, count, 3.0f);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(b.out, b.second, bytes, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    return graph;
}

static size_t node_count(cudaGraph_t graph) {
    size_t nodes = 0;
    CHECK(cudaGraphGetNodes(graph, nullptr, &nodes));
    return nodes;
}

static int nodes_of_type(cudaGraph_t graph, cudaGraphNodeType type) {
    size_t size = node_count(graph);
    std::vector<cudaGraphNode_t> nodes(size);
    CHECK(cudaGraphGetNodes(graph, nodes.data(), &size));
    int found = 0;
    for (cudaGraphNode_t node : nodes) {
        cudaGraphNodeType its;
        CHECK(cudaGraphNodeGetType(node, &its));
        found += its == type;
    }
    return found;
}

static void CUDART_CB count_call(void *data) { ++*static_cast<int *>(data); }

static cudaStreamCaptureStatus status_of(cudaStream_t stream) {
    cudaStreamCaptureStatus status;
    CHECK(cudaStreamIsCapturing(stream, &status));
    return status;
}

int main() {
    Buffers b;
    CHECK(cudaMallocHost(&b.in, bytes));
    CHECK(cudaMallocHost(&b.out, bytes));
    CHECK(cudaMalloc(&b.device, bytes));
    CHECK(cudaMalloc(&b.first, bytes));
    CHECK(cudaMalloc(&b.second, bytes));
    cudaStream_t stream, other;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));

    // Nothing runs while it is captured; every replay sees the input of its time.
    for (int i = 0; i < count; i++) {
        b.in[i] = 1.0f;
        b.out[i] = -1.0f;
    }
    EXPECT(status_of(stream) == cudaStreamCaptureStatusNone, "%d", status_of(stream));
    cudaGraph_t line = capture_line(stream, b, 2.0f);
    CHECK(cudaDeviceSynchronize());
    EXPECT(b.out[0] == -1.0f, "%g", b.out[0]);
    EXPECT(node_count(line) == 4, "%zu nodes", node_count(line));
    EXPECT(nodes_of_type(line, cudaGraphNodeTypeKernel) == 2, "%d kernels", nodes_of_type(line, cudaGraphNodeTypeKernel));
    EXPECT(nodes_of_type(line, cudaGraphNodeTypeMemcpy) == 2, "%d copies", nodes_of_type(line, cudaGraphNodeTypeMemcpy));
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, line, 0));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < count; i++)
            b.in[i] = static_cast<float>(i + round);
        CHECK(cudaGraphLaunch(exec, stream));
        CHECK(cudaStreamSynchronize(stream));
        for (int i = 0; i < count; i++)
            EXPECT(b.out[i] == b.in[i] * 6.0f, "round %d, element %d: %g", round, i, b.out[i]);
    }
    printf("graph_capture: 4 nodes, 3 replays: equal\n");

    // Many launches of one executable graph run one after the other.
    unsigned *counter, result = 0;
    CHECK(cudaMalloc(&counter, sizeof(unsigned)));
    CHECK(cudaMemset(counter, 0, sizeof(unsigned)));
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < 20; i++)
        increment<<<1, 1, 0, stream>>>(counter);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t twenty;
    CHECK(cudaGraphInstantiate(&twenty, graph, 0));
    CHECK(cudaGraphUpload(twenty, stream));
    for (int i = 0; i < 100; i++)
        CHECK(cudaGraphLaunch(twenty, i % 2 ? stream : other));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(&result, counter, sizeof(result), cudaMemcpyDeviceToHost));
    EXPECT(result == 2000, "%u", result);
    CHECK(cudaGraphExecDestroy(twenty));
    CHECK(cudaGraphDestroy(graph));
    printf("graph_capture: 100 launches of 20 kernels: %u\n", result);

    // Fork and join by events: the two kernels in the middle do not depend on each other.
    cudaEvent_t fork, join;
    CHECK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    CHECK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaMemcpyAsync(b.device, b.in, bytes, cudaMemcpyHostToDevice, stream));
    EXPECT(status_of(other) == cudaStreamCaptureStatusNone, "%d", status_of(other));
    CHECK(cudaEventRecord(fork, stream));
    CHECK(cudaStreamWaitEvent(other, fork, 0));
    scale<<<blocks, threads, 0, stream>>>(b.device, b.first, count, 10.0f);
    scale<<<blocks, threads, 0, other>>>(b.device, b.second, count, 100.0f);
    CHECK(cudaGetLastError());
    EXPECT(status_of(stream) == cudaStreamCaptureStatusActive, "%d", status_of(stream));
    EXPECT(status_of(other) == cudaStreamCaptureStatusActive, "%d", status_of(other));
    cudaError_t error = cudaStreamEndCapture(stream, &graph);
    EXPECT(error == cudaErrorStreamCaptureUnjoined, "%s", cudaGetErrorName(error));
    cudaGetLastError();
    EXPECT(status_of(stream) == cudaStreamCaptureStatusNone, "%d", status_of(stream));
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaMemcpyAsync(b.device, b.in, bytes, cudaMemcpyHostToDevice, stream));
    CHECK(cudaEventRecord(fork, stream));
    CHECK(cudaStreamWaitEvent(other, fork, 0));
    scale<<<blocks, threads, 0, stream>>>(b.device, b.first, count, 10.0f);
    scale<<<blocks, threads, 0, other>>>(b.device, b.second, count, 100.0f);
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(join, other));
    CHECK(cudaStreamWaitEvent(stream, join, 0));
    cudaStreamCaptureStatus status;
    unsigned long long id = 0;
    cudaGraph_t under_way = nullptr;
    const cudaGraphNode_t *dependencies = nullptr;
    size_t depends = 0;
    CHECK(cudaStreamGetCaptureInfo(stream, &status, &id, &under_way, &dependencies, nullptr, &depends));
    EXPECT(status == cudaStreamCaptureStatusActive && id != 0 && under_way && depends == 2, "%zu dependencies", depends);
    EXPECT(dependencies[0] && dependencies[1] && dependencies[0] != dependencies[1], "the same node twice");
    add<<<blocks, threads, 0, stream>>>(b.first, b.second, b.device, count);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(b.out, b.device, bytes, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    EXPECT(graph == under_way, "another graph");
    size_t edges = 0;
    CHECK(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
    EXPECT(node_count(graph) == 5 && edges == 5, "%zu nodes, %zu edges", node_count(graph), edges);
    cudaGraphExec_t diamond;
    CHECK(cudaGraphInstantiate(&diamond, graph, 0));
    CHECK(cudaGraphLaunch(diamond, other));
    CHECK(cudaStreamSynchronize(other));
    for (int i = 0; i < count; i++)
        EXPECT(b.out[i] == b.in[i] * 10.0f + b.in[i] * 100.0f, "element %d: %g", i, b.out[i]);
    CHECK(cudaGraphExecDestroy(diamond));
    CHECK(cudaGraphDestroy(graph));
    printf("graph_capture: fork and join: 5 nodes, %zu edges: equal\n", edges);

    // An executable graph takes the parameters of a graph of the same shape.
    cudaGraph_t faster = capture_line(stream, b, 5.0f);
    cudaGraphExecUpdateResultInfo info;
    CHECK(cudaGraphExecUpdate(exec, faster, &info));
    EXPECT(info.result == cudaGraphExecUpdateSuccess, "%d", info.result);
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int i = 0; i < count; i++)
        EXPECT(b.out[i] == b.in[i] * 15.0f, "element %d: %g", i, b.out[i]);
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    scale<<<blocks, threads, 0, stream>>>(b.device, b.first, count, 1.0f);
    CHECK(cudaStreamEndCapture(stream, &graph));
    EXPECT(cudaGraphExecUpdate(exec, graph, &info) == cudaErrorGraphExecUpdateFailure, "a graph of another shape was taken");
    cudaGetLastError();
    EXPECT(info.result == cudaGraphExecUpdateErrorTopologyChanged, "%d", info.result);
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaGraphDestroy(faster));
    printf("graph_capture: update: equal, another shape is refused\n");

    // Functions of the program are called at every launch.
    int calls = 0;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    increment<<<1, 1, 0, stream>>>(counter);
    CHECK(cudaLaunchHostFunc(stream, count_call, &calls));
    increment<<<1, 1, 0, stream>>>(counter);
    CHECK(cudaLaunchHostFunc(stream, count_call, &calls));
    CHECK(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t with_calls;
    CHECK(cudaGraphInstantiate(&with_calls, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    for (int i = 0; i < 5; i++)
        CHECK(cudaGraphLaunch(with_calls, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpy(&result, counter, sizeof(result), cudaMemcpyDeviceToHost));
    EXPECT(calls == 10 && result == 2010, "%d calls, %u", calls, result);
    CHECK(cudaGraphExecDestroy(with_calls));
    printf("graph_capture: host functions: %d calls in 5 launches\n", calls);

    // Memory that is allocated and freed in a capture belongs to the graph.
    float *inside;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaMallocAsync(&inside, bytes, stream));
    CHECK(cudaMemcpyAsync(inside, b.in, bytes, cudaMemcpyHostToDevice, stream));
    scale<<<blocks, threads, 0, stream>>>(inside, inside, count, 7.0f);
    CHECK(cudaMemcpyAsync(b.out, inside, bytes, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaFreeAsync(inside, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    EXPECT(nodes_of_type(graph, cudaGraphNodeTypeMemAlloc) == 1 && nodes_of_type(graph, cudaGraphNodeTypeMemFree) == 1,
           "%zu nodes", node_count(graph));
    cudaGraphExec_t with_memory;
    CHECK(cudaGraphInstantiate(&with_memory, graph, 0));
    for (int round = 0; round < 2; round++) {
        b.in[5] = static_cast<float>(round);
        CHECK(cudaGraphLaunch(with_memory, stream));
        CHECK(cudaStreamSynchronize(stream));
        for (int i = 0; i < count; i++)
            EXPECT(b.out[i] == b.in[i] * 7.0f, "element %d: %g", i, b.out[i]);
    }
    CHECK(cudaGraphExecDestroy(with_memory));
    CHECK(cudaGraphDestroy(graph));
    printf("graph_capture: memory of the graph: equal\n");

    // A capture into a graph that exists.
    CHECK(cudaGraphCreate(&graph, 0));
    CHECK(cudaStreamBeginCaptureToGraph(stream, graph, nullptr, nullptr, 0, cudaStreamCaptureModeGlobal));
    increment<<<1, 1, 0, stream>>>(counter);
    CHECK(cudaStreamEndCapture(stream, &under_way));
    EXPECT(under_way == graph && node_count(graph) == 1, "%zu nodes", node_count(graph));
    CHECK(cudaGraphDestroy(graph));
    printf("graph_capture: into an existing graph: 1 node\n");

    // What cannot be captured is refused by the call that does it, and ends the capture.
    graph = nullptr;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    error = cudaStreamSynchronize(stream);
    EXPECT(error == cudaErrorStreamCaptureUnsupported, "%s", cudaGetErrorName(error));
    EXPECT(status_of(stream) == cudaStreamCaptureStatusInvalidated, "%d", status_of(stream));
    error = cudaStreamEndCapture(stream, &graph);
    EXPECT(error == cudaErrorStreamCaptureInvalidated && !graph, "%s", cudaGetErrorName(error));
    cudaGetLastError();
    EXPECT(status_of(stream) == cudaStreamCaptureStatusNone, "%d", status_of(stream));
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    float *unwanted;
    error = cudaMalloc(&unwanted, bytes);
    EXPECT(error == cudaErrorStreamCaptureUnsupported, "%s", cudaGetErrorName(error));
    error = cudaStreamEndCapture(stream, &graph);
    EXPECT(error == cudaErrorStreamCaptureInvalidated, "%s", cudaGetErrorName(error));
    cudaGetLastError();
    // A thread that says it knows what it does may.
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
    EXPECT(mode == cudaStreamCaptureModeGlobal, "%d", mode);
    CHECK(cudaMalloc(&unwanted, bytes));
    CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
    EXPECT(mode == cudaStreamCaptureModeRelaxed, "%d", mode);
    increment<<<1, 1, 0, stream>>>(counter);
    CHECK(cudaStreamEndCapture(stream, &graph));
    EXPECT(node_count(graph) == 1, "%zu nodes", node_count(graph));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaFree(unwanted));
    // The legacy stream would have to wait for the capture.
    cudaStream_t blocking;
    CHECK(cudaStreamCreate(&blocking));
    CHECK(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
    increment<<<1, 1>>>(counter);
    error = cudaGetLastError();
    EXPECT(error == cudaErrorStreamCaptureImplicit, "%s", cudaGetErrorName(error));
    error = cudaStreamEndCapture(blocking, &graph);
    EXPECT(error == cudaErrorStreamCaptureInvalidated, "%s", cudaGetErrorName(error));
    cudaGetLastError();
    CHECK(cudaStreamDestroy(blocking));
    printf("graph_capture: what cannot be captured is refused\n");

    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(line));
    CHECK(cudaMemcpy(&result, counter, sizeof(result), cudaMemcpyDeviceToHost));
    EXPECT(result == 2010, "%u", result);
    return pass();
}
