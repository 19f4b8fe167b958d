//! The hand-written rows of `spec/graph_node.rs`: parameters of nodes, between the form of `protocol::graph` and the driver's structures.
#![allow(unsafe_code)] // Calls the driver.
#![allow(non_snake_case, clippy::too_many_arguments)]

use core::ffi::CStr;

use protocol::function::{FunctionInfo, Param};
use protocol::graph::{ACCESS_LEN, HANDLE_LEN, MEM_OP_LEN, NODE_PARAMS_LEN, NodeParams, NodeType, at};
use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cuda::buffer::{Buffer, half, set_word, word};
use crate::backend::cuda::{CudaBackend, callback, translate};
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// `graph_add_node`, `graph_set_node`: which of the calls.
const OF_TYPE: u32 = 0;
const GENERIC_V2: u32 = 2;

/// Launch attributes with an event in them.
const PROGRAMMATIC_EVENT: u32 = 7;
const LAUNCH_COMPLETION_EVENT: u32 = 12;
/// A launch attribute that gives a handle for device code.
const DEVICE_UPDATABLE_KERNEL_NODE: u32 = 13;

/// Keys of the `extra` list of a launch.
const EXTRA_END: u64 = 0;
const EXTRA_BUFFER_POINTER: u64 = 1;
const EXTRA_BUFFER_SIZE: u64 = 2;
/// More pairs than such a list has.
const MAX_EXTRA: usize = 8;

pub fn cuGraphKernelNodeGetAttribute(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    hNode: u64,
    attr: u32,
    value_out: Option<&mut [u8; 64]>,
) -> CuResult {
    let node = cuda.inward(Kind::CUgraphNode, hNode)?;
    let mut value = Buffer::new(value_out.as_ref().map(|value| &value[..]));
    // SAFETY: NULL or a block of the union's size.
    unsafe { cuda.raw().cuGraphKernelNodeGetAttribute(node, attr, value.as_mut_ptr()) }?;
    if matches!(attr, PROGRAMMATIC_EVENT | LAUNCH_COMPLETION_EVENT) {
        value.each(|value| {
            let event = cuda.born(call, Kind::CUevent, word(value, 0), None)?;
            set_word(value, 0, event);
            Ok::<(), Status>(())
        })?;
    }
    value.give(value_out.map(|value| &mut value[..]));
    Ok(())
}

pub fn cuGraphKernelNodeSetAttribute(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    hNode: u64,
    attr: u32,
    value: Option<&[u8; 64]>,
) -> CuResult {
    let node = cuda.inward(Kind::CUgraphNode, hNode)?;
    let mut value = Buffer::new(value.map(|value| &value[..]));
    value.each(|value| match attr {
        PROGRAMMATIC_EVENT | LAUNCH_COMPLETION_EVENT => {
            let event = cuda.inward(Kind::CUevent, word(value, 0))?;
            set_word(value, 0, event);
            Ok(())
        }
        // Device code would use the node by an address in the driver.
        DEVICE_UPDATABLE_KERNEL_NODE if half(value, 0) != 0 => Err(Status::NOT_SUPPORTED),
        _ => Ok(()),
    })?;
    // SAFETY: as above.
    unsafe { cuda.raw().cuGraphKernelNodeSetAttribute(node, attr, value.as_ptr()) }
}

/// The driver's structure, and the memory that it points to.
struct Ready {
    node_type: NodeType,
    head: Buffer,
    _lists: Vec<Buffer>,
}

impl Ready {
    /// The parameters of the node's type, as the older calls take them.
    fn part<T>(&mut self, at: usize) -> *mut T {
        // SAFETY: within the structure of 256 bytes.
        unsafe { self.head.as_mut_ptr::<u8>().add(at.min(NODE_PARAMS_LEN)).cast() }
    }
}

