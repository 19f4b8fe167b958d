//! How a machine comes to its end, and how everybody learns of it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, eventfd};

use super::error::{Error, Result};

/// Why a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// ACPI power-off.
    PowerOff,
    /// Reset through the keyboard controller, or ACPI.
    Reset,
    /// A processor shut down (a triple fault, which kernels also use as a reset).
    Shutdown,
    /// A processor halted for good (machines without interrupt controllers only).
    Halted,
    /// The host asked for it.
    Requested,
    /// KVM cannot go on.
    Failed(String),
}

#[derive(Debug)]
struct Inner {
    reason: OnceLock<StopReason>,
    event: OwnedFd,
}

/// Shared by processors, devices and whoever waits. The first reason stays.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

impl Stop {
    /// Nothing has stopped yet.
    ///
    /// # Errors
    /// No eventfd can be made.
    pub fn new() -> Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(Error::os("cannot make an eventfd"))?;
        Ok(Self(Arc::new(Inner { reason: OnceLock::new(), event })))
    }

    /// Ends the machine.
    pub fn request(&self, reason: StopReason) {
        if self.0.reason.set(reason).is_ok() {
            // Fails only if the counter is full, and then it is readable.
            let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        }
    }

    /// Why it ended, if it has.
    pub fn reason(&self) -> Option<StopReason> {
        self.0.reason.get().cloned()
    }

    /// Whether it has ended.
    pub fn is_requested(&self) -> bool {
        self.0.reason.get().is_some()
    }
}

/// Readable from the end on; never read, so that every waiter sees it.
impl AsRawFd for Stop {
    fn as_raw_fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
