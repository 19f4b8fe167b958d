//! The stream lanes of a session in its worker, for those that wait for each other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiting lane looks whether its program is still there.
const LOOK: Duration = Duration::from_millis(100);

/// How far each stream lane of a session is. One per session, in the worker.
#[derive(Default)]
pub struct StreamLanes {
    completed: Mutex<HashMap<u32, Arc<AtomicU64>>>,
    changed: Condvar,
    /// Lanes that wait for another.
    waiting: AtomicU32,
}

impl StreamLanes {
    fn map(&self) -> MutexGuard<'_, HashMap<u32, Arc<AtomicU64>>> {
        self.completed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a lane; gives its number of the last complete request.
    pub(super) fn enter(&self, lane: u32) -> Arc<AtomicU64> {
        let completed = Arc::new(AtomicU64::new(0));
        self.map().insert(lane, Arc::clone(&completed));
        completed
    }

    /// A lane has ended: nobody needs to wait for it any more.
    pub(super) fn leave(&self, lane: u32) {
        self.map().remove(&lane);
        self.changed.notify_all();
    }

    /// To be called after a lane's number has grown (by a sequentially consistent operation).
    #[inline]
    pub(super) fn advanced(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // The lock: a waiter that has looked before the growth is waiting by the time we have it.
            drop(self.map());
            self.changed.notify_all();
        }
    }

    /// Waits until `lane` has completed `seq` or has ended; false if the waiting lane itself is closed meanwhile.
    pub(super) fn wait(&self, lane: u32, seq: u64, is_closed: impl Fn() -> bool) -> bool {
        let reached = |map: &HashMap<u32, Arc<AtomicU64>>| {
            map.get(&lane).is_none_or(|completed| completed.load(Ordering::SeqCst) >= seq)
        };
        let mut map = self.map();
        if reached(&map) {
            return true;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let open = loop {
            if reached(&map) {
                break true;
            }
            let (again, waited) =
                self.changed.wait_timeout(map, LOOK).unwrap_or_else(PoisonError::into_inner);
            map = again;
            if waited.timed_out() && is_closed() {
                break false;
            }
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        open
    }
}
