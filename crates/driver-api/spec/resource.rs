//! Parts of a device, and contexts that are confined to them.
//!
//! The driver's private part of a resource stays on the host: the program holds an id in its place.

/// A resource of a device.
#[op(0x0800, since = 12040)]
#[sync]
fn cuDeviceGetDevResource(device: CUdevice, #[out] resource: *mut CUdevResource, type_: CUdevResourceType);

/// A resource that a context has.
#[op(0x0801, since = 12040)]
#[sync]
fn cuCtxGetDevResource(hCtx: CUcontext, #[out] resource: *mut CUdevResource, type_: CUdevResourceType);

/// A resource that a green context has.
#[op(0x0802, since = 12040)]
#[sync]
fn cuGreenCtxGetDevResource(hCtx: CUgreenCtx, #[out] resource: *mut CUdevResource, type_: CUdevResourceType);

/// A resource that a stream has.
#[op(0x0803, since = 13010, ptsz = 13010)]
#[sync]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuStreamGetDevResource(
    #[stream] hStream: CUstream,
    #[out] resource: *mut CUdevResource,
    type_: CUdevResourceType,
);

/// Splits multiprocessors into groups of at least a size; `nbGroups` is the most that are wanted, then how many there are.
#[op(since = 12040)]
#[via(sm_resource_split)]
fn cuDevSmResourceSplitByCount(
    result: *mut CUdevResource,
    nbGroups: *mut c_uint,
    input: *const CUdevResource,
    remaining: *mut CUdevResource,
    useFlags: c_uint,
    minCount: c_uint,
);

/// As `cuDevSmResourceSplitByCount`: at most `wanted` groups, of which there are then `groups`. `result` holds 144 bytes for each.
#[op(0x0804)]
#[sync]
#[internal]
fn sm_resource_split(
    wanted: u32,
    #[input] input: *const [u8; 144],
    flags: u32,
    min_count: u32,
    #[out] groups: *mut u32,
    #[out] remaining: *mut [u8; 144],
    #[data_out] result: *mut u8,
);

/// A descriptor of resources, to create a context with.
#[op(0x0805, since = 12040)]
#[sync]
fn cuDevResourceGenerateDesc(
    #[out] phDesc: *mut CUdevResourceDesc,
    #[data_in(nbResources * 144)] resources: *mut CUdevResource,
    nbResources: c_uint,
);

/// Creates a context that is confined to resources.
#[op(0x0806, since = 12040)]
#[sync]
#[custom]
fn cuGreenCtxCreate(#[out] phCtx: *mut CUgreenCtx, desc: CUdevResourceDesc, dev: CUdevice, flags: c_uint);

/// Destroys a green context.
#[op(0x0807, since = 12040)]
#[sync]
#[custom]
fn cuGreenCtxDestroy(#[dies] hCtx: CUgreenCtx);

/// The green context as a context that can be made current.
#[op(0x0808, since = 12040)]
#[sync]
#[custom]
fn cuCtxFromGreenCtx(#[out] #[parent(hCtx)] pContext: *mut CUcontext, hCtx: CUgreenCtx);

/// Number of a green context.
#[op(0x0809, since = 12090)]
#[sync]
fn cuGreenCtxGetId(greenCtx: CUgreenCtx, #[out] greenCtxId: *mut c_ulonglong);

/// Records an event after all work of a green context.
#[op(0x080a, since = 12040)]
#[sync]
fn cuGreenCtxRecordEvent(hCtx: CUgreenCtx, hEvent: CUevent);

/// All later work of a green context waits for an event.
#[op(0x080b, since = 12040)]
#[sync]
fn cuGreenCtxWaitEvent(hCtx: CUgreenCtx, hEvent: CUevent);

/// Creates a stream in a green context.
#[op(0x080c, since = 12050)]
#[sync]
fn cuGreenCtxStreamCreate(
    #[out] #[parent(greenCtx)] phStream: *mut CUstream,
    greenCtx: CUgreenCtx,
    flags: c_uint,
    priority: c_int,
);

/// The green context of a stream, or NULL.
#[op(0x080d, since = 12040)]
#[sync]
fn cuStreamGetGreenCtx(hStream: CUstream, #[out] phCtx: *mut CUgreenCtx);
