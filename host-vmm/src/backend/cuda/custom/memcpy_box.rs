//! The internal operations of `spec/memcpy_box.rs`: all of them are the driver's copy in three dimensions.

use protocol::copy::{Memory, Place};
use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// `copy_box`: answered when the bytes have arrived.
const WAIT: u32 = 1;

/// `CU_MEMORYTYPE_ARRAY`, `_UNIFIED`
const ARRAY: u64 = 3;
const UNIFIED: u64 = 4;

/// Bytes, rows, slices.
#[derive(Clone, Copy)]
struct Extent {
    width: u64,
    height: u64,
    depth: u64,
}

/// One side of a CUDA_MEMCPY3D: x, y, z, level, type, host, address, array, reserved, pitch, height.
type Side = [u64; 11];

/// A place of the program's.
fn side(cuda: &CudaBackend, place: Option<&[u8; 64]>, extent: Extent) -> CuResult<Side> {
    let place = place.and_then(Place::decode).ok_or(Status::INVALID_VALUE)?;
    let Place { memory, x, y, z } = place;
    Ok(match memory {
        Memory::Array { handle, level } => {
            [x, y, z, level, ARRAY, 0, 0, cuda.inward(Kind::CUarray, handle)?, 0, 0, 0]
        }
        Memory::Linear { address, pitch, height } => {
            let offset = |x: u64, y: u64, z: u64| {
                z.checked_mul(height)?.checked_add(y)?.checked_mul(pitch)?.checked_add(x)
            };
            let last = |start: u64, len: u64| start.checked_add(len.checked_sub(1)?);
            let end = || {
                let (y, z) = (last(y, extent.height)?, last(z, extent.depth)?);
                offset(x.checked_add(extent.width)?, y, z)
            };
            let start = offset(x, y, z).ok_or(Status::INVALID_VALUE)?;
            let len = end().and_then(|end| end.checked_sub(start)).ok_or(Status::INVALID_VALUE)?;
            let first = address.checked_add(start).ok_or(Status::INVALID_VALUE)?;
            cuda.range(first, len)?;
            [x, y, z, 0, UNIFIED, 0, address, 0, 0, pitch, height]
        }
    })
}

/// A packed box in the lane's staging area.
fn staged(call: &Call<'_>, offset: u64, extent: Extent) -> CuResult<Side> {
    let len = extent.width.checked_mul(extent.height).and_then(|len| len.checked_mul(extent.depth));
    let address = len.and_then(|len| call.staging(offset, len)).ok_or(Status::INVALID_VALUE)?;
    Ok([0, 0, 0, 0, UNIFIED, 0, address, 0, 0, extent.width, extent.height])
}

/// Queues the copy. `stream` is the driver's.
fn copy(cuda: &CudaBackend, dst: &Side, src: &Side, extent: Extent, stream: u64) -> CuResult {
    let mut copy = [0u64; 25];
    copy[..11].copy_from_slice(src);
    copy[11..22].copy_from_slice(dst);
    copy[22..].copy_from_slice(&[extent.width, extent.height, extent.depth]);
    // SAFETY: a CUDA_MEMCPY3D; arrays are the driver's, addresses have been checked.
    unsafe { cuda.raw().cuMemcpy3DAsync_v2(copy.as_ptr().cast(), stream) }
}

fn wait(cuda: &CudaBackend, call: &mut Call<'_>, stream: u64) -> CuResult {
    // SAFETY: takes a handle of the driver.
    let result = unsafe { cuda.raw().cuStreamSynchronize(stream) };
    cuda.flushed(call);
    result
}

pub fn copy_box(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dst: Option<&[u8; 64]>,
    src: Option<&[u8; 64]>,
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    flags: u32,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let extent = Extent { width, height, depth };
    let (dst, src) = (side(cuda, dst, extent)?, side(cuda, src, extent)?);
    copy(cuda, &dst, &src, extent, stream)?;
    if flags & WAIT != 0 { wait(cuda, call, stream) } else { Ok(()) }
}

/// One piece of a copy from the staging area to a place, or the other way round.
struct Piece<'a> {
    place: Option<&'a [u8; 64]>,
    staging_offset: u64,
    extent: Extent,
    stream: u64,
    last: bool,
}

impl Piece<'_> {
    fn copy_in(&self, cuda: &CudaBackend, call: &mut Call<'_>) -> CuResult {
        let stream = cuda.inward(Kind::CUstream, self.stream)?;
        let (dst, src) =
            (side(cuda, self.place, self.extent)?, staged(call, self.staging_offset, self.extent)?);
        cuda.staged(call, stream, self.last, || copy(cuda, &dst, &src, self.extent, stream))
    }

    fn copy_out(&self, cuda: &CudaBackend, call: &mut Call<'_>) -> CuResult {
        let stream = cuda.inward(Kind::CUstream, self.stream)?;
        let (dst, src) =
            (staged(call, self.staging_offset, self.extent)?, side(cuda, self.place, self.extent)?);
        cuda.staged(call, stream, self.last, || copy(cuda, &dst, &src, self.extent, stream))
    }
}

pub fn stage_box_in(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    place: Option<&[u8; 64]>,
    staging_offset: u64,
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    _: u32,
) -> CuResult {
    let extent = Extent { width, height, depth };
    Piece { place, staging_offset, extent, stream, last: false }.copy_in(cuda, call)
}

pub fn stage_box_in_last(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    place: Option<&[u8; 64]>,
    staging_offset: u64,
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    _: u32,
) -> CuResult {
    let extent = Extent { width, height, depth };
    Piece { place, staging_offset, extent, stream, last: true }.copy_in(cuda, call)
}

pub fn stage_box_out(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    place: Option<&[u8; 64]>,
    staging_offset: u64,
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    _: u32,
) -> CuResult {
    let extent = Extent { width, height, depth };
    Piece { place, staging_offset, extent, stream, last: false }.copy_out(cuda, call)
}

pub fn stage_box_out_last(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    place: Option<&[u8; 64]>,
    staging_offset: u64,
    width: u64,
    height: u64,
    depth: u64,
    stream: u64,
    _: u32,
) -> CuResult {
    let extent = Extent { width, height, depth };
    Piece { place, staging_offset, extent, stream, last: true }.copy_out(cuda, call)
}
