//! Structures with handles in them: the ids of a request become the driver's handles, and the driver's become ids.
//!
//! One pair of functions per type of `Kind::Struct` in the table, by the type's name: `inward_NAME(cuda, bytes)` before the call,
//! `outward_NAME(cuda, call, bytes)` after it. Offsets are those of the header for 64-bit systems; `buffer::word` and `buffer::set_word` read and write
//! fields.
#![allow(non_snake_case)] // The driver's names.

use protocol::status::{CuResult, Status};

use super::CudaBackend;
use super::buffer::{half, set_word, word};
use crate::generated::cuda_raw::Kind;
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

/// `CUresourcetype`
const RESOURCE_ARRAY: u32 = 0;
const RESOURCE_MIPMAPPED_ARRAY: u32 = 1;
const RESOURCE_LINEAR: u32 = 2;
const RESOURCE_PITCH2D: u32 = 3;

/// CUDA_RESOURCE_DESC: type 0; handle or address 8, of linear memory the length 24, of rows the height 32 and the pitch 40.
pub fn inward_CUDA_RESOURCE_DESC(cuda: &CudaBackend, bytes: &mut [u8]) -> CuResult {
    let first = word(bytes, 8);
    let first = match half(bytes, 0) {
        RESOURCE_ARRAY => cuda.inward(Kind::CUarray, first)?,
        RESOURCE_MIPMAPPED_ARRAY => cuda.inward(Kind::CUmipmappedArray, first)?,
        RESOURCE_LINEAR | RESOURCE_PITCH2D => cuda.address(first)?,
        // The driver says what is wrong.
        _ => 0,
    };
    set_word(bytes, 8, first);
    Ok(())
}

pub fn outward_CUDA_RESOURCE_DESC(cuda: &CudaBackend, call: &mut Call<'_>, bytes: &mut [u8]) -> CuResult {
    let first = word(bytes, 8);
    let first = match half(bytes, 0) {
        RESOURCE_ARRAY => cuda.born(call, Kind::CUarray, first, None)?,
        RESOURCE_MIPMAPPED_ARRAY => cuda.born(call, Kind::CUmipmappedArray, first, None)?,
        _ => first,
    };
    set_word(bytes, 8, first);
    Ok(())
}

/// `CU_MEM_OPERATION_TYPE_MAP`
const MAP: u32 = 1;

/// CUarrayMapInfo: resource type 0, resource 8, operation 56, memory 64.
pub fn inward_CUarrayMapInfo(cuda: &CudaBackend, bytes: &mut [u8]) -> CuResult {
    let kind = match half(bytes, 0) {
        RESOURCE_ARRAY => Kind::CUarray,
        RESOURCE_MIPMAPPED_ARRAY => Kind::CUmipmappedArray,
        _ => return Err(Status::INVALID_VALUE),
    };
    let resource = cuda.inward(kind, word(bytes, 8))?;
    let memory = match half(bytes, 56) {
        MAP => cuda.inward(Kind::CUmemGenericAllocationHandle, word(bytes, 64))?,
        _ => 0,
    };
    set_word(bytes, 8, resource);
    set_word(bytes, 64, memory);
    Ok(())
}

pub fn inward_CUdevResource(cuda: &CudaBackend, bytes: &mut [u8]) -> CuResult {
    cuda.objects.resources.inward(bytes)
}

pub fn outward_CUdevResource(cuda: &CudaBackend, _: &mut Call<'_>, bytes: &mut [u8]) -> CuResult {
    cuda.objects.resources.outward(bytes)
}

/// CUmemDecompressParams: lengths of source and destination 0 and 8, addresses of the length that comes out 16, the source 24, the destination 32.
pub fn inward_CUmemDecompressParams(cuda: &CudaBackend, bytes: &mut [u8]) -> CuResult {
    for (address, len) in [(16, 4), (24, word(bytes, 0)), (32, word(bytes, 8))] {
        let address = word(bytes, address);
        if address != 0 {
            cuda.range(address, len)?;
        }
    }
    Ok(())
}

/// `CUstreamBatchMemOpType`: those without an address.
const FLUSH_REMOTE_WRITES: u32 = 3;
const BARRIER: u32 = 6;
/// The one with its address at 16.
const ATOMIC_REDUCTION: u32 = 8;

/// CUstreamBatchMemOpParams: operation 0, address 8, value 16, flags 24, and the driver's own word 32.
pub fn inward_CUstreamBatchMemOpParams(cuda: &CudaBackend, bytes: &mut [u8]) -> CuResult {
    match half(bytes, 0) {
        FLUSH_REMOTE_WRITES | BARRIER => {}
        ATOMIC_REDUCTION => {
            cuda.address(word(bytes, 16))?;
            set_word(bytes, 32, 0);
        }
        _ => {
            cuda.address(word(bytes, 8))?;
            set_word(bytes, 32, 0);
        }
    }
    Ok(())
}
