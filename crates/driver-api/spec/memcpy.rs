//! Copies. Host pointers of the program are pageable unless they lie in the window; the guest decides.

/// Copies between any two addresses.
#[op(since = 4000, ptds = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpy(dst: CUdeviceptr, src: CUdeviceptr, ByteCount: usize);

/// Copies between two contexts.
#[op(since = 4000, ptds = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyPeer(
    dstDevice: CUdeviceptr,
    dstContext: CUcontext,
    srcDevice: CUdeviceptr,
    srcContext: CUcontext,
    ByteCount: usize,
);

/// Copies from the host to the device.
#[op(since = 3020, ptds = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyHtoD_v2(dstDevice: CUdeviceptr, srcHost: *const c_void, ByteCount: usize);

/// Copies from the device to the host.
#[op(since = 3020, ptds = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyDtoH_v2(dstHost: *mut c_void, srcDevice: CUdeviceptr, ByteCount: usize);

/// Copies within the device.
#[op(since = 3020, ptds = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyDtoD_v2(dstDevice: CUdeviceptr, srcDevice: CUdeviceptr, ByteCount: usize);

/// Copies between any two addresses, in stream order.
#[op(since = 4000, ptsz = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyAsync(dst: CUdeviceptr, src: CUdeviceptr, ByteCount: usize, #[stream] hStream: CUstream);

/// Copies between two contexts, in stream order.
#[op(since = 4000, ptsz = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyPeerAsync(
    dstDevice: CUdeviceptr,
    dstContext: CUcontext,
    srcDevice: CUdeviceptr,
    srcContext: CUcontext,
    ByteCount: usize,
    #[stream] hStream: CUstream,
);

/// Copies from the host to the device, in stream order.
#[op(since = 3020, ptsz = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyHtoDAsync_v2(
    dstDevice: CUdeviceptr,
    srcHost: *const c_void,
    ByteCount: usize,
    #[stream] hStream: CUstream,
);

/// Copies from the device to the host, in stream order.
#[op(since = 3020, ptsz = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyDtoHAsync_v2(
    dstHost: *mut c_void,
    srcDevice: CUdeviceptr,
    ByteCount: usize,
    #[stream] hStream: CUstream,
);

/// Copies within the device, in stream order.
#[op(since = 3020, ptsz = 7000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyDtoDAsync_v2(
    dstDevice: CUdeviceptr,
    srcDevice: CUdeviceptr,
    ByteCount: usize,
    #[stream] hStream: CUstream,
);

/// Copies rows.
#[op(since = 3020, ptds = 7000)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    stage_out_watched,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
fn cuMemcpy2D_v2(pCopy: *const CUDA_MEMCPY2D);

/// Copies rows of any pitch.
#[op(since = 3020, ptds = 7000)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    stage_out_watched,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
fn cuMemcpy2DUnaligned_v2(pCopy: *const CUDA_MEMCPY2D);

/// Copies rows, in stream order.
#[op(since = 3020, ptsz = 7000)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    stage_out_watched,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
fn cuMemcpy2DAsync_v2(pCopy: *const CUDA_MEMCPY2D, #[stream] hStream: CUstream);

/// Copies layers of rows.
#[op(since = 3020, ptds = 7000)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    stage_out_watched,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
fn cuMemcpy3D_v2(pCopy: *const CUDA_MEMCPY3D);

/// Copies layers of rows, in stream order.
#[op(since = 3020, ptsz = 7000)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    stage_out_watched,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
fn cuMemcpy3DAsync_v2(pCopy: *const CUDA_MEMCPY3D, #[stream] hStream: CUstream);

/// Copies layers of rows between contexts.
#[op(since = 4000, ptds = 7000)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    stage_out_watched,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
fn cuMemcpy3DPeer(pCopy: *const CUDA_MEMCPY3D_PEER);

/// Copies layers of rows between contexts, in stream order.
#[op(since = 4000, ptsz = 7000)]
#[via(
    copy,
    copy_2d,
    stage_in,
    stage_in_last,
    stage_out,
    stage_out_last,
    stage_out_watched,
    copy_box,
    stage_box_in,
    stage_box_in_last,
    stage_box_out,
    stage_box_out_last
)]
fn cuMemcpy3DPeerAsync(pCopy: *const CUDA_MEMCPY3D_PEER, #[stream] hStream: CUstream);

/// Copies between any two addresses, in stream order, with hints.
#[op(since = 13020, ptsz = 13020)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuMemcpyWithAttributesAsync(
    dst: CUdeviceptr,
    src: CUdeviceptr,
    size: usize,
    attr: *mut CUmemcpyAttributes,
    #[stream] hStream: CUstream,
);

/// First version of cuMemcpyBatchAsync_v2, which says where it failed.
#[op(since = 12080, ptsz = 12080)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuMemcpyBatchAsync(
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    attrs: *mut CUmemcpyAttributes,
    attrsIdxs: *mut usize,
    numAttrs: usize,
    failIdx: *mut usize,
    #[stream] hStream: CUstream,
);

/// Several copies, in any order among themselves.
#[op(since = 13000, ptsz = 13000)]
#[via(copy, copy_2d, stage_in, stage_in_last, stage_out, stage_out_last, stage_out_watched)]
fn cuMemcpyBatchAsync_v2(
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    attrs: *mut CUmemcpyAttributes,
    attrsIdxs: *mut usize,
    numAttrs: usize,
    #[stream] hStream: CUstream,
);
