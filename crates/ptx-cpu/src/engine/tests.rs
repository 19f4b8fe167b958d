//! Kernels written by hand, as generated code would be: they park with resume points of their own.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::abi::{Block, KernelFn, Outcome, Park, Thread, op};
use crate::fault;
use crate::helpers;
use crate::region::{RegionConfig, reserve_in_test};

const DONE: u32 = Outcome::Done as u32;
const PARKED: u32 = Outcome::Parked as u32;

struct Rig {
    region: Arc<Region>,
    engine: Engine,
}

impl Rig {
    fn new(threads: usize) -> Rig {
        fault::install().unwrap();
        let region = Arc::new(reserve_in_test(RegionConfig::default()));
        let engine =
            Engine::new(region.clone(), EngineConfig { threads, ..EngineConfig::default() }).unwrap();
        Rig { region, engine }
    }

    fn buffer(&self, words: usize) -> u64 {
        let base = self.region.alloc(words as u64 * 4, 256).unwrap();
        self.region.fill32(base, 0, words as u64).unwrap();
        base
    }

    fn words(&self, base: u64, count: usize) -> Vec<u32> {
        let mut bytes = vec![0; count * 4];
        self.region.copy_out(base, &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    fn run(
        &self,
        kernel: &Kernel,
        grid: u32,
        block: u32,
        params: &[u64],
    ) -> Result<LaunchStats, LaunchError> {
        self.run_config(kernel, [grid, 1, 1], [block, 1, 1], params, false)
    }

    fn run_config(
        &self,
        kernel: &Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        params: &[u64],
        cooperative: bool,
    ) -> Result<LaunchStats, LaunchError> {
        let params: Vec<u8> = params.iter().flat_map(|word| word.to_le_bytes()).collect();
        let config = LaunchConfig { grid, block, dynamic_shared_len: 0, params: &params, cooperative };
        // SAFETY: the kernels of this file keep to the contract.
        unsafe { self.engine.launch(kernel, &config, &CancelToken::new(), &|_, _: &[u8]| {}) }
    }
}

fn kernel(name: &str, entry: KernelFn, suspends: bool) -> Kernel {
    Kernel { name: name.into(), entry, frame_len: 64, local_len: 0, static_shared_len: 8192, suspends }
}

fn fault_of(result: Result<LaunchStats, LaunchError>) -> KernelFault {
    match result {
        Err(LaunchError::Fault(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

/// What test kernels do with their thread.
struct Lane<'a> {
    thread: &'a mut Thread,
    block: &'a Block,
}

impl Lane<'_> {
    fn param(&self, index: u64) -> u64 {
        // SAFETY: the launches of this file pass that many parameters.
        unsafe { *((self.block.params + 8 * index) as *const u64) }
    }

    fn store(&self, base: u64, index: u64, value: u32) {
        // SAFETY: inside the buffers that the tests allocate, or meant to fault.
        unsafe { std::arch::asm!("mov dword ptr [{}], {:e}", in(reg) base + 4 * index, in(reg) value) }
    }

    fn load(&self, base: u64, index: u64) -> u32 {
        // SAFETY: as above.
        unsafe { ((base + 4 * index) as *const u32).read_volatile() }
    }

    fn atomic(&self, base: u64, index: u64) -> &AtomicU32 {
        // SAFETY: as above; only accessed atomically at the same time.
        unsafe { AtomicU32::from_ptr((base + 4 * index) as *mut u32) }
    }

    fn park(&mut self, resume: u32, op: u32, mask: u32, a: u64) -> u32 {
        self.thread.resume = resume;
        self.thread.park = Park { op, mask, a, ..self.thread.park };
        PARKED
    }

    fn global(&self) -> u64 {
        u64::from(self.block.ctaid[0]) * u64::from(self.block.ntid[0]) + u64::from(self.thread.linear)
    }
}

/// `kernel_fn!(name, |lane| body)`: a KernelFn.
macro_rules! kernel_fn {
    ($name:ident, |$lane:ident| $body:expr) => {
        unsafe extern "C" fn $name(thread: *mut Thread, block: *const Block) -> u32 {
            // SAFETY: called by the engine with the running thread and block.
            #[allow(unused_mut)]
            let mut $lane = unsafe { Lane { thread: &mut *thread, block: &*block } };
            $body
        }
    };
}

kernel_fn!(write_index, |lane| {
    let Block { ctaid, nctaid, ntid, .. } = *lane.block;
    let [x, y, z] = [0, 1, 2].map(|axis| u64::from(ctaid[axis] * ntid[axis] + lane.thread.tid[axis]));
    let [width, height] = [0, 1].map(|axis| u64::from(nctaid[axis] * ntid[axis]));
    let linear = lane.thread.tid[0] + ntid[0] * (lane.thread.tid[1] + ntid[1] * lane.thread.tid[2]);
    assert_eq!((linear, linear % 32, linear / 32), (lane.thread.linear, lane.thread.lane, lane.thread.warp));
    assert_ne!(lane.thread.stack_limit, 0);
    lane.store(lane.param(0), x + width * (y + height * z), linear + 1);
    DONE
});

#[test]
fn every_thread_of_every_block_runs_once() {
    let rig = Rig::new(3);
    for (grid, block) in [
        ([5, 4, 3], [7, 3, 2]),
        ([1, 1, 1], [1024, 1, 1]),
        ([5000, 1, 1], [1, 1, 1]),
        ([3, 1, 2], [33, 5, 1]),
    ] {
        let threads: u32 = grid.iter().chain(&block).product();
        for suspends in [false, true] {
            let out = rig.buffer(threads as usize);
            let stats = rig
                .run_config(&kernel("write_index", write_index, suspends), grid, block, &[out], false)
                .unwrap();
            assert_eq!((stats.threads, stats.suspensions), (threads.into(), 0));
            let words = rig.words(out, threads as usize);
            assert!(words.iter().all(|&word| word != 0));
            let sum: u64 = words.iter().map(|&word| u64::from(word)).sum();
            let per_block: u64 = block.iter().map(|&size| u64::from(size)).product();
            assert_eq!(sum, stats.blocks * per_block * (per_block + 1) / 2);
        }
    }
}

kernel_fn!(reverse, |lane| {
    let (linear, last) = (u64::from(lane.thread.linear), u64::from(lane.block.ntid[0]) - 1);
    match lane.thread.resume {
        0 => {
            lane.store(lane.block.shared_base, linear, lane.global() as u32);
            lane.park(1, op::BARRIER_SYNC, 0, 0)
        }
        _ => {
            lane.store(lane.param(0), lane.global(), lane.load(lane.block.shared_base, last - linear));
            DONE
        }
    }
});

#[test]
fn a_barrier_separates_what_is_before_from_what_is_behind() {
    let rig = Rig::new(2);
    for block in [1u32, 31, 32, 33, 100, 1024] {
        let out = rig.buffer(20 * block as usize);
        let stats = rig.run(&kernel("reverse", reverse, true), 20, block, &[out]).unwrap();
        assert_eq!(stats.suspensions, u64::from(20 * block));
        for (index, word) in rig.words(out, 20 * block as usize).into_iter().enumerate() {
            let (start, offset) = (index as u32 / block * block, index as u32 % block);
            assert_eq!(word, start + block - 1 - offset);
        }
    }
}

kernel_fn!(early_exit, |lane| {
    let count = lane.thread.park.a;
    match lane.thread.resume {
        // Threads leave one by one between the barriers, in every warp.
        step if lane.thread.linear % 37 == step => DONE,
        step if step < 20 => {
            let _ = count;
            lane.park(step + 1, op::BARRIER_SYNC, 3, 0)
        }
        _ => {
            lane.atomic(lane.param(0), 0).fetch_add(1, Ordering::Relaxed);
            DONE
        }
    }
});

#[test]
fn threads_that_exit_leave_the_barrier() {
    let rig = Rig::new(2);
    let out = rig.buffer(1);
    rig.run(&kernel("early_exit", early_exit, true), 3, 1000, &[out]).unwrap();
    let staying = (0..1000).filter(|linear| linear % 37 > 20).count() as u32;
    assert_eq!(rig.words(out, 1), [3 * staying]);
}

kernel_fn!(reductions, |lane| {
    let out = lane.param(0);
    let (linear, at) = (lane.thread.linear, u64::from(lane.thread.linear) * 3);
    let Park { result, predicate, .. } = lane.thread.park;
    match lane.thread.resume {
        0 => {
            lane.thread.park.b = u64::from(linear % 3 == 0);
            lane.park(1, op::BARRIER_RED_POPC, 5, 0)
        }
        1 => {
            lane.store(out, at, result as u32);
            lane.thread.park.b = u64::from(linear != 17);
            lane.park(2, op::BARRIER_RED_AND, 5, 0)
        }
        2 => {
            lane.store(out, at + 1, predicate as u32);
            lane.thread.park.b = u64::from(linear == 17);
            lane.park(3, op::BARRIER_RED_OR, 5, 0)
        }
        _ => {
            lane.store(out, at + 2, predicate as u32);
            DONE
        }
    }
});

#[test]
fn barrier_reductions() {
    let rig = Rig::new(1);
    let out = rig.buffer(3 * 100);
    rig.run(&kernel("reductions", reductions, true), 1, 100, &[out]).unwrap();
    assert!(rig.words(out, 300).chunks(3).all(|words| words == [34, 0, 1]));
}

kernel_fn!(producer_consumer, |lane| {
    // Warp 1 produces and arrives at barrier 1, warp 0 consumes; three rounds, handed back by barrier 2. Lanes above 24 have exited.
    let shared = lane.block.shared_base;
    let (lane_index, warp, round) = (u64::from(lane.thread.lane), lane.thread.warp, lane.thread.resume / 2);
    if lane_index >= 24 || round == 3 {
        return DONE;
    }
    let next = lane.thread.resume + 1;
    match (warp, lane.thread.resume % 2) {
        (1, 0) => {
            lane.store(shared, lane_index, round * 100 + lane_index as u32);
            lane.park(next, op::BARRIER_ARRIVE, 1, 64)
        }
        (1, _) => lane.park(next, op::BARRIER_SYNC, 2, 64),
        (0, 0) => lane.park(next, op::BARRIER_SYNC, 1, 64),
        (_, _) => {
            let sum = lane.atomic(lane.param(0), lane_index);
            sum.fetch_add(lane.load(shared, lane_index), Ordering::Relaxed);
            lane.park(next, op::BARRIER_ARRIVE, 2, 64)
        }
    }
});

#[test]
fn arrive_and_sync_with_a_thread_count() {
    let rig = Rig::new(2);
    let out = rig.buffer(24);
    rig.run(&kernel("producer_consumer", producer_consumer, true), 4, 64, &[out]).unwrap();
    let expected: Vec<u32> = (0..24).map(|lane| 4 * (300 + 3 * lane)).collect();
    assert_eq!(rig.words(out, 24), expected);
}

kernel_fn!(warp_sum, |lane| {
    // Butterfly sum within half warps with half masks; lanes of the upper half do one more barrier first. Lanes 5 of each warp exit.
    let upper = lane.thread.lane >= 16;
    let mask = if upper { 0xffff_0000 } else { 0xffff };
    match lane.thread.resume {
        0 if lane.thread.lane == 5 => DONE,
        0 if upper => lane.park(1, op::WARP_SYNC, mask, 0),
        0 | 1 => {
            lane.thread.park.b = 8;
            lane.thread.park.c = 31;
            lane.thread.reserved = lane.thread.linear;
            let value = u64::from(lane.thread.reserved);
            lane.park(2, op::SHFL_BFLY, mask, value)
        }
        step => {
            lane.thread.reserved += lane.thread.park.result as u32;
            let distance = 8 >> (step - 1);
            if distance == 0 {
                lane.store(lane.param(0), lane.global(), lane.thread.reserved);
                return DONE;
            }
            lane.thread.park.b = distance;
            let value = u64::from(lane.thread.reserved);
            lane.park(step + 1, op::SHFL_BFLY, mask, value)
        }
    }
});

#[test]
fn shuffles_in_divergent_halves() {
    let rig = Rig::new(2);
    let out = rig.buffer(2 * 96);
    rig.run(&kernel("warp_sum", warp_sum, true), 2, 96, &[out]).unwrap();
    for (index, word) in rig.words(out, 2 * 96).into_iter().enumerate() {
        let (linear, lane) = (index as u32 % 96, index as u32 % 32);
        if lane == 5 {
            assert_eq!(word, 0);
        } else if lane >= 16 {
            assert_eq!(word, (linear & !15..(linear & !15) + 16).sum::<u32>());
        }
    }
}

kernel_fn!(spin_lock, |lane| {
    // Lock at word 0, counter at word 1; the counter is changed in three pieces with suspensions in between.
    let base = lane.param(0);
    match lane.thread.resume {
        0 if lane.atomic(base, 0).compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() => {
            lane.park(0, op::YIELD, 0, 0)
        }
        0 => {
            lane.thread.reserved = lane.load(base, 1);
            lane.park(1, op::YIELD, 0, 0)
        }
        _ => {
            lane.store(base, 1, lane.thread.reserved + 1);
            lane.atomic(base, 0).store(0, Ordering::Release);
            DONE
        }
    }
});

#[test]
fn a_spin_lock_between_threads_warps_and_blocks() {
    for threads in [1, 3] {
        let rig = Rig::new(threads);
        let out = rig.buffer(2);
        rig.run(&kernel("spin_lock", spin_lock, true), 6, 70, &[out]).unwrap();
        assert_eq!(rig.words(out, 2), [0, 420]);
    }
}

kernel_fn!(grid_barrier, |lane| {
    // Four rounds: block barrier, thread 0 counts and spins until all blocks have, block barrier.
    let base = lane.param(0);
    let (round, step) = (lane.thread.resume / 3, lane.thread.resume % 3);
    let blocks = lane.block.nctaid[0];
    match step {
        _ if round == 4 => DONE,
        0 => lane.park(3 * round + 1, op::BARRIER_SYNC, 0, 0),
        1 if lane.thread.linear == 0 => {
            lane.atomic(base, 0).fetch_add(1, Ordering::AcqRel);
            lane.park(3 * round + 2, op::YIELD, 0, 0)
        }
        2 if lane.thread.linear == 0
            && lane.atomic(base, 0).load(Ordering::Acquire) < blocks * (round + 1) =>
        {
            lane.park(3 * round + 2, op::YIELD, 0, 0)
        }
        _ => lane.park(3 * round + 3, op::BARRIER_SYNC, 0, 0),
    }
});

#[test]
fn a_cooperative_grid_has_all_blocks_resident() {
    for threads in [1, 3] {
        let rig = Rig::new(threads);
        let out = rig.buffer(1);
        let kernel = kernel("grid_barrier", grid_barrier, true);
        rig.run_config(&kernel, [100, 1, 1], [40, 1, 1], &[out], true).unwrap();
        assert_eq!(rig.words(out, 1), [400]);
        // Without the promise it works too, only later.
        let out = rig.buffer(1);
        rig.run(&kernel, 8, 40, &[out]).unwrap();
        assert_eq!(rig.words(out, 1), [32]);
        let result = rig.run_config(&kernel, [257, 1, 1], [40, 1, 1], &[out], true);
        assert!(matches!(result, Err(LaunchError::InvalidConfig { .. })));
    }
}

kernel_fn!(wait_for_last, |lane| {
    // Block 0 spins through barriers until the last block, which has not begun yet, has run.
    let base = lane.param(0);
    if lane.block.ctaid[0] + 1 == lane.block.nctaid[0] {
        lane.store(base, 0, 1);
    }
    match lane.thread.resume {
        _ if lane.block.ctaid[0] != 0 => DONE,
        0 => lane.park(1, op::BARRIER_SYNC, 0, 0),
        _ if lane.load(base, 0) != 0 => DONE,
        _ => lane.park(0, op::YIELD, 0, 0),
    }
});

#[test]
fn spinning_with_barriers_does_not_keep_later_blocks_from_running() {
    let rig = Rig::new(1);
    let out = rig.buffer(1);
    rig.run(&kernel("wait_for_last", wait_for_last, true), 5, 64, &[out]).unwrap();
    assert_eq!(rig.words(out, 1), [1]);
}

kernel_fn!(wait_for_flag, |lane| {
    if lane.load(lane.param(0), 0) == 0 { lane.park(0, op::YIELD, 0, 0) } else { DONE }
});
kernel_fn!(set_flag, |lane| {
    lane.store(lane.param(0), 0, 1);
    DONE
});

#[test]
fn a_grid_that_waits_for_another_does_not_block_it() {
    for threads in [1, 2] {
        let rig = Rig::new(threads);
        let out = rig.buffer(1);
        std::thread::scope(|scope| {
            scope.spawn(|| rig.run(&kernel("wait_for_flag", wait_for_flag, true), 10, 64, &[out]).unwrap());
            std::thread::sleep(Duration::from_millis(20));
            rig.run(&kernel("set_flag", set_flag, false), 3, 1, &[out]).unwrap();
        });
    }
}

#[test]
fn cancelling_ends_a_kernel_that_spins_for_ever() {
    let rig = Rig::new(2);
    let out = rig.buffer(1);
    let token = CancelToken::new();
    std::thread::scope(|scope| {
        let launch = scope.spawn(|| {
            let config = LaunchConfig {
                grid: [50, 1, 1],
                block: [64, 1, 1],
                dynamic_shared_len: 0,
                params: &out.to_le_bytes(),
                cooperative: false,
            };
            // SAFETY: the kernel keeps to the contract.
            unsafe {
                rig.engine.launch(
                    &kernel("wait_for_flag", wait_for_flag, true),
                    &config,
                    &token,
                    &|_, _: &[u8]| {},
                )
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        token.cancel();
        assert!(matches!(launch.join().unwrap(), Err(LaunchError::Cancelled)));
    });
}

kernel_fn!(missing_threads, |lane| {
    match (lane.thread.linear, lane.thread.resume) {
        (0..=2, 0) => lane.park(1, op::BARRIER_SYNC, 1, 64),
        _ => DONE,
    }
});
kernel_fn!(missing_lane, |lane| {
    match (lane.thread.linear, lane.thread.resume) {
        (7, 0) => lane.park(1, op::BARRIER_SYNC, 0, 0),
        (_, 0) => lane.park(1, op::WARP_SYNC, !0, 0),
        _ => DONE,
    }
});

#[test]
fn deadlocks_are_reported() {
    let rig = Rig::new(2);
    let fault = fault_of(rig.run(&kernel("missing_threads", missing_threads, true), 1, 96, &[]));
    assert_eq!((fault.kind, &*fault.kernel), (FaultKind::Deadlock, "missing_threads"));
    assert!(fault.to_string().contains("3 threads wait for ever, the first at barrier 1"), "{fault}");
    let fault = fault_of(rig.run(&kernel("missing_lane", missing_lane, true), 4, 32, &[]));
    assert_eq!(fault.kind, FaultKind::Deadlock);
    assert!(fault.to_string().contains("mask 0xffffffff"), "{fault}");
}

kernel_fn!(active_mask, |lane| {
    match lane.thread.resume {
        0 if lane.thread.lane % 4 == 0 => lane.park(2, op::ACTIVE_MASK, 0, 0),
        0 => lane.park(1, op::YIELD, 0, 0),
        1 => lane.park(3, op::ACTIVE_MASK, 0, 0),
        _ => {
            lane.store(lane.param(0), lane.global(), lane.thread.park.result as u32);
            DONE
        }
    }
});

#[test]
fn active_mask_has_the_lanes_that_are_together() {
    let rig = Rig::new(1);
    let out = rig.buffer(64);
    rig.run(&kernel("active_mask", active_mask, true), 1, 64, &[out]).unwrap();
    for (index, word) in rig.words(out, 64).into_iter().enumerate() {
        assert_eq!(word, if index % 4 == 0 { 0x1111_1111 } else { 0xeeee_eeee });
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let mut space = [depth; 32];
    std::hint::black_box(&mut space);
    recurse(depth + 1) + space[3]
}

kernel_fn!(break_something, |lane| {
    if lane.block.ctaid[0] != 2 || lane.thread.tid[0] != 3 {
        return DONE;
    }
    match lane.param(0) {
        1 => lane.store(lane.param(1), 0, 1),
        2 => {
            std::hint::black_box(recurse(0));
        }
        // SAFETY: faults on purpose.
        3 => unsafe {
            std::arch::asm!("xor edx, edx", "xor ecx, ecx", "div ecx", out("eax") _, out("edx") _, out("ecx") _)
        },
        // SAFETY: faults on purpose.
        4 => unsafe { std::arch::asm!("ud2") },
        // SAFETY: no frame below holds anything.
        5 => unsafe {
            helpers::rt_fault(lane.thread, lane.block, FaultKind::MisalignedAddress as u32, lane.param(1))
        },
        6 => return 77,
        // SAFETY: as above.
        7 => unsafe { helpers::rt_free(lane.thread, lane.block, lane.param(1)) },
        // SAFETY: as above.
        8 => unsafe {
            helpers::rt_vprintf(lane.thread, lane.block, lane.param(1), 0);
        },
        // SAFETY: as above.
        _ => unsafe { helpers::rt_exit(lane.thread) },
    };
    DONE
});

#[test]
fn faults_are_reported_and_survived() {
    let rig = Rig::new(2);
    let allocation = rig.region.alloc(4096, 256).unwrap();
    let wild = rig.region.base() + 0x1_2345_6000;
    let good = rig.buffer(64);
    for suspends in [false, true] {
        let kernel = kernel("break_something", break_something, suspends);
        for _ in 0..200 {
            for (what, address, kind) in [
                (1, 0, FaultKind::IllegalAddress),
                (1, 16, FaultKind::IllegalAddress),
                (1, allocation + 4096, FaultKind::IllegalAddress),
                (1, wild, FaultKind::IllegalAddress),
                (2, 0, FaultKind::StackOverflow),
                (3, 0, FaultKind::Trap),
                (4, 0, FaultKind::Trap),
                (5, 0x123, FaultKind::MisalignedAddress),
                (6, 0, FaultKind::Trap),
                (7, allocation, FaultKind::IllegalAddress),
                (8, wild, FaultKind::IllegalAddress),
                (8, 16, FaultKind::IllegalAddress),
            ] {
                let fault = fault_of(rig.run(&kernel, 6, 40, &[what, address]));
                assert_eq!((fault.kind, fault.block, fault.thread), (kind, [2, 0, 0], [3, 0, 0]), "{what}");
                if kind != FaultKind::StackOverflow && address != 0 {
                    assert_eq!(fault.address, address);
                }
                assert!(fault.to_string().starts_with("kernel `break_something`: "));
                assert!(fault.to_string().contains("in block (2,0,0) thread (3,0,0)"));
            }
            rig.run(&kernel, 6, 40, &[9, 0]).unwrap();
        }
        rig.run(&self::kernel("write_index", write_index, suspends), 2, 32, &[good]).unwrap();
    }
}

#[test]
fn many_launches_at_once() {
    let rig = Rig::new(3);
    std::thread::scope(|scope| {
        for seed in 0..6u32 {
            let rig = &rig;
            scope.spawn(move || {
                for round in 0..30u32 {
                    let block = 1 + (seed * 31 + round * 7) % 200;
                    let out = rig.buffer(20 * block as usize);
                    match round % 3 {
                        0 => {
                            rig.run(&kernel("reverse", reverse, true), 20, block, &[out]).unwrap();
                            assert_eq!(rig.words(out, 1), [block - 1]);
                        }
                        1 => {
                            rig.run(&kernel("write_index", write_index, false), 20, block, &[out]).unwrap();
                            assert!(rig.words(out, 20 * block as usize).iter().all(|&word| word != 0));
                        }
                        _ => {
                            let result =
                                rig.run(&kernel("break_something", break_something, true), 6, 40, &[1, 64]);
                            assert_eq!(fault_of(result).address, 64);
                        }
                    }
                    rig.region.free(out).unwrap();
                }
            });
        }
    });
}

kernel_fn!(use_local, |lane| {
    let local = lane.thread.local_base;
    match lane.thread.resume {
        0 => {
            lane.store(local, 0, lane.thread.linear);
            lane.store(local, (64 << 10) / 4 - 1, lane.thread.linear);
            lane.park(1, op::BARRIER_SYNC, 0, 0)
        }
        _ => {
            let sum = lane.load(local, 0) + lane.load(local, (64 << 10) / 4 - 1);
            lane.store(lane.param(0), lane.global(), sum);
            DONE
        }
    }
});

#[test]
fn a_large_block_with_much_local_memory() {
    let rig = Rig::new(2);
    let out = rig.buffer(2048);
    let mut kernel = kernel("use_local", use_local, true);
    kernel.local_len = 64 << 10;
    rig.run(&kernel, 2, 1024, &[out]).unwrap();
    assert!(rig.words(out, 2048).iter().enumerate().all(|(index, &word)| word == 2 * (index as u32 % 1024)));
    kernel.local_len = 8 << 20;
    match rig.run(&kernel, 2, 1024, &[out]) {
        Err(LaunchError::OutOfResources { reason, .. }) => {
            assert!(reason.contains("local memory"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    kernel.local_len = 0;
    kernel.frame_len = 4 << 20;
    assert!(matches!(rig.run(&kernel, 2, 1024, &[out]), Err(LaunchError::OutOfResources { .. })));
}

#[test]
fn impossible_configurations_are_refused() {
    let rig = Rig::new(1);
    let kernel = kernel("set_flag", set_flag, false);
    let all = u32::MAX;
    for (grid, block) in [
        ([0, 1, 1], [1, 1, 1]),
        ([1, 1, 1], [0, 1, 1]),
        ([1, 1, 1], [1025, 1, 1]),
        ([1, 1, 1], [32, 32, 2]),
        ([all, all, all], [1, 1, 1]),
        ([1, 1, 1], [all, all, all]),
    ] {
        let result = rig.run_config(&kernel, grid, block, &[], false);
        assert!(matches!(result, Err(LaunchError::InvalidConfig { .. })), "{grid:?} {block:?}");
    }
    let config = |dynamic_shared_len, params| LaunchConfig {
        grid: [1; 3],
        block: [1; 3],
        dynamic_shared_len,
        params,
        cooperative: false,
    };
    let long = vec![0; MAX_PARAMS_LEN + 1];
    for config in [config(u32::MAX, &[][..]), config(0, &long[..])] {
        // SAFETY: refused before anything runs.
        let result = unsafe { rig.engine.launch(&kernel, &config, &CancelToken::new(), &|_, _: &[u8]| {}) };
        assert!(matches!(result, Err(LaunchError::InvalidConfig { .. })));
    }
}

kernel_fn!(chatter, |lane| {
    // Parameters: format address, argument block address, number of calls.
    for _ in 0..lane.param(2) {
        // SAFETY: called as generated code does.
        let count = unsafe { helpers::rt_vprintf(lane.thread, lane.block, lane.param(0), lane.param(1)) };
        assert_eq!(count, 3);
    }
    DONE
});
kernel_fn!(assert_fails, |lane| {
    if lane.thread.linear != 1 {
        return DONE;
    }
    let text = lane.param(0);
    // SAFETY: called as generated code does.
    unsafe { helpers::rt_assertfail(lane.thread, lane.block, text, text + 16, 42, text + 32, 1) }
});

#[test]
fn output_reaches_the_sink() {
    let rig = Rig::new(2);
    let text = rig.buffer(64);
    let launch = |kernel: &Kernel, grid: u32, params: &[u64]| {
        let mut streams = [Vec::new(), Vec::new()];
        let cell = std::cell::RefCell::new(&mut streams);
        let sink = |stream: OutputStream, bytes: &[u8]| {
            cell.borrow_mut()[usize::from(stream == OutputStream::Stderr)].extend_from_slice(bytes);
        };
        let params: Vec<u8> = params.iter().flat_map(|word| word.to_le_bytes()).collect();
        let config = LaunchConfig {
            grid: [grid, 1, 1],
            block: [2, 1, 1],
            dynamic_shared_len: 0,
            params: &params,
            cooperative: false,
        };
        // SAFETY: the kernels keep to the contract.
        let result = unsafe { rig.engine.launch(kernel, &config, &CancelToken::new(), &sink) };
        (result, streams.map(|bytes| String::from_utf8(bytes).unwrap()))
    };
    rig.region.copy_in(text, b"%d %s %.1f;\0").unwrap();
    rig.region.copy_in(text + 64, &7u32.to_le_bytes()).unwrap();
    rig.region.copy_in(text + 72, &(text + 128).to_le_bytes()).unwrap();
    rig.region.copy_in(text + 80, &1.5f64.to_le_bytes()).unwrap();
    rig.region.copy_in(text + 128, b"word\0").unwrap();
    let (result, [stdout, stderr]) = launch(&kernel("chatter", chatter, false), 5, &[text, text + 64, 2]);
    assert_eq!(result.unwrap().lost_outputs, 0);
    assert_eq!((stdout, stderr), ("7 word 1.5;".repeat(20), String::new()));
    // More than the buffer holds: the oldest is lost, and counted.
    let (result, [stdout, _]) = launch(&kernel("chatter", chatter, false), 1, &[text, text + 64, 100_000]);
    let lost = result.unwrap().lost_outputs as usize;
    assert!(lost > 0);
    assert_eq!(stdout.len(), (200_000 - lost) * "7 word 1.5;".len());
    rig.region.copy_in(text, b"x > 0\0         \0file.cu\0       \0f(int)\0").unwrap();
    let (result, [_, stderr]) = launch(&kernel("assert_fails", assert_fails, false), 1, &[text]);
    assert_eq!(stderr, "file.cu:42: f(int): block: [0,0,0], thread: [1,0,0] Assertion `x > 0` failed.\n");
    assert_eq!(fault_of(result).kind, FaultKind::Assert);
}

kernel_fn!(heap_user, |lane| {
    // SAFETY: called as generated code does.
    unsafe {
        let first = helpers::rt_malloc(lane.thread, lane.block, 100);
        assert!(first != 0 && first.is_multiple_of(16));
        lane.store(first, 24, lane.thread.linear);
        let second = helpers::rt_malloc(lane.thread, lane.block, 100);
        assert!(first.abs_diff(second) >= 100);
        assert_eq!(lane.load(first, 24), lane.thread.linear);
        helpers::rt_free(lane.thread, lane.block, second);
        helpers::rt_free(lane.thread, lane.block, first);
        assert_eq!(helpers::rt_malloc(lane.thread, lane.block, 1 << 40), 0);
    }
    DONE
});

#[test]
fn the_heap_serves_many_threads() {
    let rig = Rig::new(3);
    rig.engine.set_heap_limit(1 << 20).unwrap();
    for _ in 0..5 {
        rig.run(&kernel("heap_user", heap_user, false), 30, 64, &[]).unwrap();
    }
    assert!(matches!(rig.engine.set_heap_limit(2 << 20), Err(EngineError::HeapInUse)));
}
