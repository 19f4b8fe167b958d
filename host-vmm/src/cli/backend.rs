//! Which backend runs the kernels.
//!
//! The driver's library is tried in a process of its own: it starts threads and takes address space, and the daemon must keep running whatever it does.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::UsageError;
use super::args::Backend;
use crate::backend::cuda::library;
use crate::config::{self, Cuda};

/// What `host-vmm probe` prints.
#[derive(Debug, Serialize, Deserialize)]
struct Probe {
    nested: bool,
    /// 0 if they were not counted.
    devices: i32,
}

/// The backend that will be used.
///
/// # Errors
/// The one that is asked for cannot be had.
pub fn choose(backend: Backend, libcuda: Option<&Path>) -> anyhow::Result<config::Backend> {
    let libcuda = libcuda.map(absolute).transpose()?;
    let cuda = |probe: Probe| config::Backend::Cuda(Cuda { libcuda: libcuda.clone(), nested: probe.nested });
    match backend {
        Backend::Cpu => Ok(config::Backend::Cpu),
        Backend::Cuda => match try_driver(libcuda.as_deref(), false)? {
            Ok(probe) => Ok(cuda(probe)),
            Err(reason) => Err(UsageError(format!(
                "no CUDA backend: {reason}; --backend cpu runs the kernels on the CPU"
            ))
            .into()),
        },
        Backend::Auto => match try_driver(libcuda.as_deref(), true)? {
            Ok(probe) if probe.devices > 0 => Ok(cuda(probe)),
            Ok(_) => Ok(config::Backend::Cpu),
            Err(reason) => {
                tracing::debug!(%reason, "the kernels run on the CPU");
                Ok(config::Backend::Cpu)
            }
        },
    }
}

/// A path on the command line is one of a file; workers have another working directory at times.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("driver library {}", path.display()))
}

/// Has another process try the driver; the inner error is for people.
fn try_driver(libcuda: Option<&Path>, init: bool) -> anyhow::Result<Result<Probe, String>> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("probe").stdin(Stdio::null());
    if let Some(path) = libcuda {
        command.arg("--libcuda").arg(path);
    }
    if init {
        command.arg("--init");
    }
    let output = command.output().context("cannot run /proc/self/exe")?;
    Ok(match serde_json::from_slice(&output.stdout) {
        Ok(probe) if output.status.success() => Ok(probe),
        _ => {
            let text = String::from_utf8_lossy(&output.stderr);
            let last =
                text.trim_end().lines().last().unwrap_or_default().trim_start_matches("host-vmm: error: ");
            Err(if last.is_empty() {
                format!("the driver's library ended its process ({})", output.status)
            } else {
                last.to_owned()
            })
        }
    })
}

/// Tries the driver in this process, and prints what came of it.
pub fn probe(libcuda: Option<&Path>, init: bool) -> ExitCode {
    let probe = match library::load(libcuda) {
        Ok(library) => {
            let devices = if init { library.count_devices() } else { Ok(0) };
            devices
                .map(|devices| Probe { nested: library.nested, devices })
                .map_err(|status| format!("cuInit: error {}", status.0))
        }
        Err(error) => Err(error.to_string()),
    };
    match probe {
        Ok(probe) => {
            println!("{}", serde_json::to_string(&probe).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("host-vmm: error: {error}");
            ExitCode::FAILURE
        }
    }
}
