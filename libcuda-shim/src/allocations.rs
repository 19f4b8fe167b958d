//! Device memory that is known to be there: copies into it cannot be refused, so that nobody has to wait to hear whether they were.
//!
//! Only plain allocations are, while no other process has a handle of them: others learn by ways of their own when a copy has been made.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[derive(Clone, Copy)]
struct Known {
    len: u64,
    context: u64,
}

/// Known allocations by address.
#[derive(Default)]
pub struct DeviceMemory {
    known: RwLock<BTreeMap<u64, Known>>,
}

impl DeviceMemory {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Known>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// `len` bytes have been allocated in a context.
    pub fn allocated(&self, address: u64, len: u64, context: u64) {
        if address != 0 && context != 0 {
            self.write().insert(address, Known { len, context });
        }
    }

    /// To be called before what begins there is freed.
    pub fn freed(&self, address: u64) {
        self.write().remove(&address);
    }

    /// To be called before another process learns of what an address lies in.
    pub fn shared(&self, address: u64) {
        let mut known = self.write();
        if let Some((&base, _)) = known.range(..=address).next_back() {
            known.remove(&base);
        }
    }

    /// To be called before contexts go.
    pub fn forget(&self) {
        self.write().clear();
    }

    /// Whether `len` bytes lie in one known allocation of a context.
    pub fn contains(&self, address: u64, len: u64, context: u64) -> bool {
        let known = self.read();
        let Some((base, found)) = known.range(..=address).next_back() else { return false };
        let offset = address - base;
        found.context == context && offset <= found.len && len <= found.len - offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_ends_with_its_allocation() {
        let memory = DeviceMemory::default();
        memory.allocated(1000, 100, 7);
        memory.allocated(0, 100, 7);
        memory.allocated(1100, 50, 7);
        assert!(memory.contains(1000, 100, 7) && memory.contains(1099, 1, 7) && memory.contains(1100, 0, 7));
        // Two allocations are not one, another context has none.
        for (address, len, context) in [(1099, 2, 7), (999, 1, 7), (1000, 101, 7), (1000, 1, 8), (0, 1, 7)] {
            assert!(!memory.contains(address, len, context), "{address} {len} {context}");
        }
        assert!(!memory.contains(1050, u64::MAX, 7) && !memory.contains(u64::MAX, 1, 7));
        memory.freed(1001);
        assert!(memory.contains(1000, 100, 7));
        memory.freed(1000);
        assert!(!memory.contains(1000, 1, 7));
        memory.shared(1149);
        assert!(!memory.contains(1100, 1, 7));
        memory.allocated(1000, 100, 7);
        memory.forget();
        assert!(!memory.contains(1000, 1, 7));
    }
}
