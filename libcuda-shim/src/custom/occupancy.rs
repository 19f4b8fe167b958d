#![allow(unsafe_code)]
//! Occupancy. The host answers how many blocks fit; what follows from it is computed here, where the program's function for dynamic shared memory can
//! be called. Unsafe because of that function and of the caller's pointers.

use core::ffi::{c_int, c_uint};

use protocol::function::FunctionInfo;
use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::custom::device;
use crate::custom::launch::shape_of;
use crate::generated::wire;
use crate::pointer::out;
use crate::process::process;
use crate::types::*;

/// The handle, if it is one of a function.
fn known(function: CUfunction) -> Result<u64, Status> {
    require_init()?;
    process().functions.get(function as u64).map(|function| function.handle)
}

fn active_blocks(function: u64, block_size: c_int, shared: usize, flags: c_uint) -> Result<c_int, Status> {
    let mut blocks = 0;
    wire::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        Some(&mut blocks),
        function,
        block_size,
        shared as u64,
        flags,
    )?;
    Ok(blocks)
}

pub unsafe fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: CUfunction,
    block_size: c_int,
    shared: usize,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, block_size, shared, 0) }
}

pub unsafe fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: *mut c_int,
    function: CUfunction,
    block_size: c_int,
    shared: usize,
    flags: c_uint,
) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let blocks = unsafe { out(blocks) }?;
    *blocks = active_blocks(known(function)?, block_size, shared, flags)?;
    Ok(())
}

pub unsafe fn cuOccupancyAvailableDynamicSMemPerBlock(
    shared: *mut usize,
    function: CUfunction,
    blocks: c_int,
    block_size: c_int,
) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let shared = unsafe { out(shared) }?;
    let mut found = 0;
    wire::cuOccupancyAvailableDynamicSMemPerBlock(Some(&mut found), known(function)?, blocks, block_size)?;
    *shared = found as usize;
    Ok(())
}

pub unsafe fn cuOccupancyMaxPotentialBlockSize(
    min_grid_size: *mut c_int,
    block_size: *mut c_int,
    function: CUfunction,
    shared_of: CUoccupancyB2DSize,
    shared: usize,
    limit: c_int,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe {
        cuOccupancyMaxPotentialBlockSizeWithFlags(
            min_grid_size,
            block_size,
            function,
            shared_of,
            shared,
            limit,
            0,
        )
    }
}

const ATTRIBUTE_WARP_SIZE: u32 = 10;
const ATTRIBUTE_MULTIPROCESSOR_COUNT: u32 = 16;

/// The block size with the most resident threads; among equals the largest.
pub unsafe fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    min_grid_size: *mut c_int,
    block_size: *mut c_int,
    function: CUfunction,
    shared_of: CUoccupancyB2DSize,
    shared: usize,
    limit: c_int,
    flags: c_uint,
) -> CuResult {
    let function = known(function)?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let min_grid_size = unsafe { out(min_grid_size) }?;
    // SAFETY: as above.
    let block_size = unsafe { out(block_size) }?;
    let device = device::current()?;
    let warp = device::attribute(device, ATTRIBUTE_WARP_SIZE)?.max(1);
    let processors = device::attribute(device, ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let max = process().functions.get(function)?.attribute(FunctionInfo::MAX_THREADS_PER_BLOCK).unwrap_or(0);
    let max = if limit > 0 { max.min(limit) } else { max };

    let (mut best, mut best_blocks, mut best_threads) = (0, 0, 0);
    // Down from the largest: a size that is no multiple of the warp is tried first, if it is the limit.
    let mut size = max;
    while size > 0 {
        let shared = match shared_of {
            // SAFETY: the program gave the function for this purpose.
            Some(shared_of) => unsafe { shared_of(size) },
            None => shared,
        };
        let blocks = active_blocks(function, size, shared, flags)?;
        if blocks * size > best_threads {
            (best, best_blocks, best_threads) = (size, blocks, blocks * size);
        }
        size = (size - 1) / warp * warp;
    }
    *block_size = best;
    *min_grid_size = best_blocks * processors;
    Ok(())
}

unsafe fn clusters(function: CUfunction, config: *const CUlaunchConfig) -> Result<(c_int, c_int), Status> {
    let function = known(function)?;
    // SAFETY: the caller passes a configuration, or NULL.
    let (shape, cluster) = unsafe { shape_of(config) }?;
    let (mut active, mut largest) = (0, 0);
    wire::occupancy_clusters(
        function,
        shape.block[0],
        shape.block[1],
        shape.block[2],
        shape.dynamic_shared_bytes,
        cluster[0],
        cluster[1],
        cluster[2],
        Some(&mut active),
        Some(&mut largest),
    )?;
    Ok((active, largest))
}

pub unsafe fn cuOccupancyMaxActiveClusters(
    count: *mut c_int,
    function: CUfunction,
    config: *const CUlaunchConfig,
) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let count = unsafe { out(count) }?;
    // SAFETY: passed on as received.
    *count = unsafe { clusters(function, config) }?.0;
    Ok(())
}

pub unsafe fn cuOccupancyMaxPotentialClusterSize(
    size: *mut c_int,
    function: CUfunction,
    config: *const CUlaunchConfig,
) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let size = unsafe { out(size) }?;
    // SAFETY: passed on as received.
    *size = unsafe { clusters(function, config) }?.1;
    Ok(())
}
