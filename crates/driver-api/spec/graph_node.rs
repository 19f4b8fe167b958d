//! Nodes of graphs: adding them, asking for and setting their parameters.
//!
//! Parameters with pointers in them (kernel arguments, lists) travel as `protocol::graph::NodeParams`, whatever the call is: a
//! `CUgraphNodeParams` with ids for handles, followed by what its pointers point to. `api` tells which call the program made: 0 the one
//! for that type of node, 1 cuGraphAddNode and its like, 2 cuGraphAddNode_v2.

/// Adds a node that does nothing.
#[op(0x0620, since = 10000)]
#[sync]
fn cuGraphAddEmptyNode(#[out] #[parent(hGraph)] phGraphNode: *mut CUgraphNode, hGraph: CUgraph, #[data_in(numDependencies * 8)] dependencies: *const CUgraphNode, numDependencies: usize);

/// Adds a copy of a graph as a node.
#[op(0x0621, since = 10000)]
#[sync]
fn cuGraphAddChildGraphNode(#[out] #[parent(hGraph)] phGraphNode: *mut CUgraphNode, hGraph: CUgraph, #[data_in(numDependencies * 8)] dependencies: *const CUgraphNode, numDependencies: usize, childGraph: CUgraph);

/// The graph in a node.
#[op(0x0622, since = 10000)]
#[sync]
#[custom]
fn cuGraphChildGraphNodeGetGraph(hNode: CUgraphNode, #[out] #[parent(hNode)] phGraph: *mut CUgraph);

/// Replaces the graph in a node of an executable graph.
#[op(0x0623, since = 11010)]
#[sync]
fn cuGraphExecChildGraphNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, childGraph: CUgraph);

/// Adds a node that records an event.
#[op(0x0624, since = 11010)]
#[sync]
fn cuGraphAddEventRecordNode(#[out] #[parent(hGraph)] phGraphNode: *mut CUgraphNode, hGraph: CUgraph, #[data_in(numDependencies * 8)] dependencies: *const CUgraphNode, numDependencies: usize, event: CUevent);

/// Event of a node that records an event.
#[op(0x0625, since = 11010)]
#[sync]
fn cuGraphEventRecordNodeGetEvent(hNode: CUgraphNode, #[out] event_out: *mut CUevent);

/// Sets the event of a node that records an event.
#[op(0x0626, since = 11010)]
#[sync]
fn cuGraphEventRecordNodeSetEvent(hNode: CUgraphNode, event: CUevent);

/// Sets the event of a node that records an event, in an executable graph.
#[op(0x0627, since = 11010)]
#[sync]
fn cuGraphExecEventRecordNodeSetEvent(hGraphExec: CUgraphExec, hNode: CUgraphNode, event: CUevent);

/// Adds a node that waits for an event.
#[op(0x0628, since = 11010)]
#[sync]
fn cuGraphAddEventWaitNode(#[out] #[parent(hGraph)] phGraphNode: *mut CUgraphNode, hGraph: CUgraph, #[data_in(numDependencies * 8)] dependencies: *const CUgraphNode, numDependencies: usize, event: CUevent);

/// Event of a node that waits for an event.
#[op(0x0629, since = 11010)]
#[sync]
fn cuGraphEventWaitNodeGetEvent(hNode: CUgraphNode, #[out] event_out: *mut CUevent);

/// Sets the event of a node that waits for an event.
#[op(0x062a, since = 11010)]
#[sync]
fn cuGraphEventWaitNodeSetEvent(hNode: CUgraphNode, event: CUevent);

/// Sets the event of a node that waits for an event, in an executable graph.
#[op(0x062b, since = 11010)]
#[sync]
fn cuGraphExecEventWaitNodeSetEvent(hGraphExec: CUgraphExec, hNode: CUgraphNode, event: CUevent);

/// Adds a fill.
#[op(0x062c, since = 10000)]
#[sync]
fn cuGraphAddMemsetNode(#[out] #[parent(hGraph)] phGraphNode: *mut CUgraphNode, hGraph: CUgraph, #[data_in(numDependencies * 8)] dependencies: *const CUgraphNode, numDependencies: usize, #[input] memsetParams: *const CUDA_MEMSET_NODE_PARAMS, ctx: CUcontext);

/// Parameters of a fill.
#[op(0x062d, since = 10000)]
#[sync]
fn cuGraphMemsetNodeGetParams(hNode: CUgraphNode, #[out] nodeParams: *mut CUDA_MEMSET_NODE_PARAMS);

/// Sets the parameters of a fill.
#[op(0x062e, since = 10000)]
#[sync]
fn cuGraphMemsetNodeSetParams(hNode: CUgraphNode, #[input] nodeParams: *const CUDA_MEMSET_NODE_PARAMS);

/// Sets the parameters of a fill, in an executable graph.
#[op(0x062f, since = 10020)]
#[sync]
fn cuGraphExecMemsetNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, #[input] memsetParams: *const CUDA_MEMSET_NODE_PARAMS, ctx: CUcontext);

/// Adds a node that frees memory of another node.
#[op(0x0630, since = 11040)]
#[sync]
fn cuGraphAddMemFreeNode(#[out] #[parent(hGraph)] phGraphNode: *mut CUgraphNode, hGraph: CUgraph, #[data_in(numDependencies * 8)] dependencies: *const CUgraphNode, numDependencies: usize, dptr: CUdeviceptr);

/// Address that a node frees.
#[op(0x0631, since = 11040)]
#[sync]
fn cuGraphMemFreeNodeGetParams(hNode: CUgraphNode, #[out] dptr_out: *mut CUdeviceptr);

/// Copies the attributes of a kernel node.
#[op(0x0632, since = 11000)]
#[sync]
fn cuGraphKernelNodeCopyAttributes(dst: CUgraphNode, src: CUgraphNode);

/// An attribute of a kernel node.
#[op(0x0633, since = 11000)]
#[sync]
#[host_custom]
fn cuGraphKernelNodeGetAttribute(hNode: CUgraphNode, attr: CUkernelNodeAttrID, #[out] value_out: *mut CUkernelNodeAttrValue);

/// Sets an attribute of a kernel node.
#[op(0x0634, since = 11000)]
#[sync]
#[host_custom]
fn cuGraphKernelNodeSetAttribute(hNode: CUgraphNode, attr: CUkernelNodeAttrID, #[input] value: *const CUkernelNodeAttrValue);

/// Adds a kernel launch.
#[op(since = 10000)]
#[via(graph_add_node)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphAddKernelNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v1);

/// Parameters of a kernel launch.
#[op(since = 10000)]
#[via(graph_get_node)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphKernelNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_KERNEL_NODE_PARAMS_v1);

/// Sets the parameters of a kernel launch.
#[op(since = 10000)]
#[via(graph_set_node)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphKernelNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v1);

/// Sets the parameters of a kernel launch, in an executable graph.
#[op(since = 10010)]
#[via(graph_set_node)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphExecKernelNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v1);

/// Adds a kernel launch.
#[op(since = 12000)]
#[via(graph_add_node)]
fn cuGraphAddKernelNode_v2(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_KERNEL_NODE_PARAMS);

/// Parameters of a kernel launch.
#[op(since = 12000)]
#[via(graph_get_node)]
fn cuGraphKernelNodeGetParams_v2(hNode: CUgraphNode, nodeParams: *mut CUDA_KERNEL_NODE_PARAMS);

/// Sets the parameters of a kernel launch.
#[op(since = 12000)]
#[via(graph_set_node)]
fn cuGraphKernelNodeSetParams_v2(hNode: CUgraphNode, nodeParams: *const CUDA_KERNEL_NODE_PARAMS);

/// Sets the parameters of a kernel launch, in an executable graph.
#[op(since = 12000)]
#[via(graph_set_node)]
fn cuGraphExecKernelNodeSetParams_v2(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_KERNEL_NODE_PARAMS);

/// Adds a copy.
#[op(since = 10000)]
#[via(graph_add_node)]
fn cuGraphAddMemcpyNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, copyParams: *const CUDA_MEMCPY3D, ctx: CUcontext);

/// Parameters of a copy.
#[op(since = 10000)]
#[via(graph_get_node)]
fn cuGraphMemcpyNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_MEMCPY3D);

/// Sets the parameters of a copy.
#[op(since = 10000)]
#[via(graph_set_node)]
fn cuGraphMemcpyNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_MEMCPY3D);

/// Sets the parameters of a copy, in an executable graph.
#[op(since = 10020)]
#[via(graph_set_node)]
fn cuGraphExecMemcpyNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, copyParams: *const CUDA_MEMCPY3D, ctx: CUcontext);

/// Adds a call of a function of the program.
#[op(since = 10000)]
#[via(graph_add_node)]
fn cuGraphAddHostNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_HOST_NODE_PARAMS);

/// Parameters of a call of a function of the program.
#[op(since = 10000)]
#[via(graph_get_node)]
fn cuGraphHostNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_HOST_NODE_PARAMS);

/// Sets the parameters of a call of a function of the program.
#[op(since = 10000)]
#[via(graph_set_node)]
fn cuGraphHostNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_HOST_NODE_PARAMS);

/// Sets the parameters of a call of a function of the program, in an executable graph.
#[op(since = 10020)]
#[via(graph_set_node)]
fn cuGraphExecHostNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_HOST_NODE_PARAMS);

/// Adds a batch of waits and writes of single words.
#[op(since = 11070)]
#[via(graph_add_node)]
fn cuGraphAddBatchMemOpNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_BATCH_MEM_OP_NODE_PARAMS);

/// Parameters of a batch of waits and writes of single words.
#[op(since = 11070)]
#[via(graph_get_node)]
fn cuGraphBatchMemOpNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_BATCH_MEM_OP_NODE_PARAMS);

/// Sets the parameters of a batch of waits and writes of single words.
#[op(since = 11070)]
#[via(graph_set_node)]
fn cuGraphBatchMemOpNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_BATCH_MEM_OP_NODE_PARAMS);

/// Sets the parameters of a batch of waits and writes of single words, in an executable graph.
#[op(since = 11070)]
#[via(graph_set_node)]
fn cuGraphExecBatchMemOpNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_BATCH_MEM_OP_NODE_PARAMS);

/// Adds signals to external semaphores.
#[op(since = 11020)]
#[via(graph_add_node)]
fn cuGraphAddExternalSemaphoresSignalNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_EXT_SEM_SIGNAL_NODE_PARAMS);

