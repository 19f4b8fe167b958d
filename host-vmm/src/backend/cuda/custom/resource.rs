//! The internal operation of `spec/resource.rs`.

use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cuda::buffer::Buffer;
use crate::backend::cuda::objects::RESOURCE_LEN;
use crate::backend::cuda::{CudaBackend, translate};
use crate::session::Call;

/// More groups than any device has multiprocessors.
const MAX_GROUPS: u32 = 4096;

pub fn sm_resource_split(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    wanted: u32,
    input: Option<&[u8; 144]>,
    flags: u32,
    min_count: u32,
    groups: Option<&mut u32>,
    remaining: Option<&mut [u8; 144]>,
    result: Option<&mut Vec<u8>>,
) -> CuResult {
    if wanted > MAX_GROUPS {
        return Err(Status::INVALID_VALUE);
    }
    let mut input = Buffer::new(input.map(|bytes| &bytes[..]));
    input.each(|bytes| translate::inward_CUdevResource(cuda, bytes))?;
    let mut rest = Buffer::new(remaining.as_ref().map(|bytes| &bytes[..]));
    // Without a result the driver only counts.
    let mut found = match result {
        Some(_) => Buffer::zeroed(wanted as usize * RESOURCE_LEN),
        None => Buffer::new(None),
    };
    let mut count = wanted;
    // SAFETY: room for `wanted` groups and for one resource, or NULL; the input is the driver's own resource, or NULL.
    unsafe {
        cuda.raw().cuDevSmResourceSplitByCount(
            found.as_mut_ptr(),
            &mut count,
            input.as_ptr(),
            rest.as_mut_ptr(),
            flags,
            min_count,
        )
    }?;
    let mut left = count.min(wanted);
    found.each_of(RESOURCE_LEN, |bytes| {
        if left == 0 {
            bytes.fill(0);
            return Ok(());
        }
        left -= 1;
        translate::outward_CUdevResource(cuda, call, bytes)
    })?;
    rest.each(|bytes| translate::outward_CUdevResource(cuda, call, bytes))?;
    rest.give(remaining.map(|bytes| &mut bytes[..]));
    if let Some(result) = result {
        result.extend_from_slice(&found.bytes()[..count.min(wanted) as usize * RESOURCE_LEN]);
    }
    put(groups, count)
}
