// The other half of the rdc sample.
#include "check.h"
#include "rdc.h"

__device__ int shared_counter = 1000;
__constant__ int shared_table[8];
static __device__ int local_state = 7000;

static __device__ __noinline__ int helper(int x) { return x * x + 1; }

__device__ int (*shared_operation)(int) = helper;

__device__ int mix(int a, int b) { return a * b + local_state; }

__global__ void bump(int amount) { shared_counter += scaled<3>(amount) - scaled<3>(amount) + amount; }

int launch_in_other_file(int amount) {
    bump<<<1, 1>>>(amount);
    CHECK_KERNEL();
    int counter = 0;
    CHECK(cudaMemcpyFromSymbol(&counter, shared_counter, sizeof(counter)));
    return counter;
}
