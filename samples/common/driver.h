// The driver API for samples without a CUDA runtime: opened at run time, or linked (SAMPLE_LINK_LIBCUDA).
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <dlfcn.h>
#include <unistd.h>

#include <cuda.h>

// Newer headers have only newer forms of these, older drivers and headers only these.
#if CUDA_VERSION >= 13000
extern "C" CUresult CUDAAPI cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device);
#endif

struct Driver {
#define SYMBOL(name) decltype(&::name) name;
#include "driver_symbols.inc"
#undef SYMBOL

    Driver() {
#ifdef SAMPLE_LINK_LIBCUDA
#define SYMBOL(name) this->name = &::name;
#include "driver_symbols.inc"
#undef SYMBOL
#else
        void *library = dlopen("libcuda.so.1", RTLD_NOW);
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            exit(1);
        }
#define SYMBOL(name)                                                                                                   \
    this->name = reinterpret_cast<decltype(this->name)>(dlsym(library, #name));                                        \
    if (!this->name) {                                                                                                 \
        fprintf(stderr, "libcuda.so.1 has no " #name "\n");                                                            \
        exit(1);                                                                                                       \
    }
#include "driver_symbols.inc"
#undef SYMBOL
#endif
    }
};

inline Driver &driver() {
    static Driver driver;
    return driver;
}

inline const char *error_name(CUresult error) {
    const char *name = nullptr;
    driver().cuGetErrorName(error, &name);
    return name ? name : "(unknown)";
}

// Ends the program with a message if a driver call fails. The call is written without `driver().`.
#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        CUresult check_error_ = driver().call;                                                                         \
        if (check_error_ != CUDA_SUCCESS) {                                                                            \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, error_name(check_error_));                   \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define EXPECT(condition, ...)                                                                                         \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: expected %s: ", __FILE__, __LINE__, #condition);                                   \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            puts("FAIL");                                                                                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

inline int pass() {
    puts("PASS");
    return 0;
}

// A file that lies next to this program.
inline std::string beside_program(const char *name) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    std::string program(path, length > 0 ? length : 0);
    return program.substr(0, program.rfind('/') + 1) + name;
}

inline std::vector<char> read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        fprintf(stderr, "cannot open %s\n", path.c_str());
        exit(1);
    }
    return std::vector<char>(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

// Initialises the driver and makes the first device's primary context current.
inline CUdevice use_first_device() {
    CUdevice device;
    CUcontext context;
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    return device;
}
