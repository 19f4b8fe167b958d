// Constant memory and __device__ variables: initial values, copies by symbol, addresses and sizes.
#include "check.h"

struct Record {
    char tag;
    double weight;
    short counts[3];
};

__constant__ float coefficients[16];
__constant__ int initialised[4] = {3, 1, 4, 1};
__constant__ Record record = {'r', 2.5, {7, 8, 9}};
__device__ int counter = 41;
__device__ float table[64];
__device__ const char text[] = "device text";
__device__ long long *pointer_to_heap;
__device__ int *pointer_to_symbol = &counter;
// A structure of pointers that the loader has to fill in.
struct Links {
    const char *name;
    float *values;
};
__device__ Links links = {text, table + 5};
static __device__ unsigned char bytes[5] = {1, 2, 3, 4, 250};

__global__ void evaluate(const float *x, float *y, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        float sum = coefficients[15];
        for (int k = 14; k >= 0; k--)
            sum = fmaf(sum, x[i], coefficients[k]);
        y[i] = sum;
    }
}

__global__ void use_symbols(int *out) {
    out[0] = initialised[0] * 1000 + initialised[1] * 100 + initialised[2] * 10 + initialised[3];
    out[1] = record.tag;
    out[2] = static_cast<int>(record.weight * 10);
    out[3] = record.counts[0] + record.counts[1] + record.counts[2];
    out[4] = atomicAdd(&counter, 1);
    out[5] = *pointer_to_symbol;
    out[6] = links.name[7];
    links.values[0] = 6.5f;
    out[7] = static_cast<int>(table[5] * 2);
    out[8] = bytes[0] + bytes[1] + bytes[2] + bytes[3] + bytes[4];
    pointer_to_heap[2] = 123456789012345LL;
}

int main() {
    float host_coefficients[16], back[16];
    Lcg random(5);
    for (float &c : host_coefficients)
        c = random.next_float() - 0.5f;
    CHECK(cudaMemcpyToSymbol(coefficients, host_coefficients, sizeof(host_coefficients)));
    // Again in two parts, the second at an offset.
    host_coefficients[9] = 0.125f;
    CHECK(cudaMemcpyToSymbol(coefficients, host_coefficients + 8, 8 * sizeof(float), 8 * sizeof(float)));
    CHECK(cudaMemcpyFromSymbol(back, coefficients, sizeof(back)));
    EXPECT(memcmp(back, host_coefficients, sizeof(back)) == 0, "constant memory reads back differently");

    const int count = 1000;
    float x[count], y[count], *device_x, *device_y;
    for (float &value : x)
        value = random.next_float() * 2 - 1;
    CHECK(cudaMalloc(&device_x, sizeof(x)));
    CHECK(cudaMalloc(&device_y, sizeof(y)));
    CHECK(cudaMemcpy(device_x, x, sizeof(x), cudaMemcpyHostToDevice));
    evaluate<<<8, 128>>>(device_x, device_y, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(y, device_y, sizeof(y), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++) {
        float sum = host_coefficients[15];
        for (int k = 14; k >= 0; k--)
            sum = std::fmaf(sum, x[i], host_coefficients[k]);
        EXPECT(y[i] == sum, "element %d: %.9g, not %.9g", i, y[i], sum);
    }
    printf("constant_symbols: polynomial from constant memory: equal\n");

    long long *heap;
    CHECK(cudaMalloc(&heap, 4 * sizeof(long long)));
    CHECK(cudaMemcpyToSymbol(pointer_to_heap, &heap, sizeof(heap)));
    int out[9], *device_out;
    CHECK(cudaMalloc(&device_out, sizeof(out)));
    use_symbols<<<1, 1>>>(device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out, device_out, sizeof(out), cudaMemcpyDeviceToHost));
    printf("constant_symbols: %d %c %d %d %d %d %c %d %d\n", out[0], out[1], out[2], out[3], out[4], out[5], out[6],
           out[7], out[8]);
    long long value = 0;
    CHECK(cudaMemcpy(&value, heap + 2, sizeof(value), cudaMemcpyDeviceToHost));
    printf("constant_symbols: through a pointer in a symbol: %lld\n", value);

    // The address is that of the variable that kernels use, and it stays.
    void *address = nullptr, *again = nullptr;
    size_t size = 0;
    CHECK(cudaGetSymbolAddress(&address, counter));
    CHECK(cudaGetSymbolAddress(&again, counter));
    EXPECT(address != nullptr && address == again, "%p and %p", address, again);
    int set = 1000, read = 0;
    CHECK(cudaMemcpy(address, &set, sizeof(set), cudaMemcpyHostToDevice));
    use_symbols<<<1, 1>>>(device_out);
    CHECK(cudaMemcpyFromSymbol(&read, counter, sizeof(read)));
    EXPECT(read == 1001, "counter is %d", read);
    CHECK(cudaGetSymbolSize(&size, table));
    printf("constant_symbols: counter %d, table of %zu bytes", read, size);
    CHECK(cudaGetSymbolSize(&size, record));
    printf(", record of %zu bytes", size);
    CHECK(cudaGetSymbolSize(&size, bytes));
    printf(", bytes of %zu bytes\n", size);
    EXPECT(cudaMemcpyToSymbol(coefficients, host_coefficients, 17 * sizeof(float)) == cudaErrorInvalidValue,
           "a copy beyond the end of a symbol was accepted");
    cudaGetLastError();
    CHECK(cudaFree(device_x));
    CHECK(cudaFree(device_y));
    CHECK(cudaFree(device_out));
    CHECK(cudaFree(heap));
    return pass();
}
