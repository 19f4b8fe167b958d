//! What machines are made of: built and fetched on this machine, or carried in a folder that `cargo xtask pack --vm` has made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::kernel::Kernel;
use super::qemu::Qemu;
use super::stage;
use crate::debian::Release;
use crate::gpu::pack;
use crate::kmod;

/// In the folder of `pack`.
const FOLDER: &str = "vm";
/// In that folder.
const QEMU: &str = "qemu";
const KERNEL: &str = "kernel";
const MODULE: &str = "cuda_broker.ko";
const PROBE: &str = "probe";

/// Where the parts come from.
pub enum Parts {
    /// A release's kernel and QEMU from the cache or the mirror; the rest is built.
    Here(Release),
    /// This folder.
    Carried(PathBuf),
}

impl Parts {
    /// What `pack` has left in `prebuilt`, or what this machine can get.
    pub fn new(release: Release, prebuilt: Option<&Path>) -> Self {
        prebuilt.map_or(Self::Here(release), |dir| Self::Carried(dir.join(FOLDER)))
    }

    pub fn kernel(&self) -> Result<Kernel> {
        match self {
            Self::Here(release) => Kernel::of(release),
            Self::Carried(dir) => Kernel::carried(&dir.join(KERNEL)),
        }
    }

    pub fn qemu(&self) -> Result<Qemu> {
        match self {
            Self::Here(_) => Qemu::get(),
            Self::Carried(dir) => Ok(Qemu::carried(&dir.join(QEMU))),
        }
    }

    /// The broker module for the kernel.
    pub fn module(&self) -> Result<PathBuf> {
        match self {
            Self::Here(release) => {
                kmod::build_core()?;
                Ok(kmod::build(release)?.path)
            }
            Self::Carried(dir) => Ok(dir.join(MODULE)),
        }
    }

    /// Puts the program that runs in guests to `to`.
    pub fn probe(&self, to: &Path) -> Result<()> {
        match self {
            Self::Here(_) => stage::build_probe(to),
            Self::Carried(dir) => stage::copy(&dir.join(PROBE), to),
        }
    }

    /// Puts all of them into a folder of `pack`; returns names and sizes.
    ///
    /// # Errors
    /// Something cannot be fetched, built or copied.
    pub fn pack(&self, dir: &Path) -> Result<Vec<(&'static str, u64)>> {
        let dir = dir.join(FOLDER);
        self.qemu()?.pack(&dir.join(QEMU))?;
        self.kernel()?.pack(&dir.join(KERNEL))?;
        pack::strip(&self.module()?, &dir.join(MODULE))?;
        self.probe(&dir.join(PROBE))?;
        [QEMU, KERNEL, MODULE, PROBE].into_iter().map(|name| Ok((name, size(&dir.join(name))?))).collect()
    }
}

/// Bytes of a file, or of all files of a folder.
fn size(path: &Path) -> Result<u64> {
    let metadata = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    entries.map(|entry| size(&entry?.path())).sum()
}
