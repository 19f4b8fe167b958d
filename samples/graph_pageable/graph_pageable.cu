// Copies from and to ordinary memory in graphs: captured and node by node. The memory is read and written when the graph runs.
#include <algorithm>
#include <fstream>
#include <string>
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

// Doubles every byte of a pitched rectangle.
__global__ void twice(unsigned char *bytes, size_t pitch, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x < width && y < height)
        bytes[y * pitch + x] *= 2;
}

constexpr int count = 4096, threads = 256, blocks = count / threads;
constexpr size_t bytes = count * sizeof(float);

static float *ordinary(int elements = count) {
    auto *memory = static_cast<float *>(malloc(elements * sizeof(float)));
    if (!memory)
        exit(1);
    return memory;
}

static void fill(float *values, float first) {
    for (int i = 0; i < count; i++)
        values[i] = first + static_cast<float>(i % 100);
}

static void all_scaled(const float *out, const float *in, float factor, const char *what) {
    for (int i = 0; i < count; i++)
        EXPECT(out[i] == in[i] * factor, "%s, element %d: %g, not %g", what, i, out[i], in[i] * factor);
}

struct Device {
    float *in, *out;
};

// Copies in, computes and copies out.
static cudaGraph_t capture_line(cudaStream_t stream, const Device &device, float *out, const float *in, float factor) {
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaMemcpyAsync(device.in, in, bytes, cudaMemcpyHostToDevice, stream));
    scale<<<blocks, threads, 0, stream>>>(device.in, device.out, count, factor);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(out, device.out, bytes, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    return graph;
}

static std::vector<cudaGraphNode_t> nodes_of(cudaGraph_t graph) {
    size_t size = 0;
    CHECK(cudaGraphGetNodes(graph, nullptr, &size));
    std::vector<cudaGraphNode_t> nodes(size);
    if (size)
        CHECK(cudaGraphGetNodes(graph, nodes.data(), &size));
    return nodes;
}

static cudaGraphNodeType type_of(cudaGraphNode_t node) {
    cudaGraphNodeType type;
    CHECK(cudaGraphNodeGetType(node, &type));
    return type;
}

static size_t copies_in(cudaGraph_t graph) {
    size_t found = 0;
    for (cudaGraphNode_t node : nodes_of(graph))
        found += type_of(node) == cudaGraphNodeTypeMemcpy;
    return found;
}

static cudaGraphExec_t instantiate(cudaGraph_t graph) {
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    return exec;
}

static void run(cudaGraphExec_t exec, cudaStream_t stream) {
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
}

static void run_once(cudaGraph_t graph, cudaStream_t stream) {
    cudaGraphExec_t exec = instantiate(graph);
    run(exec, stream);
    CHECK(cudaGraphExecDestroy(exec));
}

// What a host function sees at its turn.
struct Seen {
    const unsigned *value;
    std::vector<unsigned> values;
};

static void CUDART_CB look(void *data) {
    auto *seen = static_cast<Seen *>(data);
    seen->values.push_back(*seen->value);
}

// Memory of this process, in KiB.
static long resident() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.rfind("VmRSS:", 0) == 0)
            return atol(line.c_str() + 6);
    return 0;
}

static void replays(cudaStream_t stream, const Device &device) {
    float *in = ordinary(), *out = ordinary();
    fill(in, 1.0f);
    std::fill(out, out + count, -1.0f);
    cudaGraph_t graph = capture_line(stream, device, out, in, 3.0f);
    EXPECT(out[0] == -1.0f && out[count - 1] == -1.0f, "%g: a copy has run while it was captured", out[0]);
    EXPECT(nodes_of(graph).size() == 3 && copies_in(graph) == 2, "%zu nodes, %zu copies", nodes_of(graph).size(),
           copies_in(graph));
    cudaGraphExec_t exec = instantiate(graph);
    for (int round = 0; round < 4; round++) {
        fill(in, static_cast<float>(round * 7));
        run(exec, stream);
        all_scaled(out, in, 3.0f, "replay");
    }
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    free(in);
    free(out);
    printf("graph_pageable: capture: 3 nodes, 4 replays: equal\n");
}

