//! What the engine itself costs: per thread, per barrier, per shuffle, per launch, per allocation. Kernels are written by hand.
//! `cargo run --release -p ptx-cpu --example engine_overhead`
#![allow(unsafe_code)] // Acts as generated code: kernels get raw pointers.

use std::sync::Arc;
use std::time::Instant;

use ptx_cpu::abi::{Block, KernelFn, Thread, op};
use ptx_cpu::engine::{CancelToken, Engine, EngineConfig, LaunchConfig, OutputStream};
use ptx_cpu::fault;
use ptx_cpu::kernel::Kernel;
use ptx_cpu::region::{Region, RegionConfig};

/// Writes one word per thread.
unsafe extern "C" fn store(thread: *mut Thread, block: *const Block) -> u32 {
    // SAFETY: called by the engine; the parameter is a buffer with a word for every thread.
    unsafe {
        let base = *((*block).params as *const u64);
        let index = (*block).ctaid[0] * (*block).ntid[0] + (*thread).tid[0];
        ((base + 4 * u64::from(index)) as *mut u32).write(index);
    }
    0
}

/// Parks 100 times at what the second parameter says.
unsafe extern "C" fn park(thread: *mut Thread, block: *const Block) -> u32 {
    // SAFETY: called by the engine.
    unsafe {
        let thread = &mut *thread;
        if thread.resume == 100 {
            return 0;
        }
        thread.resume += 1;
        let operation = *((*block).params as *const u64).add(1) as u32;
        thread.park.op = operation;
        thread.park.mask = if operation == op::BARRIER_SYNC { 0 } else { !0 };
        (thread.park.a, thread.park.b, thread.park.c) = (0, 1, 31);
    }
    1
}

fn main() {
    fault::install().expect("signal handlers");
    let region = Arc::new(Region::reserve_any(RegionConfig::default()).expect("region"));
    let buffer = region.alloc(64 << 20, 256).expect("memory");
    region.fill8(buffer, 0, 64 << 20).expect("memory");
    for threads in [1, 2] {
        println!("{threads} thread(s)");
        let config = EngineConfig { threads, ..EngineConfig::default() };
        let engine = Engine::new(region.clone(), config).expect("engine");
        let run = |entry: KernelFn, suspends: bool, grid: u32, block: u32, operation: u32| {
            let kernel = Kernel {
                name: "bench".into(),
                entry,
                frame_len: 64,
                local_len: 0,
                static_shared_len: 1024,
                suspends,
            };
            let params: Vec<u8> =
                [buffer, operation.into()].iter().flat_map(|word| word.to_le_bytes()).collect();
            let config = LaunchConfig {
                grid: [grid, 1, 1],
                block: [block, 1, 1],
                dynamic_shared_len: 0,
                params: &params,
                cooperative: false,
            };
            let mut best = f64::INFINITY;
            for _ in 0..20 {
                let begin = Instant::now();
                // SAFETY: the kernels above keep to the contract.
                unsafe {
                    engine.launch(&kernel, &config, &CancelToken::new(), &|_: OutputStream, _: &[u8]| {})
                }
                .expect("launch");
                best = best.min(begin.elapsed().as_nanos() as f64);
            }
            best
        };
        for block in [1u32, 32, 256] {
            let grid = (1 << 20) / block;
            println!(
                "  store, 1M threads in blocks of {block:4}: {:7.2} ns/thread",
                run(store, false, grid, block, 0) / 1048576.0
            );
        }
        println!(
            "  the same, re-enterable, blocks of 256: {:7.2} ns/thread",
            run(store, true, 4096, 256, 0) / 1048576.0
        );
        for (name, operation) in [
            ("barrier", op::BARRIER_SYNC),
            ("shuffle", op::SHFL_BFLY),
            ("ballot", op::VOTE_BALLOT),
            ("yield", op::YIELD),
        ] {
            for block in [256u32, 1024] {
                let suspensions = 64.0 * f64::from(block) * 100.0;
                println!(
                    "  {name}, blocks of {block:4}: {:7.2} ns/thread",
                    run(park, true, 64, block, operation) / suspensions
                );
            }
        }
        for grid in [1u32, 2, 64] {
            println!("  launch of {grid} block(s) of 32: {:7.0} ns", run(store, false, grid, 32, 0));
        }
    }
    for len in [256u64, 1 << 20, 64 << 20] {
        let mut best = f64::INFINITY;
        for _ in 0..200 {
            let begin = Instant::now();
            let base = region.alloc(len, 256).expect("memory");
            region.free(base).expect("memory");
            best = best.min(begin.elapsed().as_nanos() as f64);
        }
        println!("alloc + free {len} bytes: {best:.0} ns");
    }
    let begin = Instant::now();
    let bases: Vec<u64> = (0..1000).map(|_| region.alloc(1 << 20, 256).expect("memory")).collect();
    println!("fresh alloc 1 MiB: {:.0} ns", begin.elapsed().as_nanos() as f64 / 1000.0);
    for base in bases {
        region.free(base).expect("memory");
    }
    let source = vec![1u8; 64 << 20];
    let mut best = [f64::INFINITY; 2];
    let mut copy = vec![0u8; 64 << 20];
    for _ in 0..10 {
        let begin = Instant::now();
        region.copy_in(buffer, &source).expect("copy");
        best[0] = best[0].min(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        copy.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&mut copy);
        best[1] = best[1].min(begin.elapsed().as_secs_f64());
    }
    let [checked, plain] = best.map(|seconds| (64 << 20) as f64 / seconds / 1e9);
    println!("copy_in 64 MiB: {checked:.1} GB/s, memcpy {plain:.1} GB/s");
    let begin = Instant::now();
    for _ in 0..100_000 {
        region.copy_in(buffer + 64, &source[..4]).expect("copy");
    }
    println!("copy_in 4 bytes: {:.0} ns", begin.elapsed().as_nanos() as f64 / 1e5);
}
