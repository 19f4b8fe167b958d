#![allow(unsafe_code)]
//! Pools by location, and pools that programs share. Unsafe because results are written through the caller's pointers.

use core::ffi::{c_ulonglong, c_void};

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::custom::vmm;
use crate::generated::wire;
use crate::pointer::out;
use crate::types::*;

/// A question for a pool by location.
///
/// # Safety
/// NULL, or pointers to the caller's own variables.
unsafe fn pool_of(
    what: &str,
    pool: *mut CUmemoryPool,
    location: *mut CUmemLocation,
    ask: impl FnOnce(Option<&mut u64>, Option<&[u8; 8]>) -> CuResult,
) -> CuResult {
    require_init()?;
    // SAFETY: by the caller's promise.
    if let Some(location) = unsafe { location.as_ref() } {
        vmm::refuse_host(what, location)?;
    }
    // SAFETY: by the caller's promise; a handle is an id of 64 bits, and a location 8 bytes.
    unsafe { ask(pool.cast::<u64>().as_mut(), location.cast::<[u8; 8]>().as_ref()) }
}

pub unsafe fn cuMemGetDefaultMemPool(
    pool: *mut CUmemoryPool,
    location: *mut CUmemLocation,
    kind: CUmemAllocationType,
) -> CuResult {
    let ask = |pool: Option<&mut u64>, location: Option<&[u8; 8]>| {
        wire::cuMemGetDefaultMemPool(pool, location, kind)
    };
    // SAFETY: passed on as received.
    unsafe { pool_of("cuMemGetDefaultMemPool", pool, location, ask) }
}

pub unsafe fn cuMemGetMemPool(
    pool: *mut CUmemoryPool,
    location: *mut CUmemLocation,
    kind: CUmemAllocationType,
) -> CuResult {
    let ask =
        |pool: Option<&mut u64>, location: Option<&[u8; 8]>| wire::cuMemGetMemPool(pool, location, kind);
    // SAFETY: passed on as received.
    unsafe { pool_of("cuMemGetMemPool", pool, location, ask) }
}

pub unsafe fn cuMemPoolExportToShareableHandle(
    place: *mut c_void,
    pool: CUmemoryPool,
    handle_type: CUmemAllocationHandleType,
    flags: c_ulonglong,
) -> CuResult {
    require_init()?;
    if place.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let mut shared = [0; 64];
    wire::pool_export(pool as u64, handle_type, flags, Some(&mut shared))?;
    // SAFETY: not NULL, and the caller's own variable.
    unsafe { vmm::export(place, handle_type, &shared) }
}

pub unsafe fn cuMemPoolImportFromShareableHandle(
    pool: *mut CUmemoryPool,
    handle: *mut c_void,
    handle_type: CUmemAllocationHandleType,
    flags: c_ulonglong,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL; a handle is an id of 64 bits.
    let pool = unsafe { out(pool.cast::<u64>()) }?;
    // SAFETY: as the call demands.
    let shared = unsafe { vmm::import(handle, handle_type) }?;
    wire::pool_import(Some(pool), Some(&shared), handle_type, flags)
}
