//! `fatbin strip`: a copy of a file with fewer images.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use fatbin::files::FileData;
use fatbin::strip::{Stripped, strip_container};
use fatbin::{Arch, Entry, Fatbins, Format, Purpose, Variant, select};

use super::arch::{Capability, DriverArgs, parse_arch};
use super::{EXIT_NOTHING, output, report};

/// Write a copy of a file with fewer images
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).multiple(true),
    after_help = "\
A .fatbin becomes shorter. In programs, libraries, objects and archives every container stays at its address, because the program holds pointers to it; its images move together and zeros follow. --sparse gives the zeros back to the file system; they also compress to almost nothing. A group made with --concat is kept if one image of it is.

Examples:
  fatbin strip libfoo.so --keep sm_80,sm_90+ptx -o out/libfoo.so     machine code of both, PTX of the second
  fatbin strip libfoo.so --for sm_86,sm_90 -o out/libfoo.so          what these devices load, and nothing else"
)]
pub struct Args {
    /// Program, library, object, archive or .fatbin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// File to write; may be FILE itself.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Architectures whose machine code stays: sm_90 (all variants), sm_90a (this variant); with +ptx their PTX too;
    /// compute_90: PTX alone.
    #[arg(long, value_name = "ARCH,...", value_delimiter = ',', value_parser = parse_keep, group = "what")]
    keep: Vec<Keep>,
    /// Devices whose choice stays, in every container: what is not kept is what none of them would load.
    #[arg(long = "for", value_name = "DEVICE,...", value_delimiter = ',', group = "what")]
    devices: Vec<Capability>,
    #[command(flatten)]
    driver: DriverArgs,
    /// Make holes of the zeros: the file keeps its size but takes less of the disk.
    #[arg(long)]
    sparse: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Keep {
    arch: Arch,
    code: bool,
    ptx: bool,
}

fn parse_keep(text: &str) -> anyhow::Result<Keep> {
    let (name, plus) = match text.split_once('+') {
        Some((name, "ptx")) => (name, true),
        Some(_) => bail!("`{text}`: only +ptx may follow an architecture"),
        None => (text, false),
    };
    let ptx_alone = name.starts_with("compute_");
    Ok(Keep { arch: parse_arch(name)?, code: !ptx_alone, ptx: plus || ptx_alone })
}

impl Keep {
    fn wants(&self, entry: &Entry<'_>) -> bool {
        let arch = entry.arch();
        let same = arch == self.arch || (self.arch.variant == Variant::Generic && arch.sm == self.arch.sm);
        same && if entry.kind().is_ptx() { self.ptx } else { self.code }
    }
}

/// A container to be written over.
struct Change {
    offset: u64,
    old_len: usize,
    new: Stripped,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let name = args.file.display().to_string();
    let data = FileData::open(&args.file)
        .with_context(|| format!("{name}: cannot read the file; check the path and its permissions"))?;
    let fatbins = Fatbins::parse(&data).with_context(|| name.clone())?;
    if let Some(problem) = report::problems(&fatbins).first() {
        bail!("{name}: {problem}; a damaged file is not stripped");
    }
    if fatbins.containers().next().is_none() {
        eprintln!("fatbin: {name}: holds no container; nothing to strip");
        return Ok(ExitCode::from(EXIT_NOTHING));
    }
    let changes = changes(args, &fatbins)?;
    drop(fatbins);
    let summary = Summary::of(&changes);
    if summary.kept == 0 {
        bail!("{name}: nothing would be left; see `fatbin inspect {name}` for what is there");
    }
    write_output(args, &data, &changes)?;
    let mut out = output::stdout();
    writeln!(
        out,
        "{}: kept {} of {} images, {} of {} bytes of device code",
        output::printable(&args.output.display().to_string()),
        summary.kept,
        summary.kept + summary.removed,
        summary.new_bytes,
        summary.old_bytes
    )?;
    out.flush()?;
    if summary.emptied > 0 {
        eprintln!(
            "fatbin: {name}: {} of {} containers are empty now: kernels in them will not be found at run time",
            summary.emptied,
            changes.len()
        );
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Default)]
struct Summary {
    kept: usize,
    removed: usize,
    emptied: usize,
    old_bytes: u64,
    new_bytes: u64,
}

impl Summary {
    fn of(changes: &[Change]) -> Self {
        let mut summary = Self::default();
        for change in changes {
            summary.kept += change.new.kept;
            summary.removed += change.new.removed;
            summary.emptied += usize::from(change.new.kept == 0 && change.new.removed > 0);
            summary.old_bytes += change.old_len as u64;
            summary.new_bytes += change.new.bytes.len() as u64;
        }
        summary
    }
}

fn changes(args: &Args, fatbins: &Fatbins<'_>) -> anyhow::Result<Vec<Change>> {
    let mut out = Vec::new();
    for located in fatbins.containers() {
        let container = located.container();
        let place = || format!("{}: container at {:#x}", args.file.display(), located.offset());
        let entries = container.read_entries().with_context(place)?;
        let mut chosen = BTreeSet::new();
        for device in &args.devices {
            let device = device.device(args.driver.max_ptx_version());
            // Link inputs count too: linking at load time needs their relocatable PTX.
            for purpose in [Purpose::Load, Purpose::Link] {
                chosen.extend(select(&entries, &device, purpose).chosen);
            }
        }
        let new = strip_container(&container, |index, entry| {
            chosen.contains(&index) || args.keep.iter().any(|keep| keep.wants(entry))
        })
        .with_context(place)?;
        out.push(Change { offset: located.offset(), old_len: container.len(), new });
    }
    Ok(out)
}

fn write_output(args: &Args, data: &FileData, changes: &[Change]) -> anyhow::Result<()> {
    // Beside the output, so that the finished file appears in one step and FILE may be the output.
    let directory = match args.output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let cannot_write = || format!("{}: cannot write the file", args.output.display());
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(cannot_write)?;
    match changes {
        // A bare container: nothing points into it.
        [change] if Format::of(data) == Format::Container && change.old_len == data.len() => {
            file.write_all(&change.new.bytes).with_context(cannot_write)?;
        }
        _ => write_in_place(file.as_file_mut(), data, changes, args.sparse).with_context(cannot_write)?,
    }
    let permissions = args.file.metadata().with_context(cannot_write)?.permissions();
    file.as_file().set_permissions(permissions).with_context(cannot_write)?;
    let written = FileData::open(file.path()).with_context(cannot_write)?;
    check(&written, changes)?;
    drop(written);
    file.persist(&args.output).with_context(cannot_write)?;
    Ok(())
}

fn write_in_place(file: &mut File, data: &[u8], changes: &[Change], sparse: bool) -> anyhow::Result<()> {
    file.write_all(data)?;
    for change in changes {
        file.write_all_at(&change.new.bytes, change.offset)?;
        let freed = change.old_len - change.new.bytes.len();
        let start = change.offset + change.new.bytes.len() as u64;
        let zeros = [0; 1 << 16];
        let mut done = 0;
        while done < freed {
            let len = zeros.len().min(freed - done);
            file.write_all_at(zeros.get(..len).unwrap_or_default(), start + done as u64)?;
            done += len;
        }
        if sparse && freed > 0 {
            let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&*file, flags, start, freed as u64)
                .context("this file system makes no holes; leave out --sparse")?;
        }
    }
    Ok(())
}

/// Reads the result: it must hold what was to be kept.
fn check(data: &[u8], changes: &[Change]) -> anyhow::Result<()> {
    let fatbins = Fatbins::parse(data)?;
    ensure!(report::problems(&fatbins).is_empty(), "the stripped file does not read back");
    let images: usize = fatbins.containers().map(|located| located.entries().count()).sum();
    ensure!(images == Summary::of(changes).kept, "the stripped file lost an image");
    Ok(())
}
