//! The hand-written rows of `spec/host_memory.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuMemHostAlloc(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pp: Option<&mut u64>,
    bytesize: u64,
    Flags: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemFreeHost(cuda: &CudaBackend, call: &mut Call<'_>, p: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
