//! The CUDA backend without a GPU: program, shim, daemon with the CUDA backend, and in the place of the driver the shim again (built with its feature
//! `nested-driver`), whose daemon runs the kernels on the CPU.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::workspace;

/// Time for the inner daemon's start.
const START: Duration = Duration::from_secs(20);

/// Samples that cannot run this way, each with the reason.
const NOT_HERE: [(&str, &str); 3] = [
    ("managed", "kernels of the inner daemon do not see the outer window"),
    ("streams_events", "kernels of the inner daemon do not see the outer window"),
    ("registered", "kernels of the inner daemon do not see the outer window"),
];

/// Why a sample cannot run on this leg.
pub fn unable(sample: &str) -> Option<&'static str> {
    NOT_HERE.iter().find(|(name, _)| *name == sample).map(|(_, reason)| *reason)
}

/// The inner daemon, and the library that stands in for the driver.
pub struct Nested {
    driver: PathBuf,
    address: String,
    inner: Child,
    _scratch: TempDir,
}

impl Nested {
    /// Builds the library and starts the daemon behind it.
    ///
    /// # Errors
    /// The build fails, or the daemon does not start.
    pub fn start(host: &Path) -> Result<Self> {
        let target = workspace::target_dir()?.join("nested");
        let status = workspace::cargo()
            .args(["build", "--release", "-p", "libcuda-shim", "--features", "nested-driver", "--target-dir"])
            .arg(&target)
            .status()
            .context("cannot run cargo build")?;
        ensure!(status.success(), "cargo build of the stand-in for the driver failed ({status})");
        let scratch = tempfile::Builder::new().prefix("nested-").tempdir()?;
        let socket = scratch.path().join("socket");
        let address = format!("unix:{}", socket.display());
        let mut inner = Command::new(host)
            .args(["serve", "--backend", "cpu", "--listen", &address])
            // Samples that fault on purpose are none of the tester's concern.
            .env("HOST_VMM_LOG", "off")
            .env_remove("CUDA_SHIM_CONNECT")
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", host.display()))?;
        let begin = Instant::now();
        while !socket.exists() {
            if let Some(status) = inner.try_wait()? {
                bail!("the inner daemon ended ({status})");
            }
            ensure!(begin.elapsed() < START, "the inner daemon does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { driver: target.join("release/libcuda.so"), address, inner, _scratch: scratch })
    }

    /// Adds what makes `host-vmm run` use the stand-in. With a warm worker, so that programs meet a driver that was started before them; on the other legs they do not.
    pub fn apply(&self, command: &mut Command) {
        command.env("CUDA_SHIM_CONNECT", &self.address).arg("--libcuda").arg(&self.driver);
        command.args(["--warm-workers", "1"]);
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        // Its workers end with their programs, which are the outer workers.
        let _ = self.inner.kill();
        let _ = self.inner.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::SAMPLES;

    #[test]
    fn samples_that_are_left_out_exist() {
        for (name, _) in NOT_HERE {
            assert!(SAMPLES.iter().any(|sample| sample.name == name), "{name}");
        }
        assert!(unable("vector_add").is_none());
    }
}
