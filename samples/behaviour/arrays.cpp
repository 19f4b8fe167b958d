// Arrays, mipmaps, texture and surface objects, tensor maps: what they say about themselves, and what they refuse.
#include "transcript.h"

namespace {

CUDA_ARRAY3D_DESCRIPTOR describe_array(size_t width, size_t height, size_t depth, CUarray_format format, unsigned channels, unsigned flags) {
    CUDA_ARRAY3D_DESCRIPTOR array{};
    array.Width = width;
    array.Height = height;
    array.Depth = depth;
    array.Format = format;
    array.NumChannels = channels;
    array.Flags = flags;
    return array;
}

} // namespace

SECTION(creation) {
    begin();
    CUarray array = unset<CUarray>();
    struct {
        const char *what;
        CUDA_ARRAY3D_DESCRIPTOR description;
    } const cases[] = {
        {"one dimension", describe_array(100, 0, 0, CU_AD_FORMAT_FLOAT, 1, 0)},
        {"two dimensions", describe_array(64, 32, 0, CU_AD_FORMAT_FLOAT, 4, 0)},
        {"three dimensions", describe_array(16, 16, 16, CU_AD_FORMAT_UNSIGNED_INT8, 2, 0)},
        {"width 0", describe_array(0, 16, 0, CU_AD_FORMAT_FLOAT, 1, 0)},
        {"height 0, depth 4", describe_array(16, 0, 4, CU_AD_FORMAT_FLOAT, 1, 0)},
        {"three channels", describe_array(16, 16, 0, CU_AD_FORMAT_FLOAT, 3, 0)},
        {"no channels", describe_array(16, 16, 0, CU_AD_FORMAT_FLOAT, 0, 0)},
        {"unknown format", describe_array(16, 16, 0, CUarray_format(0x99), 1, 0)},
        {"unknown flags", describe_array(16, 16, 0, CU_AD_FORMAT_FLOAT, 1, 0x4000)},
        {"too wide", describe_array(1 << 24, 0, 0, CU_AD_FORMAT_FLOAT, 1, 0)},
        {"too high", describe_array(16, 1 << 20, 0, CU_AD_FORMAT_FLOAT, 1, 0)},
        {"layers", describe_array(16, 16, 8, CU_AD_FORMAT_HALF, 1, CUDA_ARRAY3D_LAYERED)},
        {"layers of one dimension", describe_array(16, 0, 8, CU_AD_FORMAT_HALF, 1, CUDA_ARRAY3D_LAYERED)},
        {"layers without depth", describe_array(16, 16, 0, CU_AD_FORMAT_HALF, 1, CUDA_ARRAY3D_LAYERED)},
        {"cube", describe_array(16, 16, 6, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP)},
        {"cube of five sides", describe_array(16, 16, 5, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP)},
        {"cube that is no cube", describe_array(16, 8, 6, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP)},
        {"surface", describe_array(16, 16, 0, CU_AD_FORMAT_UNSIGNED_INT32, 1, CUDA_ARRAY3D_SURFACE_LDST)},
        {"gather", describe_array(16, 16, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_TEXTURE_GATHER)},
        {"gather in three dimensions", describe_array(16, 16, 4, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_TEXTURE_GATHER)},
    };
    for (const auto &one : cases) {
        printf("%s\n", one.what);
        array = unset<CUarray>();
        const CUresult result = TRY(cuArray3DCreate, &array, &one.description);
        CLASS(array);
        if (result != CUDA_SUCCESS)
            continue;
        CUDA_ARRAY3D_DESCRIPTOR kept = unset<CUDA_ARRAY3D_DESCRIPTOR>();
        TRY(cuArray3DGetDescriptor, &kept, array);
        printf("    %zu x %zu x %zu, format %d, channels %u, flags %u\n", kept.Width, kept.Height, kept.Depth, kept.Format,
               kept.NumChannels, kept.Flags);
        CUDA_ARRAY_DESCRIPTOR flat = unset<CUDA_ARRAY_DESCRIPTOR>();
        TRY(cuArrayGetDescriptor, &flat, array);
        VALUE(flat.Height);
        CUDA_ARRAY_MEMORY_REQUIREMENTS needs = unset<CUDA_ARRAY_MEMORY_REQUIREMENTS>();
        TRY(cuArrayGetMemoryRequirements, &needs, array, 0);
        VALUE(needs.size);
        CUDA_ARRAY_SPARSE_PROPERTIES sparse = unset<CUDA_ARRAY_SPARSE_PROPERTIES>();
        TRY(cuArrayGetSparseProperties, &sparse, array);
        CUarray plane = unset<CUarray>();
        TRY(cuArrayGetPlane, &plane, array, 0);
        TRY(cuArrayDestroy, array);
    }
    CUDA_ARRAY_DESCRIPTOR flat{64, 32, CU_AD_FORMAT_FLOAT, 1};
    TRY(cuArrayCreate, &array, &flat);
    TRY(cuArrayCreate, nullptr, &flat);
    TRY(cuArrayCreate, &array, nullptr);
    TRY(cuArrayGetDescriptor, nullptr, array);
    TRY(cuArrayDestroy, array);
}