impl CudaBackend {
    /// The id of a kernel node's function. The driver names the function of a context where the program has named a kernel.
    fn function_id(&self, call: &Call<'_>, raw: u64) -> CuResult<u64> {
        if let Some(id) = self.handles.id(Kind::CUfunction, raw).or(self.handles.id(Kind::CUkernel, raw)) {
            return Ok(id);
        }
        let mut name = 0u64;
        // SAFETY: the output is a variable for a pointer.
        let named = unsafe { self.raw().cuFuncGetName(&mut name, raw) };
        if named.is_ok() && name != 0 {
            for (id, kernel) in self.handles.all(Kind::CUkernel) {
                let (mut other, mut function) = (0u64, 0u64);
                // SAFETY: as above.
                let known = unsafe { self.raw().cuKernelGetName(&mut other, kernel) };
                if known.is_err() || other == 0 {
                    continue;
                }
                let text = |at: u64| core::ptr::with_exposed_provenance::<core::ffi::c_char>(at as usize);
                // SAFETY: the driver's own NUL-terminated texts, which live as long as the function and the kernel.
                if unsafe { CStr::from_ptr(text(other)) != CStr::from_ptr(text(name)) } {
                    continue;
                }
                // SAFETY: the output is a variable of the right type.
                let found = unsafe { self.raw().cuKernelGetFunction(&mut function, kernel) };
                if found.is_ok() && function == raw {
                    return Ok(id);
                }
            }
        }
        let mut module = 0u64;
        // SAFETY: as above.
        let parent = unsafe { self.raw().cuFuncGetModule(&mut module, raw) }
            .ok()
            .and_then(|()| self.handles.id(Kind::CUmodule, module));
        self.born(call, Kind::CUfunction, raw, Some(parent.unwrap_or(call.lane.context)))
    }

    /// Checks the memory that one side of a copy names. Offsets are those in a `CUDA_MEMCPY3D` from the side's first field: x 0, y 8, z 16,
    /// memory type 32, host pointer 40, device pointer 48, array 56, pitch 72, height 80.
    fn inward_side(&self, copy: &mut [u8], side: usize) -> CuResult {
        let (width, height, depth) = (word(copy, 176), word(copy, 184), word(copy, 192));
        let field = |copy: &[u8], offset: usize| word(copy, side + offset);
        let base = match half(copy, side + 32) {
            1 => field(copy, 40),
            2 | 4 => field(copy, 48),
            3 => {
                let array = self.inward(Kind::CUarray, field(copy, 56))?;
                set_word(copy, side + 56, array);
                return Ok(());
            }
            // The driver refuses the rest.
            _ => return Ok(()),
        };
        if base == 0 || width == 0 || height == 0 || depth == 0 {
            return Ok(());
        }
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        let pitch = or(field(copy, 72), field(copy, 0).saturating_add(width));
        let rows = or(field(copy, 80), field(copy, 8).saturating_add(height));
        let place = |x: u64, y: u64, z: u64| -> Option<u64> {
            z.checked_mul(rows)?.checked_add(y)?.checked_mul(pitch)?.checked_add(x)
        };
        let (x, y, z) = (field(copy, 0), field(copy, 8), field(copy, 16));
        let start = place(x, y, z).ok_or(Status::INVALID_VALUE)?;
        let last = |first: u64, count: u64| first.checked_add(count - 1).ok_or(Status::INVALID_VALUE);
        let end = place(last(x, width)?, last(y, height)?, last(z, depth)?).ok_or(Status::INVALID_VALUE)?;
        let len = end.checked_sub(start).and_then(|len| len.checked_add(1)).ok_or(Status::INVALID_VALUE)?;
        self.range(base.checked_add(start).ok_or(Status::INVALID_VALUE)?, len).map(drop)
    }

