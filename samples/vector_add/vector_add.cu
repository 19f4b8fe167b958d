// Adds two vectors: the smallest complete program of the runtime API.
#include <vector>

#include "check.h"

__global__ void vector_add(const float *a, const float *b, float *sum, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        sum[i] = a[i] + b[i];
}

int main() {
    const int count = 1 << 20;
    const size_t bytes = count * sizeof(float);
    std::vector<float> a(count), b(count), sum(count, -1.0f);
    Lcg random(1);
    for (int i = 0; i < count; i++) {
        a[i] = random.next_float();
        b[i] = random.next_float() * 100.0f;
    }

    float *device_a, *device_b, *device_sum;
    CHECK(cudaMalloc(&device_a, bytes));
    CHECK(cudaMalloc(&device_b, bytes));
    CHECK(cudaMalloc(&device_sum, bytes));
    CHECK(cudaMemcpy(device_a, a.data(), bytes, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_b, b.data(), bytes, cudaMemcpyHostToDevice));

    const int threads = 256;
    vector_add<<<(count + threads - 1) / threads, threads>>>(device_a, device_b, device_sum, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(sum.data(), device_sum, bytes, cudaMemcpyDeviceToHost));

    float max_error = 0.0f;
    for (int i = 0; i < count; i++)
        max_error = std::fmax(max_error, std::fabs(sum[i] - (a[i] + b[i])));
    CHECK(cudaFree(device_a));
    CHECK(cudaFree(device_b));
    CHECK(cudaFree(device_sum));

    printf("vector_add: %d elements, max error %g\n", count, max_error);
    EXPECT(max_error == 0.0f, "max error %g", max_error);
    return pass();
}
