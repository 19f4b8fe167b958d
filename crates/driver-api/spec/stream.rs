//! Streams. What concerns capture is in `capture.rs`.

/// Creates a stream.
#[op(0x0400, since = 2000)]
#[sync]
#[custom]
fn cuStreamCreate(#[out] phStream: *mut CUstream, Flags: c_uint);

/// Creates a stream with a priority.
#[op(0x0401, since = 5050)]
#[sync]
#[custom]
fn cuStreamCreateWithPriority(#[out] phStream: *mut CUstream, flags: c_uint, priority: c_int);

/// First version of cuStreamDestroy_v2.
#[op(since = 2000)]
#[like(cuStreamDestroy_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamDestroy(hStream: CUstream);

/// Destroys a stream; its work goes on.
#[op(0x0402, since = 4000)]
#[sync]
#[custom]
fn cuStreamDestroy_v2(#[dies] hStream: CUstream);

/// Priority of a stream.
#[op(0x0403, since = 5050, ptsz = 7000)]
#[sync]
fn cuStreamGetPriority(#[stream] hStream: CUstream, #[out] priority: *mut c_int);

/// Flags of a stream.
#[op(0x0404, since = 5050, ptsz = 7000)]
#[sync]
fn cuStreamGetFlags(#[stream] hStream: CUstream, #[out] flags: *mut c_uint);

/// Process-wide unique id of a stream.
#[op(0x0405, since = 12000, ptsz = 12000)]
#[sync]
fn cuStreamGetId(#[stream] hStream: CUstream, #[out] streamId: *mut c_ulonglong);

/// Context of a stream.
#[op(0x0406, since = 9020, ptsz = 9020)]
#[sync]
fn cuStreamGetCtx(#[stream] hStream: CUstream, #[out] pctx: *mut CUcontext);

/// Context or green context of a stream.
#[op(0x0407, since = 12050, ptsz = 12050)]
#[sync]
fn cuStreamGetCtx_v2(
    #[stream] hStream: CUstream,
    #[out] pCtx: *mut CUcontext,
    #[out] pGreenCtx: *mut CUgreenCtx,
);

/// Device of a stream.
#[op(0x0408, since = 12080, ptsz = 12080)]
#[sync]
fn cuStreamGetDevice(#[stream] hStream: CUstream, #[out] device: *mut CUdevice);

/// Makes a stream wait for an event.
#[op(0x0409, since = 3020, ptsz = 7000)]
#[posted]
#[custom]
fn cuStreamWaitEvent(#[stream] hStream: CUstream, hEvent: CUevent, Flags: c_uint);

/// CUDA_SUCCESS if all work of a stream is done, else CUDA_ERROR_NOT_READY.
#[op(0x040a, since = 2000, ptsz = 7000)]
#[sync]
#[custom]
fn cuStreamQuery(#[stream] hStream: CUstream);

/// Waits for all work of a stream.
#[op(0x040b, since = 2000, ptsz = 7000)]
#[sync]
#[custom]
#[host_custom]
fn cuStreamSynchronize(#[stream] hStream: CUstream);

/// Calls a function of the program with the stream's status, in stream order.
#[op(since = 5000, ptsz = 7000)]
#[via(callback_post, callback_next, callback_done)]
fn cuStreamAddCallback(
    #[stream] hStream: CUstream,
    callback: CUstreamCallback,
    userData: *mut c_void,
    flags: c_uint,
);

/// Restricts managed memory to a stream: a hint.
#[op(0x040c, since = 6000, ptsz = 7000)]
#[posted]
#[host_custom]
fn cuStreamAttachMemAsync(#[stream] hStream: CUstream, dptr: CUdeviceptr, length: usize, flags: c_uint);

/// Copies the attributes of a stream.
#[op(0x040d, since = 11000, ptsz = 11000)]
#[sync]
fn cuStreamCopyAttributes(#[stream] dst: CUstream, #[stream] src: CUstream);

/// An attribute of a stream.
#[op(0x040e, since = 11000, ptsz = 11000)]
#[sync]
fn cuStreamGetAttribute(
    #[stream] hStream: CUstream,
    attr: CUstreamAttrID,
    #[out] value_out: *mut CUstreamAttrValue,
);

/// Sets an attribute of a stream.
#[op(0x040f, since = 11000, ptsz = 11000)]
#[sync]
fn cuStreamSetAttribute(
    #[stream] hStream: CUstream,
    attr: CUstreamAttrID,
    #[input] value: *const CUstreamAttrValue,
);
