#![allow(unsafe_code)]
//! Green contexts: which contexts they are, and how resources are split. Unsafe because results are written through the caller's pointers.

use core::ffi::c_uint;

use protocol::status::CuResult;

use crate::custom::context::{drop_local_storage, require_init};
use crate::generated::wire;
use crate::marshal;
use crate::pointer::out;
use crate::process::process;
use crate::types::*;

/// More groups than any device has multiprocessors.
const MAX_GROUPS: u32 = 4096;

pub unsafe fn cuDevSmResourceSplitByCount(
    result: *mut CUdevResource,
    groups: *mut c_uint,
    input: *const CUdevResource,
    remaining: *mut CUdevResource,
    flags: c_uint,
    min_count: c_uint,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let groups = unsafe { out(groups) }?;
    // SAFETY: the caller passes a resource, or NULL.
    let input = unsafe { marshal::input(input.cast::<[u8; 144]>()) };
    let wanted = (*groups).min(MAX_GROUPS);
    let (mut rest, mut found, mut count) = ([0; 144], Vec::new(), 0);
    wire::sm_resource_split(
        wanted,
        input.as_ref(),
        flags,
        min_count,
        Some(&mut count),
        (!remaining.is_null()).then_some(&mut rest),
        (!result.is_null()).then_some(&mut found),
    )?;
    if !result.is_null() {
        let (resources, _) = found.as_chunks::<144>();
        for (index, resource) in resources.iter().take(wanted as usize).enumerate() {
            // SAFETY: the caller has room for as many as it wants.
            unsafe { result.add(index).cast::<[u8; 144]>().write_unaligned(*resource) };
        }
    }
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    unsafe { marshal::put(remaining.cast(), (!remaining.is_null()).then_some(rest)) };
    *groups = count;
    Ok(())
}

pub unsafe fn cuGreenCtxCreate(
    green: *mut CUgreenCtx,
    resources: CUdevResourceDesc,
    device: CUdevice,
    flags: c_uint,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let green = unsafe { out(green) }?;
    let mut handle = 0;
    wire::cuGreenCtxCreate(Some(&mut handle), resources as u64, device, flags)?;
    process().contexts.green_created(handle, device);
    *green = handle as CUgreenCtx;
    Ok(())
}

pub unsafe fn cuGreenCtxDestroy(green: CUgreenCtx) -> CuResult {
    require_init()?;
    process().allocations.forget();
    wire::cuGreenCtxDestroy(green as u64)?;
    if let Some(context) = process().contexts.green_destroyed(green as u64) {
        drop_local_storage(context);
        process().owners.context_ended(context);
        process().graph_buffers.context_ended(context);
    }
    Ok(())
}

pub unsafe fn cuCtxFromGreenCtx(context: *mut CUcontext, green: CUgreenCtx) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let context = unsafe { out(context) }?;
    let contexts = &process().contexts;
    let handle = contexts.of_green(green as u64, || {
        let mut handle = 0;
        wire::cuCtxFromGreenCtx(Some(&mut handle), green as u64).map(|()| handle)
    });
    *context = handle? as CUcontext;
    Ok(())
}
