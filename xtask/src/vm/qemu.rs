//! A QEMU that is not installed: from the cache, run with its own dynamic linker, without chroot and without privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::debian::{self, Root};
use crate::process::{self, Finished};

/// Name of the program, on the path of what is run.
const PROGRAM: &str = "qemu-system-x86_64";

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

    /// Writes a program of QEMU's name into `directory`.
    fn write_wrapper(&self, directory: &Path) -> Result<()> {
        let root = self.root.dir.display();
        let libraries = format!("{root}/usr/lib/x86_64-linux-gnu");
        let script = format!(
            "#!/bin/sh
QEMU_MODULE_DIR='{libraries}/qemu'
export QEMU_MODULE_DIR
exec '{libraries}/ld-linux-x86-64.so.2' --library-path '{libraries}:{libraries}/pulseaudio' \
'{root}/usr/bin/{PROGRAM}' -L '{root}/usr/share/qemu' -L '{root}/usr/share/seabios' \"$@\"
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
