//! A byte ring in shared memory for one producer and one consumer.
//!
//! The data area is an array of u64 words, a power of two of them. `tail` counts the bytes ever written, `head` the bytes ever taken; both only grow (in 64 bits
//! they do not wrap) and are multiples of 8. A record is a frame header and its body; it may wrap around the end of the area at any word.
//!
//! Neither side believes the other: each keeps its own index in private memory, and what the other side publishes must move forward and stay within the
//! capacity. All accesses to shared memory are atomic words, so a peer that writes at the wrong time can change the data that is read but nothing else;
//! the consumer copies header and body once and checks the copy. *Empty* and *corrupt* are different results.
#![allow(unsafe_code)] // The indices and the data area lie in shared memory that only raw pointers can name.

use std::ptr::NonNull;
use std::slice;

use protocol::frame::{FrameError, FrameHeader, HEADER_LEN};

use crate::sync::{AtomicU64, Ordering};

/// Where a ring lies in memory.
pub struct RingMemory {
    tail: NonNull<AtomicU64>,
    head: NonNull<AtomicU64>,
    data: NonNull<AtomicU64>,
    /// Number of words minus one; the number is a power of two.
    mask: usize,
}

// SAFETY: the pointers name atomics that `RingMemory::new` requires to be valid for as long as the value exists, on whatever thread.
unsafe impl Send for RingMemory {}

impl RingMemory {
    /// Names a ring's parts: the two index words, and `words` words of data.
    ///
    /// # Safety
    /// The pointers are valid and aligned (`data` for `words` words) for as long as the returned value exists, and nothing in this process accesses the
    /// memory otherwise than atomically. (What another process does there cannot break memory safety here.)
    ///
    /// # Panics
    /// If `words` is not a power of two or too small for a header.
    pub unsafe fn new(
        tail: NonNull<AtomicU64>,
        head: NonNull<AtomicU64>,
        data: NonNull<AtomicU64>,
        words: usize,
    ) -> RingMemory {
        assert!(words.is_power_of_two() && words * 8 >= HEADER_LEN, "ring of {words} words");
        RingMemory { tail, head, data, mask: words - 1 }
    }

    fn tail(&self) -> &AtomicU64 {
        // SAFETY: valid and aligned by the contract of `new`; only accessed atomically.
        unsafe { self.tail.as_ref() }
    }

    fn head(&self) -> &AtomicU64 {
        // SAFETY: valid and aligned by the contract of `new`; only accessed atomically.
        unsafe { self.head.as_ref() }
    }

    fn data(&self) -> &[AtomicU64] {
        // SAFETY: valid and aligned for mask + 1 words by the contract of `new`; only accessed atomically.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.mask + 1) }
    }

    fn capacity(&self) -> u64 {
        (self.mask as u64 + 1) * 8
    }

    /// The words of the `len` bytes from byte index `at`, in one or two pieces. `len` is at most the capacity.
    #[inline]
    fn pieces(&self, at: u64, len: usize) -> (&[AtomicU64], &[AtomicU64]) {
        let data = self.data();
        let start = (at / 8) as usize & self.mask;
        let words = len / 8;
        let first = words.min(data.len() - start);
        (&data[start..start + first], &data[..words - first])
    }

    /// Writes whole words at byte index `at`.
    #[inline]
    fn store(&self, at: u64, bytes: &[u8]) {
        let (first, second) = self.pieces(at, bytes.len());
        let (before_wrap, after_wrap) = bytes.as_chunks::<8>().0.split_at(first.len());
        for (words, chunks) in [(first, before_wrap), (second, after_wrap)] {
            for (word, chunk) in words.iter().zip(chunks) {
                word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
            }
        }
    }

    /// Reads whole words at byte index `at`, each exactly once.
    #[inline]
    fn load(&self, at: u64, bytes: &mut [u8]) {
        let (first, second) = self.pieces(at, bytes.len());
        let (before_wrap, after_wrap) = bytes.as_chunks_mut::<8>().0.split_at_mut(first.len());
        for (words, chunks) in [(first, before_wrap), (second, after_wrap)] {
            for (word, chunk) in words.iter().zip(chunks) {
                *chunk = word.load(Ordering::Relaxed).to_le_bytes();
            }
        }
    }
}

