#![allow(unsafe_code)]
//! Copies. Unsafe because the program's memory is reached through its pointers.

use core::ffi::c_void;

use protocol::status::{CuResult, Status};

use crate::box_copy::{self, End, Extent, In};
use crate::copy::{self, Rows, Side};
use crate::custom::context::require_init;
use crate::graph_copy_node;
use crate::pointer::input;
use crate::types::*;

/// A copy of one block.
unsafe fn line(dst: Side, src: Side, len: usize, stream: CUstream, wait: bool) -> CuResult {
    require_init()?;
    // SAFETY: the caller vouches for its pointers for `len` bytes.
    unsafe { copy::run(Rows::line(dst, src, len as u64), stream as u64, wait) }
}

/// A pointer that may be either: the address tells.
pub fn either(pointer: CUdeviceptr) -> Side {
    Side::host(pointer as usize)
}

pub unsafe fn cuMemcpy(dst: CUdeviceptr, src: CUdeviceptr, len: usize, default_stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { line(either(dst), either(src), len, default_stream, true) }
}

pub unsafe fn cuMemcpyAsync(dst: CUdeviceptr, src: CUdeviceptr, len: usize, stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { line(either(dst), either(src), len, stream, false) }
}

pub unsafe fn cuMemcpyHtoD_v2(
    dst: CUdeviceptr,
    src: *const c_void,
    len: usize,
    default_stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { line(Side::device(dst), Side::host(src.addr()), len, default_stream, true) }
}

pub unsafe fn cuMemcpyHtoDAsync_v2(
    dst: CUdeviceptr,
    src: *const c_void,
    len: usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { line(Side::device(dst), Side::host(src.addr()), len, stream, false) }
}

pub unsafe fn cuMemcpyDtoH_v2(
    dst: *mut c_void,
    src: CUdeviceptr,
    len: usize,
    default_stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { line(Side::host(dst.addr()), Side::device(src), len, default_stream, true) }
}

pub unsafe fn cuMemcpyDtoHAsync_v2(
    dst: *mut c_void,
    src: CUdeviceptr,
    len: usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { line(Side::host(dst.addr()), Side::device(src), len, stream, false) }
}

/// A GPU does not wait for a copy within the device; here it is waited for, so that a bad pointer is reported by this call.
pub unsafe fn cuMemcpyDtoD_v2(
    dst: CUdeviceptr,
    src: CUdeviceptr,
    len: usize,
    default_stream: CUstream,
) -> CuResult {
    // SAFETY: no host memory is involved.
    unsafe { line(Side::device(dst), Side::device(src), len, default_stream, true) }
}

pub unsafe fn cuMemcpyDtoDAsync_v2(
    dst: CUdeviceptr,
    src: CUdeviceptr,
    len: usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: no host memory is involved.
    unsafe { line(Side::device(dst), Side::device(src), len, stream, false) }
}

/// Between contexts of one session addresses are unique, so that the contexts add nothing.
pub unsafe fn cuMemcpyPeer(
    dst: CUdeviceptr,
    _dst_context: CUcontext,
    src: CUdeviceptr,
    _src_context: CUcontext,
    len: usize,
    default_stream: CUstream,
) -> CuResult {
    // SAFETY: no host memory is involved.
    unsafe { line(Side::device(dst), Side::device(src), len, default_stream, true) }
}

pub unsafe fn cuMemcpyPeerAsync(
    dst: CUdeviceptr,
    _dst_context: CUcontext,
    src: CUdeviceptr,
    _src_context: CUcontext,
    len: usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: no host memory is involved.
    unsafe { line(Side::device(dst), Side::device(src), len, stream, false) }
}

// Rectangles.

const MEMORYTYPE_HOST: u32 = 1;
const MEMORYTYPE_DEVICE: u32 = 2;
const MEMORYTYPE_ARRAY: u32 = 3;
const MEMORYTYPE_UNIFIED: u32 = 4;

/// The side that a memory type selects.
fn side(memory_type: u32, host: *const c_void, device: CUdeviceptr) -> Result<Side, Status> {
    match memory_type {
        MEMORYTYPE_HOST => Ok(Side::host(host.addr())),
        MEMORYTYPE_DEVICE => Ok(Side::device(device)),
        MEMORYTYPE_UNIFIED => Ok(either(device)),
        _ => Err(Status::INVALID_VALUE),
    }
}

fn offset(side: Side, bytes: Option<usize>) -> Result<Side, Status> {
    let bytes = bytes.ok_or(Status::INVALID_VALUE)? as u64;
    match side {
        Side::Region(address) => address.checked_add(bytes).map(Side::Region),
        Side::Host(address) => address.checked_add(bytes as usize).map(Side::Host),
    }
    .ok_or(Status::INVALID_VALUE)
}

