#![allow(unsafe_code)]
//! Devices, for the rest of the library; most of the calls themselves are generated. Unsafe because results are written through the caller's pointers.

use core::ffi::{CStr, c_char, c_int, c_uint};
use std::ffi::CString;

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::process::process;
use crate::thread;
use crate::types::*;

/// The program's list of devices.
pub fn visible() -> Result<Option<CString>, Status> {
    let list = std::env::var_os("CUDA_VISIBLE_DEVICES").map(|list| CString::new(list.into_encoded_bytes()));
    list.transpose().map_err(|_| Status::INVALID_VALUE)
}

/// Tells the host which devices the program is to see; the host numbers them accordingly.
pub fn announce_visible(list: Option<&CStr>) -> CuResult {
    match list {
        None => Ok(()),
        list => wire::set_visible_devices(list),
    }
}

/// Number of devices that the program sees.
pub fn count() -> Result<i32, Status> {
    let mut count = 0;
    wire::cuDeviceGetCount(Some(&mut count))?;
    Ok(count)
}

/// Attributes that speak of memory which program and device both see: mapped host memory (19), managed memory (83, 89, 101), pageable and registered memory
/// (88, 91, 100).
const OF_SHARED_MEMORY: [u32; 7] = [19, 83, 88, 89, 91, 100, 101];

pub fn attribute(device: i32, attribute: u32) -> Result<i32, Status> {
    let mut value = 0;
    wire::cuDeviceGetAttribute(Some(&mut value), attribute, device)?;
    let shares = process().session.get().is_none_or(|session| session.pinned().is_none());
    Ok(if shares || !OF_SHARED_MEMORY.contains(&attribute) { value } else { 0 })
}

pub unsafe fn cuDeviceGetAttribute(
    value: *mut c_int,
    which: CUdevice_attribute,
    device: CUdevice,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    match unsafe { value.as_mut() } {
        Some(value) => *value = attribute(device, which)?,
        // The host knows which of several errors is the driver's.
        None => wire::cuDeviceGetAttribute(None, which, device)?,
    }
    Ok(())
}

/// The device's id as `cuDeviceGetUuid` (first version) gives it.
pub fn uuid(device: i32) -> Result<[u8; 16], Status> {
    let mut uuid = [0; 16];
    wire::cuDeviceGetUuid(Some(&mut uuid), device)?;
    Ok(uuid)
}

/// The handle of a device's primary context, retained or not.
pub fn primary_context(device: i32) -> Result<u64, Status> {
    require_init()?;
    let contexts = &process().contexts;
    if let Some(handle) = contexts.primary(device) {
        return Ok(handle);
    }
    let mut handle = 0;
    wire::primary_context(device, Some(&mut handle))?;
    contexts.primary_known(device, handle);
    Ok(handle)
}

/// The device of the current context.
pub fn current() -> Result<i32, Status> {
    require_init()?;
    let handle = thread::require_context()?;
    process().contexts.get(handle).map(|context| context.device)
}

/// Only Windows has these.
pub fn cuDeviceGetLuid(_luid: *mut c_char, _mask: *mut c_uint, device: CUdevice) -> CuResult {
    require_init()?;
    if device < 0 || device >= count()? {
        return Err(Status::INVALID_DEVICE);
    }
    Err(Status::NOT_SUPPORTED)
}
