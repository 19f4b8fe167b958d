#![allow(unsafe_code)]
//! Device memory, and queries about memory. Unsafe because results are written through the caller's pointers.

use core::ffi::{c_uint, c_void};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use protocol::ops;
use protocol::status::{CuResult, Status};

use crate::call::sync;
use crate::custom::context::require_init;
use crate::custom::init::learn_of;
use crate::generated::wire;
use crate::marshal::put;
use crate::process::process;
use crate::thread;
use crate::types::*;

/// Addresses of stream-ordered allocations. To free one of them cannot fail, so that nobody has to wait for it.
#[derive(Default)]
pub struct PoolMemory {
    live: Mutex<HashSet<u64>>,
}

impl PoolMemory {
    fn allocated(&self, address: u64) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
    }

    /// Returns whether it is known.
    fn freed(&self, address: u64) -> bool {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&address)
    }
}

/// Asks the host for device memory. It may lie where the driver has had none so far: that of pools, and of graphs in a capture.
fn allocate(wanted: bool, ask: impl FnOnce(Option<&mut u64>) -> CuResult) -> Result<u64, Status> {
    let mut address = 0;
    ask(wanted.then_some(&mut address))?;
    if address != 0
        && let Err(status) = learn_of(address)
    {
        let _ = wire::cuMemFree_v2(address);
        return Err(status);
    }
    Ok(address)
}

/// What cannot be allocated is NULL.
pub unsafe fn cuMemAlloc_v2(pointer: *mut CUdeviceptr, len: usize) -> CuResult {
    let wanted = !pointer.is_null();
    let allocated = allocate(wanted, |address| wire::cuMemAlloc_v2(address, len as u64));
    if let Ok(address) = allocated {
        process().allocations.device(address, len as u64, thread::current_context());
    }
    // SAFETY: not NULL: the caller's own variable.
    unsafe { put(pointer, wanted.then_some(allocated.unwrap_or(0))) };
    allocated.map(|_| ())
}

pub unsafe fn cuMemAllocPitch_v2(
    pointer: *mut CUdeviceptr,
    pitch: *mut usize,
    width: usize,
    height: usize,
    element: c_uint,
) -> CuResult {
    let wanted = !pointer.is_null();
    let mut found = (!pitch.is_null()).then_some(0);
    let allocated = allocate(wanted, |address| {
        wire::cuMemAllocPitch_v2(address, found.as_mut(), width as u64, height as u64, element)
    })?;
    process().allocations.other(allocated, found.unwrap_or(0).saturating_mul(height as u64));
    // SAFETY: not NULL: the caller's own variables.
    unsafe {
        put(pointer, wanted.then_some(allocated));
        put(pitch, found.map(|pitch| pitch as usize));
    }
    Ok(())
}

pub unsafe fn cuMemFree_v2(pointer: CUdeviceptr) -> CuResult {
    process().allocations.freed(pointer);
    wire::cuMemFree_v2(pointer)
}

/// What is known of no allocation begins at 0 and is empty.
pub unsafe fn cuMemGetAddressRange_v2(
    base: *mut CUdeviceptr,
    len: *mut usize,
    pointer: CUdeviceptr,
) -> CuResult {
    let mut start = (!base.is_null()).then_some(0);
    let mut extent = (!len.is_null()).then_some(0);
    let mut result = wire::cuMemGetAddressRange_v2(start.as_mut(), extent.as_mut(), pointer);
    if result == Err(Status::NOT_FOUND)
        && let Some(range) = process().registered.range(pointer as usize)
    {
        (start, extent) = (start.map(|_| range.start as u64), extent.map(|_| range.len() as u64));
        result = Ok(());
    }
    if matches!(result, Ok(()) | Err(Status::NOT_FOUND)) {
        // SAFETY: not NULL: the caller's own variables.
        unsafe {
            put(base, start);
            put(len, extent.map(|bytes| bytes as usize));
        }
    }
    result
}

/// # Safety
/// `pointer` is NULL or valid for a write.
unsafe fn from_pool(pointer: *mut CUdeviceptr, ask: impl FnOnce(Option<&mut u64>) -> CuResult) -> CuResult {
    let wanted = !pointer.is_null();
    let address = allocate(wanted, ask)?;
    if address != 0 {
        process().pool_memory.allocated(address);
    }
    // SAFETY: by the caller's promise.
    unsafe { put(pointer, wanted.then_some(address)) };
    Ok(())
}

pub unsafe fn cuMemAllocAsync(pointer: *mut CUdeviceptr, len: usize, stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { from_pool(pointer, |address| wire::cuMemAllocAsync(address, len as u64, stream as u64)) }
}

pub unsafe fn cuMemAllocFromPoolAsync(
    pointer: *mut CUdeviceptr,
    len: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe {
        from_pool(pointer, |address| {
            wire::cuMemAllocFromPoolAsync(address, len as u64, pool as u64, stream as u64)
        })
    }
}

/// Posted for memory that is known to be there; what else it may be, the driver judges at once.
pub unsafe fn cuMemFreeAsync(pointer: CUdeviceptr, stream: CUstream) -> CuResult {
    if pointer == 0 {
        return thread::require_context().map(|_| ());
    }
    process().allocations.freed(pointer);
    if process().pool_memory.freed(pointer) {
        return wire::cuMemFreeAsync(pointer, stream as u64);
    }
    let request = |w: &mut protocol::Writer<'_>| {
        w.u64(pointer);
        w.u64(stream as u64);
    };
    sync(ops::cuMemFreeAsync, request, |_| Ok(()))
}

/// No attribute's value is longer: a list of devices.
const MAX_VALUE_LEN: usize = 4096;

/// Managed memory is one that both sides see.
pub unsafe fn cuMemAllocManaged(pointer: *mut CUdeviceptr, len: usize, flags: c_uint) -> CuResult {
    require_init()?;
    if process().session.get().is_some_and(|session| session.pinned().is_some()) {
        crate::log!(Warn, "cuMemAllocManaged: this session shares no memory with the host");
        return Err(Status::NOT_SUPPORTED);
    }
    let wanted = !pointer.is_null();
    let address = allocate(wanted, |address| wire::cuMemAllocManaged(address, len as u64, flags))?;
    process().allocations.other(address, len as u64);
    // SAFETY: not NULL: the caller's own variable.
    unsafe { put(pointer, wanted.then_some(address)) };
    Ok(())
}

pub unsafe fn cuMemRangeGetAttributes(
    data: *mut *mut c_void,
    sizes: *mut usize,
    attributes: *mut CUmem_range_attribute,
    count: usize,
    pointer: CUdeviceptr,
    len: usize,
) -> CuResult {
    require_init()?;
    if data.is_null() || sizes.is_null() || attributes.is_null() || count == 0 {
        return Err(Status::INVALID_VALUE);
    }
    for index in 0..count {
        // SAFETY: all three are arrays of `count` elements by the caller's promise.
        let (place, size, attribute) =
            unsafe { (data.add(index).read(), sizes.add(index).read(), attributes.add(index).read()) };
        if place.is_null() || size > MAX_VALUE_LEN {
            return Err(Status::INVALID_VALUE);
        }
        let mut value = vec![0; size];
        wire::cuMemRangeGetAttribute(Some(&mut value), size as u64, attribute, pointer, len as u64)?;
        // SAFETY: the element has room for `size` bytes.
        unsafe { place.cast::<u8>().copy_from_nonoverlapping(value.as_ptr(), size) };
    }
    Ok(())
}