/// Byte offset of (x, y, z) in rows of `pitch` bytes and slices of `height` rows.
fn place(x: usize, y: usize, z: usize, pitch: usize, height: usize) -> Option<usize> {
    let rows = z.checked_mul(height)?.checked_add(y)?;
    rows.checked_mul(pitch)?.checked_add(x)
}

unsafe fn rectangle(copy: *const CUDA_MEMCPY2D, stream: CUstream, wait: bool) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a CUDA_MEMCPY2D, or NULL.
    let copy = unsafe { input(copy) }?;
    if copy.dstMemoryType == MEMORYTYPE_ARRAY || copy.srcMemoryType == MEMORYTYPE_ARRAY {
        // SAFETY: by the caller's promise.
        return unsafe { with_array(&as_cuboid(copy), stream, wait) };
    }
    let dst = side(copy.dstMemoryType, copy.dstHost, copy.dstDevice)?;
    let src = side(copy.srcMemoryType, copy.srcHost, copy.srcDevice)?;
    // A pitch of 0 means rows without gaps.
    let pitch = |pitch: usize| if pitch == 0 { copy.WidthInBytes } else { pitch };
    let (dst_pitch, src_pitch) = (pitch(copy.dstPitch), pitch(copy.srcPitch));
    let end = |x: usize| x.checked_add(copy.WidthInBytes).ok_or(Status::INVALID_VALUE);
    if copy.Height > 1 && (end(copy.dstXInBytes)? > dst_pitch || end(copy.srcXInBytes)? > src_pitch) {
        return Err(Status::INVALID_VALUE);
    }
    let rows = Rows {
        dst: offset(dst, place(copy.dstXInBytes, copy.dstY, 0, dst_pitch, 0))?,
        dst_pitch: dst_pitch as u64,
        src: offset(src, place(copy.srcXInBytes, copy.srcY, 0, src_pitch, 0))?,
        src_pitch: src_pitch as u64,
        width: copy.WidthInBytes as u64,
        height: copy.Height as u64,
    };
    // SAFETY: the caller vouches for its host memory.
    unsafe { copy::run(rows, stream as u64, wait) }
}

/// A copy of rows as one of a single slice.
fn as_cuboid(copy: &CUDA_MEMCPY2D) -> CUDA_MEMCPY3D {
    CUDA_MEMCPY3D {
        srcXInBytes: copy.srcXInBytes,
        srcY: copy.srcY,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: copy.srcMemoryType,
        srcHost: copy.srcHost,
        srcDevice: copy.srcDevice,
        srcArray: copy.srcArray,
        reserved0: core::ptr::null_mut(),
        srcPitch: copy.srcPitch,
        srcHeight: 0,
        dstXInBytes: copy.dstXInBytes,
        dstY: copy.dstY,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: copy.dstMemoryType,
        dstHost: copy.dstHost,
        dstDevice: copy.dstDevice,
        dstArray: copy.dstArray,
        reserved1: core::ptr::null_mut(),
        dstPitch: copy.dstPitch,
        dstHeight: 0,
        WidthInBytes: copy.WidthInBytes,
        Height: copy.Height,
        Depth: 1,
    }
}

/// A copy with an array on at least one side.
///
/// # Safety
/// The program's memory is valid for its side.
unsafe fn with_array(copy: &CUDA_MEMCPY3D, stream: CUstream, wait: bool) -> CuResult {
    let or = |value: usize, default: usize| if value == 0 { default } else { value } as u64;
    let linear = |side, pitch, height| In::Linear {
        side,
        pitch: or(pitch, copy.WidthInBytes),
        height: or(height, copy.Height),
    };
    let array = |handle: CUarray, level: usize| In::Array { handle: handle as u64, level: level as u64 };
    let dst = match copy.dstMemoryType {
        MEMORYTYPE_ARRAY => array(copy.dstArray, copy.dstLOD),
        other => linear(side(other, copy.dstHost, copy.dstDevice)?, copy.dstPitch, copy.dstHeight),
    };
    let src = match copy.srcMemoryType {
        MEMORYTYPE_ARRAY => array(copy.srcArray, copy.srcLOD),
        other => linear(side(other, copy.srcHost, copy.srcDevice)?, copy.srcPitch, copy.srcHeight),
    };
    if copy.WidthInBytes == 0 || copy.Height == 0 || copy.Depth == 0 {
        return Ok(());
    }
    let dst = End { memory: dst, x: copy.dstXInBytes as u64, y: copy.dstY as u64, z: copy.dstZ as u64 };
    let src = End { memory: src, x: copy.srcXInBytes as u64, y: copy.srcY as u64, z: copy.srcZ as u64 };
    let extent =
        Extent { width: copy.WidthInBytes as u64, height: copy.Height as u64, depth: copy.Depth as u64 };
    // SAFETY: by the caller's promise.
    unsafe { box_copy::run(&dst, &src, extent, stream as u64, wait) }
}

