//! Events.

/// Creates an event.
#[op(0x0440, since = 2000)]
#[sync]
#[custom]
fn cuEventCreate(#[out] phEvent: *mut CUevent, Flags: c_uint);

/// Creates an event whose handle the program has given it (`protocol::named`), so that nobody has to wait for it.
#[op(0x0447)]
#[posted]
#[internal]
fn event_create(event: u64, flags: u32);

/// First version of cuEventDestroy_v2.
#[op(since = 2000)]
#[like(cuEventDestroy_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuEventDestroy(hEvent: CUevent);

/// Destroys an event.
#[op(0x0441, since = 4000)]
#[posted]
#[custom]
fn cuEventDestroy_v2(#[dies] hEvent: CUevent);

/// Records an event in a stream.
#[op(0x0442, since = 2000, ptsz = 7000)]
#[posted]
#[custom]
fn cuEventRecord(hEvent: CUevent, #[stream] hStream: CUstream);

/// Records an event in a stream, with flags.
#[op(0x0443, since = 11010, ptsz = 11010)]
#[posted]
#[custom]
fn cuEventRecordWithFlags(hEvent: CUevent, #[stream] hStream: CUstream, flags: c_uint);

/// CUDA_SUCCESS if the event has happened, else CUDA_ERROR_NOT_READY.
#[op(0x0444, since = 2000)]
#[sync]
fn cuEventQuery(hEvent: CUevent);

/// Waits for an event.
#[op(0x0445, since = 2000)]
#[sync]
#[host_custom]
fn cuEventSynchronize(hEvent: CUevent);

/// Milliseconds between two events.
#[op(0x0446, since = 2000)]
#[sync]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuEventElapsedTime(#[out] pMilliseconds: *mut f32, hStart: CUevent, hEnd: CUevent);

/// Milliseconds between two events, with the newer results for events without timing.
#[op(since = 12080)]
#[like(cuEventElapsedTime)]
fn cuEventElapsedTime_v2(pMilliseconds: *mut f32, hStart: CUevent, hEnd: CUevent);
