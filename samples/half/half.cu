// Half precision: conversions, arithmetic, pairs, comparisons, atomics.
#include <cstdint>
#include <vector>

#include <cuda_fp16.h>

#include "check.h"

const int OPERATIONS = 8;

// Each result is stored on its own: nothing can be fused.
__global__ void arithmetic(const __half *a, const __half *b, const __half *c, __half *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    out[0 * count + i] = __hadd(a[i], b[i]);
    out[1 * count + i] = __hsub(a[i], b[i]);
    out[2 * count + i] = __hmul(a[i], b[i]);
    out[3 * count + i] = __hfma(a[i], b[i], c[i]);
    out[4 * count + i] = __hneg(a[i]);
    out[5 * count + i] = __habs(b[i]);
    out[6 * count + i] = __hmax(a[i], b[i]);
    out[7 * count + i] = __hmin(a[i], b[i]);
}

__global__ void pairs(const __half2 *a, const __half2 *b, __half2 *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    __half2 scale = __float2half2_rn(0.5f);
    __half2 sum = __hadd2(a[i], b[i]);
    out[i] = __hfma2(sum, scale, __lows2half2(b[i], a[i]));
}

__global__ void compare(const __half *a, const __half *b, unsigned *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    unsigned bits = 0;
    bits |= __heq(a[i], b[i]) ? 1 : 0;
    bits |= __hne(a[i], b[i]) ? 2 : 0;
    bits |= __hlt(a[i], b[i]) ? 4 : 0;
    bits |= __hge(a[i], b[i]) ? 8 : 0;
    bits |= __hisnan(a[i]) ? 16 : 0;
    bits |= a[i] > b[i] ? 32 : 0;
    out[i] = bits;
}

__global__ void convert(const float *in, __half *nearest, __half *zero, __half *up, __half *down, float *back, int *integer,
                        int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    nearest[i] = __float2half_rn(in[i]);
    zero[i] = __float2half_rz(in[i]);
    up[i] = __float2half_ru(in[i]);
    down[i] = __float2half_rd(in[i]);
    back[i] = __half2float(nearest[i]);
    integer[i] = __half2int_rn(nearest[i]);
}

// Sums all halves with fp32 accumulation and shuffles.
__global__ void dot(const __half2 *a, const __half2 *b, float *out, int count) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        float2 x = __half22float2(a[i]), y = __half22float2(b[i]);
        sum = fmaf(x.x, y.x, sum);
        sum = fmaf(x.y, y.y, sum);
    }
    for (int offset = 16; offset > 0; offset /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (threadIdx.x == 0)
        *out = sum;
}

__global__ void count_up(__half *sum, __half2 *pair) {
    atomicAdd(sum, __float2half(1.0f));
    atomicAdd(pair, __floats2half2_rn(0.5f, 2.0f));
}

