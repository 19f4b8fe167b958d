// A gibibyte in and out from each kind of host memory, in buffers of 64 MiB: pageable, page-locked, read-only, and pageable at an odd address.
#include <sys/mman.h>

#include <vector>

#include "check.h"

using Word = unsigned long long;

__global__ void step(Word *words, size_t count, Word add) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x)
        words[i] += add;
}

const size_t COUNT = 8 << 20, BYTES = COUNT * sizeof(Word);

// Fills a few words per page: filling all would take longer than copying.
void fill(Word *words, Word seed) {
    for (size_t i = 0; i < COUNT; i += 256)
        words[i] = seed * 1000003 + i;
}

void verify(const Word *words, Word seed, Word added, const char *what) {
    for (size_t i = 0; i < COUNT; i += 256)
        EXPECT(words[i] == seed * 1000003 + i + added, "%s, word %zu: %llu", what, i, words[i]);
}

void round_trips(const char *what, Word *in, Word *out, Word *device, int rounds) {
    for (int round = 0; round < rounds; round++) {
        fill(in, round);
        CHECK(cudaMemcpy(device, in, BYTES, cudaMemcpyHostToDevice));
        step<<<1024, 256>>>(device, COUNT, 17);
        CHECK_KERNEL();
        CHECK(cudaMemcpy(out, device, BYTES, cudaMemcpyDeviceToHost));
        verify(out, round, 17, what);
    }
    printf("%s: %zu MiB in, %zu MiB out\n", what, rounds * (BYTES >> 20), rounds * (BYTES >> 20));
}

int main() {
    Word *device;
    CHECK(cudaMalloc(&device, BYTES));
    {
        std::vector<Word> pageable(COUNT + 1);
        round_trips("pageable", pageable.data(), pageable.data(), device, 16);
        // A page that begins with another's bytes, and ends with them.
        Word before = pageable[0] = 42, *odd = reinterpret_cast<Word *>(reinterpret_cast<char *>(&pageable[0]) + 8);
        fill(odd, 7);
        CHECK(cudaMemcpy(device, odd, BYTES, cudaMemcpyHostToDevice));
        CHECK(cudaMemset(device, 0, BYTES / 2));
        CHECK(cudaMemcpy(odd, device, BYTES, cudaMemcpyDeviceToHost));
        for (size_t i = 0; i < COUNT; i += 256)
            EXPECT(odd[i] == (i < COUNT / 2 ? 0 : 7 * 1000003 + i), "odd address, word %zu: %llu", i, odd[i]);
        EXPECT(pageable[0] == before, "the word before: %llu", pageable[0]);
        printf("odd address: %zu MiB in, %zu MiB out\n", BYTES >> 20, BYTES >> 20);
    }
    {
        Word *pinned;
        CHECK(cudaMallocHost(&pinned, BYTES));
        round_trips("page-locked", pinned, pinned, device, 16);
        CHECK(cudaFreeHost(pinned));
    }
    {
        // Memory that may be read only: nobody can be given more of it than that.
        Word *constant = static_cast<Word *>(
            mmap(nullptr, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        EXPECT(constant != MAP_FAILED, "mmap");
        fill(constant, 3);
        EXPECT(mprotect(constant, BYTES, PROT_READ) == 0, "mprotect");
        CHECK(cudaMemcpy(device, constant, BYTES, cudaMemcpyHostToDevice));
        std::vector<Word> back(COUNT);
        CHECK(cudaMemcpy(back.data(), device, BYTES, cudaMemcpyDeviceToHost));
        verify(back.data(), 3, 0, "read-only");
        munmap(constant, BYTES);
        printf("read-only: %zu MiB in\n", BYTES >> 20);
    }
    CHECK(cudaFree(device));
    return pass();
}
