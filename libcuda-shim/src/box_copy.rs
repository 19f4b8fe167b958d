#![allow(unsafe_code)]
//! Copies of boxes with an array on at least one side.
//!
//! As in `copy`: without pageable memory it is one operation, else the bytes go through the slots of the lane's staging area. Such a copy is answered, not
//! posted: the driver judges boxes and arrays at once.
//!
//! Unsafe because the program's memory is reached through its pointers.

use std::collections::VecDeque;

use protocol::copy::{Memory, Place};
use protocol::status::{CuResult, Status};

use crate::chunks::{BoxChunk, Chunk, box_chunks};
use crate::copy::{AHEAD, STAGE_FIRST, Side, settled};
use crate::generated::wire;
use crate::graph_copy_node;
use crate::session::Slot;
use crate::thread;

/// `copy_box`: answered when the bytes have arrived.
const WAIT: u32 = 1;

/// What one side of a copy lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum In {
    /// Memory with bytes from row to row and rows from slice to slice.
    Linear { side: Side, pitch: u64, height: u64 },
    /// An array: handle and mipmap level.
    Array { handle: u64, level: u64 },
}

/// One side of a copy: `x` counts bytes, `y` rows, `z` slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub memory: In,
    pub x: u64,
    pub y: u64,
    pub z: u64,
}

/// Bytes, rows, slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub width: u64,
    pub height: u64,
    pub depth: u64,
}

/// Pageable memory of the program: where the box begins, and the distances in it.
#[derive(Clone, Copy, Debug)]
pub struct Pageable {
    pub start: usize,
    pub pitch: u64,
    pub slice: u64,
}

impl End {
    /// The side as the host is told of it; the program's own memory is not.
    fn place(&self) -> Result<Place, Pageable> {
        let (x, y, z) = (self.x, self.y, self.z);
        Ok(match self.memory {
            In::Array { handle, level } => Place { memory: Memory::Array { handle, level }, x, y, z },
            In::Linear { side: Side::Region(address), pitch, height } => {
                Place { memory: Memory::Linear { address, pitch, height }, x, y, z }
            }
            In::Linear { side: Side::Host(address), pitch, height } => {
                let slice = height.wrapping_mul(pitch);
                let offset = z.wrapping_mul(slice).wrapping_add(y.wrapping_mul(pitch)).wrapping_add(x);
                return Err(Pageable { start: address.wrapping_add(offset as usize), pitch, slice });
            }
        })
    }

    fn is_null(&self) -> bool {
        matches!(self.memory, In::Linear { side: Side::Host(0), .. })
    }
}

/// The part of a place that a chunk covers.
fn part(place: &Place, chunk: &BoxChunk) -> [u8; Place::LEN] {
    Place {
        x: place.x.wrapping_add(chunk.slice.column),
        y: place.y.wrapping_add(chunk.slice.row),
        z: place.z.wrapping_add(chunk.z),
        ..*place
    }
    .encode()
}

impl Pageable {
    /// Address of a row of a chunk.
    fn row(&self, chunk: &BoxChunk, z: u64, row: u64) -> usize {
        let rows = chunk.slice.row.wrapping_add(row).wrapping_mul(self.pitch);
        let slices = chunk.z.wrapping_add(z).wrapping_mul(self.slice);
        let offset = slices.wrapping_add(rows).wrapping_add(chunk.slice.column);
        self.start.wrapping_add(offset as usize)
    }

    /// The pieces of a chunk that lie in one stretch of memory, in their order in a slot: offset in the slot, address, length.
    pub fn stretches(self, chunk: BoxChunk) -> impl Iterator<Item = (u64, usize, usize)> {
        let Chunk { width, rows, .. } = chunk.slice;
        // Rows without gaps are one stretch.
        let (lines, len) = if self.pitch == width { (1, width * rows) } else { (rows, width) };
        (0..chunk.depth).flat_map(move |z| {
            (0..lines).map(move |line| ((z * rows + line) * width, self.row(&chunk, z, line), len as usize))
        })
    }
}

/// Carries a copy out. `wait`: return only when the bytes have arrived; otherwise only what is pageable is waited for, as CUDA allows.
///
/// # Safety
/// Pageable memory of the program is valid for its side.
pub unsafe fn run(dst: &End, src: &End, extent: Extent, stream: u64, wait: bool) -> CuResult {
    thread::require_context()?;
    if dst.is_null() || src.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let Extent { width, height, depth } = extent;
    match (dst.place(), src.place()) {
        (Ok(dst), Ok(src)) => {
            let flags = if wait { WAIT } else { 0 };
            wire::copy_box(Some(&dst.encode()), Some(&src.encode()), width, height, depth, stream, flags)
        }
        (Ok(_), Err(_)) | (Err(_), Ok(_)) if graph_copy_node::capture(dst, src, extent, stream, wait)? => {
            Ok(())
        }
        (Ok(dst), Err(src)) => {
            // SAFETY: by the caller's promise.
            settled(unsafe { stage_in(&dst, src, extent, stream) })
        }
        (Err(dst), Ok(src)) => {
            // SAFETY: by the caller's promise.
            settled(unsafe { stage_out(dst, &src, extent, stream) })
        }
        // No array on either side: not a copy for this module.
        (Err(_), Err(_)) => Err(Status::UNKNOWN),
    }
}

fn slot_len() -> Result<u64, Status> {
    thread::with(|thread| Ok(thread.lane()?.slot_len() as u64))
}

