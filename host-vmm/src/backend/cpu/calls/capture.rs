//! Stream capture and graphs: there are none yet. A capture cannot be begun, so that no other call about captures comes here.
#![allow(non_snake_case)] // The driver's names.

use protocol::status::CuResult;

use crate::backend::cpu::CpuBackend;
use crate::generated::driver::{CaptureCalls, GraphCalls, GraphNodeCalls, UserObjectCalls};
use crate::session::Call;

impl CaptureCalls for CpuBackend {
    /// Says what other threads' captures forbid to this one: nothing.
    fn lane_capture_mode(&self, _: &mut Call<'_>, _: u32) -> CuResult {
        Ok(())
    }
}

impl GraphCalls for CpuBackend {}
impl GraphNodeCalls for CpuBackend {}
impl UserObjectCalls for CpuBackend {}
