//! `cargo xtask kmod`: builds the guest's kernel module for stock kernels and checks what came out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags};

use crate::debian::{self, Release, Root};
use crate::workspace;

#[derive(clap::Args)]
pub struct Args {
    /// Build for this kernel build directory (as /lib/modules/VERSION/build) with this machine's compiler
    #[arg(long, value_name = "DIR", conflicts_with = "all")]
    kernel_dir: Option<PathBuf>,
    /// Build for all kernels that are supported, not for the oldest alone
    #[arg(long)]
    all: bool,
    /// Look at the C half with the kernel's checkpatch.pl
    #[arg(long)]
    checkpatch: bool,
    /// Pack what DKMS needs, and build it with the DKMS of Debian 12
    #[arg(long)]
    dkms: bool,
}

/// Kernels that the module is built for: of Debian 12, of Debian 13, the newest that is packaged for Debian 13.
pub const KERNELS: [Release; 3] = [debian::BOOKWORM, debian::TRIXIE, debian::TRIXIE_BACKPORTS];

/// What is needed to build a module for a release's kernel: nothing of the machine is used but the kernel it runs.
const BUILD_PACKAGES: [&str; 13] = [
    "linux-headers-cloud-amd64",
    "make",
    "gcc",
    "libc6-dev",
    "bash",
    "dash",
    "coreutils",
    "sed",
    "grep",
    "mawk",
    "findutils",
    "diffutils",
    "perl-base",
];

/// What the Rust half may need from outside: its C half, and what the compiler makes calls to.
const OUTSIDE: [&str; 7] =
    ["broker_alloc", "broker_free", "memcpy", "memmove", "memset", "memcmp", "__x86_return_thunk"];

