#![allow(unsafe_code)]
//! Graphs: lists of nodes, instantiation, updates, launches. Unsafe because results are written through the caller's pointers.

use core::ffi::{c_char, c_uint, c_ulonglong, c_void};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::graph::{NodeType, list};
use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::graph_copy_node;
use crate::marshal::{data_in, put};
use crate::pointer::{out, text};
use crate::process::process;
use crate::thread;
use crate::types::*;

/// Ids in a list of bytes.
pub fn ids(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

pub unsafe fn cuGraphDestroy(graph: CUgraph) -> CuResult {
    require_init()?;
    let mut nodes = Vec::new();
    wire::graph_destroy(graph as u64, Some(&mut nodes)).map_err(|status| match status {
        // The driver's word for a graph that is none any more.
        Status::INVALID_HANDLE => Status::INVALID_VALUE,
        status => status,
    })?;
    process().given.forget(ids(&nodes));
    Ok(())
}

pub unsafe fn cuGraphDestroyNode(node: CUgraphNode) -> CuResult {
    require_init()?;
    wire::cuGraphDestroyNode(node as u64)?;
    process().given.forget([node as u64].into_iter());
    Ok(())
}

/// A copy of pageable memory is a copy, whatever the host has made of it.
pub unsafe fn cuGraphNodeGetType(node: CUgraphNode, node_type: *mut CUgraphNodeType) -> CuResult {
    let mut found = (!node_type.is_null()).then_some(0);
    wire::cuGraphNodeGetType(node as u64, found.as_mut())?;
    if found == Some(NodeType::GRAPH.0) && graph_copy_node::params(node as u64)?.is_some() {
        found = Some(NodeType::MEMCPY.0);
    }
    // SAFETY: NULL, or the caller's own variable.
    unsafe { put(node_type, found) };
    Ok(())
}

/// Where a list of nodes goes.
struct Lists {
    nodes: *mut CUgraphNode,
    to: *mut CUgraphNode,
    edges: *mut CUgraphEdgeData,
    count: *mut usize,
}

/// Writes words to a part of an array of 8-byte elements, if there is one.
///
/// # Safety
/// NULL, or room for `first` elements and these.
unsafe fn write_words<T>(array: *mut T, first: usize, bytes: &[u8]) {
    if !array.is_null() {
        // SAFETY: by the caller's promise; the elements are 8 bytes.
        unsafe { array.cast::<u8>().add(first * 8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

/// # Safety
/// The arrays are NULL or have as many elements as `count` says.
unsafe fn give_list(what: u32, flags: u32, object: u64, lists: &Lists) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let count = unsafe { out(lists.count) }?;
    let mut flags = flags;
    for (flag, wanted) in [
        (list::WANT_NODES, !lists.nodes.is_null()),
        (list::WANT_TO, !lists.to.is_null()),
        (list::WANT_EDGE_DATA, !lists.edges.is_null()),
    ] {
        flags |= if wanted { flag } else { 0 };
    }
    let (mut total, mut first) = (0, 0);
    let (mut nodes, mut to, mut edges) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        wire::graph_list(
            what,
            flags,
            object,
            *count as u64,
            first as u64,
            Some(&mut total),
            Some(&mut nodes),
            Some(&mut to),
            Some(&mut edges),
        )?;
        let got = nodes.len().max(to.len()).max(edges.len()) / 8;
        if got == 0 || first + got > *count {
            break;
        }
        // SAFETY: no more than `count` elements, which the arrays have by the caller's promise.
        unsafe {
            write_words(lists.nodes, first, &nodes);
            write_words(lists.to, first, &to);
            write_words(lists.edges, first, &edges);
        }
        first += got;
        if first as u64 >= total {
            break;
        }
    }
    // What is left of the arrays is NULL.
    for array in [lists.nodes, lists.to] {
        if !array.is_null() {
            for index in first..*count {
                // SAFETY: as above.
                unsafe { array.add(index).write(core::ptr::null_mut()) };
            }
        }
    }
    *count = total as usize;
    Ok(())
}

pub unsafe fn cuGraphGetNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> CuResult {
    let lists = Lists { nodes, to: core::ptr::null_mut(), edges: core::ptr::null_mut(), count };
    // SAFETY: passed on as received.
    unsafe { give_list(list::NODES, 0, graph as u64, &lists) }
}

pub unsafe fn cuGraphGetRootNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> CuResult {
    let lists = Lists { nodes, to: core::ptr::null_mut(), edges: core::ptr::null_mut(), count };
    // SAFETY: passed on as received.
    unsafe { give_list(list::ROOT_NODES, 0, graph as u64, &lists) }
}

pub unsafe fn cuGraphGetEdges(
    graph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    count: *mut usize,
) -> CuResult {
    let lists = Lists { nodes: from, to, edges: core::ptr::null_mut(), count };
    // SAFETY: passed on as received.
    unsafe { give_list(list::EDGES, 0, graph as u64, &lists) }
}

pub unsafe fn cuGraphGetEdges_v2(
    graph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    edges: *mut CUgraphEdgeData,
    count: *mut usize,
) -> CuResult {
    let lists = Lists { nodes: from, to, edges, count };
    // SAFETY: passed on as received.
    unsafe { give_list(list::EDGES, list::WITH_EDGE_DATA, graph as u64, &lists) }
}

pub unsafe fn cuGraphNodeGetDependencies(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> CuResult {
    let lists = Lists { nodes, to: core::ptr::null_mut(), edges: core::ptr::null_mut(), count };
    // SAFETY: passed on as received.
    unsafe { give_list(list::DEPENDENCIES, 0, node as u64, &lists) }
}

pub unsafe fn cuGraphNodeGetDependencies_v2(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    edges: *mut CUgraphEdgeData,
    count: *mut usize,
) -> CuResult {
    let lists = Lists { nodes, to: core::ptr::null_mut(), edges, count };
    // SAFETY: passed on as received.
    unsafe { give_list(list::DEPENDENCIES, list::WITH_EDGE_DATA, node as u64, &lists) }
}

pub unsafe fn cuGraphNodeGetDependentNodes(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> CuResult {
    let lists = Lists { nodes, to: core::ptr::null_mut(), edges: core::ptr::null_mut(), count };
    // SAFETY: passed on as received.
    unsafe { give_list(list::DEPENDENTS, 0, node as u64, &lists) }
}

pub unsafe fn cuGraphNodeGetDependentNodes_v2(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    edges: *mut CUgraphEdgeData,
    count: *mut usize,
) -> CuResult {
    let lists = Lists { nodes, to: core::ptr::null_mut(), edges, count };
    // SAFETY: passed on as received.
    unsafe { give_list(list::DEPENDENTS, list::WITH_EDGE_DATA, node as u64, &lists) }
}

/// Edges that one request has room for, with three words each.
const EDGES_AT_ONCE: usize = 1024;

/// Edges that a call speaks of; longer lists are sent in pieces.
///
/// # Safety
/// The arrays are NULL or have `count` elements of 8 bytes.
unsafe fn edges(
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
    send: impl Fn(Option<&[u8]>, Option<&[u8]>, Option<&[u8]>, u64) -> CuResult,
) -> CuResult {
    require_init()?;
    crate::marshal::length(count, 8)?;
    // SAFETY: by the caller's promise.
    let arrays = unsafe {
        [data_in(from.cast(), count * 8), data_in(to.cast(), count * 8), data_in(data.cast(), count * 8)]
    };
    let mut first = 0;
    loop {
        let end = count.min(first + EDGES_AT_ONCE);
        let part = |array: Option<&'static [u8]>| array.and_then(|array| array.get(first * 8..end * 8));
        send(part(arrays[0]), part(arrays[1]), part(arrays[2]), (end - first) as u64)?;
        first = end;
        if first == count {
            return Ok(());
        }
    }
}

pub unsafe fn cuGraphAddDependencies(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    count: usize,
) -> CuResult {
    let send = |from: Option<&[u8]>, to: Option<&[u8]>, _: Option<&[u8]>, count| {
        wire::cuGraphAddDependencies(graph as u64, from, to, count)
    };
    // SAFETY: passed on as received.
    unsafe { edges(from, to, core::ptr::null(), count, send) }
}

pub unsafe fn cuGraphAddDependencies_v2(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> CuResult {
    let send = |from: Option<&[u8]>, to: Option<&[u8]>, data: Option<&[u8]>, count| {
        wire::cuGraphAddDependencies_v2(graph as u64, from, to, data, count)
    };
    // SAFETY: passed on as received.
    unsafe { edges(from, to, data, count, send) }
}

pub unsafe fn cuGraphRemoveDependencies(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    count: usize,
) -> CuResult {
    let send = |from: Option<&[u8]>, to: Option<&[u8]>, _: Option<&[u8]>, count| {
        wire::cuGraphRemoveDependencies(graph as u64, from, to, count)
    };
    // SAFETY: passed on as received.
    unsafe { edges(from, to, core::ptr::null(), count, send) }
}

pub unsafe fn cuGraphRemoveDependencies_v2(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> CuResult {
    let send = |from: Option<&[u8]>, to: Option<&[u8]>, data: Option<&[u8]>, count| {
        wire::cuGraphRemoveDependencies_v2(graph as u64, from, to, data, count)
    };
    // SAFETY: passed on as received.
    unsafe { edges(from, to, data, count, send) }
}

/// `graph_instantiate`: which of the calls.
const WITH_LOG: u32 = 1;
const WITH_FLAGS: u32 = 2;
const WITH_PARAMS: u32 = 3;

/// Longest log that is asked for, in bytes.
const MAX_LOG_LEN: usize = 16 << 10;

/// What came of an instantiation.
#[derive(Default)]
struct Instantiated {
    result: u32,
    exec: u64,
    error_node: u64,
    outcome: u32,
    log: Vec<u8>,
}

fn instantiate(
    api: u32,
    graph: CUgraph,
    flags: u64,
    stream: u64,
    log_len: usize,
) -> Result<Instantiated, Status> {
    require_init()?;
    let mut made = Instantiated::default();
    wire::graph_instantiate(
        api,
        graph as u64,
        flags,
        stream,
        log_len.min(MAX_LOG_LEN) as u64,
        Some(&mut made.result),
        Some(&mut made.exec),
        Some(&mut made.error_node),
        Some(&mut made.outcome),
        Some(&mut made.log),
    )?;
    if made.exec != 0 {
        process().execs.made(made.exec);
    }
    Ok(made)
}

pub unsafe fn cuGraphExecDestroy(exec: CUgraphExec) -> CuResult {
    wire::cuGraphExecDestroy(exec as u64)?;
    process().execs.destroyed(exec as u64);
    Ok(())
}

pub unsafe fn cuGraphInstantiate(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    log: *mut c_char,
    log_len: usize,
) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let exec = unsafe { out(exec) }?;
    let room = if log.is_null() { 0 } else { log_len };
    let mut made = instantiate(WITH_LOG, graph, 0, 0, room)?;
    if room > 0 {
        made.log.truncate(room - 1);
        made.log.push(0);
        // SAFETY: the caller's buffer has room for the log, which ends with a NUL.
        unsafe { crate::marshal::put_text(log, Some(made.log)) };
    }
    if made.error_node != 0 {
        // SAFETY: NULL, or the caller's own variable.
        unsafe { put(error_node, (!error_node.is_null()).then_some(made.error_node as CUgraphNode)) };
    }
    Status(made.result).ok()?;
    *exec = made.exec as CUgraphExec;
    Ok(())
}

pub unsafe fn cuGraphInstantiate_v2(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    log: *mut c_char,
    log_len: usize,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuGraphInstantiate(exec, graph, error_node, log, log_len) }
}

pub unsafe fn cuGraphInstantiateWithFlags(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    flags: c_ulonglong,
) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let exec = unsafe { out(exec) }?;
    let made = instantiate(WITH_FLAGS, graph, flags, 0, 0)?;
    Status(made.result).ok()?;
    *exec = made.exec as CUgraphExec;
    Ok(())
}

pub unsafe fn cuGraphInstantiateWithParams(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS,
    default_stream: CUstream,
) -> CuResult {
    // SAFETY: the caller passes pointers to its own variables, or NULL.
    let (exec, params) = unsafe { (out(exec)?, out(params)?) };
    let stream = if params.hUploadStream.is_null() { default_stream } else { params.hUploadStream };
    let made = instantiate(WITH_PARAMS, graph, params.flags, stream as u64, 0)?;
    params.hErrNode_out = made.error_node as CUgraphNode;
    params.result_out = made.outcome;
    Status(made.result).ok()?;
    *exec = made.exec as CUgraphExec;
    Ok(())
}

fn update(exec: CUgraphExec, graph: CUgraph) -> Result<(u32, CUgraphExecUpdateResultInfo), Status> {
    require_init()?;
    let (mut result, mut outcome, mut node, mut from) = (0, 0, 0, 0);
    wire::graph_exec_update(
        exec as u64,
        graph as u64,
        Some(&mut result),
        Some(&mut outcome),
        Some(&mut node),
        Some(&mut from),
    )?;
    let info = CUgraphExecUpdateResultInfo {
        result: outcome,
        errorNode: node as CUgraphNode,
        errorFromNode: from as CUgraphNode,
    };
    Ok((result, info))
}

pub unsafe fn cuGraphExecUpdate(
    exec: CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    outcome: *mut CUgraphExecUpdateResult,
) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let outcome = unsafe { out(outcome) }?;
    let (result, info) = update(exec, graph)?;
    *outcome = info.result;
    // SAFETY: NULL, or the caller's own variable.
    unsafe { put(error_node, (!error_node.is_null()).then_some(info.errorNode)) };
    Status(result).ok()
}

pub unsafe fn cuGraphExecUpdate_v2(
    exec: CUgraphExec,
    graph: CUgraph,
    info: *mut CUgraphExecUpdateResultInfo,
) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let place = unsafe { out(info) }?;
    let (result, info) = update(exec, graph)?;
    *place = info;
    Status(result).ok()
}

/// What the driver reports at once of a launch.
fn check_exec(exec: CUgraphExec) -> CuResult {
    require_init()?;
    thread::require_context()?;
    let known = !exec.is_null() && process().execs.may_be(exec as u64);
    if known { Ok(()) } else { Err(Status::INVALID_VALUE) }
}

pub unsafe fn cuGraphUpload(exec: CUgraphExec, stream: CUstream) -> CuResult {
    check_exec(exec)?;
    wire::cuGraphUpload(exec as u64, stream as u64)
}

pub unsafe fn cuGraphLaunch(exec: CUgraphExec, stream: CUstream) -> CuResult {
    check_exec(exec)?;
    wire::cuGraphLaunch(exec as u64, stream as u64)
}

pub unsafe fn cuGraphDebugDotPrint(graph: CUgraph, path: *const c_char, flags: c_uint) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let path = Path::new(OsStr::from_bytes(unsafe { text(path) }?.to_bytes()));
    let (mut whole, mut part, mut total) = (Vec::new(), Vec::new(), 0);
    loop {
        wire::graph_dot(graph as u64, flags, whole.len() as u64, Some(&mut total), Some(&mut part))?;
        whole.extend_from_slice(&part);
        if part.is_empty() || whole.len() as u64 >= total {
            break;
        }
    }
    std::fs::write(path, whole).map_err(|error| {
        crate::log!(Info, "{}: {error}", path.display());
        Status::OPERATING_SYSTEM
    })
}

/// All attributes are 64-bit numbers.
pub unsafe fn cuDeviceGetGraphMemAttribute(
    device: CUdevice,
    attribute: CUgraphMem_attribute,
    value: *mut c_void,
) -> CuResult {
    require_init()?;
    let mut found = (!value.is_null()).then_some(0);
    wire::graph_mem_get_attribute(device, attribute, found.as_mut())?;
    // SAFETY: NULL, or the caller's own variable.
    unsafe { put(value.cast(), found) };
    Ok(())
}

pub unsafe fn cuDeviceSetGraphMemAttribute(
    device: CUdevice,
    attribute: CUgraphMem_attribute,
    value: *mut c_void,
) -> CuResult {
    require_init()?;
    // SAFETY: NULL, or the caller's own variable.
    let value = unsafe { crate::marshal::input(value.cast::<u64>().cast_const()) };
    wire::graph_mem_set_attribute(device, attribute, value.ok_or(Status::INVALID_VALUE)?)
}
