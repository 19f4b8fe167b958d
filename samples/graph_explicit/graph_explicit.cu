// Graphs that are built node by node: every type of node, queries, changes of parameters, updates of executable graphs.
#include <algorithm>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

#include "check.h"

__global__ void scale(float *values, int count, float factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        values[i] *= factor;
}

struct Odd {
    char letter;
    double number;
    short rest[3];
};

// Parameters of several sizes and alignments.
__global__ void mixed(char a, double b, Odd c, float *out, short d) {
    out[0] = static_cast<float>(a + b + c.letter + c.number + c.rest[2] + d);
}

__global__ void count_up(unsigned *value) { *value += 1; }

// Counts down, and says whether to go on.
__global__ void count_down(cudaGraphConditionalHandle handle, unsigned *left, unsigned *steps) {
    *steps += 1;
    *left -= 1;
    cudaGraphSetConditional(handle, *left != 0);
}

__global__ void decide(cudaGraphConditionalHandle handle, const unsigned *value) {
    cudaGraphSetConditional(handle, *value > 10);
}

constexpr int count = 1024, threads = 128, blocks = count / threads;
constexpr size_t bytes = count * sizeof(float);

static void CUDART_CB note(void *data) { ++*static_cast<int *>(data); }

static cudaKernelNodeParams kernel_params(void *function, int grid, int block, void **args) {
    cudaKernelNodeParams params = {};
    params.func = function;
    params.gridDim = dim3(grid);
    params.blockDim = dim3(block);
    params.kernelParams = args;
    return params;
}

static std::vector<cudaGraphNode_t> nodes_of(cudaGraph_t graph) {
    size_t size = 0;
    CHECK(cudaGraphGetNodes(graph, nullptr, &size));
    std::vector<cudaGraphNode_t> nodes(size);
    if (size)
        CHECK(cudaGraphGetNodes(graph, nodes.data(), &size));
    return nodes;
}

static void run(cudaGraphExec_t exec, cudaStream_t stream) {
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
}

static void run_once(cudaGraph_t graph, cudaStream_t stream) {
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    run(exec, stream);
    CHECK(cudaGraphExecDestroy(exec));
}

static void all_equal(const float *values, float expected, const char *what) {
    for (int i = 0; i < count; i++)
        EXPECT(values[i] == expected, "%s, element %d: %g, not %g", what, i, values[i], expected);
}