static void on_the_stack(cudaStream_t stream, unsigned *counter) {
    // More than a stream has room for: a launch waits for the host functions of those before it.
    constexpr unsigned launches = 2000;
    unsigned result = 0;
    Seen seen = {&result, {}};
    CHECK(cudaMemset(counter, 0, sizeof(unsigned)));
    CHECK(cudaDeviceSynchronize());
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    increment<<<1, 1, 0, stream>>>(counter);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(&result, counter, sizeof(result), cudaMemcpyDeviceToHost, stream));
    CHECK(cudaLaunchHostFunc(stream, look, &seen));
    CHECK(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t exec = instantiate(graph);
    CHECK(cudaGraphDestroy(graph));
    for (unsigned i = 0; i < launches; i++)
        CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
    EXPECT(seen.values.size() == launches && result == launches, "%zu calls, %u", seen.values.size(), result);
    for (unsigned i = 0; i < launches; i++)
        EXPECT(seen.values[i] == i + 1, "call %u has seen %u", i, seen.values[i]);
    CHECK(cudaGraphExecDestroy(exec));
    printf("graph_pageable: host function after a copy to the stack: %zu calls, in order\n", seen.values.size());
}

static void fork_and_join(cudaStream_t stream, cudaStream_t other, const Device &device, float *third) {
    float *first = ordinary(), *second = ordinary(), *out = ordinary();
    fill(first, 10.0f);
    fill(second, 1000.0f);
    cudaEvent_t fork, join;
    CHECK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    CHECK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaEventRecord(fork, stream));
    CHECK(cudaStreamWaitEvent(other, fork, 0));
    CHECK(cudaMemcpyAsync(device.in, first, bytes, cudaMemcpyHostToDevice, stream));
    CHECK(cudaMemcpyAsync(device.out, second, bytes, cudaMemcpyHostToDevice, other));
    CHECK(cudaEventRecord(join, other));
    CHECK(cudaStreamWaitEvent(stream, join, 0));
    cudaStreamCaptureStatus status;
    unsigned long long id = 0;
    cudaGraph_t under_way = nullptr;
    const cudaGraphNode_t *dependencies = nullptr;
    size_t depends = 0;
    CHECK(cudaStreamGetCaptureInfo(stream, &status, &id, &under_way, &dependencies, nullptr, &depends));
    EXPECT(depends == 2 && type_of(dependencies[0]) == cudaGraphNodeTypeMemcpy, "%zu dependencies", depends);
    add<<<blocks, threads, 0, stream>>>(device.in, device.out, third, count);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(out, third, bytes, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    size_t edges = 0;
    CHECK(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
    EXPECT(nodes_of(graph).size() == 4 && edges == 3, "%zu nodes, %zu edges", nodes_of(graph).size(), edges);
    cudaGraphExec_t exec = instantiate(graph);
    for (int round = 0; round < 3; round++) {
        fill(second, static_cast<float>(500 * round));
        run(exec, other);
        for (int i = 0; i < count; i++)
            EXPECT(out[i] == first[i] + second[i], "element %d: %g", i, out[i]);
    }
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaEventDestroy(fork));
    CHECK(cudaEventDestroy(join));
    for (float *memory : {first, second, out})
        free(memory);
    printf("graph_pageable: fork and join: 4 nodes, %zu edges: equal\n", edges);
}

// Rows with gaps on both sides, in a capture; the gaps stay as they are.
static void rows(cudaStream_t stream) {
    constexpr int width = 100, height = 37;
    constexpr size_t in_pitch = 123, out_pitch = 150;
    std::vector<unsigned char> in(in_pitch * height), out(out_pitch * height, 0xee);
    unsigned char *device;
    size_t pitch;
    CHECK(cudaMallocPitch(&device, &pitch, width, height));
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaMemcpy2DAsync(device, pitch, in.data(), in_pitch, width, height, cudaMemcpyHostToDevice, stream));
    twice<<<dim3(1, height), 128, 0, stream>>>(device, pitch, width, height);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy2DAsync(out.data(), out_pitch, device, pitch, width, height, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    EXPECT(nodes_of(graph).size() == 3 && copies_in(graph) == 2, "%zu nodes", nodes_of(graph).size());
    cudaGraphExec_t exec = instantiate(graph);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < in.size(); i++)
            in[i] = static_cast<unsigned char>((i + round) % 113);
        run(exec, stream);
        for (int y = 0; y < height; y++)
            for (int x = 0; x < static_cast<int>(out_pitch); x++) {
                int expected = x < width ? in[y * in_pitch + x] * 2 : 0xee;
                EXPECT(out[y * out_pitch + x] == expected, "row %d, byte %d: %d", y, x, out[y * out_pitch + x]);
            }
    }
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaFree(device));
    printf("graph_pageable: rows with gaps: equal\n");
}

