// Integer intrinsics (exact), conversions (exact), and mathematical functions against the host's, in units in the last place.
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"

typedef unsigned long long u64;
typedef long long i64;

__host__ __device__ inline u64 spread(unsigned i) {
    u64 x = (i + 1) * 0x9E3779B97F4A7C15ULL;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9ULL;
    x ^= x >> 32;
    // Small numbers, all ones and single bits too.
    return i % 16 == 0 ? x >> 58 : i % 16 == 1 ? ~(x >> 60) : i % 16 == 2 ? 1ULL << (x >> 58) : x;
}

const int INTEGER_RESULTS = 40;

__global__ void integers(u64 *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    u64 a = spread(i), b = spread(i + 1000003);
    unsigned x = static_cast<unsigned>(a), y = static_cast<unsigned>(b >> 7);
    int sx = static_cast<int>(x), sy = static_cast<int>(y);
    i64 sa = static_cast<i64>(a), sb = static_cast<i64>(b);
    u64 *r = out + static_cast<size_t>(i) * INTEGER_RESULTS;
    r[0] = __popc(x);
    r[1] = __popcll(a);
    r[2] = __clz(sx);
    r[3] = __clzll(sa);
    r[4] = __brev(x);
    r[5] = __brevll(a);
    r[6] = __ffs(sx);
    r[7] = __ffsll(sa);
    r[8] = __byte_perm(x, y, y >> 9);
    r[9] = __umulhi(x, y);
    r[10] = static_cast<unsigned>(__mulhi(sx, sy));
    r[11] = __umul64hi(a, b);
    r[12] = static_cast<u64>(__mul64hi(sa, sb));
    r[13] = b ? a / b : 0;
    r[14] = b ? a % b : 0;
    r[15] = static_cast<u64>(sb && sb != -1 ? sa / sb : 0);
    r[16] = static_cast<u64>(sb && sb != -1 ? sa % sb : 0);
    r[17] = y ? x / y : 0;
    r[18] = y ? x % y : 0;
    r[19] = static_cast<unsigned>(sy && sy != -1 ? sx / sy : 0);
    r[20] = __sad(sx, sy, x);
    r[21] = __usad(x, y, y);
    r[22] = __funnelshift_l(x, y, i);
    r[23] = __funnelshift_r(x, y, i);
    r[24] = __umul24(x, y);
    r[25] = static_cast<unsigned>(__mul24(sx, sy));
    r[26] = static_cast<unsigned>(__hadd(sx, sy));
    r[27] = __urhadd(x, y);
    r[28] = __dp4a(x, y, 17u);
    r[29] = a << (i % 64);
    r[30] = static_cast<u64>(sa >> (i % 64));
    r[31] = __vadd4(x, y);
    r[32] = __vabsdiffu4(x, y);
    r[33] = static_cast<u64>(static_cast<int8_t>(x)) ^ static_cast<uint16_t>(y);
    r[34] = min(sa, sb) ^ max(a, b);
    r[35] = static_cast<u64>(abs(sx == INT32_MIN ? 0 : sx));
    r[36] = x * 0x85ebca6bu + a * 0xC2B2AE3D27D4EB4FULL;
    r[37] = static_cast<u64>(__vcmpgts2(x, y));
    r[38] = a > b ? 1 : sa > sb ? 2 : 3;
    r[39] = ((x >> 5) & 0x3ff) | ((y << 7) & 0xfff80);
}

u64 reverse_bits(u64 x, int bits) {
    u64 result = 0;
    for (int i = 0; i < bits; i++)
        if (x >> i & 1)
            result |= 1ULL << (bits - 1 - i);
    return result;
}

