#![allow(unsafe_code)]
//! Queries about memory. Unsafe because results are written through the caller's pointers.

use core::ffi::c_void;

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::custom::init;
use crate::generated::wire;
use crate::marshal::put;
use crate::process::process;
use crate::types::*;

/// No attribute's value is longer: a list of devices.
const MAX_VALUE_LEN: usize = 4096;

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

/// What becomes of memory that was allocated in stream order: in a capture it is a graph's, which has addresses of its own.
///
/// # Safety
/// `place` is NULL or valid for writes.
pub unsafe fn give_in_order(place: *mut CUdeviceptr, address: Option<u64>) -> CuResult {
    if let Some(address) = address
        && process().captures.active()
    {
        init::learn_of(address)?;
    }
    // SAFETY: by the caller's promise.
    unsafe { put(place, address) };
    Ok(())
}

pub unsafe fn cuMemAllocAsync(place: *mut CUdeviceptr, len: usize, stream: CUstream) -> CuResult {
    let mut address = (!place.is_null()).then_some(0);
    wire::cuMemAllocAsync(address.as_mut(), len as u64, stream as u64)?;
    // SAFETY: passed on as received.
    unsafe { give_in_order(place, address) }
}
