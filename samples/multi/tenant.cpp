// One of several programs on the same device.
//
//     tenant work SECONDS SEED    copies, computes, compares; prints how many rounds it made
//     tenant fault                a kernel that writes out of bounds; prints the errors
//     tenant hold                 copies and launches without end, with much memory
//
// Each says "ready" when it is set up and begins when it is told to (a line on its standard input).
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <time.h>
#include <unistd.h>

#include "lookup.h"

namespace {

const char *const KERNELS = R"(
.version 7.0
.target sm_75
.address_size 64

.visible .entry mix(.param .u64 memory, .param .u32 count, .param .u32 add) {
    .reg .pred %p<3>;
    .reg .b32 %r<10>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [memory];
    ld.param.u32 %r1, [count];
    ld.param.u32 %r2, [add];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.s32 %r6, %r3, %r4, %r5;
    setp.ge.u32 %p1, %r6, %r1;
    @%p1 bra end;
    mul.wide.u32 %d2, %r6, 4;
    add.s64 %d3, %d1, %d2;
    ld.global.u32 %r7, [%d3];
    mov.u32 %r8, 0;
again:
    mad.lo.u32 %r7, %r7, 1664525, %r2;
    add.u32 %r8, %r8, 1;
    setp.lt.u32 %p2, %r8, 16;
    @%p2 bra again;
    st.global.u32 [%d3], %r7;
end:
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
)";

constexpr int LAUNCHES = 8;

double now_s() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

void wait_for_start() {
    puts("ready");
    fflush(stdout);
    char line[16];
    if (!fgets(line, sizeof(line), stdin))
        exit(3);
}

CUfunction kernel(const char *name) {
    static CUmodule module = [] {
        CUmodule loaded;
        MUST(cuModuleLoadData, &loaded, KERNELS);
        return loaded;
    }();
    CUfunction function;
    MUST(cuModuleGetFunction, &function, module, name);
    return function;
}

struct Work {
    size_t count;
    unsigned *in, *out;
    CUdeviceptr memory;
    CUstream stream;
    CUfunction mix;

    explicit Work(size_t bytes) : count(bytes / 4), mix(kernel("mix")) {
        void *host[2];
        for (void *&one : host)
            MUST(cuMemHostAlloc, &one, bytes, 0);
        in = static_cast<unsigned *>(host[0]);
        out = static_cast<unsigned *>(host[1]);
        MUST(cuMemAlloc, &memory, bytes);
        MUST(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    }

    void round(unsigned add) {
        MUST(cuMemcpyHtoDAsync, memory, in, count * 4, stream);
        unsigned length = unsigned(count);
        void *parameters[] = {&memory, &length, &add};
        for (int i = 0; i < LAUNCHES; i++)
            MUST(cuLaunchKernel, mix, (length + 255) / 256, 1, 1, 256, 1, 1, 0, stream, parameters, nullptr);
        MUST(cuMemcpyDtoHAsync, out, memory, count * 4, stream);
    }

    bool is_right(size_t i, unsigned add) const {
        unsigned value = in[i];
        for (int step = 0; step < 16 * LAUNCHES; step++)
            value = value * 1664525u + add;
        return out[i] == value;
    }
};

// Some places, or all.
bool check(const Work &work, unsigned rounds, unsigned add, size_t step) {
    for (size_t i = rounds % step; i < work.count; i += step)
        if (!work.is_right(i, add)) {
            printf("wrong at %zu in round %u\n", i, rounds);
            return false;
        }
    return true;
}

// All places are looked at before and after the time that counts: this processor needs a second for that, in which the device could do a thousand rounds.
int work(double seconds, unsigned seed, size_t bytes) {
    Work work(bytes);
    for (size_t i = 0; i < work.count; i++)
        work.in[i] = unsigned(i) * 2654435761u + seed;
    work.round(seed);
    MUST(cuStreamSynchronize, work.stream);
    if (!check(work, 0, seed, 1))
        return 1;
    wait_for_start();
    const double begin = now_s();
    unsigned rounds = 0, add = seed;
    while (now_s() < begin + seconds) {
        add = seed + rounds;
        work.round(add);
        MUST(cuStreamSynchronize, work.stream);
        if (!check(work, rounds, add, 10007))
            return 1;
        rounds++;
    }
    const double took = now_s() - begin;
    if (!check(work, rounds, add, 1))
        return 1;
    printf("rounds %u seconds %.4f\n", rounds, took);
    return 0;
}

int fault() {
    CUfunction wild = kernel("wild");
    wait_for_start();
    CUdeviceptr at = 0x10, memory;
    void *parameters[] = {&at};
    MUST(cuLaunchKernel, wild, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr);
    const int first = DRIVER(cuCtxSynchronize)(), second = DRIVER(cuMemAlloc)(&memory, 16);
    printf("errors %d %d\n", first, second);
    return 0;
}

int hold(size_t bytes) {
    Work work(bytes);
    CUdeviceptr much;
    MUST(cuMemAlloc, &much, bytes * 128);
    std::vector<char> pageable(bytes);
    wait_for_start();
    puts("started");
    fflush(stdout);
    for (unsigned i = 0;; i++) {
        for (int deep = 0; deep < 16; deep++)
            work.round(i);
        MUST(cuMemcpyHtoD, much, pageable.data(), bytes);
    }
}

} // namespace

int main(int count, char **arguments) {
    // Nobody waits for ever for one that hangs.
    alarm(300);
    const std::string what = count > 1 ? arguments[1] : "";
    const size_t bytes = getenv("BENCH_SMALL") ? 1 << 18 : 16 << 20;
    try {
        use_first_device();
        if (what == "work" && count == 4)
            return work(atof(arguments[2]), unsigned(atoi(arguments[3])), bytes);
        if (what == "fault")
            return fault();
        if (what == "hold")
            return hold(bytes);
    } catch (const Failure &failure) {
        printf("%s: %d\n", failure.what, failure.code);
        return 1;
    }
    fprintf(stderr, "usage: tenant work SECONDS SEED | fault | hold\n");
    return 2;
}
