// The driver API alone, with a fatbin file: all ways of loading it, streams, events, fills, attributes.
#include <cmath>

#include "driver.h"

void convolve(CUmodule module, const char *how) {
    const int count = 5000;
    std::vector<float> in(count), out(count);
    for (int i = 0; i < count; i++)
        in[i] = static_cast<float>((i * 37) % 101) - 50.0f;
    const float weights[5] = {0.125f, -0.25f, 0.5f, 1.0f, 3.0f};
    CUfunction function;
    CUdeviceptr device_in, device_out, constant;
    size_t size = 0;
    CHECK(cuModuleGetFunction(&function, module, "convolve"));
    CHECK(cuModuleGetGlobal_v2(&constant, &size, module, "weights"));
    EXPECT(size == sizeof(weights), "%zu bytes", size);
    CHECK(cuMemcpyHtoD_v2(constant, weights, sizeof(weights)));
    CHECK(cuMemAlloc_v2(&device_in, count * sizeof(float)));
    CHECK(cuMemAlloc_v2(&device_out, count * sizeof(float)));
    CHECK(cuMemcpyHtoD_v2(device_in, in.data(), count * sizeof(float)));
    int n = count;
    void *parameters[] = {&device_in, &device_out, &n};
    CHECK(cuLaunchKernel(function, 40, 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr));
    CHECK(cuMemcpyDtoH_v2(out.data(), device_out, count * sizeof(float)));
    for (int i = 0; i < count; i++) {
        float sum = 0.0f;
        for (int k = -2; k <= 2; k++)
            if (i + k >= 0 && i + k < count)
                sum = std::fma(in[i + k], weights[k + 2], sum);
        EXPECT(out[i] == sum, "%s, element %d: %g, not %g", how, i, out[i], sum);
    }
    CUdeviceptr blocks;
    int run = 0;
    CHECK(cuModuleGetGlobal_v2(&blocks, nullptr, module, "blocks_run"));
    CHECK(cuMemcpyDtoH_v2(&run, blocks, sizeof(run)));
    CHECK(cuMemFree_v2(device_in));
    CHECK(cuMemFree_v2(device_out));
    printf("driver_fatbin: %s: equal, %d blocks\n", how, run);
    EXPECT(run == 40, "%d blocks", run);
}

int main() {
    CUdevice device = use_first_device();
    std::string path = beside_program("driver_fatbin.fatbin");
    std::vector<char> image = read_file(path);
    CUmodule module;

    CHECK(cuModuleLoad(&module, path.c_str()));
    convolve(module, "cuModuleLoad");
    CHECK(cuModuleUnload(module));
    CHECK(cuModuleLoadFatBinary(&module, image.data()));
    convolve(module, "cuModuleLoadFatBinary");
    CHECK(cuModuleUnload(module));
    CHECK(cuModuleLoadData(&module, image.data()));
    // The image may go as soon as it is loaded.
    std::fill(image.begin(), image.end(), 0);
    convolve(module, "cuModuleLoadData");

    CUfunction transpose, busy;
    CHECK(cuModuleGetFunction(&transpose, module, "transpose"));
    CHECK(cuModuleGetFunction(&busy, module, "busy"));
    int shared = 0, threads = 0;
    CHECK(cuFuncGetAttribute(&shared, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, transpose));
    CHECK(cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, transpose));
    printf("driver_fatbin: transpose uses %d bytes of shared memory\n", shared);
    EXPECT(threads >= 256, "%d threads per block", threads);

    // Two streams and an event between them, pinned memory.
    const int size = 100, cells = size * size;
    const size_t bytes = cells * sizeof(double);
    double *pinned;
    CHECK(cuMemAllocHost_v2(reinterpret_cast<void **>(&pinned), 2 * bytes));
    for (int i = 0; i < cells; i++) {
        pinned[i] = i * 0.5;
        pinned[cells + i] = -1;
    }
    CUstream first, second;
    CUevent ready;
    CUdeviceptr in, out;
    CHECK(cuStreamCreate(&first, CU_STREAM_NON_BLOCKING));
    CHECK(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING));
    CHECK(cuEventCreate(&ready, CU_EVENT_DISABLE_TIMING));
    CHECK(cuMemAlloc_v2(&in, bytes));
    CHECK(cuMemAlloc_v2(&out, bytes));
    int steps = 100000, n = size;
    void *busy_parameters[] = {&out, &steps};
    CHECK(cuLaunchKernel(busy, 1, 1, 1, 64, 1, 1, 0, first, busy_parameters, nullptr));
    CHECK(cuMemcpyHtoDAsync_v2(in, pinned, bytes, first));
    CHECK(cuEventRecord(ready, first));
    CHECK(cuStreamWaitEvent(second, ready, 0));
    void *parameters[] = {&in, &out, &n};
    CHECK(cuLaunchKernel(transpose, 7, 7, 1, 16, 16, 1, 0, second, parameters, nullptr));
    CHECK(cuMemcpyDtoHAsync_v2(pinned + cells, out, bytes, second));
    CHECK(cuStreamSynchronize(second));
    CHECK(cuStreamQuery(second));
    CHECK(cuEventQuery(ready));
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++)
            EXPECT(pinned[cells + x * size + y] == pinned[y * size + x], "(%d,%d)", x, y);
    printf("driver_fatbin: transpose in a second stream: equal\n");

    // Fills of all widths, device to device, address ranges, interior pointers.
    std::vector<unsigned> words(1000);
    CHECK(cuMemsetD32_v2(in, 0xdeadbeef, 1000));
    CHECK(cuMemsetD16_v2(in + 400, 0x1234, 100));
    CHECK(cuMemsetD8_v2(in + 1001, 0x77, 3));
    CHECK(cuMemcpyDtoD_v2(out + 8, in, 4000));
    CHECK(cuMemcpyDtoH_v2(words.data(), out + 8, 4000));
    for (int i = 0; i < 1000; i++) {
        unsigned expected = i >= 100 && i < 150 ? 0x12341234u : i == 250 ? 0x777777efu : 0xdeadbeefu;
        EXPECT(words[i] == expected, "word %d: %#x", i, words[i]);
    }
    CUdeviceptr base;
    size_t range = 0;
    CHECK(cuMemGetAddressRange_v2(&base, &range, in + 12345));
    EXPECT(base == in && range == bytes, "%zu bytes", range);
    CUdeviceptr pitched;
    size_t pitch = 0, free_bytes = 0, total = 0;
    CHECK(cuMemAllocPitch_v2(&pitched, &pitch, 1000, 10, 4));
    EXPECT(pitch >= 1000 && pitch % 32 == 0, "pitch %zu", pitch);
    CHECK(cuMemGetInfo_v2(&free_bytes, &total));
    EXPECT(free_bytes < total, "%zu of %zu bytes free", free_bytes, total);
    printf("driver_fatbin: fills and ranges: equal\n");

    CHECK(cuMemFree_v2(pitched));
    CHECK(cuMemFree_v2(in));
    CHECK(cuMemFree_v2(out));
    CHECK(cuMemFreeHost(pinned));
    CHECK(cuEventDestroy_v2(ready));
    CHECK(cuStreamDestroy_v2(first));
    CHECK(cuStreamDestroy_v2(second));
    CHECK(cuModuleUnload(module));
    CHECK(cuDevicePrimaryCtxRelease_v2(device));
    return pass();
}
