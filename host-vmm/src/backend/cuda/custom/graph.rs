//! The hand-written rows of `spec/graph.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn graph_destroy(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    graph: u64,
    nodes: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn graph_list(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    what: u32,
    flags: u32,
    object: u64,
    capacity: u64,
    first: u64,
    total: Option<&mut u64>,
    nodes: Option<&mut Vec<u8>>,
    to: Option<&mut Vec<u8>>,
    edges: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn graph_instantiate(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    api: u32,
    graph: u64,
    flags: u64,
    stream: u64,
    log_len: u64,
    result: Option<&mut u32>,
    exec: Option<&mut u64>,
    error_node: Option<&mut u64>,
    outcome: Option<&mut u32>,
    log: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn graph_exec_update(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    exec: u64,
    graph: u64,
    result: Option<&mut u32>,
    outcome: Option<&mut u32>,
    error_node: Option<&mut u64>,
    error_from_node: Option<&mut u64>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn graph_dot(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    graph: u64,
    flags: u32,
    offset: u64,
    total: Option<&mut u64>,
    text: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn graph_mem_get_attribute(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    device: i32,
    attribute: u32,
    value: Option<&mut u64>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn graph_mem_set_attribute(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    device: i32,
    attribute: u32,
    value: u64,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
