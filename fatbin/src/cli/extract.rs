//! `fatbin extract`.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context;
use fatbin::{Arch, Entry, Fatbins, Kind, Located};

use super::arch::parse_arch;
use super::input::{self, Outcome};
use super::{output, report};

/// Write images to files, decompressed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are named as cuobjdump does: FILE.N.sm_XX.cubin and FILE.N.sm_XX.ptx, N counting machine code and PTX of a file each from 1. Other kinds get .ltoir, .tileir and .bin. Obfuscated LTO-IR is written as stored (.ltoir.obfuscated).

Examples:
  fatbin extract a.out                              everything, to the current directory
  fatbin extract libfoo.so --arch sm_90 --kind elf -d out
  fatbin extract a.out --index 1.2 --stdout > k.cubin     entry 2 of container 1, as `inspect` numbers them")]
pub struct Args {
    /// Files, wheels or directories.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Container, or container and entry, as `inspect` numbers them.
    #[arg(long, value_name = "CONTAINER[.ENTRY]", value_parser = parse_index)]
    index: Option<Index>,
    /// Images for this architecture alone.
    #[arg(long, value_name = "ARCH", value_parser = parse_arch)]
    arch: Option<Arch>,
    /// Images of this kind alone.
    #[arg(long, value_enum)]
    kind: Option<KindName>,
    /// Directory to write to; made if it is not there.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Write over files that are there.
    #[arg(long)]
    force: bool,
    /// Write to standard output instead of files.
    #[arg(long, conflicts_with_all = ["directory", "force"])]
    stdout: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum KindName {
    /// Machine code.
    Elf,
    /// PTX, also relocatable PTX.
    Ptx,
    /// LTO-IR.
    Lto,
    /// Tile IR.
    Tile,
    /// All others.
    Other,
}

impl KindName {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Elf | Kind::OldCubin | Kind::AltElf => Self::Elf,
            kind if kind.is_ptx() => Self::Ptx,
            Kind::LtoIr => Self::Lto,
            Kind::TileIr => Self::Tile,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Index {
    container: usize,
    entry: Option<usize>,
}

fn parse_index(text: &str) -> anyhow::Result<Index> {
    let (container, entry) = match text.split_once('.') {
        Some((container, entry)) => (container, Some(entry)),
        None => (text, None),
    };
    let number = |text: &str| text.parse().with_context(|| format!("`{text}` is no number"));
    Ok(Index { container: number(container)?, entry: entry.map(number).transpose()? })
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !args.stdout {
        let place = || format!("{}: cannot make the directory", args.directory.display());
        std::fs::create_dir_all(&args.directory).with_context(place)?;
    }
    let outcome = Outcome::default();
    // One image at a time is written: order on standard output, and no name taken twice.
    let lock = Mutex::new(());
    let counts = input::each(&args.files, &outcome, |source, name, data| {
        let fatbins = match Fatbins::parse(data) {
            Ok(fatbins) => fatbins,
            Err(error) => {
                outcome.problems(name, &[error.to_string()]);
                return None;
            }
        };
        outcome.problems(name, &report::problems(&fatbins));
        if fatbins.is_empty() {
            if source.is_explicit() {
                outcome.nothing(name);
            }
            return None;
        }
        let _one_file_at_a_time = lock.lock();
        outcome.progress.add(fatbins.containers().count());
        Some(extract(args, stem(source.file_name()), name, &fatbins, &outcome))
    });
    let written: usize = counts.iter().sum();
    if !args.stdout {
        let mut out = output::stdout();
        writeln!(out, "{written} files written to {}", args.directory.display())?;
        out.flush()?;
    }
    if written == 0 {
        eprintln!("fatbin: no image matches; see `fatbin inspect` for what is there");
        outcome.answer_no();
    }
    Ok(outcome.code())
}

/// Name without its last extension; never one that leaves the directory.
fn stem(name: &str) -> &str {
    match Path::new(name).file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) if !stem.is_empty() && !stem.starts_with('.') && !stem.contains(['/', '\\', '\0']) => stem,
        _ => "image",
    }
}

fn extract(args: &Args, stem: &str, file: &str, fatbins: &Fatbins<'_>, outcome: &Outcome) -> usize {
    let mut written = 0;
    let mut numbers: HashMap<&'static str, usize> = HashMap::new();
    // As cuobjdump counts: relocatable code after the rest.
    let is_relocatable = |l: &Located<'_, '_>| l.found.section.is_some_and(|s| s.starts_with("__nv_rel"));
    let (last, first): (Vec<_>, Vec<_>) = fatbins.containers().partition(is_relocatable);
    for located in first.into_iter().chain(last) {
        outcome.progress.step();
        for (index, entry) in located.container().entries().enumerate() {
            let place = format!("{file}: entry {index} of container {}", located.number);
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    outcome.problem(&place, error.moved(located.offset()));
                    break;
                }
            };
            let extension = extension(&entry);
            let number = numbers.entry(extension).or_insert(0);
            *number += 1;
            let by_index = args.index.is_none_or(|wanted| {
                wanted.container == located.number && wanted.entry.is_none_or(|entry| entry == index)
            });
            let wanted = by_index
                && args.arch.is_none_or(|arch| arch == entry.arch())
                && args.kind.is_none_or(|kind| kind == KindName::of(entry.kind()));
            if !wanted {
                continue;
            }
            let name = format!("{stem}.{number}.{}.{extension}", entry.arch());
            match write_image(args, &name, &entry) {
                Ok(()) => written += 1,
                Err(error) => outcome.problem(&place, format_args!("{error:#}")),
            }
        }
    }
    written
}

fn extension(entry: &Entry<'_>) -> &'static str {
    match KindName::of(entry.kind()) {
        KindName::Elf => "cubin",
        KindName::Ptx => "ptx",
        KindName::Lto if entry.is_obfuscated() => "ltoir.obfuscated",
        KindName::Lto => "ltoir",
        KindName::Tile => "tileir",
        KindName::Other => "bin",
    }
}

fn write_image(args: &Args, name: &str, entry: &Entry<'_>) -> anyhow::Result<()> {
    let image =
        if entry.is_obfuscated() { entry.payload().into() } else { entry.data(report::IMAGE_LIMIT)? };
    if args.stdout {
        let mut out = std::io::stdout().lock();
        out.write_all(&image)?;
        return Ok(out.flush()?);
    }
    let path = args.directory.join(name);
    let place = || format!("{}: cannot write the file (use --force to write over one)", path.display());
    let mut options = OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(&path).and_then(|mut file| file.write_all(&image)).with_context(place)
}
