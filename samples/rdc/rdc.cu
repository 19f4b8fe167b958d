// Relocatable device code: this file calls a function and uses variables of rdc_device.cu.
#include "check.h"
#include "rdc.h"

// The same name as in the other file, on purpose: each file has its own.
static __device__ int local_state = 100;
static __device__ __noinline__ int helper(int x) { return x + local_state; }

__global__ void use_other_file(const int *in, int *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        out[i] = mix(in[i], shared_table[i % 8]) + helper(0) + scaled<3>(i);
        atomicAdd(&shared_counter, 1);
    }
}

__global__ void call_through_pointer(int *out) { out[threadIdx.x] = shared_operation(threadIdx.x); }

int main() {
    const int count = 500;
    int in[count], out[count], *device_in, *device_out;
    Lcg random(9);
    for (int &x : in)
        x = static_cast<int>(random.next() % 1000);
    CHECK(cudaMalloc(&device_in, sizeof(in)));
    CHECK(cudaMalloc(&device_out, sizeof(out)));
    CHECK(cudaMemcpy(device_in, in, sizeof(in), cudaMemcpyHostToDevice));
    int factors[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    CHECK(cudaMemcpyToSymbol(shared_table, factors, sizeof(factors)));

    use_other_file<<<4, 128>>>(device_in, device_out, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out, device_out, sizeof(out), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++) {
        // 7000: local_state of the other file, which mix adds.
        int expected = in[i] * factors[i % 8] + 7000 + 100 + 3 * i;
        EXPECT(out[i] == expected, "element %d: %d, not %d", i, out[i], expected);
    }
    int counter = 0;
    CHECK(cudaMemcpyFromSymbol(&counter, shared_counter, sizeof(counter)));
    printf("rdc: %d elements, counter %d\n", count, counter);
    EXPECT(counter == 1000 + count, "counter %d", counter);

    call_through_pointer<<<1, 8>>>(device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out, device_out, 8 * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 8; i++)
        EXPECT(out[i] == i * i + 1, "through a pointer: %d", out[i]);
    printf("rdc: function pointer of the other file: equal\n");

    int bumped = launch_in_other_file(5);
    printf("rdc: kernel of the other file: %d\n", bumped);
    EXPECT(bumped == 1000 + count + 5, "%d", bumped);
    CHECK(cudaFree(device_in));
    CHECK(cudaFree(device_out));
    return pass();
}