void integer_reference(int i, u64 *r) {
    u64 a = spread(i), b = spread(i + 1000003);
    unsigned x = static_cast<unsigned>(a), y = static_cast<unsigned>(b >> 7);
    int sx = static_cast<int>(x), sy = static_cast<int>(y);
    i64 sa = static_cast<i64>(a), sb = static_cast<i64>(b);
    auto byte = [](unsigned v, int k) { return static_cast<int>(v >> (8 * k) & 0xff); };
    r[0] = __builtin_popcount(x);
    r[1] = __builtin_popcountll(a);
    r[2] = x ? __builtin_clz(x) : 32;
    r[3] = a ? __builtin_clzll(a) : 64;
    r[4] = reverse_bits(x, 32);
    r[5] = reverse_bits(a, 64);
    r[6] = __builtin_ffs(sx);
    r[7] = __builtin_ffsll(sa);
    unsigned permuted = 0;
    for (int k = 0; k < 4; k++) {
        int selector = (y >> 9) >> (4 * k) & 7;
        permuted |= static_cast<unsigned>(selector < 4 ? byte(x, selector) : byte(y, selector - 4)) << (8 * k);
    }
    r[8] = permuted;
    r[9] = static_cast<u64>(x) * y >> 32;
    r[10] = static_cast<unsigned>(static_cast<i64>(sx) * sy >> 32);
    r[11] = static_cast<u64>(static_cast<unsigned __int128>(a) * b >> 64);
    r[12] = static_cast<u64>(static_cast<__int128>(sa) * sb >> 64);
    r[13] = b ? a / b : 0;
    r[14] = b ? a % b : 0;
    r[15] = static_cast<u64>(sb && sb != -1 ? sa / sb : 0);
    r[16] = static_cast<u64>(sb && sb != -1 ? sa % sb : 0);
    r[17] = y ? x / y : 0;
    r[18] = y ? x % y : 0;
    r[19] = static_cast<unsigned>(sy && sy != -1 ? sx / sy : 0);
    r[20] = static_cast<unsigned>(static_cast<i64>(sx) > sy ? static_cast<i64>(sx) - sy : static_cast<i64>(sy) - sx) + x;
    r[20] &= 0xffffffffu;
    r[21] = ((x > y ? x - y : y - x) + y) & 0xffffffffu;
    u64 joined = static_cast<u64>(y) << 32 | x;
    r[22] = joined << (i & 31) >> 32;
    r[23] = joined >> (i & 31) & 0xffffffffu;
    r[24] = (x & 0xffffffu) * (y & 0xffffffu);
    i64 low_x = static_cast<i64>(static_cast<u64>(x) << 40) >> 40, low_y = static_cast<i64>(static_cast<u64>(y) << 40) >> 40;
    r[25] = static_cast<unsigned>(low_x * low_y);
    r[26] = static_cast<unsigned>((static_cast<i64>(sx) + sy) >> 1);
    r[27] = (static_cast<u64>(x) + y + 1) >> 1;
    unsigned dot = 17, sums = 0, differences = 0;
    for (int k = 0; k < 4; k++) {
        dot += byte(x, k) * byte(y, k);
        sums |= static_cast<unsigned>((byte(x, k) + byte(y, k)) & 0xff) << (8 * k);
        differences |= static_cast<unsigned>(std::abs(byte(x, k) - byte(y, k))) << (8 * k);
    }
    r[28] = dot;
    r[29] = a << (i % 64);
    r[30] = static_cast<u64>(sa >> (i % 64));
    r[31] = sums;
    r[32] = differences;
    r[33] = static_cast<u64>(static_cast<int8_t>(x)) ^ static_cast<uint16_t>(y);
    r[34] = static_cast<u64>(sa < sb ? sa : sb) ^ (a > b ? a : b);
    r[35] = sx == INT32_MIN ? 0 : std::abs(sx);
    r[36] = x * 0x85ebca6bu + a * 0xC2B2AE3D27D4EB4FULL;
    unsigned compared = 0;
    if (static_cast<int16_t>(x) > static_cast<int16_t>(y))
        compared |= 0xffffu;
    if (static_cast<int16_t>(x >> 16) > static_cast<int16_t>(y >> 16))
        compared |= 0xffff0000u;
    r[37] = compared;
    r[38] = a > b ? 1 : sa > sb ? 2 : 3;
    r[39] = ((x >> 5) & 0x3ff) | ((y << 7) & 0xfff80);
}

const int CONVERSIONS = 20;

