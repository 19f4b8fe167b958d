//! The hand-written rows of `spec/stream.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuStreamSynchronize(cuda: &CudaBackend, call: &mut Call<'_>, hStream: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuStreamAttachMemAsync(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    hStream: u64,
    dptr: u64,
    length: u64,
    flags: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
