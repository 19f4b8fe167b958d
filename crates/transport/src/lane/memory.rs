//! A lane's block in the window.
#![allow(unsafe_code)] // Makes ring ends from addresses in the window.

use std::ptr::NonNull;
use std::sync::Arc;

use protocol::LanePlacement;
use protocol::lane::{PAGE_LEN, SLOTS, words};

use crate::error::Error;
use crate::ring::RingMemory;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::window::{Window, check_bounds, copy_shared};

/// How far a lane is, for threads that do not own it.
#[derive(Clone)]
pub struct RingProgress {
    memory: Arc<LaneMemory>,
}

impl RingProgress {
    /// As [`GuestLane::completed`](crate::GuestLane::completed).
    #[inline]
    pub fn completed(&self) -> u64 {
        self.memory.word(words::COMPLETED).load(Ordering::Acquire)
    }
}

/// Names the parts of the block; keeps the window mapped.
pub(crate) struct LaneMemory {
    window: Arc<Window>,
    placement: LanePlacement,
    /// The header page.
    page: NonNull<u8>,
    staging: NonNull<u8>,
}

// SAFETY: the pointers name parts of the mapping that `window` keeps alive; they are used for atomics and raw copies only.
unsafe impl Send for LaneMemory {}
// SAFETY: as above; `&LaneMemory` gives references to atomics and raw pointers only.
unsafe impl Sync for LaneMemory {}

impl LaneMemory {
    /// Checks the placement.
    pub(crate) fn new(window: Arc<Window>, placement: LanePlacement) -> Result<LaneMemory, Error> {
        if !placement.is_valid(window.len()) {
            return Err(Error::Placement(placement));
        }
        let page = window.pointer(placement.offset, PAGE_LEN)?;
        let staging = window.pointer(placement.staging(), placement.staging_len.into())?;
        Ok(LaneMemory { window, placement, page, staging })
    }

    /// Sets all shared words to 0. Only for the worker, before it tells the program where the block is.
    pub(crate) fn reset(&self) {
        for offset in [
            words::REQUEST_TAIL,
            words::REQUEST_HEAD,
            words::REPLY_TAIL,
            words::REPLY_HEAD,
            words::GUEST_PARKED,
            words::HOST_PARKED,
            words::COMPLETED,
            words::LATCHED,
        ] {
            self.word(offset).store(0, Ordering::Release);
        }
        for slot in 0..SLOTS {
            self.slot(slot).store(0, Ordering::Release);
        }
    }

    /// The word of a slot of the staging area.
    #[inline]
    pub(crate) fn slot(&self, slot: u64) -> &AtomicU64 {
        self.word(words::SLOTS + slot % SLOTS * 8)
    }

    /// The lane's progress, which keeps the block's memory mapped.
    pub(crate) fn progress(self: &Arc<Self>) -> RingProgress {
        RingProgress { memory: Arc::clone(self) }
    }

    /// A word of the header page.
    #[inline]
    pub(crate) fn word(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: every constant in `words` (and the words of the slots) is a multiple of 8 below PAGE_LEN, and `page` has PAGE_LEN bytes, page-aligned, mapped while `self.window` lives.
        unsafe { self.page.add(offset as usize).cast::<AtomicU64>().as_ref() }
    }

    fn ring(&self, tail: u64, head: u64, data: u64, len: u32) -> Result<RingMemory, Error> {
        let data = self.window.pointer(data, len.into())?.cast();
        let words = len as usize / 8;
        // SAFETY: all parts lie in the window, aligned because the block is page-aligned; each end of a lane keeps its LaneMemory, and with it the mapping,
        // beside the ring; nothing accesses rings otherwise than through `ring`.
        Ok(unsafe { RingMemory::new(self.word(tail).into(), self.word(head).into(), data, words) })
    }

    pub(crate) fn request_ring(&self) -> Result<RingMemory, Error> {
        let p = &self.placement;
        self.ring(words::REQUEST_TAIL, words::REQUEST_HEAD, p.request_ring(), p.request_ring_len)
    }

    pub(crate) fn reply_ring(&self) -> Result<RingMemory, Error> {
        let p = &self.placement;
        self.ring(words::REPLY_TAIL, words::REPLY_HEAD, p.reply_ring(), p.reply_ring_len)
    }

    pub(crate) fn staging_len(&self) -> u64 {
        self.placement.staging_len.into()
    }

    /// Window offset of the staging area.
    pub(crate) fn staging_window_offset(&self) -> u64 {
        self.placement.staging()
    }

    pub(crate) fn staging(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Error> {
        check_bounds(offset, len, self.staging_len())?;
        // SAFETY: offset <= staging_len, and `staging` has that many bytes (checked against the window in `new`).
        Ok(unsafe { self.staging.add(offset as usize) })
    }

    /// The words of a part of the staging area, which are at multiples of 4.
    pub(crate) fn staging_words(&self, offset: u64, len: u64) -> Result<&[AtomicU32], Error> {
        if !(offset | len).is_multiple_of(4) {
            return Err(Error::Bounds { offset, len, area_len: self.staging_len() });
        }
        let at = self.staging(offset, len)?;
        // SAFETY: `len` bytes of the mapping that `self.window` keeps, aligned because the staging area is page-aligned; the other side writes there at any time, and atomics are the
        // only references to the memory that are ever made.
        Ok(unsafe { std::slice::from_raw_parts(at.cast::<AtomicU32>().as_ptr(), len as usize / 4) })
    }

    /// # Safety
    /// `from` is readable for `len` bytes and does not overlap the staging area.
    pub(crate) unsafe fn copy_in(&self, offset: u64, from: *const u8, len: usize) -> Result<(), Error> {
        let to = self.staging(offset, len as u64)?;
        // SAFETY: `to` has `len` bytes; `from` by the caller's contract.
        unsafe { copy_shared(from, to.as_ptr(), len) };
        Ok(())
    }

    /// # Safety
    /// `to` is writable for `len` bytes and does not overlap the staging area.
    pub(crate) unsafe fn copy_out(&self, offset: u64, to: *mut u8, len: usize) -> Result<(), Error> {
        let from = self.staging(offset, len as u64)?;
        // SAFETY: `from` has `len` bytes; `to` by the caller's contract.
        unsafe { copy_shared(from.as_ptr(), to, len) };
        Ok(())
    }

    /// As `copy_out`, past the cache.
    ///
    /// # Safety
    /// As `copy_out`.
    pub(crate) unsafe fn copy_out_streaming(
        &self,
        offset: u64,
        to: *mut u8,
        len: usize,
    ) -> Result<(), Error> {
        let from = self.staging(offset, len as u64)?;
        // SAFETY: `from` has `len` bytes; `to` by the caller's contract.
        unsafe { crate::streaming::copy(from.as_ptr(), to, len) };
        Ok(())
    }
}
