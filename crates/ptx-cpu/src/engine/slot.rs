//! A resident block whose threads can suspend.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr;
use std::sync::Arc;

use super::EngineConfig;
use super::barrier::Barriers;
use super::job::Hold;
use super::output::OutputSink;
use super::warp::{self, WARP_LEN, lanes};
use crate::abi::{Block, FaultKind, Outcome, Park, Thread, op};
use crate::fault::{Entered, FAULTED, Fault};
use crate::region::{Arena, Region};

/// Most bytes of frames of a block.
const FRAMES_MAX: usize = 1 << 30;
/// Runs of a warp before the next warp gets its turn. One, so that warps advance side by side: after a barrier, no warp writes to
/// shared memory behind its next warp operation before all have read what they came for. Programs have such races unnoticed.
const WARP_BUDGET: u32 = 1;
/// Passes in which threads did nothing but spin before the block is set aside.
const STALLED_PASSES: u32 = 16;
/// Runs of threads after which a block that spins in part is set aside.
const SLICE: u64 = 1 << 16;

/// How [`Slot::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All threads have ended.
    Finished,
    /// Threads spin on memory; the block cannot go on alone, or has had its share.
    Spinning {
        /// Whether any thread got on.
        moved: bool,
        /// Thread runs made.
        runs: u64,
    },
    /// The grid is stopped.
    Stopped,
}

#[derive(Clone, Copy, Default)]
struct Warp {
    /// Lanes that can run now.
    runnable: u32,
    /// Lanes that run again in the next pass.
    yielded: u32,
    /// Lanes parked at warp operations.
    parked: u32,
}

/// Memory and state of a block. Kept for the next block; set up anew only when the shape changes.
pub(super) struct Slot {
    hold: Option<Hold>,
    block: Box<Block>,
    threads: Vec<Thread>,
    warps: Vec<Warp>,
    /// Lanes per warp that have not exited.
    live: Vec<u32>,
    barriers: Barriers,
    suspensions: u64,
    frames: Frames,
    shared: Option<Arena>,
    local: Option<Arena>,
    /// Block shape, frame length, local length that `threads` is set up for.
    shape: ([u32; 3], u32, u32),
}

// SAFETY: the pointers in threads and block refer to memory of the slot and of the job it holds; one thread uses a slot at a time.
unsafe impl Send for Slot {}

/// A thread that has not begun.
pub(super) fn blank_thread() -> Thread {
    Thread {
        resume: 0,
        lane: 0,
        warp: 0,
        linear: 0,
        tid: [0; 3],
        reserved: 0,
        local_base: 0,
        frame: ptr::null_mut(),
        park: Park::default(),
        stack_limit: 0,
    }
}

/// Makes sure that an arena has `len` bytes.
pub(super) fn grow(region: &Arc<Region>, arena: &mut Option<Arena>, len: u64) -> Result<u64, String> {
    if arena.as_ref().is_none_or(|arena| arena.len() < len) {
        *arena = None;
        *arena = Some(region.arena(len).map_err(|error| error.to_string())?);
    }
    Ok(arena.as_ref().map_or(0, Arena::base))
}

/// Bytes between the local depots of neighbouring threads.
pub(super) fn local_stride(local_len: u32) -> u64 {
    u64::from(local_len).next_multiple_of(16)
}

impl Slot {
    pub(super) fn new() -> Slot {
        Slot {
            hold: None,
            block: Box::new(Block {
                ctaid: [0; 3],
                nctaid: [0; 3],
                ntid: [0; 3],
                shared_len: 0,
                dynamic_shared_len: 0,
                grid_id: 0,
                shared_base: 0,
                params: 0,
                grid_workspace: 0,
                engine: ptr::null(),
            }),
            threads: Vec::new(),
            warps: Vec::new(),
            live: Vec::new(),
            barriers: Barriers::new(),
            suspensions: 0,
            frames: Frames { base: ptr::null_mut(), len: 0 },
            shared: None,
            local: None,
            shape: ([0; 3], 0, 0),
        }
    }

    /// Takes the first block of a grid. False if there is none left, or no memory for it (the grid then fails).
    pub(super) fn begin(
        &mut self,
        region: &Arc<Region>,
        config: &EngineConfig,
        hold: Hold,
        stack_limit: u64,
    ) -> bool {
        if let Err(reason) = self.prepare(region, config, &hold, stack_limit) {
            hold.fail_resources(reason);
            return false;
        }
        self.hold = Some(hold);
        self.next_block()
    }

