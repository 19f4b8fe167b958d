//! The hand-written rows of `spec/context.rs`.

use protocol::status::CuResult;

use super::put;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::out;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn cuDevicePrimaryCtxRetain(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    pctx: Option<&mut u64>,
    dev: i32,
) -> CuResult {
    put(pctx, cuda.primary_retain(dev)?)?;
    // That of the first device was made at the start.
    if dev != 0 {
        cuda.space.look();
    }
    Ok(())
}

pub fn cuDevicePrimaryCtxRelease_v2(cuda: &CudaBackend, call: &mut Call<'_>, dev: i32) -> CuResult {
    let result = cuda.primary_release(dev);
    cuda.flushed(call);
    result
}

pub fn cuDevicePrimaryCtxSetFlags_v2(cuda: &CudaBackend, _: &mut Call<'_>, dev: i32, flags: u32) -> CuResult {
    cuda.primary_set_flags(dev, flags)
}

pub fn cuDevicePrimaryCtxReset_v2(cuda: &CudaBackend, call: &mut Call<'_>, dev: i32) -> CuResult {
    let result = cuda.primary_reset(dev);
    cuda.flushed(call);
    result
}

pub fn cuCtxCreate_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pctx: Option<&mut u64>,
    flags: u32,
    dev: i32,
) -> CuResult {
    cuda.room()?;
    let mut raw = 0;
    // SAFETY: the output is a variable of the right type, or NULL.
    unsafe { cuda.raw().cuCtxCreate_v2(out(pctx.is_some(), &mut raw), flags, dev) }?;
    // The driver has pushed it; which context is current, the program says before its next call.
    let mut popped = 0;
    // SAFETY: the output is a variable of the right type.
    unsafe { cuda.raw().cuCtxPopCurrent_v2(&mut popped) }?;
    if dev != 0 {
        cuda.space.look();
    }
    put(pctx, cuda.born(call, Kind::CUcontext, raw, None)?)
}

pub fn cuCtxDestroy_v2(cuda: &CudaBackend, call: &mut Call<'_>, ctx: u64) -> CuResult {
    let raw = cuda.inward(Kind::CUcontext, ctx)?;
    cuda.context_goes(ctx);
    let (_, dying) = cuda.dying(Kind::CUcontext, ctx)?;
    // SAFETY: takes a handle of the driver.
    let result = unsafe { cuda.raw().cuCtxDestroy_v2(raw) };
    cuda.settle(&result, [dying]);
    cuda.context_gone(ctx);
    if call.lane.context == ctx {
        call.lane.context = 0;
    }
    cuda.flushed(call);
    result
}

pub fn cuCtxSynchronize(cuda: &CudaBackend, call: &mut Call<'_>) -> CuResult {
    // SAFETY: takes nothing.
    let result = unsafe { cuda.raw().cuCtxSynchronize() };
    cuda.flushed(call);
    result
}

pub fn cuCtxSynchronize_v2(cuda: &CudaBackend, call: &mut Call<'_>, ctx: u64) -> CuResult {
    let ctx = cuda.inward(Kind::CUcontext, ctx)?;
    // SAFETY: takes a handle of the driver.
    let result = unsafe { cuda.raw().cuCtxSynchronize_v2(ctx) };
    cuda.flushed(call);
    result
}
