//! Where things lie: the checkout, cargo's target directory, the built host program.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The root of the checkout.
pub fn root() -> PathBuf {
    // xtask is never installed: it runs from the checkout that it was compiled in.
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiled = manifest_dir.parent().unwrap_or(manifest_dir);
    if compiled.join("samples").is_dir() {
        return compiled.to_path_buf();
    }
    // Carried to another machine, together with a checkout that lies elsewhere.
    let here = env::current_dir().unwrap_or_default();
    let above = here.ancestors().find(|dir| dir.join("samples/README.md").is_file());
    above.unwrap_or(compiled).to_path_buf()
}

/// A `cargo` of the toolchain that runs this task.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Cargo's target directory, whatever the environment or a configuration file says about it.
pub fn target_dir() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
    Ok(PathBuf::from(directory))
}

/// Builds the host program and the shim in release mode and returns the host program's path.
pub fn build_host() -> Result<PathBuf> {
    let status = cargo()
        .args(["build", "--release", "-p", "libcuda-shim", "-p", "host-vmm"])
        .status()
        .context("cannot run cargo build")?;
    if !status.success() {
        bail!("cargo build of libcuda-shim and host-vmm failed ({status})");
    }
    let host = target_dir()?.join("release/host-vmm");
    if !host.is_file() {
        bail!("cargo built no {}", host.display());
    }
    Ok(host)
}
