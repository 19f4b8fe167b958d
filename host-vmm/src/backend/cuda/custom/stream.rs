//! The hand-written rows of `spec/stream.rs`.

use protocol::status::CuResult;

use crate::backend::cuda::CudaBackend;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn cuStreamSynchronize(cuda: &CudaBackend, call: &mut Call<'_>, hStream: u64) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, hStream)?;
    // SAFETY: takes a handle of the driver.
    let result = unsafe { cuda.raw().cuStreamSynchronize(stream) };
    cuda.flushed(call);
    result
}

/// Managed memory is visible to all streams at any time: nothing to do for what lies in the window.
pub fn cuStreamAttachMemAsync(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    hStream: u64,
    dptr: u64,
    length: u64,
    flags: u32,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, hStream)?;
    let address = cuda.address(dptr)?;
    if cuda.session.window.offset(address).is_some() {
        return Ok(());
    }
    // SAFETY: takes numbers and a handle of the driver.
    unsafe { cuda.raw().cuStreamAttachMemAsync(stream, address, length, flags) }
}
