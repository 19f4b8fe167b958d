//! Functions of the program that streams call (`cuLaunchHostFunc`, `cuStreamAddCallback`).
//!
//! The stream's entry puts the function's number in a queue and waits until the program has called it. A lane of the program's own
//! takes numbers from the queue.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use protocol::Status;

/// A function that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub id: u64,
    /// What a stream callback is told.
    pub status: Status,
}

#[derive(Default)]
struct State {
    due: VecDeque<Due>,
    /// Functions that were queued and have not returned, with how often.
    waiting: Vec<u64>,
}

/// The queue of a session.
#[derive(Default)]
pub struct Callbacks {
    state: Mutex<State>,
    changed: Condvar,
}

impl Callbacks {
    /// Has the program call a function, and waits until it has returned. On a stream's thread.
    pub fn call(&self, due: Due) {
        let mut state = self.lock();
        state.due.push_back(due);
        state.waiting.push(due.id);
        self.changed.notify_all();
        while state.waiting.contains(&due.id) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has the program call a function some time; nobody waits for it.
    pub fn notify(&self, due: Due) {
        self.lock().due.push_back(due);
        self.changed.notify_all();
    }

    /// The next function that is due. On the lane that the program keeps for this; ends only with the process.
    pub fn next(&self) -> Due {
        let mut state = self.lock();
        loop {
            if let Some(due) = state.due.pop_front() {
                return due;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The function has returned.
    pub fn done(&self, id: u64) {
        let mut state = self.lock();
        if let Some(at) = state.waiting.iter().position(|waiting| *waiting == id) {
            state.waiting.swap_remove(at);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn the_stream_waits_until_the_function_has_returned() {
        let callbacks = Arc::new(Callbacks::default());
        let returned = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                callbacks.call(Due { id: 7, status: Status::SUCCESS });
                assert!(returned.load(Ordering::SeqCst));
            });
            let due = callbacks.next();
            assert_eq!(due, Due { id: 7, status: Status::SUCCESS });
            callbacks.done(99);
            returned.store(true, Ordering::SeqCst);
            callbacks.done(7);
        });
    }
}
