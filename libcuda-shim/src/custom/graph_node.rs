#![allow(unsafe_code)]
//! Nodes of graphs: the calls for each type of node, and those for all. Unsafe because structures are read and written through the caller's pointers.
//!
//! What they have in common is in [`crate::node_params`].

use protocol::graph::{NodeType, at};
use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::graph_copy_node;
use crate::marshal::put;
use crate::node_params::{GENERIC, GENERIC_V2, OF_TYPE, Place, add, get, read, set, write};
use crate::types::*;

pub unsafe fn cuGraphAddKernelNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_KERNEL_NODE_PARAMS_v1,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::KERNEL, at::UNION, params) }?;
    let place = Place { node, graph, dependencies, edges: core::ptr::null(), count };
    // SAFETY: passed on as received.
    unsafe { add(OF_TYPE, &place, common) }.map(drop)
}

/// The older structure has no place for a kernel, which is accepted as a function.
pub unsafe fn cuGraphKernelNodeGetParams(
    node: CUgraphNode,
    params: *mut CUDA_KERNEL_NODE_PARAMS_v1,
) -> CuResult {
    if params.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let mut common = get(node, Some(NodeType::KERNEL))?;
    if common.u64(at::KERNEL_FUNC) == 0 {
        common.set_u64(at::KERNEL_FUNC, common.u64(at::KERNEL_KERN));
    }
    // SAFETY: the caller passes room for the structure.
    unsafe { write(&common, at::UNION, params) };
    Ok(())
}

pub unsafe fn cuGraphKernelNodeSetParams(
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS_v1,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::KERNEL, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, None, node, common) }
}

pub unsafe fn cuGraphExecKernelNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS_v1,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::KERNEL, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, Some(exec), node, common) }
}

pub unsafe fn cuGraphAddKernelNode_v2(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_KERNEL_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::KERNEL, at::UNION, params) }?;
    let place = Place { node, graph, dependencies, edges: core::ptr::null(), count };
    // SAFETY: passed on as received.
    unsafe { add(OF_TYPE, &place, common) }.map(drop)
}

pub unsafe fn cuGraphKernelNodeGetParams_v2(
    node: CUgraphNode,
    params: *mut CUDA_KERNEL_NODE_PARAMS,
) -> CuResult {
    if params.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let common = get(node, Some(NodeType::KERNEL))?;
    // SAFETY: the caller passes room for the structure.
    unsafe { write(&common, at::UNION, params) };
    Ok(())
}

pub unsafe fn cuGraphKernelNodeSetParams_v2(
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::KERNEL, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, None, node, common) }
}

pub unsafe fn cuGraphExecKernelNodeSetParams_v2(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::KERNEL, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, Some(exec), node, common) }
}

pub unsafe fn cuGraphAddMemcpyNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_MEMCPY3D,
    context: CUcontext,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let mut common = unsafe { read(NodeType::MEMCPY, at::MEMCPY_COPY, params) }?;
    common.set_u64(at::MEMCPY_CTX, context as u64);
    let place = Place { node, graph, dependencies, edges: core::ptr::null(), count };
    // SAFETY: passed on as received.
    unsafe { add(OF_TYPE, &place, common) }.map(drop)
}

pub unsafe fn cuGraphMemcpyNodeGetParams(node: CUgraphNode, params: *mut CUDA_MEMCPY3D) -> CuResult {
    if params.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let common = get(node, Some(NodeType::MEMCPY))?;
    // SAFETY: the caller passes room for the structure.
    unsafe { write(&common, at::MEMCPY_COPY, params) };
    Ok(())
}

pub unsafe fn cuGraphMemcpyNodeSetParams(node: CUgraphNode, params: *const CUDA_MEMCPY3D) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::MEMCPY, at::MEMCPY_COPY, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, None, node, common) }
}

pub unsafe fn cuGraphExecMemcpyNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_MEMCPY3D,
    context: CUcontext,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let mut common = unsafe { read(NodeType::MEMCPY, at::MEMCPY_COPY, params) }?;
    common.set_u64(at::MEMCPY_CTX, context as u64);
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, Some(exec), node, common) }
}

pub unsafe fn cuGraphAddHostNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_HOST_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::HOST, at::UNION, params) }?;
    let place = Place { node, graph, dependencies, edges: core::ptr::null(), count };
    // SAFETY: passed on as received.
    unsafe { add(OF_TYPE, &place, common) }.map(drop)
}

