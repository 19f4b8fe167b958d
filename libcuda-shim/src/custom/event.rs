#![allow(unsafe_code)]
//! Events: what the driver reports at once is checked before the operation is posted. Unsafe because of the common shape of these functions.

use core::ffi::c_uint;

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::process::process;
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

pub unsafe fn cuEventRecord(event: CUevent, stream: CUstream) -> CuResult {
    check(event, 0)?;
    wire::cuEventRecord(event as u64, stream as u64)
}

pub unsafe fn cuEventRecordWithFlags(event: CUevent, stream: CUstream, flags: c_uint) -> CuResult {
    check(event, flags)?;
    wire::cuEventRecordWithFlags(event as u64, stream as u64, flags)
}
