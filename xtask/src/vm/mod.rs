//! `cargo xtask vm`: tests in virtual machines, on machines with and without hardware virtualisation.
//!
//! | test | what runs | needs |
//! |---|---|---|
//! | flat | the KVM layer under hand-written guest code | /dev/kvm |
//! | nested | `host-vmm boot` with stock kernels, on the real KVM and vhost-vsock of a QEMU guest whose processor is interpreted | a Debian mirror |
//! | tcg | the broker module (guest-kmod) on stock kernels, against the daemon's broker library | a Debian mirror |
//! | hostile | programs in a guest that do what they should not, and ends without warning: of programs, of the daemon, of the machine | a Debian mirror, nvcc |
//! | samples | the sample programs in guests, against the daemon | a Debian mirror, nvcc |
//!
//! On a machine with a GPU and without all that, `samples` takes everything from a folder that `cargo xtask pack --vm` has made ([`parts`]); `bench` measures
//! there, or here, how copies and launches of a guest compare with those of the machine.
//!
//! What a machine cannot do is `skipped: reason`.

mod cpio;
mod flat;
mod helpers;
mod hostile;
pub mod kernel;
mod machine;
mod nested;
mod outer;
mod parts;
pub mod qemu;
mod report;
mod samples;
mod stage;
mod tcg;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use crate::debian::{self, Release};
use crate::nvcc::Variant;
use crate::test::Counts;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    test: Test,
}

#[derive(Subcommand)]
enum Test {
    /// The KVM layer under hand-written guest code, on this machine's KVM
    Flat,
    /// `host-vmm boot` inside of a virtual machine that has KVM and vhost-vsock
    Nested(NestedArgs),
    /// The broker module in a guest of an interpreted processor
    Tcg(TcgArgs),
    /// Hostile programs in a guest, and kills
    Hostile(HostileArgs),
    /// The sample programs in guests
    Samples(SamplesArgs),
    /// Copies and launches from inside of a guest, beside the same program on this machine
    Bench(samples::bench::Args),
    /// All of them
    All(NestedArgs),
}

#[derive(clap::Args)]
struct NestedArgs {
    /// Whose stock kernel runs in both machines
    #[arg(long, value_enum, default_value_t = KernelOf::Debian12)]
    kernel: KernelOf,
    /// Run only the cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// A host-vmm that is built already
    #[arg(long, value_name = "PATH")]
    host: Option<PathBuf>,
    /// Time limit in seconds: an idle machine needs about 40
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
    /// Print everything that the outer machine printed
    #[arg(long, short)]
    verbose: bool,
}

#[derive(clap::Args)]
struct TcgArgs {
    /// Whose stock kernel runs
    #[arg(long, value_enum, default_value_t = KernelOf::Debian12, conflicts_with = "all_kernels")]
    kernel: KernelOf,
    /// All stock kernels that the module is for
    #[arg(long)]
    all_kernels: bool,
    /// Memory of the guest; above 2815 MiB, some of it lies above 4 GiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory: u64,
    /// How many random calls of the device are made
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    fuzz: u64,
    /// How many programs are killed
    #[arg(long, value_name = "N", default_value_t = 10)]
    kills: u64,
    /// Time limit in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Print everything that the guest printed
    #[arg(long, short)]
    verbose: bool,
}

#[derive(clap::Args)]
struct HostileArgs {
    /// Whose stock kernel runs
    #[arg(long, value_enum, default_value_t = KernelOf::Debian12)]
    kernel: KernelOf,
    /// How many programs are killed
    #[arg(long, value_name = "N", default_value_t = 200)]
    kills: u64,
    /// A host-vmm that is built already, with the shim beside it
    #[arg(long, value_name = "PATH")]
    host: Option<PathBuf>,
    /// Time limit for each machine, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    timeout: u64,
    /// Print everything that machines and daemons printed
    #[arg(long, short)]
    verbose: bool,
}

