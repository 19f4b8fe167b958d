//! Builds samples with nvcc: each source is compiled once and linked for both variants.
//!
//! A sample is rebuilt when what it is made from differs from what its state file recorded: contents of its own
//! and the common sources, options, and the compiler's version.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;

use crate::manifest::{Api, Data, Sample};
use crate::process::tail;
use crate::progress::Progress;
use crate::toolkit::Toolkit;
use crate::workspace;

/// PTX for the lowest architecture, so that it runs anywhere; machine code so that a driver older than nvcc, which
/// cannot compile nvcc's PTX, runs the same program.
const ARCHITECTURES: &[&str] =
    &["-gencode=arch=compute_75,code=[compute_75,sm_75]", "-gencode=arch=compute_90,code=sm_90"];
/// nvcc runs several compilers of some 200 MB each.
const JOBS: usize = 2;

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// libcudart_static, or for driver-API samples: libcuda opened at run time.
    Static,
    /// libcudart.so, or for driver-API samples: libcuda as a linked library.
    Shared,
}

impl Variant {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Static, Self::Shared];

    /// Folder name, and value of nvcc's `-cudart`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Shared => "shared",
        }
    }
}

/// `samples/build`.
fn build_dir() -> PathBuf {
    workspace::root().join("samples/build")
}

/// Where the program of a sample lies.
pub fn program(sample: &Sample, variant: Variant) -> PathBuf {
    build_dir().join(variant.name()).join(sample.name)
}

/// The program and the files that lie beside it for its use.
pub fn files(sample: &Sample, variant: Variant) -> Vec<PathBuf> {
    files_of(sample, program(sample, variant))
}

/// A program of this sample, wherever it lies, and the files that lie beside it for its use.
pub fn files_of(sample: &Sample, program: PathBuf) -> Vec<PathBuf> {
    let data: Vec<PathBuf> = sample.data.iter().map(|data| program.with_file_name(data_name(data))).collect();
    std::iter::once(program).chain(data).collect()
}

/// Builds those of `samples` that are out of date.
///
/// # Errors
/// The first compiler failure, with the compiler's own output.
pub fn build(toolkit: &Toolkit, samples: &[&'static Sample]) -> Result<()> {
    let build_dir = build_dir();
    for dir in ["static", "shared", "state", "obj"] {
        let dir = build_dir.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    place_shared_cudart(toolkit)?;
    let mut jobs = Vec::new();
    for &sample in samples {
        let fingerprint = fingerprint(toolkit, sample)?;
        if !up_to_date(sample, &fingerprint) {
            jobs.push((sample, fingerprint));
        }
    }
    if jobs.is_empty() {
        return Ok(());
    }
    let total = jobs.len();
    let progress = Progress::new("samples", total);
    progress.line(&format!("samples: nvcc {} at {}", toolkit.version, toolkit.nvcc.display()));
    if jobs.iter().any(|(sample, _)| sample.api == Api::Driver) {
        build_libcuda_stub()?;
    }
    let queue = Mutex::new((jobs.into_iter(), 0_usize));
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..JOBS.min(total) {
            scope.spawn(|| {
                while lock(&failure).is_none() {
                    let next = {
                        let mut queue = lock(&queue);
                        let next = queue.0.next();
                        if let Some((sample, _)) = &next {
                            progress.step(queue.1, sample.name);
                            queue.1 += 1;
                        }
                        next
                    };
                    let Some((sample, fingerprint)) = next else {
                        return;
                    };
                    if let Err(error) = build_one(toolkit, sample, &fingerprint) {
                        lock(&failure).get_or_insert(error);
                    }
                }
            });
        }
    });
    match failure.into_inner() {
        Ok(None) => {
            progress.finish(&format!("{total} built"));
            Ok(())
        }
        Ok(Some(error)) => Err(error),
        Err(_) => Err(anyhow!("a build thread panicked")),
    }
}

/// A poisoned lock only means that another build thread panicked; its data is still whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn state_file(sample: &Sample) -> PathBuf {
    build_dir().join("state").join(sample.name)
}

fn up_to_date(sample: &Sample, fingerprint: &str) -> bool {
    let outputs_exist =
        sample.variants().iter().all(|&variant| files(sample, variant).iter().all(|file| file.is_file()));
    outputs_exist && fs::read_to_string(state_file(sample)).is_ok_and(|have| have == fingerprint)
}

fn data_name(data: &Data) -> &'static str {
    match data {
        Data::Copy { to, .. } | Data::Fatbin { to, .. } => to,
    }
}

fn source_dir(sample: &Sample) -> PathBuf {
    workspace::root().join("samples").join(sample.group().unwrap_or(sample.name))
}

/// Whether the outputs of `sample` depend on a file of its folder.
fn is_input(sample: &Sample, file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let data = sample.data.iter().map(|data| match data {
        Data::Copy { from, .. } | Data::Fatbin { from, .. } => *from,
    });
    match sample.group() {
        // Its folder is shared: other programs' sources do not matter.
        Some(_) => name.ends_with(".h") || sample.sources.iter().copied().chain(data).any(|own| own == name),
        // The expected output is no input of the build.
        None => !name.ends_with(".txt"),
    }
}

fn common_dir() -> PathBuf {
    workspace::root().join("samples/common")
}

/// Everything that a sample's outputs depend on, as text.
fn fingerprint(toolkit: &Toolkit, sample: &Sample) -> Result<String> {
    let mut text = format!("nvcc {}\n{ARCHITECTURES:?}\n{sample:?}\n", toolkit.nvcc.display());
    let _ = writeln!(text, "{}", toolkit.version);
    for dir in [common_dir(), source_dir(sample)] {
        let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.is_file() && is_input(sample, path))
            .collect();
        files.sort();
        for file in files {
            let contents = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let mut hasher = DefaultHasher::new();
            contents.hash(&mut hasher);
            let _ = writeln!(text, "{:016x} {}", hasher.finish(), file.display());
        }
    }
    Ok(text)
}

