//! The hand-written rows of `spec/event.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuEventSynchronize(cuda: &CudaBackend, call: &mut Call<'_>, hEvent: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
