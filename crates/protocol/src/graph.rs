//! Parameters of graph nodes as they travel, and the numbers that the graph operations use.
//!
//! A node's parameters are the 256 bytes of NVIDIA's `CUgraphNodeParams` with an id for every handle and 0 for every pointer to a list, followed by
//! what those pointers point to: the parameter buffer of a kernel, the operations of a batch, the access descriptors of an allocation, the
//! handles and then the parameters of external semaphores, the graphs of a conditional node. A host node has the number of the program's
//! function in its `userData`. Offsets below are from the start of the structure, in bytes.

use alloc::vec::Vec;

use crate::function::FunctionInfo;
use crate::wire::WireError;

/// Bytes of a `CUgraphNodeParams`.
pub const NODE_PARAMS_LEN: usize = 256;

/// `CUgraphNodeType`: open, as any value may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeType(pub u32);

impl NodeType {
    pub const KERNEL: NodeType = NodeType(0);
    pub const MEMCPY: NodeType = NodeType(1);
    pub const MEMSET: NodeType = NodeType(2);
    pub const HOST: NodeType = NodeType(3);
    pub const GRAPH: NodeType = NodeType(4);
    pub const EMPTY: NodeType = NodeType(5);
    pub const WAIT_EVENT: NodeType = NodeType(6);
    pub const EVENT_RECORD: NodeType = NodeType(7);
    pub const EXT_SEMAS_SIGNAL: NodeType = NodeType(8);
    pub const EXT_SEMAS_WAIT: NodeType = NodeType(9);
    pub const MEM_ALLOC: NodeType = NodeType(10);
    pub const MEM_FREE: NodeType = NodeType(11);
    pub const BATCH_MEM_OP: NodeType = NodeType(12);
    pub const CONDITIONAL: NodeType = NodeType(13);
}

/// Where things are in a `CUgraphNodeParams`.
pub mod at {
    /// Where the union with the parameters of a type begins.
    pub const UNION: usize = 16;

    pub const KERNEL_FUNC: usize = 16;
    pub const KERNEL_GRID: usize = 24;
    pub const KERNEL_BLOCK: usize = 36;
    pub const KERNEL_SHARED: usize = 48;
    pub const KERNEL_PARAMS: usize = 56;
    pub const KERNEL_EXTRA: usize = 64;
    pub const KERNEL_KERN: usize = 72;
    pub const KERNEL_CTX: usize = 80;

    pub const MEMCPY_CTX: usize = 24;
    /// A `CUDA_MEMCPY3D` of 200 bytes.
    pub const MEMCPY_COPY: usize = 32;

    pub const MEMSET_DST: usize = 16;
    pub const MEMSET_PITCH: usize = 24;
    pub const MEMSET_VALUE: usize = 32;
    pub const MEMSET_ELEMENT: usize = 36;
    pub const MEMSET_WIDTH: usize = 40;
    pub const MEMSET_HEIGHT: usize = 48;
    pub const MEMSET_CTX: usize = 56;

    pub const HOST_FN: usize = 16;
    pub const HOST_DATA: usize = 24;
    pub const HOST_CTX: usize = 40;

    pub const GRAPH_GRAPH: usize = 16;

    pub const EVENT: usize = 16;
    pub const EVENT_RECORD_CTX: usize = 24;

    pub const SEMAPHORES: usize = 16;
    pub const SEMAPHORE_PARAMS: usize = 24;
    pub const SEMAPHORE_COUNT: usize = 32;
    pub const SEMAPHORE_CTX: usize = 40;

    /// A `CUmemPoolProps` of 88 bytes.
    pub const ALLOC_POOL: usize = 16;
    pub const ALLOC_WIN32: usize = 32;
    pub const ALLOC_ACCESS: usize = 104;
    pub const ALLOC_ACCESS_COUNT: usize = 112;
    pub const ALLOC_BYTES: usize = 120;
    pub const ALLOC_DPTR: usize = 128;

    pub const FREE_DPTR: usize = 16;