/// What the other side has written to the ring makes no sense; the lane is unusable from here on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Corrupt {
    /// An index left the range that it can be in, or is no multiple of 8.
    #[error("ring {which} is {value:#x}, outside {low:#x}..={high:#x} or unaligned")]
    Index { which: &'static str, value: u64, low: u64, high: u64 },
    /// Less than a header was published.
    #[error("ring record of {available} bytes is shorter than a frame header")]
    Short { available: u64 },
    /// The header is none.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The body is longer than what was published.
    #[error("frame length {len} exceeds the {available} bytes that were published")]
    Overrun { len: u32, available: u64 },
}

/// Why a record was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushError {
    /// No room until the consumer's index has reached `head`.
    Full { head: u64 },
    /// The record is larger than the ring, or its length is not the header's.
    TooLarge,
    /// The consumer's index makes no sense.
    Corrupt(Corrupt),
}

fn check(which: &'static str, value: u64, low: u64, high: u64) -> Result<(), Corrupt> {
    if value.is_multiple_of(8) && (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(Corrupt::Index { which, value, low, high })
    }
}

/// The writing end.
pub struct Producer {
    memory: RingMemory,
    tail: u64,
    head_seen: u64,
}

impl Producer {
    /// The writing end of a ring whose shared indices are both 0.
    pub fn new(memory: RingMemory) -> Producer {
        Producer { memory, tail: 0, head_seen: 0 }
    }

    /// Bytes written so far.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// The consumer's index, checked.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn head(&mut self) -> Result<u64, Corrupt> {
        // Acquire: the consumer has read what we are about to overwrite.
        let head = self.memory.head().load(Ordering::Acquire);
        check("head", head, self.head_seen, self.tail)?;
        self.head_seen = head;
        Ok(head)
    }

    /// Writes and publishes one record.
    ///
    /// # Errors
    /// See [`PushError`]; nothing is written then.
    #[inline]
    pub fn try_push(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), PushError> {
        let capacity = self.memory.capacity();
        let record = HEADER_LEN as u64 + body.len() as u64;
        if record > capacity || body.len() != header.len as usize || !body.len().is_multiple_of(8) {
            return Err(PushError::TooLarge);
        }
        let end = self.tail + record;
        if end - self.head_seen > capacity && end - self.head().map_err(PushError::Corrupt)? > capacity {
            return Err(PushError::Full { head: end - capacity });
        }
        self.memory.store(self.tail, &header.encode());
        self.memory.store(self.tail + HEADER_LEN as u64, body);
        self.tail = end;
        // Release: the record is visible to whoever sees the new index.
        self.memory.tail().store(end, Ordering::Release);
        Ok(())
    }
}

/// The reading end.
pub struct Consumer {
    memory: RingMemory,
    head: u64,
    tail_seen: u64,
}

impl Consumer {
    /// The reading end of a ring whose shared indices are both 0.
    pub fn new(memory: RingMemory) -> Consumer {
        Consumer { memory, head: 0, tail_seen: 0 }
    }

    /// Bytes taken so far.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Takes the next record, if there is one: its header, and its body in `body`, which is resized.
    ///
    /// # Errors
    /// What was published makes no sense, or the body is longer than `max_body`. Nothing is taken then.
    #[inline]
    pub fn try_pop(&mut self, max_body: u32, body: &mut Vec<u8>) -> Result<Option<FrameHeader>, Corrupt> {
        if self.tail_seen == self.head {
            // Acquire: the record is visible with the index.
            let tail = self.memory.tail().load(Ordering::Acquire);
            if tail == self.head {
                return Ok(None);
            }
            check("tail", tail, self.head, self.head + self.memory.capacity())?;
            self.tail_seen = tail;
        }
        let available = self.tail_seen - self.head;
        if available < HEADER_LEN as u64 {
            return Err(Corrupt::Short { available });
        }
        let mut raw = [0; HEADER_LEN];
        self.memory.load(self.head, &mut raw);
        let header = FrameHeader::decode(&raw, max_body)?;
        let available = available - HEADER_LEN as u64;
        if u64::from(header.len) > available {
            return Err(Corrupt::Overrun { len: header.len, available });
        }
        body.resize(header.len as usize, 0);
        self.memory.load(self.head + HEADER_LEN as u64, body);
        self.head += HEADER_LEN as u64 + u64::from(header.len);
        // Release: we have read the record before its room is given back.
        self.memory.head().store(self.head, Ordering::Release);
        Ok(Some(header))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
