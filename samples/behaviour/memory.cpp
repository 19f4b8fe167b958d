// Device, host, managed, pool and virtual memory; what is known about pointers; copies that cannot be.
#include "transcript.h"

#include <set>

#include <sys/mman.h>

namespace {

constexpr size_t MIB = 1 << 20;

void attributes(const char *what, CUdeviceptr pointer) {
    printf("attributes of %s\n", what);
    CUcontext context = unset<CUcontext>();
    if (TRY(cuPointerGetAttribute, &context, CU_POINTER_ATTRIBUTE_CONTEXT, pointer) == CUDA_SUCCESS)
        CLASS(context);
    unsigned type = unset<unsigned>();
    TRY(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, pointer);
    VALUE(type);
    CUdeviceptr device_pointer = unset<CUdeviceptr>();
    TRY(cuPointerGetAttribute, &device_pointer, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, pointer);
    HOLDS(device_pointer == pointer);
    void *host_pointer = unset<void *>();
    TRY(cuPointerGetAttribute, &host_pointer, CU_POINTER_ATTRIBUTE_HOST_POINTER, pointer);
    HOLDS(host_pointer == reinterpret_cast<void *>(pointer));
    unsigned long long id = unset<unsigned long long>();
    TRY(cuPointerGetAttribute, &id, CU_POINTER_ATTRIBUTE_BUFFER_ID, pointer);
    CLASS(id);
    unsigned managed = unset<unsigned>();
    TRY(cuPointerGetAttribute, &managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, pointer);
    VALUE(managed);
    int ordinal = unset<int>();
    TRY(cuPointerGetAttribute, &ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, pointer);
    VALUE(ordinal);
    CUdeviceptr start = unset<CUdeviceptr>();
    TRY(cuPointerGetAttribute, &start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, pointer);
    HOLDS(start <= pointer);
    size_t size = unset<size_t>();
    TRY(cuPointerGetAttribute, &size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, pointer);
    VALUE(size);
    unsigned mapped = unset<unsigned>();
    TRY(cuPointerGetAttribute, &mapped, CU_POINTER_ATTRIBUTE_MAPPED, pointer);
    VALUE(mapped);
    unsigned handles = unset<unsigned>();
    TRY(cuPointerGetAttribute, &handles, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, pointer);
    VALUE(handles);
    unsigned access = unset<unsigned>();
    TRY(cuPointerGetAttribute, &access, CU_POINTER_ATTRIBUTE_ACCESS_FLAGS, pointer);
    VALUE(access);
    CUmemoryPool pool = unset<CUmemoryPool>();
    TRY(cuPointerGetAttribute, &pool, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, pointer);
    CLASS(pool);
    unsigned sync = unset<unsigned>();
    TRY(cuPointerGetAttribute, &sync, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, pointer);
    VALUE(sync);
    CUdeviceptr base = unset<CUdeviceptr>();
    size_t extent = unset<size_t>();
    TRY(cuMemGetAddressRange, &base, &extent, pointer);
    HOLDS(base <= pointer);
    VALUE(extent);
    // Several at once never fails for a pointer that nobody knows.
    unsigned type_of_many = unset<unsigned>();
    CUdeviceptr pointer_of_many = unset<CUdeviceptr>();
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_POINTER};
    void *values[] = {&type_of_many, &pointer_of_many};
    TRY(cuPointerGetAttributes, 2, names, values, pointer);
    VALUE(type_of_many);
    CLASS(pointer_of_many);
}

CUdeviceptr address(const void *pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

} // namespace

