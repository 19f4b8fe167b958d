//! `fatbin why`: what a device runs, and why not the rest.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use fatbin::select::Candidate;
use fatbin::{
    CodeVersion, Cubin, Device, Entry, Fatbins, Flags, Format, Kind, Located, Purpose, Selection, Variant,
    ptx, select,
};
use serde::Serialize;

use super::arch::{Capability, DriverArgs};
use super::input::{self, Outcome};
use super::{output, report};

/// Say which images a device runs, and why not the others
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 if every container that the program loads has an image for the device (with --any: at least one has), else 1.

Examples:
  fatbin why ./a.out --device sm_86
  fatbin why libfoo.so --device 12.0 --driver 12.8 --any")]
pub struct Args {
    /// Files, wheels or directories.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Compute capability: sm_86 or 8.6.
    #[arg(long, value_name = "DEVICE")]
    device: Capability,
    #[command(flatten)]
    driver: DriverArgs,
    /// Be content if one container has an image for the device: libraries may hold code for some devices only.
    #[arg(long)]
    any: bool,
    /// Write one JSON array with an object per file.
    #[arg(long)]
    json: bool,
}

/// One file.
#[derive(Debug, Serialize)]
pub struct FileAnswer {
    file: String,
    device: String,
    runs: bool,
    containers: Vec<ContainerAnswer>,
}

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Role {
    /// Loaded as it is.
    Loaded,
    /// Made by the device linker: loaded if it fits, else the link inputs are linked at load time.
    Linked,
    /// Relocatable code for linking.
    LinkInput,
    /// Left over from a device link of nothing: never loaded.
    Stub,
}

#[derive(Debug, Serialize)]
struct ContainerAnswer {
    number: usize,
    member: Option<String>,
    offset: u64,
    role: Role,
    #[serde(flatten)]
    verdict: Verdict,
}

/// The choice in one container.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub chosen: Option<Choice>,
    pub rejected: Vec<Refusal>,
}

#[derive(Debug, Serialize)]
pub struct Choice {
    pub index: usize,
    pub kind: String,
    pub arch: String,
}

#[derive(Debug, Serialize)]
pub struct Refusal {
    pub index: usize,
    pub kind: String,
    pub arch: String,
    pub reason: String,
}

