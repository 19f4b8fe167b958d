//! What the tests and the benchmarks on a GPU share: where the built programs are, the two legs, the daemon.
//!
//! The machine with the GPU may have no cargo: with `--prebuilt` everything comes from a folder that `cargo xtask pack` made.

mod daemon;
pub mod pack;
pub mod parallel;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::manifest::Sample;
use crate::nvcc::{self, Variant};
use crate::toolkit::{Choice, Toolkit};
use crate::workspace;

pub use daemon::Daemon;

/// What decides how a program reaches a device, and would change the legs if it came from the caller's environment.
const SETTINGS: [&str; 5] =
    ["CUDA_LAUNCH_BLOCKING", "CUDA_SHIM_CONNECT", "CUDA_SHIM_LOG", "HOST_VMM_LOG", "HOST_VMM_SHIM"];

/// Options that the GPU tasks have in common.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// With --gpu: a folder with host-vmm and libcuda.so.1 (`cargo xtask pack` makes one); nothing is built
    #[arg(long, value_name = "DIR", requires = "gpu")]
    pub prebuilt: Option<PathBuf>,
    /// With --gpu: the Python that has PyTorch, CuPy and the others
    #[arg(long, value_name = "PATH", default_value = "python3", requires = "gpu")]
    pub python: PathBuf,
    /// With --gpu: the most time that all of it may take; what comes later is skipped
    #[arg(long, value_name = "SECONDS", requires = "gpu")]
    pub limit: Option<u64>,
}

/// How a program reaches the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// The machine's own driver.
    Native,
    /// The shim and a daemon.
    Shim,
}

impl Leg {
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Shim => "shim",
        }
    }
}

/// Built programs and how to run them.
pub struct Setup {
    pub host: PathBuf,
    pub shim: PathBuf,
    pub backend: String,
    pub python: PathBuf,
    prebuilt: Option<PathBuf>,
}

impl Setup {
    /// Finds what is built, or builds it, and the programs `samples` with it.
    ///
    /// # Errors
    /// Something is missing in the prebuilt folder; a build fails.
    pub fn new(
        options: &Options,
        backend: &str,
        choice: Choice,
        samples: &[&'static Sample],
    ) -> Result<Self> {
        let (host, prebuilt) = match &options.prebuilt {
            Some(dir) => {
                let dir = dir.canonicalize().with_context(|| format!("--prebuilt {}", dir.display()))?;
                (dir.join("host-vmm"), Some(dir))
            }
            None => {
                let host = workspace::build_host()?;
                nvcc::build(&Toolkit::ensure(choice)?, samples)?;
                (host, None)
            }
        };
        let python = options.python.clone();
        Ok(Self { python, ..Self::at(host, prebuilt, backend)? })
    }

    /// With a host program that is there, the shim beside it, and perhaps a folder of programs that are built.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn at(host: PathBuf, prebuilt: Option<PathBuf>, backend: &str) -> Result<Self> {
        ensure!(host.is_file(), "no {}", host.display());
        let names = ["libcuda.so.1", "libcuda.so"];
        let shim = names.iter().map(|name| host.with_file_name(name)).find(|path| path.is_file());
        let shim = shim.with_context(|| format!("no libcuda.so.1 beside {}", host.display()))?;
        Ok(Self { host, shim, backend: backend.to_owned(), python: "python3".into(), prebuilt })
    }

    /// Where the program of a sample lies: in the prebuilt folder if it is there, else in `samples/build`.
    pub fn program(&self, sample: &Sample, variant: Variant) -> PathBuf {
        let carried =
            self.prebuilt.as_ref().map(|dir| dir.join("samples").join(variant.name()).join(sample.name));
        carried.filter(|path| path.is_file()).unwrap_or_else(|| nvcc::program(sample, variant))
    }

    /// The program of a sample and the files beside it.
    pub fn files(&self, sample: &Sample, variant: Variant) -> Vec<PathBuf> {
        nvcc::files_of(sample, self.program(sample, variant))
    }

    /// The legs that this backend has: only the GPU can also be reached without the shim.
    pub fn legs(&self) -> &'static [Leg] {
        if self.backend == "cpu" { &[Leg::Shim] } else { &[Leg::Native, Leg::Shim] }
    }

    /// `program` with the library that this machine has.
    pub fn native(program: &Path) -> Command {
        let mut command = Command::new(program);
        for name in SETTINGS {
            command.env_remove(name);
        }
        command
    }

    /// `program` on `leg`, with a daemon for the leg that needs one.
    pub fn command(&self, program: &Path, leg: Leg, daemon: &Daemon) -> Command {
        let mut command = Self::native(program);
        if leg == Leg::Shim {
            // For this program alone: the daemon has to find the real library.
            command.env("LD_LIBRARY_PATH", before(&daemon.library_dir(), "LD_LIBRARY_PATH"));
            command.env("CUDA_SHIM_CONNECT", daemon.address());
            // Triton looks here for the library that it links its launchers with.
            command.env("TRITON_LIBCUDA_PATH", daemon.library_dir());
        }
        if self.backend == "cpu" {
            command.env("BENCH_SMALL", "1");
        }
        command
    }
}

/// `first` in front of what the variable holds already.
fn before(first: &Path, variable: &str) -> OsString {
    let mut value = first.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os(variable).filter(|rest| !rest.is_empty()) {
        value.push(":");
        value.push(rest);
    }
    value
}

/// Why the tasks cannot run on this machine; `cpu` needs nothing.
pub fn missing(backend: &str) -> Option<&'static str> {
    (backend != "cpu" && !Path::new("/dev/nvidiactl").exists()).then_some("no GPU")
}

/// The first device, as nvidia-smi describes it.
pub fn describe() -> String {
    let query = ["--query-gpu=name,driver_version", "--format=csv,noheader"];
    let output = Command::new("nvidia-smi").args(query).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown device").trim().to_owned()
}

/// Used device memory of all processes in bytes, by nvidia-smi.
pub fn used_memory() -> Option<u64> {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    let mebibytes: u64 = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().parse().ok()?;
    Some(mebibytes << 20)
}