    /// The kernel arguments as the driver takes them: pointers into the buffer, at the driver's own offsets.
    fn arguments(&self, params: &NodeParams, head: &mut [u8], lists: &mut Vec<Buffer>) -> CuResult {
        let named = params.u64(at::KERNEL_FUNC);
        // A kernel may stand where a function is expected, except here.
        let as_function = named != 0 && self.handles.kind(named) != Ok(Kind::CUkernel);
        let (function, kernel) = match (named, as_function) {
            (named, true) => (self.inward(Kind::CUfunction, named)?, 0),
            (0, _) => (0, self.inward(Kind::CUkernel, params.u64(at::KERNEL_KERN))?),
            (named, false) => (0, self.inward(Kind::CUkernel, named)?),
        };
        // What is looked at only if there is no function.
        let context = if named == 0 { self.inward(Kind::CUcontext, params.u64(at::KERNEL_CTX))? } else { 0 };
        set_word(head, at::KERNEL_FUNC, function);
        set_word(head, at::KERNEL_KERN, kernel);
        set_word(head, at::KERNEL_CTX, context);
        set_word(head, at::KERNEL_PARAMS, 0);
        set_word(head, at::KERNEL_EXTRA, 0);
        if params.data.is_empty() {
            return Ok(());
        }
        let buffer = Buffer::new(Some(&params.data));
        let base = address_of(&buffer);
        let layout = self.params(if named == 0 { params.u64(at::KERNEL_KERN) } else { named })?;
        if layout.is_empty() {
            return Err(Status::INVALID_VALUE);
        }
        let mut pointers = Buffer::zeroed(layout.len() * 8);
        for (index, param) in layout.iter().enumerate() {
            if u64::from(param.offset) + u64::from(param.size) > params.data.len() as u64 {
                return Err(Status::INVALID_VALUE);
            }
            set_word(pointers.bytes_mut(), index * 8, base + u64::from(param.offset));
        }
        set_word(head, at::KERNEL_PARAMS, address_of(&pointers));
        lists.push(pointers);
        lists.push(buffer);
        Ok(())
    }

    /// Parameters of the program as the driver takes them.
    fn ready(&self, block: Option<&[u8]>) -> CuResult<Ready> {
        let params = NodeParams::decode(block.unwrap_or_default()).map_err(|error| {
            tracing::warn!("parameters of a graph node: {error}");
            Status::INVALID_VALUE
        })?;
        let mut head = Buffer::new(Some(&params.head));
        let mut lists = Vec::new();
        let bytes = head.bytes_mut();
        let context = |bytes: &mut [u8], at: usize| -> CuResult {
            let context = self.inward(Kind::CUcontext, word(bytes, at))?;
            set_word(bytes, at, context);
            Ok(())
        };
        match params.node_type() {
            NodeType::KERNEL => self.arguments(&params, bytes, &mut lists)?,
            NodeType::MEMCPY => {
                context(bytes, at::MEMCPY_CTX)?;
                let copy = bytes.get_mut(at::MEMCPY_COPY..).unwrap_or_default();
                set_word(copy, 64, 0);
                set_word(copy, 152, 0);
                self.inward_side(copy, 0)?;
                self.inward_side(copy, 88)?;
            }
            NodeType::MEMSET => {
                translate::inward_CUDA_MEMSET_NODE_PARAMS(
                    self,
                    bytes.get_mut(at::MEMSET_DST..).unwrap_or_default(),
                )?;
                context(bytes, at::MEMSET_CTX)?;
            }
            NodeType::HOST => {
                set_word(bytes, at::HOST_FN, callback::host_function_address());
                // The number of the program's function stays what it is.
                if word(bytes, at::HOST_CTX) != 0 {
                    context(bytes, at::HOST_CTX)?;
                }
            }
            NodeType::GRAPH => {
                let graph = self.inward(Kind::CUgraph, word(bytes, at::GRAPH_GRAPH))?;
                set_word(bytes, at::GRAPH_GRAPH, graph);
            }
            NodeType::WAIT_EVENT | NodeType::EVENT_RECORD => {
                let event = self.inward(Kind::CUevent, word(bytes, at::EVENT))?;
                set_word(bytes, at::EVENT, event);
                if params.node_type() == NodeType::EVENT_RECORD {
                    context(bytes, at::EVENT_RECORD_CTX)?;
                }
            }
            NodeType::MEM_ALLOC => {
                set_word(bytes, at::ALLOC_WIN32, 0);
                debug_assert_eq!(params.data.len() % ACCESS_LEN, 0);
                if !params.data.is_empty() {
                    let list = Buffer::new(Some(&params.data));
                    set_word(bytes, at::ALLOC_ACCESS, address_of(&list));
                    lists.push(list);
                }
            }
            NodeType::MEM_FREE => {
                self.address(word(bytes, at::FREE_DPTR))?;
            }
            NodeType::BATCH_MEM_OP => {
                context(bytes, at::MEM_OP_CTX)?;
                let mut list = Buffer::new(Some(&params.data));
                list.each_of(MEM_OP_LEN, |operation| {
                    translate::inward_CUstreamBatchMemOpParams(self, operation)
                })?;
                set_word(bytes, at::MEM_OP_LIST, address_of(&list));
                lists.push(list);
            }
            NodeType::CONDITIONAL => {
                set_word(bytes, at::CONDITIONAL_GRAPHS, 0);
                context(bytes, at::CONDITIONAL_CTX)?;
            }
            NodeType::EMPTY => {}
            // External semaphores cannot be made here: there is no handle of one.
            NodeType::EXT_SEMAS_SIGNAL | NodeType::EXT_SEMAS_WAIT => return Err(Status::NOT_SUPPORTED),
            _ => return Err(Status::INVALID_VALUE),
        }
        Ok(Ready { node_type: params.node_type(), head, _lists: lists })
    }
}

