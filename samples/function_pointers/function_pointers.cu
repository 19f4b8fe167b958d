// Indirect calls on the device: tables of function pointers, pointers passed from the host, virtual functions.
#include <new>

#include "check.h"

typedef int (*Operation)(int, int);

__device__ __noinline__ int add(int a, int b) { return a + b; }
__device__ __noinline__ int subtract(int a, int b) { return a - b; }
__device__ __noinline__ int multiply(int a, int b) { return a * b; }
__device__ __noinline__ int power(int a, int b) {
    unsigned result = 1;
    for (int i = 0; i < b; i++)
        result *= static_cast<unsigned>(a);
    return static_cast<int>(result);
}

__device__ Operation table[4] = {add, subtract, multiply, power};
__device__ Operation chosen = multiply;

// Neighbouring threads call different functions.
__global__ void by_table(int *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        out[i] = table[i % 4](i, i % 5);
}

__global__ void by_argument(Operation operation, int *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        out[i] = operation(i, 3);
}

__global__ void rewrite_table() {
    table[0] = power;
    table[3] = add;
}

// Recursion needs a real call stack.
__device__ __noinline__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
__global__ void recursive(int *out) { out[threadIdx.x] = fibonacci(threadIdx.x); }

struct Shape {
    __device__ virtual float area() const = 0;
    __device__ virtual int sides() const { return 0; }
    __device__ virtual ~Shape() {}
};
struct Square : Shape {
    float side;
    __device__ explicit Square(float side) : side(side) {}
    __device__ float area() const override { return side * side; }
    __device__ int sides() const override { return 4; }
};
struct Circle : Shape {
    float radius;
    __device__ explicit Circle(float radius) : radius(radius) {}
    __device__ float area() const override { return 3.0f * radius * radius; }
};

const int SLOT = 32;

__global__ void construct(char *storage, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    if (i % 2)
        new (storage + i * SLOT) Square(static_cast<float>(i));
    else
        new (storage + i * SLOT) Circle(static_cast<float>(i));
}

// In another launch than the construction: the tables of virtual functions stay valid.
__global__ void measure(char *storage, float *areas, int *sides, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const Shape *shape = reinterpret_cast<const Shape *>(storage + i * SLOT);
    areas[i] = shape->area();
    sides[i] = shape->sides();
}

int host_operation(int which, int a, int b) {
    unsigned result = 1;
    switch (which) {
    case 0:
        return a + b;
    case 1:
        return a - b;
    case 2:
        return a * b;
    }
    for (int i = 0; i < b; i++)
        result *= static_cast<unsigned>(a);
    return static_cast<int>(result);
}

int main() {
    const int count = 1000;
    int result[count], *out;
    CHECK(cudaMalloc(&out, sizeof(result)));
    for (int round = 0; round < 2; round++) {
        by_table<<<(count + 63) / 64, 64>>>(out, count);
        CHECK_KERNEL();
        CHECK(cudaMemcpy(result, out, sizeof(result), cudaMemcpyDeviceToHost));
        const int order[2][4] = {{0, 1, 2, 3}, {3, 1, 2, 0}};
        for (int i = 0; i < count; i++)
            EXPECT(result[i] == host_operation(order[round][i % 4], i, i % 5), "round %d, %d: %d", round, i, result[i]);
        rewrite_table<<<1, 1>>>();
    }
    printf("function_pointers: table of 4 functions, then rewritten: equal\n");

    Operation operation = nullptr;
    CHECK(cudaMemcpyFromSymbol(&operation, chosen, sizeof(operation)));
    EXPECT(operation != nullptr, "null function pointer");
    by_argument<<<(count + 63) / 64, 64>>>(operation, out, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(result, out, sizeof(result), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++)
        EXPECT(result[i] == i * 3, "%d: %d", i, result[i]);
    printf("function_pointers: pointer passed through the host: equal\n");

    recursive<<<1, 16>>>(out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(result, out, sizeof(result), cudaMemcpyDeviceToHost));
    printf("function_pointers: fibonacci(15) = %d\n", result[15]);
    EXPECT(result[15] == 610 && result[1] == 1, "%d", result[15]);

    char *storage;
    float areas[100], *device_areas;
    int sides[100], *device_sides;
    CHECK(cudaMalloc(&storage, 100 * SLOT));
    CHECK(cudaMalloc(&device_areas, sizeof(areas)));
    CHECK(cudaMalloc(&device_sides, sizeof(sides)));
    construct<<<4, 32>>>(storage, 100);
    measure<<<4, 32>>>(storage, device_areas, device_sides, 100);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(areas, device_areas, sizeof(areas), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(sides, device_sides, sizeof(sides), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 100; i++) {
        EXPECT(areas[i] == (i % 2 ? 1.0f : 3.0f) * i * i, "area %d: %g", i, areas[i]);
        EXPECT(sides[i] == (i % 2 ? 4 : 0), "sides %d: %d", i, sides[i]);
    }
    printf("function_pointers: virtual functions of 100 objects: equal\n");
    CHECK(cudaFree(out));
    CHECK(cudaFree(storage));
    CHECK(cudaFree(device_areas));
    CHECK(cudaFree(device_sides));
    return pass();
}
