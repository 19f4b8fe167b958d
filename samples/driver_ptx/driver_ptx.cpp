// The driver API alone, with a PTX file: loaded by name, from memory, and with compiler options and logs.
#include <cmath>

#include "driver.h"

int main() {
    CUdevice device = use_first_device();
    int major = 0;
    CHECK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    EXPECT(major >= 7, "compute capability %d.x", major);

    std::string path = beside_program("driver_ptx.ptx");
    CUmodule module;
    CUfunction saxpy;
    CHECK(cuModuleLoad(&module, path.c_str()));
    CHECK(cuModuleGetFunction(&saxpy, module, "saxpy_offset"));
    const unsigned count = 10000;
    const size_t bytes = count * sizeof(float);
    std::vector<float> x(count), y(count), result(count);
    for (unsigned i = 0; i < count; i++) {
        x[i] = static_cast<float>(i) * 0.5f;
        y[i] = static_cast<float>(i % 100);
    }
    CUdeviceptr device_x, device_y;
    CHECK(cuMemAlloc_v2(&device_x, bytes));
    CHECK(cuMemAlloc_v2(&device_y, bytes));
    CHECK(cuMemcpyHtoD_v2(device_x, x.data(), bytes));
    CHECK(cuMemcpyHtoD_v2(device_y, y.data(), bytes));
    float a = 2.5f;
    unsigned n = count;
    void *parameters[] = {&device_x, &device_y, &a, &n};
    CHECK(cuLaunchKernel(saxpy, (count + 255) / 256, 1, 1, 256, 1, 1, 0, nullptr, parameters, nullptr));
    CHECK(cuCtxSynchronize());
    CHECK(cuMemcpyDtoH_v2(result.data(), device_y, bytes));
    for (unsigned i = 0; i < count; i++) {
        float expected = std::fma(a, x[i], y[i]) + static_cast<float>(i % 4 + 1);
        EXPECT(result[i] == expected, "element %u: %g, not %g", i, result[i], expected);
    }
    printf("driver_ptx: %u elements: equal\n", count);

    // The same parameters as one packed buffer.
    struct {
        CUdeviceptr x, y;
        float a;
        unsigned count;
    } packed = {device_x, device_y, -1.0f, count};
    size_t packed_size = sizeof(packed);
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &packed_size, CU_LAUNCH_PARAM_END};
    CHECK(cuLaunchKernel(saxpy, (count + 127) / 128, 1, 1, 128, 1, 1, 0, nullptr, nullptr, extra));
    std::vector<float> again(count);
    CHECK(cuMemcpyDtoH_v2(again.data(), device_y, bytes));
    for (unsigned i = 0; i < count; i++) {
        float expected = std::fma(-1.0f, x[i], result[i]) + static_cast<float>(i % 4 + 1);
        EXPECT(again[i] == expected, "element %u: %g, not %g", i, again[i], expected);
    }
    printf("driver_ptx: packed parameters: equal\n");

    CUdeviceptr launches;
    size_t size = 0;
    unsigned value = 0;
    CHECK(cuModuleGetGlobal_v2(&launches, &size, module, "launches"));
    CHECK(cuMemcpyDtoH_v2(&value, launches, sizeof(value)));
    printf("driver_ptx: global variable of %zu bytes counts %u launches\n", size, value);
    EXPECT(size == 4 && value == 2, "%zu bytes, %u", size, value);

    // A second copy of the module, from memory, has variables of its own.
    std::vector<char> text = read_file(path);
    text.push_back(0);
    char info[4096] = "", errors[4096] = "";
    CUjit_option options[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER,
                              CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_OPTIMIZATION_LEVEL};
    void *values[] = {info, reinterpret_cast<void *>(sizeof(info)), errors, reinterpret_cast<void *>(sizeof(errors)),
                      reinterpret_cast<void *>(2)};
    CUmodule second;
    CUfunction sum;
    CUdeviceptr other;
    CHECK(cuModuleLoadDataEx(&second, text.data(), 5, options, values));
    CHECK(cuModuleGetGlobal_v2(&other, nullptr, second, "launches"));
    CHECK(cuMemcpyDtoH_v2(&value, other, sizeof(value)));
    EXPECT(other != launches && value == 0, "%u launches", value);
    CHECK(cuModuleGetFunction(&sum, second, "sum_dynamic"));
    const unsigned threads = 512;
    std::vector<unsigned> numbers(threads);
    unsigned expected = 0, total = 0;
    for (unsigned i = 0; i < threads; i++) {
        numbers[i] = i * i + 7;
        expected += numbers[i];
    }
    CHECK(cuMemcpyHtoD_v2(device_x, numbers.data(), threads * sizeof(unsigned)));
    void *sum_parameters[] = {&device_x, &device_y};
    CHECK(cuLaunchKernel(sum, 1, 1, 1, threads, 1, 1, threads * sizeof(unsigned), nullptr, sum_parameters, nullptr));
    CHECK(cuMemcpyDtoH_v2(&total, device_y, sizeof(total)));
    printf("driver_ptx: sum of %u numbers: %u\n", threads, total);
    EXPECT(total == expected, "%u, not %u", total, expected);

    // A mistake in the text: the log says where.
    std::string broken(text.data());
    broken.replace(broken.find("fma.rn.f32"), 10, "fmx.rn.f32");
    CUmodule none;
    // The first load has put the used lengths in the place of the sizes.
    values[1] = reinterpret_cast<void *>(sizeof(info));
    values[3] = reinterpret_cast<void *>(sizeof(errors));
    CUresult error = driver().cuModuleLoadDataEx(&none, broken.c_str(), 4, options, values);
    printf("driver_ptx: unknown instruction: %s, log %s\n", error_name(error),
           strstr(errors, "fmx") ? "names it" : "does not name it");
    EXPECT(strstr(errors, "fmx"), "the log says: %s", errors);

    CHECK(cuModuleUnload(second));
    CHECK(cuModuleUnload(module));
    CHECK(cuMemFree_v2(device_x));
    CHECK(cuMemFree_v2(device_y));
    CHECK(cuDevicePrimaryCtxRelease_v2(device));
    return pass();
}