fn address_of(buffer: &Buffer) -> u64 {
    buffer.as_ptr::<u8>().expose_provenance() as u64
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
    let raw = cuda.inward(Kind::CUgraph, graph)?;
    let mut ready = cuda.ready(params)?;
    let count = dependencies.map_or(0, <[u8]>::len) as u64 / 8;
    if edges.is_some_and(|edges| edges.len() as u64 != count * 8) {
        return Err(Status::INVALID_VALUE);
    }
    let mut on = Buffer::new(dependencies);
    cuda.inward_all(Kind::CUgraphNode, &mut on)?;
    let edges = Buffer::new(edges);
    let on = on.as_ptr::<u64>();
    cuda.room()?;
    let mut made = 0u64;
    let driver = cuda.raw();
    let context = word(ready.head.bytes(), at::MEMCPY_CTX);
    let out = &mut made;
    // SAFETY: `on` has `count` handles, `edges` is NULL or has as many elements; the parameters are the driver's structure of that type of node, whose
    // pointers are to memory that `ready` holds.
    unsafe {
        match (api, ready.node_type) {
            (OF_TYPE, NodeType::KERNEL) => {
                driver.cuGraphAddKernelNode_v2(out, raw, on, count, ready.part(at::UNION))
            }
            (OF_TYPE, NodeType::MEMCPY) => {
                driver.cuGraphAddMemcpyNode(out, raw, on, count, ready.part(at::MEMCPY_COPY), context)
            }
            (OF_TYPE, NodeType::HOST) => {
                driver.cuGraphAddHostNode(out, raw, on, count, ready.part(at::UNION))
            }
            (OF_TYPE, NodeType::MEM_ALLOC) => {
                driver.cuGraphAddMemAllocNode(out, raw, on, count, ready.part(at::UNION))
            }
            (OF_TYPE, NodeType::BATCH_MEM_OP) => {
                driver.cuGraphAddBatchMemOpNode(out, raw, on, count, ready.part(at::UNION))
            }
            (OF_TYPE, _) => Err(Status::INVALID_VALUE),
            (GENERIC_V2, _) => driver.cuGraphAddNode_v2(out, raw, on, edges.as_ptr(), count, ready.part(0)),
            _ => driver.cuGraphAddNode(out, raw, on, count, ready.part(0)),
        }
    }?;
    let id = cuda.born(call, Kind::CUgraphNode, made, Some(graph))?;
    put(node, id)?;
    let Some(params_out) = params_out else { return Ok(()) };
    let head = ready.head.bytes();
    match ready.node_type {
        NodeType::MEM_ALLOC => {
            let (address, len) = (word(head, at::ALLOC_DPTR), word(head, at::ALLOC_BYTES));
            cuda.space.learn(address, len);
            cuda.graph_memory.insert(&cuda.handles, id, address, len);
            let mut completed = NodeParams::new(NodeType::MEM_ALLOC);
            completed.set_u64(at::ALLOC_BYTES, len);
            completed.set_u64(at::ALLOC_DPTR, address);
            *params_out = completed.encode();
        }
        NodeType::CONDITIONAL => {
            let mut completed = NodeParams::new(NodeType::CONDITIONAL);
            completed.set(0, &head[..at::CONDITIONAL_GRAPHS]);
            let list = core::ptr::with_exposed_provenance::<u64>(word(head, at::CONDITIONAL_GRAPHS) as usize);
            let room = call.max_body().saturating_sub(2 * NODE_PARAMS_LEN) / HANDLE_LEN;
            let size = half(head, at::CONDITIONAL_SIZE) as usize;
            if !list.is_null() && size <= room {
                for index in 0..size {
                    // SAFETY: the driver's array of as many graphs as the node has.
                    let body = unsafe { list.add(index).read() };
                    let body = cuda.born(call, Kind::CUgraph, body, Some(id))?;
                    completed.data.extend_from_slice(&body.to_le_bytes());
                }
            }
            *params_out = completed.encode();
        }
        _ => {}
    }
    Ok(())
}

