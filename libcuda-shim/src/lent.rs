#![allow(unsafe_code)]
//! Long copies of pageable memory in a virtual machine: the program lends the memory to the host, which copies it where it is.
//!
//! The machine's broker pins the pages and tells the host where they are; nothing is copied in the guest. Unsafe because the program's memory is named by its pointers.

use protocol::status::{CuResult, Status};

use crate::copy::{Rows, Side};
use crate::generated::wire;
use crate::process::process;

/// Shorter copies cost less through the staging area than pinning does (two messages of the broker, two system calls).
const SHORTEST: u64 = 1 << 20;
/// At a time: what is pinned counts against the machine's limits.
const LONGEST: u64 = 64 << 20;

/// Carries out as much of a copy as can be done this way; how many bytes that is, from the start. Only lines are.
///
/// # Errors
/// Those of the copy itself.
///
/// # Safety
/// The [`Side::Host`] side is valid for all rows.
pub unsafe fn copy(rows: &Rows, stream: u64) -> Result<u64, Status> {
    let Some(broker) = process().session.get().and_then(|session| session.broker()) else { return Ok(0) };
    if rows.height != 1 {
        return Ok(0);
    }
    type Transfer = fn(u64, u64, u64, u64, u64, u64) -> CuResult;
    let (host, device, transfer): (usize, u64, Transfer) = match (rows.dst, rows.src) {
        (Side::Region(dst), Side::Host(src)) => (src, dst, wire::lent_in),
        (Side::Host(dst), Side::Region(src)) => (dst, src, wire::lent_out),
        _ => return Ok(0),
    };
    let mut done = 0;
    while rows.width - done >= SHORTEST {
        let len = (rows.width - done).min(LONGEST);
        let at = core::ptr::with_exposed_provenance_mut(host + done as usize);
        // SAFETY: the program has given these bytes for the copy and leaves them alone until it is over. The host writes no others of these pages.
        let pinned = match unsafe { broker.pin(at, len as usize) } {
            Ok(pinned) => pinned,
            // Read-only memory, a limit: the staging area takes it.
            Err(error) => {
                crate::log!(Debug, "{len} bytes are copied by way of the staging area: {error}");
                return Ok(done);
            }
        };
        let (region, region_len, offset) = (pinned.region(), pinned.region_bytes(), pinned.offset_bytes());
        match transfer(device.wrapping_add(done), region, region_len, offset, len, stream) {
            Ok(()) => done += len,
            // The host has no room to map it: other threads lend much, and memory without huge pages is in many pieces.
            Err(Status::OUT_OF_MEMORY) => return Ok(done),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