/// Parameters of signals to external semaphores.
#[op(since = 11020)]
#[via(graph_get_node)]
fn cuGraphExternalSemaphoresSignalNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_EXT_SEM_SIGNAL_NODE_PARAMS);

/// Sets the parameters of signals to external semaphores.
#[op(since = 11020)]
#[via(graph_set_node)]
fn cuGraphExternalSemaphoresSignalNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_EXT_SEM_SIGNAL_NODE_PARAMS);

/// Sets the parameters of signals to external semaphores, in an executable graph.
#[op(since = 11020)]
#[via(graph_set_node)]
fn cuGraphExecExternalSemaphoresSignalNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_EXT_SEM_SIGNAL_NODE_PARAMS);

/// Adds waits for external semaphores.
#[op(since = 11020)]
#[via(graph_add_node)]
fn cuGraphAddExternalSemaphoresWaitNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_EXT_SEM_WAIT_NODE_PARAMS);

/// Parameters of waits for external semaphores.
#[op(since = 11020)]
#[via(graph_get_node)]
fn cuGraphExternalSemaphoresWaitNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_EXT_SEM_WAIT_NODE_PARAMS);

/// Sets the parameters of waits for external semaphores.
#[op(since = 11020)]
#[via(graph_set_node)]
fn cuGraphExternalSemaphoresWaitNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_EXT_SEM_WAIT_NODE_PARAMS);