// A box out of the middle of ordinary memory into an array and back, in a capture and as nodes.
static void boxes(cudaStream_t stream) {
    constexpr size_t wide = 20, high = 12, deep = 6, width = 9, height = 5, depth = 4;
    std::vector<float> in(wide * high * deep), out(wide * high * deep);
    cudaArray_t array;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    CHECK(cudaMalloc3DArray(&array, &format, make_cudaExtent(width, height, depth)));
    // Offsets count elements where an array takes part.
    cudaMemcpy3DParms to = {}, from = {};
    to.srcPtr = make_cudaPitchedPtr(in.data(), wide * sizeof(float), wide, high);
    to.srcPos = make_cudaPos(3, 2, 1);
    to.dstArray = array;
    to.extent = make_cudaExtent(width, height, depth);
    to.kind = cudaMemcpyHostToDevice;
    from.srcArray = array;
    from.dstPtr = make_cudaPitchedPtr(out.data(), wide * sizeof(float), wide, high);
    from.dstPos = make_cudaPos(7, 4, 2);
    from.extent = to.extent;
    from.kind = cudaMemcpyDeviceToHost;
    for (bool captured : {true, false}) {
        cudaGraph_t graph;
        if (captured) {
            CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
            CHECK(cudaMemcpy3DAsync(&to, stream));
            CHECK(cudaMemcpy3DAsync(&from, stream));
            CHECK(cudaStreamEndCapture(stream, &graph));
        } else {
            cudaGraphNode_t first, second;
            CHECK(cudaGraphCreate(&graph, 0));
            CHECK(cudaGraphAddMemcpyNode(&first, graph, nullptr, 0, &to));
            CHECK(cudaGraphAddMemcpyNode(&second, graph, &first, 1, &from));
        }
        EXPECT(nodes_of(graph).size() == 2 && copies_in(graph) == 2, "%zu nodes", nodes_of(graph).size());
        for (size_t i = 0; i < in.size(); i++)
            in[i] = static_cast<float>(i) + (captured ? 0.25f : 0.75f);
        std::fill(out.begin(), out.end(), -1.0f);
        run_once(graph, stream);
        for (size_t z = 0; z < deep; z++)
            for (size_t y = 0; y < high; y++)
                for (size_t x = 0; x < wide; x++) {
                    bool inside = x >= 7 && x < 7 + width && y >= 4 && y < 4 + height && z >= 2 && z < 2 + depth;
                    float expected = inside ? in[((z - 1) * high + y - 2) * wide + x - 4] : -1.0f;
                    float is = out[(z * high + y) * wide + x];
                    EXPECT(is == expected, "(%zu, %zu, %zu): %g, not %g", x, y, z, is, expected);
                }
        CHECK(cudaGraphDestroy(graph));
    }
    CHECK(cudaFreeArray(array));
    printf("graph_pageable: boxes and arrays: equal\n");
}

// A graph that is built: in, compute, out, look.
struct Built {
    cudaGraph_t graph;
    cudaGraphNode_t in, kernel, out;
};

static Built build(const Device &device, float *out, float *in, float factor) {
    Built built;
    Device local = device;
    int n = count;
    void *args[] = {&local.in, &local.out, &n, &factor};
    cudaKernelNodeParams kernel = {};
    kernel.func = reinterpret_cast<void *>(scale);
    kernel.gridDim = dim3(blocks);
    kernel.blockDim = dim3(threads);
    kernel.kernelParams = args;
    CHECK(cudaGraphCreate(&built.graph, 0));
    CHECK(cudaGraphAddMemcpyNode1D(&built.in, built.graph, nullptr, 0, device.in, in, bytes, cudaMemcpyHostToDevice));
    CHECK(cudaGraphAddKernelNode(&built.kernel, built.graph, &built.in, 1, &kernel));
    CHECK(cudaGraphAddMemcpyNode1D(&built.out, built.graph, &built.kernel, 1, out, device.out, bytes,
                                   cudaMemcpyDeviceToHost));
    return built;
}

