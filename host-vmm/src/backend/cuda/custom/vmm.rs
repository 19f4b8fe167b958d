//! The rows of `spec/vmm.rs`. The driver checks ranges of addresses against what it has reserved and mapped, so they are passed on as they are.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::{Buffer, half, out, pointer};
use crate::backend::cuda::exchange;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn cuMemAddressReserve(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    ptr: Option<&mut u64>,
    size: u64,
    alignment: u64,
    addr: u64,
    flags: u64,
) -> CuResult {
    let mut start = 0;
    // SAFETY: the output is a variable of the right type, or NULL.
    unsafe { cuda.raw().cuMemAddressReserve(out(ptr.is_some(), &mut start), size, alignment, addr, flags) }?;
    if !cuda.known_to_program(start, size) {
        // SAFETY: what was just reserved.
        let _ = unsafe { cuda.raw().cuMemAddressFree(start, size) };
        return Err(Status::OUT_OF_MEMORY);
    }
    put(ptr, start)
}

pub fn cuMemAddressFree(cuda: &CudaBackend, _: &mut Call<'_>, ptr: u64, size: u64) -> CuResult {
    // SAFETY: takes numbers; what is not reserved is refused by the driver.
    unsafe { cuda.raw().cuMemAddressFree(ptr, size) }
}

/// `CU_MEM_LOCATION_TYPE_DEVICE`
const DEVICE: u32 = 1;

pub fn cuMemCreate(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    handle: Option<&mut u64>,
    size: u64,
    prop: Option<&[u8; 32]>,
    flags: u64,
) -> CuResult {
    cuda.room()?;
    // The location's type is behind the types of allocation and handle. The program's library refuses the same.
    if prop.is_some_and(|prop| half(prop, 8) > DEVICE) {
        return Err(Status::NOT_SUPPORTED);
    }
    cuda.memory.reserve(size)?;
    let mut raw = 0;
    let prop = Buffer::new(prop.map(|bytes| &bytes[..]));
    // SAFETY: the structure is as the driver expects it, or NULL; the output is a variable of the right type, or NULL.
    let made = unsafe { cuda.raw().cuMemCreate(out(handle.is_some(), &mut raw), size, prop.as_ptr(), flags) };
    if let Err(status) = made {
        cuda.memory.unreserve(size);
        return Err(status);
    }
    cuda.objects.allocations.enter(raw, size);
    put(handle, cuda.born(call, Kind::CUmemGenericAllocationHandle, raw, Some(0))?)
}

pub fn cuMemRelease(cuda: &CudaBackend, _: &mut Call<'_>, handle: u64) -> CuResult {
    let raw = cuda.inward(Kind::CUmemGenericAllocationHandle, handle)?;
    let (number, last) = cuda.objects.allocations.releasing(raw);
    let (raw, dying) = if last { cuda.dying(Kind::CUmemGenericAllocationHandle, handle)? } else { (raw, 0) };
    if last {
        cuda.objects.exchange.gone(Kind::CUmemGenericAllocationHandle, raw);
    }
    // SAFETY: takes a handle of the driver.
    let result = unsafe { cuda.raw().cuMemRelease(raw) };
    if last {
        cuda.settle(&result, [dying]);
    }
    match result {
        Ok(()) => cuda.memory.unreserve(cuda.objects.allocations.released(number)),
        Err(_) => cuda.objects.allocations.not_released(raw, number),
    }
    result
}

pub fn cuMemMap(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    ptr: u64,
    size: u64,
    offset: u64,
    handle: u64,
    flags: u64,
) -> CuResult {
    let raw = cuda.inward(Kind::CUmemGenericAllocationHandle, handle)?;
    // SAFETY: takes numbers and a handle of the driver.
    unsafe { cuda.raw().cuMemMap(ptr, size, offset, raw, flags) }?;
    cuda.objects.allocations.mapped(ptr, size, raw);
    Ok(())
}

pub fn cuMemUnmap(cuda: &CudaBackend, call: &mut Call<'_>, ptr: u64, size: u64) -> CuResult {
    // SAFETY: takes numbers; what is not mapped is refused by the driver.
    let result = unsafe { cuda.raw().cuMemUnmap(ptr, size) };
    if result.is_ok() {
        cuda.memory.unreserve(cuda.objects.allocations.unmapped(ptr, size));
    }
    cuda.flushed(call);
    result
}

pub fn cuMemSetAccess(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    ptr: u64,
    size: u64,
    desc: Option<&[u8]>,
    count: u64,
) -> CuResult {
    let desc = Buffer::new(desc);
    // SAFETY: `count` structures (the length of the block was checked against it), or NULL.
    unsafe { cuda.raw().cuMemSetAccess(ptr, size, desc.as_ptr(), count) }
}

