//! `cargo xtask vm`: tests in virtual machines, on machines with and without hardware virtualisation.
//!
//! | test | what runs | needs |
//! |---|---|---|
//! | flat | the KVM layer under hand-written guest code | /dev/kvm |
//! | nested | `host-vmm boot` with stock kernels, on the real KVM and vhost-vsock of a QEMU guest whose processor is interpreted | a Debian mirror |
//! | tcg | the broker module (guest-kmod) on stock kernels, against the daemon's broker library | a Debian mirror |
//!
//! What a machine cannot do is `skipped: reason`.

mod cpio;
mod flat;
pub mod kernel;
mod nested;
pub mod qemu;
mod tcg;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use crate::debian::{self, Release};

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

pub fn main(args: &Args) -> Result<ExitCode> {
    let results = match &args.test {
        Test::Flat => vec![("flat".to_owned(), flat::run()?)],
        Test::Nested(args) => run_nested(args)?,
        Test::Tcg(args) => run_tcg(args)?,
        Test::All(args) => {
            let mut results = vec![("flat".to_owned(), flat::run()?)];
            results.extend(run_nested(args)?);
            let tcg = TcgArgs {
                kernel: args.kernel,
                all_kernels: false,
                memory: 512,
                fuzz: 100_000,
                kills: 10,
                timeout: args.timeout.max(600),
                verbose: args.verbose,
            };
            results.extend(run_tcg(&tcg)?);
            results
        }
    };
    let mut failed = false;
    for (name, outcome) in &results {
        match outcome {
            Outcome::Passed(note) => println!("{name}: passed {note}"),
            Outcome::Skipped(reason) => println!("{name}: skipped: {reason}"),
            Outcome::Failed(reason) => {
                failed = true;
                println!("{name}: FAILED\n{reason}");
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
