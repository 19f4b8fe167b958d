//! The internal operation of `spec/logs.rs`.

use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::Buffer;
use crate::session::Call;

/// The driver keeps no more of its log, in bytes.
const LOG_LEN: u64 = 25_600;

pub fn logs_dump(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    iterator: u64,
    max_len: u64,
    flags: u32,
    end: Option<&mut u32>,
    text: Option<&mut Vec<u8>>,
) -> CuResult {
    if max_len > LOG_LEN {
        return Err(Status::INVALID_VALUE);
    }
    // From the beginning.
    let all = iterator == u64::MAX;
    let mut place = if all { 0 } else { u32::try_from(iterator).map_err(|_| Status::INVALID_VALUE)? };
    let mut buffer = Buffer::zeroed(max_len as usize);
    let mut len = max_len;
    let from = if all { core::ptr::null_mut() } else { &raw mut place };
    // SAFETY: a buffer of `len` bytes, and variables of the right types, or NULL.
    unsafe { cuda.raw().cuLogsDumpToMemory(from, buffer.as_mut_ptr(), &mut len, flags) }?;
    let len = usize::try_from(len).unwrap_or(0).min(max_len as usize);
    text.ok_or(Status::INVALID_VALUE)?.extend_from_slice(&buffer.bytes()[..len]);
    put(end, place)
}
