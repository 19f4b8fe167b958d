#![allow(unsafe_code)]
//! Parameters of graph nodes. Unsafe because structures, lists and kernel arguments are read and written through the caller's pointers.
//!
//! Whatever the call, the parameters are first brought into the form of a `CUgraphNodeParams`, of which the structures of the older calls are parts;
//! then the lists that it points to are taken along. What comes back goes the other way; lists are given out as memory of the node.

use core::ffi::c_void;

use protocol::graph::{ACCESS_LEN, HANDLE_LEN, MEM_OP_LEN, NodeParams, NodeType, SEMAPHORE_PARAMS_LEN, at};
use protocol::status::{CuResult, Status};

use crate::callback;
use crate::custom::context::require_init;
use crate::custom::{function, init, launch};
use crate::function::Parent;
use crate::generated::wire;
use crate::graph_copy::{self, Plan};
use crate::graph_copy_node;
use crate::marshal::{data_in, length};
use crate::pointer::{input, out};
use crate::process::process;
use crate::types::*;

/// `graph_add_node`, `graph_set_node`: which of the calls.
pub const OF_TYPE: u32 = 0;
pub const GENERIC: u32 = 1;
pub const GENERIC_V2: u32 = 2;

/// Most elements of a list in the parameters of a node; the driver takes 256 operations in a batch.
const MAX_LIST: u64 = 256;

/// Lists of a node that are given out.
const LIST_ARGUMENTS: u32 = 0;
const LIST_POINTERS: u32 = 1;
const LIST_MAIN: u32 = 2;
const LIST_SECOND: u32 = 3;

