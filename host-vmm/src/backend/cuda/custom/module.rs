//! The hand-written rows of `spec/module.rs`: managed variables are the backend's own.

use std::ffi::CStr;

use protocol::status::CuResult;

use super::give_variable;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::scalar;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn cuModuleUnload(cuda: &CudaBackend, _: &mut Call<'_>, hmod: u64) -> CuResult {
    let (raw, dying) = cuda.dying(Kind::CUmodule, hmod)?;
    // SAFETY: takes a handle of the driver.
    let result = unsafe { cuda.raw().cuModuleUnload(raw) };
    cuda.settle(&result, [dying]);
    if result.is_ok() {
        cuda.unloaded(hmod);
    }
    result
}

pub fn cuModuleGetGlobal_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytes: Option<&mut u64>,
    hmod: u64,
    name: Option<&CStr>,
) -> CuResult {
    let raw = cuda.inward(Kind::CUmodule, hmod)?;
    if let Some(variable) = cuda.variable(call, hmod, name)? {
        return give_variable(variable, dptr, bytes);
    }
    let name = name.map_or(core::ptr::null(), CStr::as_ptr);
    // SAFETY: the outputs are variables of the right types, or NULL; the text ends with NUL, or is NULL.
    unsafe { cuda.raw().cuModuleGetGlobal_v2(scalar(dptr), scalar(bytes), raw, name) }
}
