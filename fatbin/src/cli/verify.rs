//! `fatbin verify`: reads everything that can be read.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use fatbin::{Cubin, Entry, Fatbins, Format, Kind, Variant, ptx, tile_ir_version};
use rayon::prelude::*;
use serde::Serialize;

use super::input::{self, Outcome};
use super::{output, report, table};

/// Decompress and read every image, and check it against its header
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checked: containers, entries, sizes after decompression, machine code (sections, kernels, parameters), PTX headers, and that architecture and PTX version are those that the entry says; of Tile IR magic and version. LTO-IR is decompressed only; obfuscated LTO-IR cannot be read. Exit status 1 if anything is wrong.

Example:
  fatbin verify dist/*.whl")]
pub struct Args {
    /// Files, wheels or directories.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write one JSON array with an object per file.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Verified {
    file: String,
    containers: usize,
    images: usize,
    kernels: usize,
    /// Images that nobody but the CUDA linker can read.
    opaque: usize,
    unpacked: u64,
    problems: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let outcome = Outcome::default();
    let results = input::each(&args.files, &outcome, |source, name, data| {
        let result = verify(name, data, &outcome.progress);
        outcome.problems(name, &result.problems);
        let nothing = result.problems.is_empty() && result.images == 0 && result.containers == 0;
        if nothing {
            if source.is_explicit() {
                outcome.nothing(name);
            }
            return None;
        }
        Some(result)
    });
    if args.json {
        output::json(&results)?;
    } else {
        let mut out = output::stdout();
        for result in &results {
            let verdict = if result.problems.is_empty() { "good" } else { "BAD" };
            write!(
                out,
                "{}: {verdict}: {}, {}, {}, {} bytes unpacked",
                output::printable(&result.file),
                table::count(result.containers, "container"),
                table::count(result.images, "image"),
                table::count(result.kernels, "kernel"),
                result.unpacked
            )?;
            let opaque =
                if result.opaque > 0 { format!(", {} opaque", result.opaque) } else { String::new() };
            writeln!(out, "{opaque}")?;
        }
        out.flush()?;
    }
    Ok(outcome.code())
}

#[derive(Default)]
struct Tally {
    images: usize,
    kernels: usize,
    opaque: usize,
    unpacked: u64,
    problems: Vec<String>,
}

impl Tally {
    fn add(mut self, other: Self) -> Self {
        self.images += other.images;
        self.kernels += other.kernels;
        self.opaque += other.opaque;
        self.unpacked += other.unpacked;
        for problem in other.problems {
            report::add_problem(&mut self.problems, || problem);
        }
        self
    }
}

fn verify(name: &str, data: &[u8], progress: &output::Progress) -> Verified {
    let mut result = Verified {
        file: name.to_owned(),
        containers: 0,
        images: 0,
        kernels: 0,
        opaque: 0,
        unpacked: 0,
        problems: Vec::new(),
    };
    let fatbins = match Fatbins::parse(data) {
        Ok(fatbins) => fatbins,
        Err(error) => {
            result.problems.push(error.to_string());
            return result;
        }
    };
    result.problems = report::problems(&fatbins);
    if let Some(image) = fatbins.image() {
        result.images = 1;
        result.unpacked = image.len() as u64;
        match report::bare_image(Format::of(data), image) {
            Ok(image) => result.kernels = image.kernels.len(),
            Err(error) => result.problems.push(error.to_string()),
        }
        return result;
    }
    let located: Vec<_> = fatbins.containers().collect();
    result.containers = located.len();
    progress.add(located.len());
    let budget = report::Budget::default();
    // In order, so that the problems are.
    let tallies: Vec<Tally> = located
        .par_iter()
        .map(|located| {
            let mut tally = Tally::default();
            for (index, entry) in located.container().entries().enumerate() {
                tally.images += 1;
                let checked = match entry {
                    Ok(entry) => check(&entry, &budget, &mut tally),
                    Err(error) => Err(error.moved(located.offset()).into()),
                };
                if let Err(error) = checked {
                    report::add_problem(&mut tally.problems, || {
                        format!("entry {index} of the container at {:#x}: {error:#}", located.offset())
                    });
                }
            }
            progress.step();
            tally
        })
        .collect();
    let tally = tallies.into_iter().fold(Tally::default(), Tally::add);
    result.images = tally.images;
    result.kernels = tally.kernels;
    result.opaque = tally.opaque;
    result.unpacked = tally.unpacked;
    result.problems.extend(tally.problems);
    result
}

fn check(entry: &Entry<'_>, budget: &report::Budget, tally: &mut Tally) -> anyhow::Result<()> {
    if entry.is_obfuscated() {
        tally.opaque += 1;
        return Ok(());
    }
    report::with_image(entry, budget, |image| check_image(entry, image, tally))
}

fn check_image(entry: &Entry<'_>, image: &[u8], tally: &mut Tally) -> anyhow::Result<()> {
    tally.unpacked += image.len() as u64;
    let arch = entry.arch();
    match entry.kind() {
        Kind::Elf => {
            let cubin = Cubin::parse(image)?;
            tally.kernels += cubin.kernels.len();
            anyhow::ensure!(
                cubin.arch.sm == arch.sm,
                "the entry says {arch}, the machine code is for sm_{}",
                cubin.arch.sm
            );
        }
        kind if kind.is_ptx() => {
            let header = ptx::scan(image)?;
            tally.kernels += header.entries.len();
            let variant = match header.target.suffix {
                "a" => Variant::Specific,
                "f" => Variant::Family,
                _ => Variant::Generic,
            };
            let target = fatbin::Arch { sm: header.target.sm, variant };
            anyhow::ensure!(target == arch, "the entry says {arch}, the PTX {target}");
            let version = entry.code_version();
            let (major, minor) = header.version;
            anyhow::ensure!(
                (version.major, version.minor) == (major, minor),
                "the entry says PTX {version}, the text {major}.{minor}"
            );
        }
        Kind::TileIr => {
            let version = tile_ir_version(image).ok_or_else(|| anyhow::anyhow!("no Tile IR magic"))?;
            let declared = entry.code_version();
            anyhow::ensure!(version == declared, "the entry says Tile IR {declared}, the bytecode {version}");
        }
        _ => {}
    }
    Ok(())
}
