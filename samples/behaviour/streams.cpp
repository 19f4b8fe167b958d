// States of streams and events, host functions, memory operations, per-thread streams.
#include "transcript.h"

#include <atomic>
#include <set>
#include <vector>
#include <unistd.h>

SECTION(streams) {
    begin();
    CUstream stream = unset<CUstream>();
    TRY(cuStreamCreate, &stream, 0x80);
    CLASS(stream);
    int least = unset<int>(), greatest = unset<int>(), priority = unset<int>();
    TRY(cuCtxGetStreamPriorityRange, &least, &greatest);
    VALUE(least);
    VALUE(greatest);
    TRY(cuCtxGetStreamPriorityRange, nullptr, nullptr);
    for (int wanted : {-100, -3, -1, 0, 1, 100}) {
        TRY(cuStreamCreateWithPriority, &stream, CU_STREAM_NON_BLOCKING, wanted);
        TRY(cuStreamGetPriority, stream, &priority);
        VALUE(priority);
    }
    unsigned flags = unset<unsigned>();
    TRY(cuStreamGetFlags, stream, &flags);
    VALUE(flags);
    TRY(cuStreamGetFlags, stream, nullptr);
    unsigned long long id = unset<unsigned long long>(), other = unset<unsigned long long>();
    TRY(cuStreamGetId, stream, &id);
    TRY(cuStreamGetId, nullptr, &other);
    HOLDS(id != other);
    CUdevice device = unset<CUdevice>();
    TRY(cuStreamGetDevice, stream, &device);
    VALUE(device);
    CUcontext context = unset<CUcontext>(), current = nullptr;
    TRY(cuStreamGetCtx, stream, &context);
    TRY(cuCtxGetCurrent, &current);
    TRY(cuStreamQuery, stream);
    TRY(cuStreamSynchronize, stream);
    CUlaunchAttributeValue value{};
    TRY(cuStreamGetAttribute, stream, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    VALUE(value.syncPolicy);
    value.syncPolicy = CU_SYNC_POLICY_BLOCKING_SYNC;
    TRY(cuStreamSetAttribute, stream, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    TRY(cuStreamGetAttribute, stream, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value);
    VALUE(value.syncPolicy);
    TRY(cuStreamGetAttribute, stream, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &value);
    CUstream second = new_stream();
    TRY(cuStreamCopyAttributes, second, stream);
    TRY(cuStreamAddCallback, stream, nullptr, nullptr, 0);
    TRY(cuStreamDestroy, stream);
}

SECTION(busy_stream) {
    begin();
    CUstream stream = new_stream(), other = new_stream();
    CUevent before, after;
    MUST(cuEventCreate, &before, 0);
    MUST(cuEventCreate, &after, 0);
    MUST(cuLaunchKernel, kernel("nothing"), 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr);
    MUST(cuStreamSynchronize, stream);
    {
        Gate gate(stream);
        TRY(cuStreamQuery, stream);
        TRY(cuStreamQuery, other);
        TRY(cuEventRecord, before, other);
        TRY(cuEventRecord, after, stream);
        TRY(cuEventQuery, after);
        TRY(cuEventSynchronize, before);
        float ms = unset<float>();
        TRY(cuEventElapsedTime, &ms, before, after);
        TRY(cuStreamWaitEvent, other, after, 0);
        TRY(cuStreamQuery, other);
        TRY(cuStreamWaitEvent, other, after, 0x100);
    }
    TRY(cuStreamSynchronize, other);
    TRY(cuStreamQuery, stream);
    TRY(cuEventQuery, after);
    float ms = unset<float>();
    TRY(cuEventElapsedTime, &ms, before, after);
    HOLDS(ms >= 0);
}

SECTION(destroy_busy_stream) {
    begin();
    CUstream stream = new_stream();
    CUevent event;
    MUST(cuEventCreate, &event, 0);
    {
        Gate gate(stream);
        MUST(cuEventRecord, event, stream);
        TRY(cuStreamDestroy, stream);
        TRY(cuEventQuery, event);
    }
    TRY(cuEventSynchronize, event);
    TRY(cuCtxSynchronize);
}

SECTION(events) {
    begin();
    CUevent timed = unset<CUevent>(), silent = unset<CUevent>(), never = unset<CUevent>();
    TRY(cuEventCreate, &timed, 0x80);
    CLASS(timed);
    TRY(cuEventCreate, &timed, CU_EVENT_BLOCKING_SYNC);
    TRY(cuEventCreate, &silent, CU_EVENT_DISABLE_TIMING);
    TRY(cuEventCreate, &never, 0);
    // Before it was ever recorded it counts as done.
    TRY(cuEventQuery, never);
    TRY(cuEventSynchronize, never);
    TRY(cuStreamWaitEvent, nullptr, never, 0);
    TRY(cuEventRecord, timed, nullptr);
    TRY(cuEventRecord, silent, nullptr);
    TRY(cuCtxSynchronize);
    float ms = unset<float>();
    TRY(cuEventElapsedTime, &ms, timed, silent);
    TRY(cuEventElapsedTime, &ms, timed, never);
    TRY(cuEventElapsedTime, &ms, nullptr, timed);
    TRY(cuEventElapsedTime, nullptr, timed, timed);
    VALUE(ms);
    TRY(cuEventElapsedTime, &ms, timed, timed);
    VALUE(ms);
    TRY(cuEventRecordWithFlags, timed, nullptr, 0x40);
    TRY(cuEventRecordWithFlags, timed, nullptr, CU_EVENT_RECORD_EXTERNAL);
    CUcontext context;
    MUST(cuCtxCreate, &context, nullptr, 0, 0);
    CUstream elsewhere = new_stream();
    TRY(cuEventRecord, timed, elsewhere);
    TRY(cuStreamWaitEvent, elsewhere, timed, 0);
    CUevent there;
    MUST(cuEventCreate, &there, 0);
    TRY(cuEventRecord, there, elsewhere);
    TRY(cuStreamSynchronize, elsewhere);
    TRY(cuEventElapsedTime, &ms, timed, there);
    TRY(cuEventDestroy, timed);
    TRY(cuCtxDestroy, context);
}

// Made, recorded, waited for and destroyed by a thread each, many times; some are destroyed before their work is done.
SECTION(events_of_threads) {
    begin();
    CUcontext context = nullptr;
    MUST(cuCtxGetCurrent, &context);
    CUstream stream = new_stream(), other = new_stream();
    CUdeviceptr memory = allocate(4);
    MUST(cuMemsetD32, memory, 0, 1);
    CUfunction add_one = kernel("add_one");
    unsigned count = 1;
    void *parameters[] = {&memory, &count};
    const int rounds = 300;
    std::vector<CUevent> events(rounds);
    int wrong = 0;
    auto in_thread = [&](auto step) {
        std::thread([&] {
            MUST(cuCtxSetCurrent, context);
            for (int round = 0; round < rounds; round++)
                step(round);
        }).join();
    };
    const unsigned flags[] = {CU_EVENT_DEFAULT, CU_EVENT_DISABLE_TIMING, CU_EVENT_BLOCKING_SYNC};
    in_thread([&](int round) {
        MUST(cuEventCreate, &events[round], flags[round % 3]);
        wrong += DRIVER(cuEventQuery)(events[round]) != CUDA_SUCCESS;
    });
    HOLDS(std::set<CUevent>(events.begin(), events.end()).size() == size_t(rounds));
    in_thread([&](int round) {
        MUST(cuLaunchKernel, add_one, 1, 1, 1, 1, 1, 1, 0, round % 2 ? stream : other, parameters, nullptr);
        MUST(cuEventRecord, events[round], round % 2 ? stream : other);
        MUST(cuStreamWaitEvent, round % 2 ? other : stream, events[round], 0);
        if (round % 4 == 0)
            MUST(cuEventDestroy, events[round]);
    });
    in_thread([&](int round) {
        if (round % 4 == 0)
            return;
        wrong += DRIVER(cuEventSynchronize)(events[round]) != CUDA_SUCCESS;
        wrong += DRIVER(cuEventQuery)(events[round]) != CUDA_SUCCESS;
        MUST(cuEventDestroy, events[round]);
    });
    VALUE(wrong);
    TRY(cuCtxSynchronize);
    unsigned sum = unset<unsigned>();
    TRY(cuMemcpyDtoH, &sum, memory, 4);
    VALUE(sum);
    // One that another context's thread destroys, and one that nobody's does.
    CUevent event = unset<CUevent>();
    MUST(cuEventCreate, &event, 0);
    CUcontext second;
    MUST(cuCtxCreate, &second, nullptr, 0, 0);
    TRY(cuEventDestroy, event);
    TRY(cuCtxDestroy, second);
    TRY(cuCtxSynchronize);
}

namespace {

std::atomic<int> calls;

void CUDA_CB on_host(void *data) { calls += *static_cast<int *>(data); }

void CUDA_CB with_driver_call(void *data) {
    CUdeviceptr memory;
    *static_cast<CUresult *>(data) = DRIVER(cuMemAlloc)(&memory, 16);
}

void CUDA_CB on_callback(CUstream, CUresult status, void *data) {
    *static_cast<CUresult *>(data) = status;
    calls += 1;
}

} // namespace

SECTION(host_functions) {
    begin();
    CUstream stream = new_stream();
    int one = 1, ten = 10;
    {
        Gate gate(stream);
        TRY(cuLaunchHostFunc, stream, on_host, &one);
        TRY(cuLaunchHostFunc, stream, on_host, &ten);
        printf("    calls: %d\n", calls.load());
    }
    TRY(cuStreamSynchronize, stream);
    printf("    calls: %d\n", calls.load());
    CUresult inside = unset<CUresult>();
    TRY(cuLaunchHostFunc, stream, with_driver_call, &inside);
    TRY(cuStreamSynchronize, stream);
    printf("    a driver call there: %s\n", result_name(inside));
    TRY(cuLaunchHostFunc, stream, nullptr, nullptr);
    TRY(cuStreamAddCallback, stream, on_callback, &inside, 0);
    TRY(cuStreamAddCallback, stream, on_callback, &inside, 1);
    TRY(cuStreamSynchronize, stream);
    printf("    status there: %s, calls: %d\n", result_name(inside), calls.load());
    TRY(cuLaunchHostFunc, nullptr, on_host, &one);
    TRY(cuCtxSynchronize);
    printf("    calls: %d\n", calls.load());
}

SECTION(memory_operations) {
    begin();
    CUstream waits = new_stream(), writes = new_stream();
    CUdeviceptr memory = allocate(16);
    TRY(cuStreamWaitValue32, waits, memory, 5, CU_STREAM_WAIT_VALUE_EQ);
    TRY(cuStreamQuery, waits);
    TRY(cuStreamWriteValue32, writes, memory, 5, 0);
    TRY(cuStreamSynchronize, waits);
    TRY(cuStreamWriteValue64, writes, memory + 8, 77, 0);
    TRY(cuStreamWriteValue32, writes, memory + 1, 5, 0);
    TRY(cuStreamWriteValue64, writes, memory + 4, 5, 0);
    TRY(cuStreamWriteValue32, writes, 0x1000, 5, 0);
    TRY(cuStreamWaitValue32, waits, memory, 5, 0x1000);
    CUstreamBatchMemOpParams operations[2]{};
    operations[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    operations[0].writeValue.address = memory;
    operations[0].writeValue.value = 9;
    operations[1].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    operations[1].waitValue.address = memory;
    operations[1].waitValue.value = 9;
    operations[1].waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
    TRY(cuStreamBatchMemOp, writes, 2, operations, 0);
    TRY(cuStreamBatchMemOp, writes, 0, operations, 0);
    // Not tried: no list, and more operations than the list has. Drivers read on all the same.
    TRY(cuCtxSynchronize);
    uint64_t words[2] = {};
    TRY(cuMemcpyDtoH, words, memory, 16);
    VALUE(words[0]);
    VALUE(words[1]);
}

SECTION(threads) {
    begin();
    CUcontext context = nullptr;
    MUST(cuCtxGetCurrent, &context);
    std::thread([&] {
        TRY(cuStreamSynchronize, CU_STREAM_PER_THREAD);
        TRY(cuCtxSynchronize);
        CUstream stream = unset<CUstream>();
        // What is in the variable afterwards is not asked about: without a context a driver stores what its own variable happened to hold.
        TRY(cuStreamCreate, &stream, 0);
        TRY(cuCtxSetCurrent, context);
        TRY(cuStreamSynchronize, CU_STREAM_PER_THREAD);
        TRY(cuLaunchKernel, kernel("nothing"), 1, 1, 1, 1, 1, 1, 0, CU_STREAM_PER_THREAD, nullptr, nullptr);
        TRY(cuStreamSynchronize, CU_STREAM_PER_THREAD);
    }).join();
}

int main(int count, char **arguments) { return transcript(count, arguments); }