__global__ void conversions(const double *in, u64 *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    double d = in[i];
    float f = static_cast<float>(d);
    u64 *r = out + static_cast<size_t>(i) * CONVERSIONS;
    r[0] = static_cast<unsigned>(__float2int_rn(f));
    r[1] = static_cast<unsigned>(__float2int_rz(f));
    r[2] = static_cast<unsigned>(__float2int_ru(f));
    r[3] = static_cast<unsigned>(__float2int_rd(f));
    r[4] = __float2uint_rn(f);
    r[5] = static_cast<u64>(__double2ll_rn(d));
    r[6] = static_cast<u64>(__double2ll_rz(d));
    r[7] = __double2ull_rd(d);
    r[8] = __float_as_uint(f);
    r[9] = __float_as_uint(__double2float_rz(d));
    r[10] = __float_as_uint(__int2float_rn(static_cast<int>(spread(i))));
    r[11] = __float_as_uint(__ull2float_rn(spread(i)));
    r[12] = __double_as_longlong(__ull2double_rn(spread(i)));
    r[13] = __double_as_longlong(__ll2double_rn(static_cast<i64>(spread(i))));
    r[14] = __float_as_uint(truncf(f)) ^ __float_as_uint(rintf(f));
    r[15] = __float_as_uint(floorf(f)) ^ __float_as_uint(ceilf(f));
    r[16] = __double_as_longlong(floor(d)) ^ __double_as_longlong(rint(d));
    r[17] = (isnan(d) ? 1 : 0) | (isinf(d) ? 2 : 0) | (signbit(d) ? 4 : 0) | (isfinite(f) ? 8 : 0);
    r[18] = __float_as_uint(copysignf(1.5f, f)) ^ __float_as_uint(fabsf(f));
    r[19] = __float_as_uint(fminf(f, 3.0f)) ^ __float_as_uint(fmaxf(f, -3.0f));
}

u64 bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
u64 bits(double x) {
    u64 u;
    memcpy(&u, &x, 8);
    return u;
}

// Conversions of the device saturate, and turn what is not a number into 0 (32 bits) or the smallest (64 bits signed).
i64 saturate(double rounded, double low, double high, i64 low_value, i64 high_value) {
    return rounded <= low ? low_value : rounded >= high ? high_value : static_cast<i64>(rounded);
}
u64 to_int(double rounded) {
    if (std::isnan(rounded))
        return 0;
    return static_cast<unsigned>(saturate(rounded, -2147483648.0, 2147483647.0, INT32_MIN, INT32_MAX));
}
u64 to_long(double rounded) {
    if (std::isnan(rounded))
        return 0x8000000000000000ULL;
    return static_cast<u64>(saturate(rounded, -9223372036854775808.0, 9223372036854775808.0, INT64_MIN, INT64_MAX));
}

void conversion_reference(int i, double d, u64 *r) {
    float f = static_cast<float>(d);
    r[0] = to_int(std::nearbyint(f));
    r[1] = to_int(std::trunc(f));
    r[2] = to_int(std::ceil(f));
    r[3] = to_int(std::floor(f));
    double rounded = std::nearbyint(f);
    r[4] = std::isnan(f) || rounded <= 0 ? 0 : rounded >= 4294967295.0 ? 0xffffffffu : static_cast<u64>(rounded);
    r[5] = to_long(std::nearbyint(d));
    r[6] = to_long(std::trunc(d));
    rounded = std::floor(d);
    r[7] = std::isnan(d) ? 0x8000000000000000ULL
           : rounded <= 0 ? 0
           : rounded >= 18446744073709551616.0 ? ~0ULL
                                               : static_cast<u64>(rounded);
    r[8] = bits(f);
    float towards_zero = f;
    if (std::isinf(f) && std::isfinite(d))
        towards_zero = std::copysign(3.40282347e38f, f);
    else if (std::fabs(static_cast<double>(f)) > std::fabs(d))
        towards_zero = std::nextafter(f, 0.0f);
    r[9] = bits(towards_zero);
    r[10] = bits(static_cast<float>(static_cast<int>(spread(i))));
    r[11] = bits(static_cast<float>(spread(i)));
    r[12] = bits(static_cast<double>(spread(i)));
    r[13] = bits(static_cast<double>(static_cast<i64>(spread(i))));
    r[14] = bits(std::trunc(f)) ^ bits(std::nearbyint(f));
    r[15] = bits(std::floor(f)) ^ bits(std::ceil(f));
    r[16] = bits(std::floor(d)) ^ bits(std::nearbyint(d));
    r[17] = (std::isnan(d) ? 1 : 0) | (std::isinf(d) ? 2 : 0) | (std::signbit(d) ? 4 : 0) | (std::isfinite(f) ? 8 : 0);
    r[18] = bits(std::copysign(1.5f, f)) ^ bits(std::fabs(f));
    r[19] = bits(std::fmin(f, 3.0f)) ^ bits(std::fmax(f, -3.0f));
}

