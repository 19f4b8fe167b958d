//! The hand-written rows of `spec/device.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuDeviceGetAttribute(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pi: Option<&mut i32>,
    attrib: u32,
    dev: i32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