pub unsafe fn cuGraphHostNodeGetParams(node: CUgraphNode, params: *mut CUDA_HOST_NODE_PARAMS) -> CuResult {
    if params.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let common = get(node, Some(NodeType::HOST))?;
    // SAFETY: the caller passes room for the structure.
    unsafe { write(&common, at::UNION, params) };
    Ok(())
}

pub unsafe fn cuGraphHostNodeSetParams(node: CUgraphNode, params: *const CUDA_HOST_NODE_PARAMS) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::HOST, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, None, node, common) }
}

pub unsafe fn cuGraphExecHostNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_HOST_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::HOST, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, Some(exec), node, common) }
}

pub unsafe fn cuGraphAddBatchMemOpNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::BATCH_MEM_OP, at::UNION, params) }?;
    let place = Place { node, graph, dependencies, edges: core::ptr::null(), count };
    // SAFETY: passed on as received.
    unsafe { add(OF_TYPE, &place, common) }.map(drop)
}

pub unsafe fn cuGraphBatchMemOpNodeGetParams(
    node: CUgraphNode,
    params: *mut CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> CuResult {
    if params.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let common = get(node, Some(NodeType::BATCH_MEM_OP))?;
    // SAFETY: the caller passes room for the structure.
    unsafe { write(&common, at::UNION, params) };
    Ok(())
}

pub unsafe fn cuGraphBatchMemOpNodeSetParams(
    node: CUgraphNode,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::BATCH_MEM_OP, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, None, node, common) }
}

pub unsafe fn cuGraphExecBatchMemOpNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::BATCH_MEM_OP, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, Some(exec), node, common) }
}

pub unsafe fn cuGraphAddExternalSemaphoresSignalNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_EXT_SEM_SIGNAL_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::EXT_SEMAS_SIGNAL, at::UNION, params) }?;
    let place = Place { node, graph, dependencies, edges: core::ptr::null(), count };
    // SAFETY: passed on as received.
    unsafe { add(OF_TYPE, &place, common) }.map(drop)
}

pub unsafe fn cuGraphExternalSemaphoresSignalNodeGetParams(
    node: CUgraphNode,
    params: *mut CUDA_EXT_SEM_SIGNAL_NODE_PARAMS,
) -> CuResult {
    if params.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let common = get(node, Some(NodeType::EXT_SEMAS_SIGNAL))?;
    // SAFETY: the caller passes room for the structure.
    unsafe { write(&common, at::UNION, params) };
    Ok(())
}

pub unsafe fn cuGraphExternalSemaphoresSignalNodeSetParams(
    node: CUgraphNode,
    params: *const CUDA_EXT_SEM_SIGNAL_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::EXT_SEMAS_SIGNAL, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, None, node, common) }
}

pub unsafe fn cuGraphExecExternalSemaphoresSignalNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_EXT_SEM_SIGNAL_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::EXT_SEMAS_SIGNAL, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, Some(exec), node, common) }
}

pub unsafe fn cuGraphAddExternalSemaphoresWaitNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_EXT_SEM_WAIT_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::EXT_SEMAS_WAIT, at::UNION, params) }?;
    let place = Place { node, graph, dependencies, edges: core::ptr::null(), count };
    // SAFETY: passed on as received.
    unsafe { add(OF_TYPE, &place, common) }.map(drop)
}

pub unsafe fn cuGraphExternalSemaphoresWaitNodeGetParams(
    node: CUgraphNode,
    params: *mut CUDA_EXT_SEM_WAIT_NODE_PARAMS,
) -> CuResult {
    if params.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let common = get(node, Some(NodeType::EXT_SEMAS_WAIT))?;
    // SAFETY: the caller passes room for the structure.
    unsafe { write(&common, at::UNION, params) };
    Ok(())
}

pub unsafe fn cuGraphExternalSemaphoresWaitNodeSetParams(
    node: CUgraphNode,
    params: *const CUDA_EXT_SEM_WAIT_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::EXT_SEMAS_WAIT, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, None, node, common) }
}

pub unsafe fn cuGraphExecExternalSemaphoresWaitNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_EXT_SEM_WAIT_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::EXT_SEMAS_WAIT, at::UNION, params) }?;
    // SAFETY: passed on as received.
    unsafe { set(OF_TYPE, Some(exec), node, common) }
}

pub unsafe fn cuGraphAddMemAllocNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *mut CUDA_MEM_ALLOC_NODE_PARAMS,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure of that type, or NULL.
    let common = unsafe { read(NodeType::MEM_ALLOC, at::UNION, params.cast_const()) }?;
    let place = Place { node, graph, dependencies, edges: core::ptr::null(), count };
    // SAFETY: passed on as received.
    if let Some(completed) = unsafe { add(OF_TYPE, &place, common) }? {
        // SAFETY: not NULL, or it could not have been read.
        unsafe { (*params).dptr = completed.u64(at::ALLOC_DPTR) };
    }
    Ok(())
}

pub unsafe fn cuGraphMemAllocNodeGetParams(
    node: CUgraphNode,
    params: *mut CUDA_MEM_ALLOC_NODE_PARAMS,
) -> CuResult {
    if params.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let common = get(node, Some(NodeType::MEM_ALLOC))?;
    // SAFETY: the caller passes room for the structure.
    unsafe { write(&common, at::UNION, params) };
    Ok(())
}

/// A copy of pageable memory has no graph that the program knows of.
pub unsafe fn cuGraphChildGraphNodeGetGraph(node: CUgraphNode, graph: *mut CUgraph) -> CuResult {
    require_init()?;
    if graph_copy_node::params(node as u64)?.is_some() {
        return Err(Status::INVALID_VALUE);
    }
    let mut found = (!graph.is_null()).then_some(0);
    wire::cuGraphChildGraphNodeGetGraph(node as u64, found.as_mut())?;
    // SAFETY: NULL, or the caller's own variable.
    unsafe { put(graph.cast(), found) };
    Ok(())
}

/// # Safety
/// As [`add`], with a structure of any node type.
unsafe fn add_any(api: u32, place: &Place, params: *mut CUgraphNodeParams) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure, or NULL.
    let common = unsafe { read(NodeType::EMPTY, 0, params.cast_const()) }?;
    // SAFETY: passed on as received.
    if let Some(completed) = unsafe { add(api, place, common) }? {
        let (node_type, field) = match completed.node_type() {
            NodeType::MEM_ALLOC => (NodeType::MEM_ALLOC, at::ALLOC_DPTR),
            other => (other, at::CONDITIONAL_GRAPHS),
        };
        if matches!(node_type, NodeType::MEM_ALLOC | NodeType::CONDITIONAL) {
            let value = Some(completed.u64(field));
            // SAFETY: the field is within the structure, which could be read.
            unsafe { put(params.cast::<u8>().add(field).cast::<u64>(), value) };
        }
    }
    Ok(())
}

pub unsafe fn cuGraphAddNode(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *mut CUgraphNodeParams,
) -> CuResult {
    let place = Place { node, graph, dependencies, edges: core::ptr::null(), count };
    // SAFETY: passed on as received.
    unsafe { add_any(GENERIC, &place, params) }
}

pub unsafe fn cuGraphAddNode_v2(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    edges: *const CUgraphEdgeData,
    count: usize,
    params: *mut CUgraphNodeParams,
) -> CuResult {
    let place = Place { node, graph, dependencies, edges, count };
    // SAFETY: passed on as received.
    unsafe { add_any(GENERIC_V2, &place, params) }
}

pub unsafe fn cuGraphNodeGetParams(node: CUgraphNode, params: *mut CUgraphNodeParams) -> CuResult {
    if params.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let common = get(node, None)?;
    // SAFETY: the caller passes room for the structure.
    unsafe { write(&common, 0, params) };
    Ok(())
}

/// # Safety
/// As [`set`], with a structure of any node type, or NULL.
unsafe fn set_any(exec: Option<CUgraphExec>, node: CUgraphNode, params: *mut CUgraphNodeParams) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a structure, or NULL.
    let common = unsafe { read(NodeType::EMPTY, 0, params.cast_const()) }?;
    // SAFETY: passed on as received.
    unsafe { set(GENERIC, exec, node, common) }
}

pub unsafe fn cuGraphNodeSetParams(node: CUgraphNode, params: *mut CUgraphNodeParams) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { set_any(None, node, params) }
}

pub unsafe fn cuGraphExecNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *mut CUgraphNodeParams,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { set_any(Some(exec), node, params) }
}
