//! Copies that may have an array on a side, and the operations by which boxes travel.

/// Copies between arrays of one dimension.
#[op(0x0860, since = 3020, ptds = 7000)]
#[sync]
fn cuMemcpyAtoA_v2(dstArray: CUarray, dstOffset: usize, srcArray: CUarray, srcOffset: usize, ByteCount: usize);

/// Copies from an array of one dimension to the device.
#[op(0x0861, since = 3020, ptds = 7000)]
#[sync]
fn cuMemcpyAtoD_v2(dstDevice: CUdeviceptr, srcArray: CUarray, srcOffset: usize, ByteCount: usize);

/// Copies from the device to an array of one dimension.
#[op(0x0862, since = 3020, ptds = 7000)]
#[sync]
fn cuMemcpyDtoA_v2(dstArray: CUarray, dstOffset: usize, srcDevice: CUdeviceptr, ByteCount: usize);

/// Copies from the host to an array of one dimension.
#[op(since = 3020, ptds = 7000)]
#[via(copy_box, stage_box_in, stage_box_in_last, stage_box_out, stage_box_out_last)]
fn cuMemcpyHtoA_v2(dstArray: CUarray, dstOffset: usize, srcHost: *const c_void, ByteCount: usize);

/// Copies from an array of one dimension to the host.
#[op(since = 3020, ptds = 7000)]
#[via(copy_box, stage_box_in, stage_box_in_last, stage_box_out, stage_box_out_last)]
fn cuMemcpyAtoH_v2(dstHost: *mut c_void, srcArray: CUarray, srcOffset: usize, ByteCount: usize);

/// Copies from the host to an array of one dimension, in stream order.
#[op(since = 3020, ptsz = 7000)]
#[via(copy_box, stage_box_in, stage_box_in_last, stage_box_out, stage_box_out_last)]
fn cuMemcpyHtoAAsync_v2(
    dstArray: CUarray,
    dstOffset: usize,
    srcHost: *const c_void,
    ByteCount: usize,
    #[stream] hStream: CUstream,
);

/// Copies from an array of one dimension to the host, in stream order.
#[op(since = 3020, ptsz = 7000)]
#[via(copy_box, stage_box_in, stage_box_in_last, stage_box_out, stage_box_out_last)]
fn cuMemcpyAtoHAsync_v2(
    dstHost: *mut c_void,
    srcArray: CUarray,
    srcOffset: usize,
    ByteCount: usize,
    #[stream] hStream: CUstream,
);

/// First version of cuMemcpy3DBatchAsync_v2, which says where it failed.
#[op(since = 12080, ptsz = 12080)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuMemcpy3DBatchAsync(
    numOps: usize,
    opList: *mut CUDA_MEMCPY3D_BATCH_OP,
    failIdx: *mut usize,
    flags: c_ulonglong,
    #[stream] hStream: CUstream,
);

/// Several copies of boxes, in any order among themselves.
#[op(since = 13000, ptsz = 13000)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
fn cuMemcpy3DBatchAsync_v2(
    numOps: usize,
    opList: *mut CUDA_MEMCPY3D_BATCH_OP,
    flags: c_ulonglong,
    #[stream] hStream: CUstream,
);

/// Copies a box, with hints.
#[op(since = 13020, ptsz = 13020)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuMemcpy3DWithAttributesAsync(
    op: *mut CUDA_MEMCPY3D_BATCH_OP,
    flags: c_ulonglong,
    #[stream] hStream: CUstream,
);

/// Copies a box between two places of which at least one is an array; the other lies in an array or in the region. `place` is as
/// `protocol::copy` encodes it. `flags` bit 0: answered when the bytes have arrived.
#[op(0x0868)]
#[sync]
#[internal]
fn copy_box(
    #[input] dst: *const [u8; 64],
    #[input] src: *const [u8; 64],
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    flags: u32,
);

/// Copies a box, packed at `staging_offset` of the lane's staging area, to a place. `flags` as for `stage_in`.
#[op(0x0869)]
#[posted]
#[internal]
fn stage_box_in(
    #[input] dst: *const [u8; 64],
    staging_offset: u64,
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    flags: u32,
);

/// As `stage_box_in`, for the last piece of a copy: answered when the whole copy has arrived.
#[op(0x086a)]
#[sync]
#[internal]
fn stage_box_in_last(
    #[input] dst: *const [u8; 64],
    staging_offset: u64,
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    flags: u32,
);

/// Copies a box at a place, packed, to `staging_offset` of the lane's staging area, which holds it when the operation is complete.
#[op(0x086b)]
#[posted]
#[internal]
fn stage_box_out(
    #[input] src: *const [u8; 64],
    staging_offset: u64,
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    flags: u32,
);

/// As `stage_box_out`, for the last piece of a copy.
#[op(0x086c)]
#[sync]
#[internal]
fn stage_box_out_last(
    #[input] src: *const [u8; 64],
    staging_offset: u64,
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    flags: u32,
);
