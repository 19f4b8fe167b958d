//! What runs the driver calls.

pub mod callback;
pub mod cpu;
pub mod cuda;

use crate::generated::driver::Driver;
use crate::session::Lane;

/// Why a worker cannot get ready before its program is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The next one may do better.
    #[error("{0}")]
    Failed(String),
    /// It is not to be tried again.
    #[error("{0}")]
    Unsuitable(String),
}

/// A backend of a worker: the driver calls, and what happens outside of calls.
pub trait Backend: Driver {
    /// Does what can be done before the program is there, and must not show to it. Returns the number of devices. On the worker's main thread, before any lane.
    ///
    /// # Errors
    /// It cannot be done; the worker is of no use.
    fn warm_up(&self) -> Result<u32, NotReady>;

    /// Whether what [`Backend::warm_up`] has done is still good. As cheap as that can be known.
    ///
    /// # Errors
    /// It is not; the worker is of no use.
    fn still_warm(&self) -> Result<(), NotReady> {
        Ok(())
    }

    /// A lane (a thread of the program) has ended.
    fn lane_closed(&self, lane: &Lane);

    /// Has the staged copy behind this token arrived? Asked until it has; on the lane's thread.
    fn finished(&self, _token: u64) -> bool {
        true
    }

    /// Has code been loaded that can print? The program has to synchronise in order to see what it prints.
    fn may_print(&self) -> bool;

    /// Is there output of kernels for the program to fetch?
    fn output_pending(&self) -> bool;
}
