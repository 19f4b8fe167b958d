//! One grid in progress.

use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::output::{OutputBuffer, OutputSink, OutputStream};
use super::{CancelToken, KernelFault, LaunchConfig, LaunchError, LaunchStats};
use crate::abi::{Block, Thread};
use crate::fault::Fault;
use crate::helpers::DeviceHeap;
use crate::kernel::Kernel;
use crate::region::Region;

/// What helpers find behind [`Block::engine`].
pub(crate) struct LaunchContext {
    output: OutputBuffer,
    pub(crate) heap: Arc<DeviceHeap>,
    /// The launching thread waits here for the end and for output.
    gate: Mutex<()>,
    changed: Condvar,
}

impl LaunchContext {
    pub(super) fn new(output_len: usize, heap: Arc<DeviceHeap>) -> Self {
        let output = OutputBuffer::new(output_len);
        LaunchContext { output, heap, gate: Mutex::new(()), changed: Condvar::new() }
    }

    pub(crate) fn region(&self) -> &Region {
        self.heap.region()
    }

    /// Prints.
    pub(crate) fn print(&self, stream: OutputStream, bytes: Vec<u8>) {
        if self.output.push(stream, bytes) {
            self.notify();
        }
    }

    fn notify(&self) {
        // Taken so that the waiting thread is either before its check or waiting.
        drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

/// A grid: what to run, how far it is, how it ended.
pub(crate) struct Job {
    pub(crate) kernel: Kernel,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_len: u32,
    pub(crate) cooperative: bool,
    dynamic_shared_len: u32,
    params: u64,
    grid_id: u32,
    total: u64,
    next: AtomicU64,
    holders: AtomicUsize,
    stop: AtomicBool,
    cancel: CancelToken,
    error: Mutex<Option<LaunchError>>,
    finished: AtomicU64,
    suspensions: AtomicU64,
    context: LaunchContext,
}

impl Job {
    pub(super) fn new(
        kernel: &Kernel,
        config: &LaunchConfig<'_>,
        params: u64,
        grid_id: u32,
        cancel: &CancelToken,
        context: LaunchContext,
    ) -> Job {
        Job {
            kernel: kernel.clone(),
            grid: config.grid,
            block: config.block,
            shared_len: kernel.static_shared_len + config.dynamic_shared_len,
            cooperative: config.cooperative,
            dynamic_shared_len: config.dynamic_shared_len,
            params,
            grid_id,
            total: config.grid.iter().map(|&size| u64::from(size)).product(),
            next: AtomicU64::new(0),
            holders: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            cancel: cancel.clone(),
            error: Mutex::new(None),
            finished: AtomicU64::new(0),
            suspensions: AtomicU64::new(0),
            context,
        }
    }

    /// Blocks of the grid.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Threads of a block.
    pub(super) fn block_threads(&self) -> u32 {
        self.block.iter().product()
    }

    fn has_blocks(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.total && !self.stopped()
    }

    /// The next at most `most` blocks.
    pub(super) fn take(&self, most: u64) -> Option<Range<u64>> {
        if !self.has_blocks() {
            return None;
        }
        let first = self.next.fetch_add(most, Ordering::Relaxed);
        (first < self.total).then(|| first..(first + most).min(self.total))
    }

    /// Blocks not handed out yet.
    pub(super) fn left(&self) -> u64 {
        self.total.saturating_sub(self.next.load(Ordering::Relaxed))
    }

    /// Whether to stop: a fault somewhere in the grid, or the token.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancel.is_cancelled()
    }

    pub(super) fn count(&self, blocks: u64, suspensions: u64) {
        self.finished.fetch_add(blocks, Ordering::Relaxed);
        if suspensions != 0 {
            self.suspensions.fetch_add(suspensions, Ordering::Relaxed);
        }
    }

    /// The block state of a block, but for `shared_base`.
    pub(super) fn block_state(&self, shared_base: u64) -> Block {
        Block {
            ctaid: [0; 3],
            nctaid: self.grid,
            ntid: self.block,
            shared_len: self.shared_len,
            dynamic_shared_len: self.dynamic_shared_len,
            grid_id: self.grid_id,
            shared_base,
            params: self.params,
            grid_workspace: if self.cooperative { self.params + super::MAX_PARAMS_LEN as u64 } else { 0 },
            engine: (&raw const self.context).cast(),
        }
    }

    /// `%ctaid` of a block.
    pub(super) fn block_position(&self, index: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32]
    }

    /// Ends the grid with an error; the first one counts.
    pub(super) fn fail(&self, error: LaunchError) {
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        drop(first);
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn fail_resources(&self, reason: String) {
        self.fail(LaunchError::OutOfResources { kernel: self.kernel.name.clone(), reason });
    }

    pub(super) fn fail_fault(&self, fault: Fault, block: &Block, thread: &Thread, detail: String) {
        if fault.outside_region {
            tracing::error!(
                kernel = %self.kernel.name, address = fault.address, pc = fault.pc,
                "internal error: generated code made an access outside the region"
            );
        }
        self.fail(LaunchError::Fault(KernelFault {
            kind: fault.kind,
            address: fault.address,
            kernel: self.kernel.name.clone(),
            block: block.ctaid,
            thread: thread.tid,
            detail,
        }));
    }

    pub(super) fn drain_output(&self, sink: &dyn OutputSink) {
        if !self.context.output.is_empty() {
            self.context.output.drain(sink);
        }
    }

    /// Waits until nobody runs blocks of this grid any more. Nobody may be able to gain a hold.
    pub(super) fn wait(&self, output: &dyn OutputSink) {
        let ended = || self.holders.load(Ordering::Acquire) == 0;
        for _ in 0..200 {
            if ended() {
                break;
            }
            std::hint::spin_loop();
        }
        loop {
            self.drain_output(output);
            let gate = self.context.gate.lock().unwrap_or_else(PoisonError::into_inner);
            if ended() {
                break;
            }
            if self.context.output.is_empty() {
                drop(self.context.changed.wait(gate).unwrap_or_else(PoisonError::into_inner));
            }
        }
        self.drain_output(output);
    }

    /// The result, after [`wait`](Self::wait).
    pub(super) fn result(&self, elapsed: Duration) -> Result<LaunchStats, LaunchError> {
        if let Some(error) = self.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let blocks = self.finished.load(Ordering::Relaxed);
        if blocks != self.total {
            return Err(LaunchError::Cancelled);
        }
        Ok(LaunchStats {
            blocks,
            threads: blocks * u64::from(self.block_threads()),
            suspensions: self.suspensions.load(Ordering::Relaxed),
            elapsed,
            lost_outputs: self.context.output.dropped(),
        })
    }
}

/// Keeps a launch from returning: whoever runs blocks of a grid has one.
pub(crate) struct Hold(Arc<Job>);

impl Hold {
    /// None if the grid has no blocks left to take. Only for jobs in the queue (under its lock), for the launching thread, and for
    /// those who have a hold already: see [`Job::wait`].
    pub(super) fn new(job: &Arc<Job>) -> Option<Hold> {
        if !job.has_blocks() {
            return None;
        }
        job.holders.fetch_add(1, Ordering::Relaxed);
        Some(Hold(job.clone()))
    }

    /// Another one for the same job.
    pub(super) fn again(&self) -> Option<Hold> {
        Hold::new(&self.0)
    }
}

impl Deref for Hold {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.holders.fetch_sub(1, Ordering::Release) == 1 {
            self.0.context.notify();
        }
    }
}