    pub const MEM_OP_CTX: usize = 16;
    pub const MEM_OP_COUNT: usize = 24;
    pub const MEM_OP_LIST: usize = 32;
    pub const MEM_OP_FLAGS: usize = 40;

    pub const CONDITIONAL_HANDLE: usize = 16;
    pub const CONDITIONAL_SIZE: usize = 28;
    pub const CONDITIONAL_GRAPHS: usize = 32;
    pub const CONDITIONAL_CTX: usize = 40;
}

/// Bytes of a `CUstreamBatchMemOpParams`.
pub const MEM_OP_LEN: usize = 48;
/// Bytes of a `CUmemAccessDesc`.
pub const ACCESS_LEN: usize = 12;
/// Bytes of a `CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS` or `CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS`.
pub const SEMAPHORE_PARAMS_LEN: usize = 144;
/// Bytes of a handle in a list.
pub const HANDLE_LEN: usize = 8;

/// `graph_list`: what to list.
pub mod list {
    /// `object` is a graph: all its nodes.
    pub const NODES: u32 = 0;
    /// `object` is a graph: nodes without dependencies.
    pub const ROOT_NODES: u32 = 1;
    /// `object` is a graph: edges, as two lists.
    pub const EDGES: u32 = 2;
    /// `object` is a node: what it depends on.
    pub const DEPENDENCIES: u32 = 3;
    /// `object` is a node: what depends on it.
    pub const DEPENDENTS: u32 = 4;

    /// The call is one that has data of edges.
    pub const WITH_EDGE_DATA: u32 = 1;
    /// The program wants the list (the `from` nodes of edges), not only the number.
    pub const WANT_NODES: u32 = 2;
    /// The program wants the `to` nodes of edges.
    pub const WANT_TO: u32 = 4;
    /// The program wants the data of edges.
    pub const WANT_EDGE_DATA: u32 = 8;
}

/// Parameters of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeParams {
    /// The structure.
    pub head: [u8; NODE_PARAMS_LEN],
    /// What its pointers point to.
    pub data: Vec<u8>,
}

impl NodeParams {
    /// Parameters of this type with nothing in them.
    pub fn new(node_type: NodeType) -> NodeParams {
        let mut params = NodeParams { head: [0; NODE_PARAMS_LEN], data: Vec::new() };
        params.set_u32(0, node_type.0);
        params
    }

    pub fn node_type(&self) -> NodeType {
        NodeType(self.u32(0))
    }

    /// The 32 bits at an offset; 0 beyond the structure.
    pub fn u32(&self, at: usize) -> u32 {
        self.head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// The 64 bits at an offset; 0 beyond the structure.
    pub fn u64(&self, at: usize) -> u64 {
        self.head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.set(at, &value.to_le_bytes());
    }

    pub fn set_u64(&mut self, at: usize, value: u64) {
        self.set(at, &value.to_le_bytes());
    }

    /// Overwrites bytes of the structure; what would lie beyond it is left out.
    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        let room = self.head.get_mut(at..).unwrap_or_default();
        let len = room.len().min(bytes.len());
        room[..len].copy_from_slice(&bytes[..len]);
    }

    /// Bytes of the structure; fewer than `len` if it ends before.
    pub fn bytes(&self, at: usize, len: usize) -> &[u8] {
        let rest = self.head.get(at..).unwrap_or_default();
        &rest[..rest.len().min(len)]
    }

    /// Bytes of `data` that the structure speaks of; `None` if only an upper limit is known, which [`NodeParams::decode`] checks.
    fn data_len(&self) -> Option<u64> {
        let times = |count: u64, len: usize| count.saturating_mul(len as u64);
        match self.node_type() {
            NodeType::KERNEL | NodeType::CONDITIONAL => None,
            NodeType::BATCH_MEM_OP => Some(times(self.u32(at::MEM_OP_COUNT).into(), MEM_OP_LEN)),
            NodeType::MEM_ALLOC => Some(times(self.u64(at::ALLOC_ACCESS_COUNT), ACCESS_LEN)),
            NodeType::EXT_SEMAS_SIGNAL | NodeType::EXT_SEMAS_WAIT => {
                let count = u64::from(self.u32(at::SEMAPHORE_COUNT));
                Some(times(count, HANDLE_LEN + SEMAPHORE_PARAMS_LEN))
            }
            _ => Some(0),
        }
    }