/// Sets the parameters of waits for external semaphores, in an executable graph.
#[op(since = 11020)]
#[via(graph_set_node)]
fn cuGraphExecExternalSemaphoresWaitNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_EXT_SEM_WAIT_NODE_PARAMS);

/// Adds an allocation, whose address is written to the parameters.
#[op(since = 11040)]
#[via(graph_add_node)]
fn cuGraphAddMemAllocNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *mut CUDA_MEM_ALLOC_NODE_PARAMS);

/// Parameters of an allocation.
#[op(since = 11040)]
#[via(graph_get_node)]
fn cuGraphMemAllocNodeGetParams(hNode: CUgraphNode, params_out: *mut CUDA_MEM_ALLOC_NODE_PARAMS);

/// Adds a node of any type.
#[op(since = 12020)]
#[via(graph_add_node)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGraphAddNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *mut CUgraphNodeParams);

/// Adds a node of any type, with data of its edges.
#[op(since = 12030)]
#[via(graph_add_node)]
fn cuGraphAddNode_v2(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, dependencyData: *const CUgraphEdgeData, numDependencies: usize, nodeParams: *mut CUgraphNodeParams);

/// Parameters of a node of any type.
#[op(since = 13020)]
#[via(graph_get_node)]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuGraphNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUgraphNodeParams);

/// Sets the parameters of a node of any type.
#[op(since = 12020)]
#[via(graph_set_node)]
fn cuGraphNodeSetParams(hNode: CUgraphNode, nodeParams: *mut CUgraphNodeParams);

/// Sets the parameters of a node of any type, in an executable graph.
#[op(since = 12020)]
#[via(graph_set_node)]
fn cuGraphExecNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *mut CUgraphNodeParams);

/// Adds a node. `params_out` is what the driver has put into the parameters: the address of an allocation, the graphs of a conditional node.
#[op(0x0688)]
#[sync]
#[internal]
fn graph_add_node(
    api: u32,
    graph: u64,
    #[data_in] dependencies: *const u8,
    #[data_in] edges: *const u8,
    #[data_in] params: *const u8,
    #[out] node: *mut u64,
    #[data_out] params_out: *mut u8,
);

/// Sets the parameters of a node of a graph, or of an executable graph (`exec` is not 0).
#[op(0x0689)]
#[sync]
#[internal]
fn graph_set_node(api: u32, exec: u64, node: u64, #[data_in] params: *const u8);

/// Parameters of a node; NULL or INVALID_VALUE if it is not of the type that the program asks for (`type` is -1 for any type).
#[op(0x068a)]
#[sync]
#[internal]
fn graph_get_node(node: u64, type_: i32, #[data_out] params: *mut u8);
