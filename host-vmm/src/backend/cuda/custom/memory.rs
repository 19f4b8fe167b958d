//! The hand-written rows of `spec/memory.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuMemAlloc_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytesize: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemAllocPitch_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    pPitch: Option<&mut u64>,
    WidthInBytes: u64,
    Height: u64,
    ElementSizeBytes: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemFree_v2(cuda: &CudaBackend, call: &mut Call<'_>, dptr: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemGetInfo_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    free: Option<&mut u64>,
    total: Option<&mut u64>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemGetAddressRange_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pbase: Option<&mut u64>,
    psize: Option<&mut u64>,
    dptr: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemAllocManaged(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytesize: u64,
    flags: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemPrefetchAsync(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    devPtr: u64,
    count: u64,
    dstDevice: i32,
    hStream: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemPrefetchAsync_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    devPtr: u64,
    count: u64,
    location: [u8; 8],
    flags: u32,
    hStream: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemAdvise(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    devPtr: u64,
    count: u64,
    advice: u32,
    device: i32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemAdvise_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    devPtr: u64,
    count: u64,
    advice: u32,
    location: [u8; 8],
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemRangeGetAttribute(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    data: Option<&mut [u8]>,
    dataSize: u64,
    attribute: u32,
    devPtr: u64,
    count: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemAllocAsync(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytesize: u64,
    hStream: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuMemFreeAsync(cuda: &CudaBackend, call: &mut Call<'_>, dptr: u64, hStream: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
