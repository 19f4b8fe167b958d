//! The internal operations of `spec/tensor_map.rs`. The address in a map is used by kernels alone, which can name any address anyway.

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::{Buffer, pointer};
use crate::session::Call;

/// The alignment that the driver asks for.
#[repr(C, align(128))]
struct Map([u8; 128]);

/// An array of exactly `count` elements, or NULL.
fn array(values: Option<&[u8]>, count: u32, element_len: usize) -> CuResult<Buffer> {
    match values {
        Some(values) if values.len() != count as usize * element_len => Err(Status::INVALID_VALUE),
        values => Ok(Buffer::new(values)),
    }
}

/// Has the driver encode a map for the program.
fn encode(
    map: Option<&mut [u8; 128]>,
    rank: u32,
    by: impl FnOnce(*mut core::ffi::c_void) -> CuResult,
) -> CuResult {
    if !(1..=5).contains(&rank) {
        return Err(Status::INVALID_VALUE);
    }
    let mut encoded = Map([0; 128]);
    by((&raw mut encoded).cast())?;
    super::put(map, encoded.0)
}

pub fn tensor_map_tiled(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    map: Option<&mut [u8; 128]>,
    data_type: u32,
    rank: u32,
    address: u64,
    dims: Option<&[u8]>,
    strides: Option<&[u8]>,
    box_dims: Option<&[u8]>,
    element_strides: Option<&[u8]>,
    interleave: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
) -> CuResult {
    let (dims, strides) = (array(dims, rank, 8)?, array(strides, rank.saturating_sub(1), 8)?);
    let (box_dims, element_strides) = (array(box_dims, rank, 4)?, array(element_strides, rank, 4)?);
    // SAFETY: the arrays have an element per dimension, that of the strides one less, as the driver expects; the output is a map.
    encode(map, rank, |map| unsafe {
        cuda.raw().cuTensorMapEncodeTiled(
            map,
            data_type,
            rank,
            pointer(address),
            dims.as_ptr(),
            strides.as_ptr(),
            box_dims.as_ptr(),
            element_strides.as_ptr(),
            interleave,
            swizzle,
            promotion,
            fill,
        )
    })
}

pub fn tensor_map_im2col(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    map: Option<&mut [u8; 128]>,
    data_type: u32,
    rank: u32,
    address: u64,
    dims: Option<&[u8]>,
    strides: Option<&[u8]>,
    lower_corner: Option<&[u8]>,
    upper_corner: Option<&[u8]>,
    channels_per_pixel: u32,
    pixels_per_column: u32,
    element_strides: Option<&[u8]>,
    interleave: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
) -> CuResult {
    let (dims, strides) = (array(dims, rank, 8)?, array(strides, rank.saturating_sub(1), 8)?);
    let spatial = rank.saturating_sub(2);
    let (lower_corner, upper_corner) = (array(lower_corner, spatial, 4)?, array(upper_corner, spatial, 4)?);
    let element_strides = array(element_strides, rank, 4)?;
    // SAFETY: as for tiled maps; the corners have an element per spatial dimension.
    encode(map, rank, |map| unsafe {
        cuda.raw().cuTensorMapEncodeIm2col(
            map,
            data_type,
            rank,
            pointer(address),
            dims.as_ptr(),
            strides.as_ptr(),
            lower_corner.as_ptr(),
            upper_corner.as_ptr(),
            channels_per_pixel,
            pixels_per_column,
            element_strides.as_ptr(),
            interleave,
            swizzle,
            promotion,
            fill,
        )
    })
}

pub fn tensor_map_im2col_wide(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    map: Option<&mut [u8; 128]>,
    data_type: u32,
    rank: u32,
    address: u64,
    dims: Option<&[u8]>,
    strides: Option<&[u8]>,
    lower_corner: i32,
    upper_corner: i32,
    channels_per_pixel: u32,
    pixels_per_column: u32,
    element_strides: Option<&[u8]>,
    interleave: u32,
    mode: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
) -> CuResult {
    let (dims, strides) = (array(dims, rank, 8)?, array(strides, rank.saturating_sub(1), 8)?);
    let element_strides = array(element_strides, rank, 4)?;
    // SAFETY: as for tiled maps.
    encode(map, rank, |map| unsafe {
        cuda.raw().cuTensorMapEncodeIm2colWide(
            map,
            data_type,
            rank,
            pointer(address),
            dims.as_ptr(),
            strides.as_ptr(),
            lower_corner,
            upper_corner,
            channels_per_pixel,
            pixels_per_column,
            element_strides.as_ptr(),
            interleave,
            mode,
            swizzle,
            promotion,
            fill,
        )
    })
}

pub fn tensor_map_replace_address(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    map: Option<&[u8; 128]>,
    address: u64,
    replaced: Option<&mut [u8; 128]>,
) -> CuResult {
    let mut map = Map(*map.ok_or(Status::INVALID_VALUE)?);
    // SAFETY: a map with the driver's alignment.
    unsafe { cuda.raw().cuTensorMapReplaceAddress((&raw mut map).cast(), pointer(address)) }?;
    super::put(replaced, map.0)
}
