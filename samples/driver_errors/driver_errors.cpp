// What goes wrong in programs that use the driver API, and the CUresult for it.
//
// Errors of kernels lose the context, so each gets a process of its own (`driver_errors <case>`).
#include <thread>

#include "child.h"
#include "driver.h"

const char *KERNELS = R"(
.version 6.4
.target sm_70
.address_size 64
.visible .entry store(.param .u64 where)
{
    .reg .b64 %p;
    ld.param.u64 %p, [where];
    st.u32 [%p], 7;
    ret;
}
.visible .entry load_wide(.param .u64 where)
{
    .reg .b64 %p, %v;
    ld.param.u64 %p, [where];
    ld.volatile.global.u64 %v, [%p];
    ret;
}
.global .align 4 .u32 variable = 5;
)";

// Prints the call as it is written, and its result.
#define SHOW(call) printf("%s: %s\n", #call, error_name(driver().call))

void before_initialisation() {
    int count = -1;
    CUdevice device;
    CUcontext context;
    CUdeviceptr memory;
    SHOW(cuDeviceGetCount(&count));
    SHOW(cuDeviceGet(&device, 0));
    SHOW(cuCtxGetCurrent(&context));
    SHOW(cuMemAlloc_v2(&memory, 16));
    SHOW(cuInit(1));
    SHOW(cuDriverGetVersion(nullptr));
}

void without_context() {
    CHECK(cuInit(0));
    CUdevice device;
    CUcontext context;
    CUdeviceptr memory;
    CUstream stream;
    CUmodule module;
    int value;
    char name[8];
    SHOW(cuDeviceGet(&device, 1000));
    SHOW(cuDeviceGet(&device, -1));
    SHOW(cuDeviceGet(nullptr, 0));
    SHOW(cuDeviceGetCount(nullptr));
    SHOW(cuDeviceGetName(nullptr, 8, 0));
    SHOW(cuDeviceGetName(name, 8, 1000));
    SHOW(cuDeviceGetAttribute(nullptr, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0));
    SHOW(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 1000));
    SHOW(cuDevicePrimaryCtxRetain(&context, 1000));
    SHOW(cuDevicePrimaryCtxRetain(nullptr, 0));
    SHOW(cuCtxGetCurrent(nullptr));
    SHOW(cuCtxSynchronize());
    SHOW(cuMemAlloc_v2(&memory, 16));
    SHOW(cuStreamCreate(&stream, 0));
    SHOW(cuModuleLoadData(&module, KERNELS));
    SHOW(cuCtxPopCurrent_v2(&context));
}

void with_context() {
    CUdevice device = use_first_device();
    CUdeviceptr memory = 0, none = 0;
    char host[64] = "";
    const size_t huge = static_cast<size_t>(1) << 60;

    SHOW(cuMemAlloc_v2(&none, 0));
    SHOW(cuMemAlloc_v2(nullptr, 16));
    SHOW(cuMemAlloc_v2(&none, huge));
    CHECK(cuMemAlloc_v2(&memory, 64));
    SHOW(cuMemFree_v2(memory + 4));
    SHOW(cuMemFree_v2(0x1234));
    SHOW(cuMemcpyHtoD_v2(0, host, 4));
    SHOW(cuMemcpyHtoD_v2(memory, nullptr, 4));
    SHOW(cuMemcpyHtoD_v2(memory, nullptr, 0));
    SHOW(cuMemcpyDtoH_v2(host, 0x1234, 4));
    SHOW(cuMemcpyDtoD_v2(memory, 0x1234, 4));
    SHOW(cuMemsetD8_v2(0, 1, 16));
    SHOW(cuMemsetD32_v2(memory + 2, 1, 4));
    SHOW(cuMemGetAddressRange_v2(nullptr, nullptr, 0x1234));
    SHOW(cuMemFreeHost(host));

    CUmodule module, bad;
    SHOW(cuModuleLoad(&bad, "/nonexistent/file.cubin"));
    SHOW(cuModuleLoadData(&bad, ".version 6.4\n.target sm_70\n.address_size 64\nnonsense here;\n"));
    SHOW(cuModuleLoadData(&bad, ".version 6.4\n.target sm_70\n.address_size 64\n.visible .entry k() { frobnicate.u32 %r1; }\n"));
    SHOW(cuModuleLoadData(&bad, nullptr));
    SHOW(cuModuleLoadData(nullptr, KERNELS));
    // Machine code for another architecture than the device's, and no PTX.
    int major = 0;
    CHECK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    std::vector<char> other =
        read_file(beside_program(major == 9 ? "driver_errors.sm_75.fatbin" : "driver_errors.sm_90.fatbin"));
    printf("machine code for another architecture: %s\n", error_name(driver().cuModuleLoadData(&bad, other.data())));

    CHECK(cuModuleLoadData(&module, KERNELS));
    CUfunction function;
    CUdeviceptr variable;
    size_t size = 0;
    SHOW(cuModuleGetFunction(&function, module, "absent"));
    SHOW(cuModuleGetFunction(&function, module, "variable"));
    SHOW(cuModuleGetFunction(&function, module, nullptr));
    SHOW(cuModuleGetGlobal_v2(&variable, &size, module, "absent"));
    SHOW(cuModuleGetGlobal_v2(nullptr, &size, module, "variable"));
    EXPECT(size == 4, "%zu bytes", size);

    CHECK(cuModuleGetFunction(&function, module, "store"));
    void *parameters[] = {&memory};
    size_t length = sizeof(memory);
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &memory, CU_LAUNCH_PARAM_BUFFER_SIZE, &length, CU_LAUNCH_PARAM_END};
    SHOW(cuLaunchKernel(function, 0, 1, 1, 32, 1, 1, 0, nullptr, parameters, nullptr));
    SHOW(cuLaunchKernel(function, 1, 1, 1, 0, 1, 1, 0, nullptr, parameters, nullptr));
    SHOW(cuLaunchKernel(function, 1, 1, 1, 1025, 1, 1, 0, nullptr, parameters, nullptr));
    SHOW(cuLaunchKernel(function, 1, 1, 1, 1, 1, 65, 0, nullptr, parameters, nullptr));
    SHOW(cuLaunchKernel(function, 1, 65536, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
    SHOW(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 1 << 20, nullptr, parameters, nullptr));
    SHOW(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, extra));
    SHOW(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
    SHOW(cuCtxSynchronize());

    CUevent event;
    CHECK(cuEventCreate(&event, CU_EVENT_DEFAULT));
    SHOW(cuEventQuery(event));
    SHOW(cuEventSynchronize(event));
    SHOW(cuEventCreate(nullptr, 0));
    SHOW(cuEventRecord(nullptr, nullptr));
    SHOW(cuStreamCreate(nullptr, 0));
    SHOW(cuStreamWaitEvent(nullptr, event, 1));
    CHECK(cuEventDestroy_v2(event));
    CHECK(cuModuleUnload(module));
    CHECK(cuMemFree_v2(memory));
}

