//! Graphs: making, editing and asking about them, their executable form, launches.
//!
//! Handles of graphs, nodes and executable graphs are stable: asking again gives the same number, as a program compares them. Lists of
//! nodes have a length that the call itself gives, and what goes wrong has outputs of its own, so such calls go by way of internal
//! operations; so does what has the parameters of a node in it (`graph_node.rs`).

/// Creates an empty graph.
#[op(0x0600, since = 10000)]
#[sync]
fn cuGraphCreate(#[out] phGraph: *mut CUgraph, flags: c_uint);

/// Destroys a graph and its nodes.
#[op(since = 10000)]
#[via(graph_destroy)]
fn cuGraphDestroy(hGraph: CUgraph);

/// Copies a graph.
#[op(0x0601, since = 10000)]
#[sync]
fn cuGraphClone(#[out] phGraphClone: *mut CUgraph, originalGraph: CUgraph);

/// The node of a copy that an original node has become.
#[op(0x0602, since = 10000)]
#[sync]
fn cuGraphNodeFindInClone(
    #[out]
    #[parent(hClonedGraph)]
    phNode: *mut CUgraphNode,
    hOriginalNode: CUgraphNode,
    hClonedGraph: CUgraph,
);

/// Destroys a node with its edges.
#[op(0x0603, since = 10000)]
#[sync]
#[custom]
fn cuGraphDestroyNode(#[dies] hNode: CUgraphNode);

/// Type of a node.
#[op(0x0604, since = 10000)]
#[sync]
#[custom]
fn cuGraphNodeGetType(hNode: CUgraphNode, #[out] type_: *mut CUgraphNodeType);

/// Id of a graph, for debuggers.
#[op(0x0605, since = 13010)]
#[sync]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuGraphGetId(hGraph: CUgraph, #[out] graphId: *mut c_uint);

/// Id of an executable graph, for debuggers.
#[op(0x0606, since = 13010)]
#[sync]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuGraphExecGetId(hGraphExec: CUgraphExec, #[out] graphId: *mut c_uint);

/// The graph that a node is in.
#[op(0x0607, since = 13010)]
#[sync]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuGraphNodeGetContainingGraph(hNode: CUgraphNode, #[out] phGraph: *mut CUgraph);

/// Id of a node in its graph, for debuggers.
#[op(0x0608, since = 13010)]
#[sync]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuGraphNodeGetLocalId(hNode: CUgraphNode, #[out] nodeId: *mut c_uint);

/// Id of a node for tools.
#[op(0x0609, since = 13010)]
#[sync]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuGraphNodeGetToolsId(hNode: CUgraphNode, #[out] toolsNodeId: *mut c_ulonglong);

/// All nodes of a graph, or their number.
#[op(since = 10000)]
#[via(graph_list)]
fn cuGraphGetNodes(hGraph: CUgraph, nodes: *mut CUgraphNode, numNodes: *mut usize);

/// Nodes without dependencies, or their number.
#[op(since = 10000)]
#[via(graph_list)]
fn cuGraphGetRootNodes(hGraph: CUgraph, rootNodes: *mut CUgraphNode, numRootNodes: *mut usize);

/// Edges of a graph, or their number.
#[op(since = 10000)]
#[via(graph_list)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphGetEdges(hGraph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, numEdges: *mut usize);

/// Edges of a graph with their data, or their number.
#[op(since = 12030)]
#[via(graph_list)]
fn cuGraphGetEdges_v2(
    hGraph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    edgeData: *mut CUgraphEdgeData,
    numEdges: *mut usize,
);

/// Nodes that a node depends on, or their number.
#[op(since = 10000)]
#[via(graph_list)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphNodeGetDependencies(
    hNode: CUgraphNode,
    dependencies: *mut CUgraphNode,
    numDependencies: *mut usize,
);

/// Nodes that a node depends on, with the edges' data, or their number.
#[op(since = 12030)]
#[via(graph_list)]
fn cuGraphNodeGetDependencies_v2(
    hNode: CUgraphNode,
    dependencies: *mut CUgraphNode,
    edgeData: *mut CUgraphEdgeData,
    numDependencies: *mut usize,
);

/// Nodes that depend on a node, or their number.
#[op(since = 10000)]
#[via(graph_list)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphNodeGetDependentNodes(
    hNode: CUgraphNode,
    dependentNodes: *mut CUgraphNode,
    numDependentNodes: *mut usize,
);

/// Nodes that depend on a node, with the edges' data, or their number.
#[op(since = 12030)]
#[via(graph_list)]
fn cuGraphNodeGetDependentNodes_v2(
    hNode: CUgraphNode,
    dependentNodes: *mut CUgraphNode,
    edgeData: *mut CUgraphEdgeData,
    numDependentNodes: *mut usize,
);

/// Adds edges.
#[op(0x0610, since = 10000)]
#[sync]
#[custom]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphAddDependencies(
    hGraph: CUgraph,
    #[data_in(numDependencies * 8)] from: *const CUgraphNode,
    #[data_in(numDependencies * 8)] to: *const CUgraphNode,
    numDependencies: usize,
);

/// Adds edges with data.
#[op(0x0611, since = 12030)]
#[sync]
#[custom]
fn cuGraphAddDependencies_v2(
    hGraph: CUgraph,
    #[data_in(numDependencies * 8)] from: *const CUgraphNode,
    #[data_in(numDependencies * 8)] to: *const CUgraphNode,
    #[data_in(numDependencies * 8)] edgeData: *const CUgraphEdgeData,
    numDependencies: usize,
);

/// Removes edges.
#[op(0x0612, since = 10000)]
#[sync]
#[custom]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphRemoveDependencies(
    hGraph: CUgraph,
    #[data_in(numDependencies * 8)] from: *const CUgraphNode,
    #[data_in(numDependencies * 8)] to: *const CUgraphNode,
    numDependencies: usize,
);

