//! `fatbin diff`: what two files have in common.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fatbin::{Entry, Fatbins, Kind};
use serde::Serialize;

use super::input::{self, Outcome};
use super::{output, report};

/// Compare the images of two files
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Images are compared after decompression, wherever they lie; those that differ are matched by kind, architecture and kernels. Exit status: 0 no difference, 1 some.

Examples:
  fatbin diff old/libfoo.so new/libfoo.so
  fatbin diff foo-1.0.whl foo-1.1.whl --json")]
pub struct Args {
    /// File, wheel or directory.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Another one.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Difference {
    a: String,
    b: String,
    same: usize,
    only_a: Vec<Image>,
    only_b: Vec<Image>,
    changed: Vec<Change>,
}

#[derive(Debug, Clone, Serialize)]
struct Image {
    kind: String,
    arch: String,
    version: String,
    size: u64,
    kernels: Vec<String>,
    #[serde(skip)]
    hash: u64,
    #[serde(skip)]
    details: BTreeMap<String, Kernel>,
}

/// What is compared of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Kernel {
    registers: Option<u32>,
    shared_size: Option<u64>,
    param_size: Option<u32>,
    code_size: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Change {
    kind: String,
    arch: String,
    size: (u64, u64),
    added: Vec<String>,
    removed: Vec<String>,
    /// Kernels whose figures differ: of A and of B.
    kernels: BTreeMap<String, (Kernel, Kernel)>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let outcome = Outcome::default();
    let (mut only_a, mut only_b) = (images(&args.a, &outcome), images(&args.b, &outcome));
    let same = remove_common(&mut only_a, &mut only_b);
    let changed = match_changed(&mut only_a, &mut only_b);
    let difference = Difference {
        a: args.a.display().to_string(),
        b: args.b.display().to_string(),
        same,
        only_a,
        only_b,
        changed,
    };
    if !(difference.only_a.is_empty() && difference.only_b.is_empty() && difference.changed.is_empty()) {
        outcome.answer_no();
    }
    if args.json {
        output::json(&difference)?;
    } else {
        let mut out = output::stdout();
        write(&mut out, &difference)?;
        out.flush()?;
    }
    Ok(outcome.code())
}

fn images(path: &Path, outcome: &Outcome) -> Vec<Image> {
    let lists = input::each(&[path.to_owned()], outcome, |source, name, data| {
        let fatbins = match Fatbins::parse(data) {
            Ok(fatbins) => fatbins,
            Err(error) => {
                outcome.problems(name, &[error.to_string()]);
                return None;
            }
        };
        let mut problems = report::problems(&fatbins);
        let mut list = Vec::new();
        if let Some(image) = fatbins.image() {
            match report::bare_image(fatbins.format(), image) {
                Ok(read) => list.push(Image::new(
                    read.kind.to_owned(),
                    read.arch.unwrap_or_default(),
                    read.version.unwrap_or_default(),
                    image,
                    read.kernels,
                )),
                Err(error) => problems.push(error.to_string()),
            }
        }
        let budget = report::Budget::default();
        outcome.progress.add(fatbins.containers().count());
        for located in fatbins.containers() {
            for entry in located.container().entries() {
                let image = entry.map_err(|e| e.moved(located.offset()).into());
                match image.and_then(|entry| read(&entry, &budget)) {
                    Ok(image) => list.push(image),
                    Err(error) => report::add_problem(&mut problems, || {
                        format!("container at {:#x}: {error:#}", located.offset())
                    }),
                }
            }
            outcome.progress.step();
        }
        outcome.problems(name, &problems);
        if list.is_empty() && problems.is_empty() && source.is_explicit() {
            outcome.nothing(name);
        }
        Some(list)
    });
    lists.into_iter().flatten().collect()
}

fn read(entry: &Entry<'_>, budget: &report::Budget) -> anyhow::Result<Image> {
    let new = |bytes: &[u8], kernels| {
        let (kind, arch) = (entry.kind().to_string(), entry.arch().to_string());
        Image::new(kind, arch, entry.code_version().to_string(), bytes, kernels)
    };
    if entry.is_obfuscated() {
        return Ok(new(entry.payload(), Vec::new()));
    }
    let readable = entry.kind() == Kind::Elf || entry.kind().is_ptx();
    let kernels = if readable { report::read_image(entry, budget)?.kernels } else { Vec::new() };
    report::with_image(entry, budget, |image| Ok(new(image, kernels)))
}

impl Image {
    fn new(
        kind: String,
        arch: String,
        version: String,
        bytes: &[u8],
        list: Vec<report::KernelReport>,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let details: BTreeMap<String, Kernel> = list
            .into_iter()
            .map(|k| {
                let kernel = Kernel {
                    registers: k.registers,
                    shared_size: k.shared_size,
                    param_size: k.param_size,
                    code_size: k.code_size,
                };
                (k.name, kernel)
            })
            .collect();
        let kernels = details.keys().cloned().collect();
        Self { kind, arch, version, size: bytes.len() as u64, kernels, hash: hasher.finish(), details }
    }

    fn content(&self) -> (&str, &str, u64, u64) {
        (&self.kind, &self.arch, self.size, self.hash)
    }