    /// The body of a data block.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(NODE_PARAMS_LEN + self.data.len());
        block.extend_from_slice(&self.head);
        block.extend_from_slice(&self.data);
        block
    }

    /// Takes a data block apart.
    ///
    /// # Errors
    /// It is shorter than the structure, or does not have the lists that the structure's counts speak of.
    pub fn decode(block: &[u8]) -> Result<NodeParams, WireError> {
        let wrong = |expected: u64| WireError::Length {
            at: 0,
            len: block.len() as u64,
            max: usize::try_from(expected.saturating_add(NODE_PARAMS_LEN as u64)).unwrap_or(usize::MAX),
        };
        let (head, data) = block.split_first_chunk::<NODE_PARAMS_LEN>().ok_or(wrong(0))?;
        let params = NodeParams { head: *head, data: data.to_vec() };
        let len = params.data.len() as u64;
        match (params.data_len(), params.node_type()) {
            (Some(expected), _) if len != expected => Err(wrong(expected)),
            (None, NodeType::KERNEL) if len > FunctionInfo::MAX_PARAMS_LEN as u64 => {
                Err(wrong(FunctionInfo::MAX_PARAMS_LEN as u64))
            }
            // The graphs come only from the host.
            (None, NodeType::CONDITIONAL) => {
                let expected = u64::from(params.u32(at::CONDITIONAL_SIZE)) * HANDLE_LEN as u64;
                if len == 0 || len == expected { Ok(params) } else { Err(wrong(expected)) }
            }
            _ => Ok(params),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn lists_have_the_lengths_that_the_structure_says() {
        let mut params = NodeParams::new(NodeType::BATCH_MEM_OP);
        params.set_u32(at::MEM_OP_COUNT, 2);
        params.data = vec![7; 2 * MEM_OP_LEN];
        assert_eq!(NodeParams::decode(&params.encode()), Ok(params.clone()));
        params.data.pop();
        assert!(NodeParams::decode(&params.encode()).is_err());
        // A count that no block can have.
        let mut params = NodeParams::new(NodeType::MEM_ALLOC);
        params.set_u64(at::ALLOC_ACCESS_COUNT, u64::MAX);
        assert!(NodeParams::decode(&params.encode()).is_err());
        assert!(NodeParams::decode(&[0; NODE_PARAMS_LEN - 1]).is_err());
    }

    #[test]
    fn a_conditional_node_has_its_graphs_or_none() {
        let mut params = NodeParams::new(NodeType::CONDITIONAL);
        params.set_u32(at::CONDITIONAL_SIZE, 2);
        assert!(NodeParams::decode(&params.encode()).is_ok());
        params.data = vec![0; 16];
        assert!(NodeParams::decode(&params.encode()).is_ok());
        params.data = vec![0; 8];
        assert!(NodeParams::decode(&params.encode()).is_err());
    }

    #[test]
    fn fields_outside_of_the_structure_are_nothing() {
        let mut params = NodeParams::new(NodeType::EMPTY);
        params.set_u64(NODE_PARAMS_LEN - 4, u64::MAX);
        assert_eq!(params.u32(NODE_PARAMS_LEN - 4), u32::MAX);
        assert_eq!(params.u64(NODE_PARAMS_LEN - 4), 0);
        params.set_u64(usize::MAX, 1);
        assert_eq!(params.bytes(250, 16).len(), 6);
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(node_type in 0u32..16, count in 0u32..4, data in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut block = NodeParams::new(NodeType(node_type));
            for at in [at::MEM_OP_COUNT, at::ALLOC_ACCESS_COUNT, at::SEMAPHORE_COUNT, at::CONDITIONAL_SIZE] {
                block.set_u32(at, count);
            }
            block.data = data;
            let bytes = block.encode();
            if let Ok(params) = NodeParams::decode(&bytes) {
                prop_assert_eq!(params.encode(), bytes);
            }
        }
    }
}
