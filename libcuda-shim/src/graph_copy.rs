#![allow(unsafe_code)]
//! Copies of pageable memory in graphs: what such a copy is, and its way through a buffer.
//!
//! The host's driver does not see the program's memory. So a copy in a graph has a buffer in the window, and two steps: the driver copies between the
//! buffer and the device, and a function here, which the graph calls as it calls the program's, copies between the buffer and the program's memory. Both
//! happen when the graph runs, as natively. `graph_copy_node` makes nodes of it.
//!
//! Unsafe because the program's memory is reached through its pointers.

use core::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::graph::{NodeParams, NodeType, at};
use protocol::status::Status;

use crate::box_copy::{End, Extent, In, Pageable};
use crate::chunks::{BoxChunk, Chunk};
use crate::copy::{Side, in_window};
use crate::graph_buffers::Buffer;
use crate::types::CUDA_MEMCPY3D;

/// `CU_MEMORYTYPE_*`
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const ARRAY: u32 = 3;
const UNIFIED: u32 = 4;

/// Where the two sides of a copy begin in a node's parameters. Both have the same fields.
const SRC: usize = at::MEMCPY_COPY + offset_of!(CUDA_MEMCPY3D, srcXInBytes);
const DST: usize = at::MEMCPY_COPY + offset_of!(CUDA_MEMCPY3D, dstXInBytes);

/// Fields of a side.
mod field {
    use super::{CUDA_MEMCPY3D, offset_of};

    pub const X: usize = offset_of!(CUDA_MEMCPY3D, srcXInBytes);
    pub const Y: usize = offset_of!(CUDA_MEMCPY3D, srcY);
    pub const Z: usize = offset_of!(CUDA_MEMCPY3D, srcZ);
    pub const LOD: usize = offset_of!(CUDA_MEMCPY3D, srcLOD);
    pub const MEMORY_TYPE: usize = offset_of!(CUDA_MEMCPY3D, srcMemoryType);
    pub const HOST: usize = offset_of!(CUDA_MEMCPY3D, srcHost);
    pub const DEVICE: usize = offset_of!(CUDA_MEMCPY3D, srcDevice);
    pub const ARRAY: usize = offset_of!(CUDA_MEMCPY3D, srcArray);
    pub const PITCH: usize = offset_of!(CUDA_MEMCPY3D, srcPitch);
    pub const HEIGHT: usize = offset_of!(CUDA_MEMCPY3D, srcHeight);
}

/// Fields of the copy.
const WIDTH: usize = at::MEMCPY_COPY + offset_of!(CUDA_MEMCPY3D, WidthInBytes);
const HEIGHT: usize = at::MEMCPY_COPY + offset_of!(CUDA_MEMCPY3D, Height);
const DEPTH: usize = at::MEMCPY_COPY + offset_of!(CUDA_MEMCPY3D, Depth);

/// Which side is the program's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The source.
    In,
    /// The destination.
    Out,
}

impl Direction {
    fn side(self) -> usize {
        match self {
            Direction::In => SRC,
            Direction::Out => DST,
        }
    }
}

fn extent_of(params: &NodeParams) -> Extent {
    Extent { width: params.u64(WIDTH), height: params.u64(HEIGHT), depth: params.u64(DEPTH) }
}

/// The address on a side, if it is one of the program's memory.
fn pageable(params: &NodeParams, side: usize) -> Option<usize> {
    let pointer = match params.u32(side + field::MEMORY_TYPE) {
        HOST => params.u64(side + field::HOST),
        UNIFIED => params.u64(side + field::DEVICE),
        _ => return None,
    };
    match Side::host(pointer as usize) {
        // The host finds what is wrong with NULL.
        Side::Region(_) | Side::Host(0) => None,
        Side::Host(address) => Some(address),
    }
}

/// Names registered memory that the device reaches by its place in the window, which the host knows.
pub fn name_shared_places(params: &mut NodeParams) {
    for side in [SRC, DST] {
        let at = match params.u32(side + field::MEMORY_TYPE) {
            HOST => side + field::HOST,
            UNIFIED => side + field::DEVICE,
            _ => continue,
        };
        if let Side::Region(address) = Side::host(params.u64(at) as usize) {
            params.set_u64(at, address);
        }
    }
}

