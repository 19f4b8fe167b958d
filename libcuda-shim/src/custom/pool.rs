#![allow(unsafe_code)]
//! Memory pools. Attributes are `int` or 64 bits wide. Unsafe because values and results are reached through the caller's pointers.

use core::ffi::c_void;

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::custom::vmm;
use crate::generated::wire;
use crate::types::*;

pub use crate::custom::memory::cuMemAllocFromPoolAsync;

/// The three reuse switches are `int`; from the release threshold on values are `cuuint64_t`.
const LAST_INT_ATTRIBUTE: CUmemPool_attribute = 3;

pub unsafe fn cuMemPoolGetAttribute(
    pool: CUmemoryPool,
    attribute: CUmemPool_attribute,
    value: *mut c_void,
) -> CuResult {
    require_init()?;
    if value.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let mut found = 0;
    wire::pool_get_attribute(pool as u64, attribute, Some(&mut found))?;
    if attribute <= LAST_INT_ATTRIBUTE {
        // SAFETY: not NULL; the attribute's type is int.
        unsafe { value.cast::<u32>().write_unaligned(found as u32) };
    } else {
        // SAFETY: not NULL; the attribute's type is cuuint64_t.
        unsafe { value.cast::<u64>().write_unaligned(found) };
    }
    Ok(())
}

pub unsafe fn cuMemPoolSetAttribute(
    pool: CUmemoryPool,
    attribute: CUmemPool_attribute,
    value: *mut c_void,
) -> CuResult {
    require_init()?;
    if value.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let given = if attribute <= LAST_INT_ATTRIBUTE {
        // SAFETY: not NULL; the attribute's type is int.
        u64::from(unsafe { value.cast::<u32>().read_unaligned() })
    } else {
        // SAFETY: not NULL; the attribute's type is cuuint64_t.
        unsafe { value.cast::<u64>().read_unaligned() }
    };
    wire::pool_set_attribute(pool as u64, attribute, given)
}

pub unsafe fn cuMemPoolCreate(pool: *mut CUmemoryPool, props: *const CUmemPoolProps) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a CUmemPoolProps, or NULL.
    if let Some(props) = unsafe { props.as_ref() } {
        vmm::refuse_host("cuMemPoolCreate", &props.location)?;
    }
    // SAFETY: the caller passes a pointer to its own variable, or NULL; a handle is an id of 64 bits.
    let pool = unsafe { pool.cast::<u64>().as_mut() };
    // SAFETY: the properties as bytes.
    wire::cuMemPoolCreate(pool, unsafe { props.cast::<[u8; 88]>().as_ref() })
}
