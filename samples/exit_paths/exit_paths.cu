// All the ways in which a program can end while it holds device memory, streams and running kernels.
#include <string>
#include <thread>

#include <unistd.h>

#include "check.h"
#include "child.h"

__global__ void spin(unsigned *out, int steps) {
    unsigned x = threadIdx.x;
    for (int i = 0; i < steps; i++)
        x = x * 1664525u + 1013904223u;
    out[threadIdx.x] = x;
}

unsigned *memory;
cudaStream_t stream;

void use_cuda() {
    CHECK(cudaMalloc(&memory, 1 << 20));
    CHECK(cudaStreamCreate(&stream));
    spin<<<1, 32, 0, stream>>>(memory, 1000);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(stream));
}

// After main: the runtime may be gone already, and then says so.
void free_at_end(const char *where) {
    cudaError_t error = cudaFree(memory);
    bool fine = error == cudaSuccess || error == cudaErrorCudartUnloading || error == cudaErrorContextIsDestroyed;
    printf("%s frees: %s\n", where, fine ? "fine" : cudaGetErrorName(error));
}

struct FreesInDestructor {
    bool active = false;
    ~FreesInDestructor() {
        if (active)
            free_at_end("destructor");
    }
} frees_in_destructor;

int run(const std::string &how) {
    if (how == "early handler")
        atexit([] { free_at_end("early handler"); });
    use_cuda();
    if (how == "return")
        return 7;
    if (how == "exit")
        exit(8);
    if (how == "_exit")
        _exit(9);
    if (how == "quick_exit")
        quick_exit(10);
    if (how == "abort")
        abort();
    if (how == "late handler") {
        atexit([] { free_at_end("late handler"); });
        return 11;
    }
    if (how == "early handler")
        return 12;
    if (how == "destructor") {
        frees_in_destructor.active = true;
        return 13;
    }
    if (how == "reset") {
        CHECK(cudaDeviceReset());
        // The device can be used afresh.
        use_cuda();
        CHECK(cudaDeviceReset());
        return 14;
    }
    if (how == "busy") {
        spin<<<1, 32, 0, stream>>>(memory, 5000000);
        CHECK(cudaGetLastError());
        return 15;
    }
    if (how == "thread") {
        // A thread that has used the device waits while the program ends.
        std::thread([] {
            int *p;
            CHECK(cudaMalloc(&p, 16));
            CHECK(cudaMemset(p, 0, 16));
            pause();
        }).detach();
        usleep(100000);
        return 16;
    }
    if (how == "device error") {
        spin<<<1, 32, 0, stream>>>(nullptr, 1);
        cudaError_t error = cudaStreamSynchronize(stream);
        return error == cudaErrorIllegalAddress ? 17 : 1;
    }
    return 1;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return run(argv[1]);
    // The parent uses the device as well: its children's ends must not disturb it.
    use_cuda();
    for (const char *how : {"return", "exit", "_exit", "quick_exit", "abort", "late handler", "early handler", "destructor",
                            "reset", "busy", "thread", "device error"}) {
        Child child = run_self(how);
        printf("%s: ", how);
        if (child.signal)
            printf("signal %d\n", child.signal);
        else
            printf("exit code %d\n", child.exit_code);
        fputs(child.out.c_str(), stdout);
    }
    spin<<<1, 32, 0, stream>>>(memory, 1000);
    CHECK_KERNEL();
    puts("PASS");
    // The last way: no clean-up at all.
    return 0;
}