pub unsafe fn cuMemcpy2D_v2(copy: *const CUDA_MEMCPY2D, default_stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { rectangle(copy, default_stream, true) }
}

pub unsafe fn cuMemcpy2DUnaligned_v2(copy: *const CUDA_MEMCPY2D, default_stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { rectangle(copy, default_stream, true) }
}

pub unsafe fn cuMemcpy2DAsync_v2(copy: *const CUDA_MEMCPY2D, stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { rectangle(copy, stream, false) }
}

unsafe fn cuboid(copy: *const CUDA_MEMCPY3D, stream: CUstream, wait: bool) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a CUDA_MEMCPY3D, or NULL.
    let copy = unsafe { input(copy) }?;
    if copy.dstMemoryType == MEMORYTYPE_ARRAY || copy.srcMemoryType == MEMORYTYPE_ARRAY {
        // SAFETY: by the caller's promise.
        return unsafe { with_array(copy, stream, wait) };
    }
    let dst = side(copy.dstMemoryType, copy.dstHost, copy.dstDevice)?;
    let src = side(copy.srcMemoryType, copy.srcHost, copy.srcDevice)?;
    let or = |value: usize, default: usize| if value == 0 { default } else { value };
    let (dst_pitch, src_pitch) = (or(copy.dstPitch, copy.WidthInBytes), or(copy.srcPitch, copy.WidthInBytes));
    let (dst_height, src_height) = (or(copy.dstHeight, copy.Height), or(copy.srcHeight, copy.Height));
    if copy.WidthInBytes == 0 || copy.Height == 0 {
        return Ok(());
    }
    if copy.Depth > 1 && (dst_height < copy.Height || src_height < copy.Height) {
        return Err(Status::INVALID_VALUE);
    }
    let one_pageable =
        matches!((dst, src), (Side::Region(_), Side::Host(_)) | (Side::Host(_), Side::Region(_)));
    if copy.Depth > 1 && one_pageable {
        // In a graph it is one copy.
        let end = |side, pitch: usize, height: usize, [x, y, z]: [usize; 3]| {
            let memory = In::Linear { side, pitch: pitch as u64, height: height as u64 };
            End { memory, x: x as u64, y: y as u64, z: z as u64 }
        };
        let to = end(dst, dst_pitch, dst_height, [copy.dstXInBytes, copy.dstY, copy.dstZ]);
        let from = end(src, src_pitch, src_height, [copy.srcXInBytes, copy.srcY, copy.srcZ]);
        let [width, height, depth] = [copy.WidthInBytes, copy.Height, copy.Depth].map(|len| len as u64);
        if graph_copy_node::capture(&to, &from, Extent { width, height, depth }, stream as u64, wait)? {
            return Ok(());
        }
    }
    for z in 0..copy.Depth {
        let depth = |start: usize| start.checked_add(z).ok_or(Status::INVALID_VALUE);
        let rows = Rows {
            dst: offset(dst, place(copy.dstXInBytes, copy.dstY, depth(copy.dstZ)?, dst_pitch, dst_height))?,
            dst_pitch: dst_pitch as u64,
            src: offset(src, place(copy.srcXInBytes, copy.srcY, depth(copy.srcZ)?, src_pitch, src_height))?,
            src_pitch: src_pitch as u64,
            width: copy.WidthInBytes as u64,
            height: copy.Height as u64,
        };
        // SAFETY: the caller vouches for its host memory.
        unsafe { copy::run(rows, stream as u64, wait && z + 1 == copy.Depth) }?;
    }
    Ok(())
}

pub unsafe fn cuMemcpy3D_v2(copy: *const CUDA_MEMCPY3D, default_stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuboid(copy, default_stream, true) }
}

pub unsafe fn cuMemcpy3DAsync_v2(copy: *const CUDA_MEMCPY3D, stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuboid(copy, stream, false) }
}

/// `CUDA_MEMCPY3D_PEER` has contexts where `CUDA_MEMCPY3D` has reserved fields, and is otherwise the same.
pub unsafe fn cuMemcpy3DPeer(copy: *const CUDA_MEMCPY3D_PEER, default_stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuboid(copy.cast(), default_stream, true) }
}