    fn prepare(
        &mut self,
        region: &Arc<Region>,
        config: &EngineConfig,
        hold: &Hold,
        stack_limit: u64,
    ) -> Result<(), String> {
        let shared_base = grow(region, &mut self.shared, hold.shared_len.max(16).into())?;
        *self.block = hold.block_state(shared_base);
        let kernel = &hold.kernel;
        let count = hold.block_threads() as usize;
        let shape = (hold.block, kernel.frame_len, kernel.local_len);
        if self.shape == shape {
            return Ok(());
        }
        self.shape = ([0; 3], 0, 0);
        let stride = local_stride(kernel.local_len);
        let local_len = stride * count as u64;
        if local_len > config.max_block_local_len {
            let limit = config.max_block_local_len;
            return Err(format!("{local_len} bytes of local memory per block, limit {limit}"));
        }
        let local_base = grow(region, &mut self.local, local_len.max(16))?;
        let frame_stride = (kernel.frame_len as usize).next_multiple_of(16);
        self.frames.grow(frame_stride * count)?;
        self.threads.clear();
        let [width, height, _] = hold.block;
        for linear in 0..count as u32 {
            self.threads.push(Thread {
                lane: linear % WARP_LEN as u32,
                warp: linear / WARP_LEN as u32,
                linear,
                tid: [linear % width, linear / width % height, linear / width / height],
                local_base: local_base + stride * u64::from(linear),
                frame: self.frames.base.wrapping_add(frame_stride * linear as usize),
                stack_limit,
                ..blank_thread()
            });
        }
        self.warps = vec![Warp::default(); count.div_ceil(WARP_LEN)];
        self.live = vec![0; self.warps.len()];
        self.shape = shape;
        Ok(())
    }

    /// Goes on with the next block of the same grid. False, and the hold is given up, if there is none.
    pub(super) fn next_block(&mut self) -> bool {
        let next =
            self.hold.as_ref().and_then(|hold| hold.take(1).map(|range| hold.block_position(range.start)));
        let Some(position) = next else {
            self.hold = None;
            return false;
        };
        self.block.ctaid = position;
        for thread in &mut self.threads {
            thread.resume = 0;
        }
        let count = self.threads.len();
        for (index, (warp, live)) in self.warps.iter_mut().zip(&mut self.live).enumerate() {
            let lanes = (count - index * WARP_LEN).min(WARP_LEN);
            *live = u32::MAX >> (WARP_LEN - lanes);
            *warp = Warp { runnable: *live, yielded: 0, parked: 0 };
        }
        self.barriers.clear();
        self.suspensions = 0;
        true
    }

    /// A second hold on this slot's grid, if it has blocks left.
    pub(super) fn hold_again(&self) -> Option<Hold> {
        self.hold.as_ref()?.again()
    }

    /// Bytes of memory that the slot keeps (not all need be touched).
    pub(super) fn footprint(&self) -> u64 {
        let arenas = [&self.shared, &self.local].into_iter().flatten().map(Arena::len).sum::<u64>();
        arenas + self.frames.len as u64
    }

    pub(super) fn drain_output(&self, output: &dyn OutputSink) {
        if let Some(hold) = &self.hold {
            hold.drain_output(output);
        }
    }

    pub(super) fn is_cooperative(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.cooperative)
    }

    /// Gives up the block and the grid.
    pub(super) fn abandon(&mut self) {
        self.hold = None;
    }

    /// Runs the block's threads until they have ended or only spin.
    pub(super) fn run(&mut self, entered: &Entered<'_>) -> Step {
        let Some(hold) = &self.hold else { return Step::Stopped };
        let (mut moved, mut yielded, mut runs, mut stalled) = (false, false, 0u64, 0u32);
        loop {
            if hold.stopped() {
                return Step::Stopped;
            }
            let pass_begin = runs;
            let mut pass_moved = false;
            for warp in 0..self.warps.len() {
                let again = std::mem::take(&mut self.warps[warp].yielded);
                pass_moved |= self.warps[warp].runnable != 0;
                self.warps[warp].runnable |= again;
                if self.warps[warp].runnable == 0 {
                    continue;
                }
                let result = run_warp(
                    entered,
                    hold,
                    &self.block,
                    &mut self.threads[warp * WARP_LEN..],
                    &mut self.warps[warp],
                    &mut self.live[warp],
                    &mut self.barriers,
                    again,
                );
                match result {
                    Some(run) => {
                        runs += run.runs;
                        pass_moved |= run.moved;
                    }
                    None => return Step::Stopped,
                }
                yielded |= self.warps[warp].yielded != 0;
            }
            let warps = &mut self.warps;
            pass_moved |= self
                .barriers
                .complete(&mut self.threads, &self.live, |warp, lanes| warps[warp].runnable |= lanes);
            self.suspensions += runs - pass_begin;
            moved |= pass_moved;
            let can_run = self.warps.iter().any(|warp| warp.runnable | warp.yielded != 0);
            if !can_run {
                if self.live.iter().all(|&live| live == 0) {
                    // The last run of each thread was no suspension.
                    hold.count(1, self.suspensions.saturating_sub(self.threads.len() as u64));
                    return Step::Finished;
                }
                self.report_deadlock(hold);
                return Step::Stopped;
            }
            stalled = if pass_moved { 0 } else { stalled + 1 };
            if stalled >= STALLED_PASSES || (yielded && runs >= SLICE) {
                return Step::Spinning { moved, runs };
            }
        }
    }

    fn report_deadlock(&self, hold: &Hold) {
        let mut waiting = self
            .live
            .iter()
            .enumerate()
            .flat_map(|(warp, &live)| lanes(live).map(move |lane| warp * WARP_LEN + lane));
        let Some(first) = waiting.next() else { return };
        let count = 1 + waiting.count();
        let thread = &self.threads[first];
        let Park { op, mask, a, .. } = thread.park;
        let detail = match op {
            op::BARRIER_SYNC..=op::BARRIER_RED_OR => {
                format!("{count} threads wait for ever, the first at barrier {mask} (count {a})")
            }
            _ => {
                format!("{count} threads wait for ever, the first at warp operation {op} with mask {mask:#x}")
            }
        };
        let fault = Fault { kind: FaultKind::Deadlock, address: 0, pc: 0, outside_region: false };
        hold.fail_fault(fault, &self.block, thread, detail);
    }
}

