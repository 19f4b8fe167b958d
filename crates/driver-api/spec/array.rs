//! Arrays: memory in the layout that textures and surfaces read, with and without mipmap levels.

/// Creates a one- or two-dimensional array.
#[op(0x0700, since = 3020)]
#[sync]
#[host_custom]
fn cuArrayCreate_v2(#[out] pHandle: *mut CUarray, #[input] pAllocateArray: *const CUDA_ARRAY_DESCRIPTOR);

/// Creates an array of up to three dimensions, layered, cubemap or sparse if asked for.
#[op(0x0701, since = 3020)]
#[sync]
#[host_custom]
fn cuArray3DCreate_v2(#[out] pHandle: *mut CUarray, #[input] pAllocateArray: *const CUDA_ARRAY3D_DESCRIPTOR);

/// Size and format of an array.
#[op(0x0702, since = 3020)]
#[sync]
fn cuArrayGetDescriptor_v2(#[out] pArrayDescriptor: *mut CUDA_ARRAY_DESCRIPTOR, hArray: CUarray);

/// Size, format and flags of an array.
#[op(0x0703, since = 3020)]
#[sync]
fn cuArray3DGetDescriptor_v2(#[out] pArrayDescriptor: *mut CUDA_ARRAY3D_DESCRIPTOR, hArray: CUarray);

/// Destroys an array.
#[op(0x0704, since = 2000)]
#[sync]
#[host_custom]
fn cuArrayDestroy(#[dies] hArray: CUarray);

/// Memory that a sparse or deferred array needs.
#[op(0x0705, since = 11060)]
#[sync]
fn cuArrayGetMemoryRequirements(
    #[out] memoryRequirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS,
    array: CUarray,
    device: CUdevice,
);

/// The array of one plane of a multi-planar array.
#[op(0x0706, since = 11020)]
#[sync]
fn cuArrayGetPlane(#[out] #[parent(hArray)] pPlaneArray: *mut CUarray, hArray: CUarray, planeIdx: c_uint);

/// Tiles of a sparse array.
#[op(0x0707, since = 11010)]
#[sync]
fn cuArrayGetSparseProperties(#[out] sparseProperties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, array: CUarray);

/// Creates an array with mipmap levels.
#[op(0x0708, since = 5000)]
#[sync]
#[host_custom]
fn cuMipmappedArrayCreate(
    #[out] pHandle: *mut CUmipmappedArray,
    #[input] pMipmappedArrayDesc: *const CUDA_ARRAY3D_DESCRIPTOR,
    numMipmapLevels: c_uint,
);

/// Destroys an array with mipmap levels.
#[op(0x0709, since = 5000)]
#[sync]
#[host_custom]
fn cuMipmappedArrayDestroy(#[dies] hMipmappedArray: CUmipmappedArray);

/// The array of one mipmap level.
#[op(0x070a, since = 5000)]
#[sync]
fn cuMipmappedArrayGetLevel(
    #[out] #[parent(hMipmappedArray)] pLevelArray: *mut CUarray,
    hMipmappedArray: CUmipmappedArray,
    level: c_uint,
);

/// Memory that a sparse or deferred array with mipmap levels needs.
#[op(0x070b, since = 11060)]
#[sync]
fn cuMipmappedArrayGetMemoryRequirements(
    #[out] memoryRequirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS,
    mipmap: CUmipmappedArray,
    device: CUdevice,
);

/// Tiles and mip tail of a sparse array with mipmap levels.
#[op(0x070c, since = 11010)]
#[sync]
fn cuMipmappedArrayGetSparseProperties(
    #[out] sparseProperties: *mut CUDA_ARRAY_SPARSE_PROPERTIES,
    mipmap: CUmipmappedArray,
);

/// Maps memory to parts of sparse arrays, and unmaps it, in stream order.
#[op(0x070d, since = 11010, ptsz = 11010)]
#[sync]
fn cuMemMapArrayAsync(
    #[data_in(count * 96)] mapInfoList: *mut CUarrayMapInfo,
    count: c_uint,
    #[stream] hStream: CUstream,
);