/// The box in the program's memory.
fn memory_of(params: &NodeParams, side: usize, base: usize) -> Option<Pageable> {
    let or = |value: u64, default: u64| if value == 0 { default } else { value };
    let Extent { width, height, depth } = extent_of(params);
    let pitch = or(params.u64(side + field::PITCH), width);
    let slice_rows = or(params.u64(side + field::HEIGHT), height);
    let [x, y, z] = [field::X, field::Y, field::Z].map(|field| params.u64(side + field));
    let end = x.checked_add(width)?;
    if (height > 1 || depth > 1) && end > pitch || depth > 1 && slice_rows < height {
        return None;
    }
    let place = |x: u64, y: u64, z: u64| {
        let rows = z.checked_mul(slice_rows)?.checked_add(y)?;
        (base as u64).checked_add(rows.checked_mul(pitch)?.checked_add(x)?)
    };
    // No byte of it is beyond the last address.
    place(end, y.checked_add(height - 1)?, z.checked_add(depth - 1)?)?;
    let slice = if depth > 1 { slice_rows.checked_mul(pitch)? } else { 0 };
    Some(Pageable { start: usize::try_from(place(x, y, z)?).ok()?, pitch, slice })
}

/// A copy that wants a buffer.
#[derive(Debug)]
pub struct Plan {
    params: NodeParams,
    direction: Direction,
    memory: Pageable,
    extent: Extent,
    len: u64,
}

impl Plan {
    /// How to carry out the copy of a node with these parameters; none if it has no pageable memory, or nothing to copy, or is no copy.
    ///
    /// # Errors
    /// NOT_SUPPORTED if both sides are pageable; INVALID_VALUE for a box that does not fit its rows.
    pub fn of(params: &NodeParams) -> Result<Option<Plan>, Status> {
        let extent = extent_of(params);
        let Extent { width, height, depth } = extent;
        if params.node_type() != NodeType::MEMCPY || width == 0 || height == 0 || depth == 0 {
            return Ok(None);
        }
        let (direction, base) = match (pageable(params, SRC), pageable(params, DST)) {
            (None, None) => return Ok(None),
            (Some(base), None) => (Direction::In, base),
            (None, Some(base)) => (Direction::Out, base),
            (Some(src), Some(dst)) => {
                crate::log!(
                    Warn,
                    "a copy in a graph from pageable memory ({src:#x}) to pageable memory ({dst:#x}) is not supported"
                );
                return Err(Status::NOT_SUPPORTED);
            }
        };
        let len = width.checked_mul(height).and_then(|len| len.checked_mul(depth));
        let len = len.filter(|len| isize::try_from(*len).is_ok()).ok_or(Status::INVALID_VALUE)?;
        let memory = memory_of(params, direction.side(), base).ok_or(Status::INVALID_VALUE)?;
        Ok(Some(Plan { params: params.clone(), direction, memory, extent, len }))
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Bytes of the buffer.
    pub fn len(&self) -> u64 {
        self.len
    }
}

/// One side of a copy that is captured.
fn set_end(params: &mut NodeParams, side: usize, end: &End) {
    for (field, value) in [(field::X, end.x), (field::Y, end.y), (field::Z, end.z)] {
        params.set_u64(side + field, value);
    }
    match end.memory {
        In::Array { handle, level } => {
            params.set_u32(side + field::MEMORY_TYPE, ARRAY);
            params.set_u64(side + field::ARRAY, handle);
            params.set_u64(side + field::LOD, level);
        }
        In::Linear { side: memory, pitch, height } => {
            let (memory_type, field, address) = match memory {
                Side::Host(address) => (HOST, field::HOST, address as u64),
                Side::Region(address) if in_window(address) => (UNIFIED, field::DEVICE, address),
                Side::Region(address) => (DEVICE, field::DEVICE, address),
            };
            params.set_u32(side + field::MEMORY_TYPE, memory_type);
            params.set_u64(side + field, address);
            params.set_u64(side + field::PITCH, pitch);
            params.set_u64(side + field::HEIGHT, height);
        }
    }
}

/// The parameters of a node that carries out a copy.
pub fn params_of(dst: &End, src: &End, extent: Extent, context: u64) -> NodeParams {
    let mut params = NodeParams::new(NodeType::MEMCPY);
    params.set_u64(at::MEMCPY_CTX, context);
    set_end(&mut params, SRC, src);
    set_end(&mut params, DST, dst);
    for (field, value) in [(WIDTH, extent.width), (HEIGHT, extent.height), (DEPTH, extent.depth)] {
        params.set_u64(field, value);
    }
    params
}

/// A copy of pageable memory that is in a graph.
#[derive(Debug)]
pub struct GraphCopy {
    plan: Plan,
    buffer: Buffer,
    /// The user object that the graphs with this copy hold; 0 before there is one.
    object: AtomicU64,
}

impl GraphCopy {
    pub fn new(plan: Plan, buffer: Buffer) -> GraphCopy {
        GraphCopy { plan, buffer, object: AtomicU64::new(0) }
    }

