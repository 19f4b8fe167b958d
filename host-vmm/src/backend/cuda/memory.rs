//! What the program has allocated: for the session's limit, for what the driver cannot say, and to tell the program's memory from the worker's own.
//!
//! Pinned and managed memory lies in the window; the driver only knows that it is registered.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use protocol::status::{CuResult, Status};

/// What kind of memory an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On the device.
    Device,
    /// On the device, in stream order.
    Pool,
    /// In the window, for cuMemFreeHost.
    Host,
    /// In the window, for cuMemFree.
    Managed,
    /// In the window, managed variables: they go with what was loaded.
    Variables,
    /// In the window, in the place of memory that the program has registered.
    Registered,
}

/// What the program has said about managed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    pub read_mostly: bool,
    /// `CU_DEVICE_INVALID` for none.
    pub preferred: i32,
    pub last_prefetch: i32,
}

/// `CU_DEVICE_INVALID`.
pub const DEVICE_INVALID: i32 = -2;

impl Default for Hints {
    fn default() -> Self {
        Self { read_mostly: false, preferred: DEVICE_INVALID, last_prefetch: DEVICE_INVALID }
    }
}

impl Kind {
    /// Whether it is page-locked memory of the window.
    pub fn is_in_window(self) -> bool {
        matches!(self, Self::Host | Self::Managed | Self::Variables | Self::Registered)
    }

    /// Whether the program takes it for managed memory.
    pub fn is_managed(self) -> bool {
        matches!(self, Self::Managed | Self::Variables)
    }
}

/// One allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    pub base: u64,
    pub len: u64,
    pub kind: Kind,
    pub flags: u32,
    /// Id of the context that it was made in.
    pub context: u64,
    pub device: i32,
    /// Unique in the session.
    pub number: u64,
    pub hints: Hints,
}

#[derive(Default)]
struct State {
    by_base: BTreeMap<u64, Allocation>,
    /// Bytes of device memory.
    used: u64,
    numbers: u64,
}

/// All allocations of a session.
pub struct Memory {
    state: RwLock<State>,
    limit: u64,
}

impl Memory {
    /// At most `limit` bytes of device memory.
    pub fn new(limit: u64) -> Self {
        Self { state: RwLock::default(), limit }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets `len` bytes of device memory aside before they are allocated.
    ///
    /// # Errors
    /// OUT_OF_MEMORY beyond the limit.
    pub fn reserve(&self, len: u64) -> CuResult {
        let mut state = self.write();
        let used = state.used.checked_add(len).filter(|used| *used <= self.limit);
        state.used = used.ok_or(Status::OUT_OF_MEMORY)?;
        Ok(())
    }

    /// Gives back what was set aside and is not used.
    pub fn unreserve(&self, len: u64) {
        let mut state = self.write();
        state.used = state.used.saturating_sub(len);
    }

    /// Enters an allocation; device memory must have been reserved. Its `number` is chosen here.
    pub fn insert(&self, allocation: Allocation) {
        let mut state = self.write();
        state.numbers += 1;
        let number = state.numbers;
        state.by_base.insert(allocation.base, Allocation { number, ..allocation });
    }

    /// Takes out what begins at an address.
    pub fn remove(&self, base: u64) -> Option<Allocation> {
        let mut state = self.write();
        let allocation = state.by_base.remove(&base)?;
        if matches!(allocation.kind, Kind::Device | Kind::Pool) {
            state.used = state.used.saturating_sub(allocation.len);
        }
        Some(allocation)
    }

    /// The allocation that an address lies in.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        let state = self.read();
        let (_, allocation) = state.by_base.range(..=address).next_back()?;
        (address - allocation.base < allocation.len).then_some(*allocation)
    }

    /// Changes the hints of what begins at an address.
    pub fn hint(&self, base: u64, change: impl FnOnce(&mut Hints)) {
        if let Some(allocation) = self.write().by_base.get_mut(&base) {
            change(&mut allocation.hints);
        }
    }

    /// Takes out all that was made in a context that goes: what lay in the window has to be given back there.
    pub fn remove_context(&self, context: u64) -> Vec<Allocation> {
        let mut state = self.write();
        let bases: Vec<u64> =
            state.by_base.values().filter(|a| a.context == context).map(|a| a.base).collect();
        let gone: Vec<Allocation> = bases.iter().filter_map(|base| state.by_base.remove(base)).collect();
        let device = |a: &&Allocation| matches!(a.kind, Kind::Device | Kind::Pool);
        let bytes: u64 = gone.iter().filter(device).map(|a| a.len).sum();
        state.used = state.used.saturating_sub(bytes);
        gone
    }

    /// Bytes of device memory that are left of the limit, and the limit.
    pub fn left(&self) -> (u64, u64) {
        (self.limit - self.read().used.min(self.limit), self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(base: u64, len: u64, kind: Kind, context: u64) -> Allocation {
        Allocation { base, len, kind, flags: 0, context, device: 0, number: 0, hints: Hints::default() }
    }

    #[test]
    fn the_limit_holds_and_what_is_freed_counts_no_more() {
        let memory = Memory::new(100);
        memory.reserve(60).unwrap();
        memory.insert(allocation(1000, 60, Kind::Device, 7));
        assert_eq!(memory.reserve(41), Err(Status::OUT_OF_MEMORY));
        assert_eq!(memory.reserve(u64::MAX), Err(Status::OUT_OF_MEMORY));
        memory.reserve(40).unwrap();
        memory.unreserve(40);
        assert_eq!(memory.left(), (40, 100));
        assert_eq!(memory.remove(1001), None);
        assert_eq!(memory.remove(1000).map(|a| a.len), Some(60));
        assert_eq!(memory.left(), (100, 100));
    }

    #[test]
    fn addresses_inside_are_found() {
        let memory = Memory::new(1000);
        memory.insert(allocation(100, 10, Kind::Host, 7));
        memory.insert(allocation(110, 10, Kind::Managed, 8));
        assert_eq!(memory.find(99), None);
        assert_eq!(memory.find(109).map(|a| a.kind), Some(Kind::Host));
        assert_eq!(memory.find(110).map(|a| a.kind), Some(Kind::Managed));
        assert_eq!(memory.find(120), None);
        memory.hint(110, |hints| hints.preferred = 0);
        assert_eq!(memory.find(115).map(|a| a.hints.preferred), Some(0));
        assert_eq!(memory.remove_context(7).len(), 1);
        assert_eq!(memory.find(105), None);
        assert!(memory.find(110).is_some());
    }
}
