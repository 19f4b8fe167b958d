#![allow(unsafe_code)]
//! Events: what the driver reports at once is checked before the operation is posted. Unsafe because results are written
//! through the caller's pointers.

use core::ffi::c_uint;

use protocol::status::{CuResult, Status};

use crate::custom::context::{make, require_init};
use crate::generated::wire;
use crate::process::{Process, process};
use crate::thread;
use crate::types::*;

/// `CU_EVENT_RECORD_EXTERNAL`, `CU_EVENT_WAIT_EXTERNAL`: only for streams that are being captured.
pub const EXTERNAL: c_uint = 1;

/// The checks that recording and waiting share.
pub fn check(event: CUevent, flags: c_uint) -> CuResult {
    require_init()?;
    thread::require_context()?;
    match flags {
        0 => {}
        // Whether this stream is capturing is the host's to judge.
        EXTERNAL if process().captures.active() => {}
        EXTERNAL => return Err(Status::ILLEGAL_STATE),
        _ => return Err(Status::INVALID_VALUE),
    }
    if event.is_null() { Err(Status::INVALID_HANDLE) } else { Ok(()) }
}

/// A stream of another context than the event's is refused.
fn check_owner(event: CUevent, stream: CUstream) -> CuResult {
    let Process { contexts, owners, .. } = process();
    if !contexts.several() {
        return Ok(());
    }
    let context = match stream {
        // Default streams are those of the current context.
        stream if stream <= CU_STREAM_PER_THREAD => thread::current_context(),
        stream => owners.of(stream as u64),
    };
    if contexts.are_strangers(owners.of(event as u64), context) {
        Err(Status::INVALID_HANDLE)
    } else {
        Ok(())
    }
}

pub unsafe fn cuEventCreate(event: *mut CUevent, flags: c_uint) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    unsafe { make(event, |handle| wire::cuEventCreate(handle, flags)) }
}

pub unsafe fn cuEventDestroy_v2(event: CUevent) -> CuResult {
    wire::cuEventDestroy_v2(event as u64)?;
    process().owners.ended(event as u64);
    Ok(())
}

pub unsafe fn cuEventRecord(event: CUevent, stream: CUstream) -> CuResult {
    check(event, 0)?;
    check_owner(event, stream)?;
    wire::cuEventRecord(event as u64, stream as u64)
}

pub unsafe fn cuEventRecordWithFlags(event: CUevent, stream: CUstream, flags: c_uint) -> CuResult {
    check(event, flags)?;
    check_owner(event, stream)?;
    wire::cuEventRecordWithFlags(event as u64, stream as u64, flags)
}
