//! Devices, for the rest of the library; most of the calls themselves are generated.

use core::ffi::{c_char, c_uint};

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::process::process;
use crate::thread;
use crate::types::CUdevice;

/// Tells the host which devices the program is to see (`CUDA_VISIBLE_DEVICES`); the host numbers them accordingly.
pub fn announce_visible() -> CuResult {
    match std::env::var_os("CUDA_VISIBLE_DEVICES") {
        None => Ok(()),
        Some(list) => {
            let list =
                std::ffi::CString::new(list.into_encoded_bytes()).map_err(|_| Status::INVALID_VALUE)?;
            wire::set_visible_devices(Some(&list))
        }
    }
}

/// Number of devices that the program sees.
pub fn count() -> Result<i32, Status> {
    let mut count = 0;
    wire::cuDeviceGetCount(Some(&mut count))?;
    Ok(count)
}

pub fn attribute(device: i32, attribute: u32) -> Result<i32, Status> {
    let mut value = 0;
    wire::cuDeviceGetAttribute(Some(&mut value), attribute, device)?;
    Ok(value)
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
