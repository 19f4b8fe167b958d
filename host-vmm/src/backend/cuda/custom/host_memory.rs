//! The hand-written rows of `spec/host_memory.rs`.

use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::memory::Kind;
use crate::session::Call;

/// `CU_MEMHOSTALLOC_PORTABLE | DEVICEMAP | WRITECOMBINED`.
const FLAGS: u32 = 7;

pub fn cuMemHostAlloc(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pp: Option<&mut u64>,
    bytesize: u64,
    Flags: u32,
) -> CuResult {
    if pp.is_none() || Flags & !FLAGS != 0 {
        return Err(Status::INVALID_VALUE);
    }
    put(pp, cuda.window_alloc(call, Kind::Host, bytesize, Flags)?)
}

pub fn cuMemFreeHost(cuda: &CudaBackend, call: &mut Call<'_>, p: u64) -> CuResult {
    let result = cuda.window_free(p, Kind::Host);
    cuda.flushed(call);
    result
}
