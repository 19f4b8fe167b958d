// The driver's linker: two PTX files that need each other, logs, and a symbol that nobody defines.
#include "driver.h"

int main() {
    CUdevice device = use_first_device();
    std::vector<char> texts[2] = {read_file(beside_program("driver_link.main.ptx")),
                                  read_file(beside_program("driver_link.library.ptx"))};
    const char *names[2] = {"main.ptx", "library.ptx"};
    for (std::vector<char> &text : texts)
        text.push_back(0);
    char info[2048] = "", errors[2048] = "";
    CUjit_option options[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER,
                              CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {info, reinterpret_cast<void *>(sizeof(info)), errors, reinterpret_cast<void *>(sizeof(errors))};
    CUlinkState state;
    CHECK(cuLinkCreate_v2(4, options, values, &state));
    for (int i = 0; i < 2; i++)
        CHECK(cuLinkAddData_v2(state, CU_JIT_INPUT_PTX, texts[i].data(), texts[i].size(), names[i], 0, nullptr, nullptr));
    void *image = nullptr;
    size_t size = 0;
    CHECK(cuLinkComplete(state, &image, &size));
    EXPECT(image != nullptr && size > 0, "%zu bytes", size);
    CUmodule module;
    CHECK(cuModuleLoadData(&module, image));
    CHECK(cuLinkDestroy(state));

    CUfunction function;
    CUdeviceptr device_values, calls;
    const unsigned count = 1000;
    std::vector<unsigned> numbers(count), result(count);
    for (unsigned i = 0; i < count; i++)
        numbers[i] = i * 2654435761u;
    CHECK(cuModuleGetFunction(&function, module, "twist_all"));
    CHECK(cuMemAlloc_v2(&device_values, count * sizeof(unsigned)));
    CHECK(cuMemcpyHtoD_v2(device_values, numbers.data(), count * sizeof(unsigned)));
    unsigned n = count;
    void *parameters[] = {&device_values, &n};
    CHECK(cuLaunchKernel(function, 8, 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr));
    CHECK(cuMemcpyDtoH_v2(result.data(), device_values, count * sizeof(unsigned)));
    for (unsigned i = 0; i < count; i++) {
        unsigned expected = (numbers[i] << 13 | numbers[i] >> 19) ^ 0x5bd1e995u;
        EXPECT(result[i] == expected, "element %u: %#x, not %#x", i, result[i], expected);
    }
    unsigned called = 0;
    CHECK(cuModuleGetGlobal_v2(&calls, nullptr, module, "calls"));
    CHECK(cuMemcpyDtoH_v2(&called, calls, sizeof(called)));
    printf("driver_link: two files, %u elements: equal, %u calls\n", count, called);
    EXPECT(called == 1100, "%u", called);

    // Without the second file the link fails and the log names what is missing.
    memset(errors, 0, sizeof(errors));
    // The first link has put the used lengths in the place of the sizes.
    values[1] = reinterpret_cast<void *>(sizeof(info));
    values[3] = reinterpret_cast<void *>(sizeof(errors));
    CHECK(cuLinkCreate_v2(4, options, values, &state));
    CUresult error =
        driver().cuLinkAddData_v2(state, CU_JIT_INPUT_PTX, texts[0].data(), texts[0].size(), names[0], 0, nullptr, nullptr);
    if (error == CUDA_SUCCESS)
        error = driver().cuLinkComplete(state, &image, &size);
    printf("driver_link: undefined symbols: %s, log %s\n", error != CUDA_SUCCESS ? "an error" : "no error",
           strstr(errors, "twist") || strstr(errors, "calls") || strstr(errors, "steps") ? "names one" : "names none");
    EXPECT(error != CUDA_SUCCESS, "the link succeeded");
    CHECK(cuLinkDestroy(state));
    CHECK(cuMemFree_v2(device_values));
    CHECK(cuModuleUnload(module));
    CHECK(cuDevicePrimaryCtxRelease_v2(device));
    return pass();
}
