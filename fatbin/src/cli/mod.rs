//! Command line. Tables and JSON go to standard output, everything else to standard error.

mod report;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use report::FileReport;

/// Exit status when a file could not be read or is damaged.
const EXIT_DAMAGED: u8 = 1;
/// Exit status when all files are fine, but one holds no device code.
const EXIT_NOTHING: u8 = 3;

/// Looks into CUDA fat binaries.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 all well, 1 a file is unreadable or damaged, 2 wrong usage, 3 a file \
    holds no device code."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the containers and images of files: programs, libraries, objects, archives, .fatbin, .cubin, .ptx.
    Inspect(Inspect),
}

#[derive(Debug, Args)]
struct Inspect {
    /// Files to look into.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write one JSON array with an object per file.
    #[arg(long)]
    json: bool,
    /// Decompress the images and list their kernels.
    #[arg(long)]
    kernels: bool,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let Command::Inspect(args) = Cli::parse().command;
    match inspect(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fatbin: {error:#}");
            ExitCode::from(EXIT_DAMAGED)
        }
    }
}

fn inspect(args: &Inspect) -> anyhow::Result<ExitCode> {
    let mut reports = Vec::new();
    let mut damaged = false;
    for path in &args.files {
        let name = path.display().to_string();
        let data = match std::fs::read(path).with_context(|| format!("{name}: cannot read the file")) {
            Ok(data) => data,
            Err(error) => {
                eprintln!("fatbin: {error:#}; check the path and its permissions");
                damaged = true;
                continue;
            }
        };
        let report = report::inspect(&name, &data, args.kernels);
        for problem in &report.problems {
            eprintln!("fatbin: {name}: {problem}");
        }
        if !report.problems.is_empty() {
            eprintln!("fatbin: {name}: damaged or cut off; copy it or build it again, and compare its size");
            damaged = true;
        }
        reports.push(report);
    }
    let mut out = std::io::stdout().lock();
    let written = if args.json {
        serde_json::to_writer_pretty(&mut out, &reports)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        reports.iter().try_for_each(|report| table::write(&mut out, report))
    };
    match written {
        // The reader had enough (`| head`): no failure of ours.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other.context("cannot write to standard output")?,
    }
    Ok(match reports.iter().find(|report| report.is_empty()) {
        _ if damaged => ExitCode::from(EXIT_DAMAGED),
        Some(report) => {
            eprintln!("{}", nothing_found(report));
            ExitCode::from(EXIT_NOTHING)
        }
        None => ExitCode::SUCCESS,
    })
}

fn nothing_found(report: &FileReport) -> String {
    format!(
        "fatbin: {}: holds no device code; if the program uses CUDA, look into the libraries that it loads (ldd)",
        report.file
    )
}
