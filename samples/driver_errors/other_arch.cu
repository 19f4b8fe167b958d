// Compiled to machine code of single architectures, without PTX: see driver_errors.cpp.
extern "C" __global__ void answer(int *out) { *out = 42; }