// Functions of one or two arguments: name, argument ranges, largest error in ulp that the programming guide allows.
#define FLOAT_FUNCTIONS(F)                                                                                             \
    F(sqrtf(x), std::sqrt(X), 0, 1000, 0.5)                                                                            \
    F(1.0f / x, 1.0 / X, 0.001, 1000, 0.5)                                                                             \
    F(x / y, X / Y, -1000, 1000, 0.5)                                                                                  \
    F(fmaf(x, y, 1.5f), X *Y + 1.5, -1000, 1000, 0.5)                                                                  \
    F(rsqrtf(x), 1.0 / std::sqrt(X), 0.001, 1000, 2)                                                                   \
    F(cbrtf(x), std::cbrt(X), -1000, 1000, 1)                                                                          \
    F(expf(x), std::exp(X), -50, 50, 2)                                                                                \
    F(exp2f(x), std::exp2(X), -50, 50, 2)                                                                              \
    F(exp10f(x), std::pow(10.0, X), -20, 20, 2)                                                                        \
    F(expm1f(x), std::expm1(X), -5, 5, 1)                                                                              \
    F(logf(x), std::log(X), 0.001, 1000, 1)                                                                            \
    F(log2f(x), std::log2(X), 0.001, 1000, 2)                                                                          \
    F(log10f(x), std::log10(X), 0.001, 1000, 2)                                                                        \
    F(log1pf(x), std::log1p(X), -0.9, 100, 1)                                                                          \
    F(sinf(x), std::sin(X), -100, 100, 2)                                                                              \
    F(cosf(x), std::cos(X), -100, 100, 2)                                                                              \
    F(tanf(x), std::tan(X), -100, 100, 4)                                                                              \
    F(sinf(x * 1e6f), std::sin(static_cast<double>(x * 1e6f)), -100, 100, 2)                                           \
    F(asinf(x), std::asin(X), -1, 1, 4)                                                                                \
    F(acosf(x), std::acos(X), -1, 1, 3)                                                                                \
    F(atanf(x), std::atan(X), -100, 100, 2)                                                                            \
    F(atan2f(x, y), std::atan2(X, Y), -10, 10, 3)                                                                      \
    F(sinhf(x), std::sinh(X), -10, 10, 3)                                                                              \
    F(coshf(x), std::cosh(X), -10, 10, 2)                                                                              \
    F(tanhf(x), std::tanh(X), -10, 10, 2)                                                                              \
    F(asinhf(x), std::asinh(X), -100, 100, 3)                                                                          \
    F(atanhf(x), std::atanh(X), -0.99, 0.99, 3)                                                                        \
    F(powf(fabsf(x), y), std::pow(std::fabs(X), Y), -20, 20, 4)                                                        \
    F(hypotf(x, y), std::hypot(X, Y), -100, 100, 3)                                                                    \
    F(erff(x), std::erf(X), -4, 4, 2)                                                                                  \
    F(erfcf(x), std::erfc(X), -4, 4, 4)                                                                                \
    F(tgammaf(x), std::tgamma(X), 0.1, 20, 5)                                                                          \
    F(fmodf(x, y), std::fmod(X, Y), -1000, 1000, 0)                                                                    \
    F(remainderf(x, y), std::remainder(X, Y), -1000, 1000, 0)                                                          \
    F(ldexpf(x, 5), std::ldexp(X, 5), -1000, 1000, 0)