pub fn graph_set_node(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    api: u32,
    exec: u64,
    node: u64,
    params: Option<&[u8]>,
) -> CuResult {
    let in_exec = exec != 0;
    let exec = cuda.inward(Kind::CUgraphExec, exec)?;
    let node = cuda.inward(Kind::CUgraphNode, node)?;
    let mut ready = cuda.ready(params)?;
    let driver = cuda.raw();
    let context = word(ready.head.bytes(), at::MEMCPY_CTX);
    // SAFETY: as in `graph_add_node`.
    unsafe {
        match (api, ready.node_type, in_exec) {
            (OF_TYPE, NodeType::KERNEL, false) => {
                driver.cuGraphKernelNodeSetParams_v2(node, ready.part(at::UNION))
            }
            (OF_TYPE, NodeType::KERNEL, true) => {
                driver.cuGraphExecKernelNodeSetParams_v2(exec, node, ready.part(at::UNION))
            }
            (OF_TYPE, NodeType::MEMCPY, false) => {
                driver.cuGraphMemcpyNodeSetParams(node, ready.part(at::MEMCPY_COPY))
            }
            (OF_TYPE, NodeType::MEMCPY, true) => {
                driver.cuGraphExecMemcpyNodeSetParams(exec, node, ready.part(at::MEMCPY_COPY), context)
            }
            (OF_TYPE, NodeType::HOST, false) => driver.cuGraphHostNodeSetParams(node, ready.part(at::UNION)),
            (OF_TYPE, NodeType::HOST, true) => {
                driver.cuGraphExecHostNodeSetParams(exec, node, ready.part(at::UNION))
            }
            (OF_TYPE, NodeType::BATCH_MEM_OP, false) => {
                driver.cuGraphBatchMemOpNodeSetParams(node, ready.part(at::UNION))
            }
            (OF_TYPE, NodeType::BATCH_MEM_OP, true) => {
                driver.cuGraphExecBatchMemOpNodeSetParams(exec, node, ready.part(at::UNION))
            }
            (OF_TYPE, _, _) => Err(Status::INVALID_VALUE),
            (_, _, false) => driver.cuGraphNodeSetParams(node, ready.part(0)),
            (_, _, true) => driver.cuGraphExecNodeSetParams(exec, node, ready.part(0)),
        }
    }
}

/// Copies `len` bytes of the driver's.
///
/// # Safety
/// `from` is 0 or the address of at least that many bytes of the driver's.
unsafe fn copied(from: u64, len: usize) -> Vec<u8> {
    let from = core::ptr::with_exposed_provenance::<u8>(from as usize);
    if from.is_null() || len == 0 {
        return Vec::new();
    }
    // SAFETY: by the caller's promise.
    unsafe { core::slice::from_raw_parts(from, len) }.to_vec()
}