SECTION(copies) {
    begin();
    CUarray array;
    const auto description = describe_array(64, 32, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0);
    MUST(cuArray3DCreate, &array, &description);
    std::vector<unsigned char> from(64 * 32), to(64 * 32);
    for (size_t i = 0; i < from.size(); i++)
        from[i] = i * 7;
    CUDA_MEMCPY2D in{};
    in.srcMemoryType = CU_MEMORYTYPE_HOST;
    in.srcHost = from.data();
    in.srcPitch = 64;
    in.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    in.dstArray = array;
    in.WidthInBytes = 64;
    in.Height = 32;
    TRY(cuMemcpy2D, &in);
    CUDA_MEMCPY2D out{};
    out.srcMemoryType = CU_MEMORYTYPE_ARRAY;
    out.srcArray = array;
    out.dstMemoryType = CU_MEMORYTYPE_HOST;
    out.dstHost = to.data();
    out.dstPitch = 64;
    out.WidthInBytes = 64;
    out.Height = 32;
    TRY(cuMemcpy2D, &out);
    HOLDS(from == to);
    out.WidthInBytes = 65;
    TRY(cuMemcpy2D, &out);
    out.WidthInBytes = 64;
    out.srcY = 1;
    TRY(cuMemcpy2D, &out);
    CUdeviceptr memory = allocate(4096);
    TRY(cuMemcpyDtoA, array, 0, memory, 2048);
    TRY(cuMemcpyAtoD, memory, array, 64, 64);
    TRY(cuMemcpyAtoH, to.data(), array, 0, 2048);
    VALUE(int(to[100]));
    TRY(cuMemcpyHtoA, array, 0, from.data(), 2048);
    TRY(cuMemcpyHtoA, array, 100, from.data(), 2048);
    TRY(cuMemcpyAtoA, array, 0, array, 1024, 64);
    TRY(cuMemcpyHtoA, nullptr, 0, from.data(), 16);
}

SECTION(mipmaps) {
    begin();
    CUmipmappedArray mipmap = unset<CUmipmappedArray>();
    auto description = describe_array(64, 32, 0, CU_AD_FORMAT_FLOAT, 1, 0);
    TRY(cuMipmappedArrayCreate, &mipmap, &description, 0);
    TRY(cuMipmappedArrayCreate, &mipmap, &description, 100);
    TRY(cuMipmappedArrayCreate, &mipmap, &description, 5);
    for (unsigned level : {0u, 3u, 4u, 5u, 20u}) {
        CUarray array = unset<CUarray>();
        if (TRY(cuMipmappedArrayGetLevel, &array, mipmap, level) == CUDA_SUCCESS) {
            CUDA_ARRAY3D_DESCRIPTOR kept{};
            TRY(cuArray3DGetDescriptor, &kept, array);
            printf("    level %u: %zu x %zu\n", level, kept.Width, kept.Height);
        }
    }
    CUarray array;
    MUST(cuMipmappedArrayGetLevel, &array, mipmap, 0);
    TRY(cuArrayDestroy, array);
    TRY(cuMipmappedArrayDestroy, mipmap);
}

