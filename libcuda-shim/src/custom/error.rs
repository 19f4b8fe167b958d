#![allow(unsafe_code)]
//! Names and descriptions of result codes. Unsafe because results are written through the caller's pointers.

use core::ffi::{CStr, c_char};
use core::ptr;

use protocol::status::{CuResult, Status};

use crate::pointer::out;
use crate::types::CUresult;

fn give(place: *mut *const c_char, text: Option<&'static CStr>) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(place) }? = text.map_or(ptr::null(), CStr::as_ptr);
    if text.is_some() { Ok(()) } else { Err(Status::INVALID_VALUE) }
}

pub unsafe fn cuGetErrorName(error: CUresult, text: *mut *const c_char) -> CuResult {
    give(text, Status(error).name_cstr())
}

pub unsafe fn cuGetErrorString(error: CUresult, text: *mut *const c_char) -> CuResult {
    give(text, Status(error).description_cstr())
}
