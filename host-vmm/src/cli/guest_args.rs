//! Arguments of `boot` and `qemu-args`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::{Backend, LimitArgs, ReportArgs};
use super::size;
use crate::config::ComputeCapability;

/// Examples of `boot`.
pub const BOOT_EXAMPLES: &str = "\
Examples:
  host-vmm boot --kernel /boot/vmlinuz-6.1.0-50-cloud-amd64 --module cuda_broker.ko --root rootfs -- /usr/bin/vector_add
  host-vmm boot --kernel vmlinux --modules lib/modules/6.1.0-50-cloud-amd64 --root disk.img --cpus 2 --memory 4G -- ./app

The machine has a fresh kernel, the files of --root, and nothing else; it is gone when the program ends. A directory is packed into
memory (changes are lost); an image is used as it is (changes stay, unless --read-only).

CUDA programs (with --shim) are served over vsock. They share memory with the host if the machine has the module cuda_broker (guest-kmod): installed among
--modules, or given with --module FILE.

Exit code: the program's, or 128 + N if signal N ended it; 125 if host-vmm or the machine failed, 126 if the program is not
executable, 127 if it was not found; 2 for wrong arguments.";

/// Examples of `qemu-args`.
pub const QEMU_EXAMPLES: &str = "\
Examples:
  host-vmm qemu-args --kernel vmlinuz --root rootfs --write-initrd guest.initrd --cid 7 -- /usr/bin/vector_add
  host-vmm qemu-args --libvirt --kernel vmlinuz --root disk.img --write-initrd guest.initrd --cid 7 -- ./app

Nothing is started. The program's output and, as the last line, its exit code appear on the serial console.";

/// The guest, whoever runs it.
#[derive(Clone, Debug, Args)]
pub struct GuestArgs {
    /// Kernel: bzImage (vmlinuz) or vmlinux
    #[arg(long, value_name = "FILE")]
    pub kernel: PathBuf,
    /// Initramfs that is unpacked before host-vmm's own
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The program's files: a directory, or a raw disk image with a file system
    #[arg(long, value_name = "DIR|IMAGE")]
    pub root: PathBuf,
    /// Do not write to the image
    #[arg(long)]
    pub read_only: bool,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=254))]
    pub cpus: u32,
    /// Memory of the machine
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size::parse)]
    pub memory: u64,
    /// The kernel's modules [default: /lib/modules/VERSION if the kernel file says its version]
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
    /// Load this module, too: a name, or the path of a file that is not the kernel's own (can be repeated)
    #[arg(long, value_name = "NAME|PATH")]
    pub module: Vec<String>,
    /// The shim library; the guest has it in /run/host-vmm, on LD_LIBRARY_PATH
    #[arg(long, value_name = "PATH", env = "HOST_VMM_SHIM")]
    pub shim: Option<PathBuf>,
    /// Environment variable of the program (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<OsString>,
    /// Directory in the guest to start in
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub directory: PathBuf,
    /// Added to the kernel's command line
    #[arg(long, value_name = "PARAMETERS")]
    pub append: Option<String>,
    /// Context id of the guest's vsock [default: a free one]
    #[arg(long, value_name = "CID", value_parser = clap::value_parser!(u32).range(3..))]
    pub cid: Option<u32>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM ARGS")]
    pub program: Vec<OsString>,
}

/// How the program's output comes to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Channel {
    /// vsock if /dev/vhost-vsock is there, else the serial port
    Auto,
    /// vsock
    Vsock,
    /// The second serial port; the program gets no input
    Serial,
}

/// Arguments of `boot`.
#[derive(Clone, Debug, Args)]
pub struct BootArgs {
    #[command(flatten)]
    pub guest: GuestArgs,
    /// How the program's output comes to the host
    #[arg(long, value_enum, default_value_t = Channel::Auto)]
    pub channel: Channel,
    /// Write the kernel's messages to this file, or to standard error (-)
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,
    /// What runs the kernels of CUDA programs
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
    /// The NVIDIA driver's library [default: the system's libcuda.so.1]
    #[arg(long, value_name = "PATH")]
    pub libcuda: Option<PathBuf>,
    /// Device memory of a program [default: half of this machine's memory; on a GPU all of its memory]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub device_memory: Option<u64>,
    /// Compute capability of the CPU backend's device
    #[arg(long, value_name = "X.Y", default_value_t = ComputeCapability::DEFAULT)]
    pub compute_capability: ComputeCapability,
    #[command(flatten)]
    pub report: ReportArgs,
}

impl BootArgs {
    /// Limits of the machine's programs.
    pub fn limits(&self) -> LimitArgs {
        LimitArgs {
            memory: self.device_memory,
            compute_capability: self.compute_capability,
            ..LimitArgs::default()
        }
    }
}

/// Arguments of `qemu-args`.
#[derive(Clone, Debug, Args)]
pub struct QemuArgs {
    #[command(flatten)]
    pub guest: GuestArgs,
    /// Where to write the initramfs that the command line refers to
    #[arg(long, value_name = "FILE")]
    pub write_initrd: PathBuf,
    /// Keep guest memory in this file, which the daemon can map, instead of a memfd
    #[arg(long, value_name = "FILE")]
    pub memory_file: Option<PathBuf>,
    /// Print libvirt's XML instead of a command line
    #[arg(long)]
    pub libvirt: bool,
    /// The guest's vsock is the device at this socket of a daemon: host-vmm serve --guest vhost-user=SOCKET,cid=CID
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["no_vsock", "libvirt"])]
    pub vhost_user: Option<PathBuf>,
    /// Without KVM: interpret the guest's code (slow)
    #[arg(long)]
    pub tcg: bool,
    /// No vsock device
    #[arg(long)]
    pub no_vsock: bool,
}