/// The arguments of a kernel node, packed at the driver's offsets.
///
/// # Safety
/// `head` is what the driver has just given for a node with a kernel of these parameters.
unsafe fn packed(layout: &[Param], head: &[u8]) -> Vec<u8> {
    let len = layout.iter().map(|param| param.offset as usize + param.size as usize).max().unwrap_or(0);
    let mut data = vec![0; len.min(FunctionInfo::MAX_PARAMS_LEN)];
    let pointers = word(head, at::KERNEL_PARAMS);
    if pointers != 0 {
        for (index, param) in layout.iter().enumerate() {
            // SAFETY: the driver's array has a pointer to each parameter of the kernel.
            let value = unsafe {
                let pointer = copied(pointers + 8 * index as u64, 8);
                copied(word(&pointer, 0), param.size as usize)
            };
            let start = param.offset as usize;
            if let Some(place) = data.get_mut(start..start + value.len()) {
                place.copy_from_slice(&value);
            }
        }
        return data;
    }
    let extra = word(head, at::KERNEL_EXTRA);
    let (mut from, mut size) = (0, 0);
    for pair in 0..MAX_EXTRA as u64 {
        if extra == 0 {
            break;
        }
        // SAFETY: the driver's list of pairs, up to the end key.
        let key = word(&unsafe { copied(extra + pair * 16, 8) }, 0);
        if key == EXTRA_END {
            break;
        }
        // SAFETY: as above: not the end, so that a value follows.
        let value = word(&unsafe { copied(extra + pair * 16 + 8, 8) }, 0);
        match key {
            EXTRA_BUFFER_POINTER => from = value,
            // SAFETY: the value is the address of a size_t.
            EXTRA_BUFFER_SIZE => size = word(&unsafe { copied(value, 8) }, 0) as usize,
            _ => {}
        }
    }
    // SAFETY: the driver's buffer has that length.
    let bytes = unsafe { copied(from, size.min(data.len())) };
    data[..bytes.len()].copy_from_slice(&bytes);
    data
}

/// The id of an object that has one, else 0.
fn known(cuda: &CudaBackend, kind: Kind, raw: u64) -> u64 {
    cuda.handles.id(kind, raw).unwrap_or(0)
}

