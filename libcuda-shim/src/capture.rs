//! Which streams of this process are capturing, as far as the guest has to know.
//!
//! As long as none is, questions about captures are answered here, and posted operations are not waited for. The host has the truth: a stream
//! that is on the list though its capture has ended (with its context, say) costs round trips until it is asked about.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::types::CU_STREAM_PER_THREAD;

/// A stream of the program; the per-thread default stream is one per thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    stream: u64,
    thread: i32,
}

impl Key {
    fn new(stream: u64) -> Key {
        let per_thread = stream == CU_STREAM_PER_THREAD as u64;
        let thread = if per_thread { rustix::thread::gettid().as_raw_nonzero().get() } else { 0 };
        Key { stream, thread }
    }
}

/// Streams in which a capture was begun.
#[derive(Default)]
pub struct Captures {
    count: AtomicUsize,
    streams: Mutex<Vec<Key>>,
}

impl Captures {
    /// Whether any stream of the process may be capturing.
    #[inline]
    pub fn active(&self) -> bool {
        // Who begins a capture and then tells another thread of it has ordered the two already.
        self.count.load(Ordering::Relaxed) != 0
    }

    /// A capture has begun in a stream.
    pub fn begun(&self, stream: u64) {
        self.change(|streams| {
            let key = Key::new(stream);
            if !streams.contains(&key) {
                streams.push(key);
            }
        });
    }

    /// The stream is not capturing any more.
    pub fn ended(&self, stream: u64) {
        let key = Key::new(stream);
        self.change(|streams| streams.retain(|known| *known != key));
    }

    fn change(&self, f: impl FnOnce(&mut Vec<Key>)) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut streams);
        self.count.store(streams.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_ends_once() {
        let captures = Captures::default();
        assert!(!captures.active());
        captures.begun(7);
        captures.begun(7);
        captures.begun(9);
        captures.ended(7);
        assert!(captures.active());
        captures.ended(8);
        assert!(captures.active());
        captures.ended(9);
        assert!(!captures.active());
    }

    #[test]
    fn default_streams_of_threads_are_different_streams() {
        let captures = Captures::default();
        captures.begun(2);
        std::thread::scope(|scope| {
            scope.spawn(|| captures.ended(2));
        });
        assert!(captures.active());
        captures.ended(2);
        assert!(!captures.active());
    }
}