void names() {
    const int known[] = {0,   1,   2,   3,   4,   34,  46,  100, 101, 200, 201, 205, 208, 209, 210, 214, 216, 217, 218, 219, 220,
                         221, 222, 300, 301, 302, 303, 304, 400, 401, 500, 600, 700, 701, 702, 704, 705, 708, 709, 710, 712, 713,
                         714, 715, 716, 717, 718, 719, 720, 800, 801, 802, 803, 900, 901, 906, 907, 908, 909, 910, 999};
    for (int code : known) {
        const char *name = nullptr, *text = nullptr;
        CHECK(cuGetErrorName(static_cast<CUresult>(code), &name));
        CHECK(cuGetErrorString(static_cast<CUresult>(code), &text));
        EXPECT(text && *text, "no text for %d", code);
        printf("%d: %s\n", code, name);
    }
    const char *name = "unchanged";
    CUresult error = driver().cuGetErrorName(static_cast<CUresult>(12345), &name);
    printf("12345: %s, %s\n", error_name(error), name ? name : "NULL");
    for (CUresult code : {CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_ILLEGAL_ADDRESS}) {
        CHECK(cuGetErrorString(code, &name));
        printf("text of %d: %s\n", code, name);
    }
}

// A kernel that faults: what the next calls say.
int sticky(const std::string &name) {
    use_first_device();
    CUmodule module;
    CUfunction function;
    CUdeviceptr memory, where = 0;
    CHECK(cuModuleLoadData(&module, KERNELS));
    CHECK(cuModuleGetFunction(&function, module, name == "misaligned" ? "load_wide" : "store"));
    CHECK(cuMemAlloc_v2(&memory, 64));
    if (name == "misaligned")
        where = memory + 4;
    void *parameters[] = {&where};
    CUresult launched = driver().cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, nullptr, parameters, nullptr);
    CUresult waited = driver().cuCtxSynchronize();
    CUdeviceptr more;
    CUresult allocated = driver().cuMemAlloc_v2(&more, 64);
    CUresult freed = driver().cuMemFree_v2(memory);
    CUcontext context;
    CUresult local = driver().cuCtxGetCurrent(&context);
    printf("%s, %s, %s, %s, %s\n", error_name(launched), error_name(waited), error_name(allocated), error_name(freed),
           error_name(local));
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return sticky(argv[1]);
    before_initialisation();
    without_context();
    with_context();
    names();
    for (const char *name : {"null", "misaligned"}) {
        Child child = run_self(name);
        EXPECT(child.exit_code == 0, "%s: exit code %d, signal %d: %s", name, child.exit_code, child.signal, child.err.c_str());
        printf("%s: %s", name, child.out.c_str());
    }
    return pass();
}
