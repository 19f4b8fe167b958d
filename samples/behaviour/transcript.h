// A transcript of driver calls: what each returns and leaves behind, for comparing two drivers line by line.
//
// Values that may differ between two correct runs (addresses, handles, times) are printed as classes. A situation in which a driver may
// crash has a section of its own: the lines before the crash are compared.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <thread>
#include <type_traits>

#include "lookup.h"
#include "sections.h"

inline const char *result_name(CUresult result) {
    const char *name = nullptr;
    DRIVER(cuGetErrorName)(result, &name);
    return name ? name : "(unknown)";
}

template <class Call> CUresult attempt(const char *name, const char *arguments, Call call) {
    try {
        const CUresult result = call();
        printf("%s(%s): %s\n", name, arguments, result_name(result));
        return result;
    } catch (const Failure &) {
        printf("%s: not there\n", name);
        return CUDA_ERROR_NOT_FOUND;
    }
}

// Calls, and prints the call as it stands in the source with its result.
#define TRY(name, ...) attempt(#name, #__VA_ARGS__, [&] { return DRIVER(name)(__VA_ARGS__); })

// What an out-parameter holds before the call.
template <class T> T unset() {
    T value;
    memset(static_cast<void *>(&value), 0xa5, sizeof(value));
    return value;
}

template <class T> bool is_unset(const T &value) {
    const T other = unset<T>();
    return memcmp(&value, &other, sizeof(value)) == 0;
}

// A value that has to be the same.
template <class T> void value_of(const char *what, const T &value) {
    if (is_unset(value))
        printf("    %s: untouched\n", what);
    else if constexpr (std::is_floating_point_v<T>)
        printf("    %s: %.6g\n", what, double(value));
    else
        printf("    %s: %lld\n", what, (long long)(value));
}
#define VALUE(variable) value_of(#variable, variable)

// A handle, an address, a time.
template <class T> void class_of(const char *what, const T &value) {
    const T zero{};
    if (is_unset(value))
        printf("    %s: untouched\n", what);
    else
        printf("    %s: %s\n", what, memcmp(&value, &zero, sizeof(value)) == 0 ? "zero" : "nonzero");
}
#define CLASS(variable) class_of(#variable, variable)

#define HOLDS(condition) printf("    %s: %s\n", #condition, (condition) ? "yes" : "no")

// PTX that any driver compiles.
inline const char *const KERNELS = R"(
.version 7.0
.target sm_75
.address_size 64

.visible .global .align 4 .u32 counter = 7;
.visible .const .align 4 .b8 weights[16];

.visible .entry nothing() { ret; }

.visible .entry add_one(.param .u64 memory, .param .u32 count) {
    .reg .pred %p<2>;
    .reg .b32 %r<8>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [memory];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra end;
    mul.wide.u32 %d2, %r5, 4;
    add.s64 %d3, %d1, %d2;
    ld.global.u32 %r6, [%d3];
    add.u32 %r7, %r6, 1;
    st.global.u32 [%d3], %r7;
end:
    ret;
}

.visible .entry gate(.param .u64 flag) {
    .reg .pred %p<2>;
    .reg .b32 %r<2>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [flag];
again:
    ld.volatile.u32 %r1, [%d1];
    setp.eq.u32 %p1, %r1, 0;
    @%p1 bra again;
    ret;
}

.visible .entry wild(.param .u64 memory) {
    .reg .b32 %r<2>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [memory];
    mov.u32 %r1, 1;
    st.global.u32 [%d1], %r1;
    ret;
}

.visible .entry stops() { trap; }

.visible .entry with_shared(.param .u64 memory) {
    .shared .align 4 .b8 tile[4096];
    .reg .b32 %r<2>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [memory];
    mov.u32 %r1, 5;
    st.shared.u32 [tile], %r1;
    bar.sync 0;
    ld.shared.u32 %r1, [tile + 4];
    st.global.u32 [%d1], %r1;
    ret;
}

.visible .entry bounded(.param .u64 memory)
.maxntid 64, 1, 1
{
    .reg .b32 %r<2>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [memory];
    mov.u32 %r1, 1;
    st.global.u32 [%d1], %r1;
    ret;
}
)";

inline CUmodule &module_of_process() {
    static CUmodule module;
    return module;
}

inline CUfunction kernel(const char *name) {
    CUfunction function;
    MUST(cuModuleGetFunction, &function, module_of_process(), name);
    return function;
}

// A context and the kernels.
inline void begin() {
    use_first_device();
    MUST(cuModuleLoadData, &module_of_process(), KERNELS);
}

inline CUdeviceptr allocate(size_t bytes) {
    CUdeviceptr memory;
    MUST(cuMemAlloc, &memory, bytes);
    MUST(cuMemsetD8, memory, 0, bytes);
    return memory;
}

inline CUstream new_stream() {
    CUstream stream;
    MUST(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    return stream;
}

// Work that goes on until it is told to end.
class Gate {
public:
    explicit Gate(CUstream stream) {
        void *memory;
        MUST(cuMemHostAlloc, &memory, sizeof(unsigned), CU_MEMHOSTALLOC_DEVICEMAP);
        flag = static_cast<volatile unsigned *>(memory);
        *flag = 0;
        CUdeviceptr address;
        MUST(cuMemHostGetDevicePointer, &address, memory, 0);
        void *parameters[] = {&address};
        // Both are slow at their first use, which may wait for the device.
        MUST(cuLaunchKernel, kernel("gate"), 1, 1, 1, 1, 1, 1, 0, stream, parameters, nullptr);
    }
    ~Gate() { open(); }
    void open() { *flag = 1; }

private:
    volatile unsigned *flag;
};

// What a section takes for granted failed.
inline std::string describe(const Failure &failure) {
    return text("%s: %s: %d", failure.code == CUDA_ERROR_NOT_SUPPORTED ? "skipped" : "failed", failure.what, failure.code);
}

inline int transcript(int count, char **arguments) { return run_sections<Failure>(count, arguments, "# rtol=0 atol=0", 30, describe); }
