//! What is told of a file, ready to be printed or serialised. The schema is documented in docs/fatbin.md.

use std::cmp::Ordering;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fatbin::{
    Arch, Codec, Cubin, Entry, Error, Fatbins, Format, Kind, Located, Purpose, cubin, ptx, select,
    tile_ir_version,
};
use serde::Serialize;

use super::output::Progress;
use super::why::Verdict;

/// Largest image that is decompressed to list its kernels.
pub const IMAGE_LIMIT: usize = 1 << 30;
/// Most bytes that are decompressed for one file: a group is decompressed again for each of its images.
pub const FILE_LIMIT: u64 = 1 << 36;

/// Larger images are decompressed one at a time: one for each CPU might be more than there is memory.
const LARGE_IMAGE: u64 = 64 << 20;
/// Problems told of one file.
const MAX_PROBLEMS: usize = 100;

/// What may still be decompressed of a file.
#[derive(Debug)]
pub struct Budget(AtomicU64);

impl Default for Budget {
    fn default() -> Self {
        Self(FILE_LIMIT.into())
    }
}

impl Budget {
    fn take(&self, size: u64) -> anyhow::Result<()> {
        let left = self.0.try_update(Relaxed, Relaxed, |left| left.checked_sub(size));
        left.map_err(|_| {
            anyhow::anyhow!("not decompressed: the file's images exceed {} GiB in all", FILE_LIMIT >> 30)
        })?;
        Ok(())
    }
}

/// Decompresses an image and gives it to `read`.
pub fn with_image<T>(
    entry: &Entry<'_>,
    budget: &Budget,
    read: impl FnOnce(&[u8]) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    static LARGE: Mutex<()> = Mutex::new(());
    let size = entry.decoded_size();
    budget.take(size)?;
    let is_large = entry.codec() != Codec::Stored && size > LARGE_IMAGE;
    let _one_at_a_time = is_large.then(|| LARGE.lock());
    let image = entry.data(IMAGE_LIMIT)?;
    read(&image)
}

/// Adds to the problems of a file, unless there are very many.
pub fn add_problem(problems: &mut Vec<String>, problem: impl FnOnce() -> String) {
    match problems.len().cmp(&MAX_PROBLEMS) {
        Ordering::Less => problems.push(problem()),
        Ordering::Equal => problems.push("more problems, not told one by one".to_owned()),
        Ordering::Greater => {}
    }
}

/// One file.
#[derive(Debug, Serialize)]
pub struct FileReport {
    pub file: String,
    pub format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sections: Option<Vec<SectionReport>>,
    pub containers: Vec<ContainerReport>,
    /// An image that is not in a container: the file is a cubin or PTX itself.
    pub image: Option<ImageReport>,
    pub problems: Vec<String>,
}

/// A section for device code.
#[derive(Debug, Serialize)]
pub struct SectionReport {
    pub member: Option<String>,
    pub name: &'static str,
    pub offset: u64,
    pub size: u64,
}

/// One container.
#[derive(Debug, Serialize)]
pub struct ContainerReport {
    pub number: usize,
    /// Member of an archive.
    pub member: Option<String>,
    /// Offset in the file (of an archive: in the archive).
    pub offset: u64,
    pub section: Option<&'static str>,
    pub size: usize,
    pub truncated: bool,
    /// Versions of the wrappers that point here.
    pub wrappers: Vec<u32>,
    /// Sections that these wrappers lie in.
    pub wrapper_sections: Vec<Option<&'static str>>,
    pub entries: Vec<EntryReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Verdict>,
}

/// One entry.
#[derive(Debug, Serialize)]
pub struct EntryReport {
    pub index: usize,
    pub kind: String,
    pub arch: String,
    /// PTX ISA version, cubin ABI, or version of Tile IR.
    pub version: String,
    pub codec: &'static str,
    /// Offset of the payload in the container.
    pub offset: usize,
    pub stored_size: u64,
    pub size: u64,
    pub flags: String,
    /// Number of the image in its concatenated group.
    pub group_index: Option<u32>,
    pub name: Option<String>,
    pub options: Option<String>,
    pub toolkit: Option<String>,
    pub kernels: Option<Vec<KernelReport>>,
}

/// A bare cubin, PTX or other image.
#[derive(Debug, Serialize)]
pub struct ImageReport {
    pub kind: &'static str,
    pub arch: Option<String>,
    /// PTX ISA version, cubin ABI, or version of Tile IR.
    pub version: Option<String>,
    pub size: usize,
    pub toolkit: Option<String>,
    pub kernels: Vec<KernelReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Verdict>,
}

