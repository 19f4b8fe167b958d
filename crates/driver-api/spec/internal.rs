//! Wire operations without an exported function. Handles, addresses and offsets are u64.
//!
//! A `data_out` without a length grows as the backend writes it. Operations with a `result` output succeed on the wire and
//! say in `result` (a CUresult) what became of the work, because a failed reply has no body and a failed load has a log.
//!
//! `forms` holds one u32 per image: 1 PTX text without a trailing NUL, 2 cubin.
//! `options` holds 16 bytes per JIT option whose value is a number: u32 CUjit_option, u32 0, u64 value.

/// Makes `ctx` the lane's current context (0: none). Sent before the next operation when it has changed.
#[op(0x0001)]
#[posted]
#[internal]
fn lane_set_context(ctx: u64);

/// Which devices the program is to see, as in `CUDA_VISIBLE_DEVICES`; the host numbers devices accordingly. Asked before `cuInit`.
#[op(0x0002)]
#[sync]
#[internal]
fn set_visible_devices(#[cstr] list: *const c_char);

/// Addresses of device memory outside of the region: start and end (u64 each) of every range. Asked after `cuInit`; more may come with the
/// first use of another device.
#[op(0x0003)]
#[sync]
#[internal]
fn device_ranges(#[data_out] ranges: *mut u8);

/// Whether the registry holds the image with this BLAKE3 hash and length.
#[op(0x0010)]
#[sync]
#[internal]
fn image_query(#[input] hash: *const [u8; 32], len: u64, #[out] present: *mut u32);

/// `len` bytes of an image, at `offset` of the image, from `staging_offset` of the lane's staging area; they have been taken
/// when the operation is complete.
#[op(0x0011)]
#[posted]
#[internal]
fn image_chunk(#[input] hash: *const [u8; 32], offset: u64, staging_offset: u64, len: u64);

/// Ends the transfer of an image: the host checks the hash and enters it in the registry.
#[op(0x0012)]
#[sync]
#[internal]
fn image_commit(#[input] hash: *const [u8; 32], len: u64);

/// Copies `len` bytes at `offset` of a registered image to `staging_offset` of the lane's staging area: how the result of a link gets back.
#[op(0x0013)]
#[sync]
#[internal]
fn image_read(hash: [u8; 32], offset: u64, staging_offset: u64, len: u64);

/// Loads `count` registered images into the current context as one module, linking them if they are several.
#[op(0x0018)]
#[sync]
#[internal]
fn module_load(
    count: u32,
    #[data_in(count * 32)] hashes: *const u8,
    #[data_in(count * 4)] forms: *const u8,
    #[data_in] options: *const u8,
    #[out] result: *mut u32,
    #[out] module: *mut u64,
    #[data_out] info_log: *mut u8,
    #[data_out] error_log: *mut u8,
);

/// As `module_load`, independent of contexts.
#[op(0x0019)]
#[sync]
#[internal]
fn library_load(
    count: u32,
    #[data_in(count * 32)] hashes: *const u8,
    #[data_in(count * 4)] forms: *const u8,
    #[data_in] options: *const u8,
    #[out] result: *mut u32,
    #[out] library: *mut u64,
    #[data_out] info_log: *mut u8,
    #[data_out] error_log: *mut u8,
);

/// Links registered images to a new image, which the host enters in its registry: its hash, form and length.
#[op(0x001a)]
#[sync]
#[internal]
fn link_images(
    count: u32,
    #[data_in(count * 32)] hashes: *const u8,
    #[data_in(count * 4)] forms: *const u8,
    #[data_in] options: *const u8,
    #[out] result: *mut u32,
    #[out] hash: *mut [u8; 32],
    #[out] form: *mut u32,
    #[out] len: *mut u64,
    #[data_out] info_log: *mut u8,
    #[data_out] error_log: *mut u8,
);

/// Attributes and parameter layout of a function or kernel, as `protocol::function` encodes them.
#[op(0x0020)]
#[sync]
#[internal]
fn function_info(function: u64, #[data_out] info: *mut u8);

/// Launches a function or kernel. Cluster dimensions of 0 mean none. `flags` bit 0: cooperative. `params` is the parameter
/// buffer, laid out as `function_info` says.
#[op(0x0021)]
#[posted]
#[internal]
fn launch(
    function: u64,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: u64,
    flags: u32,
    cluster_x: u32,
    cluster_y: u32,
    cluster_z: u32,
    #[data_in] params: *const u8,
);

/// As `launch`, with attributes: 72 bytes each as `CUlaunchAttribute` has them (u32 id, u32 0, 64 bytes of value), with ids in the places of handles.
#[op(0x0023)]
#[posted]
#[internal]
fn launch_with_attributes(
    function: u64,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: u64,
    #[data_in] attributes: *const u8,
    #[data_in] params: *const u8,
);

/// Clusters of this shape that fit on the device, and the largest cluster size (blocks) of the kernel.
#[op(0x0022)]
#[sync]
#[internal]
fn occupancy_clusters(
    function: u64,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    cluster_x: u32,
    cluster_y: u32,
    cluster_z: u32,
    #[out] active_clusters: *mut i32,
    #[out] max_cluster_size: *mut i32,
);

/// Copies within the region (device memory and window), in stream order.
#[op(0x0030)]
#[posted]
#[internal]
fn copy(dst: u64, src: u64, len: u64, stream: u64);

/// Copies `height` rows of `width` bytes within the region, in stream order.
#[op(0x0031)]
#[posted]
#[internal]
fn copy_2d(dst: u64, dst_pitch: u64, src: u64, src_pitch: u64, width: u64, height: u64, stream: u64);

/// Copies `height` rows of `width` bytes, packed at `staging_offset` of the lane's staging area, to `dst` with `pitch`.
/// `flags` bit 0: the first piece of a copy, which waits for its turn in the stream; the others follow it. The part of the
/// staging area may be used again when the operation is complete.
#[op(0x0032)]
#[posted]
#[internal]
fn stage_in(dst: u64, pitch: u64, staging_offset: u64, width: u64, height: u64, stream: u64, flags: u32);

/// As `stage_in`, for the last piece of a copy: answered when the whole copy has arrived.
#[op(0x0033)]
#[sync]
#[internal]
fn stage_in_last(dst: u64, pitch: u64, staging_offset: u64, width: u64, height: u64, stream: u64, flags: u32);

/// Copies `height` rows of `width` bytes at `src` with `pitch`, packed, to `staging_offset` of the lane's staging area, which
/// holds them when the operation is complete. `flags` as for `stage_in`.
#[op(0x0034)]
#[posted]
#[internal]
fn stage_out(src: u64, pitch: u64, staging_offset: u64, width: u64, height: u64, stream: u64, flags: u32);

/// As `stage_out`, for the last piece of a copy.
#[op(0x0035)]
#[sync]
#[internal]
fn stage_out_last(src: u64, pitch: u64, staging_offset: u64, width: u64, height: u64, stream: u64, flags: u32);

/// Copies `len` bytes at `src` to `staging_offset` of the lane's staging area, in stream order. The program sees them arrive by looking there: each word of 4 bytes
/// arrives as a whole, where both places are multiples of 4. Until then, or until the stream has been synchronised, it leaves the place alone.
#[op(0x003b)]
#[posted]
#[internal]
fn stage_out_watched(src: u64, staging_offset: u64, len: u64, stream: u64);

/// Copies `len` bytes at `offset` of a region of the program's machine to `dst`, in stream order; answered when they have arrived. The region is memory of the
/// program that its memory broker has pinned (`protocol::broker`), of `region_len` bytes; the program gives it up after the answer.
#[op(0x0036)]
#[sync]
#[internal]
#[beside]
fn lent_in(dst: u64, region: u64, region_len: u64, offset: u64, len: u64, stream: u64);

/// As `lent_in`, from `src` to the region.
#[op(0x0037)]
#[sync]
#[internal]
#[beside]
fn lent_out(src: u64, region: u64, region_len: u64, offset: u64, len: u64, stream: u64);

/// What an address is. `kind` is 0 none, 1 device, 2 page-locked host, 3 managed; `base` and `size` are the allocation's; `flags`
/// are those it was allocated with; `pool` is 0 for memory that is not from a pool.
#[op(0x0038)]
#[sync]
#[internal]
fn pointer_info(
    address: u64,
    #[out] kind: *mut u32,
    #[out] base: *mut u64,
    #[out] size: *mut u64,
    #[out] ctx: *mut u64,
    #[out] device: *mut i32,
    #[out] flags: *mut u32,
    #[out] buffer_id: *mut u64,
    #[out] pool: *mut u64,
);

/// An attribute of a memory pool, widened to 64 bits.
#[op(0x0039)]
#[sync]
#[internal]
fn pool_get_attribute(pool: u64, attribute: u32, #[out] value: *mut u64);

/// Sets an attribute of a memory pool.
#[op(0x003a)]
#[sync]
#[internal]
fn pool_set_attribute(pool: u64, attribute: u32, value: u64);

/// Handle of a device's primary context, without retaining it; the same for the life of the session.
#[op(0x0040)]
#[cached]
#[internal]
fn primary_context(device: i32, #[out] ctx: *mut u64);

/// Queues a call of the program's function `id` in stream order; the stream goes on after `callback_done`. `kind` is 0 for a
/// stream callback (called also after an error) and 1 for a host function.
#[op(0x0048)]
#[posted]
#[internal]
fn callback_post(stream: u64, id: u64, kind: u32);

/// Waits for the next function of this session that is due: its id and the stream's status. Asked on a lane of its own.
#[op(0x0049)]
#[sync]
#[internal]
fn callback_next(#[out] id: *mut u64, #[out] status: *mut u32);

/// The function has returned.
#[op(0x004a)]
#[posted]
#[internal]
fn callback_done(id: u64);

/// Bytes that kernels wrote (printf, assert), of at most `max_len`; asked when a reply says that there are some. `stream` is 1
/// for standard output, 2 for standard error. No bytes: all have been fetched.
#[op(0x0050)]
#[sync]
#[internal]
fn device_output(max_len: u32, #[out] stream: *mut u32, #[data_out] text: *mut u8);

/// Two blocks of bytes about the current context's device that cuBLAS reads before it chooses a kernel: what slot 4 of the driver's private table
/// 1734dc26-800d-4745-8726-c0f1e7dd8bca gives.
#[op(0x0058)]
#[sync]
#[internal]
fn device_tables(#[data_out] first: *mut u8, #[data_out] second: *mut u8);
