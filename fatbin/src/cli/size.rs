//! `fatbin size`: what the bytes are spent on.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use fatbin::{Entry, Fatbins, Kind};
use serde::Serialize;

use super::input::{self, Outcome};
use super::{output, report, table};

/// Show what the bytes are spent on: per architecture and kernel, largest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
`stored` is what an image takes in the file, `unpacked` what it is after decompression.

Examples:
  fatbin size libfoo.so
  fatbin size some.whl --kernels --top 50           also the machine code of each kernel")]
pub struct Args {
    /// Files, wheels or directories.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Decompress the images and list the kernels with the most machine code.
    #[arg(long)]
    kernels: bool,
    /// Kernels to list; 0 for all.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    top: usize,
    /// Write one JSON array with an object per file.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct FileSize {
    file: String,
    /// Bytes of the whole file.
    file_size: u64,
    images: usize,
    /// Bytes of all containers: images, headers and padding.
    containers: u64,
    stored: u64,
    unpacked: u64,
    architectures: Vec<ArchSize>,
    kernels: Option<Vec<KernelSize>>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct ArchSize {
    kind: String,
    arch: String,
    images: usize,
    compressed: usize,
    stored: u64,
    unpacked: u64,
}

#[derive(Debug, Default, Serialize)]
struct KernelSize {
    name: String,
    /// Machine code for all architectures.
    code_size: u64,
    /// Bytes for each architecture.
    architectures: BTreeMap<String, u64>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let outcome = Outcome::default();
    let sizes = input::each(&args.files, &outcome, |source, name, data| {
        let fatbins = match Fatbins::parse(data) {
            Ok(fatbins) => fatbins,
            Err(error) => {
                outcome.problems(name, &[error.to_string()]);
                return None;
            }
        };
        let mut problems = report::problems(&fatbins);
        if fatbins.containers().next().is_none() {
            if source.is_explicit() {
                outcome.nothing(name);
            }
            return None;
        }
        outcome.progress.add(fatbins.containers().count());
        let step = || outcome.progress.step();
        let size = measure(args, name, data.len() as u64, &fatbins, &mut problems, step);
        outcome.problems(name, &problems);
        Some(size)
    });
    if args.json {
        output::json(&sizes)?;
    } else {
        let mut out = output::stdout();
        sizes.iter().try_for_each(|size| write(&mut out, size))?;
        if sizes.len() > 1 {
            write_architectures(&mut out, "all files", &total(&sizes))?;
        }
        out.flush()?;
    }
    Ok(outcome.code())
}

fn measure(
    args: &Args,
    file: &str,
    file_size: u64,
    fatbins: &Fatbins<'_>,
    problems: &mut Vec<String>,
    step: impl Fn(),
) -> FileSize {
    let mut by_arch: BTreeMap<(String, String), ArchSize> = BTreeMap::new();
    let mut kernels: BTreeMap<String, KernelSize> = BTreeMap::new();
    let budget = report::Budget::default();
    let mut containers = 0;
    for located in fatbins.containers() {
        containers += located.container().len() as u64;
        step();
        let mut group_end = None;
        for entry in located.entries() {
            let key = (entry.kind().to_string(), entry.arch().to_string());
            let size = by_arch.entry(key.clone()).or_default();
            (size.kind, size.arch) = key;
            size.images += 1;
            size.compressed += usize::from(entry.codec() != fatbin::Codec::Stored);
            size.unpacked += entry.image_size();
            // The images of a group are stored together: shared out by their size.
            size.stored += share(&entry, &mut group_end);
            if args.kernels && entry.kind() == Kind::Elf {
                match report::read_image(&entry, &budget) {
                    Ok(image) => add_kernels(&mut kernels, &entry, image.kernels),
                    Err(error) => report::add_problem(problems, || {
                        format!("container at {:#x}: {error}", located.offset())
                    }),
                }
            }
        }
    }
    let mut architectures: Vec<ArchSize> = by_arch.into_values().collect();
    architectures.sort_by_key(|size| std::cmp::Reverse(size.stored));
    let mut kernels: Vec<KernelSize> = kernels.into_values().collect();
    kernels.sort_by_key(|kernel| std::cmp::Reverse(kernel.code_size));
    if args.top > 0 {
        kernels.truncate(args.top);
    }
    FileSize {
        file: file.to_owned(),
        file_size,
        images: architectures.iter().map(|a| a.images).sum(),
        containers,
        stored: architectures.iter().map(|a| a.stored).sum(),
        unpacked: architectures.iter().map(|a| a.unpacked).sum(),
        architectures,
        kernels: args.kernels.then_some(kernels),
    }
}

/// Stored bytes of an image; `rest` is what is left of a group's bytes for its later images.
fn share(entry: &Entry<'_>, rest: &mut Option<u64>) -> u64 {
    let Some(group) = entry.group() else {
        *rest = None;
        return entry.stored_size();
    };
    let left = if group.index == 0 { entry.stored_size() } else { rest.unwrap_or(0) };
    let whole = u128::from(entry.decoded_size().max(1));
    let share = (u128::from(entry.stored_size()) * u128::from(group.size) / whole) as u64;
    let mine = if group.index + 1 == group.count { left } else { share.min(left) };
    *rest = Some(left - mine);
    mine
}

fn add_kernels(
    kernels: &mut BTreeMap<String, KernelSize>,
    entry: &Entry<'_>,
    list: Vec<report::KernelReport>,
) {
    for kernel in list {
        let code = kernel.code_size.unwrap_or(0);
        let size = kernels.entry(kernel.name.clone()).or_default();
        size.name = kernel.name;
        size.code_size = size.code_size.saturating_add(code);
        let of_arch = size.architectures.entry(entry.arch().to_string()).or_default();
        *of_arch = of_arch.saturating_add(code);
    }
}

fn total(sizes: &[FileSize]) -> Vec<ArchSize> {
    let mut sum: BTreeMap<(String, String), ArchSize> = BTreeMap::new();
    for size in sizes.iter().flat_map(|s| &s.architectures) {
        let entry = sum.entry((size.kind.clone(), size.arch.clone())).or_default();
        (entry.kind, entry.arch) = (size.kind.clone(), size.arch.clone());
        entry.images += size.images;
        entry.compressed += size.compressed;
        entry.stored += size.stored;
        entry.unpacked += size.unpacked;
    }
    let mut sum: Vec<ArchSize> = sum.into_values().collect();
    sum.sort_by_key(|size| std::cmp::Reverse(size.stored));
    sum
}

fn write(out: &mut impl Write, size: &FileSize) -> anyhow::Result<()> {
    let percent = 100.0 * size.containers as f64 / size.file_size.max(1) as f64;
    let title = format!(
        "{}: {} bytes, {} ({percent:.1}%) of them device code in {} images",
        output::printable(&size.file),
        size.file_size,
        size.containers,
        size.images
    );
    write_architectures(out, &title, &size.architectures)?;
    let Some(kernels) = &size.kernels else { return Ok(()) };
    let mut table = table::new_table(&["kernel", "machine code", "architectures"]);
    table::align_right(&mut table, &[1]);
    for kernel in kernels {
        let list: Vec<String> = kernel.architectures.iter().map(|(arch, n)| format!("{arch}: {n}")).collect();
        table.add_row([output::printable(&kernel.name), kernel.code_size.to_string(), list.join(", ")]);
    }
    Ok(writeln!(out, "{table}")?)
}

fn write_architectures(out: &mut impl Write, title: &str, list: &[ArchSize]) -> anyhow::Result<()> {
    writeln!(out, "{title}")?;
    let mut table =
        table::new_table(&["kind", "arch", "images", "compressed", "stored", "%", "unpacked", "ratio"]);
    table::align_right(&mut table, &[2, 3, 4, 5, 6, 7]);
    let all: u64 = list.iter().map(|a| a.stored).sum();
    let total = ArchSize {
        kind: "all".to_owned(),
        arch: String::new(),
        images: list.iter().map(|a| a.images).sum(),
        compressed: list.iter().map(|a| a.compressed).sum(),
        stored: all,
        unpacked: list.iter().map(|a| a.unpacked).sum(),
    };
    for size in list.iter().chain([&total]) {
        table.add_row([
            size.kind.clone(),
            size.arch.clone(),
            size.images.to_string(),
            size.compressed.to_string(),
            size.stored.to_string(),
            format!("{:.1}", 100.0 * size.stored as f64 / all.max(1) as f64),
            size.unpacked.to_string(),
            format!("{:.1}", size.unpacked as f64 / size.stored.max(1) as f64),
        ]);
    }
    Ok(writeln!(out, "{table}")?)
}
