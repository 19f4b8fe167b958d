// Kernel parameters of every shape: structures by value with odd sizes and alignments, templates, many, large.
#include <cstdint>

#include "check.h"

struct Three {
    unsigned char b[3];
};
struct Mixed {
    char c;
    double d;
    short s;
};
struct __align__(16) Aligned {
    float x, y, z;
};
struct Nested {
    Three three;
    Mixed mixed;
    uint16_t tail;
};
struct Empty {};
#pragma pack(push, 1)
struct Packed {
    char c;
    int i;
    char d;
};
#pragma pack(pop)
template <int N> struct Block {
    int words[N];
};
struct Bits {
    unsigned a : 3;
    unsigned b : 13;
    unsigned long long c : 40;
};

__global__ void odd_structs(Three three, Mixed mixed, char c, Aligned aligned, Nested nested, bool flag, Empty, Packed packed,
                            Bits bits, double *out) {
    out[0] = three.b[0] + three.b[1] * 256.0 + three.b[2] * 65536.0;
    out[1] = mixed.c + mixed.d + mixed.s;
    out[2] = c;
    out[3] = aligned.x + aligned.y * 10 + aligned.z * 100;
    out[4] = nested.three.b[2] + nested.mixed.d + nested.tail;
    out[5] = flag ? 1 : 0;
    out[6] = packed.c + packed.i + packed.d;
    out[7] = bits.a + bits.b * 8.0 + static_cast<double>(bits.c);
    out[8] = sizeof(Three) * 1e6 + sizeof(Nested) * 1e3 + sizeof(Packed);
}

// Parameters are copied at the launch, and may be changed and indexed by the kernel.
template <int N> __global__ void large(Block<N> block, int index, long long *out) {
    long long sum = 0;
    for (int i = 0; i < N; i++)
        sum += static_cast<long long>(block.words[i]) * (i + 1);
    block.words[index] = -5;
    out[0] = sum;
    out[1] = block.words[(index + N) % N] + block.words[N - 1];
}

template <typename T> __global__ void axpy(T a, const T *x, T *y, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        y[i] = a * x[i] + y[i];
}

struct Functor {
    int factor;
    __device__ int operator()(int x) const { return x * factor + 1; }
};
template <typename F> __global__ void apply(F f, int *values, int count) {
    int i = threadIdx.x;
    if (i < count)
        values[i] = f(values[i]);
}

__global__ void many(int a, char b, short c, long long d, float e, double f, unsigned char g, int *h, int i, int j, int k,
                     int l, int m, int n, int o, int p, int q, int r, double *out) {
    *out = a + b + c + d + e + f + g + *h + i + j + k + l + m + n + o + p + q + r;
}

template <typename T> void run_axpy(const char *type) {
    const int count = 100;
    T x[count], y[count], result[count], *device_x, *device_y;
    for (int i = 0; i < count; i++) {
        x[i] = T(i);
        y[i] = T(2 * i + 1);
    }
    CHECK(cudaMalloc(&device_x, sizeof(x)));
    CHECK(cudaMalloc(&device_y, sizeof(y)));
    CHECK(cudaMemcpy(device_x, x, sizeof(x), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_y, y, sizeof(y), cudaMemcpyHostToDevice));
    axpy<T><<<4, 32>>>(T(3), device_x, device_y, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(result, device_y, sizeof(result), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++)
        EXPECT(result[i] == T(T(3) * x[i] + y[i]), "axpy<%s> element %d", type, i);
    CHECK(cudaFree(device_x));
    CHECK(cudaFree(device_y));
    printf("struct_params: axpy<%s>: equal\n", type);
}

template <int N> void run_large() {
    Block<N> block;
    long long expected = 0, result[2], *out;
    for (int i = 0; i < N; i++) {
        block.words[i] = i * 7 - 100;
        expected += static_cast<long long>(block.words[i]) * (i + 1);
    }
    CHECK(cudaMalloc(&out, sizeof(result)));
    large<N><<<1, 1>>>(block, 1, out);
    int last = block.words[N - 1];
    // The kernel must not see this.
    memset(&block, 0xff, sizeof(block));
    CHECK_KERNEL();
    CHECK(cudaMemcpy(result, out, sizeof(result), cudaMemcpyDeviceToHost));
    EXPECT(result[0] == expected, "%lld, not %lld", result[0], expected);
    EXPECT(result[1] == -5 + last, "%lld, not %d", result[1], -5 + last);
    CHECK(cudaFree(out));
    printf("struct_params: structure of %zu bytes: equal\n", sizeof(block));
}

int main() {
    double out[9], *device_out;
    CHECK(cudaMalloc(&device_out, sizeof(out)));
    Three three = {{1, 2, 3}};
    Mixed mixed = {-4, 0.25, 300};
    Aligned aligned = {1, 2, 3};
    Nested nested = {{{9, 9, 6}}, {0, 0.5, 0}, 65535};
    Packed packed = {1, -100000, 2};
    Bits bits = {5, 4097, 0x9876543210ULL};
    odd_structs<<<1, 1>>>(three, mixed, 'z', aligned, nested, true, Empty(), packed, bits, device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out, device_out, sizeof(out), cudaMemcpyDeviceToHost));
    for (double value : out)
        printf("%.10g ", value);
    printf("\n");
    EXPECT(out[0] == 197121 && out[1] == 296.25 && out[2] == 'z' && out[3] == 321 && out[4] == 65541.5 && out[5] == 1 &&
               out[6] == -99997 && out[7] == 5 + 4097 * 8.0 + 0x9876543210ULL &&
               out[8] == sizeof(Three) * 1e6 + sizeof(Nested) * 1e3 + sizeof(Packed),
           "structures arrive wrongly");

    run_axpy<int>("int");
    run_axpy<float>("float");
    run_axpy<double>("double");
    run_axpy<short>("short");
    run_axpy<unsigned char>("unsigned char");
    run_axpy<long long>("long long");
    run_large<3>();
    run_large<80>();
    run_large<1000>();

    int values[32], *device_values;
    for (int i = 0; i < 32; i++)
        values[i] = i;
    CHECK(cudaMalloc(&device_values, sizeof(values)));
    CHECK(cudaMemcpy(device_values, values, sizeof(values), cudaMemcpyHostToDevice));
    Functor functor = {6};
    apply<<<1, 32>>>(functor, device_values, 32);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(values, device_values, sizeof(values), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; i++)
        EXPECT(values[i] == i * 6 + 1, "functor element %d: %d", i, values[i]);
    printf("struct_params: functor: equal\n");

    many<<<1, 1>>>(1, 2, 3, 1LL << 40, 0.5f, 0.25, 200, device_values, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, device_out);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out, device_out, sizeof(double), cudaMemcpyDeviceToHost));
    printf("struct_params: 19 parameters: %.2f\n", out[0]);
    // As in the kernel: a 64-bit integer and a float make a float, which swallows the small numbers.
    EXPECT(out[0] == 1 + 2 + 3 + (1LL << 40) + 0.5f + 0.25 + 200 + 1 + 135, "%f", out[0]);
    CHECK(cudaFree(device_values));
    CHECK(cudaFree(device_out));
    return pass();
}
