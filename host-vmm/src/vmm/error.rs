//! What can go wrong while a machine is put together or runs.

use std::path::PathBuf;

/// Errors of the virtual machine monitor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/dev/kvm` cannot be opened.
    #[error("cannot open /dev/kvm: {0}; is the kvm module loaded, and may this user open it?")]
    NoKvm(#[source] std::io::Error),
    /// A request to KVM failed.
    #[error("KVM: {what}: {source}")]
    Kvm { what: &'static str, source: std::io::Error },
    /// A system call failed.
    #[error("{what}: {source}")]
    Os { what: &'static str, source: std::io::Error },
    /// Guest memory cannot be laid out or mapped.
    #[error("guest memory: {0}")]
    Memory(String),
    /// Something that the host writes at the start does not fit into the guest's memory.
    #[error("{what} does not fit into the guest's memory; give it more (--memory)")]
    DoesNotFit { what: &'static str },
    /// The kernel file cannot be used.
    #[error("kernel {path}: {reason}", path = .path.display())]
    Kernel { path: PathBuf, reason: String },
    /// A file that the machine needs cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// A device cannot be set up.
    #[error("{device}: {reason}")]
    Device { device: &'static str, reason: String },
    /// The number of processors is not supported.
    #[error("{0} processors; 1 to {max} are supported", max = super::layout::MAX_CPUS)]
    Cpus(u32),
    /// The machine ended in a way that is not the guest's will.
    #[error("the machine failed: {0}")]
    Machine(String),
}

/// Result of this part.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` of kvm-ioctls.
    pub(crate) fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm { what, source: std::io::Error::from_raw_os_error(error.errno()) }
    }

    /// For `map_err` of system calls.
    pub(crate) fn os<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Os { what, source: error.into() }
    }
}
