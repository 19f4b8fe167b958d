#![allow(unsafe_code)]
//! Copies between the program's memory and the device.
//!
//! Both sides of a copy in the region (device or window): one operation, the host moves the bytes. One side in pageable memory: the bytes go through the
//! slots of the lane's staging area, the program filling (or emptying) one slot while the host empties (or fills) another, in stream order.
//!
//! Unsafe because the program's memory is reached through its pointers.

use std::collections::VecDeque;

use protocol::status::{CuResult, Status};

use crate::box_copy::{End, Extent, In};
use crate::chunks::{Chunk, chunks};
use crate::generated::wire;
use crate::graph_copy_node;
use crate::idle;
use crate::lent;
use crate::long_copy::LongCopy;
use crate::process::process;
use crate::session::Slot;
use crate::thread;
use crate::watched::Watched;

/// `stage_in` / `stage_out`: the first piece of a copy, which waits for its turn in the stream.
pub const STAGE_FIRST: u32 = 1;

/// Pieces that the host fills while the program empties one. More would only push each other out of the caches.
pub const AHEAD: usize = 4;

/// Copies longer than this leave nothing useful in a cache of their own size; the C library draws the line for its memcpy in the same place.
pub const LONG: u64 = 8 << 20;

/// A copy into the device that the program waits for need not be waited for if nothing is before it and nothing can be wrong with it: the driver's return when they have
/// taken the bytes, too. Longer ones are lent where that is possible, and their last piece is a small part of them.
const SHORT: u64 = 1 << 20;

/// One side of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// An address of device memory or of the window, or one that the host has to judge.
    Region(u64),
    /// Pageable memory of the program.
    Host(usize),
}

impl Side {
    /// A pointer that the call says is the program's memory: pinned memory lies in the region, and so do the pages of registered memory that the device reaches.
    pub fn host(pointer: usize) -> Side {
        if in_region(pointer as u64) {
            return Side::Region(pointer as u64);
        }
        process().registered.place(pointer).map_or(Side::Host(pointer), Side::Region)
    }

    /// A pointer that the call says is device memory. It may be of page-locked memory as well, which has one address for both.
    pub fn device(pointer: u64) -> Side {
        if is_own_pinned(pointer) {
            return Side::Host(pointer as usize);
        }
        Side::Region(process().registered.place(pointer as usize).unwrap_or(pointer))
    }

    pub fn advance(self, bytes: u64) -> Side {
        match self {
            Side::Region(address) => Side::Region(address.wrapping_add(bytes)),
            Side::Host(address) => Side::Host(address.wrapping_add(bytes as usize)),
        }
    }
}

/// Whether an address is one of device memory or of the window.
pub fn in_region(address: u64) -> bool {
    process().session.get().is_some_and(|session| session.contains(address))
}

/// Whether an address is one of the window, which the program can reach as well.
pub fn in_window(address: u64) -> bool {
    process().session.get().is_some_and(|session| session.in_window(address))
}

/// Whether `len` bytes are device memory of the current context for certain.
fn is_known(address: u64, len: u64) -> bool {
    process().allocations.contains(address, len, thread::current_context())
}

/// Whether an address is one of page-locked memory that the host does not see.
fn is_own_pinned(address: u64) -> bool {
    let pinned = process().session.get().and_then(|session| session.pinned());
    pinned.is_some_and(|pinned| pinned.contains(address))
}

/// `height` rows of `width` bytes, with the distance between rows on each side.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub dst: Side,
    pub dst_pitch: u64,
    pub src: Side,
    pub src_pitch: u64,
    pub width: u64,
    pub height: u64,
}

impl Rows {
    /// A plain block of bytes.
    pub fn line(dst: Side, src: Side, len: u64) -> Rows {
        Rows { dst, dst_pitch: len, src, src_pitch: len, width: len, height: 1 }
    }

    /// The same copy in the simplest form: rows without gaps on both sides are one line.
    fn simplified(self) -> Rows {
        if self.height > 1 && self.dst_pitch == self.width && self.src_pitch == self.width {
            return Rows::line(self.dst, self.src, self.width.saturating_mul(self.height));
        }
        self
    }

    /// What is left of a line after its first `done` bytes.
    fn rest(self, done: u64) -> Rows {
        if done == 0 {
            return self;
        }
        Rows::line(self.dst.advance(done), self.src.advance(done), self.width - done)
    }

    /// The part of both sides that a chunk covers.
    fn part(&self, chunk: &Chunk) -> (Side, Side) {
        (
            self.dst.advance(chunk.row.wrapping_mul(self.dst_pitch).wrapping_add(chunk.column)),
            self.src.advance(chunk.row.wrapping_mul(self.src_pitch).wrapping_add(chunk.column)),
        )
    }
}

