//! What is told of a file, ready to be printed or serialised.

use fatbin::{Container, Cubin, Entry, Error, ImageKind, Kind, Scan, cubin, ptx, scan_file};
use serde::Serialize;

/// Largest image that is decompressed to list its kernels.
const IMAGE_LIMIT: usize = 1 << 30;
/// Most bytes that are decompressed for one file: a group is decompressed again for each of its images.
const FILE_LIMIT: u64 = 1 << 36;

/// One file.
#[derive(Debug, Serialize)]
pub struct FileReport {
    pub file: String,
    pub containers: Vec<ContainerReport>,
    /// An image that is not in a container: the file is a cubin or PTX itself.
    pub image: Option<ImageReport>,
    pub problems: Vec<String>,
}

/// One container.
#[derive(Debug, Serialize)]
pub struct ContainerReport {
    /// Member of an archive.
    pub member: Option<String>,
    /// Offset in the file (of an archive: in the archive).
    pub offset: u64,
    pub section: Option<&'static str>,
    pub size: usize,
    pub truncated: bool,
    /// Versions of the wrappers that point here.
    pub wrappers: Vec<u32>,
    pub entries: Vec<EntryReport>,
}

/// One entry.
#[derive(Debug, Serialize)]
pub struct EntryReport {
    pub index: usize,
    pub kind: String,
    pub arch: String,
    /// PTX ISA version, or cubin ABI.
    pub version: String,
    pub codec: &'static str,
    pub stored_size: u64,
    pub size: u64,
    pub flags: String,
    /// Number of the image in its concatenated group.
    pub group_index: Option<u32>,
    pub name: Option<String>,
    pub options: Option<String>,
    pub kernels: Option<Vec<KernelReport>>,
}

/// A bare cubin or PTX text.
#[derive(Debug, Serialize)]
pub struct ImageReport {
    pub kind: &'static str,
    pub arch: String,
    pub size: usize,
    pub kernels: Vec<KernelReport>,
}

/// One kernel.
#[derive(Debug, Serialize)]
pub struct KernelReport {
    pub name: String,
    /// Bytes of the parameter buffer; absent if the layout is not known.
    pub param_size: Option<u32>,
    pub params: Option<Vec<ParamReport>>,
    pub registers: Option<u32>,
    pub shared_size: Option<u64>,
    pub max_threads: Option<[u32; 3]>,
}

/// One parameter.
#[derive(Debug, Serialize)]
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

/// Looks into a file.
pub fn inspect(file: &str, data: &[u8], kernels: bool) -> FileReport {
    let mut report =
        FileReport { file: file.to_owned(), containers: Vec::new(), image: None, problems: Vec::new() };
    let kind = ImageKind::of(data);
    let image = match kind {
        ImageKind::Ptx => Some(ptx_image(data)),
        ImageKind::Elf if cubin::is_cubin(data) => Some(cubin_image(data)),
        _ => None,
    };
    match image {
        Some(Ok(image)) => {
            report.image = Some(image);
            return report;
        }
        // Text that is no PTX may still be any file: scan it.
        Some(Err(error)) if kind != ImageKind::Ptx => {
            report.problems.push(error.to_string());
            return report;
        }
        _ => {}
    }
    let mut job = Job { kernels, budget: FILE_LIMIT };
    match scan_file(data) {
        Ok(parts) => {
            for part in parts {
                let problems = part.scan.problems.iter().map(|e| e.moved(part.offset).to_string());
                report.problems.extend(problems);
                add_containers(&mut report, part.member, part.offset, &part.scan, &mut job);
            }
        }
        Err(error) => report.problems.push(error.to_string()),
    }
    report
}

/// What is the same for all containers of a file.
struct Job {
    kernels: bool,
    /// Bytes left to decompress.
    budget: u64,
}

fn add_containers(report: &mut FileReport, member: Option<&str>, base: u64, scan: &Scan<'_>, job: &mut Job) {
    let mut wrappers = vec![Vec::new(); scan.containers.len()];
    for found in &scan.wrappers {
        if let Some(list) = found.container.and_then(|index| wrappers.get_mut(index)) {
            list.push(found.wrapper.version.number());
        }
    }
    for (wrappers, found) in wrappers.into_iter().zip(&scan.containers) {
        let offset = base + found.offset;
        report.containers.push(ContainerReport {
            member: member.map(str::to_owned),
            offset,
            section: found.section,
            size: found.container.len(),
            truncated: found.container.is_truncated(),
            wrappers,
            entries: entries(&found.container, offset, job, &mut report.problems),
        });
    }
}

fn entries(
    container: &Container<'_>,
    base: u64,
    job: &mut Job,
    problems: &mut Vec<String>,
) -> Vec<EntryReport> {
    let mut out = Vec::new();
    for (index, entry) in container.entries().enumerate() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                problems.push(format!("entry {index} of the container at {base:#x}: {}", error.moved(base)));
                break;
            }
        };
        let kernels = match job.kernels_of(&entry) {
            Some(Ok(kernels)) => Some(kernels),
            Some(Err(error)) => {
                problems.push(format!("entry {index} of the container at {base:#x}: {error}"));
                None
            }
            None => None,
        };
        out.push(EntryReport {
            index,
            kind: entry.kind().to_string(),
            arch: entry.arch().to_string(),
            version: entry.code_version().to_string(),
            codec: entry.codec().name(),
            stored_size: entry.stored_size(),
            size: entry.image_size(),
            flags: entry.flags().to_string(),
            group_index: entry.group().map(|g| g.index),
            name: entry.name().map(|name| name.into_owned()),
            options: entry.options().map(|options| options.trim().to_owned()).filter(|o| !o.is_empty()),
            kernels,
        });
    }
    out
}

impl Job {
    /// `None` for kinds without readable kernels, and if nobody asked.
    fn kernels_of(&mut self, entry: &Entry<'_>) -> Option<anyhow::Result<Vec<KernelReport>>> {
        let read: fn(&[u8]) -> Result<Vec<KernelReport>, Error> = match entry.kind() {
            Kind::Elf => |image| Ok(cubin_kernels(&Cubin::parse(image)?)),
            kind if kind.is_ptx() => |image| Ok(ptx_kernels(&ptx::scan(image)?)),
            _ => return None,
        };
        if !self.kernels {
            return None;
        }
        let Some(left) = self.budget.checked_sub(entry.decoded_size()) else {
            let limit = FILE_LIMIT >> 30;
            return Some(Err(anyhow::anyhow!(
                "not decompressed: the file's images exceed {limit} GiB in all"
            )));
        };
        self.budget = left;
        let image = match entry.data(IMAGE_LIMIT) {
            Ok(image) => image,
            Err(error) => return Some(Err(error.into())),
        };
        // Offsets of such an error count from the start of the image.
        Some(read(&image).map_err(|error| anyhow::anyhow!("image: {error}")))
    }
}

fn cubin_image(data: &[u8]) -> Result<ImageReport, Error> {
    let cubin = Cubin::parse(data)?;
    let kernels = cubin_kernels(&cubin);
    Ok(ImageReport { kind: "cubin", arch: cubin.arch.to_string(), size: data.len(), kernels })
}

fn ptx_image(data: &[u8]) -> Result<ImageReport, Error> {
    let header = ptx::scan(data)?;
    let arch = format!("sm_{}{}", header.target.sm, header.target.suffix);
    Ok(ImageReport { kind: "PTX", arch, size: data.len(), kernels: ptx_kernels(&header) })
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
        max_threads: kernel.max_threads,
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
        registers: None,
        shared_size: None,
        max_threads: entry.max_threads,
    };
    header.entries.iter().map(of).collect()
}
