#![allow(unsafe_code)]
//! Copies that may have an array on a side. Unsafe because the program's memory is reached through its pointers.

use core::ffi::{c_ulonglong, c_void};

use protocol::status::{CuResult, Status};

use crate::box_copy::{self, End, Extent, In};
use crate::copy::{self, Rows, Side};
use crate::custom::context::require_init;
use crate::custom::memcpy::{batch_stream, either, tell_failed};
use crate::generated::wire;
use crate::pointer::input;
use crate::types::*;

/// Any bytes of an array of one dimension.
fn in_array(array: CUarray, offset: usize) -> End {
    End { memory: In::Array { handle: array as u64, level: 0 }, x: offset as u64, y: 0, z: 0 }
}

fn in_host(pointer: *const c_void, len: usize) -> End {
    let memory = In::Linear { side: Side::host(pointer.addr()), pitch: len as u64, height: 1 };
    End { memory, x: 0, y: 0, z: 0 }
}

/// # Safety
/// Pageable memory of the program is valid for `len` bytes.
unsafe fn line(dst: End, src: End, len: usize, stream: CUstream, wait: bool) -> CuResult {
    require_init()?;
    let extent = Extent { width: len as u64, height: 1, depth: 1 };
    // SAFETY: by the caller's promise.
    unsafe { box_copy::run(&dst, &src, extent, stream as u64, wait) }
}

pub unsafe fn cuMemcpyHtoA_v2(
    array: CUarray,
    offset: usize,
    host: *const c_void,
    len: usize,
    default_stream: CUstream,
) -> CuResult {
    // SAFETY: the caller vouches for its memory.
    unsafe { line(in_array(array, offset), in_host(host, len), len, default_stream, true) }
}

pub unsafe fn cuMemcpyAtoH_v2(
    host: *mut c_void,
    array: CUarray,
    offset: usize,
    len: usize,
    default_stream: CUstream,
) -> CuResult {
    // SAFETY: the caller vouches for its memory.
    unsafe { line(in_host(host, len), in_array(array, offset), len, default_stream, true) }
}

pub unsafe fn cuMemcpyHtoAAsync_v2(
    array: CUarray,
    offset: usize,
    host: *const c_void,
    len: usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller vouches for its memory.
    unsafe { line(in_array(array, offset), in_host(host, len), len, stream, false) }
}

pub unsafe fn cuMemcpyAtoHAsync_v2(
    host: *mut c_void,
    array: CUarray,
    offset: usize,
    len: usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller vouches for its memory.
    unsafe { line(in_host(host, len), in_array(array, offset), len, stream, false) }
}

// Batches of boxes.

const OPERAND_POINTER: u32 = 1;
const OPERAND_ARRAY: u32 = 2;

/// Bytes of an element of an array.
fn element_len(array: u64) -> Result<u64, Status> {
    let mut descriptor = [0; 40];
    wire::cuArray3DGetDescriptor_v2(Some(&mut descriptor), array)?;
    let (words, _) = descriptor.as_chunks::<4>();
    // Width, height and depth take the first 24 bytes.
    let (format, channels) = (u32::from_le_bytes(words[6]), u64::from(u32::from_le_bytes(words[7])));
    Ok(match format {
        0x01 | 0x08 => channels,
        0x02 | 0x09 | 0x10 => 2 * channels,
        0x03 | 0x0a | 0x20 => 4 * channels,
        0xc0 | 0xc6 => 1,
        0xc1 | 0xc3 | 0xc7 | 0xc9 => 2,
        0xc2 | 0xc4 | 0xc8 | 0xca | 0x50 => 4,
        0xc5 | 0xcb => 8,
        // Compressed and planar formats have no elements of one size.
        _ => return Err(Status::INVALID_VALUE),
    })
}

/// An element's size, which one of the sides says if it is an array.
fn unit(op: &CUDA_MEMCPY3D_BATCH_OP) -> Result<u64, Status> {
    for operand in [&op.dst, &op.src] {
        if operand.type_ == OPERAND_ARRAY {
            return element_len(operand.op[0]);
        }
    }
    Ok(1)
}