/// A built module.
pub struct Module {
    /// The kernel's version, `6.1.0-56-cloud-amd64`.
    pub kernel: String,
    /// The file.
    pub path: PathBuf,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let core = build_core()?;
    println!("core: {} bytes, needs {}", fs::metadata(&core)?.len(), check_core(&core)?);
    if let Some(dir) = &args.kernel_dir {
        let module =
            build_in(&core, &dir.canonicalize().with_context(|| format!("no {}", dir.display()))?, None)?;
        println!("{}: {}", module.kernel, module.path.display());
    } else {
        let count = if args.all { KERNELS.len() } else { 1 };
        for release in &KERNELS[..count] {
            let module = build(release)?;
            println!("{}: {}", module.kernel, module.path.display());
        }
    }
    if args.checkpatch {
        checkpatch()?;
    }
    if args.dkms {
        let package = dkms()?;
        println!("DKMS package: {}", package.display());
        println!("DKMS: {}", build_with_dkms(&package, &debian::BOOKWORM)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn source() -> PathBuf {
    workspace::root().join("guest-kmod")
}

fn out() -> Result<PathBuf> {
    let dir = workspace::target_dir()?.join("kmod");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Compiles the Rust half; the same object serves all kernels.
///
/// # Errors
/// No rustc, no target `x86_64-unknown-none`, or what the compiler says.
pub fn build_core() -> Result<PathBuf> {
    let out = out()?;
    ensure_target()?;
    make(&["core"], &out)?;
    Ok(out.join("core.o_shipped"))
}

fn make(targets: &[&str], out: &Path) -> Result<String> {
    let mut command = Command::new("make");
    // A make or cargo above this one has no say in it.
    command.env_remove("MAKEFLAGS").env_remove("MFLAGS");
    command.arg("-C").arg(source()).args(targets).arg(format!("OUT={}", out.display()));
    debian::run(&mut command, "make in guest-kmod")
}

/// Adds the compiler's target for code without an operating system, where rustup can.
fn ensure_target() -> Result<()> {
    const TARGET: &str = "x86_64-unknown-none";
    let sysroot = debian::run(
        Command::new("rustc")
            .args(["--print", "target-libdir", "--target", TARGET])
            .current_dir(workspace::root()),
        "rustc",
    )?;
    if Path::new(sysroot.trim()).is_dir() {
        return Ok(());
    }
    debian::run(
        Command::new("rustup").args(["target", "add", TARGET]).current_dir(workspace::root()),
        "rustup target add x86_64-unknown-none",
    )?;
    Ok(())
}

/// Checks that the object holds nothing that a kernel would not bear: calls out of it, data with addresses of code, relocations that modules cannot have.
/// A panic or a formatting function would show as a call out of it. Returns what it needs.
fn check_core(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(&*bytes).context("the core's object file")?;
    let needs: BTreeSet<&str> = file
        .symbols()
        .filter(|symbol| symbol.is_undefined())
        .filter_map(|symbol| symbol.name().ok())
        .collect();
    for name in needs.iter().filter(|name| !name.is_empty()) {
        if !OUTSIDE.contains(name) {
            bail!("the Rust half refers to {name}: panicking, formatting or an unknown helper");
        }
    }
    for section in file.sections() {
        let code = section.kind() == object::SectionKind::Text;
        for (_, relocation) in section.relocations() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
            let direct = matches!(
                r_type,
                object::elf::R_X86_64_PC32 | object::elf::R_X86_64_PLT32 | object::elf::R_X86_64_32S
            );
            if code && !direct {
                bail!(
                    "relocation type {r_type} in {}: modules cannot have it",
                    section.name().unwrap_or_default()
                );
            }
            if section.kind() == object::SectionKind::ReadOnlyData
                || section.kind() == object::SectionKind::Data
            {
                bail!("{} holds addresses: a table of pointers", section.name().unwrap_or_default());
            }
        }
    }
    Ok(needs.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(" "))
}

/// Builds the module for a release's kernel, with the release's compiler.
///
/// # Errors
/// No network at the first call, or what compiler and objtool say: a warning is an error.
pub fn build(release: &Release) -> Result<Module> {
    let core = out()?.join("core.o_shipped");
    let root = release.root("kbuild", &BUILD_PACKAGES)?;
    let headers = root.find("usr/src", "linux-headers-", "-cloud-amd64")?;
    let inside = Path::new("/usr/src").join(headers.file_name().unwrap_or_default());
    build_in(&core, &inside, Some(&root))
}

/// Builds in a copy of the sources: kernels of several versions are built side by side.
fn build_in(core: &Path, kernel_dir: &Path, root: Option<&Root>) -> Result<Module> {
    let on_disk = root.map_or_else(
        || kernel_dir.to_path_buf(),
        |root| root.dir.join(kernel_dir.strip_prefix("/").unwrap_or(kernel_dir)),
    );
    let kernel = kernel_version(&on_disk)?;
    let dir = out()?.join(&kernel);
    copy_sources(&dir)?;
    fs::copy(core, dir.join("core.o_shipped"))?;

    let mut make = match root {
        Some(root) => root.command("make", &[&dir]),
        None => Command::new("make"),
    };
    make.env_remove("MAKEFLAGS").env_remove("MFLAGS");
    make.arg("-C").arg(kernel_dir).arg(format!("M={}", dir.display())).arg("modules");
    let output = make.output().context("cannot run make")?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("the module does not build for {kernel}:\n{}", crate::process::tail(&text, 40, "  "));
    }
    let warnings: Vec<&str> = text.lines().filter(|line| line.to_lowercase().contains("warning")).collect();
    if !warnings.is_empty() {
        bail!("warnings for {kernel}:\n{}", warnings.join("\n"));
    }
    Ok(Module { kernel, path: dir.join("cuda_broker.ko") })
}

/// What `uname -r` says in a kernel whose build directory this is. Its kernel.release may be another: Debian 12 has the version without ABI and flavour there.
fn kernel_version(dir: &Path) -> Result<String> {
    let path = dir.join("include/generated/utsrelease.h");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{} is no kernel build directory", dir.display()))?;
    let quoted = text.split('"').nth(1).with_context(|| format!("no version in {}", path.display()))?;
    Ok(quoted.to_owned())
}

fn copy_sources(dir: &Path) -> Result<()> {
    for part in ["glue", "include/uapi"] {
        fs::create_dir_all(dir.join(part)).with_context(|| format!("cannot create {}", dir.display()))?;
        for entry in fs::read_dir(source().join(part))? {
            let entry = entry?;
            copy_if_changed(&entry.path(), &dir.join(part).join(entry.file_name()))?;
        }
    }
    copy_if_changed(&source().join("Kbuild"), &dir.join("Kbuild"))
}

/// An unchanged file keeps its time, so that make does not compile it again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if !fs::read(to).is_ok_and(|have| have == bytes) {
        fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

/// Runs the kernel's own style checker over the C half. It comes from the kernel's source package; the header packages lack it.
fn checkpatch() -> Result<()> {
    const PACKAGE: &str = "linux-source-6.1";
    const FILES: [&str; 3] = ["checkpatch.pl", "spelling.txt", "const_structs.checkpatch"];
    let dir = debian::cache()?.join("checkpatch");
    let script = dir.join(PACKAGE).join("scripts/checkpatch.pl");
    {
        let _lock = debian::lock("checkpatch")?;
        if !script.is_file() {
            eprintln!("kmod: fetching {PACKAGE} for its checkpatch.pl (once)");
            let deb = debian::BOOKWORM.download(&[PACKAGE], false)?;
            fs::create_dir_all(&dir)?;
            let mut unpack = Command::new("sh");
            let names = FILES.map(|file| format!("{PACKAGE}/scripts/{file}")).join(" ");
            unpack.args([
                "-c",
                &format!("dpkg-deb --fsys-tarfile \"$1\" | tar -xO ./usr/src/{PACKAGE}.tar.xz | tar -xJ -C \"$2\" {names}"),
                "sh",
            ]);
            debian::run(unpack.args(&deb).arg(&dir), "unpacking checkpatch.pl")?;
            // Its archive is large and holds nothing else that is needed.
            deb.iter().for_each(|deb| _ = fs::remove_file(deb));
        }
    }
    let mut command = Command::new("perl");
    command.arg(&script).args(["--no-tree", "--terse", "--strict", "--show-types", "--file"]);
    // The module is built for kernels of several versions, whose numbers checkpatch takes for constants, and is no patch.
    command.args(["--ignore", "LINUX_VERSION_CODE,CONSTANT_COMPARISON,FILE_PATH_CHANGES"]);
    for part in ["glue", "include/uapi"] {
        let mut files: Vec<_> =
            fs::read_dir(source().join(part))?.filter_map(Result::ok).map(|entry| entry.path()).collect();
        files.sort();
        command.args(files);
    }
    // With --terse it says nothing about a file without faults.
    print!("{}", debian::run(&mut command, "checkpatch")?);
    println!("checkpatch: no faults");
    Ok(())
}

fn dkms() -> Result<PathBuf> {
    let out = out()?;
    make(&["dkms"], &out)?;
    let name = fs::read_dir(&out)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".tar.gz"));
    name.context("make dkms made no package")
}

