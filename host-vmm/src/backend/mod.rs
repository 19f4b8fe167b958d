//! What runs the driver calls.

pub mod callback;
pub mod cpu;
pub mod cuda;

use crate::generated::driver::Driver;
use crate::session::Lane;

/// A backend of a worker: the driver calls, and what happens outside of calls.
pub trait Backend: Driver {
    /// A lane (a thread of the program) has ended.
    fn lane_closed(&self, lane: &Lane);

    /// Has the staged copy behind this token arrived? Asked until it has; on the lane's thread.
    fn finished(&self, _token: u64) -> bool {
        true
    }

    /// Is there output of kernels for the program to fetch?
    fn output_pending(&self) -> bool;
}
