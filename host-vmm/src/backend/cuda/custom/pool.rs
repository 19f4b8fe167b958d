//! The hand-written rows of `spec/pool.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuMemAllocFromPoolAsync(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytesize: u64,
    pool: u64,
    hStream: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
