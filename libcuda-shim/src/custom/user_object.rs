#![allow(unsafe_code)]
//! User objects. Unsafe because the destructor is a C function and the handle is written through the caller's pointer.

use core::ffi::{c_uint, c_void};

use protocol::status::{CuResult, Status};

use crate::callback;
use crate::custom::context::require_init;
use crate::generated::wire;
use crate::pointer::out;
use crate::types::*;

pub unsafe fn cuUserObjectCreate(
    object: *mut CUuserObject,
    data: *mut c_void,
    destroy: CUhostFn,
    initial_refcount: c_uint,
    flags: c_uint,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let object = unsafe { out(object) }?;
    let destroy = destroy.ok_or(Status::INVALID_VALUE)?;
    let id = callback::enter_destructor(destroy, data)?;
    let mut handle = 0;
    if let Err(status) = wire::user_object_create(id, initial_refcount, flags, Some(&mut handle)) {
        callback::forget(id);
        return Err(status);
    }
    *object = handle as CUuserObject;
    Ok(())
}
