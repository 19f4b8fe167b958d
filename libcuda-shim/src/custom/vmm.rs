#![allow(unsafe_code)]
//! Memory without addresses, and handles of it for other programs. Unsafe because results are written through the caller's pointers.

use core::ffi::{c_int, c_ulonglong, c_void};
use std::os::fd::BorrowedFd;

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::pointer::{input, out};
use crate::shared_handle;
use crate::types::*;

/// `CU_MEM_LOCATION_TYPE_HOST`, `_HOST_NUMA`, `_HOST_NUMA_CURRENT`
const HOST_LOCATIONS: core::ops::RangeInclusive<u32> = 2..=4;

/// Refuses memory of the host, which the driver would allocate in the worker: the program would get addresses at which it sees nothing.
pub fn refuse_host(what: &str, location: &CUmemLocation) -> CuResult {
    if HOST_LOCATIONS.contains(&location.type_) {
        crate::log!(
            Warn,
            "{what}: memory of the host is not supported here (location type {})",
            location.type_
        );
        return Err(Status::NOT_SUPPORTED);
    }
    Ok(())
}

pub unsafe fn cuMemCreate(
    handle: *mut CUmemGenericAllocationHandle,
    len: usize,
    prop: *const CUmemAllocationProp,
    flags: c_ulonglong,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let handle = unsafe { handle.as_mut() };
    // SAFETY: the caller passes a CUmemAllocationProp, or NULL.
    if let Some(prop) = unsafe { prop.as_ref() } {
        refuse_host("cuMemCreate", &prop.location)?;
    }
    // SAFETY: the same, as bytes.
    let prop = unsafe { prop.cast::<[u8; 32]>().as_ref() };
    wire::cuMemCreate(handle, len as u64, prop, flags)
}

/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`, `_FABRIC`
const DESCRIPTOR: u32 = 1;
const FABRIC: u32 = 8;

/// Gives the program a handle in the form that it asks for.
///
/// # Safety
/// `place` is NULL or has room for a handle of that type.
pub unsafe fn export(place: *mut c_void, handle_type: u32, shared: &[u8; 64]) -> CuResult {
    match handle_type {
        DESCRIPTOR => {
            // SAFETY: by the caller's promise.
            *unsafe { out(place.cast::<c_int>()) }? = shared_handle::create(shared)?;
        }
        // SAFETY: by the caller's promise.
        FABRIC => *unsafe { out(place.cast::<[u8; 64]>()) }? = *shared,
        _ => return Err(Status::NOT_SUPPORTED),
    }
    Ok(())
}

/// Reads such a handle: a descriptor is passed as the pointer's value.
///
/// # Safety
/// For a fabric handle, NULL or a pointer to one.
pub unsafe fn import(handle: *mut c_void, handle_type: u32) -> Result<[u8; 64], Status> {
    match handle_type {
        DESCRIPTOR => {
            let descriptor = c_int::try_from(handle.addr()).map_err(|_| Status::INVALID_VALUE)?;
            if descriptor < 0 {
                return Err(Status::INVALID_VALUE);
            }
            // SAFETY: the caller's own, open for the call; one that is not open only makes the reading fail.
            shared_handle::read(unsafe { BorrowedFd::borrow_raw(descriptor) })
        }
        // SAFETY: by the caller's promise.
        FABRIC => unsafe { input(handle.cast::<[u8; 64]>()) }.copied(),
        _ => Err(Status::NOT_SUPPORTED),
    }
}

pub unsafe fn cuMemExportToShareableHandle(
    place: *mut c_void,
    handle: CUmemGenericAllocationHandle,
    handle_type: CUmemAllocationHandleType,
    flags: c_ulonglong,
) -> CuResult {
    require_init()?;
    if place.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let mut shared = [0; 64];
    wire::memory_export(handle, handle_type, flags, Some(&mut shared))?;
    // SAFETY: not NULL, and the caller's own variable.
    unsafe { export(place, handle_type, &shared) }
}

pub unsafe fn cuMemImportFromShareableHandle(
    handle: *mut CUmemGenericAllocationHandle,
    os_handle: *mut c_void,
    handle_type: CUmemAllocationHandleType,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let handle = unsafe { out(handle) }?;
    // SAFETY: as the call demands.
    let shared = unsafe { import(os_handle, handle_type) }?;
    wire::memory_import(Some(handle), Some(&shared), handle_type)
}