pub unsafe fn cuMemcpy3DPeerAsync(copy: *const CUDA_MEMCPY3D_PEER, stream: CUstream) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuboid(copy.cast(), stream, false) }
}

/// The attributes are hints about where memory is and when the source is read; copies here read it at the strictest time.
pub unsafe fn cuMemcpyWithAttributesAsync(
    dst: CUdeviceptr,
    src: CUdeviceptr,
    len: usize,
    _attributes: *mut CUmemcpyAttributes,
    stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { line(either(dst), either(src), len, stream, false) }
}

/// `CU_MEMCPY_SRC_ACCESS_ORDER_STREAM` to `_ANY`
const ACCESS_ORDERS: core::ops::RangeInclusive<u32> = 1..=3;

/// Batches do not go to the legacy default stream.
pub fn batch_stream(stream: CUstream) -> CuResult {
    if stream.is_null() || stream == CU_STREAM_LEGACY { Err(Status::INVALID_VALUE) } else { Ok(()) }
}

/// Tells a caller of the first version which copy has failed: the largest number if none has, or the call as a whole.
///
/// # Safety
/// `place` is NULL or the caller's own variable.
pub unsafe fn tell_failed(place: *mut usize, result: Result<(), (usize, Status)>) -> CuResult {
    let index = result.map_or_else(|(index, _)| index, |()| usize::MAX);
    // SAFETY: by the caller's promise.
    unsafe { crate::marshal::put(place, (!place.is_null()).then_some(index)) };
    result.map_err(|(_, status)| status)
}

/// Copies in their order; all that the attributes allow beyond that is not made use of. Returns the index of the copy that failed.
///
/// # Safety
/// The arrays have `count` elements each, those of the attributes `attribute_count`; pageable memory is valid.
unsafe fn batch(
    (dsts, srcs, lens): (*mut CUdeviceptr, *mut CUdeviceptr, *mut usize),
    count: usize,
    (attributes, firsts): (*mut CUmemcpyAttributes, *mut usize),
    attribute_count: usize,
    stream: CUstream,
) -> Result<(), (usize, Status)> {
    // What is wrong with the call as a whole has no index.
    let whole = |status| (usize::MAX, status);
    require_init().map_err(whole)?;
    let missing =
        dsts.is_null() || srcs.is_null() || lens.is_null() || attributes.is_null() || firsts.is_null();
    if missing || count == 0 || attribute_count == 0 || attribute_count > count {
        return Err(whole(Status::INVALID_VALUE));
    }
    batch_stream(stream).map_err(whole)?;
    let mut previous = None;
    for index in 0..attribute_count {
        // SAFETY: arrays of `attribute_count` elements by the caller's promise.
        let (first, order) = unsafe { (firsts.add(index).read(), (*attributes.add(index)).srcAccessOrder) };
        // The first set of attributes begins with the first copy, each further one behind the one before.
        let in_turn = previous.map_or(first == 0, |previous| first > previous && first < count);
        if !in_turn || !ACCESS_ORDERS.contains(&order) {
            return Err(whole(Status::INVALID_VALUE));
        }
        previous = Some(first);
    }
    for index in 0..count {
        // SAFETY: an array of `count` elements by the caller's promise.
        if unsafe { lens.add(index).read() } == 0 {
            return Err((index, Status::INVALID_VALUE));
        }
    }
    for index in 0..count {
        // SAFETY: arrays of `count` elements by the caller's promise.
        let (dst, src, len) =
            unsafe { (dsts.add(index).read(), srcs.add(index).read(), lens.add(index).read()) };
        // SAFETY: by the caller's promise.
        unsafe { line(either(dst), either(src), len, stream, false) }.map_err(|status| (index, status))?;
    }
    Ok(())
}

pub unsafe fn cuMemcpyBatchAsync(
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    lens: *mut usize,
    count: usize,
    attributes: *mut CUmemcpyAttributes,
    firsts: *mut usize,
    attribute_count: usize,
    failed: *mut usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe {
        tell_failed(failed, batch((dsts, srcs, lens), count, (attributes, firsts), attribute_count, stream))
    }
}

pub unsafe fn cuMemcpyBatchAsync_v2(
    dsts: *mut CUdeviceptr,
    srcs: *mut CUdeviceptr,
    lens: *mut usize,
    count: usize,
    attributes: *mut CUmemcpyAttributes,
    firsts: *mut usize,
    attribute_count: usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { batch((dsts, srcs, lens), count, (attributes, firsts), attribute_count, stream) }
        .map_err(|(_, status)| status)
}
