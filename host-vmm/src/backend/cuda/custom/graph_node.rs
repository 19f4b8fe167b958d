//! The hand-written rows of `spec/graph_node.rs`.
#![allow(unused_variables, clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::session::Call;

pub fn cuGraphKernelNodeGetAttribute(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    hNode: u64,
    attr: u32,
    value_out: Option<&mut [u8; 64]>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuGraphKernelNodeSetAttribute(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    hNode: u64,
    attr: u32,
    value: Option<&[u8; 64]>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn graph_add_node(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    api: u32,
    graph: u64,
    dependencies: Option<&[u8]>,
    edges: Option<&[u8]>,
    params: Option<&[u8]>,
    node: Option<&mut u64>,
    params_out: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn graph_set_node(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    api: u32,
    exec: u64,
    node: u64,
    params: Option<&[u8]>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn graph_get_node(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    node: u64,
    type_: i32,
    params: Option<&mut Vec<u8>>,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}