SECTION(textures) {
    begin();
    CUarray array, surface_array;
    auto description = describe_array(64, 32, 0, CU_AD_FORMAT_FLOAT, 1, 0);
    MUST(cuArray3DCreate, &array, &description);
    description.Flags = CUDA_ARRAY3D_SURFACE_LDST;
    MUST(cuArray3DCreate, &surface_array, &description);
    CUDA_RESOURCE_DESC resource{};
    CUDA_TEXTURE_DESC texture{};
    CUtexObject object = unset<CUtexObject>();
    TRY(cuTexObjectCreate, &object, nullptr, &texture, nullptr);
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    resource.res.array.hArray = array;
    TRY(cuTexObjectCreate, &object, &resource, nullptr, nullptr);
    TRY(cuTexObjectCreate, nullptr, &resource, &texture, nullptr);
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    CLASS(object);
    texture.filterMode = CU_TR_FILTER_MODE_LINEAR;
    texture.addressMode[0] = CU_TR_ADDRESS_MODE_WRAP;
    texture.flags = CU_TRSF_NORMALIZED_COORDINATES;
    texture.maxAnisotropy = 4;
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    CUDA_RESOURCE_DESC kept_resource{};
    CUDA_TEXTURE_DESC kept{};
    TRY(cuTexObjectGetResourceDesc, &kept_resource, object);
    HOLDS(kept_resource.resType == CU_RESOURCE_TYPE_ARRAY && kept_resource.res.array.hArray == array);
    TRY(cuTexObjectGetTextureDesc, &kept, object);
    VALUE(kept.filterMode);
    VALUE(kept.flags);
    VALUE(kept.maxAnisotropy);
    CUDA_RESOURCE_VIEW_DESC view{};
    TRY(cuTexObjectGetResourceViewDesc, &view, object);
    texture = {};
    texture.flags = 0x1000;
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    texture = {};
    texture.addressMode[0] = CUaddress_mode(9);
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    texture = {};
    CUdeviceptr memory = allocate(65536);
    resource = {};
    resource.resType = CU_RESOURCE_TYPE_LINEAR;
    resource.res.linear.devPtr = memory;
    resource.res.linear.format = CU_AD_FORMAT_FLOAT;
    resource.res.linear.numChannels = 1;
    resource.res.linear.sizeInBytes = 65536;
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    resource.res.linear.devPtr = memory + 4;
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    resource.res.linear.devPtr = 0;
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    resource = {};
    resource.resType = CU_RESOURCE_TYPE_PITCH2D;
    resource.res.pitch2D = {memory, CU_AD_FORMAT_FLOAT, 1, 64, 32, 256};
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    resource.res.pitch2D.pitchInBytes = 260;
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    resource.res.pitch2D.pitchInBytes = 128;
    TRY(cuTexObjectCreate, &object, &resource, &texture, nullptr);
    CUsurfObject surface = unset<CUsurfObject>();
    TRY(cuSurfObjectCreate, &surface, &resource);
    resource = {};
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    resource.res.array.hArray = array;
    TRY(cuSurfObjectCreate, &surface, &resource);
    resource.res.array.hArray = surface_array;
    TRY(cuSurfObjectCreate, &surface, &resource);
    CLASS(surface);
    TRY(cuSurfObjectGetResourceDesc, &kept_resource, surface);
    TRY(cuSurfObjectDestroy, surface);
    TRY(cuTexObjectDestroy, object);
}

SECTION(tensor_maps) {
    begin();
    CUdeviceptr memory = allocate(1 << 20);
    alignas(64) CUtensorMap map = unset<CUtensorMap>();
    cuuint64_t sizes[] = {128, 64};
    cuuint64_t strides[] = {512};
    cuuint32_t box[] = {32, 16}, steps[] = {1, 1};
    const auto encode = [&](const char *what, unsigned rank, CUdeviceptr at) {
        printf("%s\n", what);
        TRY(cuTensorMapEncodeTiled, &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rank, reinterpret_cast<void *>(at), sizes, strides, box, steps,
            CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
            CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    };
    encode("good", 2, memory);
    CLASS(map);
    encode("no dimension", 0, memory);
    encode("six dimensions", 6, memory);
    encode("a crooked address", 2, memory + 4);
    strides[0] = 510;
    encode("a crooked stride", 2, memory);
    strides[0] = 512;
    box[0] = 512;
    encode("too large a box", 2, memory);
    box[0] = 32;
    TRY(cuTensorMapReplaceAddress, &map, reinterpret_cast<void *>(memory + 1024));
    TRY(cuTensorMapReplaceAddress, &map, reinterpret_cast<void *>(memory + 1));
}

int main(int count, char **arguments) { return transcript(count, arguments); }
