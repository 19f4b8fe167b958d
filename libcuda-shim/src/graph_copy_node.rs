//! Copies of pageable memory as nodes of graphs.
//!
//! Such a copy is one node, a graph with two nodes: the driver's copy between the device and a buffer, and a host function that is the library's part of it
//! (see `graph_copy`). The inner graph holds a user object. The driver gives each copy of the graph, executable ones too, a reference of its own and keeps it
//! until the last launch is over; so the end of the object is the end of the copy's number and frees the buffer.
//!
//! A node is recognised by what is in it, so that copies of graphs have such nodes as well; to the program it is the copy that it has asked for.

use std::sync::Arc;

use protocol::graph::{NodeParams, NodeType, at, list};
use protocol::status::{CuResult, Status};

use crate::box_copy::{End, Extent};
use crate::callback;
use crate::custom::capture::captured;
use crate::custom::graph::ids;
use crate::generated::wire;
use crate::graph_copy::{Direction, GraphCopy, Plan, params_of};
use crate::node_params::{GENERIC_V2, OF_TYPE};
use crate::process::process;
use crate::thread;

/// `CU_STREAM_CAPTURE_MODE_RELAXED`
const RELAXED: u32 = 2;
/// `CU_STREAM_SET_CAPTURE_DEPENDENCIES`
const SET_DEPENDENCIES: u32 = 1;
/// `CU_MEMHOSTALLOC_PORTABLE`
const PORTABLE: u32 = 1;
/// `CU_USER_OBJECT_NO_DESTRUCTOR_SYNC`
const NO_DESTRUCTOR_SYNC: u32 = 1;
/// `CU_GRAPH_USER_OBJECT_MOVE`
const MOVE: u32 = 1;

/// Any capture allows what the thread asks for as long as this lives: buffers are allocated while something is captured.
struct Relaxed {
    before: u32,
}

impl Relaxed {
    fn begin() -> Result<Relaxed, Status> {
        thread::with(|thread| Ok(Relaxed { before: core::mem::replace(&mut thread.capture_mode, RELAXED) }))
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // A failure leaves the mode of a thread that cannot call the driver now anyway.
        let _ = thread::with(|thread| {
            thread.capture_mode = self.before;
            Ok(())
        });
    }
}

/// A graph of our own, until it has become a node.
struct Inner(u64);

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(status) = wire::graph_destroy(self.0, None) {
            crate::log!(Debug, "the graph of a copy of pageable memory stays: {status:?}");
        }
    }
}

/// A copy with its number, and a user object that ends them, with a reference that is ours.
struct Kept {
    id: u64,
    copy: Arc<GraphCopy>,
}

impl Kept {
    fn new(plan: Plan) -> Result<Kept, Status> {
        let context = thread::require_context()?;
        let buffers = &process().graph_buffers;
        let buffer = buffers.take(context, plan.len(), |len| {
            let mut address = 0;
            wire::cuMemHostAlloc(Some(&mut address), len, PORTABLE).map(|()| address)
        })?;
        let copy = Arc::new(GraphCopy::new(plan, buffer));
        let id = callback::keep_copy(Arc::clone(&copy)).inspect_err(|_| buffers.give_back(&buffer))?;
        let object = end_with_object(id).inspect_err(|_| callback::copy_ended(id))?;
        copy.set_object(object);
        Ok(Kept { id, copy })
    }

    /// Gives our reference to a graph, with which the copy then ends.
    fn hold_by(&self, graph: u64) -> CuResult {
        let object = self.copy.object();
        wire::cuGraphRetainUserObject(graph, object, 1, MOVE).inspect_err(|_| {
            let _ = wire::cuUserObjectRelease(object, 1);
        })
    }

    /// The parameters of the host function.
    fn function(&self) -> NodeParams {
        let mut params = NodeParams::new(NodeType::HOST);
        params.set_u64(at::HOST_DATA, self.id);
        params
    }
}

/// A user object whose end is the end of the copy with this number.
fn end_with_object(copy: u64) -> Result<u64, Status> {
    let end = callback::enter_copy_end(copy)?;
    let mut object = 0;
    wire::user_object_create(end, 1, NO_DESTRUCTOR_SYNC, Some(&mut object))
        .inspect_err(|_| callback::forget(end))?;
    Ok(object)
}

