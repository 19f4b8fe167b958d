//! The hand-written rows of `spec/event.rs`.

use protocol::status::CuResult;

use crate::backend::cuda::CudaBackend;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn cuEventSynchronize(cuda: &CudaBackend, call: &mut Call<'_>, hEvent: u64) -> CuResult {
    let event = cuda.inward(Kind::CUevent, hEvent)?;
    // SAFETY: takes a handle of the driver.
    let result = unsafe { cuda.raw().cuEventSynchronize(event) };
    cuda.flushed(call);
    result
}
