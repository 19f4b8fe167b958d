// Copies of boxes between pageable and pinned memory, pitched device memory and arrays, in every direction, with gaps and offsets, in streams.
#include <vector>

#include "check.h"

// A volume in any kind of memory, with room around the part that is used.
enum Kind { pageable, pinned, device, array };
const char *const names[] = {"pageable", "pinned", "device", "array"};

const int width = 61, height = 23, depth = 9;

struct Volume {
    Kind kind;
    cudaPitchedPtr memory = {};
    cudaArray_t cells = nullptr;
    std::vector<int> own;

    explicit Volume(Kind kind) : kind(kind) {
        cudaExtent bytes = make_cudaExtent(width * sizeof(int), height, depth);
        switch (kind) {
        case pageable:
            own.assign((width + 3) * height * depth, -1);
            memory = make_cudaPitchedPtr(own.data(), (width + 3) * sizeof(int), width, height);
            break;
        case pinned: {
            void *pointer;
            CHECK(cudaMallocHost(&pointer, width * height * depth * sizeof(int)));
            memory = make_cudaPitchedPtr(pointer, width * sizeof(int), width, height);
            break;
        }
        case device:
            CHECK(cudaMalloc3D(&memory, bytes));
            break;
        case array: {
            cudaChannelFormatDesc format = cudaCreateChannelDesc<int>();
            CHECK(cudaMalloc3DArray(&cells, &format, make_cudaExtent(width, height, depth)));
            break;
        }
        }
    }

    Volume(const Volume &) = delete;

    ~Volume() {
        if (kind == pinned)
            CHECK(cudaFreeHost(memory.ptr));
        if (kind == device)
            CHECK(cudaFree(memory.ptr));
        if (kind == array)
            CHECK(cudaFreeArray(cells));
    }
};

struct Box {
    int x, y, z;
};

// Offsets and widths count elements where an array takes part, bytes elsewhere.
void copy(const Volume &to, Box to_at, const Volume &from, Box from_at, Box size, cudaStream_t stream) {
    bool elements = to.kind == array || from.kind == array;
    int unit = elements ? 1 : sizeof(int);
    auto position = [&](Box at) { return make_cudaPos(at.x * unit, at.y, at.z); };
    cudaMemcpy3DParms parameters = {};
    parameters.srcArray = from.cells;
    parameters.srcPtr = from.memory;
    parameters.srcPos = position(from_at);
    parameters.dstArray = to.cells;
    parameters.dstPtr = to.memory;
    parameters.dstPos = position(to_at);
    parameters.extent = make_cudaExtent(size.x * unit, size.y, size.z);
    parameters.kind = cudaMemcpyDefault;
    if (stream) {
        CHECK(cudaMemcpy3DAsync(&parameters, stream));
        CHECK(cudaStreamSynchronize(stream));
    } else {
        CHECK(cudaMemcpy3D(&parameters));
        CHECK(cudaDeviceSynchronize());
    }
}

int main() {
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    Volume source(pageable), target(pageable);
    const int pitch = width + 3;
    auto at = [](int x, int y, int z) { return (z * height + y) * pitch + x; };
    for (int z = 0; z < depth; z++)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++)
                source.own[at(x, y, z)] = x + 1000 * y + 100000 * z;
    const Box all = {width, height, depth}, none = {0, 0, 0}, size = {20, 7, 4}, from_at = {11, 5, 3}, to_at = {30, 13, 1};
    int pairs = 0;
    for (Kind from_kind : {pageable, pinned, device, array})
        for (Kind to_kind : {pageable, pinned, device, array}) {
            Volume from(from_kind), to(to_kind);
            cudaStream_t in = pairs % 2 ? stream : nullptr;
            // Whole volumes in, a box from one to the other, a whole volume out.
            copy(from, none, source, none, all, in);
            copy(to, none, source, none, all, in);
            copy(to, to_at, from, from_at, size, in);
            copy(target, none, to, none, all, in);
            for (int z = 0; z < depth; z++)
                for (int y = 0; y < height; y++)
                    for (int x = 0; x < pitch; x++) {
                        bool moved = x >= to_at.x && x < to_at.x + size.x && y >= to_at.y && y < to_at.y + size.y &&
                                     z >= to_at.z && z < to_at.z + size.z;
                        int expected = moved ? source.own[at(x - to_at.x + from_at.x, y - to_at.y + from_at.y, z - to_at.z + from_at.z)]
                                             : source.own[at(x, y, z)];
                        EXPECT(target.own[at(x, y, z)] == expected, "%s to %s (%d,%d,%d): %d, not %d", names[from_kind],
                               names[to_kind], x, y, z, target.own[at(x, y, z)], expected);
                    }
            pairs++;
        }
    printf("copies_3d: %d pairs of kinds of memory: equal\n", pairs);

    // Larger than any buffer on the way.
    const int side = 2048;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float4>();
    cudaArray_t large;
    CHECK(cudaMallocArray(&large, &format, side, side));
    std::vector<float4> picture(side * side), back(side * side);
    for (int i = 0; i < side * side; i++)
        picture[i] = make_float4(i, i & 255, i >> 8, 0.5f);
    CHECK(cudaMemcpy2DToArrayAsync(large, 0, 0, picture.data(), side * 16, side * 16, side, cudaMemcpyHostToDevice, stream));
    CHECK(cudaMemcpy2DFromArrayAsync(back.data(), side * 16, large, 0, 0, side * 16, side, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    EXPECT(memcmp(picture.data(), back.data(), picture.size() * sizeof(float4)) == 0, "the picture");
    puts("copies_3d: 64 MiB to an array and back: equal");

    // From array to array, and what does not fit.
    cudaArray_t other;
    CHECK(cudaMallocArray(&other, &format, side, side));
    CHECK(cudaMemcpy2DArrayToArray(other, 16, 1, large, 0, 0, (side - 1) * 16, side - 1));
    CHECK(cudaMemcpy2DFromArray(back.data(), 16, other, 160, 3, 16, 1, cudaMemcpyDeviceToHost));
    const float4 &cell = picture[2 * side + 9];
    EXPECT(back[0].x == cell.x && back[0].y == cell.y, "array to array: %g", back[0].x);
    cudaError_t error = cudaMemcpy2DToArray(large, 16, 0, picture.data(), side * 16, side * 16, side, cudaMemcpyHostToDevice);
    EXPECT(error == cudaErrorInvalidValue, "%s", cudaGetErrorName(error));
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue, "the last error");
    CHECK(cudaFreeArray(large));
    CHECK(cudaFreeArray(other));
    CHECK(cudaStreamDestroy(stream));
    puts("copies_3d: array to array, bounds: equal");
    return pass();
}