/// The graph that is to become a node.
fn inner(api: u32, plan: Plan) -> Result<Inner, Status> {
    let direction = plan.direction();
    let kept = Kept::new(plan)?;
    let mut graph = 0;
    wire::cuGraphCreate(Some(&mut graph), 0).inspect_err(|_| {
        let _ = wire::cuUserObjectRelease(kept.copy.object(), 1);
    })?;
    let inner = Inner(graph);
    kept.hold_by(graph)?;
    let steps = [(api, kept.copy.staged_params()), (OF_TYPE, kept.function())];
    let steps = match direction {
        Direction::In => {
            let [copy, function] = steps;
            [function, copy]
        }
        Direction::Out => steps,
    };
    let mut before: Option<[u8; 8]> = None;
    for (api, params) in steps {
        let (on, mut node) = (before.as_ref().map(|node| &node[..]), 0);
        wire::graph_add_node(api, graph, on, None, Some(&params.encode()), Some(&mut node), None)?;
        before = Some(node.to_le_bytes());
    }
    Ok(inner)
}

/// Whether buffers can be shared with the host. Says so if not.
fn shares_memory() -> bool {
    let shares = process().session.get().is_none_or(|session| session.pinned().is_none());
    if !shares {
        crate::log!(
            Warn,
            "a copy of pageable memory in a graph is not supported: this session shares no memory with the host"
        );
    }
    shares
}

/// Adds a copy to a graph, with the call that the program makes for it; gives the node.
///
/// # Errors
/// NOT_SUPPORTED in a session without shared memory; those of the driver.
pub fn add(
    api: u32,
    graph: u64,
    dependencies: Option<&[u8]>,
    edges: Option<&[u8]>,
    plan: Plan,
) -> Result<u64, Status> {
    if !shares_memory() {
        return Err(Status::NOT_SUPPORTED);
    }
    let _relaxed = Relaxed::begin()?;
    let inner = inner(api, plan)?;
    let mut node = 0;
    if api == GENERIC_V2 || edges.is_some() {
        let mut params = NodeParams::new(NodeType::GRAPH);
        params.set_u64(at::GRAPH_GRAPH, inner.0);
        let params = params.encode();
        wire::graph_add_node(GENERIC_V2, graph, dependencies, edges, Some(&params), Some(&mut node), None)?;
    } else {
        let count = dependencies.map_or(0, |dependencies| dependencies.len() as u64 / 8);
        wire::cuGraphAddChildGraphNode(Some(&mut node), graph, dependencies, count, inner.0)?;
    }
    Ok(node)
}

/// Makes a copy with pageable memory on one side a part of the graph that a stream captures. `wait`: it is one of the calls that return when the bytes have
/// arrived, which cannot be captured. Whether the copy is done with: false if the stream does not capture.
///
/// # Errors
/// STREAM_CAPTURE_UNSUPPORTED, those of the driver.
#[inline]
pub fn capture(dst: &End, src: &End, extent: Extent, stream: u64, wait: bool) -> Result<bool, Status> {
    if process().captures.active() { capture_copy(dst, src, extent, stream, wait) } else { Ok(false) }
}

#[cold]
fn capture_copy(dst: &End, src: &End, extent: Extent, stream: u64, wait: bool) -> Result<bool, Status> {
    let Some(captured) = captured(stream)? else { return Ok(false) };
    if wait {
        crate::log!(Info, "a copy that is waited for cannot be captured");
        return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
    }
    let Extent { width, height, depth } = extent;
    if width == 0 || height == 0 || depth == 0 {
        return Ok(true);
    }
    if !shares_memory() {
        return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
    }
    let params = params_of(dst, src, extent, thread::require_context()?);
    let plan = Plan::of(&params)?.ok_or(Status::INVALID_VALUE)?;
    let dependencies = Some(&captured.dependencies[..]).filter(|list| !list.is_empty());
    let node = add(OF_TYPE, captured.graph, dependencies, captured.edges.as_deref(), plan)?;
    wire::cuStreamUpdateCaptureDependencies(stream, Some(&node.to_le_bytes()), 1, SET_DEPENDENCIES)?;
    Ok(true)
}

/// A node that is a copy of pageable memory.
struct Found {
    copy: Arc<GraphCopy>,
    /// The inner graph with its two nodes.
    graph: u64,
    driver_copy: u64,
    function: u64,
}

