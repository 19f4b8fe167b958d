//! `host-vmm serve` for the time of a task.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Setup;
use crate::process::tail;

/// Time for the start, which includes that of the driver.
const START: Duration = Duration::from_secs(30);
/// Time for an orderly end.
const STOP: Duration = Duration::from_secs(5);

/// A running daemon, with a folder that has the shim under the names that programs look for.
pub struct Daemon {
    child: Child,
    address: String,
    scratch: TempDir,
}

impl Daemon {
    /// Starts one and waits until it listens. `options` are further arguments.
    ///
    /// # Errors
    /// It ends at once or does not listen in time.
    pub fn start(setup: &Setup, options: &[&str]) -> Result<Self> {
        let scratch =
            tempfile::Builder::new().prefix("gpu-").tempdir().context("cannot make a temporary directory")?;
        let library_dir = scratch.path().join("lib");
        fs::create_dir(&library_dir)?;
        for name in ["libcuda.so.1", "libcuda.so"] {
            symlink(&setup.shim, library_dir.join(name))?;
        }
        let socket = scratch.path().join("socket");
        let address = format!("unix:{}", socket.display());
        let log = File::create(scratch.path().join("log"))?;
        let child = Command::new(&setup.host)
            .args(["serve", "--backend", &setup.backend, "--listen", &address])
            .args(options)
            .env_remove("CUDA_SHIM_CONNECT")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", setup.host.display()))?;
        let mut daemon = Self { child, address, scratch };
        let begin = Instant::now();
        while !socket.exists() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("the daemon ended ({status}):\n{}", daemon.log());
            }
            if begin.elapsed() > START {
                bail!("the daemon does not listen:\n{}", daemon.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }

    /// For `CUDA_SHIM_CONNECT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// For `LD_LIBRARY_PATH`.
    pub fn library_dir(&self) -> PathBuf {
        self.scratch.path().join("lib")
    }

    /// A folder for files of the task; it goes with the daemon.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The end of what the daemon and its workers said.
    pub fn log(&self) -> String {
        tail(&String::from_utf8_lossy(&self.whole_log()), 30, "  ")
    }

    /// All that they said.
    pub fn whole_log(&self) -> Vec<u8> {
        fs::read(self.scratch.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let begin = Instant::now();
        while begin.elapsed() < STOP {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
