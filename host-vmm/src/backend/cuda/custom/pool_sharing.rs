//! The hand-written rows of `spec/pool_sharing.rs`.

use protocol::status::{CuResult, Status};

use super::vmm::{export, import};
use super::{mapped_len, put};
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::{Buffer, out};
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn pool_export(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    pool: u64,
    handle_type: u32,
    flags: u64,
    shared: Option<&mut [u8; 64]>,
) -> CuResult {
    let raw = cuda.inward(Kind::CUmemoryPool, pool)?;
    let exported = export(cuda, (Kind::CUmemoryPool, raw), handle_type, |place| {
        // SAFETY: room for a handle of that type; the pool is the driver's.
        unsafe { cuda.raw().cuMemPoolExportToShareableHandle(place, raw, handle_type, flags) }
    })?;
    put(shared, exported)
}

pub fn pool_import(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    pool: Option<&mut u64>,
    shared: Option<&[u8; 64]>,
    handle_type: u32,
    flags: u64,
) -> CuResult {
    cuda.room()?;
    let mut raw = 0;
    import(shared, handle_type, |shared| {
        // SAFETY: a handle of that type; the output is a variable of the right type.
        unsafe { cuda.raw().cuMemPoolImportFromShareableHandle(&mut raw, shared, handle_type, flags) }
    })?;
    put(pool, cuda.born(call, Kind::CUmemoryPool, raw, None)?)
}

pub fn cuMemPoolImportPointer(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    ptr_out: Option<&mut u64>,
    pool: u64,
    share_data: Option<&[u8; 64]>,
) -> CuResult {
    let pool = cuda.inward(Kind::CUmemoryPool, pool)?;
    let mut share_data = Buffer::new(share_data.map(|bytes| &bytes[..]));
    let mut address = 0;
    // SAFETY: the structure has its size, or is NULL; the output is a variable of the right type, or NULL.
    unsafe {
        cuda.raw().cuMemPoolImportPointer(out(ptr_out.is_some(), &mut address), pool, share_data.as_mut_ptr())
    }?;
    if !cuda.known_to_program(address, mapped_len(cuda, address)) {
        // SAFETY: what was just imported.
        let _ = unsafe { cuda.raw().cuMemFree_v2(address) };
        return Err(Status::OUT_OF_MEMORY);
    }
    put(ptr_out, address)
}
