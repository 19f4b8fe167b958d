#![allow(unsafe_code)]
//! Streams: callbacks, and stream capture as long as there are no graphs: nothing is ever capturing.
//! Unsafe because results are written through the caller's pointers.

use core::ffi::{c_uint, c_void};

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::pointer::out;
use crate::thread;
use crate::types::*;

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

/// `CU_STREAM_CAPTURE_STATUS_NONE`
const NOT_CAPTURING: CUstreamCaptureStatus = 0;
/// The capture modes are 0 to 2.
const CAPTURE_MODES: c_uint = 3;

pub unsafe fn cuStreamIsCapturing(_stream: CUstream, status: *mut CUstreamCaptureStatus) -> CuResult {
    require_init()?;
    thread::require_context()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(status) }? = NOT_CAPTURING;
    Ok(())
}

pub unsafe fn cuStreamGetCaptureInfo(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    _id: *mut cuuint64_t,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuStreamIsCapturing(stream, status) }
}

pub unsafe fn cuStreamGetCaptureInfo_v2(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    _id: *mut cuuint64_t,
    _graph: *mut CUgraph,
    _dependencies: *mut *const CUgraphNode,
    _count: *mut usize,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuStreamIsCapturing(stream, status) }
}

pub unsafe fn cuStreamGetCaptureInfo_v3(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    _id: *mut cuuint64_t,
    _graph: *mut CUgraph,
    _dependencies: *mut *const CUgraphNode,
    _edges: *mut *const CUgraphEdgeData,
    _count: *mut usize,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuStreamIsCapturing(stream, status) }
}

pub unsafe fn cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let mode = unsafe { out(mode) }?;
    if *mode >= CAPTURE_MODES {
        return Err(Status::INVALID_VALUE);
    }
    thread::with(|thread| {
        core::mem::swap(mode, &mut thread.capture_mode);
        Ok(())
    })
}

pub unsafe fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) -> CuResult {
    crate::custom::event::check(event, flags)?;
    wire::cuStreamWaitEvent(stream as u64, event as u64, flags)
}