struct WarpRun {
    runs: u64,
    moved: bool,
}

/// Runs the threads of one warp until all wait (or the budget is used up). `again` are lanes that come from a yield. None: fault.
#[expect(clippy::too_many_arguments)]
fn run_warp(
    entered: &Entered<'_>,
    hold: &Hold,
    block: &Block,
    threads: &mut [Thread],
    warp: &mut Warp,
    live: &mut u32,
    barriers: &mut Barriers,
    again: u32,
) -> Option<WarpRun> {
    let entry = hold.kernel.entry;
    let mut run = WarpRun { runs: 0, moved: false };
    let mut spinning = again;
    for _ in 0..WARP_BUDGET {
        let mut mask = std::mem::take(&mut warp.runnable);
        let mut yields = 0;
        run.runs += u64::from(mask.count_ones());
        while mask != 0 {
            let lane = mask.trailing_zeros() as usize;
            let bit = 1u32 << lane;
            mask &= mask - 1;
            let thread = &raw mut threads[lane];
            // SAFETY: the kernel's description promises code that keeps to the contract; thread and block are set up for it,
            // and `entered` is this thread's.
            let outcome = unsafe { entered.call(entry, thread, block) };
            let thread = &threads[lane];
            if outcome == Outcome::Parked as u32 {
                match thread.park.op {
                    op::BARRIER_SYNC..=op::BARRIER_RED_OR => {
                        match barriers.arrive((thread.warp & 31) as usize, bit, thread) {
                            Some(false) => {}
                            Some(true) => warp.runnable |= bit,
                            None => return refuse(hold, block, thread, "no such barrier"),
                        }
                    }
                    op::YIELD => yields |= bit,
                    other if warp::is_warp_op(other) => warp.parked |= bit,
                    _ => return refuse(hold, block, thread, "internal error: unknown operation"),
                }
            } else if outcome == Outcome::Done as u32 {
                *live &= !bit;
            } else {
                let fault = if outcome == FAULTED { entered.fault() } else { unexpected(hold, outcome) };
                hold.fail_fault(fault, block, thread, String::new());
                return None;
            }
        }
        // A lane that only went from one yield to the next has not got on.
        run.moved |= yields & spinning != spinning;
        spinning = 0;
        warp.yielded |= yields;
        if warp.parked != 0 {
            let released = warp::resolve(threads, *live, warp.parked);
            warp.parked &= !released;
            warp.runnable |= released;
        }
        if warp.runnable == 0 {
            break;
        }
        run.moved = true;
    }
    Some(run)
}

fn refuse(hold: &Hold, block: &Block, thread: &Thread, why: &str) -> Option<WarpRun> {
    let fault = Fault { kind: FaultKind::Trap, address: 0, pc: 0, outside_region: false };
    hold.fail_fault(
        fault,
        block,
        thread,
        format!("{why} (operation {}, {:#x})", thread.park.op, thread.park.mask),
    );
    None
}

/// Generated code returned something that is no outcome.
pub(super) fn unexpected(hold: &Hold, outcome: u32) -> Fault {
    tracing::error!(kernel = %hold.kernel.name, outcome, "internal error: unexpected outcome of generated code");
    Fault { kind: FaultKind::Trap, address: 0, pc: 0, outside_region: false }
}

/// The frames of a block's threads: host memory, 64-byte aligned.
struct Frames {
    base: *mut u8,
    len: usize,
}

impl Frames {
    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len, 64).ok()
    }

    fn grow(&mut self, len: usize) -> Result<(), String> {
        if len <= self.len {
            return Ok(());
        }
        let layout = Self::layout(len).filter(|_| len <= FRAMES_MAX);
        let layout = layout.ok_or_else(|| format!("{len} bytes of suspended registers per block"))?;
        // SAFETY: the length is not zero, being more than the present one.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            return Err(format!("{len} bytes of suspended registers per block"));
        }
        *self = Frames { base, len };
        Ok(())
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len).filter(|_| self.len != 0) {
            // SAFETY: allocated by `grow` with the same layout.
            unsafe { dealloc(self.base, layout) };
        }
    }
}
