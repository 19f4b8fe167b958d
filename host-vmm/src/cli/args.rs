//! Arguments of the commands.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use transport::Address;

use super::guest_args::{BOOT_EXAMPLES, BootArgs, QEMU_EXAMPLES, QemuArgs};
use super::size;
use crate::config::{self, ComputeCapability, Config, Limits};
use crate::daemon::access::Allowed;
use crate::daemon::guest_spec::GuestSpec;

const RUN_EXAMPLES: &str = "\
Examples:
  host-vmm run ./vector_add
  host-vmm run --stats python3 train.py --epochs 1
  host-vmm run --backend cpu --memory 8G --compute-capability 8.6 ./app
  host-vmm run --preload ./app-with-rpath

Exit code: the program's, or 128 + N if signal N ended it; 125 if host-vmm failed, 126 if the program
is not executable, 127 if it was not found; 2 for wrong arguments.";

const SERVE_EXAMPLES: &str = "\
Examples:
  host-vmm serve --listen unix:/run/user/1000/cuda.sock
  CUDA_SHIM_CONNECT=unix:/run/user/1000/cuda.sock LD_LIBRARY_PATH=/path/to/shim ./vector_add
  host-vmm serve --listen unix:/run/host-vmm.sock --listen vsock:17237 --allow-cid 3:sessions=4,memory=8G
  host-vmm serve --guest vhost-user=/run/vm/vhost.sock,cid=3
  host-vmm serve --listen vsock:17237 --guest cid=3,memory=/dev/shm/vm3,size=4G
  host-vmm serve --listen unix-stream:/run/vm/vm.vsock_17237    (with vhost-device-vsock's uds-path=/run/vm/vm.vsock)

SIGINT and SIGTERM end the daemon and all its workers.";

/// Runs unmodified CUDA programs: serves the driver calls of programs that use the libcuda.so.1 shim.
#[derive(Debug, Parser)]
#[command(name = "host-vmm", version, max_term_width = 110)]
pub struct Cli {
    /// Log filter, e.g. warn, info or host_vmm=debug
    #[arg(long, global = true, env = crate::logging::LOG_ENV, value_name = "FILTER")]
    pub log: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves programs that connect to a socket
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Runs a program with the shim in front of it and a private daemon
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Runs a program in a fresh virtual machine
    #[command(after_help = BOOT_EXAMPLES)]
    Boot(BootArgs),
    /// Prints how to run a program in a virtual machine of QEMU or libvirt
    #[command(after_help = QEMU_EXAMPLES)]
    QemuArgs(QemuArgs),
    /// Serves one program (started by the daemon; its socket is standard input)
    #[command(hide = true)]
    Worker,
    /// Tries the driver (started by the other commands: its library must not be loaded in their process)
    #[command(hide = true)]
    Probe {
        /// As for the other commands
        #[arg(long)]
        libcuda: Option<PathBuf>,
        /// Also initialise it and count the devices
        #[arg(long)]
        init: bool,
    },
    /// Prints a completion script for a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Prints the manual page (roff)
    Man,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The GPU if there is one with a driver, else the CPU
    Auto,
    /// The GPU, through the NVIDIA driver
    Cuda,
    /// The CPU: kernels are compiled from their PTX
    Cpu,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen (may be given several times): unix:PATH for programs of this machine, vsock:PORT for virtual machines,
    /// unix-stream:PATH for one machine's port behind a vhost-user-vsock device
    #[arg(long, value_name = "ADDRESS", required_unless_present = "guest")]
    pub listen: Vec<Address>,
    /// Serves the virtual machine with this context id, or any (may be given several times). LIMITS is a list of
    /// sessions=N, lanes=N, handles=N, memory=SIZE, window=SIZE, image=SIZE, images=SIZE
    #[arg(long, value_name = "CID|any[:LIMITS]")]
    pub allow_cid: Vec<Allowed>,
    /// A virtual machine whose memory can be shared (may be given several times). vhost-user=SOCKET,cid=CID: a QEMU machine with a vhost-user-vsock device
    /// at this socket. cid=CID,memory=FILE: one of the kernel's vsock, with its memory in the file of a QEMU memory backend; size=SIZE makes the
    /// file, layout=q35|pc. sockets=PREFIX,memory=FILE: one behind vhost-device-vsock, all of whose programs are trusted not to pose as its memory broker
    #[arg(long, value_name = "vhost-user=SOCKET,cid=CID | cid=CID,memory=FILE[,...]")]
    pub guest: Vec<GuestSpec>,
    /// What runs the kernels
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
    /// The NVIDIA driver's library [default: the system's libcuda.so.1]
    #[arg(long, value_name = "PATH")]
    pub libcuda: Option<PathBuf>,
    /// Print calls, bytes and times per driver call of all programs at the end (on standard error)
    #[arg(long)]
    pub stats: bool,
    /// Workers that wait for programs with the driver started and the first device's context made, so that a program starts faster.
    /// Each takes a context's device memory (some 500 MB on a GPU). 0: none
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub warm_workers: u32,
    #[command(flatten)]
    pub limits: LimitArgs,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// What runs the kernels
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
    /// The NVIDIA driver's library [default: the system's libcuda.so.1]
    #[arg(long, value_name = "PATH")]
    pub libcuda: Option<PathBuf>,
    /// The shim library (default: libcuda.so next to this program or in ../lib)
    #[arg(long, value_name = "PATH", env = "HOST_VMM_SHIM")]
    pub shim: Option<PathBuf>,
    /// Share no memory with the program: everything goes through a socket, as from a virtual machine over plain vsock
    #[arg(long)]
    pub stream: bool,
    /// Workers that get ready beside the program's own start, before its first driver call. 0: none. None takes the place of one
    /// that is used
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub warm_workers: u32,
    /// Put the shim in front with LD_PRELOAD instead of LD_LIBRARY_PATH
    #[arg(long)]
    pub preload: bool,
    #[command(flatten)]
    pub report: ReportArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM ARGS")]
    pub program: Vec<OsString>,
}

/// What is said about a program that has ended.
#[derive(Clone, Copy, Debug, Args)]
pub struct ReportArgs {
    /// Print calls, bytes and times per driver call afterwards (on standard error)
    #[arg(long)]
    pub stats: bool,
    /// Print the closing line and --stats as JSON (on standard error)
    #[arg(long)]
    pub json: bool,
    /// No closing line
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Device and limits")]
pub struct LimitArgs {
    /// Device memory of a program [default: half of the machine's memory; on a GPU all of its memory]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub memory: Option<u64>,
    /// Pinned and managed memory of a program [default: half of the machine's memory]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub window: Option<u64>,
    /// Number of devices of the CPU backend
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub devices: u32,
    /// Compute capability of the CPU backend's devices
    #[arg(long, value_name = "X.Y", default_value_t = ComputeCapability::DEFAULT)]
    pub compute_capability: ComputeCapability,
    /// Programs at the same time
    #[arg(long, value_name = "N", default_value_t = Limits::default().sessions)]
    pub max_sessions: u32,
    /// Threads of a program that use the driver
    #[arg(long, value_name = "N", default_value_t = Limits::default().lanes)]
    pub max_lanes: u32,
    /// Time for the handshake of a connection, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = Limits::default().handshake_ms)]
    pub handshake_timeout: u64,
    /// Handles (streams, events, modules ...) of a program
    #[arg(long, value_name = "N", default_value_t = Limits::default().handles)]
    pub max_handles: u32,
    /// Size of one device image (PTX)
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "1G")]
    pub max_image: u64,
}

