#![allow(unsafe_code)]
//! Page-locked host memory: it lies in the window, at the same address in the program and on the device; or in the program alone, where none can be shared.
//! Unsafe because results are written through the caller's pointers.

use core::ffi::{c_uint, c_void};

use protocol::status::{CuResult, Status};

use crate::copy::in_region;
use crate::custom::context::require_init;
use crate::custom::{device, pointer};
use crate::generated::wire;
use crate::pinned::Pinned;
use crate::pointer::out;
use crate::process::process;
use crate::types::*;
use crate::{sticky, thread};

/// The program's own page-locked memory, where none is shared with the host.
fn own_pinned() -> Option<&'static Pinned> {
    process().session.get()?.pinned()
}

pub unsafe fn cuMemHostAlloc(pointer: *mut *mut c_void, len: usize, flags: c_uint) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let pointer = unsafe { out(pointer) }?;
    /// The flags that exist: portable, device map, write-combined.
    const FLAGS: c_uint = 7;
    if len == 0 && flags & !FLAGS == 0 {
        thread::require_context()?;
        *pointer = core::ptr::null_mut();
        return Ok(());
    }
    if let Some(pinned) = own_pinned() {
        let context = thread::require_context()?;
        if flags & !FLAGS != 0 {
            return Err(Status::INVALID_VALUE);
        }
        *pointer = pinned.alloc(len as u64, flags, context, device::current()?)? as *mut c_void;
        return Ok(());
    }
    let mut address = 0;
    wire::cuMemHostAlloc(Some(&mut address), len as u64, flags)?;
    process().allocations.other(address, len as u64);
    *pointer = address as *mut c_void;
    Ok(())
}

pub unsafe fn cuMemAllocHost_v2(pointer: *mut *mut c_void, len: usize) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuMemHostAlloc(pointer, len, 0) }
}

pub unsafe fn cuMemFreeHost(pointer: *mut c_void) -> CuResult {
    require_init()?;
    if pointer.is_null() {
        return thread::require_context().map(|_| ());
    }
    if let Some(pinned) = own_pinned() {
        thread::require_context()?;
        return pinned.free(pointer.addr() as u64);
    }
    process().allocations.freed(pointer.addr() as u64);
    wire::cuMemFreeHost(pointer.addr() as u64)
}

/// Pinned memory has the same address on the device.
pub unsafe fn cuMemHostGetDevicePointer_v2(
    device: *mut CUdeviceptr,
    host: *mut c_void,
    flags: c_uint,
) -> CuResult {
    require_init()?;
    thread::require_context()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let device = unsafe { out(device) }?;
    if flags != 0 {
        return Err(Status::INVALID_VALUE);
    }
    let address = host.addr();
    if let Some(pinned) = own_pinned()
        && (pinned.find(address as u64).is_some() || process().registered.flags(address).is_some())
    {
        crate::log!(
            Warn,
            "cuMemHostGetDevicePointer: this session shares no memory with the host, so kernels cannot reach host memory"
        );
        return Err(Status::NOT_SUPPORTED);
    }
    if !in_region(address as u64) {
        *device = process().registered.device_address(address)?;
        return Ok(());
    }
    *device = host.addr() as u64;
    Ok(())
}

pub unsafe fn cuMemHostGetFlags(flags: *mut c_uint, host: *mut c_void) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let flags = unsafe { out(flags) }?;
    if let Some(registered) = process().registered.flags(host.addr()) {
        *flags = registered;
        return Ok(());
    }
    if let Some(own) = own_pinned().and_then(|pinned| pinned.find(host.addr() as u64)) {
        *flags = own.flags;
        return Ok(());
    }
    let info = pointer::info(host.addr() as u64)?;
    if info.kind != pointer::KIND_HOST {
        return Err(Status::INVALID_VALUE);
    }
    /// `CU_MEMHOSTALLOC_DEVICEMAP`: all of it is mapped.
    const DEVICEMAP: c_uint = 2;
    *flags = info.flags | DEVICEMAP;
    Ok(())
}

/// The flags that exist: portable, device map, I/O memory, read-only.
const REGISTER_FLAGS: c_uint = 0xf;

/// `CU_MEMHOSTREGISTER_DEVICEMAP`
const REGISTER_DEVICEMAP: c_uint = 2;

/// Remembers the range. The device reaches it as soon as somebody asks for that ([`crate::reach`]); until then copies from and to it go the way of pageable memory.
pub unsafe fn cuMemHostRegister_v2(pointer: *mut c_void, len: usize, flags: c_uint) -> CuResult {
    require_init()?;
    thread::require_context()?;
    sticky::check()?;
    if pointer.is_null() || len == 0 || flags & !REGISTER_FLAGS != 0 {
        return Err(Status::INVALID_VALUE);
    }
    process().registered.insert(pointer.addr(), len, flags)?;
    let registered = &process().registered;
    if (flags & REGISTER_DEVICEMAP != 0 || registered.used()) && own_pinned().is_none() {
        // What cannot be reached is registered all the same: copies are right.
        let _ = registered.device_address(pointer.addr());
    }
    Ok(())
}

pub unsafe fn cuMemHostUnregister(pointer: *mut c_void) -> CuResult {
    require_init()?;
    thread::require_context()?;
    if pointer.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    process().registered.remove(pointer.addr())
}

/// The old form, with a 32-bit size.
pub unsafe fn cuMemAllocHost(pointer: *mut *mut c_void, len: c_uint) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuMemHostAlloc(pointer, len as usize, 0) }
}
