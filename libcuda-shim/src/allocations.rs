//! Memory that the program has allocated, and what is known of it: that copies into device memory cannot be refused, so that nobody has to wait to hear whether they
//! were, and what the host has once said of its addresses.
//!
//! Only plain allocations are kept: those that end by a call of this process that names them, or with their context.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::custom::pointer::Info;

#[derive(Clone, Copy)]
struct Known {
    len: u64,
    /// The context whose device memory it is; 0 for other memory, and once another process may have a handle of it: others learn by ways of their own when a copy has been made.
    context: u64,
    /// No two allocations have the same, whatever their addresses.
    serial: u64,
    info: Option<Info>,
}

/// Known allocations by address.
#[derive(Default)]
pub struct Allocations {
    known: RwLock<BTreeMap<u64, Known>>,
    made: AtomicU64,
}

/// What is known of an address without asking.
pub enum Answer {
    Known(Info),
    /// The host may be asked once, for all addresses of the allocation.
    Ask(Ticket),
    /// Nothing.
    Unknown,
}

/// Stands for an allocation that the host is asked about.
#[derive(Clone, Copy)]
pub struct Ticket {
    base: u64,
    serial: u64,
}

impl Allocations {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Known>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, address: u64, len: u64, context: u64) {
        if address == 0 {
            return;
        }
        let serial = self.made.fetch_add(1, Ordering::Relaxed);
        let end = address.saturating_add(len);
        let mut known = self.write();
        // What was there has gone by a way that was not seen.
        while let Some((&base, found)) = known.range(..end).next_back()
            && base.saturating_add(found.len) > address
        {
            known.remove(&base);
        }
        known.insert(address, Known { len, context, serial, info: None });
    }

    /// `len` bytes of device memory have been allocated in a context.
    pub fn device(&self, address: u64, len: u64, context: u64) {
        self.enter(address, len, context);
    }

    /// `len` bytes of any other memory have been allocated.
    pub fn other(&self, address: u64, len: u64) {
        self.enter(address, len, 0);
    }

    /// To be called before what begins there is freed.
    pub fn freed(&self, address: u64) {
        self.write().remove(&address);
    }

    /// To be called before another process learns of what an address lies in.
    pub fn shared(&self, address: u64) {
        if let Some((_, known)) = self.write().range_mut(..=address).next_back() {
            known.context = 0;
        }
    }

    /// To be called before contexts go.
    pub fn forget(&self) {
        self.write().clear();
    }

    /// Whether `len` bytes lie in one known allocation of a context's device memory, of which no other process has a handle.
    pub fn contains(&self, address: u64, len: u64, context: u64) -> bool {
        let known = self.read();
        let Some((base, found)) = known.range(..=address).next_back() else { return false };
        let offset = address - base;
        context != 0 && found.context == context && offset <= found.len && len <= found.len - offset
    }

    /// What is known of an address.
    pub fn answer(&self, address: u64) -> Answer {
        let known = self.read();
        match known.range(..=address).next_back() {
            Some((base, found)) if address - base < found.len => match found.info {
                Some(info) => Answer::Known(info),
                None => Answer::Ask(Ticket { base: *base, serial: found.serial }),
            },
            _ => Answer::Unknown,
        }
    }

    /// The host has answered. It counts unless the allocation has ended meanwhile.
    pub fn answered(&self, ticket: Ticket, info: Info) {
        if let Some(known) = self.write().get_mut(&ticket.base)
            && known.serial == ticket.serial
        {
            known.info = Some(info);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_ends_with_its_allocation() {
        let memory = Allocations::default();
        memory.device(1000, 100, 7);
        memory.device(0, 100, 7);
        memory.device(1100, 50, 7);
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
        memory.device(1000, 100, 7);
        memory.other(2000, 10);
        assert!(!memory.contains(2000, 1, 7) && !memory.contains(2000, 1, 0));
        memory.forget();
        assert!(!memory.contains(1000, 1, 7));
    }

    #[test]
    fn what_lies_where_something_new_is_has_gone() {
        let memory = Allocations::default();
        for (base, len) in [(900, 50), (1000, 100), (1100, 100), (1200, 100), (1300, 10)] {
            memory.device(base, len, 7);
        }
        memory.device(1050, 200, 8);
        for (address, context) in [(900, 7), (1050, 8), (1249, 8), (1300, 7)] {
            assert!(memory.contains(address, 1, context), "{address}");
        }
        for address in [1000, 1100, 1250] {
            assert!(!memory.contains(address, 1, 7), "{address}");
        }
    }

    fn ticket(memory: &Allocations, address: u64) -> Ticket {
        match memory.answer(address) {
            Answer::Ask(ticket) => ticket,
            Answer::Known(_) => panic!("{address} is known"),
            Answer::Unknown => panic!("{address} is not known"),
        }
    }

    fn buffer(memory: &Allocations, address: u64) -> Option<u64> {
        match memory.answer(address) {
            Answer::Known(info) => Some(info.buffer_id),
            _ => None,
        }
    }

    #[test]
    fn an_answer_is_for_one_allocation_and_not_for_its_successor() {
        let memory = Allocations::default();
        memory.device(1000, 100, 7);
        memory.other(1100, 10);
        let (one, other) = (ticket(&memory, 1099), ticket(&memory, 1100));
        memory.answered(one, Info { buffer_id: 1, ..Info::default() });
        assert_eq!(
            [999, 1000, 1099, 1100, 1110].map(|a| buffer(&memory, a)),
            [None, Some(1), Some(1), None, None]
        );
        assert!(
            matches!(memory.answer(1110), Answer::Unknown) && matches!(memory.answer(999), Answer::Unknown)
        );
        memory.shared(1000);
        assert_eq!(buffer(&memory, 1000), Some(1), "what it is stays the same");
        // Freed, and allocated again, while the host answers.
        memory.freed(1100);
        memory.other(1100, 10);
        memory.answered(other, Info { buffer_id: 2, ..Info::default() });
        assert_eq!(buffer(&memory, 1100), None);
        memory.freed(1000);
        memory.answered(one, Info { buffer_id: 3, ..Info::default() });
        assert_eq!(buffer(&memory, 1000), None);
    }
}
