//! The broker module in a guest of an interpreted processor: `guest-kmod`'s test program against the daemon's broker library.
//!
//! The guest's memory is a file that the host's side maps; the module's connection goes over our own vhost-user vsock device. The guest has no disk: its first
//! program is the test program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Outcome;
use super::cpio::Archive;
use super::helpers::Helpers;
use super::kernel::Kernel;
use super::qemu::Qemu;
use crate::debian::{self, Release};
use crate::{kmod, process, workspace};

/// What to run, and with what.
pub struct Options {
    pub release: Release,
    pub memory_mib: u64,
    /// Random calls of the device.
    pub fuzz: u64,
    /// Programs that are killed.
    pub kills: u64,
    pub limit: Duration,
    pub verbose: bool,
}

/// Says the test program in the end.
const GOOD_END: &str = "SELFTEST OK";
/// What a kernel says when it has found damage.
const BAD_SIGNS: [&str; 8] =
    ["BUG", "WARNING:", "Oops", "general protection", "Call Trace", "Kernel panic", "Bad page", "leaked"];

/// The first line of a console with which its kernel reports damage; lines of [`super::report`] are a program's.
pub fn damage(console: &str) -> Option<&str> {
    let lines = console.lines().filter(|line| !line.starts_with("@@ "));
    lines.into_iter().find(|line| BAD_SIGNS.iter().any(|sign| line.contains(sign)))
}
/// Short timeouts and small limits, so that both are reached.
const MODULE_PARAMETERS: &str = "release_timeout_ms=1000 process_limit_mb=96 user_limit_mb=128";

/// Runs the test.
///
/// # Errors
/// Something on this machine failed before the guest ran.
pub fn run(options: &Options) -> Result<Outcome> {
    if Command::new("apt-get").arg("--version").output().is_err() {
        return Ok(Outcome::Skipped("no apt-get to fetch kernels and QEMU with".into()));
    }
    kmod::build_core()?;
    let module = kmod::build(&options.release)?;
    let program = build_program()?;
    let (endpoint, device) = (build_example("broker_endpoint")?, build_example("vhost_user_vsock")?);
    let kernel = Kernel::of(&options.release)?;
    let qemu = Qemu::get()?;
    let scratch = tempfile::Builder::new().prefix("vm-tcg-").tempdir().context("a temporary directory")?;
    let at = scratch.path();
    write_initramfs(&at.join("initrd"), &program, &kernel, &module.path)?;

    // Guest memory belongs into memory; the size is reserved nowhere.
    let ram = tempfile::Builder::new()
        .prefix("guest-ram-")
        .tempfile_in("/dev/shm")
        .context("a file in /dev/shm")?;
    let bytes = options.memory_mib << 20;
    let mut helpers = Helpers::default();
    helpers.start(
        Command::new(&endpoint).arg(ram.path()).arg(bytes.to_string()).arg(at.join("vsock")),
        &at.join("endpoint.log"),
        &at.join("vsock_7103"),
    )?;
    let vhost = at.join("vhost");
    helpers.start(
        Command::new(&device).arg(&vhost).arg("3").arg(at.join("vsock")),
        &at.join("device.log"),
        &vhost,
    )?;

    let started = Instant::now();
    let finished = qemu.shell(&command_line(options, &kernel, at, ram.path()), at, options.limit)?;
    let console = String::from_utf8_lossy(&finished.stdout).replace('\r', "");
    if options.verbose {
        println!("{console}");
    }
    let passed = console.lines().filter(|line| line.contains("PASS ")).count();
    if let Some(line) = damage(&console) {
        return Ok(Outcome::Failed(format!(
            "the kernel says: {line}\n{}",
            process::tail(&console, 60, "  ")
        )));
    }
    if !console.lines().any(|line| line.ends_with(GOOD_END)) {
        let log = fs::read_to_string(at.join("endpoint.log")).unwrap_or_default();
        return Ok(Outcome::Failed(format!(
            "{}{}",
            process::tail(&console, 60, "  "),
            process::tail(&log, 20, "  host: ")
        )));
    }
    Ok(Outcome::Passed(format!(
        "({passed} cases, kernel {}, {} MiB, {} s)",
        kernel.version,
        options.memory_mib,
        started.elapsed().as_secs()
    )))
}

