#![allow(unsafe_code)]
//! Long copies of pageable memory through the staging area: several threads fill or empty slots, the program's own sends the requests.
//!
//! One thread copies at some 10 GB/s, a device takes and gives five times that. The threads live as long as the copy: nothing of this library stays in the program for it, and a fork in between finds
//! nothing to mend. Unsafe because the program's memory is reached through its pointers.

use core::sync::atomic::{AtomicPtr, Ordering};
use std::collections::VecDeque;
use std::sync::OnceLock;

use protocol::lane::SLOTS;
use protocol::status::{CuResult, Status};
use transport::{movers, streaming};

use crate::background::Blocked;
use crate::copy::{LONG, Rows, STAGE_FIRST, Side, slot_len};
use crate::generated::wire;
use crate::process::process;
use crate::session::Slot;
use crate::thread;

/// Slots of a piece. What a piece costs the host does not depend on its length, and is about what one slot takes on its way.
const SLOTS_OF_PIECE: usize = 2;

/// Pieces that the staging area has room for.
const AREA: usize = SLOTS as usize / SLOTS_OF_PIECE;

/// Pieces for each thread: the one that it fills or empties, and what is ready for it or under way meanwhile.
const EACH: usize = 2;

/// Processors that the threads of a copy may take: `CUDA_SHIM_COPY_THREADS`, or half of those that the program may use, as its worker and its other threads are there too.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| {
        let asked = std::env::var("CUDA_SHIM_COPY_THREADS").ok().and_then(|text| text.parse().ok());
        asked.unwrap_or_else(|| movers::processors() / 2)
    })
}

/// A line between pageable memory and the device, in pieces.
pub struct LongCopy {
    device: u64,
    host: usize,
    len: u64,
    piece: u64,
    helpers: usize,
    places: [AtomicPtr<u8>; AREA],
}

impl LongCopy {
    /// The copy, if threads are worth it: they need shared memory.
    pub fn of(rows: &Rows) -> Result<Option<LongCopy>, Status> {
        let (device, host) = match (rows.dst, rows.src) {
            (Side::Region(device), Side::Host(host)) | (Side::Host(host), Side::Region(device)) => {
                (device, host)
            }
            _ => return Ok(None),
        };
        let shared = process().session.get().is_some_and(|session| session.pinned().is_none());
        let helpers = movers::helpers(rows.width, processors());
        if rows.height != 1 || !shared || helpers == 0 {
            return Ok(None);
        }
        crate::log!(Debug, "copy of {} bytes by {} threads", rows.width, helpers + 1);
        let piece = slot_len()?.max(1) * SLOTS_OF_PIECE as u64;
        Ok(Some(LongCopy { device, host, len: rows.width, piece, helpers, places: Default::default() }))
    }

    fn pieces(&self) -> usize {
        self.len.div_ceil(self.piece) as usize
    }

    fn offset(&self, index: usize) -> u64 {
        index as u64 * self.piece
    }

    fn len_of(&self, index: usize) -> u64 {
        self.piece.min(self.len - self.offset(index))
    }