/// Puts libcudart.so.N beside the shared programs, which look for it there: they can be carried to another machine.
fn place_shared_cudart(toolkit: &Toolkit) -> Result<()> {
    if let Some(library) = toolkit.shared_cudart()
        && let Some(name) = library.file_name()
    {
        let target = build_dir().join("shared").join(name);
        let length = |path: &Path| fs::metadata(path).map(|data| data.len()).ok();
        if length(&library) != length(&target) {
            fs::copy(&library, &target).with_context(|| format!("cannot copy {}", library.display()))?;
        }
    }
    Ok(())
}

/// A library to link against where no driver is installed: its name and its symbols, nothing else.
fn build_libcuda_stub() -> Result<()> {
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
        .arg(build_dir().join("obj/libcuda.so"))
        .arg(common_dir().join("libcuda_stub.c"));
    run(&mut gcc, "gcc", "libcuda_stub.c")
}

fn build_one(toolkit: &Toolkit, sample: &Sample, fingerprint: &str) -> Result<()> {
    let state = state_file(sample);
    for folder in [state.parent(), program(sample, Variant::Static).parent()].into_iter().flatten() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    // Outputs of an interrupted build must not pass for those of this fingerprint, nor of the last one.
    let _ = fs::remove_file(&state);
    let mut common_objects = Vec::new();
    for &variant in sample.variants() {
        let objects = match sample.api {
            Api::Driver => compile(toolkit, sample, variant)?,
            Api::Runtime => {
                if common_objects.is_empty() {
                    common_objects = compile(toolkit, sample, variant)?;
                }
                common_objects.clone()
            }
        };
        link(toolkit, sample, variant, &objects)?;
        for data in sample.data {
            place_data(toolkit, sample, variant, data)?;
        }
    }
    fs::write(&state, fingerprint).with_context(|| format!("cannot write {}", state.display()))
}

fn architectures(sample: &Sample) -> &'static [&'static str] {
    if sample.options.iter().any(|option| option.starts_with("-gencode")) { &[] } else { ARCHITECTURES }
}

fn nvcc(toolkit: &Toolkit) -> Command {
    let mut command = Command::new(&toolkit.nvcc);
    command.arg("-std=c++17").arg("-O3").arg("-I").arg(common_dir());
    command
}

fn compile(toolkit: &Toolkit, sample: &Sample, variant: Variant) -> Result<Vec<PathBuf>> {
    let objects = build_dir().join("obj").join(sample.name);
    fs::create_dir_all(&objects).with_context(|| format!("cannot create {}", objects.display()))?;
    let mut outputs = Vec::new();
    for source in sample.sources {
        let object = objects.join(format!("{source}.{}.o", variant.name()));
        let mut command = nvcc(toolkit);
        if sample.api == Api::Runtime {
            command.args(architectures(sample));
        } else if variant == Variant::Shared {
            command.arg("-DSAMPLE_LINK_LIBCUDA");
        }
        command.args(sample.options).arg("-c").arg(source_dir(sample).join(source)).arg("-o").arg(&object);
        run(&mut command, sample.name, source)?;
        outputs.push(object);
    }
    Ok(outputs)
}

fn link(toolkit: &Toolkit, sample: &Sample, variant: Variant, objects: &[PathBuf]) -> Result<()> {
    let output = program(sample, variant);
    let mut command = nvcc(toolkit);
    match sample.api {
        Api::Runtime => {
            command.args(architectures(sample)).arg("-cudart").arg(variant.name()).args(sample.options);
            // nvcc hands its commands to a shell and does not quote a dollar sign, so that the shell would replace
            // the linker's $ORIGIN by an empty string: let it replace it by itself.
            command.args(["-Xlinker", "-rpath=$ORIGIN"]);
            command.env("ORIGIN", "$ORIGIN");
        }
        Api::Driver => {
            command.args(["-cudart", "none"]);
        }
    }
    command.args(objects);
    if sample.api == Api::Driver {
        match variant {
            Variant::Static => {
                command.arg("-ldl");
            }
            Variant::Shared => {
                command.arg("-L").arg(build_dir().join("obj")).arg("-lcuda");
            }
        }
    }
    command.arg("-o").arg(&output);
    run(&mut command, sample.name, variant.name())
}

fn place_data(toolkit: &Toolkit, sample: &Sample, variant: Variant, data: &Data) -> Result<()> {
    let target = program(sample, variant).with_file_name(data_name(data));
    match data {
        Data::Copy { from, .. } => {
            let from = source_dir(sample).join(from);
            fs::copy(&from, &target).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        // The same for both variants, but a second nvcc run is cheaper than the bookkeeping.
        Data::Fatbin { from, options, .. } => {
            let mut command = nvcc(toolkit);
            command.args(if options.is_empty() { ARCHITECTURES } else { options });
            command.arg("-fatbin").arg(source_dir(sample).join(from)).arg("-o").arg(&target);
            run(&mut command, sample.name, from)?;
        }
    }
    Ok(())
}

fn run(command: &mut Command, sample: &str, what: &str) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}; is it installed?", command.get_program().display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if !output.status.success() {
        bail!("building sample {sample} ({what}) failed:\n{command:?}\n{}", tail(&text, 40, "  "));
    }
    if !text.trim().is_empty() {
        eprint!("{sample} ({what}):\n{}", tail(&text, 40, "  "));
    }
    Ok(())
}
