// Device printf in all its formats, and a failing device assert, which a second process shows.
#include <cassert>
#include <string>

#include "check.h"
#include "child.h"

__device__ const char in_global[] = "string in global memory";

__global__ void formats(const char *from_host, int *returned) {
    printf("no arguments\n");
    printf("integers: %d %i %u %d\n", 42, -7, 4000000000u, -2147483647 - 1);
    printf("hex and octal: %x %X %#x %o %#o\n", 48879, 48879, 255, 8, 8);
    printf("characters: %c%c%c %%\n", 'a', 'B', '9');
    printf("strings: %s, %10s|%-10s|%.3s\n", "literal", "right", "left", "truncated");
    printf("from memory: %s, %s\n", in_global, from_host);
    printf("floats: %f %.3f %10.4f|%-12.2f|%+g\n", 3.14159265, 2.71828, 1.5f, -0.25, 1e10);
    printf("exponents: %e %.2E %g %G %a\n", 12345.678, 0.00012, 1e-5, 1e20, 1.0);
    printf("64-bit: %lld %llu %llx %ld %lu\n", -9000000000LL, 18446744073709551615ULL, 0x123456789abcdefULL, -5L, 6UL);
    printf("short: %hd %hu\n", static_cast<short>(-3), static_cast<unsigned short>(65535));
    printf("flags: %05d|%-5d|%+d|% d|%5d|%.4d\n", 42, 42, 42, 42, 42, 42);
    printf("special: %f %f %f\n", INFINITY, -INFINITY, 0.0);
    printf("many: %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d\n", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
           14, 15, 16, 17, 18, 19, 20);
    char built[8] = {'l', 'o', 'c', 'a', 'l', 0};
    built[0] = from_host[0];
    printf("from the stack: %s\n", built);
    returned[0] = printf("");
    returned[1] = printf("two: %d %f\n", 1, 2.0);
    printf("partial ");
    printf("line\n");
}

// Threads take turns, so the order is known.
__global__ void in_turn() {
    for (int turn = 0; turn < blockDim.x; turn++) {
        if (threadIdx.x == turn)
            printf("thread %d of block %d\n", threadIdx.x, blockIdx.x);
        __syncthreads();
    }
}

__global__ void check_value(int limit) {
    assert(static_cast<int>(threadIdx.x) != limit && "thread at the limit");
}

int fail_assert() {
    check_value<<<1, 32>>>(100);
    CHECK_KERNEL();
    check_value<<<2, 8>>>(3);
    cudaError_t error = cudaDeviceSynchronize();
    // A failed assertion is sticky: the context is lost.
    int *pointer;
    printf("%s, then %s\n", cudaGetErrorName(error), cudaGetErrorName(cudaMalloc(&pointer, 4)));
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && std::string(argv[1]) == "assert")
        return fail_assert();

    char *from_host;
    int *returned, result[2];
    CHECK(cudaMalloc(&from_host, 32));
    CHECK(cudaMemcpy(from_host, "copied text", 12, cudaMemcpyHostToDevice));
    CHECK(cudaMalloc(&returned, sizeof(result)));
    printf("printf_assert: begin\n");
    fflush(stdout);
    formats<<<1, 1>>>(from_host, returned);
    CHECK_KERNEL();
    fflush(stdout);
    CHECK(cudaMemcpy(result, returned, sizeof(result), cudaMemcpyDeviceToHost));
    printf("returned: %d %d\n", result[0], result[1]);
    fflush(stdout);
    in_turn<<<1, 40>>>();
    CHECK_KERNEL();
    // Output comes with any synchronisation, here of a stream and of a copy.
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    fflush(stdout);
    in_turn<<<1, 2, 0, stream>>>();
    CHECK(cudaStreamSynchronize(stream));
    fflush(stdout);
    printf("after the stream\n");
    size_t limit = 0;
    CHECK(cudaDeviceGetLimit(&limit, cudaLimitPrintfFifoSize));
    EXPECT(limit >= 4096, "printf buffer of %zu bytes", limit);

    Child child = run_self("assert");
    printf("child: %s", child.out.c_str());
    EXPECT(child.exit_code == 0, "exit code %d, signal %d: %s", child.exit_code, child.signal, child.err.c_str());
    // Both blocks fail, in either order, and the first may end the other before it has said so.
    EXPECT(child.err.find("block: [0,0,0], thread: [3,0,0]") != std::string::npos ||
               child.err.find("block: [1,0,0], thread: [3,0,0]") != std::string::npos,
           "no place in: %s", child.err.c_str());
    for (const char *part : {"printf_assert.cu:", "check_value", "Assertion `", "thread at the limit", "` failed."})
        EXPECT(child.err.find(part) != std::string::npos, "no \"%s\" in: %s", part, child.err.c_str());
    printf("printf_assert: the assertion message is complete\n");
    return pass();
}
