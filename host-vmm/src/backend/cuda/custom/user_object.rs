//! The hand-written rows of `spec/user_object.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn user_object_create(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    id: u64,
    initial_refcount: u32,
    flags: u32,
    object: Option<&mut u64>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
