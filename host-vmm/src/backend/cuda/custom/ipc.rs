//! The hand-written rows of `spec/ipc.rs`.

use protocol::status::{CuResult, Status};

use super::{mapped_len, put};
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::out;
use crate::generated::cuda_raw::Bytes;
use crate::session::Call;

pub fn cuIpcOpenMemHandle_v2(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    pdptr: Option<&mut u64>,
    handle: [u8; 64],
    flags: u32,
) -> CuResult {
    let mut address = 0;
    // SAFETY: the output is a variable of the right type, or NULL; the handle is passed by value, and the driver checks it.
    unsafe { cuda.raw().cuIpcOpenMemHandle_v2(out(pdptr.is_some(), &mut address), Bytes(handle), flags) }?;
    if !cuda.known_to_program(address, mapped_len(cuda, address)) {
        // SAFETY: what was just opened.
        let _ = unsafe { cuda.raw().cuIpcCloseMemHandle(address) };
        return Err(Status::OUT_OF_MEMORY);
    }
    put(pdptr, address)
}

pub fn cuIpcCloseMemHandle(cuda: &CudaBackend, call: &mut Call<'_>, dptr: u64) -> CuResult {
    // SAFETY: takes a number; what was not opened is refused by the driver.
    let result = unsafe { cuda.raw().cuIpcCloseMemHandle(dptr) };
    cuda.flushed(call);
    result
}
