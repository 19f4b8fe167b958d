// Modules, libraries, the linker, function attributes, occupancy, launches that cannot be.
#include "transcript.h"

SECTION(modules) {
    begin();
    CUmodule module = unset<CUmodule>();
    TRY(cuModuleLoadData, &module, "this is no program");
    TRY(cuModuleLoadData, &module, "");
    TRY(cuModuleLoadData, &module, ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry broken() { nonsense; }");
    TRY(cuModuleLoadData, &module, ".version 99.0\n.target sm_75\n.address_size 64\n");
    TRY(cuModuleLoadData, &module, ".version 7.0\n.target sm_999\n.address_size 64\n");
    TRY(cuModuleLoadData, &module, ".version 7.0\n.target sm_75\n.address_size 64\n.extern .func other();\n.visible .entry k() { call other; ret; }");
    TRY(cuModuleLoad, &module, "/nowhere/nothing.ptx");
    TRY(cuModuleLoad, &module, "/");
    TRY(cuModuleLoadFatBinary, &module, KERNELS);
    char log[2048] = {}, info[2048] = {};
    CUjit_option names[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, reinterpret_cast<void *>(sizeof(log)), info, reinterpret_cast<void *>(sizeof(info))};
    TRY(cuModuleLoadDataEx, &module, ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry broken() { nonsense; }", 4, names, values);
    printf("    error log: %s\n", log);
    HOLDS(reinterpret_cast<size_t>(values[1]) == strlen(log));
    log[0] = 0;
    values[1] = reinterpret_cast<void *>(sizeof(log));
    TRY(cuModuleLoadDataEx, &module, KERNELS, 4, names, values);
    printf("    error log: %s\n", log);
    CUjit_option unknown[] = {CUjit_option(500)};
    void *nothing[] = {nullptr};
    TRY(cuModuleLoadDataEx, &module, KERNELS, 1, unknown, nothing);
    CUjit_option level[] = {CU_JIT_OPTIMIZATION_LEVEL};
    void *too_high[] = {reinterpret_cast<void *>(77)};
    TRY(cuModuleLoadDataEx, &module, KERNELS, 1, level, too_high);
    CUdeviceptr symbol = unset<CUdeviceptr>();
    size_t size = unset<size_t>();
    TRY(cuModuleGetGlobal, &symbol, &size, module_of_process(), "counter");
    CLASS(symbol);
    VALUE(size);
    TRY(cuModuleGetGlobal, nullptr, &size, module_of_process(), "weights");
    VALUE(size);
    TRY(cuModuleGetGlobal, nullptr, nullptr, module_of_process(), "weights");
    TRY(cuModuleGetGlobal, &symbol, &size, module_of_process(), "nobody");
    TRY(cuModuleGetGlobal, &symbol, &size, module_of_process(), "nothing");
    TRY(cuModuleGetGlobal, &symbol, &size, module_of_process(), nullptr);
    unsigned value = 0;
    TRY(cuModuleGetGlobal, &symbol, &size, module_of_process(), "counter");
    TRY(cuMemcpyDtoH, &value, symbol, 4);
    VALUE(value);
    TRY(cuMemFree, symbol);
    unsigned count = unset<unsigned>();
    TRY(cuModuleGetFunctionCount, &count, module_of_process());
    VALUE(count);
    CUmoduleLoadingMode mode = unset<CUmoduleLoadingMode>();
    TRY(cuModuleGetLoadingMode, &mode);
    VALUE(mode);
}

SECTION(libraries) {
    begin();
    CUlibrary library = unset<CUlibrary>();
    CUkernel entry = unset<CUkernel>();
    CUfunction function = unset<CUfunction>();
    TRY(cuLibraryLoadData, &library, "nonsense", nullptr, nullptr, 0, nullptr, nullptr, 0);
    TRY(cuLibraryLoadData, &library, nullptr, nullptr, nullptr, 0, nullptr, nullptr, 0);
    TRY(cuLibraryLoadData, &library, KERNELS, nullptr, nullptr, 0, nullptr, nullptr, 0);
    TRY(cuLibraryGetKernel, &entry, library, "nobody");
    TRY(cuLibraryGetKernel, &entry, library, "add_one");
    unsigned count = unset<unsigned>();
    TRY(cuLibraryGetKernelCount, &count, library);
    VALUE(count);
    TRY(cuKernelGetFunction, &function, entry);
    CLASS(function);
    const char *name = nullptr;
    TRY(cuKernelGetName, &name, entry);
    printf("    name: %s\n", name ? name : "(none)");
    TRY(cuFuncGetName, &name, function);
    printf("    name: %s\n", name ? name : "(none)");
    size_t offset = unset<size_t>(), size = unset<size_t>();
    for (size_t index : {0, 1, 2}) {
        TRY(cuKernelGetParamInfo, entry, index, &offset, &size);
        VALUE(offset);
        VALUE(size);
    }
    TRY(cuFuncGetParamInfo, function, 1, &offset, &size);
    VALUE(offset);
    int value = unset<int>();
    TRY(cuKernelGetAttribute, &value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, entry, 0);
    VALUE(value);
    TRY(cuKernelGetAttribute, &value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, entry, 99);
    TRY(cuKernelSetAttribute, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 60000, entry, 0);
    CUdeviceptr symbol = unset<CUdeviceptr>();
    TRY(cuLibraryGetGlobal, &symbol, &size, library, "counter");
    VALUE(size);
    TRY(cuLibraryGetManaged, &symbol, &size, library, "counter");
    CUmodule module = unset<CUmodule>();
    TRY(cuLibraryGetModule, &module, library);
    TRY(cuLaunchKernel, reinterpret_cast<CUfunction>(entry), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    CUdeviceptr memory = allocate(16);
    unsigned length = 4;
    void *parameters[] = {&memory, &length};
    TRY(cuLaunchKernel, reinterpret_cast<CUfunction>(entry), 1, 1, 1, 4, 1, 1, 0, nullptr, parameters, nullptr);
    unsigned words[4] = {};
    TRY(cuMemcpyDtoH, words, memory, 16);
    VALUE(words[3]);
    TRY(cuModuleUnload, module);
    TRY(cuLibraryUnload, library);
}

SECTION(linker) {
    begin();
    CUlinkState state = unset<CUlinkState>();
    TRY(cuLinkCreate, 0, nullptr, nullptr, &state);
    TRY(cuLinkAddData, state, CU_JIT_INPUT_PTX, const_cast<char *>("nonsense"), 9, "bad", 0, nullptr, nullptr);
    TRY(cuLinkAddFile, state, CU_JIT_INPUT_PTX, "/nowhere", 0, nullptr, nullptr);
    TRY(cuLinkAddData, state, CUjitInputType(99), const_cast<char *>(KERNELS), strlen(KERNELS) + 1, "kernels", 0, nullptr, nullptr);
    TRY(cuLinkDestroy, state);
    TRY(cuLinkCreate, 0, nullptr, nullptr, &state);
    TRY(cuLinkAddData, state, CU_JIT_INPUT_PTX, const_cast<char *>(KERNELS), strlen(KERNELS) + 1, "kernels", 0, nullptr, nullptr);
    void *image = unset<void *>();
    size_t size = 0;
    TRY(cuLinkComplete, state, &image, &size);
    HOLDS(size > 100);
    CUmodule module = unset<CUmodule>();
    TRY(cuModuleLoadData, &module, image);
    TRY(cuLinkDestroy, state);
    TRY(cuLinkCreate, 0, nullptr, nullptr, nullptr);
}

SECTION(function_attributes) {
    begin();
    for (const char *name : {"nothing", "add_one", "with_shared", "bounded"}) {
        printf("kernel %s\n", name);
        CUfunction function = kernel(name);
        for (int attribute = 0; attribute < 18; attribute++) {
            int value = unset<int>();
            const CUresult result = DRIVER(cuFuncGetAttribute)(&value, CUfunction_attribute(attribute), function);
            printf("attribute %d: %s\n", attribute, result_name(result));
            VALUE(value);
        }
    }
    CUfunction function = kernel("with_shared");
    TRY(cuFuncSetAttribute, function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 20);
    TRY(cuFuncSetAttribute, function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, -1);
    TRY(cuFuncSetAttribute, function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 100000);
    TRY(cuFuncSetAttribute, function, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 50);
    TRY(cuFuncSetAttribute, function, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 500);
    TRY(cuFuncSetAttribute, function, CU_FUNC_ATTRIBUTE_NUM_REGS, 5);
    TRY(cuFuncSetAttribute, function, CUfunction_attribute(99), 5);
    int value = unset<int>();
    TRY(cuFuncGetAttribute, &value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, function);
    VALUE(value);
    TRY(cuFuncSetCacheConfig, function, CU_FUNC_CACHE_PREFER_SHARED);
    TRY(cuFuncSetCacheConfig, function, CUfunc_cache(9));
    CUmodule module = unset<CUmodule>();
    TRY(cuFuncGetModule, &module, function);
    HOLDS(module == module_of_process());
    CUfunctionLoadingState state = unset<CUfunctionLoadingState>();
    TRY(cuFuncIsLoaded, &state, kernel("gate"));
    TRY(cuFuncLoad, kernel("gate"));
    TRY(cuFuncIsLoaded, &state, kernel("gate"));
    VALUE(state);
}

SECTION(occupancy) {
    begin();
    for (const char *name : {"nothing", "with_shared", "bounded"}) {
        CUfunction function = kernel(name);
        int blocks = unset<int>(), grid = unset<int>(), block = unset<int>();
        size_t shared = unset<size_t>();
        printf("kernel %s\n", name);
        for (int threads : {0, 1, 32, 64, 100, 1024, 2000}) {
            TRY(cuOccupancyMaxActiveBlocksPerMultiprocessor, &blocks, function, threads, 0);
            VALUE(blocks);
        }
        TRY(cuOccupancyMaxActiveBlocksPerMultiprocessor, &blocks, function, 64, 40000);
        VALUE(blocks);
        TRY(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, &blocks, function, 64, 0, CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE);
        VALUE(blocks);
        TRY(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, &blocks, function, 64, 0, 0x100);
        TRY(cuOccupancyMaxPotentialBlockSize, &grid, &block, function, nullptr, 0, 0);
        VALUE(grid);
        VALUE(block);
        TRY(cuOccupancyMaxPotentialBlockSize, &grid, &block, function, [](int size) { return size_t(size) * 64; }, 0, 512);
        VALUE(grid);
        VALUE(block);
        TRY(cuOccupancyAvailableDynamicSMemPerBlock, &shared, function, 2, 64);
        VALUE(shared);
    }
    CUlaunchConfig config{};
    config.gridDimX = 8;
    config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.blockDimX = 64;
    CUlaunchAttribute cluster{};
    cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    cluster.value.clusterDim = {4, 1, 1};
    config.attrs = &cluster;
    config.numAttrs = 1;
    int clusters = unset<int>(), size = unset<int>();
    TRY(cuOccupancyMaxActiveClusters, &clusters, kernel("nothing"), &config);
    HOLDS(clusters > 0);
    TRY(cuOccupancyMaxPotentialClusterSize, &size, kernel("nothing"), &config);
    VALUE(size);
    TRY(cuOccupancyMaxActiveBlocksPerMultiprocessor, nullptr, kernel("nothing"), 32, 0);
}

SECTION(configurations) {
    begin();
    CUfunction function = kernel("nothing");
    TRY(cuLaunchKernel, function, 0, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 1, 1, 0, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 1, 1, 1025, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 1, 1, 32, 32, 2, 0, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 1, 1, 1, 1, 65, 0, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 65536, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 1, 65536, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 0x80000000u, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 0x7fffffff, 65535, 65535, 1, 1, 1, 1 << 20, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 49152, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 49153, nullptr, nullptr, nullptr);
    TRY(cuLaunchKernel, function, 1, 1, 1, 1024, 1, 1, 0, nullptr, nullptr, nullptr);
    CUdeviceptr memory = allocate(4096);
    void *parameters[] = {&memory};
    TRY(cuLaunchKernel, kernel("bounded"), 1, 1, 1, 64, 1, 1, 0, nullptr, parameters, nullptr);
    TRY(cuLaunchKernel, kernel("bounded"), 1, 1, 1, 65, 1, 1, 0, nullptr, parameters, nullptr);
    TRY(cuLaunchKernel, kernel("bounded"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    size_t size = sizeof(memory);
    void *packed[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &memory, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
    TRY(cuLaunchKernel, kernel("bounded"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, packed);
    TRY(cuLaunchKernel, kernel("bounded"), 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, packed);
    size = 4;
    TRY(cuLaunchKernel, kernel("bounded"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, packed);
    TRY(cuCtxSynchronize);
    TRY(cuLaunchCooperativeKernel, function, 16, 1, 1, 32, 1, 1, 0, nullptr, nullptr);
    TRY(cuLaunchCooperativeKernel, function, 1000000, 1, 1, 32, 1, 1, 0, nullptr, nullptr);
    TRY(cuCtxSynchronize);
    CUlaunchConfig config{};
    config.gridDimX = 8;
    config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.blockDimX = 64;
    TRY(cuLaunchKernelEx, &config, function, nullptr, nullptr);
    TRY(cuLaunchKernelEx, nullptr, function, nullptr, nullptr);
    CUlaunchAttribute attribute{};
    config.attrs = &attribute;
    config.numAttrs = 1;
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    for (unsigned width : {1u, 2u, 3u, 8u, 16u, 0u}) {
        attribute.value.clusterDim = {width, 1, 1};
        printf("cluster of %u\n", width);
        TRY(cuLaunchKernelEx, &config, function, nullptr, nullptr);
    }
    attribute.id = CU_LAUNCH_ATTRIBUTE_PRIORITY;
    attribute.value.priority = -1;
    TRY(cuLaunchKernelEx, &config, function, nullptr, nullptr);
    attribute.id = CUlaunchAttributeID(200);
    TRY(cuLaunchKernelEx, &config, function, nullptr, nullptr);
    TRY(cuCtxSynchronize);
    // After all of these the context is as good as before.
    TRY(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    TRY(cuCtxSynchronize);
}

int main(int count, char **arguments) { return transcript(count, arguments); }
