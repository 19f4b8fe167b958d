//! `malloc` and `free` in kernels.
//!
//! The memory lies in the region, the bookkeeping does not: a kernel cannot damage it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::region::{Arena, Region, SpaceAllocator};

/// Alignment of blocks.
const ALIGN: u64 = 16;

struct State {
    limit: u64,
    /// Mapped at first use.
    memory: Option<(Arena, SpaceAllocator)>,
    /// Blocks in use: address to length.
    live: BTreeMap<u64, u64>,
}

/// The heap of a context; what is allocated lives on after the kernel.
pub(crate) struct DeviceHeap {
    region: Arc<Region>,
    state: Mutex<State>,
}

impl DeviceHeap {
    pub(crate) fn new(region: Arc<Region>, limit: u64) -> Self {
        DeviceHeap { region, state: Mutex::new(State { limit, memory: None, live: BTreeMap::new() }) }
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the size. False if the heap is in use already.
    pub(crate) fn set_limit(&self, limit: u64) -> bool {
        let mut state = self.lock();
        if state.memory.is_none() {
            state.limit = limit;
        }
        state.limit == limit
    }

    /// Address of `len` bytes, 16-byte aligned; 0 if there is not enough left.
    pub(crate) fn malloc(&self, len: u64) -> u64 {
        let mut state = self.lock();
        if len == 0 || len > state.limit {
            return 0;
        }
        if state.memory.is_none() {
            let Ok(arena) = self.region.arena(state.limit) else { return 0 };
            let space = SpaceAllocator::new(arena.base(), state.limit & !(ALIGN - 1));
            state.memory = Some((arena, space));
        }
        let rounded = len.next_multiple_of(ALIGN);
        let address = state.memory.as_mut().and_then(|(_, space)| space.allocate(rounded, ALIGN));
        if let Some(address) = address {
            state.live.insert(address, rounded);
        }
        address.unwrap_or(0)
    }

    /// Frees a block, or nothing for 0. False if there is no such block.
    pub(crate) fn free(&self, address: u64) -> bool {
        if address == 0 {
            return true;
        }
        let mut state = self.lock();
        let Some(len) = state.live.remove(&address) else { return false };
        if let Some((_, space)) = &mut state.memory {
            space.release(address, len);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::{RegionConfig, reserve_in_test};

    #[test]
    fn blocks_are_aligned_disjoint_and_come_back() {
        let heap = DeviceHeap::new(Arc::new(reserve_in_test(RegionConfig::default())), 1 << 20);
        assert!(heap.set_limit(1 << 16));
        let blocks: Vec<u64> =
            std::iter::from_fn(|| Some(heap.malloc(1000)).filter(|&block| block != 0)).collect();
        assert_eq!(blocks.len(), (1 << 16) / 1008);
        assert!(blocks.iter().all(|block| block % 16 == 0 && heap.region().contains(*block)));
        assert!(!heap.set_limit(1 << 20));
        assert!(heap.set_limit(1 << 16));
        assert!(heap.free(0));
        assert!(!heap.free(blocks[0] + 16));
        for block in &blocks {
            assert!(heap.free(*block));
        }
        assert!(!heap.free(blocks[0]));
        assert_ne!(heap.malloc(1 << 16), 0);
        assert_eq!(heap.malloc(1), 0);
        assert_eq!(heap.malloc(0), 0);
        assert_eq!(heap.malloc(u64::MAX), 0);
    }
}
