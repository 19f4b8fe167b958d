//! Texture and surface objects. Kernels get them as numbers in their parameters, so that the program holds the driver's own values.

/// Creates a texture object.
#[op(0x0720, since = 5000)]
#[sync]
#[host_custom]
fn cuTexObjectCreate(
    #[out] pTexObject: *mut CUtexObject,
    #[input] pResDesc: *const CUDA_RESOURCE_DESC,
    #[input] pTexDesc: *const CUDA_TEXTURE_DESC,
    #[input] pResViewDesc: *const CUDA_RESOURCE_VIEW_DESC,
);

/// Destroys a texture object.
#[op(0x0721, since = 5000)]
#[sync]
#[host_custom]
fn cuTexObjectDestroy(texObject: CUtexObject);

/// What a texture object reads.
#[op(0x0722, since = 5000)]
#[sync]
#[host_custom]
fn cuTexObjectGetResourceDesc(#[out] pResDesc: *mut CUDA_RESOURCE_DESC, texObject: CUtexObject);

/// How a texture object reads.
#[op(0x0723, since = 5000)]
#[sync]
#[host_custom]
fn cuTexObjectGetTextureDesc(#[out] pTexDesc: *mut CUDA_TEXTURE_DESC, texObject: CUtexObject);

/// As which format and part a texture object sees its array.
#[op(0x0724, since = 5000)]
#[sync]
#[host_custom]
fn cuTexObjectGetResourceViewDesc(#[out] pResViewDesc: *mut CUDA_RESOURCE_VIEW_DESC, texObject: CUtexObject);

/// Creates a surface object.
#[op(0x0725, since = 5000)]
#[sync]
#[host_custom]
fn cuSurfObjectCreate(#[out] pSurfObject: *mut CUsurfObject, #[input] pResDesc: *const CUDA_RESOURCE_DESC);

/// Destroys a surface object.
#[op(0x0726, since = 5000)]
#[sync]
#[host_custom]
fn cuSurfObjectDestroy(surfObject: CUsurfObject);

/// What a surface object writes.
#[op(0x0727, since = 5000)]
#[sync]
#[host_custom]
fn cuSurfObjectGetResourceDesc(#[out] pResDesc: *mut CUDA_RESOURCE_DESC, surfObject: CUsurfObject);
