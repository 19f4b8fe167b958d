//! The hand-written rows of `spec/memory.rs`.

use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::{half, scalar};
use crate::backend::cuda::memory::{Allocation, DEVICE_INVALID, Hints, Kind as Memory};
use crate::generated::cuda_raw::{Bytes, Kind};
use crate::session::Call;

/// `CU_MEM_ATTACH_GLOBAL`, `CU_MEM_ATTACH_HOST`.
const ATTACH: [u32; 2] = [1, 2];

/// Allocates device memory by `alloc` within the session's limit. What the program would not know for device memory is given back by `free`.
pub fn device_alloc(
    cuda: &CudaBackend,
    call: &Call<'_>,
    dptr: Option<&mut u64>,
    kind: Memory,
    len: u64,
    alloc: impl FnOnce(*mut u64) -> CuResult,
    free: impl FnOnce(u64) -> CuResult,
) -> CuResult {
    let Some(dptr) = dptr else { return alloc(core::ptr::null_mut()) };
    cuda.memory.reserve(len)?;
    let mut base = 0;
    if let Err(status) = alloc(&mut base) {
        cuda.memory.unreserve(len);
        return Err(status);
    }
    // Nothing, of a pool.
    if base == 0 && len == 0 {
        cuda.memory.unreserve(len);
        return put(Some(dptr), base);
    }
    if kind == Memory::Pool {
        // In a capture it is memory of a graph; a pool of the program's own makes the driver reserve more. The program asks for what it does not know.
        cuda.space.learn(base, len);
    }
    if !cuda.space.contains(base) {
        cuda.space.look();
    }
    if !cuda.space.contains(base) {
        let _ = free(base);
        cuda.memory.unreserve(len);
        tracing::error!(address = %format_args!("{base:#x}"), len, "the driver's memory lies where the program does not expect it");
        return Err(Status::OUT_OF_MEMORY);
    }
    let device = cuda.current_device().unwrap_or(0);
    let (context, hints) = (call.lane.context, Hints::default());
    cuda.memory.insert(Allocation { base, len, kind, flags: 0, context, device, number: 0, hints });
    *dptr = base;
    Ok(())
}

pub fn cuMemAlloc_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytesize: u64,
) -> CuResult {
    device_alloc(
        cuda,
        call,
        dptr,
        Memory::Device,
        bytesize,
        // SAFETY: the output is a variable of the right type, or NULL.
        |out| unsafe { cuda.raw().cuMemAlloc_v2(out, bytesize) },
        // SAFETY: what was just allocated.
        |address| unsafe { cuda.raw().cuMemFree_v2(address) },
    )
}

pub fn cuMemAllocPitch_v2(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    pPitch: Option<&mut u64>,
    WidthInBytes: u64,
    Height: u64,
    ElementSizeBytes: u32,
) -> CuResult {
    let mut pitch = 0;
    // The pitch is the driver's choice; what counts is about this.
    let len = WidthInBytes.checked_mul(Height).ok_or(Status::INVALID_VALUE)?;
    let present = pPitch.is_some();
    device_alloc(
        cuda,
        call,
        dptr,
        Memory::Device,
        len,
        |out| {
            let pitch = scalar(present.then_some(&mut pitch));
            // SAFETY: the outputs are variables of the right types, or NULL.
            unsafe { cuda.raw().cuMemAllocPitch_v2(out, pitch, WidthInBytes, Height, ElementSizeBytes) }
        },
        // SAFETY: what was just allocated.
        |address| unsafe { cuda.raw().cuMemFree_v2(address) },
    )?;
    put(pPitch, pitch)
}

pub fn cuMemFree_v2(cuda: &CudaBackend, call: &mut Call<'_>, dptr: u64) -> CuResult {
    let result = if cuda.session.window.offset(dptr).is_some() {
        cuda.window_free(dptr, Memory::Managed)
    } else {
        // Out of the table before the driver can give the address to another thread.
        let known = cuda.memory.remove(dptr);
        // SAFETY: takes a number; what is no allocation of the driver is refused by it.
        let result = unsafe { cuda.raw().cuMemFree_v2(dptr) };
        if let (Err(_), Some(allocation)) = (result, known) {
            let _ = cuda.memory.reserve(allocation.len);
            cuda.memory.insert(allocation);
        }
        result
    };
    cuda.flushed(call);
    result
}

