//! The hand-written rows of `spec/array.rs`: arrays count against the session's limit.

use protocol::status::CuResult;

use super::put;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::{Buffer, half, out, word};
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// `CU_AD_FORMAT_*`: bytes of one channel's element, or of all channels where the format says how many there are. Compressed formats take a byte or half a
/// byte per element, planar ones up to two bytes per channel; what counts is the order of magnitude.
fn element_len(format: u32, channels: u32) -> u64 {
    let channels = u64::from(channels.clamp(1, 4));
    match format {
        0x02 | 0x09 | 0x10 => 2 * channels,
        0x03 | 0x0a | 0x20 => 4 * channels,
        0xc3..=0xc5 | 0xc9..=0xcb => 2 * channels,
        _ => channels,
    }
}

/// `CUDA_ARRAY3D_SPARSE`, `CUDA_ARRAY3D_DEFERRED_MAPPING`: without memory of their own.
const WITHOUT_MEMORY: u32 = 0x40 | 0x80;

/// Bytes of an array: width, height and depth (0 counts as 1), with format, channels and flags.
fn array_len(size: [u64; 3], format: u32, channels: u32, flags: u32) -> u64 {
    if flags & WITHOUT_MEMORY != 0 {
        return 0;
    }
    let elements = size.iter().fold(1u64, |len, side| len.saturating_mul((*side).max(1)));
    elements.saturating_mul(element_len(format, channels))
}

/// Bytes of a CUDA_ARRAY3D_DESCRIPTOR's array: width 0, height 8, depth 16, format 24, channels 28, flags 32.
fn described(desc: &[u8; 40]) -> u64 {
    let size = [word(desc, 0), word(desc, 8), word(desc, 16)];
    array_len(size, half(desc, 24), half(desc, 28), half(desc, 32))
}

/// Has the driver make an array of `len` bytes, within the session's limit.
fn create(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    kind: Kind,
    handle: Option<&mut u64>,
    len: u64,
    by: impl FnOnce(*mut u64) -> CuResult,
) -> CuResult {
    cuda.room()?;
    cuda.memory.reserve(len)?;
    let mut raw = 0;
    if let Err(status) = by(out(handle.is_some(), &mut raw)) {
        cuda.memory.unreserve(len);
        return Err(status);
    }
    cuda.objects.arrays.enter((kind, raw), call.lane.context, len);
    put(handle, cuda.born(call, kind, raw, None)?)
}

pub fn cuArrayCreate_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    handle: Option<&mut u64>,
    desc: Option<&[u8; 24]>,
) -> CuResult {
    // Width 0, height 8, format 16, channels 20.
    let len = desc
        .map_or(0, |desc| array_len([word(desc, 0), word(desc, 8), 1], half(desc, 16), half(desc, 20), 0));
    let desc = Buffer::new(desc.map(|bytes| &bytes[..]));
    create(cuda, call, Kind::CUarray, handle, len, |handle| {
        // SAFETY: the structure is as the driver expects it, or NULL; the output is a variable of the right type, or NULL.
        unsafe { cuda.raw().cuArrayCreate_v2(handle, desc.as_ptr()) }
    })
}

pub fn cuArray3DCreate_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    handle: Option<&mut u64>,
    desc: Option<&[u8; 40]>,
) -> CuResult {
    let len = desc.map_or(0, described);
    let desc = Buffer::new(desc.map(|bytes| &bytes[..]));
    create(cuda, call, Kind::CUarray, handle, len, |handle| {
        // SAFETY: as above.
        unsafe { cuda.raw().cuArray3DCreate_v2(handle, desc.as_ptr()) }
    })
}

pub fn cuMipmappedArrayCreate(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    handle: Option<&mut u64>,
    desc: Option<&[u8; 40]>,
    levels: u32,
) -> CuResult {
    // All further levels together take a third of the first one, or less.
    let len = desc.map_or(0, described);
    let len = if levels > 1 { len.saturating_add(len / 3) } else { len };
    let desc = Buffer::new(desc.map(|bytes| &bytes[..]));
    create(cuda, call, Kind::CUmipmappedArray, handle, len, |handle| {
        // SAFETY: as above.
        unsafe { cuda.raw().cuMipmappedArrayCreate(handle, desc.as_ptr(), levels) }
    })
}

/// Has the driver end an array.
fn destroy(cuda: &CudaBackend, kind: Kind, handle: u64, by: impl FnOnce(u64) -> CuResult) -> CuResult {
    let (raw, dying) = cuda.dying(kind, handle)?;
    // Before the driver can give the handle to another array.
    let entry = cuda.objects.arrays.leave((kind, raw));
    let result = by(raw);
    cuda.settle(&result, [dying]);
    if let Some((context, len)) = entry {
        match result {
            Ok(()) => cuda.memory.unreserve(len),
            Err(_) => cuda.objects.arrays.enter((kind, raw), context, len),
        }
    }
    result
}

pub fn cuArrayDestroy(cuda: &CudaBackend, call: &mut Call<'_>, handle: u64) -> CuResult {
    let result = destroy(cuda, Kind::CUarray, handle, |array| {
        // SAFETY: takes a handle of the driver, or NULL.
        unsafe { cuda.raw().cuArrayDestroy(array) }
    });
    cuda.flushed(call);
    result
}

pub fn cuMipmappedArrayDestroy(cuda: &CudaBackend, call: &mut Call<'_>, handle: u64) -> CuResult {
    let result = destroy(cuda, Kind::CUmipmappedArray, handle, |array| {
        // SAFETY: takes a handle of the driver, or NULL.
        unsafe { cuda.raw().cuMipmappedArrayDestroy(array) }
    });
    cuda.flushed(call);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_arrays() {
        assert_eq!(array_len([100, 50, 0], 0x20, 4, 0), 100 * 50 * 16);
        assert_eq!(array_len([7, 0, 0], 0x01, 1, 0), 7);
        assert_eq!(array_len([u64::MAX, 2, 2], 0x20, 4, 0), u64::MAX, "no limit allows it");
        assert_eq!(array_len([100, 50, 1], 0x20, 4, 0x40), 0, "a sparse array has no memory of its own");
        assert_eq!(element_len(0xff, u32::MAX), 4);
    }
}