/// With what tests and benchmarks run.
#[derive(Clone, Debug, Default, clap::Args)]
struct With {
    /// A host-vmm that is built already, with the shim beside it
    #[arg(long, value_name = "PATH")]
    host: Option<PathBuf>,
    /// A folder of `cargo xtask pack --vm`: nothing is built or fetched
    #[arg(long, value_name = "DIR", conflicts_with = "kernel")]
    prebuilt: Option<PathBuf>,
    /// Which backend the daemon has: cpu, cuda or auto [default: cpu; of the benchmark: cuda]
    #[arg(long)]
    backend: Option<String>,
}

#[derive(clap::Args)]
struct SamplesArgs {
    /// Whose stock kernel runs
    #[arg(long, value_enum, default_value_t = KernelOf::Debian12)]
    kernel: KernelOf,
    /// Run this leg only (may be given several times)
    #[arg(long, value_enum, value_name = "LEG")]
    leg: Vec<samples::Leg>,
    /// Run this variant of the programs only
    #[arg(long, value_enum, value_name = "VARIANT")]
    variant: Option<Variant>,
    /// Run this sample only (may be given several times)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    #[command(flatten)]
    with: With,
    /// Time limit for each program, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Time limit for each machine, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    machine_timeout: u64,
    /// Print everything that machines and daemons printed
    #[arg(long, short)]
    verbose: bool,
}

/// A stock kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum KernelOf {
    /// 6.1
    Debian12,
    /// 6.12
    Debian13,
    /// The newest in Debian 13's backports
    Debian13Backports,
}

impl KernelOf {
    fn release(self) -> Release {
        match self {
            Self::Debian12 => debian::BOOKWORM,
            Self::Debian13 => debian::TRIXIE,
            Self::Debian13Backports => debian::TRIXIE_BACKPORTS,
        }
    }
}

/// What became of a test.
enum Outcome {
    Passed(String),
    Failed(String),
    Skipped(String),
}