pub fn cuMemGetInfo_v2(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    free: Option<&mut u64>,
    total: Option<&mut u64>,
) -> CuResult {
    let (mut free_bytes, mut total_bytes) = (0, 0);
    let (want_free, want_total) = (free.is_some(), total.is_some());
    // SAFETY: the outputs are variables of the right types, or NULL.
    unsafe {
        let free = scalar(want_free.then_some(&mut free_bytes));
        cuda.raw().cuMemGetInfo_v2(free, scalar(want_total.then_some(&mut total_bytes)))
    }?;
    let (left, limit) = cuda.memory.left();
    if let Some(free) = free {
        *free = free_bytes.min(left);
    }
    if let Some(total) = total {
        *total = total_bytes.min(limit);
    }
    Ok(())
}

pub fn cuMemGetAddressRange_v2(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    pbase: Option<&mut u64>,
    psize: Option<&mut u64>,
    dptr: u64,
) -> CuResult {
    if cuda.session.window.offset(dptr).is_some() {
        cuda.current_device()?;
        let allocation = cuda.memory.find(dptr).ok_or(Status::NOT_FOUND)?;
        if let Some(base) = pbase {
            *base = allocation.base;
        }
        if let Some(size) = psize {
            *size = allocation.len;
        }
        return Ok(());
    }
    // SAFETY: the outputs are variables of the right types, or NULL; an address that the driver does not know is refused by it.
    unsafe { cuda.raw().cuMemGetAddressRange_v2(scalar(pbase), scalar(psize), dptr) }
}

pub fn cuMemAllocManaged(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytesize: u64,
    flags: u32,
) -> CuResult {
    if dptr.is_none() || !ATTACH.contains(&flags) {
        return Err(Status::INVALID_VALUE);
    }
    put(dptr, cuda.window_alloc(call, Memory::Managed, bytesize, flags)?)
}

/// The managed allocation in the window that a range lies in, if it is one there.
///
/// # Errors
/// INVALID_VALUE for a range of other window memory, or one that is too long.
fn managed(cuda: &CudaBackend, address: u64, len: u64) -> CuResult<Option<Allocation>> {
    if cuda.session.window.offset(address).is_none() {
        return cuda.address(address).map(|_| None);
    }
    cuda.current_device()?;
    let found = cuda.memory.find(address).filter(|found| found.kind.is_managed());
    let found = found.filter(|found| len > 0 && len <= found.base + found.len - address);
    found.map(Some).ok_or(Status::INVALID_VALUE)
}

/// Whether a device ordinal, or the host, is one that there is.
fn location_exists(cuda: &CudaBackend, device: i32) -> CuResult {
    /// `CU_DEVICE_CPU`.
    const CPU: i32 = -1;
    let mut count = 0;
    // SAFETY: the output is a variable of the right type.
    unsafe { cuda.raw().cuDeviceGetCount(&mut count) }?;
    if device == CPU || (0..count).contains(&device) { Ok(()) } else { Err(Status::INVALID_DEVICE) }
}

/// The device ordinal that a `CUmemLocation` names: -1 for the host.
///
/// # Errors
/// INVALID_VALUE for a type of location that there is not.
fn ordinal(location: &[u8; 8]) -> CuResult<i32> {
    match half(location, 0) {
        1 => Ok(half(location, 4).cast_signed()),
        // Host, host with a NUMA node, the thread's own NUMA node.
        2..=4 => Ok(-1),
        _ => Err(Status::INVALID_VALUE),
    }
}

pub fn cuMemPrefetchAsync(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    devPtr: u64,
    count: u64,
    dstDevice: i32,
    hStream: u64,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, hStream)?;
    let Some(allocation) = managed(cuda, devPtr, count)? else {
        // SAFETY: takes numbers and a handle of the driver.
        return unsafe { cuda.raw().cuMemPrefetchAsync(devPtr, count, dstDevice, stream) };
    };
    location_exists(cuda, dstDevice)?;
    cuda.memory.hint(allocation.base, |hints| hints.last_prefetch = dstDevice);
    Ok(())
}

pub fn cuMemPrefetchAsync_v2(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    devPtr: u64,
    count: u64,
    location: [u8; 8],
    flags: u32,
    hStream: u64,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, hStream)?;
    if flags != 0 {
        return Err(Status::INVALID_VALUE);
    }
    let Some(allocation) = managed(cuda, devPtr, count)? else {
        // SAFETY: takes numbers, a structure by value and a handle of the driver.
        return unsafe { cuda.raw().cuMemPrefetchAsync_v2(devPtr, count, Bytes(location), flags, stream) };
    };
    let device = ordinal(&location)?;
    location_exists(cuda, device)?;
    cuda.memory.hint(allocation.base, |hints| hints.last_prefetch = device);
    Ok(())
}

