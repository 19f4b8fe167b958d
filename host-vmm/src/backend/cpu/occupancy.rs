//! How many blocks fit on a multiprocessor: the usual limits on warps, blocks, registers and shared memory.

use super::device::{REGISTERS, Shape, WARP_SIZE};

/// Registers are allocated to warps in units of this many.
const REGISTER_UNIT: u32 = 256;
/// Shared memory is allocated to blocks in units of this many bytes.
const SHARED_UNIT: u32 = 128;

/// What a kernel needs of a multiprocessor.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Registers per thread.
    pub registers: u32,
    /// Static shared memory in bytes.
    pub static_shared: u32,
    /// Most threads of a block.
    pub max_threads: u32,
}

/// Blocks of `block_size` threads with `dynamic_shared` bytes that fit on a multiprocessor at the same time.
pub fn blocks_per_multiprocessor(shape: &Shape, need: &Need, block_size: u32, dynamic_shared: u64) -> u32 {
    if block_size == 0 || block_size > need.max_threads {
        return 0;
    }
    let warps = block_size.div_ceil(WARP_SIZE);
    let by_warps = shape.threads_per_multiprocessor / WARP_SIZE / warps;
    let per_warp = (need.registers.max(1) * WARP_SIZE).next_multiple_of(REGISTER_UNIT);
    let by_registers = REGISTERS / per_warp / warps;
    let shared = u64::from(need.static_shared) + dynamic_shared;
    if shared > u64::from(shape.shared_optin) {
        return 0;
    }
    let shared = (shared as u32 + shape.shared_reserved).next_multiple_of(SHARED_UNIT);
    let by_shared = shape.shared_per_multiprocessor.checked_div(shared).unwrap_or(u32::MAX);
    by_warps.min(by_registers).min(by_shared).min(shape.blocks_per_multiprocessor)
}

/// The block size with the most resident threads, the largest such size, and the grid that fills `multiprocessors` with it.
/// `dynamic_shared` gives the bytes for a block size; `limit` bounds the size (0: no bound).
pub fn best_block_size(
    shape: &Shape,
    need: &Need,
    multiprocessors: u32,
    dynamic_shared: impl Fn(u32) -> u64,
    limit: u32,
) -> (u32, u32) {
    let most = if limit == 0 { need.max_threads } else { limit.min(need.max_threads) };
    let mut best = (0, 0);
    let mut best_threads = 0;
    let mut size = most;
    while size > 0 {
        let blocks = blocks_per_multiprocessor(shape, need, size, dynamic_shared(size));
        if blocks * size > best_threads {
            best_threads = blocks * size;
            best = (size, blocks * multiprocessors);
        }
        // Whole warps below the first candidate.
        size = (size - 1) / WARP_SIZE * WARP_SIZE;
    }
    best
}

/// Dynamic shared memory that each of `blocks` blocks of a multiprocessor can have.
pub fn available_shared(shape: &Shape, need: &Need, blocks: u32) -> u64 {
    let Some(share) = shape.shared_per_multiprocessor.checked_div(blocks) else { return 0 };
    let share = share / SHARED_UNIT * SHARED_UNIT;
    u64::from(
        share
            .saturating_sub(shape.shared_reserved)
            .min(shape.shared_optin)
            .saturating_sub(need.static_shared),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape::of("8.9".parse().unwrap())
    }

    const NEED: Need = Need { registers: 32, static_shared: 0, max_threads: 1024 };

    #[test]
    fn each_limit_bounds_the_number() {
        assert_eq!(blocks_per_multiprocessor(&shape(), &NEED, 256, 0), 6);
        assert_eq!(blocks_per_multiprocessor(&shape(), &NEED, 32, 0), 24);
        assert_eq!(blocks_per_multiprocessor(&shape(), &Need { registers: 128, ..NEED }, 256, 0), 2);
        assert_eq!(blocks_per_multiprocessor(&shape(), &NEED, 64, 40 << 10), 2);
        assert_eq!(blocks_per_multiprocessor(&shape(), &NEED, 64, 99 << 10), 1);
        assert_eq!(blocks_per_multiprocessor(&shape(), &NEED, 64, (99 << 10) + 1), 0);
        assert_eq!(blocks_per_multiprocessor(&shape(), &NEED, 1025, 0), 0);
        assert_eq!(blocks_per_multiprocessor(&shape(), &NEED, 0, 0), 0);
        assert_eq!(blocks_per_multiprocessor(&shape(), &NEED, 64, u64::MAX / 2), 0);
    }

    #[test]
    fn best_size_fills_the_multiprocessor() {
        let (size, grid) = best_block_size(&shape(), &NEED, 4, |_| 0, 0);
        assert_eq!((size, grid), (768, 8));
        assert_eq!(best_block_size(&shape(), &NEED, 4, |_| 0, 100).0, 96);
    }

    #[test]
    fn available_shared_memory_lets_the_blocks_fit() {
        for blocks in 1..=24 {
            let shared = available_shared(&shape(), &NEED, blocks);
            assert!(blocks_per_multiprocessor(&shape(), &NEED, 64, shared) >= blocks, "{blocks}: {shared}");
        }
        assert_eq!(available_shared(&shape(), &NEED, 0), 0);
    }
}
