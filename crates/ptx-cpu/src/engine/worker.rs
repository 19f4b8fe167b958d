//! Takes blocks of grids and runs them on one thread.

use std::sync::Arc;
use std::time::Duration;

use super::job::Hold;
use super::output::OutputSink;
use super::slot::{Slot, Step, blank_thread, grow, local_stride, unexpected};
use super::{EngineConfig, Pool};
use crate::abi::Outcome;
use crate::fault::{Entered, FAULTED};
use crate::region::{Arena, Region};

/// Most blocks of a kernel without suspension that are taken at once.
const CHUNK_MAX: u64 = 64;
/// Thread runs of spinning blocks, per resident block, before another block is taken on. High, because a loop with atomics looks like
/// spinning; blocks come in order, so what others wait for is rarely a block that has not begun.
const SPINS_PER_RESIDENT: u64 = 1 << 16;
/// Rounds over all resident blocks without any progress before the processor is offered to others, and before sleeping.
const ROUNDS_BEFORE_YIELD: u32 = 8;
const ROUNDS_BEFORE_SLEEP: u32 = 4096;
/// Most memory kept in slots that are not in use; one is kept in any case.
const SPARE_MAX: u64 = 64 << 20;
const SLEEP: Duration = Duration::from_micros(50);

/// On whose behalf blocks are run.
#[derive(Clone, Copy)]
pub(super) enum Helpers<'a> {
    /// An engine thread: any grid.
    Pool(&'a Pool),
    /// A launching thread: its own grid only; output goes here.
    Caller(&'a dyn OutputSink),
}

/// Arenas and resident blocks of a thread, kept for reuse.
pub(super) struct Worker {
    region: Arc<Region>,
    config: EngineConfig,
    shared: Option<Arena>,
    local: Option<Arena>,
    residents: Vec<Slot>,
    spare: Vec<Slot>,
}

impl Worker {
    pub(super) fn new(region: Arc<Region>, config: EngineConfig) -> Self {
        Worker { region, config, shared: None, local: None, residents: Vec::new(), spare: Vec::new() }
    }

    /// Runs blocks of the grid until it has none left, and of others as need be.
    pub(super) fn run(&mut self, entered: &Entered<'_>, hold: Hold, helpers: Helpers<'_>) {
        self.start(entered, hold, helpers);
        let (mut spins, mut rounds) = (0u64, 0u32);
        while !self.residents.is_empty() {
            let mut moved = false;
            let mut index = 0;
            while let Some(slot) = self.residents.get_mut(index) {
                match slot.run(entered) {
                    Step::Finished => {
                        moved = true;
                        if !slot.next_block() {
                            self.retire(index);
                        }
                        continue;
                    }
                    Step::Spinning { moved: slot_moved, runs } => {
                        moved |= slot_moved;
                        spins += runs;
                        index += 1;
                    }
                    Step::Stopped => {
                        slot.abandon();
                        self.retire(index);
                    }
                }
                if let Helpers::Caller(output) = helpers
                    && let Some(slot) = self.residents.first()
                {
                    slot.drain_output(output);
                }
            }
            let cooperative = self.residents.iter().any(|slot| slot.is_cooperative());
            let patience = if cooperative { 0 } else { SPINS_PER_RESIDENT * self.residents.len() as u64 };
            if spins >= patience
                && !self.residents.is_empty()
                && self.residents.len() < self.config.max_resident_blocks
                && let Some(hold) = self.more(helpers)
            {
                spins = 0;
                self.start(entered, hold, helpers);
                continue;
            }
            rounds = if moved { 0 } else { rounds.saturating_add(1) };
            if rounds > ROUNDS_BEFORE_SLEEP {
                std::thread::sleep(SLEEP);
            } else if rounds > ROUNDS_BEFORE_YIELD {
                std::thread::yield_now();
            }
        }
    }

    /// A grid with blocks that could be begun.
    fn more(&self, helpers: Helpers<'_>) -> Option<Hold> {
        match helpers {
            Helpers::Pool(pool) => self
                .residents
                .iter()
                .find(|slot| slot.is_cooperative())
                .and_then(|slot| slot.hold_again())
                .or_else(|| pool.try_take()),
            Helpers::Caller(_) => self.residents.first()?.hold_again(),
        }
    }

    fn retire(&mut self, index: usize) {
        let slot = self.residents.remove(index);
        let kept: u64 = self.spare.iter().map(Slot::footprint).sum();
        if self.spare.is_empty() || kept + slot.footprint() <= SPARE_MAX {
            self.spare.push(slot);
        }
    }

    fn start(&mut self, entered: &Entered<'_>, hold: Hold, helpers: Helpers<'_>) {
        if !hold.kernel.suspends {
            return self.run_straight(entered, &hold, helpers, self.residents.is_empty());
        }
        let mut slot = self.spare.pop().unwrap_or_else(Slot::new);
        if slot.begin(&self.region, &self.config, hold, entered.stack_limit()) {
            self.residents.push(slot);
        } else {
            self.spare.push(slot);
        }
    }

    /// Blocks of a kernel that never suspends: every thread from beginning to end, one after the other.
    /// `all`: until there are none left; otherwise one, since suspended blocks wait.
    fn run_straight(&mut self, entered: &Entered<'_>, hold: &Hold, helpers: Helpers<'_>, all: bool) {
        let kernel = &hold.kernel;
        let arenas =
            grow(&self.region, &mut self.shared, hold.shared_len.max(16).into()).and_then(|shared| {
                Ok((shared, grow(&self.region, &mut self.local, local_stride(kernel.local_len).max(16))?))
            });
        let (shared_base, local_base) = match arenas {
            Ok(bases) => bases,
            Err(reason) => return hold.fail_resources(reason),
        };
        let mut block = hold.block_state(shared_base);
        let mut thread = blank_thread();
        thread.local_base = local_base;
        thread.stack_limit = entered.stack_limit();
        let [width, height, depth] = hold.block;
        loop {
            // Big pieces first, single blocks towards the end, so that all threads end together.
            let most = if all { (hold.left() / 16).clamp(1, CHUNK_MAX) } else { 1 };
            let Some(range) = hold.take(most) else { return };
            for index in range.clone() {
                if hold.stopped() {
                    return;
                }
                block.ctaid = hold.block_position(index);
                thread.linear = 0;
                for z in 0..depth {
                    for y in 0..height {
                        thread.tid = [0, y, z];
                        let row = thread.linear;
                        // A call may run more threads of the row than the one it starts with.
                        while thread.tid[0] < width {
                            thread.linear = row + thread.tid[0];
                            thread.lane = thread.linear & 31;
                            thread.warp = thread.linear >> 5;
                            thread.resume = 0;
                            // SAFETY: the kernel's description promises code that keeps to the contract; thread and block are set
                            // up for it, and `entered` is this thread's.
                            let outcome = unsafe { entered.call(kernel.entry, &mut thread, &block) };
                            if outcome != Outcome::Done as u32 {
                                let fault = match outcome {
                                    FAULTED => entered.fault(),
                                    _ => unexpected(hold, outcome),
                                };
                                return hold.fail_fault(fault, &block, &thread, String::new());
                            }
                            thread.tid[0] += 1;
                        }
                        thread.linear = row + width;
                    }
                }
            }
            hold.count(range.end - range.start, 0);
            if let Helpers::Caller(output) = helpers {
                hold.drain_output(output);
            }
            if !all {
                return;
            }
        }
    }
}
