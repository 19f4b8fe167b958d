extern __constant__ int shared_const[4];
extern __device__ int shared_counter;
__device__ int b_table[8] = {8, 7, 6, 5, 4, 3, 2, 1};
static __device__ int hidden = 2;
static __device__ __noinline__ int secret(int x) { return x - hidden; }
template <class T> __device__ __noinline__ T twice(T x) { return x + x; }
inline __device__ int &only_once() { static int once = 9; return once; }
__device__ float from_b(float x, int n) { return x * n + secret(n) + twice(n) + only_once() + shared_const[1] + atomicAdd(&shared_counter, 1); }
extern "C" __global__ void kernel_b(int *out) { out[0] = secret(out[1]); }
