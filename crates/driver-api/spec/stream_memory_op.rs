//! Waits for values in memory and writes of values to memory, in stream order.

/// First version of cuStreamWaitValue32_v2.
#[op(0x07c0, since = 8000, ptsz = 8000)]
#[sync]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamWaitValue32(#[stream] stream: CUstream, addr: CUdeviceptr, value: cuuint32_t, flags: c_uint);

/// The stream waits for a value of 32 bits.
#[op(0x07c1, since = 11070, ptsz = 11070)]
#[sync]
fn cuStreamWaitValue32_v2(#[stream] stream: CUstream, addr: CUdeviceptr, value: cuuint32_t, flags: c_uint);

/// First version of cuStreamWaitValue64_v2.
#[op(0x07c2, since = 9000, ptsz = 9000)]
#[sync]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamWaitValue64(#[stream] stream: CUstream, addr: CUdeviceptr, value: cuuint64_t, flags: c_uint);

/// The stream waits for a value of 64 bits.
#[op(0x07c3, since = 11070, ptsz = 11070)]
#[sync]
fn cuStreamWaitValue64_v2(#[stream] stream: CUstream, addr: CUdeviceptr, value: cuuint64_t, flags: c_uint);

/// First version of cuStreamWriteValue32_v2.
#[op(0x07c4, since = 8000, ptsz = 8000)]
#[sync]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamWriteValue32(#[stream] stream: CUstream, addr: CUdeviceptr, value: cuuint32_t, flags: c_uint);

/// Writes a value of 32 bits.
#[op(0x07c5, since = 11070, ptsz = 11070)]
#[sync]
fn cuStreamWriteValue32_v2(#[stream] stream: CUstream, addr: CUdeviceptr, value: cuuint32_t, flags: c_uint);

/// First version of cuStreamWriteValue64_v2.
#[op(0x07c6, since = 9000, ptsz = 9000)]
#[sync]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamWriteValue64(#[stream] stream: CUstream, addr: CUdeviceptr, value: cuuint64_t, flags: c_uint);

/// Writes a value of 64 bits.
#[op(0x07c7, since = 11070, ptsz = 11070)]
#[sync]
fn cuStreamWriteValue64_v2(#[stream] stream: CUstream, addr: CUdeviceptr, value: cuuint64_t, flags: c_uint);

/// First version of cuStreamBatchMemOp_v2.
#[op(0x07c8, since = 8000, ptsz = 8000)]
#[sync]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamBatchMemOp(
    #[stream] stream: CUstream,
    count: c_uint,
    #[data_in(count * 48)] paramArray: *mut CUstreamBatchMemOpParams,
    flags: c_uint,
);

/// Several waits, writes and barriers.
#[op(0x07c9, since = 11070, ptsz = 11070)]
#[sync]
fn cuStreamBatchMemOp_v2(
    #[stream] stream: CUstream,
    count: c_uint,
    #[data_in(count * 48)] paramArray: *mut CUstreamBatchMemOpParams,
    flags: c_uint,
);
