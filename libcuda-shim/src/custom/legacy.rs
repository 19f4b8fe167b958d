#![allow(unsafe_code)]
//! Calls of early CUDA versions. Unsafe because parameters and results are reached through the caller's pointers.

use core::ffi::{c_int, c_uint, c_void};
use core::ptr;

use protocol::status::{CuResult, Status};

use crate::custom::context::{self, require_init};
use crate::custom::launch;
use crate::generated::wire;
use crate::marshal;
use crate::pointer::out;
use crate::process::process;
use crate::thread;
use crate::types::*;

pub unsafe fn cuCtxAttach(context: *mut CUcontext, flags: c_uint) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let context = unsafe { out(context) }?;
    if flags != 0 {
        return Err(Status::INVALID_VALUE);
    }
    let current = thread::require_context()?;
    process().attached.attach(current);
    *context = current as CUcontext;
    Ok(())
}

pub unsafe fn cuCtxDetach(context: CUcontext) -> CuResult {
    require_init()?;
    process().contexts.get(context as u64)?;
    if process().attached.detach(context as u64) {
        // SAFETY: passed on as received.
        return unsafe { context::cuCtxDestroy_v2(context) };
    }
    Ok(())
}

pub unsafe fn cuDeviceTotalMem(bytes: *mut c_uint, device: CUdevice) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let bytes = unsafe { out(bytes) }?;
    let mut total = 0;
    wire::cuDeviceTotalMem_v2(Some(&mut total), device)?;
    *bytes = c_uint::try_from(total).unwrap_or(c_uint::MAX);
    Ok(())
}

/// The function must exist: all of these calls refuse others.
fn known(function: CUfunction) -> Result<u64, Status> {
    require_init()?;
    process().functions.get(function as u64)?;
    Ok(function as u64)
}

fn count(value: c_int) -> Result<u32, Status> {
    u32::try_from(value).map_err(|_| Status::INVALID_VALUE)
}

pub unsafe fn cuFuncSetBlockShape(function: CUfunction, x: c_int, y: c_int, z: c_int) -> CuResult {
    let block = [count(x)?, count(y)?, count(z)?];
    if block.contains(&0) {
        return Err(Status::INVALID_VALUE);
    }
    process().launches.change(known(function)?, |launch| launch.block = block);
    Ok(())
}

pub unsafe fn cuFuncSetSharedSize(function: CUfunction, bytes: c_uint) -> CuResult {
    process().launches.change(known(function)?, |launch| launch.shared_bytes = bytes);
    Ok(())
}

pub unsafe fn cuParamSetSize(function: CUfunction, len: c_uint) -> CuResult {
    process().launches.set_params_len(known(function)?, len as usize)
}

fn param(function: CUfunction, offset: c_int, bytes: &[u8]) -> CuResult {
    process().launches.param(known(function)?, count(offset)? as usize, bytes)
}

pub unsafe fn cuParamSeti(function: CUfunction, offset: c_int, value: c_uint) -> CuResult {
    param(function, offset, &value.to_ne_bytes())
}

pub unsafe fn cuParamSetf(function: CUfunction, offset: c_int, value: f32) -> CuResult {
    param(function, offset, &value.to_ne_bytes())
}

pub unsafe fn cuParamSetv(function: CUfunction, offset: c_int, value: *mut c_void, len: c_uint) -> CuResult {
    // SAFETY: the caller passes a value of that many bytes, or NULL.
    let value = unsafe { marshal::data_in(value.cast(), len as usize) };
    param(function, offset, value.ok_or(Status::INVALID_VALUE)?)
}

pub unsafe fn cuParamSetTexRef(function: CUfunction, _unit: c_int, texref: CUtexref) -> CuResult {
    known(function)?;
    if texref.is_null() { Err(Status::INVALID_HANDLE) } else { Ok(()) }
}

fn launch_grid(function: CUfunction, width: c_int, height: c_int, stream: CUstream) -> CuResult {
    let prepared = process().launches.get(known(function)?);
    let (width, height) = (count(width)?, count(height)?);
    let mut params = prepared.params;
    let mut len = params.len();
    let mut extra = [
        // CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE, _END
        ptr::without_provenance_mut::<c_void>(1),
        params.as_mut_ptr().cast(),
        ptr::without_provenance_mut(2),
        (&raw mut len).cast(),
        ptr::null_mut(),
    ];
    let [x, y, z] = prepared.block;
    let (params, extra) = (ptr::null_mut(), extra.as_mut_ptr());
    // SAFETY: the list and the buffer that it names live until the call returns.
    unsafe {
        launch::cuLaunchKernel(
            function,
            width,
            height,
            1,
            x,
            y,
            z,
            prepared.shared_bytes,
            stream,
            params,
            extra,
        )
    }
}

pub unsafe fn cuLaunch(function: CUfunction) -> CuResult {
    launch_grid(function, 1, 1, ptr::null_mut())
}

pub unsafe fn cuLaunchGrid(function: CUfunction, width: c_int, height: c_int) -> CuResult {
    launch_grid(function, width, height, ptr::null_mut())
}

pub unsafe fn cuLaunchGridAsync(
    function: CUfunction,
    width: c_int,
    height: c_int,
    stream: CUstream,
) -> CuResult {
    launch_grid(function, width, height, stream)
}