impl Verdict {
    /// For people and JSON, of a selection among `entries`.
    pub fn new(entries: &[Entry<'_>], selection: &Selection) -> Self {
        let candidates: Vec<Candidate> = entries.iter().map(Candidate::from).collect();
        Self::of_candidates(&candidates, selection)
    }

    fn of_candidates(candidates: &[Candidate], selection: &Selection) -> Self {
        let words = |index: usize| {
            let candidate = candidates.get(index);
            candidate.map_or_else(Default::default, |c| (c.kind.to_string(), c.arch.to_string()))
        };
        let chosen = selection.chosen.map(|index| {
            let (kind, arch) = words(index);
            Choice { index, kind, arch }
        });
        let refusal = |(index, reason): &(usize, fatbin::Rejection)| {
            let (kind, arch) = words(*index);
            Refusal { index: *index, kind, arch, reason: reason.to_string() }
        };
        Self { chosen, rejected: selection.rejected.iter().map(refusal).collect() }
    }

    /// Of a file that is one image itself. `None` if it is no image that can be read.
    pub fn of_file(data: &[u8], device: &Device) -> Option<Self> {
        let candidate = match Format::of(data) {
            Format::Cubin => {
                let cubin = Cubin::parse(data).ok()?;
                let version = CodeVersion { major: 1, minor: cubin.abi.into() };
                Candidate { kind: Kind::Elf, arch: cubin.arch, version, flags: Flags::BITS64, grouped: false }
            }
            Format::Ptx => {
                let header = ptx::scan(data).ok()?;
                let variant = match header.target.suffix {
                    "a" => Variant::Specific,
                    "f" => Variant::Family,
                    _ => Variant::Generic,
                };
                let arch = fatbin::Arch { sm: header.target.sm, variant };
                let version = CodeVersion { major: header.version.0, minor: header.version.1 };
                let flags = if header.address_size == 64 { Flags::BITS64 } else { Flags::default() };
                Candidate { kind: Kind::Ptx, arch, version, flags, grouped: false }
            }
            _ => return None,
        };
        let selection = select([candidate], device, Purpose::Load);
        Some(Self::of_candidates(&[candidate], &selection))
    }
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let device = args.device.device(args.driver.max_ptx_version());
    let outcome = Outcome::default();
    let answers = input::each(&args.files, &outcome, |source, name, data| {
        let answer = match answer(name, data, &device, args.any, &outcome) {
            Some(answer) => answer,
            None if source.is_explicit() => {
                outcome.nothing(name);
                return None;
            }
            None => return None,
        };
        if !answer.runs {
            outcome.answer_no();
        }
        Some(answer)
    });
    if args.json {
        output::json(&answers)?;
    } else {
        let mut out = output::stdout();
        answers.iter().try_for_each(|answer| write(&mut out, answer))?;
        out.flush()?;
    }
    Ok(outcome.code())
}

/// `None` if the file holds no device code.
fn answer(name: &str, data: &[u8], device: &Device, any: bool, outcome: &Outcome) -> Option<FileAnswer> {
    let mut answer = FileAnswer {
        file: name.to_owned(),
        device: format!("sm_{}", device.sm()),
        runs: false,
        containers: Vec::new(),
    };
    let fatbins = match Fatbins::parse(data) {
        Ok(fatbins) => fatbins,
        Err(error) => {
            outcome.problems(name, &[error.to_string()]);
            return Some(answer);
        }
    };
    outcome.problems(name, &report::problems(&fatbins));
    if fatbins.is_empty() {
        return None;
    }
    if fatbins.image().is_some() {
        let verdict =
            Verdict::of_file(data, device).unwrap_or(Verdict { chosen: None, rejected: Vec::new() });
        answer.runs = verdict.chosen.is_some();
        let role = Role::Loaded;
        answer.containers.push(ContainerAnswer { number: 0, member: None, offset: 0, role, verdict });
        return Some(answer);
    }
    for located in fatbins.containers() {
        let role = role(&located);
        let entries: Vec<Entry<'_>> = located.entries().collect();
        let purpose = if role == Role::LinkInput { Purpose::Link } else { Purpose::Load };
        let selection = select(&entries, device, purpose);
        answer.containers.push(ContainerAnswer {
            number: located.number,
            member: located.part.member.map(str::to_owned),
            offset: located.offset(),
            role,
            verdict: Verdict::new(&entries, &selection),
        });
    }
    answer.runs = runs(&answer.containers, any);
    Some(answer)
}

fn role(located: &Located<'_, '_>) -> Role {
    const RELOCATABLE: [&str; 2] = ["__nv_relfatbin", "__nv_rel"];
    if located.found.section.is_some_and(|section| RELOCATABLE.contains(&section)) {
        return Role::LinkInput;
    }
    let mut versions = located.wrappers();
    if versions.any(|version| version == 1) {
        return Role::Loaded;
    }
    // Every link by nvcc leaves a container without kernels; linkers may drop its wrapper.
    if is_stub(located) {
        return Role::Stub;
    }
    if located.wrappers().any(|version| version == 2) { Role::Linked } else { Role::Loaded }
}

/// True if there is nothing but machine code without kernels.
fn is_stub(located: &Located<'_, '_>) -> bool {
    const LARGEST: usize = 1 << 16;
    let mut entries = located.entries().peekable();
    let has_no_kernel = |entry: Entry<'_>| {
        let image = if entry.kind() == Kind::Elf { entry.data(LARGEST).ok() } else { None };
        image.is_some_and(|image| Cubin::parse(&image).is_ok_and(|cubin| cubin.kernels.is_empty()))
    };
    entries.peek().is_some() && entries.all(has_no_kernel)
}

fn runs(containers: &[ContainerAnswer], any: bool) -> bool {
    let fits = |c: &&ContainerAnswer| c.verdict.chosen.is_some();
    let of_role = |role| containers.iter().filter(move |c| c.role == role);
    let inputs_fit = of_role(Role::LinkInput).any(|c| fits(&c));
    // Each answer: does it have an image, directly or by linking at load time.
    let mut answers: Vec<bool> = of_role(Role::Loaded).map(|c| fits(&c)).collect();
    answers.extend(of_role(Role::Linked).map(|c| fits(&c) || inputs_fit));
    if answers.is_empty() {
        return inputs_fit;
    }
    if any { answers.contains(&true) } else { !answers.contains(&false) }
}

fn write(out: &mut impl Write, answer: &FileAnswer) -> anyhow::Result<()> {
    let verb = if answer.runs { "runs" } else { "does NOT run" };
    writeln!(out, "{}: {verb} on {}", output::printable(&answer.file), answer.device)?;
    for container in &answer.containers {
        write!(out, "  container {} at {:#x}", container.number, container.offset)?;
        if let Some(member) = &container.member {
            write!(out, " of member {}", output::printable(member))?;
        }
        match container.role {
            Role::Loaded => {}
            Role::Linked => write!(out, " (linked device code)")?,
            Role::LinkInput => write!(out, " (input of the device linker)")?,
            Role::Stub => write!(out, " (empty device link, never loaded)")?,
        }
        match &container.verdict.chosen {
            Some(chosen) => writeln!(out, ": entry {}, {} for {}", chosen.index, chosen.kind, chosen.arch)?,
            None => writeln!(out, ": no image for {}", answer.device)?,
        }
        for refusal in &container.verdict.rejected {
            writeln!(
                out,
                "    not entry {}, {} for {}: {}",
                refusal.index, refusal.kind, refusal.arch, refusal.reason
            )?;
        }
    }
    if !answer.runs {
        let hint = "build it with PTX (-gencode arch=compute_XX,code=compute_XX) or with code for the device";
        writeln!(out, "  {hint} (code={})", answer.device)?;
    }
    Ok(())
}