SECTION(allocation) {
    begin();
    CUdeviceptr memory = unset<CUdeviceptr>();
    TRY(cuMemAlloc, &memory, 0);
    CLASS(memory);
    TRY(cuMemAlloc, &memory, size_t(1) << 45);
    TRY(cuMemAlloc, &memory, ~size_t(0));
    CLASS(memory);
    TRY(cuMemAlloc, &memory, 1);
    HOLDS(memory % 256 == 0);
    TRY(cuMemFree, memory + 1);
    TRY(cuMemFree, memory);
    TRY(cuMemFree, memory);
    TRY(cuMemFree, 0x1000);
    int local = 0;
    TRY(cuMemFree, address(&local));
    size_t pitch = unset<size_t>();
    TRY(cuMemAllocPitch, &memory, &pitch, 100, 10, 4);
    VALUE(pitch);
    TRY(cuMemAllocPitch, &memory, &pitch, 1000, 10, 16);
    VALUE(pitch);
    TRY(cuMemAllocPitch, &memory, &pitch, 100, 10, 3);
    TRY(cuMemAllocPitch, &memory, &pitch, 0, 10, 4);
    TRY(cuMemAllocPitch, &memory, &pitch, 10, 0, 4);
    TRY(cuMemAllocPitch, &memory, nullptr, 10, 10, 4);
    size_t free = 0, total = 0;
    TRY(cuMemGetInfo, &free, &total);
    VALUE(total);
    HOLDS(free > 0 && free < total);
    TRY(cuMemGetInfo, &free, nullptr);
}

SECTION(pointers_device) {
    begin();
    CUdeviceptr memory = allocate(1000);
    attributes("device memory", memory);
    attributes("the middle of device memory", memory + 500);
    TRY(cuMemFree, memory);
    attributes("freed memory", memory);
}

// What is said of an address is said of what is there now.
SECTION(pointers_again) {
    begin();
    std::set<unsigned long long> ids;
    int wrong = 0;
    for (int round = 0; round < 20; round++) {
        const size_t size = size_t(3 + round % 2) << 20;
        CUdeviceptr pointer = allocate(size);
        for (size_t offset : {size_t(0), size / 2, size - 1}) {
            unsigned long long id = 0;
            CUdeviceptr start = 0;
            size_t extent = 0;
            unsigned type = 0;
            wrong += DRIVER(cuPointerGetAttribute)(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID, pointer + offset) != CUDA_SUCCESS;
            wrong += DRIVER(cuPointerGetAttribute)(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, pointer + offset) != CUDA_SUCCESS;
            wrong += DRIVER(cuPointerGetAttribute)(&extent, CU_POINTER_ATTRIBUTE_RANGE_SIZE, pointer + offset) != CUDA_SUCCESS;
            wrong += DRIVER(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, pointer + offset) != CUDA_SUCCESS;
            wrong += start != pointer || extent < size || type != CU_MEMORYTYPE_DEVICE;
            ids.insert(id);
        }
        MUST(cuMemFree, pointer);
        unsigned type = 0;
        wrong += DRIVER(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, pointer) != CUDA_ERROR_INVALID_VALUE;
    }
    VALUE(wrong);
    HOLDS(ids.size() == 20);
    void *host;
    MUST(cuMemAllocHost, &host, 4096);
    unsigned type = unset<unsigned>();
    for (int round = 0; round < 2; round++)
        TRY(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(host) + 100);
    VALUE(type);
    TRY(cuMemFreeHost, host);
    TRY(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(host) + 100);
    CUdeviceptr managed;
    MUST(cuMemAllocManaged, &managed, 4096, CU_MEM_ATTACH_GLOBAL);
    unsigned is_managed = unset<unsigned>();
    for (int round = 0; round < 2; round++)
        TRY(cuPointerGetAttribute, &is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, managed + 4095);
    VALUE(is_managed);
    TRY(cuMemFree, managed);
    TRY(cuPointerGetAttribute, &is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, managed + 4095);
    // A context takes its memory along.
    CUcontext context;
    MUST(cuCtxCreate, &context, nullptr, 0, 0);
    CUdeviceptr gone = allocate(1 << 20);
    TRY(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, gone);
    TRY(cuCtxDestroy, context);
    TRY(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, gone);
}

