// Short copies of pageable memory into the device, one after the other: what was in the source when the call was made arrives, in order, however soon the source
// changes; kernels and other threads see it; a wrong address is an error of the call that has it.
#include <atomic>
#include <thread>
#include <vector>

#include "check.h"

const int COUNT = 1024;

__global__ void add(int *sum, const int *values, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x)
        atomicAdd(sum, values[i]);
}

// The source is written anew as soon as the copy returns.
void reused_source(int *device) {
    int value;
    for (int i = 0; i < COUNT; i++) {
        value = i * 7;
        CHECK(cudaMemcpy(device + i, &value, sizeof(value), cudaMemcpyHostToDevice));
        value = -1;
    }
    std::vector<int> back(COUNT);
    CHECK(cudaMemcpy(back.data(), device, COUNT * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < COUNT; i++)
        EXPECT(back[i] == i * 7, "%d: %d", i, back[i]);
    puts("reused source: 1024 copies");
}

// The last of several copies to one place stays.
void same_place(int *device) {
    for (int length = 1; length <= 200000; length = length * 3 + 1) {
        std::vector<char> bytes(length);
        for (int round = 0; round < 5; round++) {
            memset(bytes.data(), round + length, length);
            CHECK(cudaMemcpy(device, bytes.data(), length, cudaMemcpyHostToDevice));
        }
        std::vector<char> back(length);
        CHECK(cudaMemcpy(back.data(), device, length, cudaMemcpyDeviceToHost));
        for (int i = 0; i < length; i++)
            EXPECT(back[i] == static_cast<char>(4 + length), "byte %d of %d: %d", i, length, back[i]);
    }
    puts("same place: the last one stays");
}

// Kernels between them, on the same stream.
void kernels_between(int *device, int *sum) {
    CHECK(cudaMemset(sum, 0, sizeof(int)));
    int expected = 0;
    for (int round = 0; round < 50; round++) {
        int values[64];
        for (int i = 0; i < 64; i++)
            expected += values[i] = round + i;
        CHECK(cudaMemcpy(device, values, sizeof(values), cudaMemcpyHostToDevice));
        add<<<1, 32>>>(sum, device, 64);
        CHECK(cudaGetLastError());
    }
    int found;
    CHECK(cudaMemcpy(&found, sum, sizeof(found), cudaMemcpyDeviceToHost));
    EXPECT(found == expected, "%d, not %d", found, expected);
    printf("kernels between: sum %d\n", found);
}

// A copy by one thread, then work on it by another, on the same stream.
void two_threads(int *device, int *sum) {
    CHECK(cudaMemset(sum, 0, sizeof(int)));
    CHECK(cudaDeviceSynchronize());
    std::atomic<int> turn(0);
    const int rounds = 200;
    std::thread second([&] {
        for (int round = 0; round < rounds; round++) {
            while (turn.load() != 2 * round + 1)
                std::this_thread::yield();
            add<<<1, 32>>>(sum, device, 16);
            CHECK(cudaGetLastError());
            turn.store(2 * round + 2);
        }
    });
    int expected = 0;
    for (int round = 0; round < rounds; round++) {
        int values[16];
        for (int i = 0; i < 16; i++)
            expected += values[i] = round * i;
        CHECK(cudaMemcpy(device, values, sizeof(values), cudaMemcpyHostToDevice));
        turn.store(2 * round + 1);
        while (turn.load() != 2 * round + 2)
            std::this_thread::yield();
    }
    second.join();
    int found;
    CHECK(cudaMemcpy(&found, sum, sizeof(found), cudaMemcpyDeviceToHost));
    EXPECT(found == expected, "%d, not %d", found, expected);
    printf("two threads: sum %d\n", found);
}

// Errors belong to the copy that has them, and to no other.
void wrong_addresses() {
    int *memory, *freed, value = 5;
    CHECK(cudaMalloc(&memory, 1 << 20));
    CHECK(cudaMalloc(&freed, 64 << 20));
    CHECK(cudaMemcpy(freed, &value, sizeof(value), cudaMemcpyHostToDevice));
    CHECK(cudaFree(freed));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(memory, &value, sizeof(value), cudaMemcpyHostToDevice));
    printf("freed: %s\n", cudaGetErrorName(cudaMemcpy(freed, &value, sizeof(value), cudaMemcpyHostToDevice)));
    cudaGetLastError();
    CHECK(cudaMemcpy(memory + 1, &value, sizeof(value), cudaMemcpyHostToDevice));
    printf("NULL: %s\n", cudaGetErrorName(cudaMemcpy(nullptr, &value, sizeof(value), cudaMemcpyHostToDevice)));
    cudaGetLastError();
    int back[2];
    CHECK(cudaMemcpy(back, memory, sizeof(back), cudaMemcpyDeviceToHost));
    EXPECT(back[0] == 5 && back[1] == 5, "%d %d", back[0], back[1]);
    CHECK(cudaFree(memory));
}

int main() {
    int *device, *sum;
    CHECK(cudaMalloc(&device, 1 << 20));
    CHECK(cudaMalloc(&sum, sizeof(int)));
    reused_source(device);
    same_place(device);
    kernels_between(device, sum);
    two_threads(device, sum);
    wrong_addresses();
    CHECK(cudaFree(device));
    CHECK(cudaFree(sum));
    return pass();
}