/// `CUmem_advise` for managed memory in the window: what can be asked for is remembered.
fn advise(cuda: &CudaBackend, allocation: &Allocation, advice: u32, device: i32) -> CuResult {
    if !matches!(advice, 1 | 2 | 4) {
        location_exists(cuda, device)?;
    }
    cuda.memory.hint(allocation.base, |hints| match advice {
        1 => hints.read_mostly = true,
        2 => hints.read_mostly = false,
        3 => hints.preferred = device,
        4 => hints.preferred = DEVICE_INVALID,
        _ => {}
    });
    if (1..=6).contains(&advice) { Ok(()) } else { Err(Status::INVALID_VALUE) }
}

pub fn cuMemAdvise(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    devPtr: u64,
    count: u64,
    advice: u32,
    device: i32,
) -> CuResult {
    match managed(cuda, devPtr, count)? {
        Some(allocation) => advise(cuda, &allocation, advice, device),
        // SAFETY: takes numbers.
        None => unsafe { cuda.raw().cuMemAdvise(devPtr, count, advice, device) },
    }
}

pub fn cuMemAdvise_v2(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    devPtr: u64,
    count: u64,
    advice: u32,
    location: [u8; 8],
) -> CuResult {
    match managed(cuda, devPtr, count)? {
        Some(allocation) => advise(cuda, &allocation, advice, ordinal(&location).unwrap_or(-1)).map_err(
            // Other than the form with an ordinal, for which that is no device.
            |status| if status == Status::INVALID_DEVICE { Status::INVALID_VALUE } else { status },
        ),
        // SAFETY: takes numbers and a structure by value.
        None => unsafe { cuda.raw().cuMemAdvise_v2(devPtr, count, advice, Bytes(location)) },
    }
}

pub fn cuMemRangeGetAttribute(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    data: Option<&mut [u8]>,
    dataSize: u64,
    attribute: u32,
    devPtr: u64,
    count: u64,
) -> CuResult {
    let Some(Allocation { hints, .. }) = managed(cuda, devPtr, count)? else {
        let mut buffer = crate::backend::cuda::buffer::Buffer::new(data.as_deref());
        // SAFETY: the buffer has `dataSize` bytes (the length of the block was checked against it), or is NULL.
        unsafe {
            cuda.raw().cuMemRangeGetAttribute(buffer.as_mut_ptr(), dataSize, attribute, devPtr, count)
        }?;
        buffer.give(data);
        return Ok(());
    };
    let data = data.filter(|data| !data.is_empty()).ok_or(Status::INVALID_VALUE)?;
    /// `CU_MEM_LOCATION_TYPE_INVALID`, `_DEVICE`, `_HOST`.
    fn location_type(device: i32) -> i32 {
        match device {
            DEVICE_INVALID => 0,
            -1 => 2,
            _ => 1,
        }
    }
    let value = match attribute {
        1 => i32::from(hints.read_mostly),
        2 => hints.preferred,
        // Accessed by: nothing needs the advice, so it is not kept.
        3 => DEVICE_INVALID,
        4 => hints.last_prefetch,
        5 => location_type(hints.preferred),
        6 => hints.preferred.max(0),
        7 => location_type(hints.last_prefetch),
        8 => hints.last_prefetch.max(0),
        _ => return Err(Status::INVALID_VALUE),
    };
    if data.len() % 4 != 0 || (attribute != 3 && data.len() != 4) {
        return Err(Status::INVALID_VALUE);
    }
    data.as_chunks_mut::<4>().0.fill(value.to_le_bytes());
    Ok(())
}

pub fn cuMemAllocAsync(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytesize: u64,
    hStream: u64,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, hStream)?;
    device_alloc(
        cuda,
        call,
        dptr,
        Memory::Pool,
        bytesize,
        // SAFETY: the output is a variable of the right type, or NULL; the handle is the driver's.
        |out| unsafe { cuda.raw().cuMemAllocAsync(out, bytesize, stream) },
        // SAFETY: what was just allocated.
        |address| unsafe { cuda.raw().cuMemFreeAsync(address, stream) },
    )
}

pub fn cuMemFreeAsync(cuda: &CudaBackend, _: &mut Call<'_>, dptr: u64, hStream: u64) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, hStream)?;
    let known = cuda.memory.remove(dptr);
    // SAFETY: takes a number and a handle of the driver; what is no allocation is refused by it.
    let result = unsafe { cuda.raw().cuMemFreeAsync(dptr, stream) };
    if let (Err(_), Some(allocation)) = (result, known) {
        let _ = cuda.memory.reserve(allocation.len);
        cuda.memory.insert(allocation);
    }
    result
}