    /// The program's bytes of a piece.
    fn host(&self, index: usize) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.host + self.offset(index) as usize)
    }

    /// Where a piece's slot is, once that has been said.
    fn place(&self, index: usize) -> &AtomicPtr<u8> {
        &self.places[index % AREA]
    }

    /// Pieces in hand at the same time: their slots do not come round to those that threads are still at.
    fn in_hand(&self) -> usize {
        (EACH * (self.helpers + 1)).min(AREA / 2)
    }

    /// As the copy in one thread.
    ///
    /// # Safety
    /// The source is valid for all bytes.
    pub unsafe fn stage_in(&self, stream: u64, wait: bool) -> CuResult {
        let fill = |index| {
            let to = self.place(index).load(Ordering::Relaxed);
            // SAFETY: the source is the program's memory by the caller's promise. The place is that of a slot which nobody else uses until the piece is sent, and
            // was said before the piece was allowed.
            unsafe { core::ptr::copy_nonoverlapping(self.host(index), to, self.len_of(index) as usize) };
            Ok(())
        };
        let blocked = Blocked::but_faults();
        movers::run(self.pieces(), self.helpers, &fill, |moving| {
            drop(blocked);
            let mut slots = VecDeque::with_capacity(self.in_hand());
            let mut begun = 0;
            for index in 0..self.pieces() {
                while begun < self.pieces() && slots.len() < self.in_hand() {
                    slots.push_back(self.next_slot(begun)?);
                    begun += 1;
                    moving.allow(begun);
                }
                moving.wait(index).map_err(|_| Status::UNKNOWN)?;
                let Some(slot) = slots.pop_front() else { return Err(Status::UNKNOWN) };
                let (dst, len) = (self.device + self.offset(index), self.len_of(index));
                let flags = if index == 0 { STAGE_FIRST } else { 0 };
                if wait && index + 1 == self.pieces() {
                    wire::stage_in_last(dst, len, slot.offset(), len, 1, stream, flags)?;
                } else {
                    wire::stage_in(dst, len, slot.offset(), len, 1, stream, flags)?;
                    thread::with(|thread| thread.lane().map(|lane| lane.slot_in_use(slot)))?;
                }
            }
            Ok(())
        })
    }

    /// As the copy in one thread.
    ///
    /// # Safety
    /// The destination is valid for all bytes.
    pub unsafe fn stage_out(&self, stream: u64) -> CuResult {
        let empty = |index| {
            let from = self.place(index).load(Ordering::Relaxed);
            let len = self.len_of(index) as usize;
            // SAFETY: the destination is the program's memory by the caller's promise. The place is that of a slot which has the piece until it has been moved, and
            // was said before the piece was allowed.
            unsafe {
                if self.len > LONG {
                    streaming::copy(from, self.host(index), len);
                } else {
                    core::ptr::copy_nonoverlapping(from, self.host(index), len);
                }
            }
            Ok(())
        };
        let blocked = Blocked::but_faults();
        let mut under_way = VecDeque::with_capacity(self.in_hand());
        let result = movers::run(self.pieces(), self.helpers, &empty, |moving| {
            drop(blocked);
            let mut sent = 0;
            for index in 0..self.pieces() {
                while sent < self.pieces() && under_way.len() < self.in_hand() {
                    // The slot has been emptied of its piece before.
                    sent.checked_sub(AREA)
                        .map_or(Ok(()), |before| moving.wait(before))
                        .map_err(|_| Status::UNKNOWN)?;
                    under_way.push_back(self.ask(sent, stream)?);
                    sent += 1;
                }
                let Some(slot) = under_way.pop_front() else { return Err(Status::UNKNOWN) };
                thread::with(|thread| thread.lane()?.wait_slot(&slot))?;
                moving.allow(index + 1);
            }
            let last = self.pieces().saturating_sub(AREA)..self.pieces();
            last.rev().try_for_each(|index| moving.wait(index)).map_err(|_| Status::UNKNOWN)
        });
        // After an error: what was asked for comes all the same, and the host must not be left with it.
        for slot in under_way {
            let _ = thread::with(|thread| thread.lane()?.wait_slot(&slot));
        }
        result
    }

    /// Sends the request for a piece.
    fn ask(&self, index: usize, stream: u64) -> Result<Slot, Status> {
        let slot = self.next_slot(index)?;
        let (src, len) = (self.device + self.offset(index), self.len_of(index));
        let flags = if index == 0 { STAGE_FIRST } else { 0 };
        if index + 1 == self.pieces() {
            wire::stage_out_last(src, len, slot.offset(), len, 1, stream, flags)?;
        } else {
            wire::stage_out(src, len, slot.offset(), len, 1, stream, flags)?;
        }
        thread::with(|thread| thread.lane().map(|lane| lane.slot_in_use(slot)))
    }

    /// A slot that nobody uses, which becomes a piece's.
    fn next_slot(&self, index: usize) -> Result<Slot, Status> {
        thread::with(|thread| {
            let lane = thread.lane()?;
            let slot = lane.next_slots(SLOTS_OF_PIECE)?;
            let place = lane.place_of(&slot, self.len_of(index))?;
            self.place(index).store(place.as_ptr(), Ordering::Relaxed);
            Ok(slot)
        })
    }
}
