// Stream memory operations: waits for values, writes of values, batches, in device and in pinned memory, between streams and with the host.
#include <vector>

#include <cuda.h>

#include "check.h"
#include "driver_entry.h"

__global__ void add(unsigned *value, unsigned amount) { *value += amount; }

int main() {
    CHECK(cudaFree(nullptr));
    auto wait32 = driver_entry<decltype(&cuStreamWaitValue32)>("cuStreamWaitValue32");
    auto write32 = driver_entry<decltype(&cuStreamWriteValue32)>("cuStreamWriteValue32");
    auto wait64 = driver_entry<decltype(&cuStreamWaitValue64)>("cuStreamWaitValue64");
    auto write64 = driver_entry<decltype(&cuStreamWriteValue64)>("cuStreamWriteValue64");
    auto batch = driver_entry<decltype(&cuStreamBatchMemOp)>("cuStreamBatchMemOp");

    cudaStream_t first, second;
    CHECK(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    unsigned *flags;
    CHECK(cudaMalloc(&flags, 256));
    CHECK(cudaMemset(flags, 0, 256));
    // A kernel is loaded at its first launch, which waits for all streams.
    add<<<1, 1, 0, second>>>(flags, 0);
    CHECK_KERNEL();
    CUdeviceptr flag = reinterpret_cast<CUdeviceptr>(flags), number = flag + 64, counter = flag + 128;

    // The second stream waits for what the first one writes later.
    EXPECT(wait32(second, flag, 7, CU_STREAM_WAIT_VALUE_EQ) == CUDA_SUCCESS, "wait");
    add<<<1, 1, 0, second>>>(flags + 32, 1);
    CHECK(cudaGetLastError());
    EXPECT(cudaStreamQuery(second) == cudaErrorNotReady, "the second stream waits");
    EXPECT(write32(first, flag, 7, CU_STREAM_WRITE_VALUE_DEFAULT) == CUDA_SUCCESS, "write");
    CHECK(cudaStreamSynchronize(second));
    unsigned result = 0;
    CHECK(cudaMemcpy(&result, flags + 32, 4, cudaMemcpyDeviceToHost));
    EXPECT(result == 1, "%u", result);
    puts("stream_memops: one stream waits for another: equal");

    // 64 bits, at least.
    EXPECT(wait64(second, number, 1ull << 40, CU_STREAM_WAIT_VALUE_GEQ) == CUDA_SUCCESS, "wait");
    EXPECT(cudaStreamQuery(second) == cudaErrorNotReady, "the second stream waits");
    EXPECT(write64(first, number, (1ull << 40) + 5, CU_STREAM_WRITE_VALUE_DEFAULT) == CUDA_SUCCESS, "write");
    CHECK(cudaStreamSynchronize(second));
    unsigned long long wide = 0;
    CHECK(cudaMemcpy(&wide, reinterpret_cast<void *>(number), 8, cudaMemcpyDeviceToHost));
    EXPECT(wide == (1ull << 40) + 5, "%llu", wide);
    puts("stream_memops: 64 bits: equal");

    // The host lets a stream go on, and sees what it writes.
    unsigned *host;
    CHECK(cudaMallocHost(&host, 64));
    volatile unsigned *seen = host;
    seen[0] = seen[1] = seen[2] = 0;
    CUdeviceptr pinned = reinterpret_cast<CUdeviceptr>(host);
    EXPECT(wait32(first, pinned, 3, CU_STREAM_WAIT_VALUE_EQ) == CUDA_SUCCESS, "wait");
    EXPECT(write32(first, pinned + 4, 42, CU_STREAM_WRITE_VALUE_DEFAULT) == CUDA_SUCCESS, "write");
    EXPECT(seen[1] == 0, "%u", seen[1]);
    seen[0] = 3;
    while (seen[1] != 42) {
    }
    CHECK(cudaStreamSynchronize(first));
    puts("stream_memops: the host and a stream: equal");

    CUstreamBatchMemOpParams operations[3] = {};
    operations[0].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    operations[0].writeValue.address = counter + 4;
    operations[0].writeValue.value = 11;
    operations[1].operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    operations[1].waitValue.address = counter + 4;
    operations[1].waitValue.value = 11;
    operations[1].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    operations[2].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    operations[2].writeValue.address = pinned + 8;
    operations[2].writeValue.value = 13;
    EXPECT(batch(first, 3, operations, 0) == CUDA_SUCCESS, "batch");
    CHECK(cudaStreamSynchronize(first));
    EXPECT(seen[2] == 13, "%u", seen[2]);
    puts("stream_memops: a batch: equal");

    EXPECT(write32(first, 0, 1, CU_STREAM_WRITE_VALUE_DEFAULT) == CUDA_ERROR_INVALID_VALUE, "an address of 0");
    EXPECT(wait32(first, flag + 1, 1, CU_STREAM_WAIT_VALUE_EQ) == CUDA_ERROR_INVALID_VALUE, "an odd address");
    CHECK(cudaFreeHost(host));
    CHECK(cudaFree(flags));
    CHECK(cudaStreamDestroy(first));
    CHECK(cudaStreamDestroy(second));
    puts("stream_memops: what is wrong is refused");
    return pass();
}
