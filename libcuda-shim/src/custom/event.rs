#![allow(unsafe_code)]
//! Events: what the driver reports at once is checked before the operation is posted. Unsafe because results are written
//! through the caller's pointers.

use core::ffi::c_uint;

use protocol::status::{CuResult, Status};
use protocol::{Capabilities, named, ops};

use crate::call::sync;
use crate::custom::context::{make, require_init};
use crate::generated::wire;
use crate::process::{Process, process};
use crate::session::Session;
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

/// `CU_EVENT_BLOCKING_SYNC` and `CU_EVENT_DISABLE_TIMING`: with no other flags there is nothing in a creation that the driver could refuse.
const PLAIN: c_uint = 3;

/// Gives an event a handle and asks the host to make it; none if the host has to be waited for.
fn create_named(flags: c_uint) -> Result<Option<u64>, Status> {
    let process = process();
    let able = |session: &Session| session.capabilities().contains(Capabilities::NAMED_EVENTS);
    let here = process.contexts.is_active(thread::current_context());
    if flags & !PLAIN != 0 || !here || !process.session.get().is_some_and(able) {
        return Ok(None);
    }
    let Some(handle) = process.owners.name() else { return Ok(None) };
    wire::event_create(handle, flags)?;
    Ok(Some(handle))
}

pub unsafe fn cuEventCreate(event: *mut CUevent, flags: c_uint) -> CuResult {
    let ask = |handle: Option<&mut u64>| match handle {
        Some(handle) => match create_named(flags)? {
            Some(named) => {
                *handle = named;
                Ok(())
            }
            None => wire::cuEventCreate(Some(handle), flags),
        },
        None => wire::cuEventCreate(None, flags),
    };
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    unsafe { make(event, ask) }
}

/// Posted for an event of the current context that is known to be there; what else it may be, the driver judges at once.
pub unsafe fn cuEventDestroy_v2(event: CUevent) -> CuResult {
    let (handle, context) = (event as u64, thread::current_context());
    let Process { owners, contexts, .. } = process();
    if contexts.is_active(context) && named::is_named(handle) && owners.of(handle) == context {
        owners.ended(handle);
        return wire::cuEventDestroy_v2(handle);
    }
    sync(ops::cuEventDestroy_v2, |w| w.u64(handle), |_| Ok(()))?;
    owners.ended(handle);
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