/// Adds the package to a DKMS tree and has DKMS build it for the release's kernel, with nothing installed and the Rust half as it comes. Returns what DKMS says of it.
fn build_with_dkms(package: &Path, release: &Release) -> Result<String> {
    let packages: Vec<&str> = BUILD_PACKAGES.into_iter().chain(["dkms", "kmod", "patch"]).collect();
    let root = release.root("dkms", &packages)?;
    let headers = root.find("usr/src", "linux-headers-", "-cloud-amd64")?;
    let version = kernel_version(&headers)?;
    let headers = Path::new("/usr/src").join(headers.file_name().unwrap_or_default());
    let scratch = tempfile::Builder::new().prefix("dkms-").tempdir().context("a temporary directory")?;
    let (sources, tree) = (scratch.path().join("src"), scratch.path().join("tree"));
    for dir in [&sources, &tree] {
        fs::create_dir(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    debian::run(Command::new("tar").arg("-xzf").arg(package).arg("-C").arg(&sources), "tar")?;
    let dkms = |arguments: &[&str]| {
        let mut command = root.command("dkms", &[scratch.path()]);
        command.env_remove("MAKEFLAGS").env_remove("MFLAGS").args(arguments);
        command.args(["-m", "cuda-broker", "-v", env!("CARGO_PKG_VERSION"), "-k", &version]);
        command.arg("--sourcetree").arg(&sources).arg("--dkmstree").arg(&tree);
        command.arg("--kernelsourcedir").arg(&headers);
        debian::run(&mut command, &format!("dkms {}", arguments.join(" ")))
    };
    dkms(&["add"])?;
    dkms(&["build"])?;
    Ok(dkms(&["status"])?.trim().to_owned())
}
