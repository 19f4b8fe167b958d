#include <cstdio>
__device__ __noinline__ void rec(int *x, int n) { if (n) { x[n] = n; rec(x, n - 1); } }
__global__ void child(int *x) { x[0] = 5; printf("%d\n", x[0]); }
struct V { virtual __device__ int f(int) = 0; }; struct A : V { __device__ int f(int x) override { return x + 1; } }; struct B : V { __device__ int f(int x) override { return x * 3; } };
__global__ void parent(int *x) { child<<<1, 32>>>(x); rec(x, 5); V *v = x[1] ? (V *)new A : (V *)new B; x[2] = v->f(x[3]); delete v; alloca(x[3]); }
__global__ void sw(int *x, int k) {
 switch (k) {
#define C(n) case n: asm volatile("// case " #n); x[n] = n * n + x[n ^ 3]; __syncthreads(); break;
 C(0) C(1) C(2) C(3) C(4) C(5) C(6) C(7) C(8) C(9) C(10) C(11) C(12) C(13) C(14) C(15) C(16) C(17)
 default: x[99] = 1; } }
