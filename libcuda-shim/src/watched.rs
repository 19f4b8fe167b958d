#![allow(unsafe_code)]
//! Short copies out of the device whose end the program sees for itself, by looking at where the bytes arrive.
//!
//! The device writes into the lane's staging area, which program and worker share. To learn of it from the worker takes a question to the driver there and an answer from there, more
//! than the bytes themselves do. So the worker only queues the copy, and is asked when it takes long. What a synchronisation does beyond waiting stays right: errors of kernels before the copy keep
//! it from arriving, so that the worker is asked; and where code is loaded that prints, which the driver does while it synchronises, the worker is always asked.
//!
//! Unsafe because the program's memory is reached through its pointers.

use std::sync::atomic::Ordering;

use protocol::handshake::Capabilities;
use protocol::status::{CuResult, Status};

use crate::copy::{Rows, Side};
use crate::generated::wire;
use crate::process::process;
use crate::{sticky, thread};

/// To prepare and to look through the place of longer ones takes as long as the way to the worker and back: measured on an H200, 4 KiB arrive 2 to 4 us sooner, 32 KiB 3 us later.
const LONGEST: u64 = 8 << 10;

/// Copies in a row that arrived too late before the lane stops to watch.
const PATIENCE: u32 = 4;

/// Copies that are not watched then.
const REST: u32 = 64;

/// What a lane has seen of its watched copies.
#[derive(Default)]
pub struct Record {
    missed: u32,
    rest: u32,
}

impl Record {
    /// Whether the next copy is to be watched.
    fn is_hopeful(&mut self) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        true
    }

    /// What came of it.
    fn note(&mut self, seen: bool) {
        self.missed = if seen { 0 } else { self.missed + 1 };
        if self.missed == PATIENCE {
            *self = Record { missed: 0, rest: REST };
        }
    }
}

/// A line out of the device that can be watched.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    dst: usize,
    src: u64,
    len: u64,
}

impl Watched {
    /// The copy, if it can be watched and that is worth it.
    pub fn of(rows: &Rows) -> Result<Option<Watched>, Status> {
        let (Side::Host(dst), Side::Region(src)) = (rows.dst, rows.src) else { return Ok(None) };
        let len = rows.width;
        let fits = rows.height == 1 && len <= LONGEST && (src | len).is_multiple_of(4);
        let state = process();
        // In a capture, and after a fault, each call is to say what came of it.
        if !fits || state.prints.load(Ordering::Relaxed) || state.captures.active() || sticky::any() {
            return Ok(None);
        }
        let able = |session: &crate::session::Session| {
            session.pinned().is_none() && session.capabilities().contains(Capabilities::WATCHED_COPIES)
        };
        if !state.session.get().is_some_and(able) {
            return Ok(None);
        }
        thread::with(|thread| {
            let lane = thread.lane()?;
            let watch = lane.slot_len() as u64 >= len && lane.watched.is_hopeful();
            Ok(watch.then_some(Watched { dst, src, len }))
        })
    }

    /// Carries it out.
    ///
    /// # Safety
    /// The destination is writable for all bytes.
    pub unsafe fn carry_out(self, stream: u64) -> CuResult {
        let (slot, armed) = thread::with(|thread| {
            let lane = thread.lane()?;
            let slot = lane.same_slot()?;
            let armed = lane.arm_slot(&slot, self.len)?;
            Ok((slot, armed))
        })?;
        wire::stage_out_watched(self.src, slot.offset(), self.len, stream)?;
        let seen = thread::with(|thread| {
            let lane = thread.lane()?;
            let seen = lane.watch(&armed)?;
            lane.watched.note(seen);
            Ok(seen)
        })?;
        if !seen {
            wire::cuStreamSynchronize(stream)?;
        }
        thread::with(|thread| {
            // SAFETY: by the caller's promise; the slot has the bytes.
            unsafe {
                thread.lane()?.copy_from_slot(&slot, 0, self.dst as *mut u8, self.len as usize, false)
            }?;
            // "This function may also return error codes from previous, asynchronous launches."
            thread.take_latched().map_or(Ok(()), Err)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_whose_copies_wait_for_long_work_rests_and_tries_again() {
        let mut record = Record::default();
        for seen in [false, false, false, true, false, false, false, false] {
            assert!(record.is_hopeful());
            record.note(seen);
        }
        assert!((0..REST).all(|_| !record.is_hopeful()));
        assert!(record.is_hopeful());
    }
}