int main() {
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    float *device, *host;
    CHECK(cudaMalloc(&device, bytes));
    CHECK(cudaMallocHost(&host, bytes));

    // Fill, two kernels, copy, function of the program.
    cudaGraph_t graph;
    CHECK(cudaGraphCreate(&graph, 0));
    float one = 1.0f;
    cudaMemsetParams fill = {};
    fill.dst = device;
    memcpy(&fill.value, &one, sizeof(one));
    fill.elementSize = 4;
    fill.width = count;
    fill.height = 1;
    cudaGraphNode_t fill_node, first, second, copy, call;
    CHECK(cudaGraphAddMemsetNode(&fill_node, graph, nullptr, 0, &fill));
    int n = count;
    float factor = 3.0f;
    void *args[] = {&device, &n, &factor};
    cudaKernelNodeParams kernel = kernel_params(reinterpret_cast<void *>(scale), blocks, threads, args);
    CHECK(cudaGraphAddKernelNode(&first, graph, &fill_node, 1, &kernel));
    factor = 5.0f; // Arguments are taken when the node is added.
    CHECK(cudaGraphAddKernelNode(&second, graph, nullptr, 0, &kernel));
    CHECK(cudaGraphAddDependencies(graph, &first, &second, nullptr, 1));
    CHECK(cudaGraphAddMemcpyNode1D(&copy, graph, &second, 1, host, device, bytes, cudaMemcpyDeviceToHost));
    int calls = 0;
    cudaHostNodeParams function = {note, &calls};
    CHECK(cudaGraphAddHostNode(&call, graph, &copy, 1, &function));
    cudaGraphExec_t exec;
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    run(exec, stream);
    all_equal(host, 15.0f, "fill, scale, scale, copy");
    run(exec, stream);
    all_equal(host, 15.0f, "again");
    EXPECT(calls == 2, "%d calls", calls);
    printf("graph_explicit: fill, two kernels, copy, host function: equal, %d calls\n", calls);

    // What a graph says of itself.
    cudaGraphNode_t many[8];
    std::fill(many, many + 8, fill_node);
    size_t size = 8;
    CHECK(cudaGraphGetNodes(graph, many, &size));
    EXPECT(size == 5 && many[4] && !many[5] && !many[7], "%zu nodes", size);
    EXPECT(many[0] == fill_node && std::count(many, many + 5, call) == 1, "other handles than those that were made");
    size = 2;
    cudaGraphNode_t roots[2];
    CHECK(cudaGraphGetRootNodes(graph, roots, &size));
    EXPECT(size == 1 && roots[0] == fill_node, "%zu roots", size);
    cudaGraphNode_t from[4], to[4];
    cudaGraphEdgeData data[4];
    size = 4;
    CHECK(cudaGraphGetEdges(graph, from, to, data, &size));
    EXPECT(size == 4, "%zu edges", size);
    bool found = false;
    for (int i = 0; i < 4; i++)
        found |= from[i] == first && to[i] == second && data[i].type == cudaGraphDependencyTypeDefault;
    EXPECT(found, "no edge between the kernels");
    size = 0;
    CHECK(cudaGraphNodeGetDependencies(second, nullptr, nullptr, &size));
    EXPECT(size == 1, "%zu dependencies", size);
    size = 1;
    CHECK(cudaGraphNodeGetDependentNodes(copy, to, nullptr, &size));
    EXPECT(size == 1 && to[0] == call, "%zu dependents", size);
    cudaGraphNodeType type;
    CHECK(cudaGraphNodeGetType(call, &type));
    EXPECT(type == cudaGraphNodeTypeHost, "%d", type);
    CHECK(cudaGraphRemoveDependencies(graph, &second, &copy, nullptr, 1));
    CHECK(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &size));
    EXPECT(size == 3, "%zu edges", size);
    CHECK(cudaGraphAddDependencies(graph, &second, &copy, nullptr, 1));
    printf("graph_explicit: 5 nodes, 1 root, 4 edges\n");

    // Parameters of nodes, as they are and changed.
    cudaKernelNodeParams is = {};
    CHECK(cudaGraphKernelNodeGetParams(first, &is));
    EXPECT(is.func == reinterpret_cast<void *>(scale), "another kernel");
    EXPECT(is.gridDim.x == blocks && is.blockDim.x == threads && is.kernelParams && !is.extra, "grid %u, block %u",
           is.gridDim.x, is.blockDim.x);
    EXPECT(*static_cast<float **>(is.kernelParams[0]) == device && *static_cast<int *>(is.kernelParams[1]) == count &&
               *static_cast<float *>(is.kernelParams[2]) == 3.0f,
           "other arguments");
    float changed = 7.0f;
    void *other_args[] = {is.kernelParams[0], is.kernelParams[1], &changed};
    is.kernelParams = other_args;
    CHECK(cudaGraphKernelNodeSetParams(first, &is));
    CHECK(cudaGraphKernelNodeGetParams(first, &is));
    EXPECT(*static_cast<float *>(is.kernelParams[2]) == 7.0f, "%g", *static_cast<float *>(is.kernelParams[2]));
    run(exec, stream);
    all_equal(host, 15.0f, "an executable graph keeps its parameters");
    run_once(graph, stream);
    all_equal(host, 35.0f, "a new one has the new parameters");
    factor = 2.0f;
    CHECK(cudaGraphExecKernelNodeSetParams(exec, second, &kernel));
    run(exec, stream);
    all_equal(host, 6.0f, "changed in the executable graph");
    cudaGraphExecUpdateResultInfo info;
    CHECK(cudaGraphExecUpdate(exec, graph, &info));
    EXPECT(info.result == cudaGraphExecUpdateSuccess, "%d", info.result);
    run(exec, stream);
    all_equal(host, 35.0f, "updated as a whole");
    cudaMemsetParams filled;
    CHECK(cudaGraphMemsetNodeGetParams(fill_node, &filled));
    EXPECT(filled.dst == device && filled.width == count && filled.elementSize == 4, "other parameters of the fill");
    float two = 2.0f;
    memcpy(&filled.value, &two, sizeof(two));
    CHECK(cudaGraphExecMemsetNodeSetParams(exec, fill_node, &filled));
    int other_calls = 0;
    cudaHostNodeParams noted;
    CHECK(cudaGraphHostNodeGetParams(call, &noted));
    EXPECT(noted.fn == note && noted.userData == &calls, "another function");
    noted.userData = &other_calls;
    CHECK(cudaGraphExecHostNodeSetParams(exec, call, &noted));
    CHECK(cudaGraphExecMemcpyNodeSetParams1D(exec, copy, host, device, bytes / 2, cudaMemcpyDeviceToHost));
    host[count - 1] = -1.0f;
    calls = 0;
    run(exec, stream);
    EXPECT(host[0] == 70.0f && host[count / 2 - 1] == 70.0f && host[count - 1] == -1.0f, "%g and %g", host[0], host[count - 1]);
    EXPECT(calls == 0 && other_calls == 1, "%d and %d calls", calls, other_calls);
    cudaMemcpy3DParms copied;
    CHECK(cudaGraphMemcpyNodeGetParams(copy, &copied));
    EXPECT(copied.extent.width == bytes && copied.extent.height == 1, "%zu bytes", copied.extent.width);
    unsigned enabled = 0;
    CHECK(cudaGraphNodeSetEnabled(exec, second, 0));
    CHECK(cudaGraphNodeGetEnabled(exec, second, &enabled));
    EXPECT(enabled == 0, "%u", enabled);
    run(exec, stream);
    EXPECT(host[0] == 14.0f, "%g", host[0]);
    cudaKernelNodeAttrValue attribute = {}, seen = {};
    attribute.priority = -1;
    CHECK(cudaGraphKernelNodeSetAttribute(first, cudaLaunchAttributePriority, &attribute));
    CHECK(cudaGraphKernelNodeCopyAttributes(second, first));
    CHECK(cudaGraphKernelNodeGetAttribute(second, cudaLaunchAttributePriority, &seen));
    EXPECT(seen.priority == -1, "%d", seen.priority);
    CHECK(cudaGraphExecDestroy(exec));
    printf("graph_explicit: parameters: equal\n");

    // Arguments of all shapes.
    cudaGraph_t shapes;
    cudaGraphNode_t shape;
    CHECK(cudaGraphCreate(&shapes, 0));
    char a = 1;
    double b = 2.5;
    Odd c = {4, 8.25, {0, 0, 16}};
    short d = 32;
    void *mixed_args[] = {&a, &b, &c, &host, &d};
    cudaKernelNodeParams mixed_params = kernel_params(reinterpret_cast<void *>(mixed), 1, 1, mixed_args);
    CHECK(cudaGraphAddKernelNode(&shape, shapes, nullptr, 0, &mixed_params));
    run_once(shapes, stream);
    EXPECT(host[0] == 63.75f, "%g", host[0]);
    CHECK(cudaGraphKernelNodeGetParams(shape, &is));
    EXPECT(*static_cast<double *>(is.kernelParams[1]) == 2.5 && static_cast<Odd *>(is.kernelParams[2])->number == 8.25 &&
               *static_cast<short *>(is.kernelParams[4]) == 32,
           "other arguments");
    CHECK(cudaGraphDestroy(shapes));
    printf("graph_explicit: arguments of all shapes: %g\n", host[0]);

    // A copy of a graph, and a graph in a graph.
    cudaGraph_t clone, inner;
    cudaGraphNode_t in_clone, child, nothing;
    CHECK(cudaGraphClone(&clone, graph));
    CHECK(cudaGraphNodeFindInClone(&in_clone, second, clone));
    EXPECT(in_clone && in_clone != second, "the same node");
    CHECK(cudaGraphKernelNodeGetParams(in_clone, &is));
    EXPECT(*static_cast<float *>(is.kernelParams[2]) == 5.0f, "%g", *static_cast<float *>(is.kernelParams[2]));
    CHECK(cudaGraphDestroyNode(in_clone));
    EXPECT(nodes_of(clone).size() == 4 && nodes_of(graph).size() == 5, "%zu nodes", nodes_of(clone).size());
    cudaGraph_t outer;
    CHECK(cudaGraphCreate(&outer, 0));
    CHECK(cudaGraphAddEmptyNode(&nothing, outer, nullptr, 0));
    CHECK(cudaGraphAddChildGraphNode(&child, outer, &nothing, 1, graph));
    CHECK(cudaGraphChildGraphNodeGetGraph(child, &inner));
    EXPECT(inner && inner != graph && nodes_of(inner).size() == 5, "%zu nodes", nodes_of(inner).size());
    host[0] = 0.0f;
    run_once(outer, stream);
    all_equal(host, 35.0f, "as a child graph");
    CHECK(cudaGraphDestroy(outer));
    CHECK(cudaGraphDestroy(clone));
    printf("graph_explicit: clone and child graph: equal\n");

    // Events.
    cudaEvent_t event, later;
    CHECK(cudaEventCreate(&event));
    CHECK(cudaEventCreateWithFlags(&later, cudaEventDisableTiming));
    cudaGraph_t events;
    cudaGraphNode_t wait, work, record;
    unsigned *counter, value = 0;
    CHECK(cudaMalloc(&counter, 4 * sizeof(unsigned)));
    CHECK(cudaMemset(counter, 0, 4 * sizeof(unsigned)));
    CHECK(cudaGraphCreate(&events, 0));
    CHECK(cudaGraphAddEventWaitNode(&wait, events, nullptr, 0, later));
    void *counter_args[] = {&counter};
    cudaKernelNodeParams count_params = kernel_params(reinterpret_cast<void *>(count_up), 1, 1, counter_args);
    CHECK(cudaGraphAddKernelNode(&work, events, &wait, 1, &count_params));
    CHECK(cudaGraphAddEventRecordNode(&record, events, &work, 1, event));
    cudaEvent_t its;
    CHECK(cudaGraphEventRecordNodeGetEvent(record, &its));
    EXPECT(its == event, "another event");
    CHECK(cudaEventRecord(later, nullptr));
    CHECK(cudaGraphInstantiate(&exec, events, 0));
    run(exec, stream);
    CHECK(cudaEventQuery(event));
    CHECK(cudaGraphExecEventRecordNodeSetEvent(exec, record, later));
    run(exec, stream);
    CHECK(cudaEventSynchronize(later));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(events));
    CHECK(cudaMemcpy(&value, counter, sizeof(value), cudaMemcpyDeviceToHost));
    EXPECT(value == 2, "%u", value);
    printf("graph_explicit: events: %u runs\n", value);

    // Memory of a graph: allocated by one node, freed by another.
    cudaGraph_t memory;
    cudaGraphNode_t alloc_node, use, out, free_node, fill_inside;
    CHECK(cudaGraphCreate(&memory, 0));
    cudaMemAllocNodeParams alloc = {};
    alloc.poolProps.allocType = cudaMemAllocationTypePinned;
    alloc.poolProps.location.type = cudaMemLocationTypeDevice;
    alloc.poolProps.location.id = 0;
    alloc.bytesize = bytes;
    CHECK(cudaGraphAddMemAllocNode(&alloc_node, memory, nullptr, 0, &alloc));
    EXPECT(alloc.dptr, "no address");
    cudaMemAllocNodeParams allocated = {};
    CHECK(cudaGraphMemAllocNodeGetParams(alloc_node, &allocated));
    EXPECT(allocated.dptr == alloc.dptr && allocated.bytesize == bytes, "other parameters of the allocation");
    fill.dst = alloc.dptr;
    CHECK(cudaGraphAddMemsetNode(&fill_inside, memory, &alloc_node, 1, &fill));
    factor = 11.0f;
    void *inside_args[] = {&alloc.dptr, &n, &factor};
    kernel.kernelParams = inside_args;
    CHECK(cudaGraphAddKernelNode(&use, memory, &fill_inside, 1, &kernel));
    CHECK(cudaGraphAddMemcpyNode1D(&out, memory, &use, 1, host, alloc.dptr, bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaGraphAddMemFreeNode(&free_node, memory, &out, 1, alloc.dptr));
    void *freed = nullptr;
    CHECK(cudaGraphMemFreeNodeGetParams(free_node, &freed));
    EXPECT(freed == alloc.dptr, "another address");
    CHECK(cudaGraphInstantiate(&exec, memory, 0));
    run(exec, stream);
    run(exec, stream);
    all_equal(host, 11.0f, "memory of the graph");
    unsigned long long high = 0;
    CHECK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrReservedMemHigh, &high));
    EXPECT(high >= bytes, "%llu bytes", high);
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(memory));
    CHECK(cudaDeviceGraphMemTrim(0));
    high = 0;
    CHECK(cudaDeviceSetGraphMemAttribute(0, cudaGraphMemAttrReservedMemHigh, &high));
    printf("graph_explicit: memory of the graph: equal\n");

    // Conditions, which kernels decide: repeat while there is something left; do it if the value is large.
    cudaGraph_t conditional;
    cudaGraphConditionalHandle handle;
    CHECK(cudaGraphCreate(&conditional, 0));
    CHECK(cudaGraphConditionalHandleCreate(&handle, conditional, 1, cudaGraphCondAssignDefault));
    cudaGraphNodeParams loop = {};
    loop.type = cudaGraphNodeTypeConditional;
    loop.conditional.handle = handle;
    loop.conditional.type = cudaGraphCondTypeWhile;
    loop.conditional.size = 1;
    cudaGraphNode_t loop_node, body_node;
    CHECK(cudaGraphAddNode(&loop_node, conditional, nullptr, nullptr, 0, &loop));
    cudaGraph_t body = loop.conditional.phGraph_out[0];
    EXPECT(body, "no graph for the body");
    unsigned *left = counter + 1, *steps = counter + 2;
    cudaGraphNodeParams step = {};
    step.type = cudaGraphNodeTypeKernel;
    void *step_args[] = {&handle, &left, &steps};
    step.kernel.func = reinterpret_cast<void *>(count_down);
    step.kernel.gridDim = step.kernel.blockDim = dim3(1);
    step.kernel.kernelParams = step_args;
    CHECK(cudaGraphAddNode(&body_node, body, nullptr, nullptr, 0, &step));
    CHECK(cudaGraphInstantiate(&exec, conditional, 0));
    const unsigned start[2] = {37, 0};
    CHECK(cudaMemcpy(left, start, sizeof(start), cudaMemcpyHostToDevice));
    run(exec, stream);
    CHECK(cudaMemcpy(&value, steps, sizeof(value), cudaMemcpyDeviceToHost));
    EXPECT(value == 37, "%u steps", value);
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(conditional));
    unsigned taken[2];
    for (unsigned round = 0; round < 2; round++) {
        CHECK(cudaGraphCreate(&conditional, 0));
        CHECK(cudaGraphConditionalHandleCreate(&handle, conditional, 0, cudaGraphCondAssignDefault));
        unsigned input = round ? 11 : 10;
        CHECK(cudaMemcpy(left, &input, sizeof(input), cudaMemcpyHostToDevice));
        CHECK(cudaMemset(counter, 0, sizeof(unsigned)));
        void *decide_args[] = {&handle, &left};
        cudaKernelNodeParams decision = kernel_params(reinterpret_cast<void *>(decide), 1, 1, decide_args);
        cudaGraphNode_t decide_node, if_node;
        CHECK(cudaGraphAddKernelNode(&decide_node, conditional, nullptr, 0, &decision));
        cudaGraphNodeParams choice = {};
        choice.type = cudaGraphNodeTypeConditional;
        choice.conditional.handle = handle;
        choice.conditional.type = cudaGraphCondTypeIf;
        choice.conditional.size = 1;
        CHECK(cudaGraphAddNode(&if_node, conditional, &decide_node, nullptr, 1, &choice));
        CHECK(cudaGraphAddKernelNode(&work, choice.conditional.phGraph_out[0], nullptr, 0, &count_params));
        run_once(conditional, stream);
        CHECK(cudaGraphDestroy(conditional));
        CHECK(cudaMemcpy(&taken[round], counter, sizeof(unsigned), cudaMemcpyDeviceToHost));
    }
    EXPECT(taken[0] == 0 && taken[1] == 1, "%u and %u", taken[0], taken[1]);
    printf("graph_explicit: conditions: %u steps, taken once\n", value);

    // A thing of the program that lives as long as the graph and what was made of it.
    volatile int *destroyed = new int(0);
    cudaUserObject_t object;
    CHECK(cudaUserObjectCreate(&object, const_cast<int *>(destroyed), note, 1, cudaUserObjectNoDestructorSync));
    CHECK(cudaGraphCreate(&memory, 0));
    CHECK(cudaGraphAddKernelNode(&work, memory, nullptr, 0, &count_params));
    CHECK(cudaGraphRetainUserObject(memory, object, 1, cudaGraphUserObjectMove));
    CHECK(cudaGraphInstantiate(&exec, memory, 0));
    CHECK(cudaGraphDestroy(memory));
    run(exec, stream);
    EXPECT(*destroyed == 0, "destroyed too early");
    CHECK(cudaGraphExecDestroy(exec));
    for (int i = 0; i < 1000 && *destroyed == 0; i++)
        usleep(10000);
    EXPECT(*destroyed == 1, "destroyed %d times", *destroyed);
    printf("graph_explicit: user object: destroyed with its graph\n");

    // The graph as a picture.
    std::string path = "/tmp/graph_explicit." + std::to_string(getpid()) + ".dot";
    CHECK(cudaGraphDebugDotPrint(graph, path.c_str(), cudaGraphDebugDotFlagsVerbose));
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    unlink(path.c_str());
    EXPECT(text.str().find("digraph") != std::string::npos, "%zu bytes", text.str().size());
    EXPECT(text.str().find("->") != std::string::npos, "no edges");
    printf("graph_explicit: written as a picture\n");

    // Handles that have ended, and what is none.
    CHECK(cudaGraphDestroy(graph));
    size = 0;
    cudaError_t error = cudaGraphLaunch(nullptr, stream);
    EXPECT(error == cudaErrorInvalidValue, "%s", cudaGetErrorName(error));
    error = cudaGraphGetNodes(nullptr, nullptr, &size);
    EXPECT(error == cudaErrorInvalidValue, "%s", cudaGetErrorName(error));
    cudaGetLastError();
    CHECK(cudaFreeHost(host));
    CHECK(cudaFree(device));
    return pass();
}
