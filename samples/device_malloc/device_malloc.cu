// malloc, free, new and delete in kernels: lists built on the device, memory that outlives its kernel, exhaustion.
#include "check.h"

struct Node {
    int value;
    Node *next;
};

__device__ Node *lists[256];

__global__ void build(int length) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    Node *head = nullptr;
    for (int k = 0; k < length; k++) {
        Node *node = static_cast<Node *>(malloc(sizeof(Node)));
        if (!node)
            __trap();
        node->value = i * 100 + k;
        node->next = head;
        head = node;
    }
    lists[i] = head;
}

__global__ void sum_and_free(long long *sums) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    long long sum = 0;
    for (Node *node = lists[i]; node;) {
        sum += node->value;
        Node *next = node->next;
        free(node);
        node = next;
    }
    sums[i] = sum;
}

// One thread allocates for its block, with new[], and another frees.
__global__ void per_block(int *out) {
    __shared__ int *scratch;
    if (threadIdx.x == 0)
        scratch = new int[blockDim.x];
    __syncthreads();
    scratch[threadIdx.x] = threadIdx.x * (blockIdx.x + 1);
    __syncthreads();
    int other = scratch[blockDim.x - 1 - threadIdx.x];
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = other;
    if (threadIdx.x == blockDim.x - 1)
        delete[] scratch;
}

// Alignment, distinct blocks, and NULL when there is no more; then all of it is given back and can be had again.
__global__ void exhaust(size_t heap, int *report) {
    const size_t size = heap / 64;
    void *blocks[128];
    int got = 0, misaligned = 0;
    while (got < 128) {
        void *block = malloc(size);
        if (!block)
            break;
        misaligned += reinterpret_cast<size_t>(block) % 16 != 0;
        *static_cast<int *>(block) = got;
        blocks[got++] = block;
    }
    int damaged = 0;
    for (int i = 0; i < got; i++)
        damaged += *static_cast<int *>(blocks[i]) != i;
    for (int i = 0; i < got; i++)
        free(blocks[i]);
    free(nullptr);
    report[0] = got > 16 && got < 128;
    report[1] = misaligned;
    report[2] = damaged;
    void *again = malloc(size * 8);
    report[3] = again != nullptr;
    free(again);
}

int main() {
    size_t heap = 0;
    CHECK(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 16 << 20));
    CHECK(cudaDeviceGetLimit(&heap, cudaLimitMallocHeapSize));
    EXPECT(heap >= 16 << 20, "heap of %zu bytes", heap);

    const int threads = 256, length = 20;
    long long sums[threads], *device_sums;
    CHECK(cudaMalloc(&device_sums, sizeof(sums)));
    for (int round = 0; round < 3; round++) {
        build<<<4, 64>>>(length);
        CHECK_KERNEL();
        sum_and_free<<<8, 32>>>(device_sums);
        CHECK_KERNEL();
        CHECK(cudaMemcpy(sums, device_sums, sizeof(sums), cudaMemcpyDeviceToHost));
        for (int i = 0; i < threads; i++)
            EXPECT(sums[i] == 100LL * i * length + length * (length - 1) / 2, "list %d: %lld", i, sums[i]);
    }
    printf("device_malloc: %d lists of %d nodes, three times: equal\n", threads, length);

    int out[10 * 96], *device_out;
    CHECK(cudaMalloc(&device_out, sizeof(out)));
    per_block<<<10, 96>>>(device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out, device_out, sizeof(out), cudaMemcpyDeviceToHost));
    for (int block = 0; block < 10; block++)
        for (int t = 0; t < 96; t++)
            EXPECT(out[block * 96 + t] == (95 - t) * (block + 1), "block %d thread %d", block, t);
    printf("device_malloc: scratch per block: equal\n");

    exhaust<<<1, 1>>>(heap, device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out, device_out, 4 * sizeof(int), cudaMemcpyDeviceToHost));
    EXPECT(out[0] == 1 && out[1] == 0 && out[2] == 0 && out[3] == 1, "%d %d %d %d", out[0], out[1], out[2], out[3]);
    printf("device_malloc: exhaustion gives NULL, freed memory comes back\n");
    CHECK(cudaFree(device_sums));
    CHECK(cudaFree(device_out));
    return pass();
}