pub fn cuMemRetainAllocationHandle(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    handle: Option<&mut u64>,
    addr: u64,
) -> CuResult {
    cuda.room()?;
    let mut raw = 0;
    // SAFETY: the output is a variable of the right type, or NULL; an address that is not mapped is refused by the driver.
    unsafe { cuda.raw().cuMemRetainAllocationHandle(out(handle.is_some(), &mut raw), pointer(addr)) }?;
    cuda.objects.allocations.enter_mapped(raw, addr);
    put(handle, cuda.born(call, Kind::CUmemGenericAllocationHandle, raw, Some(0))?)
}

/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`, `_FABRIC`
const DESCRIPTOR: u32 = 1;
const FABRIC: u32 = 8;

/// Exports an object: a fabric handle as it is, a descriptor by a ticket.
pub fn export(
    cuda: &CudaBackend,
    (kind, raw): (Kind, u64),
    handle_type: u32,
    by: impl FnOnce(*mut core::ffi::c_void) -> CuResult,
) -> CuResult<[u8; 64]> {
    let mut shared = [0; 64];
    match handle_type {
        DESCRIPTOR => {
            // Whether a pool is still the same one is not known here.
            let known =
                (kind == Kind::CUmemGenericAllocationHandle).then(|| cuda.objects.exchange.known(kind, raw));
            let ticket = match known.flatten() {
                Some(ticket) => ticket,
                None => {
                    let mut descriptor: core::ffi::c_int = -1;
                    by((&raw mut descriptor).cast())?;
                    if descriptor < 0 {
                        return Err(Status::UNKNOWN);
                    }
                    // SAFETY: the driver has just made it for the caller.
                    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
                    cuda.objects.exchange.publish(kind, raw, descriptor).map_err(|error| {
                        tracing::warn!(%error, "shared memory cannot be exported");
                        Status::OUT_OF_MEMORY
                    })?
                }
            };
            shared[..ticket.len()].copy_from_slice(&ticket);
        }
        FABRIC => {
            let mut fabric = Buffer::zeroed(64);
            by(fabric.as_mut_ptr())?;
            fabric.give(Some(&mut shared));
        }
        _ => return Err(Status::NOT_SUPPORTED),
    }
    Ok(shared)
}

/// Imports what `export` has given, perhaps in another worker: `by` gets the handle as the driver wants it.
pub fn import(
    shared: Option<&[u8; 64]>,
    handle_type: u32,
    by: impl FnOnce(*mut core::ffi::c_void) -> CuResult,
) -> CuResult {
    let shared = shared.ok_or(Status::INVALID_VALUE)?;
    match handle_type {
        DESCRIPTOR => {
            let ticket = shared.first_chunk().ok_or(Status::INVALID_VALUE)?;
            let descriptor = exchange::fetch(ticket).map_err(|error| {
                tracing::info!(%error, "shared memory cannot be imported");
                Status::INVALID_VALUE
            })?;
            // A descriptor is passed as the pointer's value. The driver keeps no hold of it.
            by(pointer(descriptor.as_raw_fd().cast_unsigned().into()))
        }
        FABRIC => by(Buffer::new(Some(shared)).as_mut_ptr()),
        _ => Err(Status::NOT_SUPPORTED),
    }
}

pub fn memory_export(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    handle: u64,
    handle_type: u32,
    flags: u64,
    shared: Option<&mut [u8; 64]>,
) -> CuResult {
    let raw = cuda.inward(Kind::CUmemGenericAllocationHandle, handle)?;
    let exported = export(cuda, (Kind::CUmemGenericAllocationHandle, raw), handle_type, |place| {
        // SAFETY: room for a handle of that type; the handle is the driver's.
        unsafe { cuda.raw().cuMemExportToShareableHandle(place, raw, handle_type, flags) }
    })?;
    put(shared, exported)
}

pub fn memory_import(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    handle: Option<&mut u64>,
    shared: Option<&[u8; 64]>,
    handle_type: u32,
) -> CuResult {
    cuda.room()?;
    let mut raw = 0;
    import(shared, handle_type, |shared| {
        // SAFETY: a handle of that type; the output is a variable of the right type.
        unsafe { cuda.raw().cuMemImportFromShareableHandle(&mut raw, shared, handle_type) }
    })?;
    // The memory counts where it was made.
    cuda.objects.allocations.enter(raw, 0);
    put(handle, cuda.born(call, Kind::CUmemGenericAllocationHandle, raw, Some(0))?)
}