/// # Safety
/// The source is valid for the box.
unsafe fn stage_in(dst: &Place, src: Pageable, extent: Extent, stream: u64) -> CuResult {
    let mut flags = STAGE_FIRST;
    let mut pieces = box_chunks(extent.width, extent.height, extent.depth, slot_len()?).peekable();
    while let Some(chunk) = pieces.next() {
        let slot = thread::with(|thread| {
            let lane = thread.lane()?;
            let slot = lane.next_slot()?;
            for (offset, address, len) in src.stretches(chunk) {
                // SAFETY: the stretch is the program's memory by the caller's promise; the slot has room for the chunk.
                unsafe { lane.copy_into_slot(&slot, offset, address as *const u8, len) }?;
            }
            Ok(slot)
        })?;
        let (place, offset) = (part(dst, &chunk), slot.offset());
        let (width, rows, depth) = (chunk.slice.width, chunk.slice.rows, chunk.depth);
        if pieces.peek().is_some() {
            wire::stage_box_in(Some(&place), offset, width, rows, depth, stream, flags)?;
            thread::with(|thread| thread.lane().map(|lane| lane.slot_in_use(slot)))?;
        } else {
            wire::stage_box_in_last(Some(&place), offset, width, rows, depth, stream, flags)?;
        }
        flags = 0;
    }
    Ok(())
}

/// # Safety
/// The destination is valid for the box.
unsafe fn stage_out(dst: Pageable, src: &Place, extent: Extent, stream: u64) -> CuResult {
    let mut under_way = VecDeque::new();
    // SAFETY: by the caller's promise.
    let result = unsafe { stage_pieces_out(dst, src, extent, stream, &mut under_way) };
    // After an error: what was asked for comes all the same, and the host must not be left with it.
    for (_, slot) in under_way {
        let _ = thread::with(|thread| thread.lane()?.wait_slot(&slot));
    }
    result
}

/// `under_way`: pieces that the host fills, of which none is left after success.
///
/// # Safety
/// The destination is valid for the box.
unsafe fn stage_pieces_out(
    dst: Pageable,
    src: &Place,
    extent: Extent,
    stream: u64,
    under_way: &mut VecDeque<(BoxChunk, Slot)>,
) -> CuResult {
    let mut flags = STAGE_FIRST;
    let mut pieces = box_chunks(extent.width, extent.height, extent.depth, slot_len()?).peekable();
    while let Some(chunk) = pieces.next() {
        if under_way.len() == AHEAD
            && let Some((chunk, slot)) = under_way.pop_front()
        {
            // SAFETY: by the caller's promise.
            unsafe { empty_slot(dst, chunk, slot) }?;
        }
        let slot = thread::with(|thread| {
            let lane = thread.lane()?;
            let slot = lane.next_slot()?;
            lane.fetch_slot(&slot, chunk.slice.width * chunk.slice.rows * chunk.depth)?;
            Ok(slot)
        })?;
        let (place, offset) = (part(src, &chunk), slot.offset());
        let (width, rows, depth) = (chunk.slice.width, chunk.slice.rows, chunk.depth);
        if pieces.peek().is_some() {
            wire::stage_box_out(Some(&place), offset, width, rows, depth, stream, flags)?;
        } else {
            wire::stage_box_out_last(Some(&place), offset, width, rows, depth, stream, flags)?;
        }
        let slot = thread::with(|thread| thread.lane().map(|lane| lane.slot_in_use(slot)))?;
        under_way.push_back((chunk, slot));
        flags = 0;
    }
    while let Some((chunk, slot)) = under_way.pop_front() {
        // SAFETY: by the caller's promise.
        unsafe { empty_slot(dst, chunk, slot) }?;
    }
    Ok(())
}

/// Waits for the host to have filled the slot and copies it to where it belongs.
///
/// # Safety
/// The destination is valid for the box.
unsafe fn empty_slot(dst: Pageable, chunk: BoxChunk, slot: Slot) -> CuResult {
    thread::with(|thread| {
        let lane = thread.lane()?;
        lane.wait_slot(&slot)?;
        for (offset, address, len) in dst.stretches(chunk) {
            // SAFETY: the stretch is the program's memory by the caller's promise; the slot holds the chunk.
            unsafe { lane.copy_from_slot(&slot, offset, address as *mut u8, len, false) }?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Through slots of any size, each byte of a box with gaps comes to its place and no other byte is touched.
        #[test]
        fn stretches_cover_the_box(
            width in 1u64..20,
            height in 1u64..6,
            depth in 1u64..5,
            gap in 0u64..4,
            rows_between in 0u64..3,
            slot_len in 1u64..200,
        ) {
            let (pitch, slice) = (width + gap, (height + rows_between) * (width + gap));
            let memory = Pageable { start: 1000, pitch, slice };
            let mut seen = vec![0u8; (slice * depth) as usize];
            for chunk in box_chunks(width, height, depth, slot_len) {
                let mut filled = 0;
                for (offset, address, len) in memory.stretches(chunk) {
                    prop_assert_eq!(offset, filled, "stretches fill a slot without gaps");
                    filled += len as u64;
                    for byte in address..address + len {
                        seen[byte - 1000] += 1;
                    }
                }
                prop_assert_eq!(filled, chunk.slice.width * chunk.slice.rows * chunk.depth);
            }
            for (index, count) in seen.iter().enumerate() {
                let (row, x) = ((index as u64 % slice) / pitch, index as u64 % pitch);
                prop_assert_eq!(*count, u8::from(row < height && x < width));
            }
        }
    }
}
