// Opens libcuda.so.1, uses it, closes it, and does so again: as programs do that only probe for a GPU.
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <dlfcn.h>

#include <cuda.h>

template <typename F> F look_up(void *library, const char *name) {
    void *address = dlsym(library, name);
    if (!address) {
        fprintf(stderr, "libcuda.so.1 has no %s\n", name);
        exit(1);
    }
    return reinterpret_cast<F>(address);
}

#define LOOK_UP(symbol) auto symbol##_p = look_up<decltype(&::symbol)>(library, #symbol)
#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        CUresult check_error_ = call;                                                                                  \
        if (check_error_ != CUDA_SUCCESS) {                                                                            \
            fprintf(stderr, "%s:%d: %s: error %d\n", __FILE__, __LINE__, #call, static_cast<int>(check_error_));       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

void use(int round) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    LOOK_UP(cuInit);
    LOOK_UP(cuDeviceGet);
    LOOK_UP(cuDevicePrimaryCtxRetain);
    LOOK_UP(cuDevicePrimaryCtxRelease_v2);
    LOOK_UP(cuCtxSetCurrent);
    LOOK_UP(cuMemAlloc_v2);
    LOOK_UP(cuMemFree_v2);
    LOOK_UP(cuMemsetD32_v2);
    LOOK_UP(cuMemcpyDtoH_v2);
    CHECK(cuInit_p(0));
    CUdevice device;
    CUcontext context;
    CHECK(cuDeviceGet_p(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain_p(&context, device));
    unsigned value = 0;
    // From a second thread, which has ended when the library is closed.
    std::thread([&] {
        CUdeviceptr memory;
        CHECK(cuCtxSetCurrent_p(context));
        CHECK(cuMemAlloc_v2_p(&memory, 4096));
        CHECK(cuMemsetD32_v2_p(memory, 0xc0ffee + round, 1024));
        CHECK(cuMemcpyDtoH_v2_p(&value, memory + 4092, sizeof(value)));
        CHECK(cuMemFree_v2_p(memory));
    }).join();
    CHECK(cuDevicePrimaryCtxRelease_v2_p(device));
    dlclose(library);
    printf("driver_dlclose: round %d: %#x\n", round, value);
    if (value != 0xc0ffeeu + round)
        exit(1);
}

int main() {
    for (int round = 0; round < 3; round++)
        use(round);
    puts("PASS");
    return 0;
}
