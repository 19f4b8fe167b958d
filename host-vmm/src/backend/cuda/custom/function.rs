//! The hand-written rows of `spec/function.rs`. A kernel, which belongs to no context, has calls of its own.

use protocol::status::CuResult;

use crate::backend::cuda::CudaBackend;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn cuFuncSetAttribute(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    hfunc: u64,
    attrib: u32,
    value: i32,
) -> CuResult {
    let raw = cuda.inward(Kind::CUfunction, hfunc)?;
    if cuda.handles.kind(hfunc) == Ok(Kind::CUkernel) {
        let device = cuda.current_device()?;
        // SAFETY: takes numbers and a handle of the driver.
        return unsafe { cuda.raw().cuKernelSetAttribute(attrib, value, raw, device) };
    }
    // SAFETY: as above.
    unsafe { cuda.raw().cuFuncSetAttribute(raw, attrib, value) }
}

pub fn cuFuncSetCacheConfig(cuda: &CudaBackend, _: &mut Call<'_>, hfunc: u64, config: u32) -> CuResult {
    let raw = cuda.inward(Kind::CUfunction, hfunc)?;
    if cuda.handles.kind(hfunc) == Ok(Kind::CUkernel) {
        let device = cuda.current_device()?;
        // SAFETY: takes numbers and a handle of the driver.
        return unsafe { cuda.raw().cuKernelSetCacheConfig(raw, config, device) };
    }
    // SAFETY: as above.
    unsafe { cuda.raw().cuFuncSetCacheConfig(raw, config) }
}
