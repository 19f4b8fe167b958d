//! `cargo xtask vm samples`: the samples in virtual machines, as a table of samples and legs.
//!
//! A leg is a way from a program to the daemon. All programs of a leg run in one machine, one after the other: starting a machine costs more than most of
//! them. What a leg cannot run is what the column of the sample matrix ([`crate::test_matrix`]) that has the same means cannot run.

pub mod bench;
mod nested;
mod programs;
mod tcg;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::parts::Parts;
use crate::debian::Release;
use crate::gpu::{self, Setup};
use crate::manifest::Sample;
use crate::nvcc::{self, Variant};
use crate::progress::Progress;
use crate::test::{self, Counts, Outcome};
use crate::test_matrix;
use crate::toolkit::{Choice, Toolkit};
use crate::{samples, workspace};
use programs::Program;

/// The backend that needs no device.
pub const CPU: &str = "cpu";

/// What to run, and with what.
pub struct Options<'a> {
    pub release: Release,
    pub legs: &'a [Leg],
    pub variants: &'a [Variant],
    pub only: &'a [String],
    pub host: Option<&'a Path>,
    /// A folder of `cargo xtask pack --vm`: nothing is built or fetched.
    pub prebuilt: Option<&'a Path>,
    /// Of the daemon.
    pub backend: &'a str,
    /// For one program.
    pub limit: Duration,
    /// For one machine.
    pub machine_limit: Duration,
    pub verbose: bool,
}

/// A way from a program to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Leg {
    /// No machine: a unix socket, for comparison
    Unix,
    /// A guest of an interpreted processor without our module: everything goes through vsock, whose device is the daemon's own
    TcgStream,
    /// The same with the module: shared memory
    TcgModule,
    /// As tcg-stream, with another project's vsock device
    TcgForeign,
    /// The kernel's vhost-vsock under a guest that is a process, in a guest of an interpreted processor
    Vhost,
    /// `host-vmm boot` with our module on KVM and the kernel's vhost-vsock, in a guest of an interpreted processor
    Nested,
}

impl Leg {
    fn title(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::TcgStream => "tcg stream",
            Self::TcgModule => "tcg module",
            Self::TcgForeign => "tcg foreign",
            Self::Vhost => "vhost",
            Self::Nested => "nested",
        }
    }

    /// What a sample needs and this leg does not have.
    fn lacks(self, backend: &str, sample: &Sample) -> Option<&'static str> {
        // Some 40 MiB/s, on the machine that this was tried on.
        let slow =
            matches!(self, Self::TcgStream | Self::TcgForeign | Self::Vhost) && sample.name == "bulk_copies";
        let own = slow.then_some("gibibytes over the vsock of an interpreted processor");
        self.column(backend).lacks(sample).or(own)
    }

    /// The column of the matrix with the same means; a GPU has all that samples need of a backend.
    fn column(self, backend: &str) -> test::Leg {
        match self {
            _ if backend != CPU => test::Leg::GpuStatic,
            Self::Unix | Self::TcgModule | Self::Nested => test::Leg::CpuStatic,
            Self::TcgStream | Self::TcgForeign | Self::Vhost => test::Leg::Stream,
        }
    }
}

/// What all legs with a machine need.
struct Means {
    /// Programs, ours and samples.
    setup: Setup,
    /// Of the machine.
    parts: Parts,
    /// For one program.
    limit: Duration,
    machine_limit: Duration,
}

impl Means {
    /// Builds what is not there yet.
    fn new(options: &Options<'_>, chosen: &[&'static Sample]) -> Result<Self> {
        let prebuilt = options.prebuilt.map(fs::canonicalize).transpose().context("--prebuilt")?;
        let host = match (&prebuilt, options.host) {
            (_, Some(path)) => path.to_path_buf(),
            (Some(dir), None) => dir.join("host-vmm"),
            (None, None) => workspace::build_host()?,
        };
        if prebuilt.is_none() {
            nvcc::build(&Toolkit::ensure(Choice::Auto)?, chosen)?;
        }
        Ok(Self {
            parts: Parts::new(options.release, prebuilt.as_deref()),
            setup: Setup::at(host, prebuilt, options.backend)?,
            limit: options.limit,
            machine_limit: options.machine_limit,
        })
    }
}

/// What a leg's machine did.
struct Ran {
    /// Holds what `probe cases` says.
    reports: String,
    /// All there is to read.
    log: String,
    /// For the reader.
    note: String,
    problem: Option<String>,
}

