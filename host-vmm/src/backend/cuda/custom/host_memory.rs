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

pub fn registered_map(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    address: u64,
    len: u64,
    flags: u32,
    window: Option<&mut u64>,
    aliased: Option<&mut u32>,
) -> CuResult {
    let (base, is_aliased) = cuda.registered_map(address, len, flags)?;
    put(window, base)?;
    put(aliased, u32::from(is_aliased))
}

pub fn registered_lend(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    address: u64,
    region: u64,
    region_len: u64,
    flags: u32,
    window: Option<&mut u64>,
    aliased: Option<&mut u32>,
) -> CuResult {
    let (base, is_aliased) = cuda.registered_lend(address, region, region_len, flags)?;
    put(window, base)?;
    put(aliased, u32::from(is_aliased))
}

pub fn registered_release(cuda: &CudaBackend, call: &mut Call<'_>, window: u64) -> CuResult {
    let result = cuda.registered_release(window);
    cuda.flushed(call);
    result
}

pub fn registered_unmap(cuda: &CudaBackend, call: &mut Call<'_>, window: u64) -> CuResult {
    let result = cuda.registered_unmap(window);
    cuda.flushed(call);
    result
}
