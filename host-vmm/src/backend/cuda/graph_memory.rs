//! Memory of allocation nodes: its addresses are known from the node's making, but the driver knows of memory there only while a graph has it.

use std::sync::{PoisonError, RwLock};

use super::handles::Handles;

/// What an allocation node has.
#[derive(Clone, Copy)]
struct Range {
    /// Id of the node.
    node: u64,
    address: u64,
    len: u64,
}

/// The addresses of all allocation nodes of a session.
#[derive(Default)]
pub struct GraphMemory {
    ranges: RwLock<Vec<Range>>,
}

/// As many ranges are kept before those of nodes that have gone are looked for.
const ENOUGH: usize = 1024;

impl GraphMemory {
    /// A node has been made.
    pub fn insert(&self, handles: &Handles, node: u64, address: u64, len: u64) {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if ranges.len() >= ENOUGH && ranges.len().is_power_of_two() {
            ranges.retain(|range| handles.kind(range.node).is_ok());
        }
        ranges.push(Range { node, address, len });
    }

    /// Whether `len` bytes at an address are a node's.
    pub fn contains(&self, address: u64, len: u64) -> bool {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let fits = |range: &Range| {
            address.checked_sub(range.address).is_some_and(|at| at < range.len && len <= range.len - at)
        };
        ranges.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::cuda_raw::Kind;

    #[test]
    fn ranges_end_with_their_nodes_when_there_are_many() {
        let handles = Handles::new(10);
        let node = handles.enter(Kind::CUgraphNode, 5, 0).unwrap();
        let memory = GraphMemory::default();
        memory.insert(&handles, node, 4096, 100);
        assert!(memory.contains(4096, 100) && memory.contains(4195, 1));
        assert!(!memory.contains(4095, 1) && !memory.contains(4196, 1) && !memory.contains(4100, 97));
        assert!(!memory.contains(4100, u64::MAX));
        for index in 0..ENOUGH as u64 {
            memory.insert(&handles, node + 1, 1 << 20 | index << 10, 1);
        }
        assert!(memory.contains(4096, 1));
        assert!(!memory.contains(1 << 20, 1));
    }
}
