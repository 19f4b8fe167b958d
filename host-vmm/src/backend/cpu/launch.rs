//! Kernel launches.
#![allow(unsafe_code)] // Hands compiled code to the engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::status::{CuResult, Status};
use ptx_cpu::abi::FaultKind;
use ptx_cpu::engine::{LaunchConfig, LaunchError};

use super::CpuBackend;
use super::context::Live;
use super::device::{MAX_BLOCK, MAX_GRID};
use super::module::Function;
use super::sched::Work;
use crate::session::{Call, Latch};

/// `flags` bit 0 of the launch operation.
const COOPERATIVE: u32 = 1;

/// A launch as it comes over the wire.
pub struct Launch<'a> {
    pub function: u64,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: u64,
    pub flags: u32,
    pub cluster: [u32; 3],
    pub params: Option<&'a [u8]>,
}

impl CpuBackend {
    /// Checks a launch and queues it. The program's shim has checked it as well; here it is checked again because the shim's word
    /// counts for nothing.
    pub(super) fn launch_kernel(&self, call: &Call<'_>, launch: &Launch<'_>) -> CuResult {
        let target = self.target(call, launch.stream)?;
        let (_, function) = self.function(&target.live, launch.function)?;
        if function.module.live.id != target.live.id {
            return Err(Status::INVALID_CONTEXT);
        }
        self.check_launch(&function, launch)?;
        let params = launch.params.unwrap_or_default();
        let params = params.get(..function.info.params.size as usize).ok_or(Status::INVALID_VALUE)?.to_vec();
        let kernel = Arc::clone(function.compiled()?);

        let counters = &call.session.counters;
        counters.launches.fetch_add(1, Ordering::Relaxed);
        if !function.counted.swap(true, Ordering::Relaxed) {
            counters.kernel(&function.info.name);
        }

        let (grid, block) = (launch.grid, launch.block);
        let (dynamic_shared_len, cooperative) = (launch.shared_bytes, launch.flags & COOPERATIVE != 0);
        let (engine, output, latch) =
            (Arc::clone(&self.engine), Arc::clone(&self.output), Arc::clone(&call.lane.latch));
        let live = Arc::clone(&target.live);
        let work: Work = Box::new(move |skip| {
            if skip {
                return;
            }
            let config = LaunchConfig { grid, block, dynamic_shared_len, params: &params, cooperative };
            // SAFETY: the entry is code that ptx-cpu compiled for its own engine; `kernel` keeps the code and `function` the module's
            // variables for the time of the call.
            let result = unsafe { engine.launch(&kernel, &config, &live.cancel, &*output) };
            match result {
                Ok(stats) if stats.lost_outputs > 0 => {
                    tracing::warn!(kernel = %kernel.name, lost = stats.lost_outputs, "printf output was lost: the buffer was full");
                }
                Ok(_) => {}
                Err(error) => failed(&live, &latch, &error),
            }
            drop(function);
        });
        self.submit(&target, Vec::new(), work).map(drop)
    }

    fn check_launch(&self, function: &Function, launch: &Launch<'_>) -> CuResult {
        let sizes = launch.grid.iter().zip(MAX_GRID).chain(launch.block.iter().zip(MAX_BLOCK));
        if sizes.into_iter().any(|(&size, most)| size == 0 || size > most) {
            return Err(Status::INVALID_VALUE);
        }
        let threads: u32 = launch.block.iter().product();
        if function.info.req_ntid.is_some_and(|required| required != launch.block) {
            return Err(Status::INVALID_VALUE);
        }
        if threads > function.info.max_threads() {
            return Err(Status::INVALID_VALUE);
        }
        if launch.shared_bytes > function.max_dynamic_shared()? {
            return Err(Status::INVALID_VALUE);
        }
        // A cluster of one block is no cluster.
        if launch.cluster.iter().any(|&size| size > 1) {
            return Err(Status::NOT_SUPPORTED);
        }
        let blocks = launch.grid.iter().map(|&size| u64::from(size)).product::<u64>();
        if launch.flags & COOPERATIVE != 0 && blocks > self.engine.cooperative_limit() as u64 {
            return Err(Status::COOPERATIVE_LAUNCH_TOO_LARGE);
        }
        Ok(())
    }
}

/// What a failed launch does to its context and its lane.
fn failed(live: &Live, latch: &Latch, error: &LaunchError) {
    match error {
        LaunchError::Fault(fault) => {
            tracing::warn!("{fault}");
            live.fail(match fault.kind {
                FaultKind::IllegalAddress => Status::ILLEGAL_ADDRESS,
                FaultKind::MisalignedAddress => Status::MISALIGNED_ADDRESS,
                FaultKind::Assert => Status::ASSERT,
                FaultKind::InvalidPc => Status::INVALID_PC,
                // On a GPU such a kernel would hang until a watchdog ends it.
                FaultKind::Deadlock => Status::LAUNCH_TIMEOUT,
                FaultKind::Trap | FaultKind::StackOverflow => Status::LAUNCH_FAILED,
            });
        }
        LaunchError::OutOfResources { .. } => {
            tracing::warn!("{error}");
            latch.set(Status::LAUNCH_OUT_OF_RESOURCES);
        }
        LaunchError::InvalidConfig { .. } => {
            tracing::warn!("{error}");
            latch.set(Status::INVALID_VALUE);
        }
        LaunchError::Cancelled => {}
    }
}