SECTION(pointers_host) {
    begin();
    void *pinned, *mapped, *combined;
    MUST(cuMemAllocHost, &pinned, 4096);
    attributes("pinned memory", address(pinned));
    MUST(cuMemHostAlloc, &mapped, 8192, CU_MEMHOSTALLOC_DEVICEMAP);
    attributes("mapped memory", address(mapped) + 100);
    MUST(cuMemHostAlloc, &combined, 4096, CU_MEMHOSTALLOC_WRITECOMBINED | CU_MEMHOSTALLOC_PORTABLE);
    unsigned flags = unset<unsigned>();
    TRY(cuMemHostGetFlags, &flags, pinned);
    VALUE(flags);
    TRY(cuMemHostGetFlags, &flags, mapped);
    VALUE(flags);
    TRY(cuMemHostGetFlags, &flags, combined);
    VALUE(flags);
    int local = 0;
    TRY(cuMemHostGetFlags, &flags, &local);
    CUdeviceptr device = unset<CUdeviceptr>();
    TRY(cuMemHostGetDevicePointer, &device, mapped, 0);
    HOLDS(device == address(mapped));
    TRY(cuMemHostGetDevicePointer, &device, pinned, 0);
    TRY(cuMemHostGetDevicePointer, &device, mapped, 1);
    TRY(cuMemHostGetDevicePointer, &device, &local, 0);
    TRY(cuMemHostAlloc, &pinned, 16, 0x100);
    TRY(cuMemHostAlloc, &pinned, 0, 0);
    TRY(cuMemFreeHost, static_cast<char *>(mapped) + 16);
    TRY(cuMemFree, address(mapped));
    TRY(cuMemFreeHost, mapped);
    TRY(cuMemFreeHost, mapped);
    TRY(cuMemFreeHost, &local);
    attributes("freed host memory", address(mapped));
}

