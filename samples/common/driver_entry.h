// Calls of the driver API for samples that use the CUDA runtime: asked from the runtime, so that nothing more is linked.
#pragma once

#include <cstdio>
#include <cstdlib>

#include <cuda_runtime.h>

#ifndef DRIVER_ENTRY_VERSION
#define DRIVER_ENTRY_VERSION 12080
#endif

template <class Function> Function driver_entry(const char *name) {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult found;
    cudaError_t error =
        cudaGetDriverEntryPointByVersion(name, &function, DRIVER_ENTRY_VERSION, cudaEnableDefault, &found);
    if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
        fprintf(stderr, "the driver has no %s\n", name);
        exit(1);
    }
    return reinterpret_cast<Function>(function);
}