    pub fn direction(&self) -> Direction {
        self.plan.direction
    }

    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    pub fn object(&self) -> u64 {
        self.object.load(Ordering::Relaxed)
    }

    /// Who asks for it has found the copy in a graph, which comes later.
    pub fn set_object(&self, object: u64) {
        self.object.store(object, Ordering::Relaxed);
    }

    /// The parameters as the program has given them.
    pub fn params(&self) -> &NodeParams {
        &self.plan.params
    }

    /// The parameters for the driver: with the buffer in the place of the program's memory.
    pub fn staged_params(&self) -> NodeParams {
        let mut params = self.plan.params.clone();
        let side = self.plan.direction.side();
        for field in [field::X, field::Y, field::Z, field::LOD, field::DEVICE, field::ARRAY] {
            params.set_u64(side + field, 0);
        }
        params.set_u32(side + field::MEMORY_TYPE, HOST);
        params.set_u64(side + field::HOST, self.buffer.address());
        params.set_u64(side + field::PITCH, self.plan.extent.width);
        params.set_u64(side + field::HEIGHT, self.plan.extent.height);
        params
    }

    /// Copies between the program's memory and the buffer.
    ///
    /// # Safety
    /// The program's memory is valid for the box; the buffer is mapped.
    pub unsafe fn carry_out(&self) {
        let Plan { direction, memory, extent: Extent { width, height, depth }, .. } = self.plan;
        let whole = BoxChunk { z: 0, depth, slice: Chunk { row: 0, column: 0, width, rows: height } };
        for (offset, address, len) in memory.stretches(whole) {
            let own = core::ptr::with_exposed_provenance_mut::<u8>(address);
            let staged = core::ptr::with_exposed_provenance_mut::<u8>(
                self.buffer.address().wrapping_add(offset) as usize,
            );
            // SAFETY: the stretch is the program's memory and the buffer has room for all of them by the caller's promise; they do not overlap, since the
            // program does not know the buffer.
            unsafe {
                match direction {
                    Direction::In => staged.copy_from_nonoverlapping(own, len),
                    Direction::Out => own.copy_from_nonoverlapping(staged, len),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph_buffers::Buffers;
    use proptest::prelude::*;

    fn host_side(params: &mut NodeParams, side: usize, address: u64) {
        params.set_u32(side + field::MEMORY_TYPE, HOST);
        params.set_u64(side + field::HOST, address);
    }

    fn device_side(params: &mut NodeParams, side: usize) {
        params.set_u32(side + field::MEMORY_TYPE, DEVICE);
        params.set_u64(side + field::DEVICE, 0x7000_0000);
    }

    /// A copy into the device, from an address of the program.
    fn line(address: u64, len: u64) -> NodeParams {
        let mut params = NodeParams::new(NodeType::MEMCPY);
        host_side(&mut params, SRC, address);
        device_side(&mut params, DST);
        for (field, value) in [(WIDTH, len), (HEIGHT, 1), (DEPTH, 1)] {
            params.set_u64(field, value);
        }
        params
    }

    #[test]
    fn only_copies_of_pageable_memory_want_a_buffer() {
        let plan = Plan::of(&line(0x1000, 100)).unwrap().unwrap();
        assert_eq!((plan.direction(), plan.len()), (Direction::In, 100));
        assert!(Plan::of(&line(0x1000, 0)).unwrap().is_none(), "no bytes");
        assert!(Plan::of(&line(0, 100)).unwrap().is_none(), "NULL");
        assert!(Plan::of(&NodeParams::new(NodeType::EMPTY)).unwrap().is_none());
        let mut both = line(0x1000, 100);
        host_side(&mut both, DST, 0x2000);
        assert_eq!(Plan::of(&both).unwrap_err(), Status::NOT_SUPPORTED);
        let mut none = line(0x1000, 100);
        device_side(&mut none, SRC);
        assert!(Plan::of(&none).unwrap().is_none());
    }

    #[test]
    fn boxes_that_cannot_be_are_refused() {
        let refused = |params: &NodeParams| Plan::of(params).unwrap_err() == Status::INVALID_VALUE;
        let mut narrow = line(0x1000, 100);
        narrow.set_u64(HEIGHT, 2);
        narrow.set_u64(SRC + field::PITCH, 99);
        assert!(refused(&narrow));
        let mut low = line(0x1000, 100);
        low.set_u64(HEIGHT, 3);
        low.set_u64(DEPTH, 2);
        low.set_u64(SRC + field::HEIGHT, 2);
        assert!(refused(&low));
        assert!(refused(&line(0x1000, u64::MAX)));
        let mut huge = line(0x1000, 1 << 40);
        huge.set_u64(HEIGHT, 1 << 40);
        assert!(refused(&huge));
        let mut beyond = line(0x1000, 1);
        beyond.set_u64(SRC + field::Z, u64::MAX);
        beyond.set_u64(SRC + field::HEIGHT, 2);
        assert!(refused(&beyond));
        assert!(refused(&line(u64::MAX - 3, 5)));
    }

    #[test]
    fn the_driver_is_told_of_the_buffer_and_the_program_of_its_memory() {
        let mut params = line(0x1000, 100);
        params.set_u64(SRC + field::X, 8);
        params.set_u64(SRC + field::PITCH, 200);
        let plan = Plan::of(&params).unwrap().unwrap();
        let buffer = Buffers::default().take(1, 100, |_| Ok(0x9000)).unwrap();
        let copy = GraphCopy::new(plan, buffer);
        assert_eq!(*copy.params(), params);
        let staged = copy.staged_params();
        assert_eq!(staged.u64(SRC + field::HOST), 0x9000);
        assert_eq!((staged.u64(SRC + field::X), staged.u64(SRC + field::PITCH)), (0, 100));
        assert_eq!(staged.bytes(DST, 88), params.bytes(DST, 88));
    }

    #[test]
    fn what_is_captured_has_the_places_of_the_copy() {
        let dst = End { memory: In::Array { handle: 5, level: 2 }, x: 1, y: 2, z: 3 };
        let memory = In::Linear { side: Side::Host(0x1000), pitch: 64, height: 4 };
        let src = End { memory, x: 8, y: 1, z: 0 };
        let params = params_of(&dst, &src, Extent { width: 16, height: 2, depth: 2 }, 7);
        assert_eq!(params.u32(DST + field::MEMORY_TYPE), ARRAY);
        assert_eq!((params.u64(DST + field::ARRAY), params.u64(DST + field::LOD)), (5, 2));
        assert_eq!(params.u64(at::MEMCPY_CTX), 7);
        let plan = Plan::of(&params).unwrap().unwrap();
        assert_eq!((plan.memory.start, plan.memory.pitch, plan.memory.slice), (0x1000 + 64 + 8, 64, 256));
        assert_eq!(plan.len(), 64);
    }

    proptest! {
        /// A box with gaps goes to the buffer without them and comes back to the same place, and no other byte is touched.
        #[test]
        fn boxes_come_through_the_buffer(
            (width, height, depth) in (1usize..20, 1usize..5, 1usize..4),
            (x, y, z) in (0usize..4, 0usize..3, 0usize..3),
            (gap, rows_between) in (0usize..4, 0usize..3),
        ) {
            let (pitch, slice_rows) = (x + width + gap, y + height + rows_between);
            let size = (z + depth) * slice_rows * pitch;
            let source: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            let mut destination = vec![0xff; size];
            let mut staged = vec![0; width * height * depth];
            let address = staged.as_mut_ptr().expose_provenance() as u64;
            let buffer = Buffers::default().take(1, staged.len() as u64, |_| Ok(address)).unwrap();
            let program = [
                (SRC, DST, source.as_ptr().expose_provenance()),
                (DST, SRC, destination.as_mut_ptr().expose_provenance()),
            ];
            for (side, other, address) in program {
                let mut params = NodeParams::new(NodeType::MEMCPY);
                host_side(&mut params, side, address as u64);
                device_side(&mut params, other);
                for (field, value) in [
                    (side + field::X, x), (side + field::Y, y), (side + field::Z, z),
                    (side + field::PITCH, pitch), (side + field::HEIGHT, slice_rows),
                    (WIDTH, width), (HEIGHT, height), (DEPTH, depth),
                ] {
                    params.set_u64(field, value as u64);
                }
                let plan = Plan::of(&params).unwrap().unwrap();
                prop_assert_eq!(plan.len(), staged.len() as u64);
                // SAFETY: both vectors have all bytes of the box, the third is as long as the copy.
                unsafe { GraphCopy::new(plan, buffer).carry_out() };
            }
            let inside = |index: usize| {
                let (row, column) = (index / pitch, index % pitch);
                (x..x + width).contains(&column)
                    && (y..y + height).contains(&(row % slice_rows))
                    && (z..z + depth).contains(&(row / slice_rows))
            };
            for index in 0..size {
                let expected = if inside(index) { source[index] } else { 0xff };
                prop_assert_eq!(destination[index], expected, "byte {}", index);
            }
        }
    }
}
