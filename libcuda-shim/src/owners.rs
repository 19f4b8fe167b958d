//! Which contexts streams, events and modules belong to.
//!
//! An event is recorded in streams of its own context only, and a default stream, which is one of the current context, runs functions of that
//! context only. A driver says so at once, while the operation itself is posted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use protocol::named;

/// Contexts by the handles of what belongs to them. What came by other ways than the calls that make such objects is not known.
#[derive(Default)]
pub struct Owners {
    known: RwLock<HashMap<u64, u64>>,
    /// Handles given so far.
    named: AtomicU64,
}

impl Owners {
    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u64, u64>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle for an object that the host is about to make; none when there are no more.
    pub fn name(&self) -> Option<u64> {
        named::nth(self.named.fetch_add(1, Ordering::Relaxed))
    }

    /// An object has been made in a context.
    pub fn made(&self, object: u64, context: u64) {
        self.write().insert(object, context);
    }

    /// An object has been destroyed.
    pub fn ended(&self, object: u64) {
        self.write().remove(&object);
    }

    /// A context is gone, and with it what belonged to it.
    pub fn context_ended(&self, context: u64) {
        self.write().retain(|_, owner| *owner != context);
    }

    /// The context of an object, 0 if it is not known.
    pub fn of(&self, object: u64) -> u64 {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&object).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_end_by_themselves_or_with_their_context() {
        let owners = Owners::default();
        for (object, context) in [(10, 1), (11, 1), (20, 2)] {
            owners.made(object, context);
        }
        owners.ended(10);
        assert_eq!([10, 11, 20].map(|object| owners.of(object)), [0, 1, 2]);
        owners.context_ended(1);
        assert_eq!([10, 11, 20].map(|object| owners.of(object)), [0, 0, 2]);
    }
}