SECTION(pointers_registered) {
    begin();
    char *memory = static_cast<char *>(mmap(nullptr, 16 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memset(memory, 1, 16 * MIB);
    attributes("host memory that nobody registered", address(memory));
    TRY(cuMemHostRegister, memory, MIB, 0);
    attributes("registered memory", address(memory));
    TRY(cuMemHostRegister, memory, MIB, 0);
    TRY(cuMemHostRegister, memory + MIB / 2, MIB, 0);
    TRY(cuMemHostRegister, memory + 4 * MIB, MIB, CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_PORTABLE);
    unsigned flags = unset<unsigned>();
    TRY(cuMemHostGetFlags, &flags, memory + 4 * MIB);
    VALUE(flags);
    TRY(cuMemHostRegister, memory + 8 * MIB + 100, 1000, 0);
    TRY(cuMemHostUnregister, memory + 8 * MIB + 100);
    TRY(cuMemHostRegister, memory + 8 * MIB, 0, 0);
    TRY(cuMemHostRegister, nullptr, MIB, 0);
    TRY(cuMemHostRegister, memory + 8 * MIB, MIB, 0x4000);
    TRY(cuMemHostUnregister, memory + 16);
    TRY(cuMemHostUnregister, memory);
    TRY(cuMemHostUnregister, memory);
    TRY(cuMemHostUnregister, nullptr);
    attributes("unregistered memory", address(memory));
    TRY(cuMemFreeHost, memory + 4 * MIB);
    TRY(cuMemHostUnregister, memory + 4 * MIB);
}

SECTION(pointers_managed) {
    begin();
    CUdeviceptr memory = unset<CUdeviceptr>();
    TRY(cuMemAllocManaged, &memory, 0, CU_MEM_ATTACH_GLOBAL);
    TRY(cuMemAllocManaged, &memory, MIB, 0);
    TRY(cuMemAllocManaged, &memory, MIB, 7);
    TRY(cuMemAllocManaged, &memory, MIB, CU_MEM_ATTACH_GLOBAL);
    attributes("managed memory", memory);
    volatile unsigned *words = reinterpret_cast<volatile unsigned *>(memory);
    words[0] = 41;
    unsigned count = 1;
    void *parameters[] = {&memory, &count};
    TRY(cuLaunchKernel, kernel("add_one"), 1, 1, 1, 32, 1, 1, 0, nullptr, parameters, nullptr);
    TRY(cuCtxSynchronize);
    printf("    first word: %u\n", words[0]);
    CUmemLocation device{CU_MEM_LOCATION_TYPE_DEVICE, {0}}, host{CU_MEM_LOCATION_TYPE_HOST, {0}}, nowhere{CU_MEM_LOCATION_TYPE_DEVICE, {99}};
    TRY(cuMemAdvise, memory, MIB, CU_MEM_ADVISE_SET_READ_MOSTLY, device);
    TRY(cuMemAdvise, memory, MIB, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, device);
    TRY(cuMemAdvise, memory, MIB, CU_MEM_ADVISE_SET_ACCESSED_BY, host);
    TRY(cuMemAdvise, memory, MIB, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, nowhere);
    TRY(cuMemAdvise, memory, MIB, CUmem_advise(99), device);
    TRY(cuMemAdvise, memory, 100 * MIB, CU_MEM_ADVISE_SET_READ_MOSTLY, device);
    int value = unset<int>();
    TRY(cuMemRangeGetAttribute, &value, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, MIB);
    VALUE(value);
    TRY(cuMemRangeGetAttribute, &value, 4, CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory, MIB);
    VALUE(value);
    TRY(cuMemRangeGetAttribute, &value, 4, CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, memory, MIB);
    VALUE(value);
    TRY(cuMemRangeGetAttribute, &value, 3, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, MIB);
    TRY(cuMemPrefetchAsync, memory, MIB, device, 0, nullptr);
    TRY(cuMemPrefetchAsync, memory, MIB, host, 0, nullptr);
    TRY(cuMemPrefetchAsync, memory, MIB, nowhere, 0, nullptr);
    TRY(cuMemPrefetchAsync, memory, MIB, device, 1, nullptr);
    CUdeviceptr plain = allocate(MIB);
    TRY(cuMemPrefetchAsync, plain, MIB, device, 0, nullptr);
    TRY(cuMemAdvise, plain, MIB, CU_MEM_ADVISE_SET_READ_MOSTLY, device);
    TRY(cuStreamAttachMemAsync, nullptr, memory, 0, CU_MEM_ATTACH_HOST);
    TRY(cuCtxSynchronize);
    printf("    first word: %u\n", words[0]);
    TRY(cuMemFree, memory);
}

SECTION(copies) {
    begin();
    CUdeviceptr memory = allocate(1000), other = allocate(1000);
    char host[4096] = {};
    TRY(cuMemcpyHtoD, memory, host, 1000);
    TRY(cuMemcpyDtoH, host, memory, 0);
    TRY(cuMemcpyHtoD, 0x1000, host, 16);
    TRY(cuMemcpyDtoH, host, 0x1000, 16);
    TRY(cuMemcpyDtoD, memory, other, 1000);
    TRY(cuMemcpyDtoD, memory, memory + 4, 100);
    TRY(cuMemcpyDtoD, memory, 0x1000, 100);
    TRY(cuMemcpyDtoD, memory, 0, 100);
    TRY(cuMemcpy, memory, address(host), 100);
    TRY(cuMemcpy, address(host), memory, 100);
    TRY(cuMemcpy, address(host), address(host + 1000), 100);
    TRY(cuMemcpy, memory, other, 0);
    TRY(cuMemcpyHtoDAsync, memory, host, 100, nullptr);
    TRY(cuMemcpyDtoHAsync, host, memory, 100, nullptr);
    TRY(cuMemcpyDtoHAsync, host, 0x1000, 100, nullptr);
    TRY(cuCtxSynchronize);
    TRY(cuMemsetD8, memory, 3, 1000);
    TRY(cuMemsetD16, memory, 0x1234, 500);
    TRY(cuMemsetD16, memory + 1, 0x1234, 100);
    TRY(cuMemsetD32, memory, 1, 250);
    TRY(cuMemsetD32, memory + 2, 1, 10);
    TRY(cuMemsetD32, memory, 1, 0);
    TRY(cuMemsetD32, 0, 1, 10);
    TRY(cuMemsetD32, 0x1000, 1, 10);
    TRY(cuMemsetD2D32, memory, 40, 7, 8, 4);
    TRY(cuMemsetD2D32, memory, 16, 7, 8, 4);
    TRY(cuMemsetD2D8, memory, 100, 7, 200, 4);
    TRY(cuMemcpyPeer, memory, nullptr, other, nullptr, 100);
}

SECTION(copies_too_long) {
    begin();
    CUdeviceptr memory = allocate(4 * MIB);
    std::vector<char> host(64 * MIB);
    TRY(cuMemcpyHtoD, memory, host.data(), 64 * MIB);
    TRY(cuMemcpyDtoH, host.data(), memory, 64 * MIB);
    TRY(cuMemcpyHtoD, memory + 2 * MIB, host.data(), 3 * MIB);
    TRY(cuMemsetD8, memory, 0, 64 * MIB);
    TRY(cuCtxSynchronize);
}

SECTION(copies_2d) {
    begin();
    CUdeviceptr memory = allocate(64 * 64);
    char host[64 * 64] = {};
    CUDA_MEMCPY2D copy{};
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = host;
    copy.srcPitch = 64;
    copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.dstDevice = memory;
    copy.dstPitch = 64;
    copy.WidthInBytes = 32;
    copy.Height = 16;
    TRY(cuMemcpy2D, &copy);
    TRY(cuMemcpy2DUnaligned, &copy);
    TRY(cuMemcpy2DAsync, &copy, nullptr);
    CUDA_MEMCPY2D bad = copy;
    bad.srcPitch = 16;
    TRY(cuMemcpy2D, &bad);
    bad = copy;
    bad.dstPitch = 16;
    TRY(cuMemcpy2D, &bad);
    bad = copy;
    bad.dstXInBytes = 40;
    TRY(cuMemcpy2D, &bad);
    bad = copy;
    bad.Height = 0;
    TRY(cuMemcpy2D, &bad);
    bad = copy;
    bad.WidthInBytes = 0;
    TRY(cuMemcpy2D, &bad);
    bad = copy;
    bad.srcMemoryType = CUmemorytype(77);
    TRY(cuMemcpy2D, &bad);
    bad = copy;
    bad.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    TRY(cuMemcpy2D, &bad);
    bad = copy;
    bad.dstDevice = 0x1000;
    TRY(cuMemcpy2D, &bad);
    bad = copy;
    bad.srcPitch = 0;
    bad.dstPitch = 0;
    TRY(cuMemcpy2D, &bad);
    bad = copy;
    bad.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
    TRY(cuMemcpy2D, &bad);
    CUDA_MEMCPY3D cube{};
    cube.srcMemoryType = CU_MEMORYTYPE_HOST;
    cube.srcHost = host;
    cube.srcPitch = 16;
    cube.srcHeight = 4;
    cube.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    cube.dstDevice = memory;
    cube.dstPitch = 16;
    cube.dstHeight = 4;
    cube.WidthInBytes = 16;
    cube.Height = 4;
    cube.Depth = 4;
    TRY(cuMemcpy3D, &cube);
    CUDA_MEMCPY3D flat = cube;
    flat.Depth = 0;
    TRY(cuMemcpy3D, &flat);
    flat = cube;
    flat.srcHeight = 2;
    TRY(cuMemcpy3D, &flat);
    TRY(cuCtxSynchronize);
}

SECTION(pools) {
    begin();
    CUstream stream = new_stream();
    CUmemoryPool pool = unset<CUmemoryPool>(), standard = nullptr;
    TRY(cuDeviceGetDefaultMemPool, &standard, 0);
    TRY(cuDeviceGetMemPool, &pool, 0);
    HOLDS(pool == standard);
    TRY(cuDeviceGetDefaultMemPool, &pool, 99);
    TRY(cuMemPoolDestroy, standard);
    CUdeviceptr memory = unset<CUdeviceptr>();
    TRY(cuMemAllocAsync, &memory, MIB, stream);
    TRY(cuStreamSynchronize, stream);
    attributes("pool memory", memory);
    uint64_t amount = unset<uint64_t>();
    TRY(cuMemPoolGetAttribute, standard, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &amount);
    VALUE(amount);
    TRY(cuMemPoolGetAttribute, standard, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &amount);
    VALUE(amount);
    TRY(cuMemPoolGetAttribute, standard, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &amount);
    VALUE(amount);
    TRY(cuMemFreeAsync, memory, stream);
    TRY(cuMemFreeAsync, memory, stream);
    TRY(cuStreamSynchronize, stream);
    TRY(cuMemFreeAsync, 0, stream);
    TRY(cuMemAllocAsync, &memory, 0, stream);
    TRY(cuMemAllocAsync, nullptr, 16, stream);
    TRY(cuMemAllocAsync, &memory, size_t(1) << 45, stream);
    TRY(cuMemAllocAsync, &memory, 100, nullptr);
    // Either way of freeing is allowed.
    TRY(cuMemFree, memory);
    CUmemPoolProps properties{};
    TRY(cuMemPoolCreate, &pool, &properties);
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {0}};
    TRY(cuMemPoolCreate, &pool, nullptr);
    TRY(cuMemPoolCreate, nullptr, &properties);
    TRY(cuMemPoolCreate, &pool, &properties);
    TRY(cuMemAllocFromPoolAsync, &memory, 1000, pool, stream);
    int enabled = unset<int>();
    TRY(cuMemPoolGetAttribute, pool, CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, &enabled);
    VALUE(enabled);
    enabled = 0;
    TRY(cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, &enabled);
    amount = 1 << 20;
    TRY(cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &amount);
    TRY(cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &amount);
    amount = 0;
    TRY(cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &amount);
    TRY(cuMemPoolGetAttribute, pool, CUmemPool_attribute(99), &amount);
    CUmemAccess_flags flags = unset<CUmemAccess_flags>();
    CUmemLocation location{CU_MEM_LOCATION_TYPE_DEVICE, {0}};
    TRY(cuMemPoolGetAccess, &flags, pool, &location);
    VALUE(flags);
    CUmemAccessDesc access{location, CU_MEM_ACCESS_FLAGS_PROT_NONE};
    TRY(cuMemPoolSetAccess, pool, &access, 1);
    TRY(cuDeviceSetMemPool, 0, pool);
    TRY(cuMemPoolTrimTo, pool, 0);
    TRY(cuMemFreeAsync, memory, stream);
    TRY(cuStreamSynchronize, stream);
    TRY(cuMemPoolDestroy, pool);
    TRY(cuDeviceGetMemPool, &pool, 0);
    HOLDS(pool == standard);
    CUmemPoolPtrExportData data;
    TRY(cuMemPoolExportPointer, &data, memory);
}

SECTION(virtual_memory) {
    begin();
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {0}};
    size_t step = unset<size_t>();
    TRY(cuMemGetAllocationGranularity, &step, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    VALUE(step);
    TRY(cuMemGetAllocationGranularity, &step, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    VALUE(step);
    TRY(cuMemGetAllocationGranularity, &step, nullptr, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    CUdeviceptr place = unset<CUdeviceptr>();
    TRY(cuMemAddressReserve, &place, step + 1, 0, 0, 0);
    TRY(cuMemAddressReserve, &place, 0, 0, 0, 0);
    TRY(cuMemAddressReserve, &place, step, 3, 0, 0);
    TRY(cuMemAddressReserve, &place, step, 0, 0, 1);
    TRY(cuMemAddressReserve, &place, 4 * step, 0, 0, 0);
    HOLDS(place % step == 0);
    attributes("reserved addresses", place);
    CUmemGenericAllocationHandle memory = unset<CUmemGenericAllocationHandle>();
    TRY(cuMemCreate, &memory, step + 1, &properties, 0);
    TRY(cuMemCreate, &memory, 0, &properties, 0);
    TRY(cuMemCreate, &memory, step, nullptr, 0);
    TRY(cuMemCreate, &memory, step, &properties, 1);
    CUmemAllocationProp wrong = properties;
    wrong.location.id = 99;
    TRY(cuMemCreate, &memory, step, &wrong, 0);
    TRY(cuMemCreate, &memory, 2 * step, &properties, 0);
    TRY(cuMemMap, place + 1, 2 * step, 0, memory, 0);
    TRY(cuMemMap, place, 4 * step, 0, memory, 0);
    TRY(cuMemMap, place, 2 * step, step, memory, 0);
    TRY(cuMemMap, place, 2 * step, 0, memory, 1);
    TRY(cuMemMap, place, 2 * step, 0, 0x1234, 0);
    TRY(cuMemMap, place, 2 * step, 0, memory, 0);
    TRY(cuMemMap, place, 2 * step, 0, memory, 0);
    TRY(cuMemsetD8, place, 1, 16);
    CUmemAccessDesc access{properties.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    unsigned long long flags = unset<unsigned long long>();
    TRY(cuMemGetAccess, &flags, &properties.location, place);
    VALUE(flags);
    TRY(cuMemSetAccess, place, 4 * step, &access, 1);
    TRY(cuMemSetAccess, place, 2 * step, &access, 0);
    TRY(cuMemSetAccess, place, 2 * step, &access, 1);
    TRY(cuMemGetAccess, &flags, &properties.location, place);
    VALUE(flags);
    TRY(cuMemsetD8, place, 1, 16);
    attributes("mapped addresses", place + step);
    CUmemAllocationProp kept{};
    TRY(cuMemGetAllocationPropertiesFromHandle, &kept, memory);
    VALUE(kept.type);
    VALUE(kept.location.id);
    CUmemGenericAllocationHandle same = unset<CUmemGenericAllocationHandle>();
    TRY(cuMemRetainAllocationHandle, &same, reinterpret_cast<void *>(place));
    HOLDS(same == memory);
    TRY(cuMemRelease, same);
    TRY(cuMemAddressFree, place, 4 * step);
    TRY(cuMemFree, place);
    TRY(cuMemRelease, memory);
    TRY(cuMemRelease, memory);
    TRY(cuMemsetD8, place, 1, 16);
    TRY(cuMemUnmap, place, step);
    TRY(cuMemUnmap, place, 2 * step);
    TRY(cuMemUnmap, place, 2 * step);
    TRY(cuMemAddressFree, place, step);
    TRY(cuMemAddressFree, place, 4 * step);
    TRY(cuMemAddressFree, place, 4 * step);
    int descriptor = -1;
    TRY(cuMemCreate, &memory, step, &properties, 0);
    TRY(cuMemExportToShareableHandle, &descriptor, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    TRY(cuMemCreate, &same, step, &properties, 0);
    TRY(cuMemExportToShareableHandle, &descriptor, same, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    HOLDS(descriptor >= 0);
    CUmemGenericAllocationHandle imported = unset<CUmemGenericAllocationHandle>();
    TRY(cuMemImportFromShareableHandle, &imported, reinterpret_cast<void *>(intptr_t(descriptor)),
        CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    CLASS(imported);
}

SECTION(ipc) {
    begin();
    CUdeviceptr memory = allocate(2 * MIB), opened = unset<CUdeviceptr>();
    CUipcMemHandle handle = unset<CUipcMemHandle>();
    TRY(cuIpcGetMemHandle, &handle, memory);
    CLASS(handle);
    // Not in the process that made it.
    TRY(cuIpcOpenMemHandle, &opened, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    TRY(cuIpcCloseMemHandle, memory);
    TRY(cuIpcGetMemHandle, &handle, 0x1000);
    CUdeviceptr managed;
    MUST(cuMemAllocManaged, &managed, MIB, CU_MEM_ATTACH_GLOBAL);
    TRY(cuIpcGetMemHandle, &handle, managed);
    CUevent event, shared;
    MUST(cuEventCreate, &event, CU_EVENT_DISABLE_TIMING);
    CUipcEventHandle event_handle;
    TRY(cuIpcGetEventHandle, &event_handle, event);
    TRY(cuEventCreate, &shared, CU_EVENT_INTERPROCESS);
    TRY(cuEventCreate, &shared, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING);
    TRY(cuIpcGetEventHandle, &event_handle, shared);
}

int main(int count, char **arguments) { return transcript(count, arguments); }
