#!/usr/bin/env python3
"""Compares what `fatbin` expects with what the real driver does. Needs an sm_90 device, python3 and libcuda alone.

    python3 fatbin/tests/gpu/select_check.py DIR RESULT.json

DIR was filled by make_select.py. Each container is loaded with cuLibraryLoadData and with cuModuleLoadData; the kernel
`answer` tells which image was taken. Then cuFuncGetParamInfo is asked for every kernel parameter, and
cuFuncGetAttribute for registers, memory and threads. Exit status 1 if anything differs.
"""
import ctypes, json, os, sys

folder, result_path = sys.argv[1:3]
cuda = ctypes.CDLL("libcuda.so.1")
P = ctypes.c_void_p


def name_of(code):
    text = ctypes.c_char_p()
    cuda.cuGetErrorName(code, ctypes.byref(text))
    return (text.value or b"?").decode()


def check(code):
    if code:
        raise RuntimeError(name_of(code))


version, device, context = ctypes.c_int(), ctypes.c_int(), P()
check(cuda.cuInit(0))
check(cuda.cuDriverGetVersion(ctypes.byref(version)))
check(cuda.cuDeviceGet(ctypes.byref(device), 0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
check(cuda.cuCtxSetCurrent(context))
major, minor = ctypes.c_int(), ctypes.c_int()
check(cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device))
check(cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device))
print(f"driver {version.value}, sm_{major.value}{minor.value}")
memory = ctypes.c_uint64()
check(cuda.cuMemAlloc_v2(ctypes.byref(memory), 4))


def call(function):
    check(cuda.cuMemsetD32_v2(memory, 0, ctypes.c_size_t(1)))
    argument = ctypes.c_uint64(memory.value)
    arguments = (P * 1)(ctypes.addressof(argument))
    check(cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, P(), arguments, P()))
    check(cuda.cuCtxSynchronize())
    value = ctypes.c_int()
    check(cuda.cuMemcpyDtoH_v2(ctypes.byref(value), memory, ctypes.c_size_t(4)))
    return value.value


def by_library(image):
    library, kernel, function = P(), P(), P()
    check(cuda.cuLibraryLoadData(ctypes.byref(library), image, P(), P(), 0, P(), P(), 0))
    try:
        check(cuda.cuLibraryGetKernel(ctypes.byref(kernel), library, b"answer"))
        check(cuda.cuKernelGetFunction(ctypes.byref(function), kernel))
        return call(function)
    finally:
        cuda.cuLibraryUnload(library)


def by_module(image):
    module, function = P(), P()
    check(cuda.cuModuleLoadData(ctypes.byref(module), image))
    try:
        check(cuda.cuModuleGetFunction(ctypes.byref(function), module, b"answer"))
        return call(function)
    finally:
        cuda.cuModuleUnload(module)


def attempt(load, image):
    try:
        return load(image)
    except RuntimeError as error:
        return str(error)


def read(*path):
    with open(os.path.join(folder, *path), "rb") as file:
        # The driver reads 64-bit numbers: keep the container aligned, as the linker does.
        return ctypes.create_string_buffer(file.read(), None)


predicted = json.load(open(os.path.join(folder, "predicted.json")))
names = predicted["numbers"]
results, wrong = {}, 0
for case, expected in sorted(predicted["cases"].items()):
    image = read("cases", case)
    got = {"library": attempt(by_library, image), "module": attempt(by_module, image)}
    same = all(
        value == expected["answer"] if expected["answer"] is not None else isinstance(value, str)
        for value in got.values()
    )
    wrong += not same
    results[case] = {"images": expected["images"], "expected": expected["answer"], "got": got, "same": same}
    show = lambda v: names.get(str(v), v)
    print(
        "same" if same else "DIFFERENT", case, "+".join(expected["images"]), "expected",
        show(expected["answer"]), "library", show(got["library"]), "module", show(got["module"]),
    )
print(f"selection: {len(results) - wrong} of {len(results)} as expected")

# Attributes of a function: threads, shared, const, local, registers.
compared, different, details = 0, 0, []
attributes = 0
for program in json.load(open(os.path.join(folder, "params.json"))):
    module = P()
    image = read("params", program["file"])
    code = cuda.cuModuleLoadData(ctypes.byref(module), image)
    if code:
        different += 1
        details.append([program["file"], "load", name_of(code)])
        continue
    for kernel in program["kernels"]:
        function = P()
        code = cuda.cuModuleGetFunction(ctypes.byref(function), module, kernel["name"].encode())
        if code:
            different += 1
            details.append([program["file"], kernel["name"], name_of(code)])
            continue
        real = []
        offset, size = ctypes.c_size_t(), ctypes.c_size_t()
        while True:
            code = cuda.cuFuncGetParamInfo(function, ctypes.c_size_t(len(real)), ctypes.byref(offset), ctypes.byref(size))
            if code:
                break
            real.append({"offset": offset.value, "size": size.value})
        compared += 1
        if real != kernel["params"]:
            different += 1
            details.append([program["file"], kernel["name"], {"ours": kernel["params"], "driver": real}])
        # Machine code alone has these; PTX is compiled by the driver.
        if kernel["registers"] is not None:
            value = ctypes.c_int()
            check(cuda.cuFuncGetAttribute(ctypes.byref(value), 4, function))
            attributes += 1
            if value.value != kernel["registers"]:
                different += 1
                details.append([program["file"], kernel["name"], "registers", kernel["registers"], value.value])
            for number, key in [(1, "shared_size"), (3, "local_size")]:
                check(cuda.cuFuncGetAttribute(ctypes.byref(value), number, function))
                # Notes, no errors: the driver adds what it reserves.
                if value.value != (kernel[key] or 0):
                    details.append([program["file"], kernel["name"], "note", key, kernel[key], value.value])
    cuda.cuModuleUnload(module)
print(f"parameters: {compared} kernels compared, {different} differ; registers of {attributes}")
for detail in details:
    print(detail)
json.dump(
    {"driver": version.value, "sm": major.value * 10 + minor.value, "selection": results,
     "kernels": compared, "different": different, "details": details},
    open(result_path, "w"), indent=1,
)
sys.exit(1 if wrong or different else 0)
