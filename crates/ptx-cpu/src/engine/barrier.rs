//! The 16 barriers of a block.
//!
//! Arrivals are counted per thread; a warp of which all live threads have arrived counts as 32, as the hardware counts warps. A barrier
//! without a thread count, or with one that covers the block, waits for all live threads; exited threads leave it.

use super::warp::{WARP_LEN, lanes};
use crate::abi::{Thread, op};

/// Barriers per block.
pub(crate) const BARRIERS: usize = 16;
const WARPS: usize = 32;

#[derive(Clone)]
struct Barrier {
    /// Threads to wait for, 0 for all.
    expected: u32,
    /// Lanes per warp that wait, and that have arrived without waiting.
    waiting: [u32; WARPS],
    arrived: [u32; WARPS],
    /// Arrivals of threads that had arrived already in this phase.
    repeated: u32,
    /// Whether some thread wants a reduction.
    reduction: bool,
}

/// State of all barriers.
pub(crate) struct Barriers {
    all: Box<[Barrier; BARRIERS]>,
    /// Barriers at which somebody waits or has arrived.
    used: u32,
}

impl Barriers {
    pub(crate) fn new() -> Self {
        let empty =
            Barrier { expected: 0, waiting: [0; WARPS], arrived: [0; WARPS], repeated: 0, reduction: false };
        Barriers { all: Box::new(std::array::from_fn(|_| empty.clone())), used: 0 }
    }

    /// Forgets everything, for the next block.
    pub(crate) fn clear(&mut self) {
        for index in lanes(self.used) {
            self.all[index].clear();
        }
        self.used = 0;
    }

    /// A thread has parked at a barrier. True if it need not wait. None if there is no such barrier.
    #[inline]
    pub(crate) fn arrive(&mut self, warp: usize, lane_bit: u32, thread: &Thread) -> Option<bool> {
        let number = thread.park.mask as usize;
        let barrier = self.all.get_mut(number)?;
        self.used |= 1 << number;
        barrier.expected = barrier.expected.max(u32::try_from(thread.park.a).unwrap_or(u32::MAX));
        if thread.park.op == op::BARRIER_ARRIVE {
            barrier.repeated += u32::from(barrier.arrived[warp] & lane_bit != 0);
            barrier.arrived[warp] |= lane_bit;
            return Some(true);
        }
        barrier.waiting[warp] |= lane_bit;
        barrier.reduction |= thread.park.op != op::BARRIER_SYNC;
        Some(false)
    }

    /// Completes the barriers that have all they wait for: writes results and calls `release(warp, lanes)`. True if any did.
    pub(crate) fn complete(
        &mut self,
        threads: &mut [Thread],
        live: &[u32],
        mut release: impl FnMut(usize, u32),
    ) -> bool {
        let mut any = false;
        for number in lanes(self.used) {
            let barrier = &mut self.all[number];
            if !barrier.is_complete(live) {
                continue;
            }
            if barrier.reduction {
                barrier.reduce(threads);
            }
            for (warp, &waiting) in barrier.waiting.iter().enumerate().take(live.len()) {
                if waiting != 0 {
                    release(warp, waiting);
                }
            }
            barrier.clear();
            self.used &= !(1 << number);
            any = true;
        }
        any
    }
}

impl Barrier {
    fn clear(&mut self) {
        self.expected = 0;
        self.waiting = [0; WARPS];
        self.arrived = [0; WARPS];
        self.repeated = 0;
        self.reduction = false;
    }

    fn is_complete(&self, live: &[u32]) -> bool {
        if self.expected == 0 || self.expected as usize >= live.len() * WARP_LEN {
            let all = live
                .iter()
                .enumerate()
                .all(|(warp, live)| live & !(self.waiting[warp] | self.arrived[warp]) == 0);
            return all;
        }
        let mut count = self.repeated;
        for (warp, &live) in live.iter().enumerate() {
            let here = self.waiting[warp] | self.arrived[warp];
            count += if here != 0 && live & !here == 0 { WARP_LEN as u32 } else { here.count_ones() };
        }
        count >= self.expected
    }

    fn reduce(&self, threads: &mut [Thread]) {
        let waiting = || {
            let warps = self.waiting.iter().enumerate();
            warps.flat_map(|(warp, &mask)| lanes(mask).map(move |lane| warp * WARP_LEN + lane))
        };
        let (mut count, mut all) = (0, true);
        for index in waiting() {
            let park = &threads[index].park;
            if park.op != op::BARRIER_SYNC {
                count += u64::from(park.b != 0);
                all &= park.b != 0;
            }
        }
        for index in waiting() {
            let park = &mut threads[index].park;
            match park.op {
                op::BARRIER_RED_POPC => park.result = count,
                op::BARRIER_RED_AND => park.predicate = u64::from(all),
                op::BARRIER_RED_OR => park.predicate = u64::from(count != 0),
                _ => {}
            }
        }
    }
}
