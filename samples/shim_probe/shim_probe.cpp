// What `cargo xtask test` asks of the library beyond what samples can show: `shim_probe <task>`. Not a sample: NVIDIA's driver has other answers to
// some of it, and most tasks only make sense together with the test that runs them (xtask/src/test_shim/).
#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include <sys/wait.h>

#include "driver.h"

const char *KERNELS = R"(
.version 7.0
.target sm_75
.address_size 64
.visible .entry fill(.param .u64 where, .param .u32 value, .param .u32 rounds)
{
    .reg .b64 %p, %offset;
    .reg .b32 %index, %size, %block, %value, %rounds;
    .reg .pred %more;
    ld.param.u64 %p, [where];
    ld.param.u32 %value, [value];
    ld.param.u32 %rounds, [rounds];
    mov.u32 %block, %ctaid.x;
    mov.u32 %size, %ntid.x;
    mov.u32 %index, %tid.x;
    mad.lo.u32 %index, %block, %size, %index;
    mul.wide.u32 %offset, %index, 4;
    add.u64 %p, %p, %offset;
again:
    st.volatile.global.u32 [%p], %value;
    sub.u32 %rounds, %rounds, 1;
    setp.ne.u32 %more, %rounds, 0;
    @%more bra again;
    ret;
}
.visible .entry spin() { again: bra again; }
)";

// Many words of device memory, a kernel that fills them, and the module that both come from.
struct Work {
    static constexpr unsigned BLOCKS = 64, THREADS = 128, WORDS = BLOCKS * THREADS;
    CUcontext context = nullptr;
    CUmodule module = nullptr;
    CUfunction fill = nullptr;
    CUdeviceptr memory = 0;

    // A second object in the same process starts from nothing as well: after a fork, for instance.
    Work() {
        use_first_device();
        CHECK(cuCtxGetCurrent(&context));
        CHECK(cuModuleLoadData(&module, KERNELS));
        CHECK(cuModuleGetFunction(&fill, module, "fill"));
        CHECK(cuMemAlloc_v2(&memory, WORDS * 4));
    }
    CUresult launch(unsigned value, CUstream stream = nullptr, unsigned rounds = 1) {
        void *parameters[] = {&memory, &value, &rounds};
        return driver().cuLaunchKernel(fill, BLOCKS, 1, 1, THREADS, 1, 1, 0, stream, parameters, nullptr);
    }
    void expect(unsigned value) {
        std::vector<unsigned> words(WORDS);
        CHECK(cuMemcpyDtoH_v2(words.data(), memory, WORDS * 4));
        for (unsigned word : words)
            EXPECT(word == value, "%#x instead of %#x", word, value);
    }
    void round(unsigned value) {
        EXPECT(launch(value) == CUDA_SUCCESS, "launch");
        expect(value);
    }
};

void say(const char *text) {
    puts(text);
    fflush(stdout);
}

