//! Reads of device memory by helpers: bounded, inside the region, a fault is an error.

use std::ffi::c_void;

use crate::abi::FaultKind;
use crate::fault::{self, Fault};
use crate::region::{PAGE_LEN, Region};

struct Request {
    to: *mut u8,
    from: u64,
    len: usize,
}

unsafe extern "C" fn copy(request: *mut c_void) -> u32 {
    // SAFETY: called with the `Request` of `read`: `to` is a buffer of that length, `from` may fault, which is the point.
    unsafe {
        let request = &*request.cast::<Request>();
        std::ptr::copy_nonoverlapping(request.from as *const u8, request.to, request.len);
    }
    0
}

/// Fills `to` from device memory.
pub(super) fn read(region: &Region, from: u64, to: &mut [u8]) -> Result<(), Fault> {
    let last = from.checked_add(to.len().saturating_sub(1) as u64);
    if !region.contains(from) || !last.is_some_and(|last| region.contains(last)) {
        return Err(Fault { kind: FaultKind::IllegalAddress, address: from, pc: 0, outside_region: false });
    }
    let mut request = Request { to: to.as_mut_ptr(), from, len: to.len() };
    // SAFETY: `copy` writes the buffer, reads inside the region, and owns nothing.
    unsafe { fault::guarded(copy, (&raw mut request).cast()) }
        .map_err(|fault| Fault { kind: FaultKind::IllegalAddress, ..fault })
}

/// The bytes up to a NUL, at most `limit`.
pub(super) fn read_c_string(region: &Region, address: u64, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while bytes.len() < limit {
        // Never over the end of a page: the string may end just before unmapped memory.
        let from = address.wrapping_add(bytes.len() as u64);
        let chunk = (PAGE_LEN - from % PAGE_LEN).min(128).min((limit - bytes.len()) as u64) as usize;
        let old_len = bytes.len();
        bytes.resize(old_len + chunk, 0);
        read(region, from, &mut bytes[old_len..])?;
        if let Some(end) = bytes[old_len..].iter().position(|&byte| byte == 0) {
            bytes.truncate(old_len + end);
            break;
        }
    }
    Ok(bytes)
}