fn command_line(options: &Options, kernel: &Kernel, at: &Path, ram: &Path) -> String {
    let memory = options.memory_mib;
    // slub_debug: red zones, poison and owners, so that a use after free or a write past the end is found. KFENCE, where it is built in, looks at one allocation each 10 ms.
    let append = format!(
        "console=ttyS0 reboot=t panic=-1 loglevel=5 tsc=reliable no_timer_check random.trust_cpu=1 mitigations=off \
         slub_debug=FZPU init_on_free=1 kfence.sample_interval=10 BROKER_FUZZ={} BROKER_KILLS={}",
        options.fuzz, options.kills
    );
    format!(
        "exec qemu-system-x86_64 -M q35,memory-backend=m0 -accel tcg -cpu max -smp 2 -m {memory} \
         -object memory-backend-file,id=m0,size={memory}M,mem-path={ram},share=on \
         -nodefaults -no-user-config -nographic -no-reboot -serial stdio \
         -chardev socket,id=c0,path={at}/vhost -device vhost-user-vsock-pci,chardev=c0 \
         -kernel {kernel} -initrd {at}/initrd -append '{append}'",
        ram = ram.display(),
        at = at.display(),
        kernel = kernel.vmlinux.display(),
    )
}

/// The guest's first program: static, since the guest has no libraries.
pub fn build_program() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target = workspace::target_dir()?.join("static");
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "-p", "broker-selftest", "--target", TARGET]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env("CARGO_TARGET_DIR", &target);
    debian::run(&mut cargo, "build of the test program")?;
    Ok(target.join(TARGET).join("release/broker-selftest"))
}

/// A part of the host's side.
pub fn build_example(name: &str) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    debian::run(
        cargo.args(["build", "--quiet", "-p", "host-vmm", "--example", name]),
        "build of the host's side",
    )?;
    Ok(workspace::target_dir()?.join("debug/examples").join(name))
}

fn write_initramfs(path: &Path, program: &Path, kernel: &Kernel, module: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "mods", "tmp"] {
        archive.directory(directory);
    }
    archive.file("init", 0o755, &fs::read(program).with_context(|| program.display().to_string())?);
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in ["virtio_pci", "vmw_vsock_virtio_transport"] {
        add_module(&mut archive, kernel, name, &mut order, &mut seen)?;
    }
    archive.file(
        "mods/cuda_broker.ko",
        0o644,
        &fs::read(module).with_context(|| module.display().to_string())?,
    );
    order.push(format!("cuda_broker.ko {MODULE_PARAMETERS}"));
    archive.file("mods/order", 0o644, (order.join("\n") + "\n").as_bytes());
    fs::write(path, archive.finish()).with_context(|| path.display().to_string())
}

/// A module of the kernel and before it what it depends on; nothing if it is built in.
fn add_module(
    archive: &mut Archive,
    kernel: &Kernel,
    name: &str,
    order: &mut Vec<String>,
    seen: &mut BTreeSet<String>,
) -> Result<()> {
    if !seen.insert(name.to_string()) {
        return Ok(());
    }
    let Some(path) = find_module(&kernel.modules.join("kernel"), name) else { return Ok(()) };
    let bytes = match path.extension() {
        Some(extension) if extension == "xz" => {
            let output = Command::new("xz").arg("-dc").arg(&path).output().context("cannot run xz")?;
            output.stdout
        }
        _ => fs::read(&path).with_context(|| path.display().to_string())?,
    };
    for needed in dependencies(&bytes) {
        add_module(archive, kernel, &needed, order, seen)?;
    }
    archive.file(&format!("mods/{name}.ko"), 0o644, &bytes);
    order.push(format!("{name}.ko"));
    Ok(())
}

/// What a module's own information names.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let text = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).split(',').filter(|name| !name.is_empty()).map(str::to_string).collect()
}

fn find_module(directory: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            if let Some(found) = find_module(&path, name) {
                return Some(found);
            }
        } else if let Some((stem, _)) = path.file_name()?.to_str()?.split_once(".ko")
            && stem.replace('-', "_") == name.replace('-', "_")
        {
            return Some(path);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn dependencies_are_in_the_modules_information() {
        assert_eq!(
            dependencies(b"\x7fELF\0license=GPL\0depends=vsock,virtio_common\0x"),
            ["vsock", "virtio_common"]
        );
        assert_eq!(dependencies(b"a\0depends=\0name=x"), [""; 0]);
        assert_eq!(dependencies(b"nothing"), [""; 0]);
    }
}