/// Removes edges with data.
#[op(0x0613, since = 12030)]
#[sync]
#[custom]
fn cuGraphRemoveDependencies_v2(
    hGraph: CUgraph,
    #[data_in(numDependencies * 8)] from: *const CUgraphNode,
    #[data_in(numDependencies * 8)] to: *const CUgraphNode,
    #[data_in(numDependencies * 8)] edgeData: *const CUgraphEdgeData,
    numDependencies: usize,
);

/// Makes a graph executable.
#[op(since = 10000)]
#[via(graph_instantiate)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphInstantiate(
    phGraphExec: *mut CUgraphExec,
    hGraph: CUgraph,
    phErrorNode: *mut CUgraphNode,
    logBuffer: *mut c_char,
    bufferSize: usize,
);

/// Makes a graph executable.
#[op(since = 11000)]
#[via(graph_instantiate)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphInstantiate_v2(
    phGraphExec: *mut CUgraphExec,
    hGraph: CUgraph,
    phErrorNode: *mut CUgraphNode,
    logBuffer: *mut c_char,
    bufferSize: usize,
);

/// Makes a graph executable, with flags.
#[op(since = 11040)]
#[via(graph_instantiate)]
fn cuGraphInstantiateWithFlags(phGraphExec: *mut CUgraphExec, hGraph: CUgraph, flags: c_ulonglong);

/// Makes a graph executable, with flags and a stream to upload it in.
#[op(since = 12000, ptsz = 12000)]
#[via(graph_instantiate)]
fn cuGraphInstantiateWithParams(
    phGraphExec: *mut CUgraphExec,
    hGraph: CUgraph,
    instantiateParams: *mut CUDA_GRAPH_INSTANTIATE_PARAMS,
);

