//! The hand-written rows of `spec/context.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuDevicePrimaryCtxRetain(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pctx: Option<&mut u64>,
    dev: i32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuDevicePrimaryCtxRelease_v2(cuda: &CudaBackend, call: &mut Call<'_>, dev: i32) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuDevicePrimaryCtxSetFlags_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dev: i32,
    flags: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuDevicePrimaryCtxReset_v2(cuda: &CudaBackend, call: &mut Call<'_>, dev: i32) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuCtxCreate_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pctx: Option<&mut u64>,
    flags: u32,
    dev: i32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuCtxDestroy_v2(cuda: &CudaBackend, call: &mut Call<'_>, ctx: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuCtxSynchronize(cuda: &CudaBackend, call: &mut Call<'_>) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuCtxSynchronize_v2(cuda: &CudaBackend, call: &mut Call<'_>, ctx: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