impl Outcome {
    fn count(&self) -> Counts {
        let mut counts = Counts::default();
        match self {
            Self::Passed(_) => counts.passed = 1,
            Self::Failed(_) => counts.failed = 1,
            Self::Skipped(_) => counts.skipped = 1,
        }
        counts
    }
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let counts = match &args.test {
        Test::Flat => print(&[("flat".to_owned(), flat::run()?)]),
        Test::Nested(args) => print(&run_nested(args)?),
        Test::Tcg(args) => print(&run_tcg(args)?),
        Test::Hostile(args) => print(&run_hostile(args)?),
        Test::Samples(args) => run_samples(args)?,
        Test::Bench(args) => return samples::bench::run(args),
        Test::All(args) => run_all(args)?,
    };
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What of the tests is part of all tests: the samples in guests of both kinds, and a short run of the module's own.
///
/// # Errors
/// Kernels or QEMU cannot be fetched, or something cannot be built.
pub fn gate(host: &Path) -> Result<Counts> {
    if Command::new("apt-get").arg("--version").output().is_err() {
        return Ok(print(&[(
            "vm".into(),
            Outcome::Skipped("no apt-get to fetch kernels and QEMU with".into()),
        )]));
    }
    let kernel = KernelOf::Debian12;
    let mut counts = Counts::default();
    for (leg, variant) in [
        (samples::Leg::TcgModule, None),
        (samples::Leg::TcgStream, Some(Variant::Static)),
        (samples::Leg::Nested, Some(Variant::Static)),
    ] {
        counts.add(run_samples(&SamplesArgs {
            kernel,
            leg: vec![leg],
            variant,
            only: Vec::new(),
            with: With { host: Some(host.to_owned()), ..With::default() },
            timeout: 120,
            machine_timeout: 1200,
            verbose: false,
        })?);
    }
    counts.add(print(&run_tcg(&TcgArgs {
        kernel,
        all_kernels: false,
        memory: 512,
        fuzz: 20_000,
        kills: 5,
        timeout: 600,
        verbose: false,
    })?));
    counts.add(print(&run_hostile(&HostileArgs {
        kernel,
        kills: 10,
        host: Some(host.to_owned()),
        timeout: 600,
        verbose: false,
    })?));
    Ok(counts)
}

/// Puts what the legs of QEMU alone need into a folder of `cargo xtask pack`.
///
/// # Errors
/// Something cannot be fetched, built or copied.
pub fn pack(dir: &Path) -> Result<Vec<(&'static str, u64)>> {
    parts::Parts::Here(KernelOf::Debian12.release()).pack(dir)
}

fn run_all(args: &NestedArgs) -> Result<Counts> {
    let mut counts = print(&[("flat".to_owned(), flat::run()?)]);
    counts.add(print(&run_nested(args)?));
    counts.add(print(&run_tcg(&TcgArgs {
        kernel: args.kernel,
        all_kernels: false,
        memory: 512,
        fuzz: 100_000,
        kills: 10,
        timeout: args.timeout.max(600),
        verbose: args.verbose,
    })?));
    counts.add(print(&run_hostile(&HostileArgs {
        kernel: args.kernel,
        kills: 10,
        host: None,
        timeout: args.timeout.max(600),
        verbose: args.verbose,
    })?));
    counts.add(run_samples(&SamplesArgs {
        kernel: args.kernel,
        leg: Vec::new(),
        variant: None,
        only: Vec::new(),
        with: With::default(),
        timeout: 120,
        machine_timeout: args.timeout.max(1800),
        verbose: args.verbose,
    })?);
    Ok(counts)
}

fn print(results: &[(String, Outcome)]) -> Counts {
    let mut counts = Counts::default();
    for (name, outcome) in results {
        counts.add(outcome.count());
        match outcome {
            Outcome::Passed(note) => println!("{name}: passed {note}"),
            Outcome::Skipped(reason) => println!("{name}: skipped: {reason}"),
            Outcome::Failed(reason) => println!("{name}: FAILED\n{reason}"),
        }
    }
    counts
}

fn run_samples(args: &SamplesArgs) -> Result<Counts> {
    let variants = args.variant.map_or(Variant::ALL.to_vec(), |variant| vec![variant]);
    let legs = if args.leg.is_empty() { samples::Leg::value_variants() } else { &args.leg };
    samples::run(&samples::Options {
        release: args.kernel.release(),
        legs,
        variants: &variants,
        only: &args.only,
        host: args.with.host.as_deref(),
        prebuilt: args.with.prebuilt.as_deref(),
        backend: args.with.backend.as_deref().unwrap_or(samples::CPU),
        limit: Duration::from_secs(args.timeout),
        machine_limit: Duration::from_secs(args.machine_timeout),
        verbose: args.verbose,
    })
}

fn run_nested(args: &NestedArgs) -> Result<Vec<(String, Outcome)>> {
    nested::run(&nested::Options {
        release: args.kernel.release(),
        only: args.only.as_deref(),
        host: args.host.as_deref(),
        limit: Duration::from_secs(args.timeout),
        verbose: args.verbose,
    })
}

fn run_hostile(args: &HostileArgs) -> Result<Vec<(String, Outcome)>> {
    hostile::run(&hostile::Options {
        release: args.kernel.release(),
        kills: args.kills,
        host: args.host.as_deref(),
        limit: Duration::from_secs(args.timeout),
        verbose: args.verbose,
    })
}

fn run_tcg(args: &TcgArgs) -> Result<Vec<(String, Outcome)>> {
    let all = [KernelOf::Debian12, KernelOf::Debian13, KernelOf::Debian13Backports];
    let kernels = if args.all_kernels { &all[..] } else { std::slice::from_ref(&args.kernel) };
    let mut results = Vec::new();
    for kernel in kernels {
        let release = kernel.release();
        let options = tcg::Options {
            release,
            memory_mib: args.memory,
            fuzz: args.fuzz,
            kills: args.kills,
            limit: Duration::from_secs(args.timeout),
            verbose: args.verbose,
        };
        results.push((format!("tcg/{}", release.label()), tcg::run(&options)?));
    }
    Ok(results)
}