#define DOUBLE_FUNCTIONS(F)                                                                                            \
    F(sqrt(x), std::sqrt(X), 0, 1000, 0.5)                                                                             \
    F(x / y, X / Y, -1000, 1000, 0.5)                                                                                  \
    F(fma(x, y, 0.1), fma(x, y, 0.1), -1000, 1000, 0)                                                                  \
    F(rsqrt(x), 1.0L / std::sqrt(X), 0.001, 1000, 2)                                                                   \
    F(cbrt(x), std::cbrt(X), -1000, 1000, 2)                                                                           \
    F(exp(x), std::exp(X), -300, 300, 2)                                                                               \
    F(exp2(x), std::exp2(X), -300, 300, 2)                                                                             \
    F(expm1(x), std::expm1(X), -5, 5, 2)                                                                               \
    F(log(x), std::log(X), 0.001, 1000, 2)                                                                             \
    F(log2(x), std::log2(X), 0.001, 1000, 2)                                                                           \
    F(log10(x), std::log10(X), 0.001, 1000, 2)                                                                         \
    F(log1p(x), std::log1p(X), -0.9, 100, 2)                                                                           \
    F(sin(x), std::sin(X), -1000, 1000, 2)                                                                             \
    F(cos(x), std::cos(X), -1000, 1000, 2)                                                                             \
    F(tan(x), std::tan(X), -1000, 1000, 2)                                                                             \
    F(sin(x * 1e9), std::sin(static_cast<long double>(x * 1e9)), -1000, 1000, 2)                                       \
    F(asin(x), std::asin(X), -1, 1, 2)                                                                                 \
    F(acos(x), std::acos(X), -1, 1, 2)                                                                                 \
    F(atan(x), std::atan(X), -100, 100, 2)                                                                             \
    F(atan2(x, y), std::atan2(X, Y), -10, 10, 2)                                                                       \
    F(sinh(x), std::sinh(X), -10, 10, 2)                                                                               \
    F(cosh(x), std::cosh(X), -10, 10, 2)                                                                               \
    F(tanh(x), std::tanh(X), -10, 10, 2)                                                                               \
    F(pow(fabs(x), y), std::pow(std::fabs(X), Y), -20, 20, 2)                                                          \
    F(hypot(x, y), std::hypot(X, Y), -100, 100, 2)                                                                     \
    F(erf(x), std::erf(X), -4, 4, 2)                                                                                   \
    F(erfc(x), std::erfc(X), -4, 4, 5)                                                                                 \
    F(tgamma(x), std::tgamma(X), 0.1, 50, 10)                                                                          \
    F(fmod(x, y), std::fmod(X, Y), -1000, 1000, 0)                                                                     \
    F(nextafter(x, y), std::nextafter(x, y), -1000, 1000, 0)

// All functions of one list in one kernel; argument sets are per function.
#define CALL(device_expression, reference, low, high, ulp)                                                             \
    {                                                                                                                  \
        [[maybe_unused]] auto x = xs[which * count + i], y = ys[which * count + i];                                    \
        out[which * count + i] = device_expression;                                                                    \
        which++;                                                                                                       \
    }
__global__ void float_functions(const float *xs, const float *ys, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, which = 0;
    if (i >= count)
        return;
    FLOAT_FUNCTIONS(CALL)
}
__global__ void double_functions(const double *xs, const double *ys, double *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, which = 0;
    if (i >= count)
        return;
    DOUBLE_FUNCTIONS(CALL)
}

struct Range {
    double low, high;
};
#define RANGE(device_expression, reference, low, high, ulp) {low, high},
const Range FLOAT_RANGES[] = {FLOAT_FUNCTIONS(RANGE)};
const Range DOUBLE_RANGES[] = {DOUBLE_FUNCTIONS(RANGE)};

// Distance from an exact value in units of the last place of T.
template <typename T> double ulps(T have, long double exact) {
    if (std::isnan(have) || std::isnan(exact))
        return std::isnan(have) && std::isnan(exact) ? 0 : 1e30;
    T rounded = static_cast<T>(exact);
    if (have == rounded && std::isinf(rounded))
        return 0;
    T next = std::nextafter(std::fabs(rounded), std::numeric_limits<T>::infinity());
    long double unit = static_cast<long double>(next) - std::fabs(rounded);
    return static_cast<double>(std::fabs(have - exact) / unit);
}

template <typename T> void arguments(const Range *ranges, int functions, int count, std::vector<T> &xs, std::vector<T> &ys) {
    Lcg random(31);
    xs.resize(functions * count);
    ys.resize(functions * count);
    for (int f = 0; f < functions; f++)
        for (int i = 0; i < count; i++) {
            double width = ranges[f].high - ranges[f].low;
            xs[f * count + i] = static_cast<T>(ranges[f].low + width * random.next_float());
            ys[f * count + i] = static_cast<T>(ranges[f].low + width * random.next_float());
        }
}