/// Makes the copy a part of the graph that the stream is capturing, if it is.
fn captured(rows: &Rows, stream: u64, wait: bool) -> Result<bool, Status> {
    if !process().captures.active() {
        return Ok(false);
    }
    let end = |side, pitch| End { memory: In::Linear { side, pitch, height: rows.height }, x: 0, y: 0, z: 0 };
    let (dst, src) = (end(rows.dst, rows.dst_pitch), end(rows.src, rows.src_pitch));
    graph_copy_node::capture(
        &dst,
        &src,
        Extent { width: rows.width, height: rows.height, depth: 1 },
        stream,
        wait,
    )
}

/// Carries a copy out.
///
/// `wait`: return only when the bytes have arrived (the synchronous calls); otherwise only what is pageable is waited for, as CUDA allows.
///
/// # Safety
/// The [`Side::Host`] side is valid for all rows.
pub unsafe fn run(rows: Rows, stream: u64, wait: bool) -> CuResult {
    thread::require_context()?;
    if rows.width == 0 || rows.height == 0 {
        return Ok(());
    }
    let rows = rows.simplified();
    match (rows.dst, rows.src) {
        (Side::Host(0), _) | (_, Side::Host(0)) => Err(Status::INVALID_VALUE),
        (Side::Region(dst), Side::Region(src)) => {
            if rows.height == 1 {
                wire::copy(dst, src, rows.width, stream)?;
            } else {
                wire::copy_2d(dst, rows.dst_pitch, src, rows.src_pitch, rows.width, rows.height, stream)?;
            }
            if wait { wire::cuStreamSynchronize(stream) } else { Ok(()) }
        }
        (Side::Region(dst), Side::Host(_)) => {
            if captured(&rows, stream, wait)? {
                return Ok(());
            }
            let certain = rows.height == 1 && rows.width <= SHORT && is_known(dst, rows.width);
            let quiet = if wait && certain { idle::quiet(stream)? } else { None };
            if let Some(quiet) = quiet {
                // SAFETY: by the caller's promise.
                settled(unsafe { stage_in(&rows, stream, false) })?;
                return idle::copied(stream, quiet);
            }
            let before = thread::with(|thread| Ok(thread.stamp()))?;
            // Where nothing is waited for, the program's bytes must not wait for the stream's earlier work either.
            // SAFETY: by the caller's promise.
            let done = if wait { unsafe { lent::copy(&rows, stream) }? } else { 0 };
            // SAFETY: by the caller's promise.
            settled(unsafe { stage_in(&rows.rest(done), stream, wait) })?;
            if wait { idle::synchronised(stream, before) } else { Ok(()) }
        }
        (Side::Host(_), Side::Region(_)) => {
            if captured(&rows, stream, wait)? {
                return Ok(());
            }
            let before = thread::with(|thread| Ok(thread.stamp()))?;
            if let Some(watched) = Watched::of(&rows)? {
                // SAFETY: by the caller's promise.
                settled(unsafe { watched.carry_out(stream) })?;
                return idle::seen(stream, before);
            }
            // SAFETY: by the caller's promise.
            let done = unsafe { lent::copy(&rows, stream) }?;
            // SAFETY: by the caller's promise.
            settled(unsafe { stage_out(&rows.rest(done), stream) })?;
            idle::synchronised(stream, before)
        }
        (Side::Host(dst), Side::Host(src)) => {
            wire::cuStreamSynchronize(stream)?;
            for row in 0..rows.height as usize {
                let (dst, src) = (dst + row * rows.dst_pitch as usize, src + row * rows.src_pitch as usize);
                // SAFETY: both are the program's memory by the caller's promise; `copy` allows them to overlap.
                unsafe { core::ptr::copy(src as *const u8, dst as *mut u8, rows.width as usize) };
            }
            Ok(())
        }
    }
}

/// The result of a copy in pieces: after an error the others' errors are not left to a later call.
pub fn settled(result: CuResult) -> CuResult {
    if result.is_err() {
        thread::with(|thread| thread.lane()?.settle())?;
    }
    result
}

pub fn slot_len() -> Result<u64, Status> {
    thread::with(|thread| Ok(thread.lane()?.slot_len() as u64))
}

