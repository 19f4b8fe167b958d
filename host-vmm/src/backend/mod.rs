//! What runs the driver calls.

pub mod cpu;
pub mod cuda;

use crate::generated::driver::Driver;

/// A backend of a worker: the driver calls, and what happens outside of calls.
pub trait Backend: Driver {
    /// A lane (a thread of the program) has ended.
    fn lane_closed(&self, lane: u64);

    /// Is there output of kernels for the program to fetch?
    fn output_pending(&self) -> bool;
}
