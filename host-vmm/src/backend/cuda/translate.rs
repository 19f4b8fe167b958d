//! Structures with handles in them: the ids of a request become the driver's handles, and the driver's become ids.
//!
//! One pair of functions per type of `Kind::Struct` in the table, by the type's name: `inward_NAME(cuda, bytes)` before the call,
//! `outward_NAME(cuda, call, bytes)` after it. Offsets are those of the header for 64-bit systems; `buffer::word` and `buffer::set_word` read and write
//! fields.
#![allow(non_snake_case)] // The driver's names.

use protocol::status::CuResult;

use super::CudaBackend;
use super::buffer::{half, word};
use crate::session::Call;

/// The rows that a fill writes must lie in the session's memory.
pub fn inward_CUDA_MEMSET_NODE_PARAMS(cuda: &CudaBackend, params: &mut [u8]) -> CuResult {
    fill_range(cuda, params)
}

/// Nothing in it but an address and numbers.
pub fn outward_CUDA_MEMSET_NODE_PARAMS(_: &CudaBackend, _: &Call<'_>, _: &mut [u8]) -> CuResult {
    Ok(())
}

/// Checks the memory that a `CUDA_MEMSET_NODE_PARAMS` names: address 0, pitch 8, element size 20, width in elements 24, height 32.
fn fill_range(cuda: &CudaBackend, params: &[u8]) -> CuResult {
    let (pitch, element, width, height) =
        (word(params, 8), u64::from(half(params, 20)), word(params, 24), word(params, 32));
    let row = element.saturating_mul(width);
    let before = if height > 1 { pitch.saturating_mul(height - 1) } else { 0 };
    cuda.range(word(params, 0), before.saturating_add(row).max(1)).map(drop)
}