#define COMPARE(device_expression, reference, low, high, bound)                                                        \
    {                                                                                                                  \
        double worst = 0;                                                                                              \
        int at = 0;                                                                                                    \
        for (int i = 0; i < count; i++) {                                                                              \
            [[maybe_unused]] auto x = xs[which * count + i], y = ys[which * count + i];                                \
            [[maybe_unused]] Wide X = x, Y = y;                                                                        \
            double error = ulps(out[which * count + i], static_cast<long double>(reference));                          \
            if (error > worst)                                                                                         \
                worst = error, at = i;                                                                                 \
        }                                                                                                              \
        /* The reference itself is rounded, to more digits. */                                                         \
        EXPECT(worst <= bound + 0.01, "%s: %.3f ulp at %.17g, %.17g (gives %.17g)", #device_expression, worst,         \
               static_cast<double>(xs[which * count + at]), static_cast<double>(ys[which * count + at]),               \
               static_cast<double>(out[which * count + at]));                                                          \
        if (verbose)                                                                                                   \
            fprintf(stderr, "%-24s %.3f ulp of %g\n", #device_expression, worst, static_cast<double>(bound));          \
        which++;                                                                                                       \
    }

bool verbose = false;

void check_floats(int count) {
    typedef double Wide;
    const int functions = sizeof(FLOAT_RANGES) / sizeof(FLOAT_RANGES[0]);
    std::vector<float> xs, ys, out(functions * count);
    arguments(FLOAT_RANGES, functions, count, xs, ys);
    float *device_x, *device_y, *device_out;
    size_t bytes = out.size() * sizeof(float);
    CHECK(cudaMalloc(&device_x, bytes));
    CHECK(cudaMalloc(&device_y, bytes));
    CHECK(cudaMalloc(&device_out, bytes));
    CHECK(cudaMemcpy(device_x, xs.data(), bytes, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_y, ys.data(), bytes, cudaMemcpyHostToDevice));
    float_functions<<<(count + 63) / 64, 64>>>(device_x, device_y, device_out, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, bytes, cudaMemcpyDeviceToHost));
    int which = 0;
    FLOAT_FUNCTIONS(COMPARE)
    CHECK(cudaFree(device_x));
    CHECK(cudaFree(device_y));
    CHECK(cudaFree(device_out));
    printf("bitops_math: %d single-precision functions: within their bounds\n", functions);
}

void check_doubles(int count) {
    typedef long double Wide;
    const int functions = sizeof(DOUBLE_RANGES) / sizeof(DOUBLE_RANGES[0]);
    std::vector<double> xs, ys, out(functions * count);
    arguments(DOUBLE_RANGES, functions, count, xs, ys);
    double *device_x, *device_y, *device_out;
    size_t bytes = out.size() * sizeof(double);
    CHECK(cudaMalloc(&device_x, bytes));
    CHECK(cudaMalloc(&device_y, bytes));
    CHECK(cudaMalloc(&device_out, bytes));
    CHECK(cudaMemcpy(device_x, xs.data(), bytes, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_y, ys.data(), bytes, cudaMemcpyHostToDevice));
    double_functions<<<(count + 63) / 64, 64>>>(device_x, device_y, device_out, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, bytes, cudaMemcpyDeviceToHost));
    int which = 0;
    DOUBLE_FUNCTIONS(COMPARE)
    CHECK(cudaFree(device_x));
    CHECK(cudaFree(device_y));
    CHECK(cudaFree(device_out));
    printf("bitops_math: %d double-precision functions: within their bounds\n", functions);
}

// Fast approximations have absolute bounds.
__global__ void approximations(const float *xs, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    float x = xs[i];
    out[i] = __sinf(x);
    out[count + i] = __cosf(x);
    out[2 * count + i] = __expf(x);
    out[3 * count + i] = __logf(fabsf(x) + 2.0f);
    out[4 * count + i] = __fdividef(x, 3.7f);
    out[5 * count + i] = __frsqrt_rn(fabsf(x) + 1.0f);
    out[6 * count + i] = __fmul_rz(x, 1.1f);
    out[7 * count + i] = __fadd_ru(x, 1e-3f);
}

