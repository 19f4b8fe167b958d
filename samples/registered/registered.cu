// Memory of the program that kernels use where it is: cudaHostRegister.
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static const size_t MIB = 1 << 20;

__global__ void bump(unsigned *values, unsigned count, unsigned by) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        values[i] += by;
}

struct Job {
    const unsigned *in;
    unsigned *out;
    unsigned count;
};

// The pointers are in memory that is itself the program's.
__global__ void follow(const Job *job) {
    for (unsigned i = threadIdx.x; i < job->count; i += blockDim.x)
        job->out[i] = job->in[i] * 2 + 1;
}

static unsigned *pages(size_t bytes) {
    void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(at != MAP_FAILED, "no memory");
    return static_cast<unsigned *>(at);
}

template <typename T> static T *on_device(T *host) {
    void *device;
    CHECK(cudaHostGetDevicePointer(&device, const_cast<typename std::remove_const<T>::type *>(host), 0));
    return static_cast<T *>(device);
}

// What the program wrote is there, kernels see later writes, and the program theirs.
static void in_place() {
    const unsigned count = 4 * MIB / sizeof(unsigned);
    unsigned *host = pages(4 * MIB);
    for (unsigned i = 0; i < count; i++)
        host[i] = i * 3;
    CHECK(cudaHostRegister(host, 4 * MIB, cudaHostRegisterMapped));
    for (unsigned round = 1; round <= 3; round++) {
        bump<<<64, 256>>>(on_device(host), count, round);
        CHECK_KERNEL();
        for (unsigned i = 0; i < count; i++)
            EXPECT(host[i] == i * 3 + round * (round + 1) / 2 + (round - 1) * 7, "round %u, element %u: %u", round, i, host[i]);
        for (unsigned i = 0; i < count; i++)
            host[i] += 7;
    }
    cudaPointerAttributes attributes;
    CHECK(cudaPointerGetAttributes(&attributes, host + 5));
    EXPECT(attributes.type == cudaMemoryTypeHost, "type %d", static_cast<int>(attributes.type));
    EXPECT(attributes.hostPointer == host + 5, "host pointer %p of %p", attributes.hostPointer, static_cast<void *>(host + 5));
    EXPECT(attributes.devicePointer == on_device(host) + 5, "device pointer %p", attributes.devicePointer);

    // Copies, with the registered memory on each side.
    unsigned *device;
    CHECK(cudaMalloc(&device, 4 * MIB));
    CHECK(cudaMemcpyAsync(device, host, 4 * MIB, cudaMemcpyHostToDevice));
    bump<<<64, 256>>>(device, count, 1);
    CHECK(cudaMemcpyAsync(host, device, 4 * MIB, cudaMemcpyDeviceToHost));
    CHECK(cudaDeviceSynchronize());
    for (unsigned i = 0; i < count; i++)
        EXPECT(host[i] == i * 3 + 6 + 21 + 1, "copied, element %u: %u", i, host[i]);
    CHECK(cudaFree(device));

    // The bytes stay when the registration ends, and when it begins again.
    CHECK(cudaHostUnregister(host));
    for (unsigned i = 0; i < count; i++)
        EXPECT(host[i] == i * 3 + 28, "unregistered, element %u: %u", i, host[i]);
    CHECK(cudaHostRegister(host, 4 * MIB, cudaHostRegisterDefault));
    bump<<<64, 256>>>(on_device(host), count, 2);
    CHECK_KERNEL();
    EXPECT(host[0] == 30 && host[count - 1] == (count - 1) * 3 + 30, "registered again: %u %u", host[0], host[count - 1]);
    CHECK(cudaHostUnregister(host));
    EXPECT(host[1] == 33, "%u", host[1]);
    munmap(host, 4 * MIB);
    printf("registered: kernels and program use the same pages\n");
}