fn end(operand: &CUmemcpy3DOperand, extent: &[usize; 3], unit: u64) -> Result<End, Status> {
    let bytes = |elements: u64| elements.checked_mul(unit).ok_or(Status::INVALID_VALUE);
    let [first, second, third, fourth] = operand.op;
    Ok(match operand.type_ {
        OPERAND_POINTER => {
            let (width, rows) = (extent[0] as u64, extent[1] as u64);
            let or = |given: u64, packed: u64| match given {
                0 => Ok(packed),
                given if given < packed => Err(Status::INVALID_VALUE),
                given => Ok(given),
            };
            let (pitch, height) = (bytes(or(second, width)?)?, or(third, rows)?);
            End { memory: In::Linear { side: either(first), pitch, height }, x: 0, y: 0, z: 0 }
        }
        OPERAND_ARRAY => {
            End { memory: In::Array { handle: first, level: 0 }, x: bytes(second)?, y: third, z: fourth }
        }
        _ => return Err(Status::INVALID_VALUE),
    })
}

/// `CU_MEMCPY_SRC_ACCESS_ORDER_STREAM` to `_ANY`
const ACCESS_ORDERS: core::ops::RangeInclusive<u32> = 1..=3;

/// # Safety
/// Pageable memory of the program is valid for its side.
unsafe fn one(op: &CUDA_MEMCPY3D_BATCH_OP, stream: CUstream) -> CuResult {
    if !ACCESS_ORDERS.contains(&op.srcAccessOrder) || op.extent.contains(&0) {
        return Err(Status::INVALID_VALUE);
    }
    let unit = unit(op)?;
    let (dst, src) = (end(&op.dst, &op.extent, unit)?, end(&op.src, &op.extent, unit)?);
    let width = (op.extent[0] as u64).checked_mul(unit).ok_or(Status::INVALID_VALUE)?;
    let (height, depth) = (op.extent[1] as u64, op.extent[2] as u64);
    let (
        In::Linear { side: to, pitch: dst_pitch, height: dst_height },
        In::Linear { side: from, pitch: src_pitch, height: src_height },
    ) = (dst.memory, src.memory)
    else {
        // SAFETY: by the caller's promise.
        return unsafe { box_copy::run(&dst, &src, Extent { width, height, depth }, stream as u64, false) };
    };
    for z in 0..depth {
        let rows = Rows {
            dst: to.advance(z.wrapping_mul(dst_height).wrapping_mul(dst_pitch)),
            dst_pitch,
            src: from.advance(z.wrapping_mul(src_height).wrapping_mul(src_pitch)),
            src_pitch,
            width,
            height,
        };
        // SAFETY: by the caller's promise.
        unsafe { copy::run(rows, stream as u64, false) }?;
    }
    Ok(())
}

/// Returns the index of the copy that failed.
///
/// # Safety
/// `ops` is an array of `count` elements, or NULL; their pageable memory is valid.
unsafe fn batch(
    count: usize,
    ops: *const CUDA_MEMCPY3D_BATCH_OP,
    flags: c_ulonglong,
    stream: CUstream,
) -> Result<(), (usize, Status)> {
    // What is wrong with the call as a whole has no index.
    let whole = |status| (usize::MAX, status);
    require_init().map_err(whole)?;
    if count == 0 || ops.is_null() || flags != 0 {
        return Err(whole(Status::INVALID_VALUE));
    }
    batch_stream(stream).map_err(whole)?;
    for index in 0..count {
        // SAFETY: an array of `count` elements by the caller's promise.
        let op = unsafe { ops.add(index).read_unaligned() };
        // SAFETY: by the caller's promise.
        unsafe { one(&op, stream) }.map_err(|status| (index, status))?;
    }
    Ok(())
}

pub unsafe fn cuMemcpy3DBatchAsync(
    count: usize,
    ops: *mut CUDA_MEMCPY3D_BATCH_OP,
    failed: *mut usize,
    flags: c_ulonglong,
    stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { tell_failed(failed, batch(count, ops, flags, stream)) }
}

pub unsafe fn cuMemcpy3DBatchAsync_v2(
    count: usize,
    ops: *mut CUDA_MEMCPY3D_BATCH_OP,
    flags: c_ulonglong,
    stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { batch(count, ops, flags, stream) }.map_err(|(_, status)| status)
}

pub unsafe fn cuMemcpy3DWithAttributesAsync(
    op: *mut CUDA_MEMCPY3D_BATCH_OP,
    flags: c_ulonglong,
    stream: CUstream,
) -> CuResult {
    require_init()?;
    if flags != 0 {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: the caller passes a CUDA_MEMCPY3D_BATCH_OP with valid memory, or NULL.
    unsafe { one(input(op)?, stream) }
}
