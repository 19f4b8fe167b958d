//! `cargo xtask vm bench`: one benchmark program on this machine and in a guest with the module, in turns, and the ratios.
//!
//! Natively means without a daemon; on the CPU backend, which has no other way, through a unix socket. Each turn of the guest is a machine of its own. Its processor is
//! interpreted: copies are made by this machine's processor and device and can be compared; what the guest's own instructions take part in (launches, round
//! trips, memory that the program itself touches) is only shown.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::programs::{self, FOLDER, Program};
use super::tcg::{self, MEMORY_MIB};
use super::{CPU, Means, Options};
use crate::bench::figures::Figures;
use crate::bench::{gpu as tables, items};
use crate::gpu::{self, Daemon, Leg, Setup};
use crate::manifest::BENCHMARKS;
use crate::nvcc::Variant;
use crate::process;
use crate::vm::report::{self, Report};
use crate::vm::{KernelOf, With};

#[derive(clap::Args)]
pub struct Args {
    /// Whose stock kernel runs
    #[arg(long, value_enum, default_value_t = KernelOf::Debian12)]
    kernel: KernelOf,
    #[command(flatten)]
    with: With,
    /// How often each side runs
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Run this group only (may be given several times): any of samples/bench/micro.cpp
    #[arg(long, value_name = "GROUP")]
    only: Vec<String>,
    /// The largest copies
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    largest: u64,
    /// Time limit for each group, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Print everything that machines and daemons printed
    #[arg(long, short)]
    verbose: bool,
}

const PROGRAM: &str = "bench/micro";
/// What runs if nothing else is asked for.
const GROUPS: [&str; 3] = ["copies", "launch", "sync"];
/// Where the program finds how large copies may be.
const LARGEST: &str = "BENCH_LARGEST_MIB";
/// Time for a machine beside that of its programs.
const START: Duration = Duration::from_secs(120);

/// Runs it and prints the table.
///
/// # Errors
/// Something cannot be built or found, or the program fails on either side.
pub fn run(args: &Args) -> Result<ExitCode> {
    let backend = args.with.backend.as_deref().unwrap_or("cuda");
    if let Some(reason) = gpu::missing(backend) {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let groups: Vec<&str> =
        if args.only.is_empty() { GROUPS.to_vec() } else { args.only.iter().map(String::as_str).collect() };
    let sample = BENCHMARKS.iter().find(|sample| sample.name == PROGRAM).context("no such program")?;
    let limit = Duration::from_secs(args.timeout);
    let machine_limit = START + limit * u32::try_from(groups.len())?;
    let options = Options {
        release: args.kernel.release(),
        legs: &[],
        variants: &[],
        only: &[],
        host: args.with.host.as_deref(),
        prebuilt: args.with.prebuilt.as_deref(),
        backend,
        limit,
        machine_limit,
        verbose: args.verbose,
    };
    let bench = Bench {
        means: Means::new(&options, &[sample])?,
        program: Program { sample, variant: Variant::Static },
        groups,
        largest: args.largest,
        verbose: args.verbose,
    };
    let mut figures = Figures::default();
    for round in 0..args.rounds {
        eprintln!("bench: {}/{}", round + 1, args.rounds);
        // The side that comes first changes.
        if round % 2 == 0 {
            bench.run_here(&mut figures)?;
        }
        bench.run_guest(&mut figures)?;
        if round % 2 == 1 {
            bench.run_here(&mut figures)?;
        }
    }
    let device = if backend == CPU { "CPU backend".to_owned() } else { gpu::describe() };
    println!(
        "{device}; {} rounds, medians; ratio = guest / native, with its extremes over the rounds",
        args.rounds
    );
    tables::print_table(&figures.all, "guest", items::guest_target);
    println!(
        "the guest's processor is interpreted (TCG): its launches and round trips say nothing about a real one"
    );
    Ok(ExitCode::SUCCESS)
}

/// What both sides share.
struct Bench<'a> {
    means: Means,
    program: Program,
    groups: Vec<&'a str>,
    largest: u64,
    verbose: bool,
}

impl Bench<'_> {
    fn run_here(&self, figures: &mut Figures) -> Result<()> {
        let setup = &self.means.setup;
        let path: PathBuf = setup.program(self.program.sample, self.program.variant);
        let daemon = if setup.backend == CPU { Some(Daemon::start(setup, &[])?) } else { None };
        for group in &self.groups {
            let mut command = match &daemon {
                Some(daemon) => setup.command(&path, Leg::Shim, daemon),
                None => Setup::native(&path),
            };
            command.arg(group).env(LARGEST, self.largest.to_string());
            let finished = process::run_limited(&mut command, self.means.limit)?;
            add(figures, group, Leg::Native, &finished)?;
        }
        Ok(())
    }

    fn run_guest(&self, figures: &mut Figures) -> Result<()> {
        let scratch = tempfile::Builder::new().prefix("vm-bench-").tempdir()?;
        self.stage(&scratch.path().join("root"))?;
        // Each copy has its pinned and its pageable memory.
        let memory = MEMORY_MIB + 3 * self.largest;
        let ran = tcg::run_staged(&tcg::MODULE, &self.means, scratch.path(), memory, self.groups.len())?;
        if self.verbose {
            println!("{}", ran.log);
        }
        println!("{}", ran.note);
        for group in &self.groups {
            let Some(finished) = Report::of(&ran.reports, group).finished() else {
                bail!("the machine ended before {group} did:\n{}", ran.problem.unwrap_or_default());
            };
            add(figures, group, Leg::Shim, &finished)?;
        }
        match ran.problem {
            Some(problem) => bail!("the machine:\n{problem}"),
            None => Ok(()),
        }
    }

    fn stage(&self, root: &Path) -> Result<()> {
        programs::stage_files(&[self.program], &self.means, root)?;
        let path = self.means.setup.program(self.program.sample, self.program.variant);
        let name = path.file_name().and_then(|name| name.to_str()).context("a program's name")?;
        let line = |group: &&str| {
            let folder = self.program.variant.name();
            format!("{LARGEST}={} exec /{FOLDER}/{folder}/{name} {group}", self.largest)
        };
        let lines: Vec<String> = self.groups.iter().map(line).collect();
        let commands: Vec<_> = self
            .groups
            .iter()
            .zip(&lines)
            .map(|(&name, line)| report::Command {
                name,
                limit: self.means.limit,
                words: vec![programs::SHELL, "-c", line.as_str()],
            })
            .collect();
        programs::stage_cases(&commands, root)
    }
}

/// Takes the figures of a run; one that failed fails the benchmark.
fn add(figures: &mut Figures, group: &str, leg: Leg, finished: &process::Finished) -> Result<()> {
    figures.add_output(group, leg, &String::from_utf8_lossy(&finished.stdout))?;
    match finished.status {
        Some(status) if status.success() => Ok(()),
        status => {
            let how = status.map_or_else(|| "time limit".to_owned(), |status| status.to_string());
            let said = process::tail(&String::from_utf8_lossy(&finished.stderr), 15, "  ");
            bail!("{group}, {}: {how}\n{said}", if leg == Leg::Native { "native" } else { "guest" })
        }
    }
}
