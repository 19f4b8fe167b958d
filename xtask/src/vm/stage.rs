//! Roots of guests: programs with the libraries that they need, kernel modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{debian, workspace};

/// Copies a file, and makes the directories for it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Compiles the program that runs in guests, which needs no libraries.
pub fn build_probe(to: &Path) -> Result<()> {
    let source = workspace::root().join("xtask/src/vm/probe.rs");
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(workspace::root());
    command.args(["--edition", "2024", "-C", "opt-level=1", "-C", "strip=symbols"]);
    command.args(["-C", "target-feature=+crt-static"]);
    debian::run(command.arg("-o").arg(to).arg(source), "build of the probe").map(drop)
}

/// Puts the libraries of these programs (dynamic linker included) to where they are here. Returns those that are found beside a program, which are not put anywhere.
pub fn copy_libraries(programs: &[PathBuf], root: &Path) -> Result<Vec<PathBuf>> {
    let (beside, elsewhere): (Vec<PathBuf>, Vec<PathBuf>) = libraries(programs)?
        .into_iter()
        .partition(|library| programs.iter().any(|program| program.parent() == library.parent()));
    for library in elsewhere {
        copy(&library, &root.join(library.strip_prefix("/").unwrap_or(&library)))?;
    }
    Ok(beside)
}

fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut command = Command::new("ldd");
    command.args(programs).env_remove("LD_LIBRARY_PATH").env("LC_ALL", "C");
    Ok(paths(&debian::run(&mut command, "ldd")?))
}

/// On a machine with a driver, programs that are linked with it would bring it along; guests have the shim.
const DRIVER: &str = "libcuda.so.1";

/// Files in the output of ldd but for the driver's; it heads the list of each of several programs with `PROGRAM:`.
fn paths(text: &str) -> BTreeSet<PathBuf> {
    let words = text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    words.map(PathBuf::from).filter(|path| !path.ends_with(DRIVER)).collect()
}

/// The modules that an inner machine could want: all would fill the outer machine's memory.
pub fn copy_modules(from: &Path, to: &Path) -> Result<()> {
    const FOLDERS: [&str; 5] =
        ["drivers/virtio", "net/vmw_vsock", "drivers/block", "fs/ext4", "drivers/char/hw_random"];
    copy(&from.join("modules.builtin"), &to.join("modules.builtin"))?;
    for folder in FOLDERS {
        let folder = from.join("kernel").join(folder);
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()) {
            copy_module(&path, to)?;
        }
    }
    Ok(())
}

/// Unpacked: there are no tools in the outer machine.
fn copy_module(from: &Path, to: &Path) -> Result<()> {
    let name = from.file_name().context("a module's name")?;
    if from.extension().is_none_or(|extension| extension != "xz") {
        return copy(from, &to.join(name));
    }
    let output = Command::new("xz").arg("-dc").arg(from).output().context("cannot run xz")?;
    let path = to.join(name).with_extension("");
    fs::write(&path, output.stdout).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_files() {
        let text = "/b/one:\n\tlinux-vdso.so.1 (0x00007ffd)\n\tlibcuda.so.1 => /lib/libcuda.so.1 (0x00007fff)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
                    /b/two:\n\tlibc.so.6 => /lib/libc.so.6 (0x00007e)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007d)\n";
        let expected = ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(paths(text), BTreeSet::from(expected));
    }
}
