// Pitched memory and two-dimensional copies and fills, in every direction and with odd widths.
#include <vector>

#include "check.h"

__global__ void transpose_add(const unsigned char *in, size_t in_pitch, unsigned char *out, size_t out_pitch, int width,
                              int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height)
        out[x * out_pitch + y] = in[y * in_pitch + x] + 1;
}

int main() {
    const int width = 133, height = 47, host_pitch = 150;
    unsigned char *a, *b, *t;
    size_t pitch_a, pitch_b, pitch_t;
    CHECK(cudaMallocPitch(&a, &pitch_a, width, height));
    CHECK(cudaMallocPitch(&b, &pitch_b, width, height));
    CHECK(cudaMallocPitch(&t, &pitch_t, height, width));
    EXPECT(pitch_a >= width && pitch_a % 32 == 0 && pitch_a == pitch_b, "pitches %zu and %zu", pitch_a, pitch_b);
    std::vector<unsigned char> source(host_pitch * height), target(host_pitch * height, 0xee);
    Lcg random(2);
    for (unsigned char &x : source)
        x = random.next() >> 24;

    // Host to device, device to device, device to host; bytes beyond the width stay untouched.
    CHECK(cudaMemcpy2D(a, pitch_a, source.data(), host_pitch, width, height, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy2D(b, pitch_b, a, pitch_a, width, height, cudaMemcpyDeviceToDevice));
    CHECK(cudaMemcpy2D(target.data(), host_pitch, b, pitch_b, width, height, cudaMemcpyDeviceToHost));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < host_pitch; x++) {
            int i = y * host_pitch + x;
            int expected = x < width ? source[i] : 0xee;
            EXPECT(target[i] == expected, "(%d,%d): %d, not %d", x, y, target[i], expected);
        }
    printf("pitched_2d: %dx%d host to device to device to host: equal\n", width, height);

    // A window of the image: 20x10 at (7,5) to (100,30), in a stream.
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaMemcpy2DAsync(b + 30 * pitch_b + 100, pitch_b, a + 5 * pitch_a + 7, pitch_a, 20, 10,
                            cudaMemcpyDeviceToDevice, stream));
    CHECK(cudaMemcpy2DAsync(target.data(), host_pitch, b, pitch_b, width, height, cudaMemcpyDefault, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            bool inside = x >= 100 && x < 120 && y >= 30 && y < 40;
            int expected = inside ? source[(y - 25) * host_pitch + x - 93] : source[y * host_pitch + x];
            EXPECT(target[y * host_pitch + x] == expected, "(%d,%d)", x, y);
        }
    printf("pitched_2d: window: equal\n");

    transpose_add<<<dim3((width + 15) / 16, (height + 15) / 16), dim3(16, 16)>>>(a, pitch_a, t, pitch_t, width, height);
    CHECK_KERNEL();
    std::vector<unsigned char> transposed(width * height);
    CHECK(cudaMemcpy2D(transposed.data(), height, t, pitch_t, height, width, cudaMemcpyDeviceToHost));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            EXPECT(transposed[x * height + y] == static_cast<unsigned char>(source[y * host_pitch + x] + 1), "(%d,%d)", x, y);
    printf("pitched_2d: kernel on pitched memory: equal\n");

    // Fills: a rectangle, and one in a stream over it.
    CHECK(cudaMemset2D(a, pitch_a, 0x11, width, height));
    CHECK(cudaMemset2DAsync(a + 3 * pitch_a + 50, pitch_a, 0x22, 31, 7, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpy2D(target.data(), host_pitch, a, pitch_a, width, height, cudaMemcpyDeviceToHost));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            int expected = x >= 50 && x < 81 && y >= 3 && y < 10 ? 0x22 : 0x11;
            EXPECT(target[y * host_pitch + x] == expected, "fill (%d,%d): %#x", x, y, target[y * host_pitch + x]);
        }
    printf("pitched_2d: fills: equal\n");

    // Host to host goes the same way.
    std::vector<unsigned char> copy(width * height);
    CHECK(cudaMemcpy2D(copy.data(), width, source.data(), host_pitch, width, height, cudaMemcpyHostToHost));
    EXPECT(copy[width * 3 + 4] == source[host_pitch * 3 + 4], "host to host");
    EXPECT(cudaMemcpy2D(a, width - 1, source.data(), host_pitch, width, height, cudaMemcpyHostToDevice) ==
               cudaErrorInvalidPitchValue,
           "a pitch below the width was accepted");
    cudaGetLastError();
    printf("pitched_2d: a pitch below the width is refused\n");

    // Three dimensions: a box inside a pitched volume.
    const int depth = 5;
    cudaExtent extent = make_cudaExtent(width, height, depth);
    cudaPitchedPtr volume;
    CHECK(cudaMalloc3D(&volume, extent));
    CHECK(cudaMemset3D(volume, 0x33, extent));
    std::vector<unsigned char> box(width * height * depth), back(box.size(), 0);
    for (unsigned char &x : box)
        x = random.next() >> 24;
    cudaMemcpy3DParms to = {};
    to.srcPtr = make_cudaPitchedPtr(box.data(), width, width, height);
    to.dstPtr = volume;
    to.dstPos = make_cudaPos(10, 4, 1);
    to.extent = make_cudaExtent(100, 40, 3);
    to.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&to));
    cudaMemcpy3DParms from = {};
    from.srcPtr = volume;
    from.dstPtr = make_cudaPitchedPtr(back.data(), width, width, height);
    from.extent = extent;
    from.kind = cudaMemcpyDeviceToHost;
    CHECK(cudaMemcpy3D(&from));
    for (int z = 0; z < depth; z++)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++) {
                bool inside = x >= 10 && x < 110 && y >= 4 && y < 44 && z >= 1 && z < 4;
                int expected = inside ? box[((z - 1) * height + y - 4) * width + x - 10] : 0x33;
                EXPECT(back[(z * height + y) * width + x] == expected, "(%d,%d,%d)", x, y, z);
            }
    printf("pitched_2d: box in a volume: equal\n");
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(t));
    CHECK(cudaFree(volume.ptr));
    return pass();
}
