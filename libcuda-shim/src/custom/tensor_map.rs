#![allow(unsafe_code)]
//! Tensor maps. Unsafe because sizes and strides are read through the caller's pointers.

use core::ffi::{c_int, c_void};

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::marshal;
use crate::pointer::input;
use crate::types::*;

/// Tensors have at most five dimensions.
const RANKS: core::ops::RangeInclusive<u32> = 1..=5;

/// An array of `count` values, as bytes; `None` for NULL.
///
/// # Safety
/// NULL, or an array of `count` elements, unchanged for the lifetime.
unsafe fn array<'a, T>(values: *const T, count: u32) -> Option<&'a [u8]> {
    // SAFETY: by the caller's promise; the ranks are small.
    unsafe { marshal::data_in(values.cast(), count as usize * size_of::<T>()) }
}

/// What is wrong before anything is read.
fn check(map: *mut CUtensorMap, rank: u32) -> CuResult {
    require_init()?;
    if map.is_null() || !RANKS.contains(&rank) { Err(Status::INVALID_VALUE) } else { Ok(()) }
}

/// # Safety
/// `map` is not NULL and has room.
unsafe fn put(map: *mut CUtensorMap, encoded: [u8; 128]) {
    // SAFETY: by the caller's promise; alignment is not relied on.
    unsafe { marshal::put(map.cast(), Some(encoded)) };
}

pub unsafe fn cuTensorMapEncodeTiled(
    map: *mut CUtensorMap,
    data_type: CUtensorMapDataType,
    rank: cuuint32_t,
    address: *mut c_void,
    dims: *const cuuint64_t,
    strides: *const cuuint64_t,
    box_dims: *const cuuint32_t,
    element_strides: *const cuuint32_t,
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    promotion: CUtensorMapL2promotion,
    fill: CUtensorMapFloatOOBfill,
) -> CuResult {
    check(map, rank)?;
    let mut encoded = [0; 128];
    // SAFETY: the arrays have an element per dimension, that of the strides one less.
    let (dims, strides, box_dims, element_strides) = unsafe {
        (array(dims, rank), array(strides, rank - 1), array(box_dims, rank), array(element_strides, rank))
    };
    wire::tensor_map_tiled(
        Some(&mut encoded),
        data_type,
        rank,
        address.addr() as u64,
        dims,
        strides,
        box_dims,
        element_strides,
        interleave,
        swizzle,
        promotion,
        fill,
    )?;
    // SAFETY: checked, and the caller's own variable.
    unsafe { put(map, encoded) };
    Ok(())
}

pub unsafe fn cuTensorMapEncodeIm2col(
    map: *mut CUtensorMap,
    data_type: CUtensorMapDataType,
    rank: cuuint32_t,
    address: *mut c_void,
    dims: *const cuuint64_t,
    strides: *const cuuint64_t,
    lower_corner: *const c_int,
    upper_corner: *const c_int,
    channels_per_pixel: cuuint32_t,
    pixels_per_column: cuuint32_t,
    element_strides: *const cuuint32_t,
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    promotion: CUtensorMapL2promotion,
    fill: CUtensorMapFloatOOBfill,
) -> CuResult {
    check(map, rank)?;
    let mut encoded = [0; 128];
    // SAFETY: as for tiled maps; the corners have an element for each spatial dimension.
    let (dims, strides, lower_corner, upper_corner, element_strides) = unsafe {
        (
            array(dims, rank),
            array(strides, rank - 1),
            array(lower_corner, rank.saturating_sub(2)),
            array(upper_corner, rank.saturating_sub(2)),
            array(element_strides, rank),
        )
    };
    wire::tensor_map_im2col(
        Some(&mut encoded),
        data_type,
        rank,
        address.addr() as u64,
        dims,
        strides,
        lower_corner,
        upper_corner,
        channels_per_pixel,
        pixels_per_column,
        element_strides,
        interleave,
        swizzle,
        promotion,
        fill,
    )?;
    // SAFETY: checked, and the caller's own variable.
    unsafe { put(map, encoded) };
    Ok(())
}

pub unsafe fn cuTensorMapEncodeIm2colWide(
    map: *mut CUtensorMap,
    data_type: CUtensorMapDataType,
    rank: cuuint32_t,
    address: *mut c_void,
    dims: *const cuuint64_t,
    strides: *const cuuint64_t,
    lower_corner: c_int,
    upper_corner: c_int,
    channels_per_pixel: cuuint32_t,
    pixels_per_column: cuuint32_t,
    element_strides: *const cuuint32_t,
    interleave: CUtensorMapInterleave,
    mode: CUtensorMapIm2ColWideMode,
    swizzle: CUtensorMapSwizzle,
    promotion: CUtensorMapL2promotion,
    fill: CUtensorMapFloatOOBfill,
) -> CuResult {
    check(map, rank)?;
    let mut encoded = [0; 128];
    // SAFETY: as for tiled maps.
    let (dims, strides, element_strides) =
        unsafe { (array(dims, rank), array(strides, rank - 1), array(element_strides, rank)) };
    wire::tensor_map_im2col_wide(
        Some(&mut encoded),
        data_type,
        rank,
        address.addr() as u64,
        dims,
        strides,
        lower_corner,
        upper_corner,
        channels_per_pixel,
        pixels_per_column,
        element_strides,
        interleave,
        mode,
        swizzle,
        promotion,
        fill,
    )?;
    // SAFETY: checked, and the caller's own variable.
    unsafe { put(map, encoded) };
    Ok(())
}

pub unsafe fn cuTensorMapReplaceAddress(map: *mut CUtensorMap, address: *mut c_void) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a tensor map, or NULL.
    let old = unsafe { input(map.cast::<[u8; 128]>()) }?;
    let mut replaced = [0; 128];
    wire::tensor_map_replace_address(Some(old), address.addr() as u64, Some(&mut replaced))?;
    // SAFETY: not NULL, and the caller's own variable.
    unsafe { put(map, replaced) };
    Ok(())
}
