//! Runs the fuzz bodies over many damaged inputs: `cargo run --release -p fatbin --example fuzz -- COUNT [SEED]`.
//!
//! COUNT inputs are shared out among the bodies. It ends with an error if a body panics, takes longer than two seconds
//! for one input, or if the memory of the process grows.

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::mutate::{self, Random, mutate};

/// An input that takes longer counts as a hang.
const SLOW: Duration = Duration::from_secs(2);
/// Growth of resident memory that is put down to the allocator.
const SLACK_PAGES: u64 = 16 << 10;

fn resident_pages() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let (count, seed) = match (args.next(), args.next()) {
        (Some(Ok(count)), None) => (count, 1),
        (Some(Ok(count)), Some(Ok(seed))) => (count, seed),
        _ => {
            eprintln!("usage: fuzz COUNT [SEED]");
            return ExitCode::from(2);
        }
    };
    let targets =
        [mutate::container_target(), mutate::cubin_target(), mutate::file_target(), mutate::ptx_target()];
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let start = Instant::now();
    let mut after_warm_up = 0;
    let mut slowest = Duration::ZERO;
    for n in 0..count {
        let target = &targets[(n % targets.len() as u64) as usize];
        let mut input = target.seeds[random.below(target.seeds.len())].clone();
        mutate(&mut input, &mut random);
        // A panic of the body must not lose the input.
        let begin = Instant::now();
        let result = std::panic::catch_unwind(|| (target.body)(&input));
        let took = begin.elapsed();
        slowest = slowest.max(took);
        if result.is_err() || took > SLOW {
            let path = std::env::temp_dir().join(format!("fatbin-fuzz-{}-{n}", target.name));
            std::fs::write(&path, &input).expect("temporary directory");
            eprintln!("{}: panicked or took {took:?}: {}", target.name, path.display());
            return ExitCode::FAILURE;
        }
        if n == count / 10 {
            after_warm_up = resident_pages();
        }
        if n % 1_000_000 == 999_999 {
            println!("{} inputs, {:?}", n + 1, start.elapsed());
        }
    }
    let grown = resident_pages().saturating_sub(after_warm_up);
    println!("{count} inputs in {:?}, slowest {slowest:?}, memory grew by {grown} pages", start.elapsed());
    if grown > SLACK_PAGES {
        eprintln!("memory grows");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