    /// Kernels in common.
    fn likeness(&self, other: &Self) -> usize {
        self.details.keys().filter(|name| other.details.contains_key(*name)).count()
    }
}

/// Takes equal images out of both lists; gives their number.
fn remove_common(a: &mut Vec<Image>, b: &mut Vec<Image>) -> usize {
    let mut counts: BTreeMap<(String, String, u64, u64), usize> = BTreeMap::new();
    let key = |image: &Image| {
        let (kind, arch, size, hash) = image.content();
        (kind.to_owned(), arch.to_owned(), size, hash)
    };
    for image in b.iter() {
        *counts.entry(key(image)).or_default() += 1;
    }
    let mut common: BTreeMap<_, usize> = BTreeMap::new();
    a.retain(|image| match counts.get_mut(&key(image)) {
        Some(left) if *left > 0 => {
            *left -= 1;
            *common.entry(key(image)).or_default() += 1;
            false
        }
        _ => true,
    });
    let same = common.values().sum();
    b.retain(|image| match common.get_mut(&key(image)) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    });
    same
}

/// Pairs images of one kind and architecture that share kernels; takes them out of both lists.
fn match_changed(a: &mut Vec<Image>, b: &mut Vec<Image>) -> Vec<Change> {
    let mut changed = Vec::new();
    // By one of its kernels an image of B is found without comparing all with all.
    let mut by_kernel: BTreeMap<(String, String, String), Vec<usize>> = BTreeMap::new();
    for (index, image) in b.iter().enumerate() {
        for name in image.details.keys() {
            let key = (image.kind.clone(), image.arch.clone(), name.clone());
            by_kernel.entry(key).or_default().push(index);
        }
    }
    let mut taken = vec![false; b.len()];
    a.retain(|image| {
        let best = {
            let candidates =
                image.details.keys().take(8).filter_map(|name| {
                    by_kernel.get(&(image.kind.clone(), image.arch.clone(), name.clone()))
                });
            let free = candidates.flatten().copied().filter(|&i| taken.get(i) == Some(&false));
            free.take(64).max_by_key(|&i| b.get(i).map_or(0, |other| image.likeness(other)))
        };
        let Some((index, other)) = best.and_then(|i| b.get(i).map(|other| (i, other))) else { return true };
        if let Some(slot) = taken.get_mut(index) {
            *slot = true;
        }
        changed.push(Change::between(image, other));
        false
    });
    let mut keep = taken.iter().map(|taken| !taken);
    b.retain(|_| keep.next().unwrap_or(true));
    changed
}

impl Change {
    fn between(a: &Image, b: &Image) -> Self {
        let missing_in = |of: &Image, other: &Image| {
            of.details.keys().filter(|name| !other.details.contains_key(*name)).cloned().collect()
        };
        let differs = |(name, kernel): (&String, &Kernel)| {
            let other = b.details.get(name)?;
            (kernel != other).then(|| (name.clone(), (kernel.clone(), other.clone())))
        };
        Self {
            kind: a.kind.clone(),
            arch: a.arch.clone(),
            size: (a.size, b.size),
            added: missing_in(b, a),
            removed: missing_in(a, b),
            kernels: a.details.iter().filter_map(differs).collect(),
        }
    }
}

fn write(out: &mut impl Write, difference: &Difference) -> anyhow::Result<()> {
    let Difference { a, b, same, only_a, only_b, changed } = difference;
    writeln!(
        out,
        "{same} images are the same, {} changed, {} only in {a}, {} only in {b}",
        changed.len(),
        only_a.len(),
        only_b.len()
    )?;
    for (sign, list) in [('-', only_a), ('+', only_b)] {
        for image in list {
            let kernels = image.kernels.iter().take(5).map(|k| output::printable(k)).collect::<Vec<_>>();
            let more = if image.kernels.len() > 5 { ", ..." } else { "" };
            writeln!(
                out,
                "{sign} {} {} {}, {} bytes{}{}{more}",
                image.kind,
                image.arch,
                image.version,
                image.size,
                if kernels.is_empty() { "" } else { ": " },
                kernels.join(", ")
            )?;
        }
    }
    for change in changed {
        let (before, after) = change.size;
        writeln!(out, "~ {} {}: {before} -> {after} bytes", change.kind, change.arch)?;
        for name in &change.removed {
            writeln!(out, "    - {}", output::printable(name))?;
        }
        for name in &change.added {
            writeln!(out, "    + {}", output::printable(name))?;
        }
        for (name, (before, after)) in &change.kernels {
            writeln!(out, "    ~ {}: {}", output::printable(name), figures(before, after))?;
        }
    }
    Ok(())
}

fn figures(a: &Kernel, b: &Kernel) -> String {
    fn one<T: PartialEq + ToString>(name: &str, a: Option<T>, b: Option<T>) -> Option<String> {
        let text = |v: &Option<T>| v.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        (a != b).then(|| format!("{name} {} -> {}", text(&a), text(&b)))
    }
    let parts = [
        one("code", a.code_size, b.code_size),
        one("registers", a.registers, b.registers),
        one("shared", a.shared_size, b.shared_size),
        one("parameters", a.param_size, b.param_size),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
