#![allow(unsafe_code)]
//! Streams: callbacks, and what the guest has to know of. Unsafe because of the common shape of these functions.

use core::ffi::{c_int, c_uint, c_void};

use protocol::status::{CuResult, Status};

use crate::custom::context::{make, require_init};
use crate::generated::wire;
use crate::idle;
use crate::process::process;
use crate::thread;
use crate::types::*;

pub unsafe fn cuStreamCreate(stream: *mut CUstream, flags: c_uint) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    unsafe { make(stream, |handle| wire::cuStreamCreate(handle, flags)) }
}

pub unsafe fn cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    unsafe { make(stream, |handle| wire::cuStreamCreateWithPriority(handle, flags, priority)) }
}

pub unsafe fn cuStreamSynchronize(stream: CUstream) -> CuResult {
    idle::stream(stream as u64, || wire::cuStreamSynchronize(stream as u64))
}

pub unsafe fn cuStreamQuery(stream: CUstream) -> CuResult {
    idle::stream(stream as u64, || wire::cuStreamQuery(stream as u64)).map_err(|status| match status {
        // The driver's word for a stream that is none any more.
        Status::INVALID_HANDLE => Status::CONTEXT_IS_DESTROYED,
        status => status,
    })
}

pub unsafe fn cuStreamAddCallback(
    stream: CUstream,
    callback: CUstreamCallback,
    data: *mut c_void,
    flags: c_uint,
) -> CuResult {
    require_init()?;
    thread::require_context()?;
    if flags != 0 {
        return Err(Status::INVALID_VALUE);
    }
    crate::callback::queue_stream_callback(stream as u64, callback, data)
}

pub unsafe fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) -> CuResult {
    crate::custom::event::check(event, flags)?;
    wire::cuStreamWaitEvent(stream as u64, event as u64, flags)
}

pub unsafe fn cuStreamDestroy_v2(stream: CUstream) -> CuResult {
    wire::cuStreamDestroy_v2(stream as u64)?;
    process().owners.ended(stream as u64);
    crate::custom::capture::stream_ended(stream as u64);
    Ok(())
}
