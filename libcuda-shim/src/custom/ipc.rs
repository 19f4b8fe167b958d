#![allow(unsafe_code)]
//! Memory of other programs. Unsafe because results are written through the caller's pointers.

use protocol::status::CuResult;

use crate::generated::wire;
use crate::marshal::put;
use crate::process::process;
use crate::types::*;

pub unsafe fn cuIpcGetMemHandle(handle: *mut CUipcMemHandle, pointer: CUdeviceptr) -> CuResult {
    process().allocations.shared(pointer);
    let mut bytes = (!handle.is_null()).then_some([0; 64]);
    wire::cuIpcGetMemHandle(bytes.as_mut(), pointer)?;
    // SAFETY: not NULL: the caller's own variable.
    unsafe { put(handle.cast(), bytes) };
    Ok(())
}