/// The bytes of a structure.
///
/// # Safety
/// All bytes of `T` are initialised or padding that the caller's C compiler has set.
unsafe fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: by the caller's promise; the length is the type's.
    unsafe { core::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

/// Reads parameters of one type into the common form.
///
/// # Safety
/// NULL or a valid structure of that node type, whose parameters are a part of `CUgraphNodeParams`, beginning at `at`.
pub unsafe fn read<T>(node_type: NodeType, at: usize, params: *const T) -> Result<NodeParams, Status> {
    // SAFETY: by the caller's promise.
    let params = unsafe { input(params) }?;
    let mut common = NodeParams::new(node_type);
    // SAFETY: as above.
    common.set(at, unsafe { bytes_of(params) });
    Ok(common)
}

/// Writes parameters in the common form to a structure of one type.
///
/// # Safety
/// As [`read`], for writes.
pub unsafe fn write<T>(common: &NodeParams, at: usize, params: *mut T) {
    let bytes = common.bytes(at, size_of::<T>());
    // SAFETY: by the caller's promise; no more than the structure's length.
    unsafe { params.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

/// Takes a list out of the structure: its bytes, and 0 in the pointer's place.
///
/// # Safety
/// The pointer at that offset is NULL or points to `count` elements.
unsafe fn take_list(params: &mut NodeParams, at: usize, count: u64, element: usize) -> CuResult {
    if count > MAX_LIST {
        return Err(Status::INVALID_VALUE);
    }
    let pointer = core::ptr::with_exposed_provenance::<u8>(params.u64(at) as usize);
    params.set_u64(at, 0);
    // SAFETY: by the caller's promise.
    let list = unsafe { data_in(pointer, length(count as usize, element)?) };
    match list {
        Some(list) => params.data.extend_from_slice(list),
        None if count == 0 => {}
        None => return Err(Status::INVALID_VALUE),
    }
    Ok(())
}

/// The kernel arguments as one block, in place of the pointers to them.
///
/// # Safety
/// The pointers are as the driver API demands of a launch.
unsafe fn take_arguments(params: &mut NodeParams) -> CuResult {
    let pointer = |at| core::ptr::with_exposed_provenance_mut::<*mut c_void>(params.u64(at) as usize);
    let (arguments, extra) = (pointer(at::KERNEL_PARAMS), pointer(at::KERNEL_EXTRA));
    let handle = match params.u64(at::KERNEL_FUNC) {
        0 => params.u64(at::KERNEL_KERN),
        function => function,
    };
    let function = process().functions.get(handle)?;
    params.data.resize(function.params_len, 0);
    // SAFETY: by the caller's promise.
    unsafe { launch::gather(&function, arguments, extra, &mut params.data) }?;
    launch::reach(&mut params.data)?;
    params.set_u64(at::KERNEL_PARAMS, 0);
    params.set_u64(at::KERNEL_EXTRA, 0);
    Ok(())
}

/// Replaces what only the program understands in the common form: pointers to lists, arguments, functions.
///
/// # Safety
/// The pointers in the structure are valid as the driver API demands.
unsafe fn collect(mut params: NodeParams) -> Result<NodeParams, Status> {
    match params.node_type() {
        // SAFETY: by the caller's promise, here and below.
        NodeType::KERNEL => unsafe { take_arguments(&mut params) }?,
        NodeType::HOST => {
            let (function, data) = (params.u64(at::HOST_FN), params.u64(at::HOST_DATA));
            let pointer = core::ptr::with_exposed_provenance::<c_void>(function as usize);
            // SAFETY: NULL, which is None, or a function of that type by the caller's promise.
            let function = unsafe { core::mem::transmute::<*const c_void, CUhostFn>(pointer) };
            let data = core::ptr::with_exposed_provenance_mut(data as usize);
            let id = callback::keep_host_function(function.ok_or(Status::INVALID_VALUE)?, data)?;
            params.set_u64(at::HOST_FN, 0);
            params.set_u64(at::HOST_DATA, id);
        }
        NodeType::MEM_ALLOC => {
            params.set_u64(at::ALLOC_WIN32, 0);
            params.set_u64(at::ALLOC_DPTR, 0);
            let count = params.u64(at::ALLOC_ACCESS_COUNT);
            // SAFETY: as above.
            unsafe { take_list(&mut params, at::ALLOC_ACCESS, count, ACCESS_LEN) }?;
        }
        NodeType::BATCH_MEM_OP => {
            let count = u64::from(params.u32(at::MEM_OP_COUNT));
            // SAFETY: as above.
            unsafe { take_list(&mut params, at::MEM_OP_LIST, count, MEM_OP_LEN) }?;
        }
        NodeType::EXT_SEMAS_SIGNAL | NodeType::EXT_SEMAS_WAIT => {
            let count = u64::from(params.u32(at::SEMAPHORE_COUNT));
            // SAFETY: as above.
            unsafe {
                take_list(&mut params, at::SEMAPHORES, count, HANDLE_LEN)?;
                take_list(&mut params, at::SEMAPHORE_PARAMS, count, SEMAPHORE_PARAMS_LEN)?;
            }
        }
        NodeType::CONDITIONAL => params.set_u64(at::CONDITIONAL_GRAPHS, 0),
        NodeType::MEMCPY => graph_copy::name_shared_places(&mut params),
        NodeType::MEMSET
        | NodeType::GRAPH
        | NodeType::EMPTY
        | NodeType::WAIT_EVENT
        | NodeType::EVENT_RECORD
        | NodeType::MEM_FREE => {}
        other => {
            crate::log!(Warn, "graph nodes of type {} are not supported", other.0);
            return Err(Status::INVALID_VALUE);
        }
    }
    Ok(params)
}

/// Puts pointers to memory of the node where the host has put zeros.
fn lay_out(node: u64, params: &mut NodeParams) -> CuResult {
    let given = &process().given;
    let data = core::mem::take(&mut params.data);
    let list = |number: u32, bytes: &[u8]| match bytes {
        [] => 0,
        bytes => given.give(node, number, bytes).expose_provenance() as u64,
    };
    match params.node_type() {
        NodeType::KERNEL => {
            let handle = match params.u64(at::KERNEL_FUNC) {
                0 => params.u64(at::KERNEL_KERN),
                function => function,
            };
            if process().functions.get(handle).is_err() {
                // A function that was never asked for by name: its module is not known.
                function::learn(Parent::Module(0), handle)?;
            }
            let function = process().functions.get(handle)?;
            let base = list(LIST_ARGUMENTS, &data);
            let mut pointers = Vec::new();
            for param in &function.params {
                pointers.extend_from_slice(&(base + u64::from(param.offset)).to_le_bytes());
            }
            params.set_u64(at::KERNEL_PARAMS, list(LIST_POINTERS, &pointers));
            params.set_u64(at::KERNEL_EXTRA, 0);
        }
        NodeType::HOST => {
            let id = params.u64(at::HOST_DATA);
            let (function, data) = callback::kept_host_function(id).ok_or(Status::UNKNOWN)?;
            params.set_u64(at::HOST_FN, (function as *const c_void).expose_provenance() as u64);
            params.set_u64(at::HOST_DATA, data.expose_provenance() as u64);
        }
        NodeType::MEM_ALLOC => params.set_u64(at::ALLOC_ACCESS, list(LIST_MAIN, &data)),
        NodeType::BATCH_MEM_OP => params.set_u64(at::MEM_OP_LIST, list(LIST_MAIN, &data)),
        NodeType::EXT_SEMAS_SIGNAL | NodeType::EXT_SEMAS_WAIT => {
            let handles = params.u32(at::SEMAPHORE_COUNT) as usize * HANDLE_LEN;
            let (handles, rest) = data.split_at_checked(handles).ok_or(Status::UNKNOWN)?;
            params.set_u64(at::SEMAPHORES, list(LIST_MAIN, handles));
            params.set_u64(at::SEMAPHORE_PARAMS, list(LIST_SECOND, rest));
        }
        NodeType::CONDITIONAL => params.set_u64(at::CONDITIONAL_GRAPHS, list(LIST_MAIN, &data)),
        _ => {}
    }
    Ok(())
}

fn decode(block: &[u8]) -> Result<NodeParams, Status> {
    NodeParams::decode(block).map_err(|error| {
        crate::log!(Error, "parameters of a graph node: {error}");
        Status::UNKNOWN
    })
}

/// Where a new node goes.
pub struct Place {
    pub node: *mut CUgraphNode,
    pub graph: CUgraph,
    pub dependencies: *const CUgraphNode,
    pub edges: *const CUgraphEdgeData,
    pub count: usize,
}

/// Adds a node; gives the parameters as the driver has completed them, if it has.
///
/// # Safety
/// `place` holds NULL or valid arrays of `count` elements; the pointers in the parameters are valid as the driver API demands.
pub unsafe fn add(api: u32, place: &Place, params: NodeParams) -> Result<Option<NodeParams>, Status> {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let node = unsafe { out(place.node) }?;
    // SAFETY: by the caller's promise.
    let params = unsafe { collect(params) }?;
    let len = length(place.count, 8)?;
    // SAFETY: by the caller's promise.
    let (dependencies, edges) =
        unsafe { (data_in(place.dependencies.cast(), len), data_in(place.edges.cast(), len)) };
    if dependencies.is_none() && len > 0 {
        return Err(Status::INVALID_VALUE);
    }
    if let Some(plan) = Plan::of(&params)? {
        *node = graph_copy_node::add(api, place.graph as u64, dependencies, edges, plan)? as CUgraphNode;
        return Ok(None);
    }
    let (mut id, mut completed) = (0, Vec::new());
    let block = params.encode();
    wire::graph_add_node(
        api,
        place.graph as u64,
        dependencies,
        edges,
        Some(&block),
        Some(&mut id),
        Some(&mut completed),
    )?;
    *node = id as CUgraphNode;
    if completed.is_empty() {
        return Ok(None);
    }
    let mut params = decode(&completed)?;
    if params.node_type() == NodeType::MEM_ALLOC {
        init::learn_of(params.u64(at::ALLOC_DPTR))?;
    }
    lay_out(id, &mut params)?;
    Ok(Some(params))
}

/// Sets the parameters of a node, or with `exec` of the node in that executable graph.
///
/// # Safety
/// The pointers in the parameters are valid as the driver API demands.
pub unsafe fn set(api: u32, exec: Option<CUgraphExec>, node: CUgraphNode, params: NodeParams) -> CuResult {
    if exec.is_some_and(|exec| exec.is_null()) {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: by the caller's promise.
    let params = unsafe { collect(params) }?;
    let exec = exec.map_or(0, |exec| exec as u64);
    if graph_copy_node::set(api, exec, node as u64, &params)? {
        return Ok(());
    }
    wire::graph_set_node(api, exec, node as u64, Some(&params.encode()))
}

pub fn get(node: CUgraphNode, node_type: Option<NodeType>) -> Result<NodeParams, Status> {
    require_init()?;
    if node_type.is_none_or(|wanted| wanted == NodeType::MEMCPY)
        && let Some(params) = graph_copy_node::params(node as u64)?
    {
        return Ok(params);
    }
    let mut block = Vec::new();
    let wanted = node_type.map_or(-1, |node_type| node_type.0 as i32);
    wire::graph_get_node(node as u64, wanted, Some(&mut block))?;
    let mut params = decode(&block)?;
    if node_type.is_some_and(|wanted| wanted != params.node_type()) {
        return Err(Status::INVALID_VALUE);
    }
    lay_out(node as u64, &mut params)?;
    Ok(params)
}
