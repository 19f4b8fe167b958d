// All atomic operations on all types, in global and in shared memory, and loops on compare-and-swap.
#include <climits>
#include <cstdint>

#include "check.h"

const int BLOCKS = 8, THREADS = 160, TOTAL = BLOCKS * THREADS;

struct Cells {
    int add, sub, min, max, exchange, cas;
    unsigned u_add, u_min, u_max, inc, dec, bit_and, bit_or, bit_xor;
    unsigned long long wide_add, wide_max, wide_min, wide_and, wide_or, wide_xor, wide_exchange, wide_cas;
    long long signed_min, signed_max;
    float f_add, f_exchange;
    double d_add, d_product;
    float f_max;
};

__device__ double atomic_multiply(double *address, double factor) {
    unsigned long long *bits = reinterpret_cast<unsigned long long *>(address), old = *bits, assumed;
    do {
        assumed = old;
        old = atomicCAS(bits, assumed, __double_as_longlong(__longlong_as_double(assumed) * factor));
    } while (assumed != old);
    return __longlong_as_double(old);
}

__device__ void atomic_float_max(float *address, float value) {
    int *bits = reinterpret_cast<int *>(address), old = *bits;
    while (__int_as_float(old) < value) {
        int assumed = old;
        old = atomicCAS(bits, assumed, __float_as_int(value));
        if (old == assumed)
            break;
    }
}

__device__ void touch(Cells *c, int i) {
    atomicAdd(&c->add, i - 500);
    atomicSub(&c->sub, i);
    atomicMin(&c->min, (i * 37) % 1009 - 300);
    atomicMax(&c->max, (i * 37) % 1009 - 300);
    atomicExch(&c->exchange, i + 1);
    // Counts to the total by compare-and-swap: nobody's step is lost.
    int seen = c->cas, assumed;
    do {
        assumed = seen;
        seen = atomicCAS(&c->cas, assumed, assumed + 2);
    } while (seen != assumed);
    atomicAdd(&c->u_add, 0x10000001u);
    atomicMin(&c->u_min, 0xf0000000u + i);
    atomicMax(&c->u_max, 0xf0000000u + i);
    atomicInc(&c->inc, 99);
    atomicDec(&c->dec, 49);
    atomicAnd(&c->bit_and, ~(1u << (i % 13)));
    atomicOr(&c->bit_or, 1u << (i % 29));
    atomicXor(&c->bit_xor, 0x9e3779b9u * (i + 1));
    atomicAdd(&c->wide_add, 0x100000003ULL * i);
    atomicMax(&c->wide_max, 0x8000000000000000ULL + i);
    atomicMin(&c->wide_min, 0x8000000000000000ULL + i);
    atomicAnd(&c->wide_and, ~(1ULL << (i % 50)));
    atomicOr(&c->wide_or, 1ULL << (i % 61));
    atomicXor(&c->wide_xor, 0x9e3779b97f4a7c15ULL * (i + 1));
    atomicExch(&c->wide_exchange, (i + 1) * 0x100000001ULL);
    atomicMin(&c->signed_min, -static_cast<long long>(i) << 33);
    atomicMax(&c->signed_max, -static_cast<long long>(i + 7) << 33);
    // Halves: sums are exact in any order.
    atomicAdd(&c->f_add, 0.5f * (i % 7));
    atomicExch(&c->f_exchange, static_cast<float>(i));
    atomicAdd(&c->d_add, 0.25 * i);
    atomic_multiply(&c->d_product, i % 2 ? 2.0 : 0.5);
    atomic_float_max(&c->f_max, static_cast<float>((i * 53) % 1021));
    unsigned long long wide_seen = c->wide_cas, wide_assumed;
    do {
        wide_assumed = wide_seen;
        wide_seen = atomicCAS(&c->wide_cas, wide_assumed, wide_assumed + 0x300000000ULL);
    } while (wide_seen != wide_assumed);
}

__global__ void in_global(Cells *cells) { touch(cells, blockIdx.x * blockDim.x + threadIdx.x); }

