#![allow(unsafe_code)]
//! The caller's pointers. Unsafe because C promises only that they are NULL or valid.

use core::ffi::{CStr, c_char};

use protocol::status::Status;

/// An out-pointer; INVALID_VALUE when it is NULL.
///
/// # Safety
/// NULL, or valid for writes of a `T`.
pub unsafe fn out<'a, T>(pointer: *mut T) -> Result<&'a mut T, Status> {
    // SAFETY: by the caller's promise.
    unsafe { pointer.as_mut() }.ok_or(Status::INVALID_VALUE)
}

/// An in-structure; INVALID_VALUE when it is NULL.
///
/// # Safety
/// NULL, or valid for reads of a `T`.
pub unsafe fn input<'a, T>(pointer: *const T) -> Result<&'a T, Status> {
    // SAFETY: by the caller's promise.
    unsafe { pointer.as_ref() }.ok_or(Status::INVALID_VALUE)
}

/// A C string; INVALID_VALUE when it is NULL.
///
/// # Safety
/// NULL, or NUL-terminated.
pub unsafe fn text<'a>(pointer: *const c_char) -> Result<&'a CStr, Status> {
    if pointer.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: not NULL, and by the caller's promise.
    Ok(unsafe { CStr::from_ptr(pointer) })
}
