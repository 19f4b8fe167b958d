// Driver functions looked up by name in libcuda.so.1, each at its first use: a missing one is a failure of what needs it alone.
#pragma once

#include <cstdio>
#include <cstdlib>

#include <dlfcn.h>

#include <cuda.h>

// A call that failed, or (-1) a function that is not there.
struct Failure {
    const char *what;
    int code;
};

inline void *lookup(const char *name) {
    static void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return dlsym(library, name);
}

#define LOOKUP_TEXT_(name) #name
#define LOOKUP_TEXT(name) LOOKUP_TEXT_(name)

// A driver function, under the name that cuda.h gives it (cuMemAlloc is cuMemAlloc_v2).
#define DRIVER(name)                                                                                                   \
    ([] {                                                                                                              \
        static auto *function = reinterpret_cast<decltype(&::name)>(lookup(LOOKUP_TEXT(name)));                        \
        if (!function)                                                                                                 \
            throw Failure{#name, -1};                                                                                  \
        return function;                                                                                               \
    }())

#define MUST(name, ...)                                                                                                \
    do {                                                                                                               \
        CUresult must_ = DRIVER(name)(__VA_ARGS__);                                                                    \
        if (must_ != CUDA_SUCCESS)                                                                                     \
            throw Failure{#name, static_cast<int>(must_)};                                                             \
    } while (0)

// The first device's primary context, current.
inline void use_first_device() {
    CUdevice device;
    CUcontext context;
    MUST(cuInit, 0);
    MUST(cuDeviceGet, &device, 0);
    MUST(cuDevicePrimaryCtxRetain, &context, device);
    MUST(cuCtxSetCurrent, context);
}