/// What there is in a node.
fn find(node: u64) -> Result<Option<Found>, Status> {
    if !process().graph_buffers.any() {
        return Ok(None);
    }
    let (mut node_type, mut graph, mut total, mut nodes) = (0, 0, 0, Vec::new());
    wire::cuGraphNodeGetType(node, Some(&mut node_type))?;
    if NodeType(node_type) != NodeType::GRAPH {
        return Ok(None);
    }
    wire::cuGraphChildGraphNodeGetGraph(node, Some(&mut graph))?;
    // One more than it has, so that another number of nodes shows.
    let (what, flags) = (list::NODES, list::WANT_NODES);
    wire::graph_list(what, flags, graph, 3, 0, Some(&mut total), Some(&mut nodes), None, None)?;
    if total != 2 {
        return Ok(None);
    }
    let (mut copy, mut driver_copy, mut function) = (None, None, None);
    for inner in ids(&nodes) {
        let mut block = Vec::new();
        wire::cuGraphNodeGetType(inner, Some(&mut node_type))?;
        match NodeType(node_type) {
            NodeType::MEMCPY => driver_copy = Some(inner),
            NodeType::HOST => {
                wire::graph_get_node(inner, node_type as i32, Some(&mut block))?;
                let params = NodeParams::decode(&block).map_err(|_| Status::UNKNOWN)?;
                copy = callback::kept_copy(params.u64(at::HOST_DATA));
                function = Some(inner);
            }
            _ => {}
        }
    }
    Ok(match (copy, driver_copy, function) {
        (Some(copy), Some(driver_copy), Some(function)) => Some(Found { copy, graph, driver_copy, function }),
        _ => None,
    })
}

/// The parameters of a copy as the program has given them; none if the node is not one of these.
pub fn params(node: u64) -> Result<Option<NodeParams>, Status> {
    Ok(find(node)?.map(|found| found.copy.params().clone()))
}

/// Sets the parameters of a node if it is one of these, or such ones are to be set; `exec` is 0 or an executable graph. Whether it was.
///
/// # Errors
/// NOT_SUPPORTED if the node would have to become another kind of node; those of the driver.
pub fn set(api: u32, exec: u64, node: u64, params: &NodeParams) -> Result<bool, Status> {
    if params.node_type() != NodeType::MEMCPY {
        return Ok(false);
    }
    let plan = Plan::of(params)?;
    let (plan, found) = match (plan, find(node)?) {
        (None, None) => return Ok(false),
        (Some(plan), Some(found)) if plan.direction() == found.copy.direction() => (plan, found),
        (Some(_), Some(_)) => {
            crate::log!(Warn, "a copy in a graph cannot be turned round: it has pageable memory on one side");
            return Err(Status::NOT_SUPPORTED);
        }
        (Some(_), None) => {
            crate::log!(
                Warn,
                "a node of a graph that was made without pageable memory cannot be set to copy some"
            );
            return Err(Status::NOT_SUPPORTED);
        }
        (None, Some(_)) => {
            crate::log!(
                Warn,
                "a node of a graph that was made for pageable memory cannot be set to copy without any"
            );
            return Err(Status::NOT_SUPPORTED);
        }
    };
    if !shares_memory() {
        return Err(Status::NOT_SUPPORTED);
    }
    let _relaxed = Relaxed::begin()?;
    if exec == 0 {
        set_in_graph(api, &found, Kept::new(plan)?)?;
    } else {
        // The executable graph takes over the new graph's reference to its buffer, too, and with it lets go of the one that it had.
        let inner = inner(api, plan)?;
        wire::cuGraphExecChildGraphNodeSetParams(exec, node, inner.0).map_err(|status| match status {
            // The driver's word for a copy whose new parameters do not fit the old ones.
            Status::GRAPH_EXEC_UPDATE_FAILURE => Status::INVALID_VALUE,
            status => status,
        })?;
    }
    Ok(true)
}

/// Gives a node another copy, with a buffer of its own: other graphs may have the old one.
fn set_in_graph(api: u32, found: &Found, kept: Kept) -> CuResult {
    kept.hold_by(found.graph)?;
    let set = |api, node, params: &NodeParams| wire::graph_set_node(api, 0, node, Some(&params.encode()));
    let result = set(api, found.driver_copy, &kept.copy.staged_params()).and_then(|()| {
        set(OF_TYPE, found.function, &kept.function()).inspect_err(|_| {
            let _ = set(api, found.driver_copy, &found.copy.staged_params());
        })
    });
    let unused = if result.is_ok() { found.copy.object() } else { kept.copy.object() };
    let released = wire::cuGraphReleaseUserObject(found.graph, unused, 1);
    if let Err(status) = released {
        crate::log!(Debug, "the buffer of a copy of pageable memory stays: {status:?}");
    }
    result
}
