//! `fatbin inspect`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use fatbin::Arch;

use super::arch::{Capability, DriverArgs, parse_arch};
use super::input::{self, Outcome};
use super::report::{self, Wanted};
use super::{output, table};

/// List the containers, images and kernels of files
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fatbin inspect libfoo.so
  fatbin inspect --kernels --arch sm_90 a.out       kernels with registers, memory and parameters
  fatbin inspect --select 8.6 --driver 12.4 a.out   mark what that device loads, with the reasons
  fatbin inspect --json wheels/ | jq '.[].containers[].entries[].arch'")]
pub struct Args {
    /// Files, wheels or directories.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write one JSON array with an object per file.
    #[arg(long)]
    json: bool,
    /// List images for this architecture alone.
    #[arg(long, value_name = "ARCH", value_parser = parse_arch)]
    arch: Option<Arch>,
    /// Decompress the images and list their kernels.
    #[arg(long)]
    kernels: bool,
    /// List the sections for device code.
    #[arg(long)]
    sections: bool,
    /// Say of every image whether this device loads it, and why not.
    #[arg(long, value_name = "DEVICE")]
    select: Option<Capability>,
    #[command(flatten)]
    driver: DriverArgs,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let wanted = Wanted {
        kernels: args.kernels,
        sections: args.sections,
        arch: args.arch,
        device: args.select.map(|c| c.device(args.driver.max_ptx_version())),
    };
    let outcome = Outcome::default();
    let reports = input::each(&args.files, &outcome, |source, name, data| {
        let report = report::inspect(name, data, wanted, &outcome.progress);
        outcome.problems(name, &report.problems);
        if report.is_empty() && report.problems.is_empty() {
            if !source.is_explicit() {
                return None;
            }
            if wanted.arch.is_none() {
                outcome.nothing(name);
            }
        }
        Some(report)
    });
    if args.json {
        output::json(&reports)?;
    } else {
        let mut out = output::stdout();
        reports.iter().try_for_each(|report| table::write(&mut out, report))?;
        out.flush()?;
    }
    Ok(outcome.code())
}
