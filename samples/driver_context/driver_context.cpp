// Contexts: the stack of each thread, created and primary contexts, and what belongs to which.
#include <thread>

#include "driver.h"

CUcontext current() {
    CUcontext context = reinterpret_cast<CUcontext>(1);
    CHECK(cuCtxGetCurrent(&context));
    return context;
}

int main() {
    CUdevice device;
    CHECK(cuInit(0));
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    EXPECT(current() == nullptr, "a context is current at the start");

    unsigned flags = 77;
    int active = 77;
    CHECK(cuDevicePrimaryCtxGetState(device, &flags, &active));
    printf("driver_context: primary context active: %d\n", active);

    // A created context becomes current; another one covers it until it is popped.
    CUcontext first, second, popped;
    CHECK(cuCtxCreate_v2(&first, 0, device));
    EXPECT(current() == first, "the created context is not current");
    CHECK(cuCtxCreate_v2(&second, CU_CTX_SCHED_BLOCKING_SYNC, device));
    EXPECT(first != second && current() == second, "the second context is not current");
    CHECK(cuCtxPopCurrent_v2(&popped));
    EXPECT(popped == second && current() == first, "after a pop");
    CHECK(cuCtxPushCurrent_v2(second));
    CHECK(cuCtxPushCurrent_v2(first));
    EXPECT(current() == first, "after two pushes");
    CHECK(cuCtxPopCurrent_v2(&popped));
    EXPECT(current() == second, "after another pop");
    CHECK(cuCtxSetCurrent(first));
    CHECK(cuCtxPopCurrent_v2(&popped));
    EXPECT(popped == first && current() == first, "setting replaces the top of the stack");
    unsigned version = 0;
    CHECK(cuCtxGetApiVersion(first, &version));
    EXPECT(version >= 3000, "version %u", version);
    CUdevice of_context = 99;
    CHECK(cuCtxGetDevice(&of_context));
    EXPECT(of_context == device, "device %d", of_context);
    printf("driver_context: stack of two contexts: in order\n");

    // Memory belongs to the context in which it was made, and goes with it.
    CUdeviceptr memory;
    unsigned value = 0;
    CHECK(cuMemAlloc_v2(&memory, 64));
    CHECK(cuMemsetD32_v2(memory, 0x01020304, 16));
    CHECK(cuCtxSynchronize());
    CHECK(cuMemcpyDtoH_v2(&value, memory, sizeof(value)));
    EXPECT(value == 0x01020304, "%#x", value);
    CUcontext owner;
    CHECK(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, memory));
    EXPECT(owner == first, "the memory belongs to another context");
    printf("driver_context: memory knows its context\n");

    // Another thread has a stack of its own, and may use the same context.
    std::thread([&] {
        EXPECT(current() == nullptr, "a new thread has a context");
        CUdevice none;
        CUresult error = driver().cuCtxGetDevice(&none);
        printf("driver_context: without a context: %s", error_name(error));
        error = driver().cuMemAlloc_v2(&memory, 16);
        printf(", %s", error_name(error));
        CUcontext nothing;
        error = driver().cuCtxPopCurrent_v2(&nothing);
        printf(", %s\n", error_name(error));
        CHECK(cuCtxPushCurrent_v2(first));
        CUdeviceptr other;
        CHECK(cuMemAlloc_v2(&other, 64));
        CHECK(cuMemFree_v2(other));
    }).join();
    EXPECT(current() == first, "the other thread changed this one's context");

    CHECK(cuCtxDestroy_v2(second));
    EXPECT(current() == first, "destroying another context");
    CHECK(cuCtxDestroy_v2(first));
    EXPECT(current() != first, "a destroyed context is current");
    printf("driver_context: contexts destroyed\n");

    // The primary context counts its users.
    CUcontext primary, same;
    CHECK(cuDevicePrimaryCtxRetain(&primary, device));
    CHECK(cuDevicePrimaryCtxRetain(&same, device));
    EXPECT(primary == same, "two primary contexts");
    CHECK(cuCtxSetCurrent(primary));
    CHECK(cuMemAlloc_v2(&memory, 4096));
    CHECK(cuDevicePrimaryCtxRelease_v2(device));
    CHECK(cuDevicePrimaryCtxGetState(device, &flags, &active));
    EXPECT(active == 1, "the primary context went with its first user");
    CHECK(cuMemFree_v2(memory));
    CHECK(cuDevicePrimaryCtxRelease_v2(device));
    CHECK(cuDevicePrimaryCtxGetState(device, &flags, &active));
    printf("driver_context: primary context active after two releases: %d\n", active);
    return pass();
}