/// One kernel.
#[derive(Debug, Default, Serialize)]
pub struct KernelReport {
    pub name: String,
    /// Bytes of the parameter buffer; absent if the layout is not known.
    pub param_size: Option<u32>,
    pub params: Option<Vec<ParamReport>>,
    pub registers: Option<u32>,
    pub shared_size: Option<u64>,
    /// Bytes per thread that the call tree needs; absent also if that depends on how deep a recursion goes.
    pub local_size: Option<u32>,
    /// Whether it does.
    pub recursive: bool,
    pub constant_size: Option<u64>,
    pub barriers: Option<u32>,
    pub max_threads: Option<[u32; 3]>,
    pub required_threads: Option<[u32; 3]>,
    pub code_size: Option<u64>,
}

/// One parameter.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ParamReport {
    pub offset: u32,
    pub size: u32,
}

impl FileReport {
    /// True if there is no device code in the file.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.image.is_none()
    }
}

/// What is wanted of a file.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub kernels: bool,
    pub sections: bool,
    pub arch: Option<Arch>,
    pub device: Option<fatbin::Device>,
}

/// Looks into a file.
pub fn inspect(file: &str, data: &[u8], wanted: Wanted, progress: &Progress) -> FileReport {
    let mut report = FileReport {
        file: file.to_owned(),
        format: Format::of(data).name(),
        sections: None,
        containers: Vec::new(),
        image: None,
        problems: Vec::new(),
    };
    let fatbins = match Fatbins::parse(data) {
        Ok(fatbins) => fatbins,
        Err(error) => {
            report.problems.push(error.to_string());
            return report;
        }
    };
    if let Some(image) = fatbins.image() {
        match bare_image(fatbins.format(), image) {
            Ok(mut image) => {
                image.selection = wanted.device.and_then(|device| Verdict::of_file(data, &device));
                report.image = Some(image);
            }
            Err(error) => report.problems.push(error.to_string()),
        }
        return report;
    }
    report.problems = problems(&fatbins);
    if wanted.sections {
        report.sections = Some(sections(&fatbins));
    }
    let job = Job { wanted, budget: Budget::default() };
    progress.add(fatbins.containers().count());
    for located in fatbins.containers() {
        let container = container(&located, &job, &mut report.problems);
        progress.step();
        if wanted.arch.is_none() || !container.entries.is_empty() {
            report.containers.push(container);
        }
    }
    report
}

/// What the scan of a file found wrong.
pub fn problems(fatbins: &Fatbins<'_>) -> Vec<String> {
    let of_part = |part: &fatbin::Part<'_>| {
        let (member, offset) = (part.member.map(str::to_owned), part.offset);
        let text = move |error: &Error| match &member {
            Some(member) => format!("member {}: {}", super::output::printable(member), error.moved(offset)),
            None => error.moved(offset).to_string(),
        };
        part.scan.problems.iter().map(text).collect::<Vec<_>>()
    };
    fatbins.parts().iter().flat_map(of_part).collect()
}

fn sections(fatbins: &Fatbins<'_>) -> Vec<SectionReport> {
    let mut out = Vec::new();
    for part in fatbins.parts() {
        for section in &part.scan.sections {
            out.push(SectionReport {
                member: part.member.map(str::to_owned),
                name: section.name,
                offset: part.offset.saturating_add(section.offset),
                size: section.size,
            });
        }
    }
    out
}

/// What is the same for all containers of a file.
struct Job {
    wanted: Wanted,
    budget: Budget,
}

fn container(located: &Located<'_, '_>, job: &Job, problems: &mut Vec<String>) -> ContainerReport {
    let container = located.container();
    let base = located.offset();
    let mut out = Vec::new();
    let mut entries = Vec::new();
    for (index, entry) in container.entries().enumerate() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                add_problem(problems, || {
                    format!("entry {index} of the container at {base:#x}: {}", error.moved(base))
                });
                break;
            }
        };
        entries.push(entry);
        if job.wanted.arch.is_some_and(|arch| arch != entry.arch()) {
            continue;
        }
        let image = match job.image_of(&entry) {
            Some(Ok(image)) => Some(image),
            Some(Err(error)) => {
                add_problem(problems, || format!("entry {index} of the container at {base:#x}: {error}"));
                None
            }
            None => None,
        };
        out.push(entry_report(index, &entry, image));
    }
    let selection = job.wanted.device.map(|device| {
        let selection = select(&entries, &device, Purpose::Load);
        Verdict::new(&entries, &selection)
    });
    ContainerReport {
        number: located.number,
        member: located.part.member.map(str::to_owned),
        offset: base,
        section: located.found.section,
        size: container.len(),
        truncated: container.is_truncated(),
        wrappers: located.wrappers().collect(),
        wrapper_sections: located.found_wrappers().map(|found| found.section).collect(),
        entries: out,
        selection,
    }
}

