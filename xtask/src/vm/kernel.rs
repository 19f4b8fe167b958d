//! Stock kernels, as their distribution packs them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::stage;
use crate::debian::{self, Release};

/// A kernel with its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `6.1.0-56-cloud-amd64`
    pub version: String,
    /// bzImage.
    pub vmlinuz: PathBuf,
    /// The ELF image out of it, which starts faster; the bzImage again where it cannot be unpacked.
    pub vmlinux: PathBuf,
    /// Directory of the modules.
    pub modules: PathBuf,
}

/// Ways in which kernels are compressed: how the data begin, and what unpacks them.
const COMPRESSIONS: [(&[u8], &str, &[&str]); 4] = [
    (b"\x02!L\x18", "lz4", &["-dc"]),
    (b"\xFD7zXZ\0", "xz", &["-dc", "--single-stream"]),
    (b"\x28\xB5\x2F\xFD", "zstd", &["-dc"]),
    (b"\x1F\x8B\x08", "gzip", &["-dc"]),
];

impl Kernel {
    /// The newest cloud kernel of a release, from the cache or the mirror.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn of(release: &Release) -> Result<Self> {
        let root = release.root("kernel", &["linux-image-cloud-amd64"])?;
        // Newer packages have the image beside the modules.
        let modules = root.find("usr/lib/modules", "", "")?;
        let version = modules.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let beside = modules.join("vmlinuz");
        let vmlinuz = if beside.is_file() { beside } else { root.find("boot", "vmlinuz-", "")? };
        let vmlinux = unpacked(&vmlinuz, &version)?.unwrap_or_else(|| vmlinuz.clone());
        Ok(Self { version, vmlinuz, vmlinux, modules })
    }

    /// As [`Kernel::pack`] has left it.
    ///
    /// # Errors
    /// It is not there.
    pub fn carried(dir: &Path) -> Result<Self> {
        let version = dir.join("version");
        let version = fs::read_to_string(&version).with_context(|| version.display().to_string())?;
        let image = dir.join("vmlinux");
        ensure!(image.is_file(), "no {}", image.display());
        Ok(Self { version, vmlinuz: image.clone(), vmlinux: image, modules: dir.join("modules") })
    }

    /// Puts what a guest needs of it into a folder.
    ///
    /// # Errors
    /// A file cannot be copied.
    pub fn pack(&self, dir: &Path) -> Result<()> {
        stage::copy(&self.vmlinux, &dir.join("vmlinux"))?;
        stage::copy_modules(&self.modules, &dir.join("modules"))?;
        let version = dir.join("version");
        fs::write(&version, &self.version).with_context(|| version.display().to_string())
    }
}

/// The ELF image in a bzImage, kept in the cache. `None` if no tool is there for its compression.
fn unpacked(vmlinuz: &Path, version: &str) -> Result<Option<PathBuf>> {
    let path = debian::cache()?.join("vmlinux").join(version);
    let _lock = debian::lock(&format!("vmlinux-{version}"))?;
    let size = fs::metadata(vmlinuz).with_context(|| vmlinuz.display().to_string())?.len();
    // Another build of the same version has another size.
    let stamp = path.with_extension("size");
    if path.exists() && fs::read_to_string(&stamp).is_ok_and(|have| have == size.to_string()) {
        return Ok(Some(path));
    }
    let image = fs::read(vmlinuz).with_context(|| vmlinuz.display().to_string())?;
    for (magic, tool, arguments) in COMPRESSIONS {
        for (at, _) in image.windows(magic.len()).enumerate().filter(|(_, window)| window == &magic) {
            let Some(elf) = pipe(tool, arguments, &image[at..]) else { break };
            if elf.starts_with(b"\x7FELF") {
                fs::create_dir_all(path.parent().context("a cache directory")?)?;
                fs::write(&path, elf).with_context(|| path.display().to_string())?;
                fs::write(&stamp, size.to_string()).with_context(|| stamp.display().to_string())?;
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// Output of a tool, whatever it says about what follows the compressed data; `None` if there is no such tool.
fn pipe(tool: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().ok()?;
    let _ = writer.join();
    Some(output.stdout)
}
