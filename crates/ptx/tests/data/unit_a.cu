__constant__ int shared_const[4] = {1, 2, 3, 4};
__device__ int shared_counter = 5;
extern __device__ float from_b(float x, int n);
extern __device__ int b_table[8];
static __device__ int hidden = 1;
static __device__ __noinline__ int secret(int x) { return x * hidden + 3; }
template <class T> __device__ __noinline__ T twice(T x) { return x + x; }
inline __device__ int &only_once() { static int once = 9; return once; }
extern "C" __global__ void kernel_a(float *out, int n) { out[threadIdx.x] = from_b(out[0], n) + b_table[n & 7] + secret(n) + twice(n) + only_once() + shared_const[n & 3]; }