// Fills and copies that name it as memory of the device.
static void filled_in_place() {
    const size_t bytes = 2 * MIB;
    unsigned *host = pages(bytes), *device, *view;
    CHECK(cudaHostRegister(host, bytes, cudaHostRegisterMapped));
    view = on_device(host);
    CHECK(cudaMemset(view, 0x11, bytes));
    CHECK(cudaMemset2DAsync(view + 1024, 4096, 0x22, 8, 100, 0));
    CHECK(cudaDeviceSynchronize());
    EXPECT(host[0] == 0x11111111 && host[1023] == 0x11111111, "filled: %x %x", host[0], host[1023]);
    EXPECT(host[1024] == 0x22222222 && host[1026] == 0x11111111, "rows filled: %x %x", host[1024], host[1026]);
    EXPECT(host[1024 * 100 + 1] == 0x22222222 && host[1024 * 101] == 0x11111111, "rows filled: %x %x", host[1024 * 100 + 1],
           host[1024 * 101]);
    CHECK(cudaMalloc(&device, bytes));
    CHECK(cudaMemset(device, 0x33, bytes));
    CHECK(cudaMemcpy(view + 5, device, 4001, cudaMemcpyDeviceToDevice));
    EXPECT(host[4] == 0x11111111 && host[5] == 0x33333333 && host[1005] == 0x11111133, "copied: %x %x %x", host[4], host[5],
           host[1005]);
    for (unsigned i = 0; i < bytes / sizeof(unsigned); i++)
        host[i] = i;
    CHECK(cudaMemcpyAsync(device, view, bytes, cudaMemcpyDefault));
    bump<<<64, 256>>>(device, bytes / sizeof(unsigned), 1);
    CHECK(cudaMemcpyAsync(view, device, bytes, cudaMemcpyDefault));
    CHECK(cudaMemcpyAsync(view, view + 1024, 4096, cudaMemcpyDeviceToDevice));
    CHECK(cudaDeviceSynchronize());
    for (unsigned i = 0; i < bytes / sizeof(unsigned); i++)
        EXPECT(host[i] == i + 1 + (i < 1024 ? 1024 : 0), "there and back, element %u: %u", i, host[i]);
    CHECK(cudaFree(device));
    CHECK(cudaHostUnregister(host));
    munmap(host, bytes);
    printf("registered: fills and copies in place\n");
}

static void pointers_within() {
    unsigned *in = pages(MIB), *out = pages(MIB);
    Job *job = reinterpret_cast<Job *>(pages(4096));
    for (unsigned i = 0; i < 1000; i++)
        in[i] = i;
    CHECK(cudaHostRegister(in, MIB, cudaHostRegisterMapped | cudaHostRegisterPortable));
    CHECK(cudaHostRegister(out, MIB, cudaHostRegisterMapped));
    CHECK(cudaHostRegister(job, 4096, cudaHostRegisterMapped));
    *job = {on_device(in), on_device(out), 1000};
    follow<<<1, 128>>>(on_device(job));
    CHECK_KERNEL();
    for (unsigned i = 0; i < 1000; i++)
        EXPECT(out[i] == 2 * i + 1, "element %u: %u", i, out[i]);
    // In another order, and one of them without a registration's end.
    munmap(in, MIB);
    CHECK(cudaHostUnregister(in));
    CHECK(cudaHostUnregister(job));
    CHECK(cudaHostUnregister(out));
    EXPECT(out[999] == 1999 && job->count == 1000, "%u %u", out[999], job->count);
    printf("registered: structures with pointers\n");
}

