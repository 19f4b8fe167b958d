//! The hand-written rows of `spec/init.rs`.

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuInit(cuda: &CudaBackend, _: &mut Call<'_>, Flags: u32) -> CuResult {
    if Flags != 0 {
        return Err(Status::INVALID_VALUE);
    }
    cuda.initialise()
}
