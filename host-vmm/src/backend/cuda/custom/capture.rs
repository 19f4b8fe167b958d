//! The hand-written rows of `spec/capture.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn capture_info(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    api: u32,
    stream: u64,
    flags: u32,
    status: Option<&mut u32>,
    id: Option<&mut u64>,
    graph: Option<&mut u64>,
    dependencies: Option<&mut Vec<u8>>,
    edges: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn lane_capture_mode(cuda: &CudaBackend, call: &mut Call<'_>, mode: u32) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn capture_callback(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    stream: u64,
    id: u64,
    kind: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