// Kernels may be given the program's own pointers, whatever the flags were and whoever made the memory. Addresses in memory are the device's where that says so.
static void never_asked() {
    int same_address;
    CHECK(cudaDeviceGetAttribute(&same_address, cudaDevAttrCanUseHostPointerForRegisteredMem, 0));
    // More than is replaced at a time where pages are replaced.
    const unsigned count = 20000000;
    unsigned *block = static_cast<unsigned *>(malloc(count * sizeof(unsigned)));
    unsigned *little = pages(4096);
    for (unsigned i = 0; i < count; i++)
        block[i] = i;
    CHECK(cudaHostRegister(block, count * sizeof(unsigned), cudaHostRegisterDefault));
    CHECK(cudaHostRegister(little, 4096, cudaHostRegisterDefault));
    bump<<<64, 256>>>(block, count, 3);
    bump<<<1, 256>>>(little, 1024, 4);
    CHECK_KERNEL();
    for (unsigned i = 0; i < count; i++)
        EXPECT(block[i] == i + 3, "element %u: %u", i, block[i]);
    for (unsigned i = 0; i < 1024; i++)
        EXPECT(little[i] == 4, "element %u: %u", i, little[i]);

    // Registered after a kernel has used such memory, and found by the kernel in it.
    std::vector<unsigned> out(100000);
    Job *job = static_cast<Job *>(aligned_alloc(4096, 4096));
    CHECK(cudaHostRegister(out.data(), out.size() * sizeof(unsigned), cudaHostRegisterDefault));
    *job = same_address ? Job{block, out.data(), 1000} : Job{on_device(block), on_device(out.data()), 1000};
    CHECK(cudaHostRegister(job, 4096, cudaHostRegisterDefault));
    follow<<<1, 128>>>(job);
    CHECK_KERNEL();
    for (unsigned i = 0; i < 1000; i++)
        EXPECT(out[i] == 2 * (i + 3) + 1, "followed, element %u: %u", i, out[i]);
    EXPECT(job->count == 1000 && out[1000] == 0, "%u %u", job->count, out[1000]);
    CHECK(cudaHostUnregister(little));
    munmap(little, 4096);
    CHECK(cudaHostUnregister(job));
    CHECK(cudaHostUnregister(out.data()));
    CHECK(cudaHostUnregister(block));
    EXPECT(block[7] == 10, "%u", block[7]);
    free(block);
    free(job);
    printf("registered: kernels get the program's pointers\n");
}

// A child of a fork has the memory as it was, and writes to its own.
static void forked_once(unsigned *block, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        block[i] = i;
    CHECK(cudaHostRegister(block, count * sizeof(unsigned), cudaHostRegisterMapped));
    bump<<<64, 256>>>(on_device(block), count, 1);
    CHECK_KERNEL();
    fflush(stdout);
    int go[2];
    EXPECT(pipe(go) == 0, "no pipe");
    const pid_t child = fork();
    if (child == 0) {
        char byte;
        int bad = read(go[0], &byte, 1) != 1;
        for (unsigned i = 0; i < count; i++)
            bad |= block[i] != i + 1;
        memset(block, 0xee, count * sizeof(unsigned));
        std::vector<int> more(5000, 1);
        _exit(bad);
    }
    EXPECT(child > 0, "no child");
    // Later writes of the parent and its kernels are not the child's.
    block[3] = 77;
    bump<<<64, 256>>>(on_device(block), count, 1);
    CHECK_KERNEL();
    EXPECT(write(go[1], "x", 1) == 1, "no child");
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child: %#x", status);
    bump<<<64, 256>>>(on_device(block), count, 1);
    CHECK_KERNEL();
    for (unsigned i = 0; i < count; i++)
        EXPECT(block[i] == (i == 3 ? 79 : i + 3), "after the fork, element %u: %u", i, block[i]);
    CHECK(cudaHostUnregister(block));
    close(go[0]);
    close(go[1]);
}

