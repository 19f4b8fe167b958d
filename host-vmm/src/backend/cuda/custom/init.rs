//! The hand-written rows of `spec/init.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuInit(cuda: &CudaBackend, call: &mut Call<'_>, Flags: u32) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