static void nodes(cudaStream_t stream, const Device &device) {
    float *in = ordinary(), *out = ordinary();
    Built built = build(device, out, in, 5.0f);
    unsigned first = 0;
    Seen seen = {&first, {}};
    // What it looks at comes with the copy that it depends on, to the stack.
    cudaGraphNode_t copy, call;
    CHECK(cudaGraphAddMemcpyNode1D(&copy, built.graph, &built.kernel, 1, &first, device.out, sizeof(first),
                                   cudaMemcpyDeviceToHost));
    cudaHostNodeParams function = {look, &seen};
    CHECK(cudaGraphAddHostNode(&call, built.graph, &copy, 1, &function));
    cudaGraphExec_t exec = instantiate(built.graph);
    for (int round = 0; round < 3; round++) {
        fill(in, static_cast<float>(round + 1));
        run(exec, stream);
        all_scaled(out, in, 5.0f, "nodes");
        float value;
        memcpy(&value, &seen.values.back(), sizeof(value));
        EXPECT(value == in[0] * 5.0f, "%g", value);
    }
    EXPECT(seen.values.size() == 3, "%zu calls", seen.values.size());

    // What the nodes say of themselves.
    EXPECT(nodes_of(built.graph).size() == 5 && copies_in(built.graph) == 3, "%zu nodes, %zu copies",
           nodes_of(built.graph).size(), copies_in(built.graph));
    EXPECT(type_of(built.in) == cudaGraphNodeTypeMemcpy && type_of(built.kernel) == cudaGraphNodeTypeKernel, "%d and %d",
           type_of(built.in), type_of(built.kernel));
    size_t depends = 0;
    CHECK(cudaGraphNodeGetDependentNodes(built.kernel, nullptr, nullptr, &depends));
    EXPECT(depends == 2, "%zu dependent nodes", depends);
    cudaMemcpy3DParms params;
    CHECK(cudaGraphMemcpyNodeGetParams(built.in, &params));
    EXPECT(params.srcPtr.ptr == in && params.dstPtr.ptr == device.in, "from %p to %p", params.srcPtr.ptr,
           params.dstPtr.ptr);
    EXPECT(params.extent.width == bytes && params.extent.height == 1 && params.extent.depth == 1, "%zu bytes",
           params.extent.width);
    CHECK(cudaGraphMemcpyNodeGetParams(built.out, &params));
    EXPECT(params.srcPtr.ptr == device.out && params.dstPtr.ptr == out, "from %p to %p", params.srcPtr.ptr,
           params.dstPtr.ptr);
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroyNode(copy));
    EXPECT(nodes_of(built.graph).size() == 4, "%zu nodes", nodes_of(built.graph).size());
    CHECK(cudaGraphDestroy(built.graph));
    free(in);
    free(out);
    printf("graph_pageable: nodes: 3 copies, %zu calls: equal\n", seen.values.size());
}

static void clones(cudaStream_t stream, const Device &device) {
    float *in = ordinary(), *out = ordinary();
    Built built = build(device, out, in, 7.0f);
    cudaGraph_t clone, outer;
    cudaGraphNode_t in_clone, child;
    CHECK(cudaGraphClone(&clone, built.graph));
    CHECK(cudaGraphNodeFindInClone(&in_clone, built.in, clone));
    EXPECT(type_of(in_clone) == cudaGraphNodeTypeMemcpy, "%d", type_of(in_clone));
    cudaMemcpy3DParms params;
    CHECK(cudaGraphMemcpyNodeGetParams(in_clone, &params));
    EXPECT(params.srcPtr.ptr == in, "from %p", params.srcPtr.ptr);
    CHECK(cudaGraphCreate(&outer, 0));
    CHECK(cudaGraphAddChildGraphNode(&child, outer, nullptr, 0, clone));
    EXPECT(type_of(child) == cudaGraphNodeTypeGraph, "%d", type_of(child));
    CHECK(cudaGraphDestroy(built.graph));
    fill(in, 2.0f);
    run_once(clone, stream);
    all_scaled(out, in, 7.0f, "clone");
    CHECK(cudaGraphDestroy(clone));
    fill(in, 3.0f);
    run_once(outer, stream);
    all_scaled(out, in, 7.0f, "clone in a graph");
    CHECK(cudaGraphDestroy(outer));
    free(in);
    free(out);
    printf("graph_pageable: clones: equal\n");
}