/// The program's bytes have been taken when this returns; they have arrived if `wait`.
///
/// # Safety
/// The source is valid for all rows.
unsafe fn stage_in(rows: &Rows, stream: u64, wait: bool) -> CuResult {
    if let Some(long) = LongCopy::of(rows)? {
        // SAFETY: by the caller's promise.
        unsafe { long.stage_in(stream, wait) }?;
        return if wait { Ok(()) } else { announced() };
    }
    let mut flags = STAGE_FIRST;
    let mut pieces = chunks(rows.width, rows.height, slot_len()?).peekable();
    while let Some(chunk) = pieces.next() {
        let (Side::Region(dst), Side::Host(src)) = rows.part(&chunk) else { return Err(Status::UNKNOWN) };
        let slot = thread::with(|thread| {
            let lane = thread.lane()?;
            let slot = lane.next_slot()?;
            for row in 0..chunk.rows {
                let src = (src + (row * rows.src_pitch) as usize) as *const u8;
                // SAFETY: the row is the program's memory by the caller's promise; the slot has room for the chunk.
                unsafe { lane.copy_into_slot(&slot, row * chunk.width, src, chunk.width as usize) }?;
            }
            Ok(slot)
        })?;
        let (offset, width, height) = (slot.offset(), chunk.width, chunk.rows);
        if !wait || pieces.peek().is_some() {
            wire::stage_in(dst, rows.dst_pitch, offset, width, height, stream, flags)?;
            thread::with(|thread| thread.lane().map(|lane| lane.slot_in_use(slot)))?;
        } else {
            wire::stage_in_last(dst, rows.dst_pitch, offset, width, height, stream, flags)?;
        }
        flags = 0;
    }
    if wait { Ok(()) } else { announced() }
}

/// Pieces are not announced to other threads one by one.
fn announced() -> CuResult {
    thread::with(|thread| {
        thread.posted();
        Ok(())
    })
}

/// # Safety
/// The destination is valid for all rows.
unsafe fn stage_out(rows: &Rows, stream: u64) -> CuResult {
    if let Some(long) = LongCopy::of(rows)? {
        // SAFETY: by the caller's promise.
        return unsafe { long.stage_out(stream) };
    }
    let mut under_way = VecDeque::new();
    // SAFETY: by the caller's promise.
    let result = unsafe { stage_pieces_out(rows, stream, &mut under_way) };
    // After an error: what was asked for comes all the same, and the host must not be left with it.
    for (_, slot) in under_way {
        let _ = thread::with(|thread| thread.lane()?.wait_slot(&slot));
    }
    result
}

/// `under_way`: pieces that the host fills, of which none is left after success.
///
/// # Safety
/// The destination is valid for all rows.
unsafe fn stage_pieces_out(rows: &Rows, stream: u64, under_way: &mut VecDeque<(Chunk, Slot)>) -> CuResult {
    let mut flags = STAGE_FIRST;
    let mut pieces = chunks(rows.width, rows.height, slot_len()?).peekable();
    while let Some(chunk) = pieces.next() {
        let Side::Region(src) = rows.part(&chunk).1 else { return Err(Status::UNKNOWN) };
        if under_way.len() == AHEAD
            && let Some((chunk, slot)) = under_way.pop_front()
        {
            // SAFETY: by the caller's promise.
            unsafe { empty_slot(rows, &chunk, slot) }?;
        }
        let slot = thread::with(|thread| {
            let lane = thread.lane()?;
            let slot = lane.next_slot()?;
            lane.fetch_slot(&slot, chunk.width * chunk.rows)?;
            Ok(slot)
        })?;
        let (offset, width, height) = (slot.offset(), chunk.width, chunk.rows);
        if pieces.peek().is_some() {
            wire::stage_out(src, rows.src_pitch, offset, width, height, stream, flags)?;
        } else {
            wire::stage_out_last(src, rows.src_pitch, offset, width, height, stream, flags)?;
        }
        let slot = thread::with(|thread| thread.lane().map(|lane| lane.slot_in_use(slot)))?;
        under_way.push_back((chunk, slot));
        flags = 0;
    }
    while let Some((chunk, slot)) = under_way.pop_front() {
        // SAFETY: by the caller's promise.
        unsafe { empty_slot(rows, &chunk, slot) }?;
    }
    Ok(())
}

/// Waits for the host to have filled the slot and copies it to where it belongs.
///
/// # Safety
/// The destination is valid for all rows.
unsafe fn empty_slot(rows: &Rows, chunk: &Chunk, slot: Slot) -> CuResult {
    let Side::Host(dst) = rows.part(chunk).0 else { return Err(Status::UNKNOWN) };
    let long = rows.width.saturating_mul(rows.height) > LONG;
    thread::with(|thread| {
        let lane = thread.lane()?;
        lane.wait_slot(&slot)?;
        for row in 0..chunk.rows {
            let dst = (dst + (row * rows.dst_pitch) as usize) as *mut u8;
            // SAFETY: the row is the program's memory by the caller's promise; the slot holds the chunk.
            unsafe { lane.copy_from_slot(&slot, row * chunk.width, dst, chunk.width as usize, long) }?;
        }
        Ok(())
    })
}
