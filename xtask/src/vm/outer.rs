//! The outer machine (L1) of nested tests: QEMU's, with an interpreted processor that has hardware virtualisation, and a stock kernel's
//! real `kvm_amd` and `vhost_vsock`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::kernel::Kernel;
use super::machine::{Ended, Machine};
use super::qemu::Qemu;
use super::{report, stage};

/// Content of a file in each root.
pub const MARKER: &str = "of the root";
/// The disk image, as a path in the outer machine.
pub const DISK: &str = "/l2/root.img";

/// The command lines of the outer machine.
const CASES: &str = "/l2/cases";

/// The outer machine's files, ready to run.
pub struct Outer<'a> {
    host: &'a Path,
    kernel: &'a Kernel,
    scratch: TempDir,
    /// Whether there is a [`DISK`].
    pub has_disk: bool,
}

impl<'a> Outer<'a> {
    /// Lays its files out.
    ///
    /// # Errors
    /// A file cannot be read or written, or a program is not there.
    pub fn stage(host: &'a Path, kernel: &'a Kernel) -> Result<Self> {
        let scratch =
            tempfile::Builder::new().prefix("vm-nested-").tempdir().context("a temporary directory")?;
        let root = scratch.path().join("root");
        // A read-only disk has to have them.
        for directory in ["dev", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(root.join("l2/root").join(directory))?;
        }
        let probe = root.join("l2/root/bin/probe");
        stage::build_probe(&probe)?;
        stage::copy(&probe, &root.join("usr/bin/probe"))?;
        fs::write(root.join("l2/root/marker"), MARKER)?;
        stage::copy(&kernel.vmlinux, &root.join("l2/vmlinux"))?;
        stage::copy(&kernel.vmlinuz, &root.join("l2/vmlinuz"))?;
        stage::copy_modules(&kernel.modules, &root.join("l2/modules"))?;
        let own = root.join("usr/bin/host-vmm");
        stage::copy(host, &own)?;
        // Symbols would only fill the outer machine's memory.
        let _ = Command::new("strip").arg(&own).output();
        stage::copy_libraries(&[host.to_path_buf()], &root)?;
        let has_disk = make_disk(&root)?;
        Ok(Self { host, kernel, scratch, has_disk })
    }

    /// Its root, before it runs.
    pub fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    /// Runs command lines in it, one after the other.
    ///
    /// # Errors
    /// Something on this machine failed before it ran.
    pub fn run(
        &self,
        qemu: &Qemu,
        commands: &[report::Command<'_>],
        memory: &str,
        limit: Duration,
    ) -> Result<Ended> {
        let cases = self.root().join(CASES.trim_start_matches('/'));
        fs::write(&cases, report::cases_file(commands)).with_context(|| cases.display().to_string())?;
        let machine = Machine {
            host: self.host,
            kernel: self.kernel,
            scratch: self.scratch.path(),
            arguments: &["--memory", memory, "--module", "kvm-amd", "--module", "vhost_vsock"],
            append: "",
            vsock: None,
            program: &["/usr/bin/probe", "cases", CASES],
            limit,
        };
        machine.run(qemu)
    }
}

/// An image of the inner root; `false` where no tool can make one.
fn make_disk(root: &Path) -> Result<bool> {
    let image = root.join(DISK.trim_start_matches('/'));
    let file = fs::File::create(&image).context("a disk image")?;
    file.set_len(16 << 20).context("a disk image")?;
    let made =
        Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(root.join("l2/root")).arg(&image).output();
    match made {
        Ok(output) if output.status.success() => Ok(true),
        Ok(output) => bail!("mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr).trim_end()),
        Err(_) => {
            fs::remove_file(&image).context("a disk image")?;
            Ok(false)
        }
    }
}
