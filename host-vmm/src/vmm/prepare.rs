//! From the command line to what a guest is made of; the same for our machines and for QEMU's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::guest::ChannelKind;
use super::initramfs::{self, Content, EXTRA_IN_ROOT, Root};
use super::memory::GRANULE_BYTES;
use crate::cli::{GuestArgs, UsageError};

/// How the guest reaches its virtio devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtioBus {
    /// As our machines have it.
    Mmio,
    /// As QEMU's machines have it.
    Pci,
}

/// A guest, ready for any machine.
#[derive(Debug)]
pub struct Guest {
    /// Where the program's files come from.
    pub root: Root,
    /// The initramfs.
    pub initramfs: Vec<u8>,
    /// The kernel's command line.
    pub command_line: String,
    /// RAM.
    pub memory_bytes: u64,
}

/// Builds the initramfs and the command line.
///
/// # Errors
/// A file is missing or cannot be used.
pub fn prepare(args: &GuestArgs, bus: VirtioBus, channel: ChannelKind) -> Result<Guest> {
    let root = Root::of(&args.root, args.read_only)?;
    let memory_bytes = args.memory.next_multiple_of(GRANULE_BYTES);
    let modules = modules_directory(args)?;
    let (required, wanted) = module_names(args, bus, &root);
    let mut extra = BTreeMap::new();
    if let Some(shim) = &args.shim {
        extra.insert("libcuda.so.1".to_owned(), shim.clone());
        extra.insert("libcuda.so".to_owned(), shim.clone());
    }
    let initramfs = initramfs::build(&Content {
        program: &args.program,
        environment: &environment(args)?,
        directory: &args.directory,
        root: &root,
        modules: modules.as_deref(),
        required_modules: &required,
        wanted_modules: &wanted,
        extra: &extra,
        before: args.initrd.as_deref(),
        // The archive and what is unpacked from it are in memory together for a while.
        limit_bytes: memory_bytes / 2,
    })
    .context("cannot build the initramfs")?;
    Ok(Guest { root, initramfs, command_line: command_line(args, bus, channel), memory_bytes })
}

/// Names of modules that have to be there, and of those that are loaded if they exist.
fn module_names<'a>(args: &'a GuestArgs, bus: VirtioBus, root: &Root) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut wanted = vec![match bus {
        VirtioBus::Mmio => "virtio_mmio",
        VirtioBus::Pci => "virtio_pci",
    }];
    wanted.extend(["vmw_vsock_virtio_transport", "virtio_rng", "cuda_broker"]);
    if matches!(root, Root::Image { .. }) {
        // ext4 and others look for their checksum by name, and there is no program here that could load it then.
        wanted.extend(["virtio_blk", "crc32c_generic", "ext4", "squashfs", "erofs", "xfs", "btrfs"]);
    }
    (args.module.iter().map(String::as_str).collect(), wanted)
}

fn modules_directory(args: &GuestArgs) -> Result<Option<PathBuf>> {
    if args.modules.is_some() {
        return Ok(args.modules.clone());
    }
    let version = bzimage_version(&args.kernel).with_context(|| args.kernel.display().to_string())?;
    let directory = version.map(|version| Path::new("/lib/modules").join(version));
    Ok(directory.filter(|directory| directory.is_dir()))
}

/// The version that a bzImage says it is (boot protocol, `kernel_version`).
fn bzimage_version(kernel: &Path) -> std::io::Result<Option<String>> {
    const HEADER: u64 = 0x202;
    const POINTER: u64 = 0x20E;
    const SETUP: u64 = 0x200;
    const LONGEST: u64 = 128;
    let mut file = File::open(kernel)?;
    let mut take = |at: u64, count: u64| -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        (&file).take(count).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    if take(HEADER, 4)? != *b"HdrS" {
        return Ok(None);
    }
    let Ok(pointer) = <[u8; 2]>::try_from(take(POINTER, 2)?) else { return Ok(None) };
    let text = take(SETUP + u64::from(u16::from_le_bytes(pointer)), LONGEST)?;
    let word: Vec<u8> =
        text.into_iter().take_while(|byte| !byte.is_ascii_whitespace() && *byte != 0).collect();
    // It becomes part of a path.
    let good = word.iter().all(|byte| byte.is_ascii_alphanumeric() || b".+-_~".contains(byte));
    Ok(String::from_utf8(word).ok().filter(|word| good && !word.is_empty() && !word.starts_with('.')))
}

fn environment(args: &GuestArgs) -> Result<Vec<(OsString, OsString)>> {
    let mut variables: BTreeMap<OsString, OsString> = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("TERM", "linux"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    if args.shim.is_some() {
        variables.insert("LD_LIBRARY_PATH".into(), EXTRA_IN_ROOT.into());
    }
    for text in &args.env {
        let bytes = text.as_bytes();
        let split = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0);
        let Some(at) = split else {
            return Err(UsageError(format!("--env {}: NAME=VALUE is needed", text.display())).into());
        };
        variables.insert(OsStr::from_bytes(&bytes[..at]).into(), OsStr::from_bytes(&bytes[at + 1..]).into());
    }
    Ok(variables.into_iter().collect())
}

/// A restart is a triple fault, which ends the machine; so is a panic.
fn command_line(args: &GuestArgs, bus: VirtioBus, channel: ChannelKind) -> String {
    let fixed = "console=ttyS0 reboot=t panic=-1 quiet";
    // Our machines have no PCI; kernels complain if they look for it in vain.
    let pci = if bus == VirtioBus::Mmio { "pci=off " } else { "" };
    let append = args.append.as_deref().unwrap_or_default();
    format!("{fixed} {pci}{} {append}", channel.parameter()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn version_in(text: &[u8], magic: &[u8]) -> Option<String> {
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(magic);
        image[0x20E..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        image[0x500..0x500 + text.len()].copy_from_slice(text);
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(&image).expect("written");
        bzimage_version(file.path()).expect("readable")
    }

    #[test]
    fn a_bzimage_says_its_version() {
        let version = version_in(b"6.1.0-50-cloud-amd64 (builder) #1 SMP\0", b"HdrS");
        assert_eq!(version.as_deref(), Some("6.1.0-50-cloud-amd64"));
        assert_eq!(version_in(b"6.1.0", b"none"), None);
        assert_eq!(version_in(b"../../etc", b"HdrS"), None);
        assert_eq!(version_in(b"", b"HdrS"), None);
    }
}
