//! A QEMU that is not installed: from the cache, run with its own dynamic linker, without chroot and without privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::stage;
use crate::debian::{self, Root};
use crate::gpu::pack;
use crate::process::{self, Finished};

/// Name of the program, on the path of what is run.
const PROGRAM: &str = "qemu-system-x86_64";

/// Its folders.
const BIN: &str = "usr/bin";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LINKER: &str = "ld-linux-x86-64.so.2";
/// What a q35 without a screen and network cards starts a kernel with.
const FIRMWARE: [&str; 5] = [
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/kvmvapic.bin",
    "usr/share/qemu/linuxboot.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/pvh.bin",
];

/// See the module.
pub struct Qemu {
    root: Root,
}

impl Qemu {
    /// From the cache or the mirror.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn get() -> Result<Self> {
        Ok(Self { root: debian::TRIXIE.root("qemu", &["qemu-system-x86"])? })
    }

    /// As [`Qemu::pack`] has left it.
    pub fn carried(dir: &Path) -> Self {
        Self { root: Root { dir: dir.to_path_buf() } }
    }

    /// Puts what a guest without a screen and without a network card needs of it into a folder.
    ///
    /// # Errors
    /// A file is missing or cannot be copied.
    pub fn pack(&self, dir: &Path) -> Result<()> {
        let root = &self.root.dir;
        let libraries = root.join(LIBRARIES);
        let mut command = Command::new(libraries.join(LINKER));
        command.arg("--library-path").arg(&libraries).arg("--list").arg(root.join(BIN).join(PROGRAM));
        let list = debian::run(&mut command, "list of QEMU's libraries")?;
        let words = list.split_whitespace().map(Path::new);
        for library in words.filter_map(|word| word.strip_prefix(&libraries).ok()) {
            pack::strip(&libraries.join(library), &prepared(&dir.join(LIBRARIES).join(library))?)?;
        }
        // By another name than in the list.
        stage::copy(&libraries.join(LINKER), &dir.join(LIBRARIES).join(LINKER))?;
        pack::strip(&root.join(BIN).join(PROGRAM), &prepared(&dir.join(BIN).join(PROGRAM))?)?;
        for file in FIRMWARE {
            stage::copy(&root.join(file), &dir.join(file))?;
        }
        Ok(())
    }

    /// Writes a program of QEMU's name into `directory`.
    fn write_wrapper(&self, directory: &Path) -> Result<()> {
        let root = self.root.dir.display();
        let libraries = format!("{root}/{LIBRARIES}");
        let script = format!(
            "#!/bin/sh
QEMU_MODULE_DIR='{libraries}/qemu'
export QEMU_MODULE_DIR
exec '{libraries}/{LINKER}' --library-path '{libraries}:{libraries}/pulseaudio' \
'{root}/{BIN}/{PROGRAM}' -L '{root}/usr/share/qemu' -L '{root}/usr/share/seabios' \"$@\"
"
        );
        let path = directory.join(PROGRAM);
        fs::write(&path, script).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| path.display().to_string())
    }

    /// Runs a shell command line that starts QEMU by its name; `scratch` gets a file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn shell(&self, command_line: &str, scratch: &Path, limit: Duration) -> Result<Finished> {
        process::run_limited(&mut self.command(command_line, scratch)?, limit)
    }

    /// The command that [`Qemu::shell`] runs.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn command(&self, command_line: &str, scratch: &Path) -> Result<Command> {
        self.write_wrapper(scratch)?;
        let mut path = scratch.as_os_str().to_owned();
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        let mut command = Command::new("sh");
        command.args(["-c", command_line]).env("PATH", path);
        Ok(command)
    }
}

/// A path whose folder is there.
fn prepared(path: &Path) -> Result<PathBuf> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(path.to_path_buf())
}
