//! Profiler control: there is no profiler, which is no error, as on a GPU without one attached.

use core::ffi::c_char;

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::thread;
use crate::types::CUoutput_mode;

/// Removed from the driver with CUDA 13; older ones refuse it when a tool is attached, too.
pub fn cuProfilerInitialize(
    _config: *const c_char,
    _output: *const c_char,
    _mode: CUoutput_mode,
) -> CuResult {
    Err(Status::NOT_SUPPORTED)
}

pub fn cuProfilerStart() -> CuResult {
    require_init()?;
    thread::require_context().map(|_| ())
}

pub fn cuProfilerStop() -> CuResult {
    require_init()?;
    thread::require_context().map(|_| ())
}