__global__ void in_shared(const Cells *start, Cells *cells) {
    __shared__ Cells local;
    if (threadIdx.x == 0)
        local = *start;
    __syncthreads();
    touch(&local, threadIdx.x);
    __syncthreads();
    if (threadIdx.x == 0)
        *cells = local;
}

// Returned values: each of the numbers below the total exactly once.
__global__ void tickets(int *next, int *taken) { taken[atomicAdd(next, 1)] += 1; }

// Blocks hand over through a fence and a counter; the last one sums what all have written.
__global__ void last_block_sums(int *partial, unsigned *done, int *sum) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = blockIdx.x * 3 + 1;
        __threadfence();
        last = atomicInc(done, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        int total = 0;
        for (int i = 0; i < gridDim.x; i++)
            total += const_cast<volatile int *>(partial)[i];
        *sum = total;
    }
}

// A spin lock taken by one thread of each block.
__global__ void locked(int *lock, int *plain, int rounds) {
    if (threadIdx.x != 0)
        return;
    for (int i = 0; i < rounds; i++) {
        while (atomicCAS(lock, 0, 1) != 0)
            ;
        __threadfence();
        *const_cast<volatile int *>(plain) = *const_cast<volatile int *>(plain) + 1;
        __threadfence();
        atomicExch(lock, 0);
    }
}

Cells start_values() {
    Cells c = {};
    c.min = INT_MAX;
    c.max = INT_MIN;
    c.u_min = UINT_MAX;
    c.bit_and = UINT_MAX;
    c.wide_min = ULLONG_MAX;
    c.wide_and = ULLONG_MAX;
    c.signed_max = LLONG_MIN;
    c.d_product = 1.0;
    c.f_max = -1.0f;
    return c;
}

void check(const Cells &c, int total, const char *where) {
    Cells e = start_values();
    for (int i = 0; i < total; i++) {
        e.add += i - 500;
        e.sub -= i;
        e.min = std::min(e.min, (i * 37) % 1009 - 300);
        e.max = std::max(e.max, (i * 37) % 1009 - 300);
        e.cas += 2;
        e.u_add += 0x10000001u;
        e.u_min = std::min(e.u_min, 0xf0000000u + i);
        e.u_max = std::max(e.u_max, 0xf0000000u + i);
        e.inc = e.inc >= 99 ? 0 : e.inc + 1;
        e.dec = e.dec == 0 || e.dec > 49 ? 49 : e.dec - 1;
        e.bit_and &= ~(1u << (i % 13));
        e.bit_or |= 1u << (i % 29);
        e.bit_xor ^= 0x9e3779b9u * (i + 1);
        e.wide_add += 0x100000003ULL * i;
        e.wide_max = std::max<unsigned long long>(e.wide_max, 0x8000000000000000ULL + i);
        e.wide_min = std::min<unsigned long long>(e.wide_min, 0x8000000000000000ULL + i);
        e.wide_and &= ~(1ULL << (i % 50));
        e.wide_or |= 1ULL << (i % 61);
        e.wide_xor ^= 0x9e3779b97f4a7c15ULL * (i + 1);
        e.signed_min = std::min(e.signed_min, -static_cast<long long>(i) * (1LL << 33));
        e.signed_max = std::max(e.signed_max, -static_cast<long long>(i + 7) * (1LL << 33));
        e.f_add += 0.5f * (i % 7);
        e.d_add += 0.25 * i;
        e.d_product *= i % 2 ? 2.0 : 0.5;
        e.f_max = std::fmax(e.f_max, static_cast<float>((i * 53) % 1021));
        e.wide_cas += 0x300000000ULL;
    }
#define SAME(field) EXPECT(c.field == e.field, "%s, " #field ": %.17g, not %.17g", where, double(c.field), double(e.field))
    SAME(add);
    SAME(sub);
    SAME(min);
    SAME(max);
    SAME(cas);
    SAME(u_add);
    SAME(u_min);
    SAME(u_max);
    SAME(inc);
    SAME(dec);
    SAME(bit_and);
    SAME(bit_or);
    SAME(bit_xor);
    SAME(wide_add);
    SAME(wide_max);
    SAME(wide_min);
    SAME(wide_and);
    SAME(wide_or);
    SAME(wide_xor);
    SAME(wide_cas);
    SAME(signed_min);
    SAME(signed_max);
    SAME(f_add);
    SAME(d_add);
    SAME(d_product);
    SAME(f_max);
    // The last one to exchange is not known, but it was one of them, and its 64 bits belong together.
    EXPECT(c.exchange >= 1 && c.exchange <= total, "%s, exchange: %d", where, c.exchange);
    EXPECT(c.f_exchange >= 0 && c.f_exchange < total, "%s, float exchange: %g", where, c.f_exchange);
    EXPECT(c.wide_exchange >> 32 == (c.wide_exchange & 0xffffffffu) && c.wide_exchange != 0, "%s, 64-bit exchange: %#llx", where,
           c.wide_exchange);
    printf("atomics: 29 operations in %s memory, %d threads: equal\n", where, total);
}

