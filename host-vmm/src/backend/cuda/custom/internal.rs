//! The hand-written rows of `spec/internal.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use core::ffi::CStr;

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn lane_set_context(cuda: &CudaBackend, call: &mut Call<'_>, ctx: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn set_visible_devices(cuda: &CudaBackend, call: &mut Call<'_>, list: Option<&CStr>) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn image_query(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    hash: Option<&[u8; 32]>,
    len: u64,
    present: Option<&mut u32>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn image_chunk(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    hash: Option<&[u8; 32]>,
    offset: u64,
    staging_offset: u64,
    len: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn image_commit(cuda: &CudaBackend, call: &mut Call<'_>, hash: Option<&[u8; 32]>, len: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn image_read(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    hash: [u8; 32],
    offset: u64,
    staging_offset: u64,
    len: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn module_load(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    count: u32,
    hashes: Option<&[u8]>,
    forms: Option<&[u8]>,
    options: Option<&[u8]>,
    result: Option<&mut u32>,
    module: Option<&mut u64>,
    info_log: Option<&mut Vec<u8>>,
    error_log: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn library_load(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    count: u32,
    hashes: Option<&[u8]>,
    forms: Option<&[u8]>,
    options: Option<&[u8]>,
    result: Option<&mut u32>,
    library: Option<&mut u64>,
    info_log: Option<&mut Vec<u8>>,
    error_log: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn link_images(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    count: u32,
    hashes: Option<&[u8]>,
    forms: Option<&[u8]>,
    options: Option<&[u8]>,
    result: Option<&mut u32>,
    hash: Option<&mut [u8; 32]>,
    form: Option<&mut u32>,
    len: Option<&mut u64>,
    info_log: Option<&mut Vec<u8>>,
    error_log: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn function_info(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    function: u64,
    info: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn launch(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    function: u64,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: u64,
    flags: u32,
    cluster_x: u32,
    cluster_y: u32,
    cluster_z: u32,
    params: Option<&[u8]>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn occupancy_clusters(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    function: u64,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    cluster_x: u32,
    cluster_y: u32,
    cluster_z: u32,
    active_clusters: Option<&mut i32>,
    max_cluster_size: Option<&mut i32>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn copy(cuda: &CudaBackend, call: &mut Call<'_>, dst: u64, src: u64, len: u64, stream: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn copy_2d(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dst: u64,
    dst_pitch: u64,
    src: u64,
    src_pitch: u64,
    width: u64,
    height: u64,
    stream: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn stage_in(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dst: u64,
    pitch: u64,
    staging_offset: u64,
    width: u64,
    height: u64,
    stream: u64,
    flags: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn stage_in_last(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dst: u64,
    pitch: u64,
    staging_offset: u64,
    width: u64,
    height: u64,
    stream: u64,
    flags: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn stage_out(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    src: u64,
    pitch: u64,
    staging_offset: u64,
    width: u64,
    height: u64,
    stream: u64,
    flags: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn stage_out_last(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    src: u64,
    pitch: u64,
    staging_offset: u64,
    width: u64,
    height: u64,
    stream: u64,
    flags: u32,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn pointer_info(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    address: u64,
    kind: Option<&mut u32>,
    base: Option<&mut u64>,
    size: Option<&mut u64>,
    ctx: Option<&mut u64>,
    device: Option<&mut i32>,
    flags: Option<&mut u32>,
    buffer_id: Option<&mut u64>,
    pool: Option<&mut u64>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn pool_get_attribute(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pool: u64,
    attribute: u32,
    value: Option<&mut u64>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn pool_set_attribute(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pool: u64,
    attribute: u32,
    value: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn primary_context(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    device: i32,
    ctx: Option<&mut u64>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn callback_post(cuda: &CudaBackend, call: &mut Call<'_>, stream: u64, id: u64, kind: u32) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn callback_next(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    id: Option<&mut u64>,
    status: Option<&mut u32>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn callback_done(cuda: &CudaBackend, call: &mut Call<'_>, id: u64) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn device_output(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    max_len: u32,
    stream: Option<&mut u32>,
    text: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