int main(int argc, char **) {
    verbose = argc > 1;
    const int count = 2000;
    u64 *device_out;
    std::vector<u64> out(count * INTEGER_RESULTS);
    CHECK(cudaMalloc(&device_out, out.size() * sizeof(u64)));
    integers<<<(count + 127) / 128, 128>>>(device_out, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, out.size() * sizeof(u64), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++) {
        u64 expected[INTEGER_RESULTS];
        integer_reference(i, expected);
        for (int k = 0; k < INTEGER_RESULTS; k++)
            EXPECT(out[i * INTEGER_RESULTS + k] == expected[k], "integer result %d of %d: %#llx, not %#llx", k, i,
                   out[i * INTEGER_RESULTS + k], expected[k]);
    }
    printf("bitops_math: %d integer operations: equal\n", INTEGER_RESULTS);

    std::vector<double> doubles(count);
    Lcg random(17);
    for (int i = 0; i < count; i++) {
        doubles[i] = std::ldexp(static_cast<double>(random.next()) - 2147483648.0, static_cast<int>(random.next() % 80) - 45);
        if (i % 10 == 0)
            doubles[i] = static_cast<double>(static_cast<int>(random.next() % 41) - 20) * 0.5;
    }
    const double special[] = {0.0, -0.0, INFINITY, -INFINITY, NAN, 1e300, -1e300, 1e-300, 2147483647.5, -2147483648.5, 4294967295.5,
                              9.3e18, -9.3e18, 1.9e19};
    for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
        doubles[i] = special[i];
    double *device_doubles;
    CHECK(cudaMalloc(&device_doubles, count * sizeof(double)));
    CHECK(cudaMemcpy(device_doubles, doubles.data(), count * sizeof(double), cudaMemcpyHostToDevice));
    conversions<<<(count + 127) / 128, 128>>>(device_doubles, device_out, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(out.data(), device_out, count * CONVERSIONS * sizeof(u64), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++) {
        u64 expected[CONVERSIONS];
        conversion_reference(i, doubles[i], expected);
        for (int k = 0; k < CONVERSIONS; k++) {
            // The bits of a NaN are not defined.
            if (std::isnan(doubles[i]) && k >= 8 && k != 10 && k != 11 && k != 12 && k != 13 && k != 17)
                continue;
            EXPECT(out[i * CONVERSIONS + k] == expected[k], "conversion %d of %.17g: %#llx, not %#llx", k, doubles[i],
                   out[i * CONVERSIONS + k], expected[k]);
        }
    }
    printf("bitops_math: %d conversions and roundings: equal\n", CONVERSIONS);
    check_floats(500);
    check_doubles(300);

    std::vector<float> xs(count), results(8 * count);
    for (float &x : xs)
        x = (random.next_float() - 0.5f) * 6.0f;
    float *device_x, *device_results;
    CHECK(cudaMalloc(&device_x, count * sizeof(float)));
    CHECK(cudaMalloc(&device_results, results.size() * sizeof(float)));
    CHECK(cudaMemcpy(device_x, xs.data(), count * sizeof(float), cudaMemcpyHostToDevice));
    approximations<<<(count + 127) / 128, 128>>>(device_x, device_results, count);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(results.data(), device_results, results.size() * sizeof(float), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++) {
        double x = xs[i];
        auto near = [&](int which, double exact, double bound) {
            double have = results[which * count + i];
            EXPECT(std::fabs(have - exact) <= bound, "approximation %d of %.9g: %.9g, not %.9g", which, x, have, exact);
        };
        near(0, std::sin(x), 1e-6);
        near(1, std::cos(x), 1e-6);
        near(2, std::exp(x), 2e-5);
        near(3, std::log(std::fabs(x) + 2.0), 1e-6);
        near(4, x / 3.7f, 1e-6);
        near(5, 1.0 / std::sqrt(static_cast<double>(std::fabs(xs[i]) + 1.0f)), 6e-8);
        // Exact in a double: rounding towards zero and upwards can be told.
        double product = x * 1.1f, sum = x + 1e-3f;
        EXPECT(std::fabs(results[6 * count + i]) <= std::fabs(product), "__fmul_rz of %.9g", x);
        near(6, product, std::fabs(product) * 1.2e-7);
        EXPECT(results[7 * count + i] >= sum, "__fadd_ru of %.9g", x);
        near(7, sum, std::fabs(sum) * 1.2e-7 + 1e-12);
    }
    printf("bitops_math: 8 approximations and directed roundings: within their bounds\n");
    CHECK(cudaFree(device_out));
    CHECK(cudaFree(device_doubles));
    CHECK(cudaFree(device_x));
    CHECK(cudaFree(device_results));
    return pass();
}