/// Runs the legs and prints their table.
///
/// # Errors
/// Something that all legs need cannot be built.
pub fn run(options: &Options<'_>) -> Result<Counts> {
    let chosen = samples::select(options.only)?;
    let means = Means::new(options, &chosen)?;
    let mut titles = Vec::new();
    let mut rows: Vec<(String, Vec<Outcome>)> =
        chosen.iter().map(|sample| (sample.name.to_owned(), Vec::new())).collect();
    let mut machines = Counts::default();
    for &leg in options.legs {
        let cells = match run_leg(leg, options, &means, &chosen, &mut machines) {
            Ok(cells) => cells,
            Err(error) => {
                println!("{}: FAIL: {error:#}", leg.title());
                machines.failed += 1;
                vec![Outcome::Skip("no machine".into()); chosen.len() * options.variants.len()]
            }
        };
        titles.extend(options.variants.iter().map(|variant| format!("{} {}", leg.title(), variant.name())));
        for (row, cells) in rows.iter_mut().zip(cells.chunks(options.variants.len())) {
            row.1.extend_from_slice(cells);
        }
    }
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let mut counts = test_matrix::report("sample", &titles, &rows);
    counts.add(machines);
    Ok(counts)
}

/// One outcome per sample and variant, sample by sample; a machine that failed is in `machines`.
fn run_leg(
    leg: Leg,
    options: &Options<'_>,
    means: &Means,
    chosen: &[&'static Sample],
    machines: &mut Counts,
) -> Result<Vec<Outcome>> {
    let all: Vec<Program> = chosen
        .iter()
        .flat_map(|&sample| options.variants.iter().map(move |&variant| Program { sample, variant }))
        .collect();
    if let Some(reason) = missing(leg, options) {
        return Ok(vec![Outcome::Skip(reason); all.len()]);
    }
    let lacks = |sample: &Sample| leg.lacks(options.backend, sample);
    if leg == Leg::Unix {
        return run_unix(means, options.backend, &all);
    }
    let runs: Vec<Program> = all.iter().filter(|program| lacks(program.sample).is_none()).copied().collect();
    eprintln!("vm: {} programs, {}", runs.len(), leg.title());
    let ran = match leg {
        Leg::Vhost => nested::run_without_machine(means, &runs)?,
        Leg::Nested => nested::run(means, &runs)?,
        _ => tcg::run(tcg::leg(leg).context("a leg with a machine")?, means, &runs)?,
    };
    if options.verbose {
        println!("{}", ran.log);
    }
    println!("{}: {}", leg.title(), ran.note);
    let mut cells = Vec::new();
    for program in &all {
        cells.push(match lacks(program.sample) {
            Some(reason) => Outcome::Skip(reason.to_owned()),
            None => program.judge(&means.setup, &ran.reports, options.limit)?,
        });
    }
    if let Some(problem) = ran.problem {
        println!("{}: FAIL: the machine:\n{problem}", leg.title());
        // It counts by itself: programs that came to their end did so.
        machines.failed += 1;
    }
    Ok(cells)
}

/// Why a leg cannot run here, or not with these options.
fn missing(leg: Leg, options: &Options<'_>) -> Option<String> {
    let lacks_apt = || Command::new("apt-get").arg("--version").output().is_err();
    let reason = match leg {
        _ if gpu::missing(options.backend).is_some() => gpu::missing(options.backend)?,
        Leg::TcgStream | Leg::TcgModule if options.prebuilt.is_some() => return None,
        _ if options.prebuilt.is_some() => "not carried",
        Leg::Vhost | Leg::Nested if options.backend != CPU => "no GPU in the outer machine",
        Leg::Unix => return None,
        _ if lacks_apt() => "no apt-get to fetch kernels and QEMU with",
        _ => return None,
    };
    Some(reason.to_owned())
}

/// As in the sample matrix.
fn run_unix(means: &Means, backend: &str, programs: &[Program]) -> Result<Vec<Outcome>> {
    let progress = Progress::new(Leg::Unix.title(), programs.len());
    let mut cells = Vec::new();
    for (position, program) in programs.iter().enumerate() {
        if let Some(reason) = Leg::Unix.lacks(backend, program.sample) {
            cells.push(Outcome::Skip(reason.to_owned()));
            continue;
        }
        progress.step(position, program.sample.name);
        let column = match (program.variant, backend) {
            (Variant::Static, CPU) => test::Leg::CpuStatic,
            (Variant::Shared, CPU) => test::Leg::CpuShared,
            (Variant::Static, _) => test::Leg::GpuStatic,
            (Variant::Shared, _) => test::Leg::GpuShared,
        };
        cells.push(test_matrix::run_cell(&means.setup.host, program.sample, column, None, means.limit)?);
    }
    progress.finish(&format!("{} programs run", programs.len()));
    Ok(cells)
}
