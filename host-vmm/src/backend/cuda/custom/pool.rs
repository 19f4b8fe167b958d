//! The hand-written rows of `spec/pool.rs`.

use protocol::status::CuResult;

use super::memory::device_alloc;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::memory::Kind as Memory;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn cuMemAllocFromPoolAsync(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytesize: u64,
    pool: u64,
    hStream: u64,
) -> CuResult {
    let pool = cuda.inward(Kind::CUmemoryPool, pool)?;
    let stream = cuda.inward(Kind::CUstream, hStream)?;
    device_alloc(
        cuda,
        call,
        dptr,
        Memory::Pool,
        bytesize,
        // SAFETY: the output is a variable of the right type, or NULL; the handles are the driver's.
        |out| unsafe { cuda.raw().cuMemAllocFromPoolAsync(out, bytesize, pool, stream) },
        // SAFETY: what was just allocated.
        |address| unsafe { cuda.raw().cuMemFreeAsync(address, stream) },
    )
}