fn entry_report(index: usize, entry: &Entry<'_>, image: Option<ImageReport>) -> EntryReport {
    let (toolkit, kernels) = match image {
        Some(image) => (image.toolkit, Some(image.kernels)),
        None => (None, None),
    };
    EntryReport {
        index,
        kind: entry.kind().to_string(),
        arch: entry.arch().to_string(),
        version: entry.code_version().to_string(),
        codec: entry.codec().name(),
        offset: entry.payload_offset(),
        stored_size: entry.stored_size(),
        size: entry.image_size(),
        flags: entry.flags().to_string(),
        group_index: entry.group().map(|g| g.index),
        name: entry.name().map(|name| name.into_owned()),
        options: entry.options().map(|options| options.trim().to_owned()).filter(|o| !o.is_empty()),
        toolkit,
        kernels,
    }
}

impl Job {
    /// `None` for kinds without readable kernels, and if nobody asked.
    fn image_of(&self, entry: &Entry<'_>) -> Option<anyhow::Result<ImageReport>> {
        if !self.wanted.kernels || !(entry.kind() == Kind::Elf || entry.kind().is_ptx()) {
            return None;
        }
        Some(read_image(entry, &self.budget))
    }
}

/// Decompresses and reads machine code or PTX.
pub fn read_image(entry: &Entry<'_>, budget: &Budget) -> anyhow::Result<ImageReport> {
    with_image(entry, budget, |image| {
        let read = if entry.kind().is_ptx() { ptx_image(image) } else { cubin_image(image) };
        // Offsets of such an error count from the start of the image.
        read.map_err(|error| anyhow::anyhow!("image: {error}"))
    })
}

/// Reads an image that is a file of its own.
pub fn bare_image(format: Format, data: &[u8]) -> Result<ImageReport, Error> {
    match format {
        Format::Cubin => cubin_image(data),
        Format::Ptx => ptx_image(data),
        other => Ok(ImageReport {
            kind: if other == Format::TileIr { "Tile IR" } else { "LTO-IR" },
            arch: None,
            version: tile_ir_version(data).map(|version| version.to_string()),
            size: data.len(),
            toolkit: None,
            kernels: Vec::new(),
            selection: None,
        }),
    }
}

fn cubin_image(data: &[u8]) -> Result<ImageReport, Error> {
    let cubin = Cubin::parse(data)?;
    Ok(ImageReport {
        kind: "cubin",
        arch: Some(cubin.arch.to_string()),
        version: Some(format!("1.{}", cubin.abi)),
        size: data.len(),
        toolkit: cubin.toolkit.map(|version| format!("{}.{}", version / 10, version % 10)),
        kernels: cubin_kernels(&cubin),
        selection: None,
    })
}

fn ptx_image(data: &[u8]) -> Result<ImageReport, Error> {
    let header = ptx::scan(data)?;
    Ok(ImageReport {
        kind: "PTX",
        arch: Some(format!("sm_{}{}", header.target.sm, header.target.suffix)),
        version: Some(format!("{}.{}", header.version.0, header.version.1)),
        size: data.len(),
        toolkit: None,
        kernels: ptx_kernels(&header),
        selection: None,
    })
}

fn cubin_kernels(cubin: &Cubin<'_>) -> Vec<KernelReport> {
    let params = |params: &[cubin::Param]| {
        params.iter().map(|p| ParamReport { offset: p.offset, size: p.size }).collect()
    };
    let of = |kernel: &cubin::Kernel<'_>| KernelReport {
        name: kernel.name.to_owned(),
        param_size: Some(kernel.param_size),
        params: Some(params(&kernel.params)),
        registers: kernel.registers,
        shared_size: Some(kernel.shared_size),
        local_size: kernel.stack_size(),
        recursive: kernel.min_stack == Some(cubin::STACK_UNKNOWN),
        constant_size: Some(kernel.constant_size),
        barriers: kernel.barriers,
        max_threads: kernel.max_threads,
        required_threads: kernel.required_threads,
        code_size: Some(kernel.code_size),
    };
    cubin.kernels.iter().map(of).collect()
}

fn ptx_kernels(header: &ptx::Header<'_>) -> Vec<KernelReport> {
    let params = |params: &Vec<ptx::Param<'_>>| {
        params.iter().map(|p| ParamReport { offset: p.offset, size: p.size }).collect()
    };
    let of = |entry: &ptx::Entry<'_>| KernelReport {
        name: entry.name.to_owned(),
        param_size: entry.params.is_ok().then(|| entry.param_size()),
        params: entry.params.as_ref().ok().map(params),
        max_threads: entry.max_threads,
        required_threads: entry.required_threads,
        ..KernelReport::default()
    };
    header.entries.iter().map(of).collect()
}
