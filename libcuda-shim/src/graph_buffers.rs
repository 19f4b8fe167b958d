//! Buffers in the window through which copies of pageable memory in graphs go.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::status::Status;

/// A buffer in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    address: u64,
    len: u64,
    /// Memory of the window ends with its context.
    context: u64,
    /// An address may come again, this number does not.
    number: u64,
}

impl Buffer {
    pub fn address(&self) -> u64 {
        self.address
    }
}

/// The buffers of this process. None is given back to the host: that waits for all work of the context, which may be waiting for the thread that learns that a
/// buffer is free.
#[derive(Default)]
pub struct Buffers {
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By context and length.
    free: BTreeMap<(u64, u64), Vec<u64>>,
    used: HashMap<u64, Buffer>,
    last_number: u64,
}

/// Smallest buffer, in bytes: as small as memory of the window is.
const SMALLEST: u64 = 4096;
/// Lengths of buffers between a power of two and the next: no more than an eighth is in vain.
const STEPS: u64 = 8;

/// Length of the buffers for copies of this length.
fn buffer_len(len: u64) -> Option<u64> {
    let step = (len.checked_next_power_of_two()? / STEPS).max(SMALLEST);
    len.checked_next_multiple_of(step)
}

impl State {
    /// Takes a free buffer of this length, or with `longer` one that is longer.
    fn take(&mut self, context: u64, len: u64, longer: bool) -> Option<Buffer> {
        let end = if longer { u64::MAX } else { len };
        let (key, free) = self.free.range_mut((context, len)..=(context, end)).next()?;
        let (key, address) = (*key, free.pop());
        if free.is_empty() {
            self.free.remove(&key);
        }
        Some(self.enter(address?, key.1, context))
    }

    fn enter(&mut self, address: u64, len: u64, context: u64) -> Buffer {
        self.last_number += 1;
        let buffer = Buffer { address, len, context, number: self.last_number };
        self.used.insert(buffer.number, buffer);
        buffer
    }
}

impl Buffers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was ever a buffer: else no graph of this process has a copy of pageable memory.
    #[inline]
    pub fn any(&self) -> bool {
        // Who makes a node and then tells another thread of it has ordered the two already.
        self.any.load(Ordering::Relaxed)
    }

    /// A buffer of at least `len` bytes, which `alloc` makes if none is free.
    ///
    /// # Errors
    /// OUT_OF_MEMORY, those of `alloc`.
    pub fn take(
        &self,
        context: u64,
        len: u64,
        alloc: impl FnOnce(u64) -> Result<u64, Status>,
    ) -> Result<Buffer, Status> {
        self.any.store(true, Ordering::Relaxed);
        let len = buffer_len(len).ok_or(Status::OUT_OF_MEMORY)?;
        let free = self.lock().take(context, len, false);
        if let Some(buffer) = free {
            return Ok(buffer);
        }
        match alloc(len) {
            Ok(address) => Ok(self.lock().enter(address, len, context)),
            Err(Status::OUT_OF_MEMORY) => self.lock().take(context, len, true).ok_or(Status::OUT_OF_MEMORY),
            Err(status) => Err(status),
        }
    }

    /// Nothing uses the buffer any more.
    pub fn give_back(&self, buffer: &Buffer) {
        let mut state = self.lock();
        if state.used.remove(&buffer.number).is_some() {
            state.free.entry((buffer.context, buffer.len)).or_default().push(buffer.address);
        }
    }

    /// A context is gone, and its buffers with it.
    pub fn context_ended(&self, context: u64) {
        if !self.any() {
            return;
        }
        let mut state = self.lock();
        state.free.retain(|(owner, _), _| *owner != context);
        state.used.retain(|_, buffer| buffer.context != context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buffers_come_again_until_their_context_ends() {
        let buffers = Buffers::default();
        assert!(!buffers.any());
        let none = |_| Err(Status::OUT_OF_MEMORY);
        let first = buffers.take(1, 100, Ok).unwrap();
        assert_eq!((first.len, first.address), (SMALLEST, SMALLEST));
        assert!(buffers.any());
        assert_eq!(buffers.take(1, 100, none).unwrap_err(), Status::OUT_OF_MEMORY);
        buffers.give_back(&first);
        buffers.give_back(&first);
        let again = buffers.take(1, 200, none).unwrap();
        assert_eq!(again.address, first.address);
        assert!(buffers.take(1, 200, none).is_err(), "given back once");
        // A longer one rather than none, but none of another context.
        let long = buffers.take(1, 1 << 20, Ok).unwrap();
        buffers.give_back(&long);
        assert!(buffers.take(2, 100, none).is_err());
        assert_eq!(buffers.take(1, 100, none).unwrap().len, long.len);
        // What is given back after its context's end is not kept.
        buffers.context_ended(1);
        buffers.give_back(&again);
        assert!(buffers.take(1, 100, none).is_err());
        assert!(buffers.lock().used.is_empty() && buffers.lock().free.is_empty());
    }

    proptest! {
        #[test]
        fn buffers_are_long_enough_and_not_much_longer(len in 1u64..1 << 50) {
            let buffer = buffer_len(len).unwrap();
            prop_assert!(buffer >= len && buffer - len < SMALLEST.max(len.next_power_of_two() / STEPS));
            prop_assert_eq!(buffer_len(buffer), Some(buffer));
        }
    }
}
