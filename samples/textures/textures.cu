// Texture and surface objects: arrays of one, two and three dimensions, layers, mipmap levels, linear memory, filters and borders.
#include <vector>

#include "check.h"

__global__ void read_1d(cudaTextureObject_t texture, const float *at, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        out[i] = tex1D<float>(texture, at[i]);
}

__global__ void fetch_linear(cudaTextureObject_t texture, int4 *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        uchar4 v = tex1Dfetch<uchar4>(texture, i);
        out[i] = make_int4(v.x, v.y, v.z, v.w);
    }
}

__global__ void read_2d(cudaTextureObject_t texture, const float2 *at, float *out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        out[i] = tex2D<float>(texture, at[i].x, at[i].y);
}

__global__ void read_3d(cudaTextureObject_t texture, float *out, int width, int height, int depth) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < width * height * depth)
        out[i] = tex3D<float>(texture, i % width + 0.5f, i / width % height + 0.5f, i / (width * height) + 0.5f);
}

__global__ void read_layers(cudaTextureObject_t texture, int *out, int width, int height, int layers) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < width * height * layers)
        out[i] = tex2DLayered<int>(texture, i % width + 0.5f, i / width % height + 0.5f, i / (width * height));
}

__global__ void read_levels(cudaTextureObject_t texture, float *out, int levels) {
    int level = threadIdx.x;
    if (level < levels)
        out[level] = tex2DLod<float>(texture, 0.3f, 0.6f, level);
}

__global__ void write_surface(cudaSurfaceObject_t surface, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) {
        short2 old;
        surf2Dread(&old, surface, x * sizeof(short2), y);
        surf2Dwrite(make_short2(old.y + x, old.x - y), surface, x * sizeof(short2), y);
    }
}

