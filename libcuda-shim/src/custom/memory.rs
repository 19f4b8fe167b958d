#![allow(unsafe_code)]
//! Queries about memory. Unsafe because results are written through the caller's pointers.

use core::ffi::c_void;

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
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
