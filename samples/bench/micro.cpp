// Micro benchmarks of the driver API. Arguments are the groups to run: copies streams launch sync malloc event graph module.
#include "bench.h"

#include <thread>

namespace {

constexpr size_t KIB = 1024, MIB = 1024 * KIB, GIB = 1024 * MIB;

CUmodule kernels() {
    static CUmodule module = [] {
        CUmodule loaded;
        static const std::vector<char> image = file_beside_program("micro.fatbin");
        MUST(cuModuleLoadData, &loaded, image.data());
        return loaded;
    }();
    return module;
}

CUfunction kernel(const char *name) {
    CUfunction function;
    MUST(cuModuleGetFunction, &function, kernels(), name);
    return function;
}

CUstream new_stream() {
    CUstream stream;
    MUST(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    return stream;
}

void launch(CUfunction function, CUstream stream, void **parameters = nullptr) {
    MUST(cuLaunchKernel, function, 1, 1, 1, 32, 1, 1, 0, stream, parameters, nullptr);
}

void copy_figure(const char *kind, size_t bytes, void (*copy)(CUdeviceptr, void *, size_t), CUdeviceptr device, void *host) {
    const std::string name = std::string("copy ") + kind + " " + size_name(bytes);
    try {
        // Small copies in batches, so that the clock does not count.
        const int batch = bytes <= MIB ? 16 : 1;
        const double seconds = median_seconds(
            [&] {
                for (int i = 0; i < batch; i++)
                    copy(device, host, bytes);
            },
            0.1);
        figure(name, static_cast<double>(bytes) * batch / seconds / 1e9, "GB/s", "higher");
    } catch (const Failure &failure) {
        failed(name, failure);
    }
}

void to_device(CUdeviceptr device, void *host, size_t bytes) { MUST(cuMemcpyHtoD, device, host, bytes); }
void from_device(CUdeviceptr device, void *host, size_t bytes) { MUST(cuMemcpyDtoH, host, device, bytes); }

// The largest copies first come with the memory: smaller ones use the start of it.
void copies(size_t largest) {
    CUdeviceptr device;
    void *pinned = nullptr;
    MUST(cuMemAlloc, &device, largest);
    MUST(cuMemHostAlloc, &pinned, largest, 0);
    char *pageable = static_cast<char *>(aligned_alloc(4096, largest));
    memset(pageable, 1, largest);
    memset(pinned, 2, largest);
    for (size_t bytes : {4 * KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB, GIB}) {
        if (bytes > largest)
            break;
        copy_figure("pinned h2d", bytes, to_device, device, pinned);
        copy_figure("pinned d2h", bytes, from_device, device, pinned);
        copy_figure("pageable h2d", bytes, to_device, device, pageable);
        copy_figure("pageable d2h", bytes, from_device, device, pageable);
    }
    free(pageable);
    MUST(cuMemFreeHost, pinned);
    MUST(cuMemFree, device);
}

// Four streams that copy at once, one way and both ways; and copies in chunks of one stream, as data loaders make them.
void streams(size_t bytes) {
    constexpr int STREAMS = 4;
    CUstream stream[STREAMS];
    CUdeviceptr device[STREAMS];
    void *pinned[STREAMS];
    for (int i = 0; i < STREAMS; i++) {
        stream[i] = new_stream();
        MUST(cuMemAlloc, &device[i], bytes);
        MUST(cuMemHostAlloc, &pinned[i], bytes, 0);
        memset(pinned[i], i, bytes);
    }
    auto run = [&](const std::string &name, auto &&enqueue, size_t moved) {
        try {
            const double seconds = median_seconds([&] {
                for (int i = 0; i < STREAMS; i++)
                    enqueue(i);
                for (CUstream each : stream)
                    MUST(cuStreamSynchronize, each);
            });
            figure(name, static_cast<double>(moved) / seconds / 1e9, "GB/s", "higher");
        } catch (const Failure &failure) {
            failed(name, failure);
        }
    };
    run("4 streams h2d", [&](int i) { MUST(cuMemcpyHtoDAsync, device[i], pinned[i], bytes, stream[i]); }, STREAMS * bytes);
    run("4 streams d2h", [&](int i) { MUST(cuMemcpyDtoHAsync, pinned[i], device[i], bytes, stream[i]); }, STREAMS * bytes);
    run("4 streams both ways",
        [&](int i) {
            if (i % 2 == 0)
                MUST(cuMemcpyHtoDAsync, device[i], pinned[i], bytes, stream[i]);
            else
                MUST(cuMemcpyDtoHAsync, pinned[i], device[i], bytes, stream[i]);
        },
        STREAMS * bytes);
    const size_t chunk = 256 * KIB;
    run("4 streams h2d, 256 KiB chunks",
        [&](int i) {
            for (size_t at = 0; at < bytes; at += chunk)
                MUST(cuMemcpyHtoDAsync, device[i] + at, static_cast<char *>(pinned[i]) + at, chunk, stream[i]);
        },
        STREAMS * bytes);
    for (int i = 0; i < STREAMS; i++) {
        MUST(cuMemFreeHost, pinned[i]);
        MUST(cuMemFree, device[i]);
        MUST(cuStreamDestroy, stream[i]);
    }
}

// The caller's time for launches, synchronised after the clock was read.
void issue(const std::string &name, int count, CUstream stream, CUfunction function, void **parameters) {
    try {
        std::vector<double> times;
        for (int round = 0; round < 12; round++) {
            const double begin = now_s();
            for (int i = 0; i < count; i++)
                launch(function, stream, parameters);
            times.push_back((now_s() - begin) / count);
            MUST(cuStreamSynchronize, stream);
        }
        figure(name, median(times) * 1e6, "us", "lower");
    } catch (const Failure &failure) {
        failed(name, failure);
    }
}

void launches() {
    CUstream stream = new_stream();
    CUfunction empty = kernel("empty"), with_parameters = kernel("with_parameters");
    CUdeviceptr memory;
    MUST(cuMemAlloc, &memory, 4096);
    float a = 1, b = 2;
    int n = 5;
    unsigned long long flags = 7;
    void *parameters[] = {&memory, &a, &b, &n, &flags, &memory};
    issue("launch issue, 500 at a time", 500, stream, empty, nullptr);
    issue("launch issue, 4000 at a time", 4000, stream, empty, nullptr);
    issue("launch issue, six parameters", 500, stream, with_parameters, parameters);
    issue("launch issue, default stream", 500, nullptr, empty, nullptr);
    per_operation("launch + sync", 50, [&] {
        launch(empty, stream);
        MUST(cuStreamSynchronize, stream);
    });
    per_operation("launch + context sync", 50, [&] {
        launch(empty, nullptr);
        MUST(cuCtxSynchronize, );
    });
    per_operation("small memset + sync", 50, [&] {
        MUST(cuMemsetD8Async, memory, 1, 4096, stream);
        MUST(cuStreamSynchronize, stream);
    });
    try {
        // Two threads that launch at the same time, each into its own stream.
        CUcontext context;
        MUST(cuCtxGetCurrent, &context);
        CUstream other = new_stream();
        auto work = [&](CUstream mine, double *seconds) {
            MUST(cuCtxSetCurrent, context);
            std::vector<double> times;
            for (int round = 0; round < 12; round++) {
                const double begin = now_s();
                for (int i = 0; i < 500; i++)
                    launch(empty, mine);
                times.push_back((now_s() - begin) / 500);
                MUST(cuStreamSynchronize, mine);
            }
            *seconds = median(times);
        };
        double first = 0, second = 0;
        std::thread thread(work, other, &second);
        work(stream, &first);
        thread.join();
        figure("launch issue, two threads", (first + second) / 2 * 1e6, "us", "lower");
    } catch (const Failure &failure) {
        failed("launch issue, two threads", failure);
    }
}

void syncs() {
    CUstream stream = new_stream();
    per_operation("empty stream sync", 2000, [&] { MUST(cuStreamSynchronize, stream); });
    per_operation("empty context sync", 500, [&] { MUST(cuCtxSynchronize, ); });
    per_operation("stream query", 2000, [&] { MUST(cuStreamQuery, stream); });
    per_operation("get current context", 20000, [&] {
        CUcontext context;
        MUST(cuCtxGetCurrent, &context);
    });
    CUdeviceptr memory;
    MUST(cuMemAlloc, &memory, 4096);
    per_operation("pointer attribute", 1000, [&] {
        unsigned type = 0;
        MUST(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory);
    });
    per_operation("memory info", 100, [&] {
        size_t free_bytes, total;
        MUST(cuMemGetInfo, &free_bytes, &total);
    });
}

void mallocs() {
    for (size_t bytes : {4 * KIB, MIB, 64 * MIB})
        per_operation("malloc + free " + size_name(bytes), 20, [&] {
            CUdeviceptr memory;
            MUST(cuMemAlloc, &memory, bytes);
            MUST(cuMemFree, memory);
        });
    CUstream stream = new_stream();
    per_operation("async malloc + free 1 MiB", 100, [&] {
        CUdeviceptr memory;
        MUST(cuMemAllocAsync, &memory, MIB, stream);
        MUST(cuMemFreeAsync, memory, stream);
    });
    MUST(cuStreamSynchronize, stream);
    per_operation("async malloc + free 1 MiB + sync", 50, [&] {
        CUdeviceptr memory;
        MUST(cuMemAllocAsync, &memory, MIB, stream);
        MUST(cuMemFreeAsync, memory, stream);
        MUST(cuStreamSynchronize, stream);
    });
    per_operation("pinned malloc + free 1 MiB", 10, [&] {
        void *memory;
        MUST(cuMemHostAlloc, &memory, MIB, 0);
        MUST(cuMemFreeHost, memory);
    });
    char *pages = static_cast<char *>(aligned_alloc(4096, MIB));
    memset(pages, 1, MIB);
    per_operation("register + unregister 1 MiB", 10, [&] {
        MUST(cuMemHostRegister, pages, MIB, 0);
        MUST(cuMemHostUnregister, pages);
    });
}

void events() {
    CUstream stream = new_stream();
    CUevent plain, timed;
    MUST(cuEventCreate, &plain, CU_EVENT_DISABLE_TIMING);
    MUST(cuEventCreate, &timed, CU_EVENT_DEFAULT);
    per_operation("event record", 500, [&] { MUST(cuEventRecord, plain, stream); });
    MUST(cuStreamSynchronize, stream);
    per_operation("event record, timed", 500, [&] { MUST(cuEventRecord, timed, stream); });
    MUST(cuStreamSynchronize, stream);
    per_operation("event query, done", 1000, [&] { MUST(cuEventQuery, plain); });
    per_operation("event sync, done", 1000, [&] { MUST(cuEventSynchronize, plain); });
    per_operation("event record + sync", 50, [&] {
        MUST(cuEventRecord, plain, stream);
        MUST(cuEventSynchronize, plain);
    });
    per_operation("stream wait event", 500, [&] { MUST(cuStreamWaitEvent, stream, plain, 0); });
    MUST(cuStreamSynchronize, stream);
    per_operation("event create + destroy", 500, [&] {
        CUevent event;
        MUST(cuEventCreate, &event, CU_EVENT_DISABLE_TIMING);
        MUST(cuEventDestroy, event);
    });
    per_operation("stream create + destroy", 20, [&] { MUST(cuStreamDestroy, new_stream()); });
}

void graphs() {
    constexpr int NODES = 32;
    CUfunction empty = kernel("empty");
    CUstream stream = new_stream();
    CUgraph graph;
    MUST(cuGraphCreate, &graph, 0);
    CUDA_KERNEL_NODE_PARAMS parameters{};
    parameters.func = empty;
    parameters.gridDimX = parameters.gridDimY = parameters.gridDimZ = 1;
    parameters.blockDimX = 32;
    parameters.blockDimY = parameters.blockDimZ = 1;
    CUgraphNode last = nullptr;
    for (int i = 0; i < NODES; i++) {
        CUgraphNode node;
        MUST(cuGraphAddKernelNode, &node, graph, last ? &last : nullptr, last ? 1 : 0, &parameters);
        last = node;
    }
    CUgraphExec exec;
    MUST(cuGraphInstantiateWithFlags, &exec, graph, 0);
    per_operation("graph launch + sync, 32 kernels", 20, [&] {
        MUST(cuGraphLaunch, exec, stream);
        MUST(cuStreamSynchronize, stream);
    });
    std::vector<double> times;
    for (int round = 0; round < 15; round++) {
        const double begin = now_s();
        for (int i = 0; i < 20; i++)
            MUST(cuGraphLaunch, exec, stream);
        times.push_back((now_s() - begin) / 20);
        MUST(cuStreamSynchronize, stream);
    }
    figure("graph launch issue, 32 kernels", median(times) * 1e6, "us", "lower");
    per_operation("graph instantiate + destroy", 5, [&] {
        CUgraphExec other;
        MUST(cuGraphInstantiateWithFlags, &other, graph, 0);
        MUST(cuGraphExecDestroy, other);
    });
    per_operation("stream capture of 32 launches", 5, [&] {
        CUgraph captured;
        MUST(cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
        for (int i = 0; i < NODES; i++)
            launch(empty, stream);
        MUST(cuStreamEndCapture, stream, &captured);
        MUST(cuGraphDestroy, captured);
    });
}

void modules() {
    const std::vector<char> image = file_beside_program("micro.fatbin");
    per_operation("module load + unload", 5, [&] {
        CUmodule module;
        CUfunction function;
        MUST(cuModuleLoadData, &module, image.data());
        MUST(cuModuleGetFunction, &function, module, "filler_10");
        MUST(cuModuleUnload, module);
    });
    CUstream stream = new_stream();
    per_operation("module load + first launch", 5, [&] {
        CUmodule module;
        CUfunction function;
        MUST(cuModuleLoadData, &module, image.data());
        MUST(cuModuleGetFunction, &function, module, "empty");
        launch(function, stream);
        MUST(cuStreamSynchronize, stream);
        MUST(cuModuleUnload, module);
    });
    per_operation("get function", 200, [&] {
        CUfunction function;
        MUST(cuModuleGetFunction, &function, kernels(), "filler_42");
    });
}

// BENCH_LARGEST_MIB is for machines with less memory than the largest copies take: twice as much in the program.
size_t largest_copy(bool small) {
    if (const char *text = getenv("BENCH_LARGEST_MIB"))
        return strtoul(text, nullptr, 10) * MIB;
    return small ? 16 * MIB : GIB;
}

bool wanted(int count, char **arguments, const char *group) {
    for (int i = 1; i < count; i++)
        if (strcmp(arguments[i], group) == 0)
            return true;
    return count == 1;
}

} // namespace

int main(int count, char **arguments) {
    // The CPU backend has less memory to give than a GPU.
    const bool small = getenv("BENCH_SMALL") != nullptr;
    struct {
        const char *name;
        void (*run)(bool);
    } groups[] = {
        {"copies", [](bool small) { copies(largest_copy(small)); }},
        {"streams", [](bool small) { streams(small ? 4 * MIB : 64 * MIB); }},
        {"launch", [](bool) { launches(); }},
        {"sync", [](bool) { syncs(); }},
        {"malloc", [](bool) { mallocs(); }},
        {"event", [](bool) { events(); }},
        {"graph", [](bool) { graphs(); }},
        {"module", [](bool) { modules(); }},
    };
    int code = 0;
    try {
        use_first_device();
    } catch (const Failure &failure) {
        failed("first device", failure);
        return 1;
    }
    for (const auto &group : groups) {
        if (!wanted(count, arguments, group.name))
            continue;
        try {
            group.run(small);
        } catch (const Failure &failure) {
            failed(std::string(group.name) + " (rest)", failure);
            code = 1;
        }
    }
    return code;
}