int main() {
    Cells start = start_values(), result, *cells, *device_start;
    CHECK(cudaMalloc(&cells, sizeof(Cells)));
    CHECK(cudaMalloc(&device_start, sizeof(Cells)));
    CHECK(cudaMemcpy(cells, &start, sizeof(Cells), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_start, &start, sizeof(Cells), cudaMemcpyHostToDevice));
    in_global<<<BLOCKS, THREADS>>>(cells);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(&result, cells, sizeof(Cells), cudaMemcpyDeviceToHost));
    check(result, TOTAL, "global");
    in_shared<<<1, THREADS>>>(device_start, cells);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(&result, cells, sizeof(Cells), cudaMemcpyDeviceToHost));
    check(result, THREADS, "shared");

    const int count = 20 * 128;
    int *next, *taken, host[count];
    CHECK(cudaMalloc(&next, sizeof(int)));
    CHECK(cudaMalloc(&taken, sizeof(host)));
    CHECK(cudaMemset(next, 0, sizeof(int)));
    CHECK(cudaMemset(taken, 0, sizeof(host)));
    tickets<<<20, 128>>>(next, taken);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(host, taken, sizeof(host), cudaMemcpyDeviceToHost));
    for (int i = 0; i < count; i++)
        EXPECT(host[i] == 1, "ticket %d was taken %d times", i, host[i]);
    printf("atomics: %d tickets, each once\n", count);

    unsigned *done;
    int *sum, value = 0;
    CHECK(cudaMalloc(&done, sizeof(unsigned)));
    CHECK(cudaMalloc(&sum, sizeof(int)));
    CHECK(cudaMemset(done, 0, sizeof(unsigned)));
    // Twice: atomicInc has wrapped the counter for the second time.
    for (int round = 0; round < 2; round++) {
        CHECK(cudaMemset(sum, 0, sizeof(int)));
        last_block_sums<<<100, 32>>>(taken, done, sum);
        CHECK_KERNEL();
        CHECK(cudaMemcpy(&value, sum, sizeof(int), cudaMemcpyDeviceToHost));
        EXPECT(value == 3 * 4950 + 100, "%d", value);
    }
    printf("atomics: last block sums %d\n", value);

    CHECK(cudaMemset(next, 0, sizeof(int)));
    CHECK(cudaMemset(sum, 0, sizeof(int)));
    locked<<<16, 32>>>(next, sum, 20);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(&value, sum, sizeof(int), cudaMemcpyDeviceToHost));
    EXPECT(value == 320, "%d", value);
    printf("atomics: %d steps under a spin lock\n", value);
    CHECK(cudaFree(cells));
    CHECK(cudaFree(device_start));
    CHECK(cudaFree(next));
    CHECK(cudaFree(taken));
    CHECK(cudaFree(done));
    CHECK(cudaFree(sum));
    return pass();
}