// Beside threads that use the heap, in whose midst one of the blocks is.
static void forked() {
    std::atomic<bool> stop{false};
    std::atomic<unsigned> damaged{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; t++)
        threads.emplace_back([&] {
            std::vector<std::vector<unsigned char>> live(100);
            for (unsigned n = 0; !stop; n++) {
                std::vector<unsigned char> &block = live[n % live.size()];
                for (unsigned char byte : block)
                    damaged += byte != static_cast<unsigned char>(block.size());
                const size_t size = 16 + n * 37 % 3000;
                block = std::vector<unsigned char>(size, static_cast<unsigned char>(size));
            }
        });
    for (int round = 0; round < 5; round++) {
        unsigned *mapped = pages(MIB);
        forked_once(mapped, MIB / sizeof(unsigned));
        munmap(mapped, MIB);
        unsigned *heap = static_cast<unsigned *>(aligned_alloc(4096, 16384));
        forked_once(heap, 4096);
        free(heap);
    }
    stop = true;
    for (std::thread &thread : threads)
        thread.join();
    EXPECT(damaged == 0, "%u bytes of other blocks", damaged.load());
    printf("registered: a forked child has its own\n");
}

// Threads that write all the while lose nothing, whatever happens to the pages.
static void written_meanwhile() {
    const int writers = 3, slots = 1024;
    std::atomic<unsigned> *counters = reinterpret_cast<std::atomic<unsigned> *>(pages(MIB));
    const int stride = MIB / sizeof(unsigned) / slots;
    std::atomic<bool> stop{false};
    std::vector<unsigned long long> written(writers);
    std::vector<std::thread> threads;
    for (int w = 0; w < writers; w++)
        threads.emplace_back([&, w] {
            unsigned long long n = 0;
            while (!stop.load(std::memory_order_relaxed)) {
                counters[(n % slots) * stride].fetch_add(1, std::memory_order_relaxed);
                n++;
            }
            written[w] = n;
        });
    for (int round = 0; round < 50; round++) {
        CHECK(cudaHostRegister(counters, MIB, cudaHostRegisterMapped));
        CHECK(cudaHostUnregister(counters));
    }
    stop = true;
    for (std::thread &thread : threads)
        thread.join();
    unsigned long long expected = 0, found = 0;
    for (unsigned long long n : written)
        expected += n;
    for (int s = 0; s < slots; s++)
        found += counters[s * stride];
    EXPECT(found == expected, "%llu increments, %llu left", expected, found);
    munmap(counters, MIB);
    printf("registered: no write of another thread is lost\n");
}

// What is not of whole pages is registered as well.
static void odd_places() {
    std::vector<char> heap(100000, 'a');
    CHECK(cudaHostRegister(heap.data() + 3, 90001, cudaHostRegisterMapped));
    char *device;
    CHECK(cudaMalloc(&device, 90001));
    CHECK(cudaMemcpy(device, heap.data() + 3, 90001, cudaMemcpyHostToDevice));
    CHECK(cudaMemset(device + 10, 'b', 5));
    CHECK(cudaMemcpy(heap.data() + 3, device, 90001, cudaMemcpyDeviceToHost));
    EXPECT(heap[12] == 'a' && heap[13] == 'b' && heap[17] == 'b' && heap[18] == 'a', "%.*s", 8, heap.data() + 11);
    CHECK(cudaHostUnregister(heap.data() + 3));
    EXPECT(cudaHostUnregister(heap.data() + 3) == cudaErrorHostMemoryNotRegistered, "not registered any more");
    cudaGetLastError();
    unsigned *host = pages(MIB);
    CHECK(cudaHostRegister(host, MIB, cudaHostRegisterMapped));
    EXPECT(cudaHostRegister(host + 1000, 4096, 0) == cudaErrorHostMemoryAlreadyRegistered, "a part of it, again");
    cudaGetLastError();
    CHECK(cudaFree(device));
    // Registered until the end of the program.
    printf("registered: any place\n");
}

int main() {
    CHECK(cudaSetDeviceFlags(cudaDeviceMapHost));
    in_place();
    filled_in_place();
    pointers_within();
    odd_places();
    never_asked();
    forked();
    written_meanwhile();
    return pass();
}
