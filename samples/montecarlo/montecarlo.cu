// Monte-Carlo in double precision with generators of our own: pi by counting (exact), an option price (tight tolerance).
#include <cstdint>
#include <vector>

#include "check.h"

// Philox 4x32-10, a counter-based generator.
struct Philox {
    uint32_t counter[4];
    uint32_t key[2];
    __host__ __device__ static void multiply(uint32_t a, uint32_t b, uint32_t &high, uint32_t &low) {
        uint64_t product = static_cast<uint64_t>(a) * b;
        high = static_cast<uint32_t>(product >> 32);
        low = static_cast<uint32_t>(product);
    }
    __host__ __device__ void generate(uint32_t out[4]) const {
        uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
        uint32_t k0 = key[0], k1 = key[1];
        for (int round = 0; round < 10; round++) {
            uint32_t high0, low0, high1, low1;
            multiply(0xD2511F53u, c[0], high0, low0);
            multiply(0xCD9E8D57u, c[2], high1, low1);
            c[0] = high1 ^ c[1] ^ k0;
            c[1] = low1;
            c[2] = high0 ^ c[3] ^ k1;
            c[3] = low0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        for (int i = 0; i < 4; i++)
            out[i] = c[i];
    }
};

// Uniform in (0, 1) from 64 random bits, exactly representable.
__host__ __device__ inline double uniform(uint32_t high, uint32_t low) {
    uint64_t bits = (static_cast<uint64_t>(high) << 32 | low) >> 12;
    return (static_cast<double>(bits) + 0.5) * (1.0 / 4503599627370496.0);
}

__host__ __device__ inline bool inside_circle(uint32_t stream, uint32_t i) {
    Philox philox = {{i, stream, 0, 0}, {42, 4711}};
    uint32_t r[4];
    philox.generate(r);
    double x = uniform(r[0], r[1]), y = uniform(r[2], r[3]);
    // fma is exact up to one rounding on both sides; x*x + y*y might be contracted on one of them only.
    return fma(x, x, y * y) < 1.0;
}

struct Option {
    double spot, strike, rate, volatility, years;
};

// Payoff of a European call for one path (Box-Muller).
__host__ __device__ inline double payoff(const Option &option, uint32_t path) {
    Philox philox = {{path, 0, 0, 1}, {7, 9}};
    uint32_t r[4];
    philox.generate(r);
    double radius = sqrt(-2.0 * log(uniform(r[0], r[1])));
    double normal = radius * cos(6.283185307179586 * uniform(r[2], r[3]));
    double drift = (option.rate - 0.5 * option.volatility * option.volatility) * option.years;
    double price = option.spot * exp(drift + option.volatility * sqrt(option.years) * normal);
    return fmax(price - option.strike, 0.0);
}

__global__ void count_inside(unsigned long long *total, int samples) {
    unsigned stream = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long inside = 0;
    for (int i = 0; i < samples; i++)
        inside += inside_circle(stream, i) ? 1 : 0;
    atomicAdd(total, inside);
}

__global__ void payoffs(Option option, double *out, int paths) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < paths)
        out[i] = payoff(option, i);
}

int main() {
    const int blocks = 16, threads = 64, samples = 200;
    unsigned long long *total, inside = 0, expected = 0;
    CHECK(cudaMalloc(&total, sizeof(*total)));
    CHECK(cudaMemset(total, 0, sizeof(*total)));
    count_inside<<<blocks, threads>>>(total, samples);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(&inside, total, sizeof(inside), cudaMemcpyDeviceToHost));
    for (int stream = 0; stream < blocks * threads; stream++)
        for (int i = 0; i < samples; i++)
            expected += inside_circle(stream, i) ? 1 : 0;
    EXPECT(inside == expected, "%llu, not %llu", inside, expected);
    double pi = 4.0 * static_cast<double>(inside) / (blocks * threads * samples);
    printf("montecarlo: %d points, pi is about %.3f: count equal\n", blocks * threads * samples, pi);

    const int paths = 50000;
    Option option = {100.0, 105.0, 0.03, 0.25, 1.5};
    std::vector<double> values(paths);
    double *device_values;
    CHECK(cudaMalloc(&device_values, paths * sizeof(double)));
    payoffs<<<(paths + 127) / 128, 128>>>(option, device_values, paths);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(values.data(), device_values, paths * sizeof(double), cudaMemcpyDeviceToHost));
    double sum = 0, max_error = 0;
    for (int i = 0; i < paths; i++) {
        double reference = payoff(option, i);
        max_error = std::fmax(max_error, std::fabs(values[i] - reference) / std::fmax(1.0, reference));
        sum += values[i];
    }
    EXPECT(max_error < 1e-11, "relative error %g", max_error);
    printf("montecarlo: %d paths, option price %.2f: within 1e-11\n", paths,
           std::exp(-option.rate * option.years) * sum / paths);
    CHECK(cudaFree(total));
    CHECK(cudaFree(device_values));
    return pass();
}
