// Managed memory: allocated at run time and as __managed__ variables; the host reads and writes it between kernels.
#include "check.h"

struct Node {
    int value;
    Node *next;
};

__managed__ int total = 5;
__managed__ double weights[4] = {0.5, 1.5, 2.5, 3.5};

__global__ void square(int *values, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        values[i] = values[i] * values[i];
        if (i == count - 1)
            total += count;
    }
}

__global__ void sum_list(const Node *head, int *sum) {
    int result = 0;
    for (const Node *node = head; node; node = node->next)
        result += node->value;
    *sum = result;
    weights[2] = result;
}

int main() {
    const int count = 100000;
    int *values;
    CHECK(cudaMallocManaged(&values, count * sizeof(int)));
    for (int i = 0; i < count; i++)
        values[i] = i % 1000;
    square<<<(count + 255) / 256, 256>>>(values, count);
    CHECK_KERNEL();
    for (int i = 0; i < count; i++)
        EXPECT(values[i] == (i % 1000) * (i % 1000), "element %d: %d", i, values[i]);
    printf("managed: %d elements, total %d\n", count, total);

    // A linked list that the host builds and the device walks: pointers mean the same on both sides.
    Node *nodes;
    CHECK(cudaMallocManaged(&nodes, 100 * sizeof(Node)));
    for (int i = 0; i < 100; i++) {
        nodes[i].value = i;
        nodes[i].next = i + 1 < 100 ? &nodes[i + 1] : nullptr;
    }
    total = 0;
    sum_list<<<1, 1>>>(nodes, &total);
    CHECK_KERNEL();
    printf("managed: list sum %d, weights %g %g %g %g\n", total, weights[0], weights[1], weights[2], weights[3]);
    EXPECT(total == 4950 && weights[2] == 4950.0, "total %d", total);

    // The host writes again, another kernel sees it; copies treat it like any memory.
    values[7] = -3;
    square<<<1, 32>>>(values, 32);
    CHECK_KERNEL();
    EXPECT(values[7] == 9, "element 7: %d", values[7]);
    int copy[8];
    CHECK(cudaMemcpy(copy, values, sizeof(copy), cudaMemcpyDefault));
    EXPECT(memcmp(copy, values, sizeof(copy)) == 0, "copy differs");
    CHECK(cudaMemset(values, 0, 16));
    CHECK(cudaDeviceSynchronize());
    EXPECT(values[0] == 0 && values[3] == 0 && values[4] == copy[4], "memset");

    cudaPointerAttributes attributes;
    CHECK(cudaPointerGetAttributes(&attributes, values));
    EXPECT(attributes.type == cudaMemoryTypeManaged, "type %d", static_cast<int>(attributes.type));
    EXPECT(attributes.devicePointer == values && attributes.hostPointer == values, "pointers differ");
    printf("managed: attributes say managed\n");
    CHECK(cudaFree(values));
    CHECK(cudaFree(nodes));
    return pass();
}
