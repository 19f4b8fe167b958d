#pragma once

extern __device__ int shared_counter;
extern __constant__ int shared_table[8];
extern __device__ int (*shared_operation)(int);
extern __device__ int mix(int a, int b);
int launch_in_other_file(int amount);

// Instantiated in both files: the linker keeps one.
template <int FACTOR> __device__ __noinline__ int scaled(int x) { return x * FACTOR; }
