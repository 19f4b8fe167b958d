//! `cargo xtask test`: unit and property tests, the sample matrix, the library in foreign programs, Numba, virtual machines.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::manifest::PROBES;
use crate::toolkit::{Choice, Toolkit};
use crate::{gpu, gpu_test, nvcc, samples, test_cargo, test_matrix, test_numba, test_shim, vm, workspace};

#[derive(Parser)]
pub struct Args {
    /// Leave out the unit and property tests
    #[arg(long)]
    samples_only: bool,
    /// Run the tests of the library only
    #[arg(long, conflicts_with_all = ["samples_only", "only", "leg"])]
    library_only: bool,
    /// Leave out the tests in virtual machines, for which a kernel and QEMU are downloaded (about 100 MB) and which take some minutes
    #[arg(long)]
    without_vm: bool,
    /// How often the last of the library tests runs its program
    #[arg(long, default_value_t = 50, value_name = "N")]
    runs: u32,
    /// Run this sample only (may be given several times; leaves out all else)
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Run this leg only (may be given several times)
    #[arg(long, value_enum, value_name = "LEG")]
    leg: Vec<Leg>,
    /// Time limit for each sample, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
    /// Use this host program instead of building one
    #[arg(long, value_name = "PATH")]
    host: Option<PathBuf>,
    /// Where nvcc comes from
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub toolkit: Choice,
    /// Run the tests that need a GPU, natively and through the shim; --only names a part of them or one test
    #[arg(long)]
    pub gpu: bool,
    /// With --gpu: which backend the shim leg has; with cpu there is no native leg [default: cuda]
    #[arg(long, requires = "gpu", value_name = "BACKEND")]
    pub backend: Option<String>,
    /// With --gpu: programs at the same time [default: 4]
    #[arg(long, requires = "gpu", value_name = "N")]
    pub jobs: Option<usize>,
    /// With --gpu: a mixture of programs for so long, and whether the daemon holds no more afterwards
    #[arg(long, requires = "gpu", value_name = "MINUTES")]
    pub soak: Option<f64>,
    /// With --gpu: where the outputs of failing programs go, on both legs
    #[arg(long, requires = "gpu", value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub options: gpu::Options,
}

/// One column of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Leg {
    CpuStatic,
    CpuShared,
    /// The CPU backend without shared memory: everything goes through a socket, as from a virtual machine over plain vsock
    Stream,
    /// The CUDA backend, with the shim and a CPU backend in the place of the driver
    Nested,
    GpuStatic,
    GpuShared,
}

/// What became of one test.
#[derive(Clone, Debug)]
pub enum Outcome {
    Pass(Duration),
    /// With everything that a person needs to see.
    Fail(String),
    /// With the reason.
    Skip(String),
}

/// Numbers for the closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Counts {
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut counts = Self::default();
        for outcome in outcomes {
            match outcome {
                Outcome::Pass(_) => counts.passed += 1,
                Outcome::Fail(_) => counts.failed += 1,
                Outcome::Skip(_) => counts.skipped += 1,
            }
        }
        counts
    }
}

pub fn main(args: &Args) -> Result<ExitCode> {
    if args.gpu {
        return gpu_test::run(args);
    }
    let chosen = samples::select(&args.only)?;
    let legs = if args.leg.is_empty() { Leg::value_variants().to_vec() } else { args.leg.clone() };
    let limit = Duration::from_secs(args.timeout);

    // Everything is built first: integration tests use the samples too.
    let host = match &args.host {
        Some(path) => path.clone(),
        None => workspace::build_host()?,
    };
    let everything = args.only.is_empty() && !args.library_only;
    let with_library = args.only.is_empty() && legs.contains(&Leg::CpuStatic);
    let built = Toolkit::ensure(args.toolkit).and_then(|toolkit| {
        nvcc::build(&toolkit, &chosen)?;
        if with_library { nvcc::build(&toolkit, &PROBES.iter().collect::<Vec<_>>()) } else { Ok(()) }
    });

    let mut counts = Counts::default();
    if !args.samples_only && everything {
        counts.add(test_cargo::run()?);
        counts.add(test_cargo::run_models()?);
        counts.add(test_cargo::run_optimised()?);
    }
    match built {
        Ok(()) => {
            if !args.library_only {
                counts.add(test_matrix::run(&host, &chosen, &legs, limit)?);
            }
            if with_library {
                match test_shim::run(&host, args.runs) {
                    Ok(library) => counts.add(library),
                    Err(error) => counts.add(failure("library", &error)),
                }
            }
        }
        Err(error) => counts.add(failure("samples", &error)),
    }
    if everything && legs.contains(&Leg::CpuStatic) {
        match test_numba::run(&host, limit) {
            Ok(numba) => counts.add(numba),
            Err(error) => counts.add(failure("numba", &error)),
        }
    }
    if everything && args.leg.is_empty() && !args.without_vm {
        match vm::gate(&host) {
            Ok(machines) => counts.add(machines),
            Err(error) => counts.add(failure("vm", &error)),
        }
    }
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A part of the tests that could not begin: one failure, and the other parts still run.
fn failure(part: &str, error: &anyhow::Error) -> Counts {
    println!("{part}: FAIL: {error:#}");
    Counts { failed: 1, ..Counts::default() }
}
