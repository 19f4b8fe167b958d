//! `cargo xtask pack DIR`: what `--prebuilt DIR` needs, to be carried to a machine without cargo and nvcc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::manifest::{BEHAVIOUR, BENCHMARKS, LIBRARIES, MULTI, SAMPLES, Sample};
use crate::toolkit::{Choice, Toolkit};
use crate::{nvcc, vm, workspace};

#[derive(Parser)]
pub struct Args {
    /// Where everything goes; existing files are replaced
    dir: PathBuf,
    /// Where nvcc comes from
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    toolkit: Choice,
    /// A host-vmm that is built already, with the shim beside it
    #[arg(long, value_name = "PATH")]
    host: Option<PathBuf>,
    /// Also what `vm samples` and `vm bench` need: QEMU, a stock kernel, the broker module for it
    #[arg(long)]
    vm: bool,
}

/// All programs that the GPU tasks run.
pub fn programs() -> Vec<&'static Sample> {
    SAMPLES.iter().chain(BENCHMARKS).chain(LIBRARIES).chain(BEHAVIOUR).chain(MULTI).collect()
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let host = match &args.host {
        Some(path) => path.clone(),
        None => workspace::build_host()?,
    };
    nvcc::build(&Toolkit::ensure(args.toolkit)?, &programs())?;
    fs::create_dir_all(&args.dir).with_context(|| format!("cannot create {}", args.dir.display()))?;
    strip(&host, &args.dir.join("host-vmm"))?;
    strip(&host.with_file_name("libcuda.so"), &args.dir.join("libcuda.so.1"))?;
    strip(&std::env::current_exe().context("cannot find this program")?, &args.dir.join("xtask"))?;
    if args.vm {
        for (name, bytes) in vm::pack(&args.dir)? {
            println!("{}: {name}: {:.1} MiB", args.dir.display(), bytes as f64 / f64::from(1 << 20));
        }
    }
    let built = workspace::root().join("samples/build");
    let mut bytes = 0;
    for folder in ["static", "shared", "static/bench", "static/behaviour", "static/libraries", "static/multi"]
    {
        bytes += copy_files(&built.join(folder), &args.dir.join("samples").join(folder))?;
    }
    println!("{}: {} MiB of samples, host-vmm, libcuda.so.1, xtask", args.dir.display(), bytes >> 20);
    Ok(ExitCode::SUCCESS)
}

/// Copies a program without its debug information, which is most of it.
pub fn strip(from: &Path, to: &Path) -> Result<()> {
    let stripped = Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Copies the files of a folder, not its folders, and returns their bytes.
fn copy_files(from: &Path, to: &Path) -> Result<u64> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(0) };
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
        let target = to.join(path.file_name().unwrap_or_default());
        bytes += fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
    }
    Ok(bytes)
}