template <class T> T *to_device(const std::vector<T> &values) {
    T *pointer;
    CHECK(cudaMalloc(&pointer, values.size() * sizeof(T)));
    CHECK(cudaMemcpy(pointer, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return pointer;
}

template <class T> std::vector<T> to_host(const T *pointer, size_t count) {
    std::vector<T> values(count);
    CHECK(cudaMemcpy(values.data(), pointer, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}

cudaTextureObject_t texture_of(const cudaResourceDesc &resource, const cudaTextureDesc &how) {
    cudaTextureObject_t texture = 0;
    CHECK(cudaCreateTextureObject(&texture, &resource, &how, nullptr));
    return texture;
}

cudaResourceDesc array_resource(cudaArray_t array) {
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    return resource;
}

// Filters work with 8 bits of fraction: halfway between two integers is exact.
void one_dimension() {
    const int width = 1000, count = 64;
    std::vector<float> source(width), at(count);
    for (int i = 0; i < width; i++)
        source[i] = 2.0f * i;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaArray_t array;
    CHECK(cudaMallocArray(&array, &format, width));
    CHECK(cudaMemcpy2DToArray(array, 0, 0, source.data(), width * 4, width * 4, 1, cudaMemcpyHostToDevice));
    cudaTextureDesc how = {};
    how.addressMode[0] = cudaAddressModeClamp;
    how.filterMode = cudaFilterModeLinear;
    cudaTextureObject_t texture = texture_of(array_resource(array), how);
    // Texel i is at i + 0.5.
    for (int i = 0; i < count; i++)
        at[i] = -20.0f + 16.5f * i;
    float *device_at = to_device(at), *device_out = to_device(at);
    read_1d<<<1, count>>>(texture, device_at, device_out, count);
    CHECK_KERNEL();
    std::vector<float> out = to_host(device_out, count);
    for (int i = 0; i < count; i++) {
        float texel = fminf(fmaxf(at[i] - 0.5f, 0), width - 1);
        EXPECT(out[i] == 2 * texel, "%d: %g at %g, not %g", i, out[i], at[i], 2 * texel);
    }
    cudaResourceDesc seen;
    CHECK(cudaGetTextureObjectResourceDesc(&seen, texture));
    EXPECT(seen.resType == cudaResourceTypeArray && seen.res.array.array == array, "the array of the texture");
    cudaTextureDesc seen_how;
    CHECK(cudaGetTextureObjectTextureDesc(&seen_how, texture));
    EXPECT(seen_how.filterMode == cudaFilterModeLinear && seen_how.addressMode[0] == cudaAddressModeClamp, "filter");
    CHECK(cudaDestroyTextureObject(texture));
    CHECK(cudaFreeArray(array));
    CHECK(cudaFree(device_at));
    CHECK(cudaFree(device_out));
    puts("textures: one dimension, linear filter, clamped: equal");
}

void linear_memory() {
    const int count = 4096;
    std::vector<uchar4> source(count);
    Lcg random(4);
    for (uchar4 &v : source) {
        unsigned bits = random.next();
        v = make_uchar4(bits & 255, bits >> 8 & 255, bits >> 16 & 255, bits >> 24);
    }
    uchar4 *memory = to_device(source);
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeLinear;
    resource.res.linear.devPtr = memory;
    resource.res.linear.desc = cudaCreateChannelDesc<uchar4>();
    resource.res.linear.sizeInBytes = count * sizeof(uchar4);
    cudaTextureDesc how = {};
    cudaTextureObject_t texture = texture_of(resource, how);
    int4 *device_out;
    CHECK(cudaMalloc(&device_out, count * sizeof(int4)));
    fetch_linear<<<count / 256, 256>>>(texture, device_out, count);
    CHECK_KERNEL();
    std::vector<int4> out = to_host(device_out, count);
    for (int i = 0; i < count; i++)
        EXPECT(out[i].x == source[i].x && out[i].y == source[i].y && out[i].z == source[i].z && out[i].w == source[i].w,
               "%d", i);
    CHECK(cudaDestroyTextureObject(texture));
    CHECK(cudaFree(memory));
    CHECK(cudaFree(device_out));
    puts("textures: linear memory, four channels: equal");
}

void two_dimensions() {
    const int width = 300, height = 200, count = 512;
    std::vector<unsigned char> source(width * height);
    Lcg random(5);
    for (unsigned char &v : source)
        v = random.next() >> 24;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<unsigned char>();
    cudaArray_t array;
    CHECK(cudaMallocArray(&array, &format, width, height));
    CHECK(cudaMemcpy2DToArray(array, 0, 0, source.data(), width, width, height, cudaMemcpyHostToDevice));
    cudaTextureDesc how = {};
    how.addressMode[0] = how.addressMode[1] = cudaAddressModeBorder;
    // A border is stored in the texels' own format: 51 of 255.
    how.borderColor[0] = 0.2f;
    how.readMode = cudaReadModeNormalizedFloat;
    cudaTextureObject_t texture = texture_of(array_resource(array), how);
    std::vector<float2> at(count);
    for (float2 &p : at)
        p = make_float2(floorf(random.next_float() * (width + 20)) - 9.5f, floorf(random.next_float() * (height + 20)) - 9.5f);
    float2 *device_at = to_device(at);
    float *device_out;
    CHECK(cudaMalloc(&device_out, count * sizeof(float)));
    read_2d<<<count / 256, 256>>>(texture, device_at, device_out, count);
    CHECK_KERNEL();
    std::vector<float> out = to_host(device_out, count);
    int outside = 0;
    for (int i = 0; i < count; i++) {
        int x = static_cast<int>(floorf(at[i].x)), y = static_cast<int>(floorf(at[i].y));
        bool inside = x >= 0 && y >= 0 && x < width && y < height;
        outside += !inside;
        float expected = inside ? source[y * width + x] / 255.0f : 0.2f;
        EXPECT(fabsf(out[i] - expected) < 1e-6f, "(%d,%d): %g, not %g", x, y, out[i], expected);
    }
    EXPECT(outside > 20, "%d points outside", outside);
    CHECK(cudaDestroyTextureObject(texture));
    CHECK(cudaFreeArray(array));
    CHECK(cudaFree(device_at));
    CHECK(cudaFree(device_out));
    puts("textures: two dimensions, normalised values, border colour: equal");
}

void three_dimensions() {
    const int width = 37, height = 19, depth = 11;
    std::vector<float> source(width * height * depth);
    for (size_t i = 0; i < source.size(); i++)
        source[i] = i * 0.25f;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaArray_t array;
    CHECK(cudaMalloc3DArray(&array, &format, make_cudaExtent(width, height, depth)));
    cudaMemcpy3DParms copy = {};
    copy.srcPtr = make_cudaPitchedPtr(source.data(), width * 4, width, height);
    copy.dstArray = array;
    copy.extent = make_cudaExtent(width, height, depth);
    copy.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&copy));
    cudaTextureDesc how = {};
    cudaTextureObject_t texture = texture_of(array_resource(array), how);
    float *device_out;
    CHECK(cudaMalloc(&device_out, source.size() * 4));
    read_3d<<<(source.size() + 255) / 256, 256>>>(texture, device_out, width, height, depth);
    CHECK_KERNEL();
    EXPECT(to_host(device_out, source.size()) == source, "texels of three dimensions");
    CHECK(cudaDestroyTextureObject(texture));
    CHECK(cudaFreeArray(array));
    CHECK(cudaFree(device_out));
    puts("textures: three dimensions: equal");
}

void layers() {
    const int width = 33, height = 17, count = 5;
    std::vector<int> source(width * height * count);
    for (size_t i = 0; i < source.size(); i++)
        source[i] = static_cast<int>(i * 7919) - 1000;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<int>();
    cudaArray_t array;
    CHECK(cudaMalloc3DArray(&array, &format, make_cudaExtent(width, height, count), cudaArrayLayered));
    cudaMemcpy3DParms copy = {};
    copy.srcPtr = make_cudaPitchedPtr(source.data(), width * 4, width, height);
    copy.dstArray = array;
    copy.extent = make_cudaExtent(width, height, count);
    copy.kind = cudaMemcpyDefault;
    CHECK(cudaMemcpy3D(&copy));
    cudaExtent extent;
    unsigned flags;
    CHECK(cudaArrayGetInfo(&format, &extent, &flags, array));
    EXPECT(extent.width == width && extent.height == height && extent.depth == count && flags == cudaArrayLayered,
           "%zux%zux%zu, flags %u", extent.width, extent.height, extent.depth, flags);
    cudaTextureDesc how = {};
    cudaTextureObject_t texture = texture_of(array_resource(array), how);
    int *device_out = to_device(std::vector<int>(source.size()));
    read_layers<<<(source.size() + 255) / 256, 256>>>(texture, device_out, width, height, count);
    CHECK_KERNEL();
    EXPECT(to_host(device_out, source.size()) == source, "layers");
    CHECK(cudaDestroyTextureObject(texture));
    CHECK(cudaFreeArray(array));
    CHECK(cudaFree(device_out));
    puts("textures: layers: equal");
}

void levels() {
    const int size = 64, count = 7;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaMipmappedArray_t mipmapped;
    CHECK(cudaMallocMipmappedArray(&mipmapped, &format, make_cudaExtent(size, size, 0), count));
    for (int level = 0; level < count; level++) {
        cudaArray_t array;
        CHECK(cudaGetMipmappedArrayLevel(&array, mipmapped, level));
        int side = size >> level;
        std::vector<float> values(side * side, 100.0f + level);
        CHECK(cudaMemcpy2DToArray(array, 0, 0, values.data(), side * 4, side * 4, side, cudaMemcpyHostToDevice));
    }
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeMipmappedArray;
    resource.res.mipmap.mipmap = mipmapped;
    cudaTextureDesc how = {};
    how.normalizedCoords = 1;
    how.maxMipmapLevelClamp = count - 1;
    cudaTextureObject_t texture = texture_of(resource, how);
    float *device_out = to_device(std::vector<float>(count));
    read_levels<<<1, 32>>>(texture, device_out, count);
    CHECK_KERNEL();
    std::vector<float> out = to_host(device_out, count);
    for (int level = 0; level < count; level++)
        EXPECT(out[level] == 100.0f + level, "level %d: %g", level, out[level]);
    CHECK(cudaDestroyTextureObject(texture));
    CHECK(cudaFreeMipmappedArray(mipmapped));
    CHECK(cudaFree(device_out));
    puts("textures: mipmap levels: equal");
}

void surfaces() {
    const int width = 70, height = 50;
    std::vector<short2> source(width * height), out(width * height);
    for (int i = 0; i < width * height; i++)
        source[i] = make_short2(i, -2 * i);
    cudaChannelFormatDesc format = cudaCreateChannelDesc<short2>();
    cudaArray_t array;
    CHECK(cudaMallocArray(&array, &format, width, height, cudaArraySurfaceLoadStore));
    CHECK(cudaMemcpy2DToArray(array, 0, 0, source.data(), width * 4, width * 4, height, cudaMemcpyHostToDevice));
    cudaSurfaceObject_t surface = 0;
    cudaResourceDesc resource = array_resource(array);
    CHECK(cudaCreateSurfaceObject(&surface, &resource));
    write_surface<<<dim3((width + 15) / 16, (height + 15) / 16), dim3(16, 16)>>>(surface, width, height);
    CHECK_KERNEL();
    CHECK(cudaMemcpy2DFromArray(out.data(), width * 4, array, 0, 0, width * 4, height, cudaMemcpyDeviceToHost));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            short2 old = source[y * width + x], now = out[y * width + x];
            EXPECT(now.x == static_cast<short>(old.y + x) && now.y == static_cast<short>(old.x - y), "(%d,%d): %d %d", x, y, now.x,
                   now.y);
        }
    CHECK(cudaDestroySurfaceObject(surface));
    CHECK(cudaFreeArray(array));
    puts("textures: surface read and written: equal");
}

int main() {
    one_dimension();
    linear_memory();
    two_dimensions();
    three_dimensions();
    layers();
    levels();
    surfaces();
    return pass();
}