impl Default for LimitArgs {
    /// As without any of the options.
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            memory: None,
            window: None,
            devices: 1,
            compute_capability: ComputeCapability::DEFAULT,
            max_sessions: limits.sessions,
            max_lanes: limits.lanes,
            handshake_timeout: limits.handshake_ms,
            max_handles: limits.handles,
            max_image: limits.image_bytes,
        }
    }
}

impl LimitArgs {
    /// The configuration of daemon and workers.
    ///
    /// # Errors
    /// The machine's memory size cannot be read and no sizes are given.
    pub fn to_config(&self, backend: config::Backend, log: Option<String>) -> anyhow::Result<Config> {
        let mut limits = Limits {
            sessions: self.max_sessions,
            lanes: self.max_lanes,
            handles: self.max_handles,
            handshake_ms: self.handshake_timeout,
            image_bytes: self.max_image,
            ..Limits::default()
        };
        // A GPU has a limit of its own.
        let default = if backend == config::Backend::Cpu { limits.memory_bytes } else { config::MAX_HALF };
        limits.memory_bytes = self.memory.unwrap_or(default);
        limits.window_bytes = self.window.unwrap_or(limits.window_bytes);
        limits.check()?;
        Ok(Config {
            backend,
            limits,
            devices: self.devices,
            compute_capability: self.compute_capability,
            timing: false,
            log,
        })
    }
}
