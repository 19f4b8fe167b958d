// Asks for everything that programs ask for about a device, and checks that the answers agree with each other.
#include "check.h"

int attribute(cudaDeviceAttr which, int device) {
    int value = -1;
    CHECK(cudaDeviceGetAttribute(&value, which, device));
    return value;
}

__global__ void architecture(int *out) {
#ifdef __CUDA_ARCH__
    *out = __CUDA_ARCH__;
#endif
}

int main() {
    int count = 0, driver = 0, runtime = 0, device = -1;
    CHECK(cudaGetDeviceCount(&count));
    CHECK(cudaDriverGetVersion(&driver));
    CHECK(cudaRuntimeGetVersion(&runtime));
    EXPECT(driver / 1000 >= runtime / 1000, "driver version %d, runtime version %d", driver, runtime);
    printf("device_query: %d device(s), driver %d.%d, runtime %d.%d\n", count, driver / 1000, driver % 1000 / 10, runtime / 1000,
           runtime % 1000 / 10);
    CHECK(cudaGetDevice(&device));
    EXPECT(count >= 1 && device == 0, "device %d of %d", device, count);

    for (int i = count - 1; i >= 0; i--) {
        cudaDeviceProp p;
        CHECK(cudaSetDevice(i));
        CHECK(cudaGetDeviceProperties(&p, i));
        if (i == 0)
            printf("device %d: %s, compute capability %d.%d\n", i, p.name, p.major, p.minor);
        EXPECT(p.name[0] != 0, "no name");
        EXPECT(p.major >= 7, "compute capability %d.%d", p.major, p.minor);
#define AGREES(field, name) EXPECT(p.field == attribute(name, i), #field ": %d, not %d", int(p.field), attribute(name, i))
        AGREES(major, cudaDevAttrComputeCapabilityMajor);
        AGREES(minor, cudaDevAttrComputeCapabilityMinor);
        AGREES(multiProcessorCount, cudaDevAttrMultiProcessorCount);
        AGREES(warpSize, cudaDevAttrWarpSize);
        AGREES(maxThreadsPerBlock, cudaDevAttrMaxThreadsPerBlock);
        AGREES(maxThreadsDim[0], cudaDevAttrMaxBlockDimX);
        AGREES(maxThreadsDim[2], cudaDevAttrMaxBlockDimZ);
        AGREES(maxGridSize[0], cudaDevAttrMaxGridDimX);
        AGREES(maxGridSize[1], cudaDevAttrMaxGridDimY);
        AGREES(sharedMemPerBlock, cudaDevAttrMaxSharedMemoryPerBlock);
        AGREES(regsPerBlock, cudaDevAttrMaxRegistersPerBlock);
        AGREES(l2CacheSize, cudaDevAttrL2CacheSize);
        AGREES(memoryBusWidth, cudaDevAttrGlobalMemoryBusWidth);
        AGREES(totalConstMem, cudaDevAttrTotalConstantMemory);
        AGREES(unifiedAddressing, cudaDevAttrUnifiedAddressing);
        AGREES(managedMemory, cudaDevAttrManagedMemory);
        AGREES(maxThreadsPerMultiProcessor, cudaDevAttrMaxThreadsPerMultiProcessor);
        AGREES(sharedMemPerBlockOptin, cudaDevAttrMaxSharedMemoryPerBlockOptin);
        AGREES(pciBusID, cudaDevAttrPciBusId);
        if (i == 0) {
            printf("  warp size %d, up to %d threads in a block of %dx%dx%d\n", p.warpSize, p.maxThreadsPerBlock,
                   p.maxThreadsDim[0], p.maxThreadsDim[1], p.maxThreadsDim[2]);
            printf("  grids up to %dx%dx%d\n", p.maxGridSize[0], p.maxGridSize[1], p.maxGridSize[2]);
            printf("  shared memory %zu, constant memory %zu, registers %d\n", p.sharedMemPerBlock, p.totalConstMem,
                   p.regsPerBlock);
        }
        EXPECT(p.multiProcessorCount >= 1, "%d multiprocessors", p.multiProcessorCount);
        EXPECT(p.sharedMemPerBlockOptin >= p.sharedMemPerBlock, "%zu bytes of shared memory by opt-in", p.sharedMemPerBlockOptin);
        EXPECT(p.sharedMemPerMultiprocessor >= p.sharedMemPerBlockOptin, "%zu bytes of shared memory", p.sharedMemPerMultiprocessor);
        EXPECT(p.maxThreadsPerMultiProcessor >= 1024, "%d", p.maxThreadsPerMultiProcessor);
        EXPECT(p.unifiedAddressing == 1, "no unified addressing");
        EXPECT(p.managedMemory == 1, "no managed memory");
        EXPECT(attribute(cudaDevAttrClockRate, i) > 0, "clock rate");

        size_t free_bytes = 0, total = 0;
        CHECK(cudaMemGetInfo(&free_bytes, &total));
        EXPECT(free_bytes > 0 && free_bytes <= total, "%zu of %zu bytes free", free_bytes, total);
        EXPECT(total <= p.totalGlobalMem + (p.totalGlobalMem >> 4) && p.totalGlobalMem <= total + (total >> 4), "%zu and %zu bytes",
               total, p.totalGlobalMem);
        // Others use the device at the same time: what they free or take between the two looks counts as well. Sooner or later nobody does.
        const size_t bytes = 64 << 20;
        size_t less = free_bytes;
        for (int attempt = 0; attempt < 50 && !(less < free_bytes && less + bytes <= free_bytes + (8 << 20)); attempt++) {
            void *block;
            CHECK(cudaMemGetInfo(&free_bytes, &total));
            CHECK(cudaMalloc(&block, bytes));
            CHECK(cudaMemGetInfo(&less, &total));
            CHECK(cudaFree(block));
        }
        EXPECT(less + bytes <= free_bytes + (8 << 20) && less < free_bytes, "%zu bytes free, then %zu", free_bytes, less);

        char bus[32] = "";
        int same = -1;
        CHECK(cudaDeviceGetPCIBusId(bus, sizeof(bus), i));
        CHECK(cudaDeviceGetByPCIBusId(&same, bus));
        EXPECT(same == i, "%s is device %d", bus, same);
        bool zero = true;
        for (char c : p.uuid.bytes)
            zero = zero && c == 0;
        EXPECT(!zero, "UUID is zero");

        // Kernels were compiled for an architecture that this device can run.
        int *out, arch = 0;
        CHECK(cudaMalloc(&out, sizeof(int)));
        architecture<<<1, 1>>>(out);
        CHECK_KERNEL();
        CHECK(cudaMemcpy(&arch, out, sizeof(int), cudaMemcpyDeviceToHost));
        EXPECT(arch >= 750 && arch <= p.major * 100 + p.minor * 10, "kernel for %d", arch);
        cudaFuncAttributes attributes;
        CHECK(cudaFuncGetAttributes(&attributes, architecture));
        EXPECT(attributes.binaryVersion >= 75 && attributes.binaryVersion <= p.major * 10 + p.minor, "binary version %d",
               attributes.binaryVersion);
        // The virtual architecture: CUB looks for the variant of its code by it.
        EXPECT(attributes.ptxVersion * 10 == arch, "PTX version %d", attributes.ptxVersion);
        CHECK(cudaFree(out));
    }

    int wanted = -1;
    cudaDeviceProp like = {};
    like.major = 7;
    CHECK(cudaChooseDevice(&wanted, &like));
    EXPECT(wanted >= 0 && wanted < count, "chose device %d", wanted);
    for (cudaLimit limit : {cudaLimitStackSize, cudaLimitPrintfFifoSize, cudaLimitMallocHeapSize}) {
        size_t value = 0;
        CHECK(cudaDeviceGetLimit(&value, limit));
        EXPECT(value > 0, "limit %d", static_cast<int>(limit));
    }
    int access = -1;
    if (count > 1)
        CHECK(cudaDeviceCanAccessPeer(&access, 0, 1));
    return pass();
}