/// Flags that an executable graph was made with.
#[op(0x0614, since = 12000)]
#[sync]
fn cuGraphExecGetFlags(hGraphExec: CUgraphExec, #[out] flags: *mut cuuint64_t);

/// Destroys an executable graph; a launch that is under way goes on.
#[op(0x0615, since = 10000)]
#[sync]
#[custom]
fn cuGraphExecDestroy(#[dies] hGraphExec: CUgraphExec);

/// Gives an executable graph the parameters of a graph of the same shape.
#[op(since = 10020)]
#[via(graph_exec_update)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphExecUpdate(
    hGraphExec: CUgraphExec,
    hGraph: CUgraph,
    hErrorNode_out: *mut CUgraphNode,
    updateResult_out: *mut CUgraphExecUpdateResult,
);

/// Gives an executable graph the parameters of a graph of the same shape.
#[op(since = 12000)]
#[via(graph_exec_update)]
fn cuGraphExecUpdate_v2(
    hGraphExec: CUgraphExec,
    hGraph: CUgraph,
    resultInfo: *mut CUgraphExecUpdateResultInfo,
);

/// Brings an executable graph to the device ahead of its first launch.
#[op(0x0616, since = 11010, ptsz = 11010)]
#[posted]
#[custom]
fn cuGraphUpload(hGraphExec: CUgraphExec, #[stream] hStream: CUstream);

/// Launches an executable graph.
#[op(0x0617, since = 10000, ptsz = 10000)]
#[posted]
#[custom]
fn cuGraphLaunch(hGraphExec: CUgraphExec, #[stream] hStream: CUstream);

/// Whether a node of an executable graph does its work.
#[op(0x0618, since = 11060)]
#[sync]
fn cuGraphNodeGetEnabled(hGraphExec: CUgraphExec, hNode: CUgraphNode, #[out] isEnabled: *mut c_uint);

/// Switches a node of an executable graph on or off.
#[op(0x0619, since = 11060)]
#[sync]
fn cuGraphNodeSetEnabled(hGraphExec: CUgraphExec, hNode: CUgraphNode, isEnabled: c_uint);

/// Writes a graph as text for Graphviz to a file of the program.
#[op(since = 11030)]
#[via(graph_dot)]
fn cuGraphDebugDotPrint(hGraph: CUgraph, path: *const c_char, flags: c_uint);

/// A number that conditional nodes go by and kernels set.
#[op(0x061a, since = 12030)]
#[sync]
fn cuGraphConditionalHandleCreate(
    #[out] pHandle_out: *mut CUgraphConditionalHandle,
    hGraph: CUgraph,
    ctx: CUcontext,
    defaultLaunchValue: c_uint,
    flags: c_uint,
);

/// Memory that graphs use.
#[op(since = 11040)]
#[via(graph_mem_get_attribute)]
fn cuDeviceGetGraphMemAttribute(device: CUdevice, attr: CUgraphMem_attribute, value: *mut c_void);

/// Resets a high-water mark of the memory that graphs use.
#[op(since = 11040)]
#[via(graph_mem_set_attribute)]
fn cuDeviceSetGraphMemAttribute(device: CUdevice, attr: CUgraphMem_attribute, value: *mut c_void);

/// Gives unused memory of graphs back.
#[op(0x061b, since = 11040)]
#[sync]
fn cuDeviceGraphMemTrim(device: CUdevice);

/// Destroys a graph; gives the handles of its nodes and of those of its child graphs, which are invalid now, as far as they fit a reply.
#[op(0x0680)]
#[sync]
#[internal]
fn graph_destroy(graph: u64, #[data_out] nodes: *mut u8);

/// A list of nodes. `what` and the flags are those of `protocol::graph`. `object` is a graph or a node; `capacity` is what the program
/// has room for. Gives `total`, the number that the driver gave, and the part of the list from `first` that fits a reply.
#[op(0x0681)]
#[sync]
#[internal]
fn graph_list(
    what: u32,
    flags: u32,
    object: u64,
    capacity: u64,
    first: u64,
    #[out] total: *mut u64,
    #[data_out] nodes: *mut u8,
    #[data_out] to: *mut u8,
    #[data_out] edges: *mut u8,
);

/// Makes a graph executable. `api` is 1 for the calls with a log, 2 with flags, 3 with parameters. `result` is the CUresult, `outcome` the
/// CUgraphInstantiateResult. The log has at most `log_len` bytes.
#[op(0x0682)]
#[sync]
#[internal]
fn graph_instantiate(
    api: u32,
    graph: u64,
    flags: u64,
    stream: u64,
    log_len: u64,
    #[out] result: *mut u32,
    #[out] exec: *mut u64,
    #[out] error_node: *mut u64,
    #[out] outcome: *mut u32,
    #[data_out] log: *mut u8,
);

/// Updates an executable graph. `result` is the CUresult, `outcome` the CUgraphExecUpdateResult.
#[op(0x0683)]
#[sync]
#[internal]
fn graph_exec_update(
    exec: u64,
    graph: u64,
    #[out] result: *mut u32,
    #[out] outcome: *mut u32,
    #[out] error_node: *mut u64,
    #[out] error_from_node: *mut u64,
);

/// The text of cuGraphDebugDotPrint from `offset`, as much as fits a reply, and its length.
#[op(0x0684)]
#[sync]
#[internal]
fn graph_dot(graph: u64, flags: u32, offset: u64, #[out] total: *mut u64, #[data_out] text: *mut u8);

/// An attribute of the memory that graphs use.
#[op(0x0685)]
#[sync]
#[internal]
fn graph_mem_get_attribute(device: i32, attribute: u32, #[out] value: *mut u64);

/// Sets an attribute of the memory that graphs use.
#[op(0x0686)]
#[sync]
#[internal]
fn graph_mem_set_attribute(device: i32, attribute: u32, value: u64);
