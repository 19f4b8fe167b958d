#![allow(unsafe_code)]
//! The driver's log, and registrations of functions that are never called. Unsafe because results are written through the caller's pointers.

use core::ffi::{CStr, c_char, c_uint, c_void};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::custom::device;
use crate::generated::wire;
use crate::marshal;
use crate::pointer::{out, text};
use crate::process::process;
use crate::types::*;

/// `logs_dump`: from the beginning.
const ALL: u64 = u64::MAX;

/// The driver keeps no more of its log, in bytes.
const LOG_LEN: u64 = 25_600;

/// The log from an iterator on, which is moved to its end.
///
/// # Safety
/// `iterator` is NULL or the caller's own variable.
unsafe fn dump(iterator: *mut CUlogIterator, max_len: u64, flags: c_uint) -> Result<Vec<u8>, Status> {
    require_init()?;
    // SAFETY: by the caller's promise.
    let from = unsafe { marshal::input(iterator) }.map_or(ALL, u64::from);
    let (mut end, mut log) = (0, Vec::new());
    wire::logs_dump(from, max_len.min(LOG_LEN), flags, Some(&mut end), Some(&mut log))?;
    // SAFETY: by the caller's promise.
    unsafe { marshal::put(iterator, (!iterator.is_null()).then_some(end)) };
    let len = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    log.truncate(len);
    Ok(log)
}

pub unsafe fn cuLogsDumpToFile(iterator: *mut CUlogIterator, path: *const c_char, flags: c_uint) -> CuResult {
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let path: &CStr = unsafe { text(path) }?;
    // SAFETY: passed on as received.
    let log = unsafe { dump(iterator, LOG_LEN, flags) }?;
    std::fs::write(OsStr::from_bytes(path.to_bytes()), log).map_err(|_| Status::INVALID_VALUE)
}

pub unsafe fn cuLogsDumpToMemory(
    iterator: *mut CUlogIterator,
    buffer: *mut c_char,
    size: *mut usize,
    flags: c_uint,
) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let size = unsafe { out(size) }?;
    if buffer.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let room = core::mem::take(size);
    // SAFETY: passed on as received.
    let mut log = unsafe { dump(iterator, room as u64, flags) }?;
    log.truncate(room.saturating_sub(1));
    *size = log.len();
    if room > 0 {
        log.push(0);
        // SAFETY: the buffer has `room` bytes, and the text with its NUL is no longer.
        unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(log.as_ptr(), log.len()) };
    }
    Ok(())
}

/// Enters a registration and gives its handle to the caller.
///
/// # Safety
/// `place` is NULL or the caller's own variable.
unsafe fn register<T>(place: *mut *mut T) {
    let handle = process().registrations.enter();
    // SAFETY: by the caller's promise; a handle is an id in the clothes of a pointer.
    unsafe { marshal::put(place.cast::<u64>(), (!place.is_null()).then_some(handle)) };
}

pub unsafe fn cuLogsRegisterCallback(
    function: CUlogsCallback,
    _data: *mut c_void,
    handle: *mut CUlogsCallbackHandle,
) -> CuResult {
    function.ok_or(Status::INVALID_VALUE)?;
    // SAFETY: passed on as received.
    unsafe { register(handle) };
    Ok(())
}

pub unsafe fn cuLogsUnregisterCallback(handle: CUlogsCallbackHandle) -> CuResult {
    process().registrations.leave(handle as u64)
}

pub unsafe fn cuDeviceRegisterAsyncNotification(
    device: CUdevice,
    function: CUasyncCallback,
    _data: *mut c_void,
    handle: *mut CUasyncCallbackHandle,
) -> CuResult {
    require_init()?;
    if device < 0 || device >= device::count()? {
        return Err(Status::INVALID_DEVICE);
    }
    function.ok_or(Status::INVALID_VALUE)?;
    // SAFETY: passed on as received.
    unsafe { register(handle) };
    Ok(())
}

pub unsafe fn cuDeviceUnregisterAsyncNotification(
    _device: CUdevice,
    handle: CUasyncCallbackHandle,
) -> CuResult {
    require_init()?;
    process().registrations.leave(handle as u64)
}