static void changes(cudaStream_t stream, const Device &device) {
    float *in = ordinary(), *out = ordinary(), *other_in = ordinary(), *other_out = ordinary();
    Built built = build(device, out, in, 2.0f);
    cudaGraphExec_t first = instantiate(built.graph), second = instantiate(built.graph);
    auto expect = [&](cudaGraphExec_t exec, const float *from, float *to, const char *what) {
        fill(in, 1.0f);
        fill(other_in, 201.0f);
        std::fill(out, out + count, -1.0f);
        std::fill(other_out, other_out + count, -1.0f);
        run(exec, stream);
        all_scaled(to, from, 2.0f, what);
        const float *untouched = to == out ? other_out : out;
        EXPECT(untouched[0] == -1.0f && untouched[count - 1] == -1.0f, "%s: %g", what, untouched[0]);
    };
    expect(first, in, out, "first");
    expect(second, in, out, "second");
    CHECK(cudaGraphExecMemcpyNodeSetParams1D(first, built.in, device.in, other_in, bytes, cudaMemcpyHostToDevice));
    expect(first, other_in, out, "first from other memory");
    expect(second, in, out, "second as before");
    CHECK(cudaGraphExecMemcpyNodeSetParams1D(first, built.out, other_out, device.out, bytes, cudaMemcpyDeviceToHost));
    expect(first, other_in, other_out, "first to other memory");
    expect(second, in, out, "second as before");
    // Half of it, to see that no more is touched.
    CHECK(cudaGraphExecMemcpyNodeSetParams1D(second, built.out, out, device.out, bytes / 2, cudaMemcpyDeviceToHost));
    std::fill(out, out + count, -1.0f);
    run(second, stream);
    EXPECT(out[count / 2 - 1] == in[count / 2 - 1] * 2.0f && out[count / 2] == -1.0f, "%g and %g", out[count / 2 - 1],
           out[count / 2]);
    // In the graph: what is made of it later.
    CHECK(cudaGraphMemcpyNodeSetParams1D(built.in, device.in, other_in, bytes, cudaMemcpyHostToDevice));
    cudaMemcpy3DParms params;
    CHECK(cudaGraphMemcpyNodeGetParams(built.in, &params));
    EXPECT(params.srcPtr.ptr == other_in, "from %p", params.srcPtr.ptr);
    cudaGraphExec_t third = instantiate(built.graph);
    expect(third, other_in, out, "third");
    expect(first, other_in, other_out, "first as before");
    CHECK(cudaGraphExecDestroy(third));
    CHECK(cudaGraphExecDestroy(second));
    CHECK(cudaGraphDestroy(built.graph));

    // As a whole, by a graph of the same shape.
    cudaGraph_t line = capture_line(stream, device, out, in, 2.0f);
    cudaGraphExec_t exec = instantiate(line);
    expect(exec, in, out, "captured");
    cudaGraph_t update = capture_line(stream, device, other_out, other_in, 2.0f);
    cudaGraphExecUpdateResultInfo info;
    CHECK(cudaGraphExecUpdate(exec, update, &info));
    EXPECT(info.result == cudaGraphExecUpdateSuccess, "%d", info.result);
    CHECK(cudaGraphDestroy(update));
    CHECK(cudaGraphDestroy(line));
    expect(exec, other_in, other_out, "updated");
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphExecDestroy(first));
    for (float *memory : {in, out, other_in, other_out})
        free(memory);
    printf("graph_pageable: parameters and updates: equal\n");
}

