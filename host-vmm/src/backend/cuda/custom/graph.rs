//! The hand-written rows of `spec/graph.rs`.
#![allow(unsafe_code)] // Calls the driver.
#![allow(clippy::too_many_arguments)]

use std::ffi::CString;
use std::io::Read;
use std::os::fd::AsRawFd;

use protocol::graph::list;
use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::{Buffer, half, scalar, set_word, word};
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// Bytes of a reply that are not a list: outputs, lengths.
const REPLY_REST: usize = 256;
/// Longest log of an instantiation, in bytes.
const MAX_LOG_LEN: u64 = 16 << 10;
/// Longest text of a graph that is sent, in bytes.
const MAX_DOT_LEN: u64 = 64 << 20;

/// Writes words to a list of a reply.
pub fn give_words(to: Option<&mut Vec<u8>>, words: &[u64]) {
    if let Some(to) = to {
        to.clear();
        to.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
}

pub fn graph_destroy(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    graph: u64,
    nodes: Option<&mut Vec<u8>>,
) -> CuResult {
    let mut below = cuda.handles.below(graph);
    below.truncate(call.max_body().saturating_sub(REPLY_REST) / 8);
    let (raw, dying) = cuda.dying(Kind::CUgraph, graph)?;
    // SAFETY: a graph that no other call can name any more, or NULL.
    let result = unsafe { cuda.raw().cuGraphDestroy(raw) };
    cuda.settle(&result, [dying]);
    result?;
    give_words(nodes, &below);
    Ok(())
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
    let of_node = matches!(what, list::DEPENDENCIES | list::DEPENDENTS);
    let raw = cuda.inward(if of_node { Kind::CUgraphNode } else { Kind::CUgraph }, object)?;
    let graph = if of_node { cuda.handles.parent(object).unwrap_or(0) } else { object };
    let driver = cuda.raw();
    let with_data = flags & list::WITH_EDGE_DATA != 0;
    let ask = |from: *mut u64, to: *mut u64, data: *mut u64, count: &mut u64| {
        // SAFETY: every list is NULL or has room for `count` elements of 8 bytes.
        unsafe {
            match (what, with_data) {
                (list::NODES, _) => driver.cuGraphGetNodes(raw, from, count),
                (list::ROOT_NODES, _) => driver.cuGraphGetRootNodes(raw, from, count),
                (list::EDGES, false) => driver.cuGraphGetEdges(raw, from, to, count),
                (list::EDGES, true) => driver.cuGraphGetEdges_v2(raw, from, to, data.cast(), count),
                (list::DEPENDENCIES, false) => driver.cuGraphNodeGetDependencies(raw, from, count),
                (list::DEPENDENCIES, true) => {
                    driver.cuGraphNodeGetDependencies_v2(raw, from, data.cast(), count)
                }
                (list::DEPENDENTS, false) => driver.cuGraphNodeGetDependentNodes(raw, from, count),
                (list::DEPENDENTS, true) => {
                    driver.cuGraphNodeGetDependentNodes_v2(raw, from, data.cast(), count)
                }
                _ => Err(Status::INVALID_VALUE),
            }
        }
    };
    let null = core::ptr::null_mut::<u64>();
    let mut count = 0;
    ask(null, null, null, &mut count)?;
    let wants = |flag: u32| flags & flag != 0;
    if !(wants(list::WANT_NODES) || wants(list::WANT_TO) || wants(list::WANT_EDGE_DATA)) {
        return put(total, count);
    }
    // Room for what there is, however much the program has.
    let mut count = count.min(capacity);
    let room = |wanted: bool| if wanted { vec![0u64; (count as usize).max(1)] } else { Vec::new() };
    let mut lists =
        [room(wants(list::WANT_NODES)), room(wants(list::WANT_TO)), room(wants(list::WANT_EDGE_DATA))];
    let [from_list, to_list, data_list] = &mut lists;
    let pointer = |list: &mut Vec<u64>| if list.is_empty() { null } else { list.as_mut_ptr() };
    let room = count;
    ask(pointer(from_list), pointer(to_list), pointer(data_list), &mut count)?;
    put(total, count)?;
    let len = (call.max_body().saturating_sub(REPLY_REST) / 24) as u64;
    let end = count.min(room).min(first.saturating_add(len));
    let part = |list: &[u64]| list.get(first as usize..end as usize).unwrap_or_default().to_vec();
    for (list, to) in [(from_list, nodes), (to_list, to)] {
        let mut ids = part(list);
        for node in &mut ids {
            *node = cuda.born(call, Kind::CUgraphNode, *node, Some(graph))?;
        }
        give_words(to, &ids);
    }
    give_words(edges, &part(data_list));
    Ok(())
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
    let raw = cuda.inward(Kind::CUgraph, graph)?;
    cuda.room()?;
    let (mut exec_raw, mut node_raw, mut reason) = (0u64, 0u64, 0u32);
    let driver = cuda.raw();
    let made = match api {
        1 => {
            let len = log_len.min(MAX_LOG_LEN);
            let mut buffer = Buffer::zeroed(len as usize);
            let text = if len == 0 { core::ptr::null_mut() } else { buffer.as_mut_ptr() };
            // SAFETY: the outputs are variables of the right types, and a buffer of the length given.
            let made = unsafe { driver.cuGraphInstantiate_v2(&mut exec_raw, raw, &mut node_raw, text, len) };
            if let Some(log) = log {
                let text = buffer.bytes();
                let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
                *log = text[..end].to_vec();
            }
            made
        }
        // SAFETY: the output is a variable of the right type.
        2 => unsafe { driver.cuGraphInstantiateWithFlags(&mut exec_raw, raw, flags) },
        3 => {
            // CUDA_GRAPH_INSTANTIATE_PARAMS: flags 0, stream 8, error node 16, outcome 24.
            let mut params = Buffer::zeroed(32);
            set_word(params.bytes_mut(), 0, flags);
            set_word(params.bytes_mut(), 8, cuda.inward(Kind::CUstream, stream)?);
            // SAFETY: as above; the structure is the driver's.
            let made =
                unsafe { driver.cuGraphInstantiateWithParams(&mut exec_raw, raw, params.as_mut_ptr()) };
            node_raw = word(params.bytes(), 16);
            reason = half(params.bytes(), 24);
            made
        }
        _ => Err(Status::INVALID_VALUE),
    };
    put(outcome, reason)?;
    match made {
        Ok(()) => {
            put(exec, cuda.born(call, Kind::CUgraphExec, exec_raw, None)?)?;
            put(result, Status::SUCCESS.0)
        }
        Err(status) => {
            put(error_node, cuda.born(call, Kind::CUgraphNode, node_raw, Some(graph))?)?;
            put(result, status.0)
        }
    }
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
    let exec = cuda.inward(Kind::CUgraphExec, exec)?;
    let raw = cuda.inward(Kind::CUgraph, graph)?;
    // CUgraphExecUpdateResultInfo: outcome 0, error node 8, its other end 16.
    let mut info = Buffer::zeroed(24);
    // SAFETY: the structure is the driver's.
    let mut updated = unsafe { cuda.raw().cuGraphExecUpdate_v2(exec, raw, info.as_mut_ptr()) };
    if updated == Err(Status::NOT_SUPPORTED) && half(info.bytes(), 0) == 0 {
        // A driver before 12.0.
        let (mut node, mut reason) = (0u64, 0u32);
        // SAFETY: the outputs are variables of the right types.
        updated = unsafe { cuda.raw().cuGraphExecUpdate(exec, raw, &mut node, &mut reason) };
        set_word(info.bytes_mut(), 0, reason.into());
        set_word(info.bytes_mut(), 8, node);
    }
    put(outcome, half(info.bytes(), 0))?;
    put(error_node, cuda.born(call, Kind::CUgraphNode, word(info.bytes(), 8), Some(graph))?)?;
    put(error_from_node, cuda.born(call, Kind::CUgraphNode, word(info.bytes(), 16), Some(graph))?)?;
    put(result, updated.err().unwrap_or(Status::SUCCESS).0)
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
    let raw = cuda.inward(Kind::CUgraph, graph)?;
    // The driver wants the name of a file: one that only this process has.
    let file = rustix::fs::memfd_create(c"graph.dot", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|_| Status::OPERATING_SYSTEM)?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
    // SAFETY: a NUL-terminated path.
    unsafe { cuda.raw().cuGraphDebugDotPrint(raw, path.as_ptr(), flags) }?;
    let mut whole = Vec::new();
    std::fs::File::open(path.to_string_lossy().as_ref())
        .and_then(|file| file.take(MAX_DOT_LEN).read_to_end(&mut whole))
        .map_err(|_| Status::OPERATING_SYSTEM)?;
    put(total, whole.len() as u64)?;
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
    let end = whole.len().min(start + call.max_body().saturating_sub(REPLY_REST));
    if let Some(text) = text {
        *text = whole[start..end].to_vec();
    }
    Ok(())
}

pub fn graph_mem_get_attribute(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    device: i32,
    attribute: u32,
    value: Option<&mut u64>,
) -> CuResult {
    // SAFETY: NULL or a variable of 64 bits, as all these attributes have.
    unsafe { cuda.raw().cuDeviceGetGraphMemAttribute(device, attribute, scalar(value).cast()) }
}

pub fn graph_mem_set_attribute(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    device: i32,
    attribute: u32,
    value: u64,
) -> CuResult {
    let mut value = value;
    // SAFETY: as above.
    unsafe { cuda.raw().cuDeviceSetGraphMemAttribute(device, attribute, (&raw mut value).cast()) }
}
