//! The driver calls of the CPU backend: argument checks in the driver's order, then the modules above.

mod capture;
mod context;
mod device;
mod gpu_only;
mod memory;
mod memset;
mod module;
mod session;
mod stream;

use protocol::status::{CuResult, Status};

use crate::worker::registry::RegistryError;

/// Writes through an out-pointer that must not be NULL.
pub(super) fn put<T>(out: Option<&mut T>, value: T) -> CuResult {
    *out.ok_or(Status::INVALID_VALUE)? = value;
    Ok(())
}

/// Writes a NUL-terminated text, cut to the buffer.
pub(super) fn put_text(out: Option<&mut [u8]>, text: &str) -> CuResult {
    let out = out.filter(|out| !out.is_empty()).ok_or(Status::INVALID_VALUE)?;
    let len = text.len().min(out.len() - 1);
    out[..len].copy_from_slice(&text.as_bytes()[..len]);
    out[len] = 0;
    Ok(())
}

/// Address and size of a variable; either out-pointer may be NULL.
pub(super) fn put_global(global: (u64, u64), address: Option<&mut u64>, size: Option<&mut u64>) -> CuResult {
    if let Some(out) = address {
        *out = global.0;
    }
    if let Some(out) = size {
        *out = global.1;
    }
    Ok(())
}

/// The CUresult for an image that the registry does not accept. The program's shim made the image, so this is its or our defect.
pub(super) fn image_status(error: &RegistryError) -> Status {
    tracing::warn!("image refused: {error}");
    match error {
        RegistryError::TooLarge { .. } | RegistryError::TooMany => Status::OUT_OF_MEMORY,
        _ => Status::INVALID_IMAGE,
    }
}
