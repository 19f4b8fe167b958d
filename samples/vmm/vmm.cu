// Virtual memory management: ranges of addresses, memory without addresses, mappings of one to the other that lie side by side and alias.
#include <vector>

#include <cuda.h>

#include "check.h"
#include "driver_entry.h"

__global__ void fill(unsigned *values, size_t count, unsigned first) {
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        values[i] = first + static_cast<unsigned>(i);
}

#define ENTRY(name) auto name##_ = driver_entry<decltype(&name)>(#name)
#define DRIVER(call)                                                                                                   \
    do {                                                                                                               \
        CUresult driver_error_ = (call);                                                                               \
        EXPECT(driver_error_ == CUDA_SUCCESS, "%s gives %d", #call, driver_error_);                                    \
    } while (0)

int main() {
    CHECK(cudaFree(nullptr));
    ENTRY(cuMemAddressReserve);
    ENTRY(cuMemAddressFree);
    ENTRY(cuMemCreate);
    ENTRY(cuMemRelease);
    ENTRY(cuMemMap);
    ENTRY(cuMemUnmap);
    ENTRY(cuMemSetAccess);
    ENTRY(cuMemGetAccess);
    ENTRY(cuMemGetAllocationGranularity);
    ENTRY(cuMemGetAllocationPropertiesFromHandle);
    ENTRY(cuMemRetainAllocationHandle);
    ENTRY(cuMemExportToShareableHandle);
    ENTRY(cuMemImportFromShareableHandle);

    CUmemAllocationProp prop = {};
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = 0;
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    size_t granule = 0;
    DRIVER(cuMemGetAllocationGranularity_(&granule, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    EXPECT(granule >= 65536 && (granule & (granule - 1)) == 0, "a granularity of %zu", granule);

    // Two pieces of memory at neighbouring addresses are one array.
    const size_t words = granule / 4;
    CUdeviceptr range;
    DRIVER(cuMemAddressReserve_(&range, 4 * granule, 0, 0, 0));
    CUmemGenericAllocationHandle pieces[2];
    CUmemAccessDesc access = {};
    access.location = prop.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    for (int i = 0; i < 2; i++) {
        DRIVER(cuMemCreate_(&pieces[i], granule, &prop, 0));
        DRIVER(cuMemMap_(range + i * granule, granule, 0, pieces[i], 0));
    }
    DRIVER(cuMemSetAccess_(range, 2 * granule, &access, 1));
    unsigned long long flags = 0;
    DRIVER(cuMemGetAccess_(&flags, &prop.location, range + granule));
    EXPECT(flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE, "access %llu", flags);
    unsigned *values = reinterpret_cast<unsigned *>(range);
    fill<<<64, 256>>>(values, 2 * words, 5);
    CHECK_KERNEL();
    std::vector<unsigned> host(2 * words);
    CHECK(cudaMemcpy(host.data(), values, 2 * granule, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < host.size(); i++)
        EXPECT(host[i] == 5 + i, "%zu: %u", i, host[i]);
    puts("vmm: two pieces at neighbouring addresses: equal");

    // The second piece once more, at another address: both see the same bytes.
    DRIVER(cuMemMap_(range + 3 * granule, granule, 0, pieces[1], 0));
    DRIVER(cuMemSetAccess_(range + 3 * granule, granule, &access, 1));
    unsigned *alias = reinterpret_cast<unsigned *>(range + 3 * granule);
    fill<<<64, 256>>>(alias, words, 1000);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(host.data(), values, 2 * granule, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < host.size(); i++)
        EXPECT(host[i] == (i < words ? 5 + i : 1000 + i - words), "%zu: %u", i, host[i]);
    puts("vmm: the same memory at two addresses: equal");

    CUmemGenericAllocationHandle again;
    DRIVER(cuMemRetainAllocationHandle_(&again, reinterpret_cast<void *>(range + granule + 16)));
    CUmemAllocationProp seen = {};
    DRIVER(cuMemGetAllocationPropertiesFromHandle_(&seen, again));
    EXPECT(seen.type == prop.type && seen.location.type == prop.location.type && seen.location.id == 0, "properties");
    DRIVER(cuMemRelease_(again));
    puts("vmm: the memory behind an address: equal");

    // Through a descriptor, in the same program.
    int descriptor = -1;
    DRIVER(cuMemExportToShareableHandle_(&descriptor, pieces[0], CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    EXPECT(descriptor >= 0, "descriptor %d", descriptor);
    CUmemGenericAllocationHandle imported;
    DRIVER(cuMemImportFromShareableHandle_(&imported, reinterpret_cast<void *>(static_cast<size_t>(descriptor)),
                                           CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    DRIVER(cuMemMap_(range + 2 * granule, granule, 0, imported, 0));
    DRIVER(cuMemSetAccess_(range + 2 * granule, granule, &access, 1));
    CHECK(cudaMemcpy(host.data(), reinterpret_cast<void *>(range + 2 * granule), granule, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < words; i++)
        EXPECT(host[i] == 5 + i, "%zu: %u", i, host[i]);
    DRIVER(cuMemRelease_(imported));
    puts("vmm: exported and imported: equal");

    // The memory stays as long as it is mapped.
    DRIVER(cuMemRelease_(pieces[0]));
    DRIVER(cuMemRelease_(pieces[1]));
    CHECK(cudaMemcpy(host.data(), values, 4, cudaMemcpyDeviceToHost));
    EXPECT(host[0] == 5, "%u", host[0]);
    DRIVER(cuMemUnmap_(range, 4 * granule));
    DRIVER(cuMemAddressFree_(range, 4 * granule));
    EXPECT(cuMemAddressFree_(range, 4 * granule) == CUDA_ERROR_INVALID_VALUE, "freed twice");
    puts("vmm: given back");
    return pass();
}