pub fn graph_get_node(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    node: u64,
    type_: i32,
    params: Option<&mut Vec<u8>>,
) -> CuResult {
    let raw = cuda.inward(Kind::CUgraphNode, node)?;
    let driver = cuda.raw();
    let mut number = 0u32;
    // SAFETY: the output is a variable of the right type.
    unsafe { driver.cuGraphNodeGetType(raw, &mut number) }?;
    if type_ >= 0 && type_ as u32 != number {
        return Err(Status::INVALID_VALUE);
    }
    let node_type = NodeType(number);
    let mut found = Ready { node_type, head: Buffer::zeroed(NODE_PARAMS_LEN), _lists: Vec::new() };
    // SAFETY: the outputs are parts of a structure with room for any type's parameters.
    unsafe {
        match node_type {
            NodeType::KERNEL => driver.cuGraphKernelNodeGetParams_v2(raw, found.part(at::UNION)),
            NodeType::MEMCPY => driver.cuGraphMemcpyNodeGetParams(raw, found.part(at::MEMCPY_COPY)),
            NodeType::MEMSET => driver.cuGraphMemsetNodeGetParams(raw, found.part(at::UNION)),
            NodeType::HOST => driver.cuGraphHostNodeGetParams(raw, found.part(at::UNION)),
            NodeType::GRAPH => driver.cuGraphChildGraphNodeGetGraph(raw, found.part(at::GRAPH_GRAPH)),
            NodeType::EMPTY => Ok(()),
            NodeType::WAIT_EVENT => driver.cuGraphEventWaitNodeGetEvent(raw, found.part(at::EVENT)),
            NodeType::EVENT_RECORD => driver.cuGraphEventRecordNodeGetEvent(raw, found.part(at::EVENT)),
            NodeType::MEM_ALLOC => driver.cuGraphMemAllocNodeGetParams(raw, found.part(at::UNION)),
            NodeType::MEM_FREE => driver.cuGraphMemFreeNodeGetParams(raw, found.part(at::FREE_DPTR)),
            NodeType::BATCH_MEM_OP => driver.cuGraphBatchMemOpNodeGetParams(raw, found.part(at::UNION)),
            NodeType::CONDITIONAL => driver.cuGraphNodeGetParams(raw, found.part(0)),
            _ => Err(Status::NOT_SUPPORTED),
        }
    }?;
    let mut given = NodeParams::new(node_type);
    let head = found.head.bytes();
    given.set(at::UNION, &head[at::UNION..]);
    let born = |given: &mut NodeParams, kind: Kind, at: usize, parent: Option<u64>| -> CuResult {
        let id = cuda.born(call, kind, given.u64(at), parent)?;
        given.set_u64(at, id);
        Ok(())
    };
    match node_type {
        NodeType::KERNEL => {
            let (function, kernel) = (word(head, at::KERNEL_FUNC), word(head, at::KERNEL_KERN));
            // Driver 580 names both, whichever the program has named; to the program a kernel is its own function.
            let kernel = known(cuda, Kind::CUkernel, kernel);
            let function = match (kernel, function) {
                (0, 0) => 0,
                (0, function) => cuda.function_id(call, function)?,
                (kernel, function) => cuda.handles.id(Kind::CUfunction, function).unwrap_or(kernel),
            };
            let layout = cuda.params(if function == 0 { kernel } else { function })?;
            // SAFETY: just given by the driver.
            given.data = unsafe { packed(&layout, head) };
            given.set_u64(at::KERNEL_FUNC, function);
            given.set_u64(at::KERNEL_KERN, kernel);
            given.set_u64(at::KERNEL_CTX, known(cuda, Kind::CUcontext, word(head, at::KERNEL_CTX)));
            given.set_u64(at::KERNEL_PARAMS, 0);
            given.set_u64(at::KERNEL_EXTRA, 0);
        }
        NodeType::MEMCPY => {
            for side in [0, 88] {
                if given.u32(at::MEMCPY_COPY + side + 32) == 3 {
                    born(&mut given, Kind::CUarray, at::MEMCPY_COPY + side + 56, None)?;
                }
            }
        }
        NodeType::HOST => given.set_u64(at::HOST_FN, 0),
        NodeType::GRAPH => born(&mut given, Kind::CUgraph, at::GRAPH_GRAPH, Some(node))?,
        NodeType::WAIT_EVENT | NodeType::EVENT_RECORD => born(&mut given, Kind::CUevent, at::EVENT, None)?,
        NodeType::MEM_ALLOC => {
            given.set_u64(at::ALLOC_WIN32, 0);
            let count = word(head, at::ALLOC_ACCESS_COUNT) as usize;
            let room = call.max_body().saturating_sub(2 * NODE_PARAMS_LEN) / ACCESS_LEN;
            // SAFETY: the driver's list of that many descriptors.
            given.data = unsafe { copied(word(head, at::ALLOC_ACCESS), count.min(room) * ACCESS_LEN) };
            given.set_u64(at::ALLOC_ACCESS, 0);
            given.set_u64(at::ALLOC_ACCESS_COUNT, (given.data.len() / ACCESS_LEN) as u64);
        }
        NodeType::BATCH_MEM_OP => {
            born(&mut given, Kind::CUcontext, at::MEM_OP_CTX, None)?;
            let count = half(head, at::MEM_OP_COUNT) as usize;
            let room = call.max_body().saturating_sub(2 * NODE_PARAMS_LEN) / MEM_OP_LEN;
            // SAFETY: the driver's list of that many operations.
            given.data = unsafe { copied(word(head, at::MEM_OP_LIST), count.min(room) * MEM_OP_LEN) };
            given.set_u64(at::MEM_OP_LIST, 0);
            given.set_u32(at::MEM_OP_COUNT, (given.data.len() / MEM_OP_LEN) as u32);
        }
        // The graphs have been given out when the node was made.
        NodeType::CONDITIONAL => {
            given.set_u64(at::CONDITIONAL_GRAPHS, 0);
            born(&mut given, Kind::CUcontext, at::CONDITIONAL_CTX, None)?;
        }
        _ => {}
    }
    if let Some(params) = params {
        *params = given.encode();
    }
    Ok(())
}