// Two executable graphs at once, each with its own memory.
static void at_once(cudaStream_t stream, cudaStream_t other, const Device &device) {
    float *ones = ordinary(), *twos = ordinary(), *first_out = ordinary(), *second_out = ordinary();
    std::fill(ones, ones + count, 1.0f);
    std::fill(twos, twos + count, 2.0f);
    CHECK(cudaMemcpy(device.in, ones, bytes, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device.out, twos, bytes, cudaMemcpyHostToDevice));
    cudaGraph_t graph;
    cudaGraphNode_t copy;
    CHECK(cudaGraphCreate(&graph, 0));
    CHECK(cudaGraphAddMemcpyNode1D(&copy, graph, nullptr, 0, first_out, device.in, bytes, cudaMemcpyDeviceToHost));
    cudaGraphExec_t first = instantiate(graph), second = instantiate(graph);
    CHECK(cudaGraphExecMemcpyNodeSetParams1D(second, copy, second_out, device.out, bytes, cudaMemcpyDeviceToHost));
    for (int round = 0; round < 50; round++) {
        std::fill(first_out, first_out + count, 0.0f);
        std::fill(second_out, second_out + count, 0.0f);
        CHECK(cudaGraphLaunch(first, stream));
        CHECK(cudaGraphLaunch(second, other));
        CHECK(cudaStreamSynchronize(stream));
        CHECK(cudaStreamSynchronize(other));
        for (int i = 0; i < count; i++)
            EXPECT(first_out[i] == 1.0f && second_out[i] == 2.0f, "round %d: %g and %g", round, first_out[i],
                   second_out[i]);
    }
    CHECK(cudaGraphExecDestroy(first));
    CHECK(cudaGraphExecDestroy(second));
    CHECK(cudaGraphDestroy(graph));
    for (float *memory : {ones, twos, first_out, second_out})
        free(memory);
    printf("graph_pageable: two executable graphs at once: equal\n");
}

// Memory that the capture allocates.
static void memory_of_the_graph(cudaStream_t stream) {
    float *in = ordinary(), *out = ordinary(), *inside;
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(cudaMallocAsync(&inside, bytes, stream));
    CHECK(cudaMemcpyAsync(inside, in, bytes, cudaMemcpyHostToDevice, stream));
    scale<<<blocks, threads, 0, stream>>>(inside, inside, count, 11.0f);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(out, inside, bytes, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaFreeAsync(inside, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t exec = instantiate(graph);
    for (int round = 0; round < 2; round++) {
        fill(in, static_cast<float>(round));
        run(exec, stream);
        all_scaled(out, in, 11.0f, "memory of the graph");
    }
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    free(in);
    free(out);
    printf("graph_pageable: memory of the graph: equal\n");
}

// Captures over and over. What is destroyed while it runs runs to its end, and nothing of it is left.
static void over_and_over(cudaStream_t stream) {
    constexpr int rounds = 300, large = 1 << 18;
    constexpr size_t large_bytes = large * sizeof(float);
    float *in = ordinary(large), *out = ordinary(large), *device;
    CHECK(cudaMalloc(&device, large_bytes));
    long before = 0;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < large; i += 1024)
            in[i] = static_cast<float>(round + i);
        cudaGraph_t graph;
        CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        CHECK(cudaMemcpyAsync(device, in, large_bytes, cudaMemcpyHostToDevice, stream));
        CHECK(cudaMemcpyAsync(out, device, large_bytes, cudaMemcpyDeviceToHost, stream));
        CHECK(cudaStreamEndCapture(stream, &graph));
        cudaGraphExec_t exec = instantiate(graph);
        CHECK(cudaGraphLaunch(exec, stream));
        CHECK(cudaGraphExecDestroy(exec));
        CHECK(cudaGraphDestroy(graph));
        CHECK(cudaStreamSynchronize(stream));
        for (int i = 0; i < large; i += 1024)
            EXPECT(out[i] == static_cast<float>(round + i), "round %d, element %d: %g", round, i, out[i]);
        if (round == 50)
            before = resident();
    }
    // 250 rounds with 2 MiB each would be 500 MiB.
    long grown = resident() - before;
    EXPECT(grown < 128 << 10, "%ld KiB more than after 50 rounds", grown);
    CHECK(cudaFree(device));
    free(in);
    free(out);
    printf("graph_pageable: %d captures: equal\n", rounds);
}

int main() {
    cudaStream_t stream, other;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    Device device;
    float *third;
    unsigned *counter;
    CHECK(cudaMalloc(&device.in, bytes));
    CHECK(cudaMalloc(&device.out, bytes));
    CHECK(cudaMalloc(&third, bytes));
    CHECK(cudaMalloc(&counter, sizeof(unsigned)));

    replays(stream, device);
    on_the_stack(stream, counter);
    fork_and_join(stream, other, device, third);
    rows(stream);
    boxes(stream);
    nodes(stream, device);
    clones(stream, device);
    changes(stream, device);
    at_once(stream, other, device);
    memory_of_the_graph(stream);
    over_and_over(stream);
    return pass();
}
