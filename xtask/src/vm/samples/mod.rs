//! `cargo xtask vm samples`: the samples in virtual machines, as a table of samples and legs.
//!
//! A leg is a way from a program to the daemon. All programs of a leg run in one machine, one after the other: starting a machine costs more than most of
//! them. What a leg cannot run is what the column of the sample matrix ([`crate::test_matrix`]) that has the same means cannot run.

mod nested;
mod programs;
mod tcg;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::kernel::Kernel;
use super::qemu::Qemu;
use crate::debian::Release;
use crate::manifest::Sample;
use crate::nvcc::{self, Variant};
use crate::progress::Progress;
use crate::test::{self, Counts, Outcome};
use crate::test_matrix;
use crate::toolkit::{Choice, Toolkit};
use crate::{samples, workspace};
use programs::Program;

/// What to run, and with what.
pub struct Options<'a> {
    pub release: Release,
    pub legs: &'a [Leg],
    pub variants: &'a [Variant],
    pub only: &'a [String],
    pub host: Option<&'a Path>,
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

    /// The column of the matrix with the same means.
    fn column(self) -> test::Leg {
        match self {
            Self::Unix | Self::TcgModule | Self::Nested => test::Leg::CpuStatic,
            Self::TcgStream | Self::TcgForeign | Self::Vhost => test::Leg::Stream,
        }
    }
}

/// What all legs with a machine need.
struct Means<'a> {
    host: &'a Path,
    shim: &'a Path,
    options: &'a Options<'a>,
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
    let host = match options.host {
        Some(path) => path.to_path_buf(),
        None => workspace::build_host()?,
    };
    let shim = shim(&host)?;
    nvcc::build(&Toolkit::ensure(Choice::Auto)?, &chosen)?;
    let means = Means { host: &host, shim: &shim, options };
    let mut titles = Vec::new();
    let mut rows: Vec<(String, Vec<Outcome>)> =
        chosen.iter().map(|sample| (sample.name.to_owned(), Vec::new())).collect();
    let mut machines = Counts::default();
    for &leg in options.legs {
        let cells = match run_leg(leg, &means, &chosen, &mut machines) {
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

/// The library beside the host program.
fn shim(host: &Path) -> Result<PathBuf> {
    let shim = host.with_file_name("libcuda.so");
    ensure!(shim.is_file(), "no {}", shim.display());
    Ok(shim)
}

/// One outcome per sample and variant, sample by sample; a machine that failed is in `machines`.
fn run_leg(
    leg: Leg,
    means: &Means<'_>,
    chosen: &[&'static Sample],
    machines: &mut Counts,
) -> Result<Vec<Outcome>> {
    let options = means.options;
    let all: Vec<Program> = chosen
        .iter()
        .flat_map(|&sample| options.variants.iter().map(move |&variant| Program { sample, variant }))
        .collect();
    if let Some(reason) = missing(leg) {
        return Ok(vec![Outcome::Skip(reason); all.len()]);
    }
    if leg == Leg::Unix {
        return run_unix(means, leg, &all);
    }
    let runs: Vec<Program> =
        all.iter().filter(|program| leg.column().lacks(program.sample).is_none()).copied().collect();
    eprintln!("vm: {} programs, {}", runs.len(), leg.title());
    let kernel = Kernel::of(&options.release)?;
    let qemu = Qemu::get()?;
    let ran = match leg {
        Leg::Vhost => nested::run_without_machine(means, &kernel, &qemu, &runs)?,
        Leg::Nested => nested::run(means, &kernel, &qemu, &runs)?,
        _ => tcg::run(tcg::leg(leg).context("a leg with a machine")?, means, &kernel, &qemu, &runs)?,
    };
    if options.verbose {
        println!("{}", ran.log);
    }
    println!("{}: {}", leg.title(), ran.note);
    let mut cells = Vec::new();
    for program in &all {
        cells.push(match leg.column().lacks(program.sample) {
            Some(reason) => Outcome::Skip(reason.to_owned()),
            None => program.judge(&ran.reports, options.limit)?,
        });
    }
    if let Some(problem) = ran.problem {
        println!("{}: FAIL: the machine:\n{problem}", leg.title());
        // It counts by itself: programs that came to their end did so.
        machines.failed += 1;
    }
    Ok(cells)
}

/// Why a leg cannot run here.
fn missing(leg: Leg) -> Option<String> {
    let lacks_apt = || Command::new("apt-get").arg("--version").output().is_err();
    (leg != Leg::Unix && lacks_apt()).then(|| "no apt-get to fetch kernels and QEMU with".into())
}

/// As in the sample matrix.
fn run_unix(means: &Means<'_>, leg: Leg, programs: &[Program]) -> Result<Vec<Outcome>> {
    let progress = Progress::new(leg.title(), programs.len());
    let mut cells = Vec::new();
    for (position, program) in programs.iter().enumerate() {
        if let Some(reason) = leg.column().lacks(program.sample) {
            cells.push(Outcome::Skip(reason.to_owned()));
            continue;
        }
        progress.step(position, program.sample.name);
        let column = match program.variant {
            Variant::Static => test::Leg::CpuStatic,
            Variant::Shared => test::Leg::CpuShared,
        };
        cells.push(test_matrix::run_cell(means.host, program.sample, column, None, means.options.limit)?);
    }
    progress.finish(&format!("{} programs run", programs.len()));
    Ok(cells)
}