void launch_spin() {
    Work work;
    CUfunction kernel;
    CHECK(cuModuleGetFunction(&kernel, work.module, "spin"));
    CHECK(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
}

void spin() {
    launch_spin();
    say("spinning");
}

int wait_for(pid_t child) {
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child, "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// A child that uses CUDA afresh while its parent goes on.
int fork_use() {
    Work work;
    work.round(1);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        // Nothing of the parent's is there: neither its context nor its memory.
        CUcontext context;
        EXPECT(driver().cuCtxGetCurrent(&context) == CUDA_ERROR_NOT_INITIALIZED, "a child has the parent's session");
        EXPECT(driver().cuMemFree_v2(work.memory) == CUDA_ERROR_NOT_INITIALIZED, "a child can free the parent's memory");
        Work own;
        for (unsigned i = 0; i < 200; i++)
            own.round(0x10000 + i);
        // Its own child in turn.
        pid_t grandchild = fork();
        if (grandchild == 0) {
            Work third;
            third.round(7);
            exit(43);
        }
        EXPECT(wait_for(grandchild) == 43, "grandchild");
        own.round(8);
        exit(42);
    }
    for (unsigned i = 0; i < 200; i++)
        work.round(i);
    EXPECT(wait_for(child) == 42, "child");
    work.round(0x77);
    return pass();
}

// Children that do nothing with CUDA, from a program that is in the middle of something.
int fork_idle() {
    Work work;
    std::atomic<bool> stop{false};
    // Holds locks of the library at whatever moment the fork comes.
    std::thread other([&] {
        CHECK(cuCtxSetCurrent(work.context));
        CUdeviceptr memory;
        while (!stop) {
            CHECK(cuMemAlloc_v2(&memory, 4096));
            CHECK(cuMemFree_v2(memory));
        }
    });
    for (unsigned i = 0; i < 30; i++) {
        EXPECT(work.launch(i, nullptr, 100) == CUDA_SUCCESS, "launch");
        pid_t child = fork();
        if (child == 0) {
            if (i % 3 == 0)
                _exit(1);
            if (i % 3 == 1)
                exit(1);
            execl("/bin/false", "false", nullptr);
            _exit(127);
        }
        EXPECT(wait_for(child) == 1, "child %u", i);
        work.expect(i);
    }
    // One that uses CUDA while another thread of its parent was in the middle of a call.
    for (unsigned i = 0; i < 10; i++) {
        pid_t child = fork();
        if (child == 0) {
            Work own;
            own.round(i);
            _exit(2);
        }
        EXPECT(wait_for(child) == 2, "child");
    }
    stop = true;
    other.join();
    work.round(0x78);
    return pass();
}

// A program that forks while a child still has its parent's descriptors: the parent's end must be noticed all the same.
int fork_outlive() {
    Work work;
    work.round(1);
    pid_t child = fork();
    if (child == 0) {
        // Longer than the test runs.
        sleep(600);
        _exit(0);
    }
    printf("child %d\n", child);
    return pass();
}

// Closes the library while a thread that has used it lives on, and opens it again.
int reopen() {
    std::atomic<int> phase{0};
    std::thread other;
    for (unsigned round = 0; round < 5; round++) {
        void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        EXPECT(library, "%s", dlerror());
        auto init = reinterpret_cast<decltype(&cuInit)>(dlsym(library, "cuInit"));
        auto count = reinterpret_cast<decltype(&cuDeviceGetCount)>(dlsym(library, "cuDeviceGetCount"));
        int devices = 0;
        EXPECT(init(0) == CUDA_SUCCESS && count(&devices) == CUDA_SUCCESS && devices > 0, "round %u", round);
        if (round == 0) {
            other = std::thread([&] {
                int devices = 0;
                EXPECT(count(&devices) == CUDA_SUCCESS, "thread");
                phase = 1;
                while (phase != 2)
                    usleep(1000);
            });
            while (phase != 1)
                usleep(1000);
        }
        dlclose(library);
        // The thread ends while the library is closed.
        if (round == 2) {
            phase = 2;
            other.join();
        }
    }
    return pass();
}

// Threads that end with work pending, one after another and all at once.
int threads() {
    Work work;
    CUdeviceptr memory;
    const unsigned count = 64;
    CHECK(cuMemAlloc_v2(&memory, count * 4096));
    auto post = [&](unsigned i) {
        CHECK(cuCtxSetCurrent(work.context));
        CHECK(cuMemsetD8_v2(memory + i * 4096, static_cast<unsigned char>(i + 1), 4096));
        unsigned rounds = 2000, value = 0x01010101 * (i + 1);
        CUdeviceptr where = memory + i * 4096;
        CUstream stream;
        CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
        void *parameters[] = {&where, &value, &rounds};
        CHECK(cuLaunchKernel(work.fill, 1, 1, 1, 1024, 1, 1, 0, stream, parameters, nullptr));
    };
    for (int turn = 0; turn < 3; turn++) {
        std::vector<std::thread> all;
        for (unsigned i = 0; i < count; i++) {
            if (turn == 0)
                std::thread(post, i).join();
            else
                all.emplace_back(post, i);
        }
        for (std::thread &thread : all)
            thread.join();
        CHECK(cuCtxSynchronize());
        std::vector<unsigned char> bytes(count * 4096);
        CHECK(cuMemcpyDtoH_v2(bytes.data(), memory, bytes.size()));
        for (size_t i = 0; i < bytes.size(); i++)
            EXPECT(bytes[i] == i / 4096 + 1, "byte %zu is %u", i, bytes[i]);
    }
    return pass();
}

// exit() in a thread, while others are in the middle of calls.
int exit_thread() {
    Work work;
    for (unsigned i = 0; i < 4; i++)
        std::thread([&work, i] {
            CHECK(cuCtxSetCurrent(work.context));
            for (unsigned value = 0;; value++) {
                CUresult result = i % 2 ? work.launch(value) : driver().cuCtxSynchronize();
                // What NVIDIA's driver says once it is being taken down.
                if (result != CUDA_SUCCESS && result != CUDA_ERROR_DEINITIALIZED) {
                    fprintf(stderr, "%s\n", error_name(result));
                    abort();
                }
            }
        }).detach();
    std::thread([] {
        usleep(100000);
        exit(21);
    }).join();
    return 1;
}

// A kernel that never ends, and a program that waits for it.
int spin_wait() {
    spin();
    CUresult result = driver().cuCtxSynchronize();
    printf("%s\n", error_name(result));
    return 0;
}

int spin_copy() {
    Work work;
    spin();
    unsigned word;
    printf("%s\n", error_name(driver().cuMemcpyDtoH_v2(&word, work.memory, 4)));
    return 0;
}

// The wait is in one thread, and others come after it.
int spin_threads() {
    Work work;
    launch_spin();
    CUresult results[4];
    std::atomic<int> ready{0};
    std::vector<std::thread> all;
    for (CUresult &result : results)
        all.emplace_back([&] {
            size_t available, total;
            CHECK(cuCtxSetCurrent(work.context));
            CHECK(cuMemGetInfo_v2(&available, &total));
            if (++ready == 4)
                say("spinning");
            result = driver().cuCtxSynchronize();
        });
    for (std::thread &thread : all)
        thread.join();
    printf("%s\n", error_name(results[0]));
    for (CUresult result : results)
        EXPECT(result == results[0], "%s", error_name(result));
    return 0;
}

// Calls without end, of one kind.
int until_error(const std::function<CUresult()> &call) {
    say("spinning");
    CUresult result;
    do
        result = call();
    while (result == CUDA_SUCCESS);
    printf("%s\n", error_name(result));
    // Everything else fails too, and nothing hangs.
    CUdeviceptr memory;
    EXPECT(driver().cuMemAlloc_v2(&memory, 16) != CUDA_SUCCESS, "an allocation without a host");
    EXPECT(driver().cuCtxSynchronize() != CUDA_SUCCESS, "a wait without a host");
    return 0;
}

int loop_launch() {
    Work work;
    return until_error([&] { return work.launch(1); });
}

int loop_call() {
    Work work;
    return until_error([&] {
        CUdeviceptr memory;
        CUresult result = driver().cuMemAlloc_v2(&memory, 4096);
        return result == CUDA_SUCCESS ? driver().cuMemFree_v2(memory) : result;
    });
}

int loop_copy() {
    Work work;
    std::vector<char> bytes(16 << 20);
    CUdeviceptr memory;
    CHECK(cuMemAlloc_v2(&memory, bytes.size()));
    return until_error([&] { return driver().cuMemcpyHtoD_v2(memory, bytes.data(), bytes.size()); });
}

// Works until its input ends: the program beside one that is killed.
int steady() {
    Work work;
    say("working");
    std::atomic<bool> stop{false};
    std::thread reader([&] {
        char byte;
        while (read(0, &byte, 1) > 0)
            ;
        stop = true;
    });
    unsigned rounds = 0;
    do
        work.round(rounds++);
    while (!stop);
    reader.join();
    printf("%u rounds\n", rounds);
    return pass();
}

int devices() {
    CUresult initialised = driver().cuInit(0);
    printf("cuInit: %s\n", error_name(initialised));
    printf("cuInit again: %s\n", error_name(driver().cuInit(0)));
    int count = -1;
    CUresult counted = driver().cuDeviceGetCount(&count);
    printf("cuDeviceGetCount: %s, %d\n", error_name(counted), count);
    return 0;
}

// A file of device code, and what the driver says about it.
int load(const std::string &path) {
    use_first_device();
    CUmodule module;
    std::vector<char> bytes = read_file(path), info(8192), error(8192);
    bytes.push_back(0);
    CUjit_option keys[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER,
                           CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {info.data(), reinterpret_cast<void *>(info.size()), error.data(), reinterpret_cast<void *>(error.size())};
    CUresult result = driver().cuModuleLoadDataEx(&module, bytes.data(), 4, keys, values);
    printf("%s\n%s\n", error_name(result), error.data());
    return 0;
}

int load_file(const char *path) {
    use_first_device();
    CUmodule module;
    printf("%s\n", error_name(driver().cuModuleLoad(&module, path)));
    return 0;
}

// Calls that the library knows only by name.
int unhandled() {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    EXPECT(library, "%s", dlerror());
    for (const char *name : {"cuGLInit", "cuVDPAUGetDevice", "cuGLInit", "cuGLInit"}) {
        auto function = reinterpret_cast<CUresult (*)(void *)>(dlsym(library, name));
        EXPECT(function, "%s", name);
        printf("%s: %s\n", name, error_name(function(nullptr)));
    }
    return 0;
}

int work() {
    Work work;
    for (unsigned i = 0; i < 10; i++)
        work.round(i);
    return pass();
}

int main(int argc, char **argv) {
    const std::map<std::string, std::function<int()>> tasks = {
        {"work", work},           {"steady", steady},         {"fork-use", fork_use},         {"fork-idle", fork_idle},
        {"threads", threads},     {"reopen", reopen},         {"fork-outlive", fork_outlive}, {"exit-thread", exit_thread},
        {"spin-wait", spin_wait}, {"spin-copy", spin_copy},   {"spin-threads", spin_threads}, {"loop-launch", loop_launch},
        {"loop-call", loop_call}, {"loop-copy", loop_copy},   {"devices", devices},           {"unhandled", unhandled},
        {"load-file", [&] { return argc > 2 ? load_file(argv[2]) : 2; }},
        {"load", [&] { return argc > 2 ? load(argv[2]) : 2; }},
    };
    auto task = argc > 1 ? tasks.find(argv[1]) : tasks.end();
    if (task == tasks.end()) {
        fprintf(stderr, "usage: shim_probe TASK; tasks:");
        for (const auto &entry : tasks)
            fprintf(stderr, " %s", entry.first.c_str());
        fputc('\n', stderr);
        return 2;
    }
    return task->second();
}