uint16_t bits_of(__half value) {
    uint16_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

// The value of a half, exactly: sign, exponent and fraction spelled out rather than taken from the header under test.
double value_of(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                       : exponent == 31 ? (fraction ? NAN : INFINITY)
                                        : std::ldexp(1024 + fraction, exponent - 25);
    return bits >> 15 ? -magnitude : magnitude;
}

// Rounds a double to half, to nearest even.
uint16_t round_to_half(double value) {
    uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    double magnitude = std::fabs(value);
    if (std::isnan(value))
        return 0x7fff;
    if (magnitude >= 65520.0)
        return sign | 0x7c00;
    int exponent;
    std::frexp(magnitude, &exponent);
    int scale = magnitude < 6.103515625e-05 ? -24 : exponent - 11;
    double units = std::nearbyint(std::ldexp(magnitude, -scale));
    double rounded = std::ldexp(units, scale);
    if (rounded >= 65536.0)
        return sign | 0x7c00;
    if (rounded < 6.103515625e-05)
        return sign | static_cast<uint16_t>(std::ldexp(rounded, 24));
    std::frexp(rounded, &exponent);
    return sign | static_cast<uint16_t>((exponent + 14) << 10) | static_cast<uint16_t>(std::ldexp(rounded, 11 - exponent) - 1024);
}

bool same(uint16_t a, uint16_t b) {
    bool a_nan = (a & 0x7fff) > 0x7c00, b_nan = (b & 0x7fff) > 0x7c00;
    return a_nan || b_nan ? a_nan && b_nan : a == b;
}

int main() {
    const int count = 4096;
    std::vector<__half> a(count), b(count), c(count), out(OPERATIONS * count);
    Lcg random(21);
    for (int i = 0; i < count; i++) {
        uint16_t bits[3];
        for (uint16_t &value : bits) {
            value = static_cast<uint16_t>(random.next());
            // Mostly moderate numbers, sometimes anything at all: infinities, NaNs, subnormals.
            if (i % 8 != 0)
                value = (value & 0x83ff) | ((10 + (value >> 10) % 11) << 10);
        }
        memcpy(static_cast<void *>(&a[i]), &bits[0], 2);
        memcpy(static_cast<void *>(&b[i]), &bits[1], 2);
        memcpy(static_cast<void *>(&c[i]), &bits[2], 2);
    }
    __half *device_a, *device_b, *device_c, *device_out;
    CHECK(cudaMalloc(&device_a, count * sizeof(__half)));
    CHECK(cudaMalloc(&device_b, count * sizeof(__half)));
    CHECK(cudaMalloc(&device_c, count * sizeof(__half)));
    CHECK(cudaMalloc(&device_out, OPERATIONS * count * sizeof(__half)));
    CHECK(cudaMemcpy(device_a, a.data(), count * sizeof(__half), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_b, b.data(), count * sizeof(__half), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_c, c.data(), count * sizeof(__half), cudaMemcpyHostToDevice));

    arithmetic<<<count / 128, 128>>>(device_a, device_b, device_c, device_out, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, OPERATIONS * count * sizeof(__half), cudaMemcpyDeviceToHost));
    const char *names[OPERATIONS] = {"add", "subtract", "multiply", "fma", "negate", "abs", "max", "min"};
    for (int op = 0; op < OPERATIONS; op++) {
        for (int i = 0; i < count; i++) {
            double x = value_of(bits_of(a[i])), y = value_of(bits_of(b[i])), z = value_of(bits_of(c[i]));
            uint16_t expected = 0;
            switch (op) {
            case 0:
                expected = round_to_half(x + y);
                break;
            case 1:
                expected = round_to_half(x - y);
                break;
            case 2:
                expected = round_to_half(x * y);
                break;
            case 3: {
                // The product is exact in a double; adding with the error term avoids rounding twice.
                double product = x * y, sum = product + z, part = sum - product;
                double error = (product - (sum - part)) + (z - part);
                if (std::isfinite(sum) && error != 0)
                    sum = std::nextafter(sum, error > 0 ? INFINITY : -INFINITY);
                expected = round_to_half(sum);
                break;
            }
            case 4:
                expected = bits_of(a[i]) ^ 0x8000;
                break;
            case 5:
                expected = bits_of(b[i]) & 0x7fff;
                break;
            case 6:
                expected = std::isnan(x) ? bits_of(b[i]) : std::isnan(y) || x > y ? bits_of(a[i]) : bits_of(b[i]);
                break;
            case 7:
                expected = std::isnan(x) ? bits_of(b[i]) : std::isnan(y) || x < y ? bits_of(a[i]) : bits_of(b[i]);
                break;
            }
            uint16_t have = bits_of(out[op * count + i]);
            EXPECT(same(have, expected), "%s of %g, %g, %g: %#x, not %#x", names[op], x, y, z, have, expected);
        }
    }
    printf("half: %d operations on %d numbers: equal\n", OPERATIONS, count);

    pairs<<<count / 256, 128>>>(reinterpret_cast<__half2 *>(device_a), reinterpret_cast<__half2 *>(device_b),
                                reinterpret_cast<__half2 *>(device_out), count / 2);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, count * sizeof(__half), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++) {
        double sum = value_of(round_to_half(value_of(bits_of(a[i])) + value_of(bits_of(b[i]))));
        double addend = value_of(i % 2 == 0 ? bits_of(b[i]) : bits_of(a[i - 1]));
        uint16_t expected = round_to_half(sum * 0.5 + addend), have = bits_of(out[i]);
        EXPECT(same(have, expected), "pair element %d: %#x, not %#x", i, have, expected);
    }
    printf("half: pairs: equal\n");

    unsigned *device_bits;
    std::vector<unsigned> bits(count);
    CHECK(cudaMalloc(&device_bits, count * sizeof(unsigned)));
    compare<<<count / 128, 128>>>(device_a, device_b, device_bits, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(bits.data(), device_bits, count * sizeof(unsigned), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++) {
        double x = value_of(bits_of(a[i])), y = value_of(bits_of(b[i]));
        // __hne is an ordered comparison: false if either is not a number.
        bool unordered = std::isnan(x) || std::isnan(y);
        unsigned expected = (x == y ? 1 : 0) | (!unordered && x != y ? 2 : 0) | (x < y ? 4 : 0) | (x >= y ? 8 : 0) |
                            (std::isnan(x) ? 16 : 0) | (x > y ? 32 : 0);
        EXPECT(bits[i] == expected, "comparison of %g and %g: %#x, not %#x", x, y, bits[i], expected);
    }
    printf("half: comparisons: equal\n");

    std::vector<float> floats(count), back(count);
    std::vector<int> integers(count);
    for (int i = 0; i < count; i++)
        floats[i] = std::ldexp(random.next_float() - 0.5f, static_cast<int>(random.next() % 45) - 27);
    float *device_in, *device_back;
    int *device_int;
    CHECK(cudaMalloc(&device_in, count * sizeof(float)));
    CHECK(cudaMalloc(&device_back, count * sizeof(float)));
    CHECK(cudaMalloc(&device_int, count * sizeof(int)));
    CHECK(cudaMemcpy(device_in, floats.data(), count * sizeof(float), cudaMemcpyHostToDevice));
    convert<<<count / 128, 128>>>(device_in, device_out, device_out + count, device_out + 2 * count, device_out + 3 * count,
                                  device_back, device_int, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, 4 * count * sizeof(__half), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(back.data(), device_back, count * sizeof(float), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(integers.data(), device_int, count * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++) {
        double x = floats[i];
        uint16_t nearest = round_to_half(x);
        EXPECT(bits_of(out[i]) == nearest, "%g to nearest: %#x, not %#x", x, bits_of(out[i]), nearest);
        double zero = value_of(bits_of(out[count + i])), up = value_of(bits_of(out[2 * count + i])),
               down = value_of(bits_of(out[3 * count + i]));
        EXPECT(down <= x && x <= up, "%g is not between %g and %g", x, down, up);
        EXPECT(zero == (x < 0 ? up : down), "%g towards zero: %g", x, zero);
        EXPECT(value_of(nearest) == up || value_of(nearest) == down, "%g: %g is neither %g nor %g", x, value_of(nearest), up, down);
        EXPECT(back[i] == static_cast<float>(value_of(nearest)), "%g back: %g", x, back[i]);
        if (std::isfinite(value_of(nearest)))
            EXPECT(integers[i] == static_cast<int>(std::nearbyint(value_of(nearest))), "%g to integer: %d", x, integers[i]);
    }
    printf("half: conversions with 4 roundings: equal\n");

    for (int i = 0; i < count; i++) {
        a[i] = __float2half(static_cast<float>(i % 17) - 5.0f);
        b[i] = __float2half(static_cast<float>(i % 3) * 0.25f);
    }
    CHECK(cudaMemcpy(device_a, a.data(), count * sizeof(__half), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_b, b.data(), count * sizeof(__half), cudaMemcpyHostToDevice));
    dot<<<1, 32>>>(reinterpret_cast<__half2 *>(device_a), reinterpret_cast<__half2 *>(device_b), device_back, count / 2);
    CHECK_KERNEL();
    float result = 0, expected = 0;
    CHECK(cudaMemcpy(&result, device_back, sizeof(result), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++)
        expected += (static_cast<float>(i % 17) - 5.0f) * (static_cast<float>(i % 3) * 0.25f);
    EXPECT(result == expected, "%g, not %g", result, expected);
    printf("half: dot product %g\n", result);

    CHECK(cudaMemset(device_out, 0, 8));
    count_up<<<4, 64>>>(device_out, reinterpret_cast<__half2 *>(device_out + 2));
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, 8, cudaMemcpyDeviceToHost));
    printf("half: atomic sums %g, %g, %g\n", value_of(bits_of(out[0])), value_of(bits_of(out[2])), value_of(bits_of(out[3])));
    EXPECT(value_of(bits_of(out[1])) == 0, "the neighbour of an atomic changed");
    CHECK(cudaFree(device_a));
    CHECK(cudaFree(device_b));
    CHECK(cudaFree(device_c));
    CHECK(cudaFree(device_out));
    CHECK(cudaFree(device_bits));
    CHECK(cudaFree(device_in));
    CHECK(cudaFree(device_back));
    CHECK(cudaFree(device_int));
    return pass();
}
