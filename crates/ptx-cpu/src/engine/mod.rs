//! Runs grids of blocks on all cores.
//!
//! [`Engine::launch`] blocks its caller until the grid has ended. The caller takes blocks itself, together with the engine's threads, so a
//! grid of one block wakes nobody and a grid never waits for another that keeps all threads of the engine busy. Blocks are handed
//! out in linear order (decoupled look-back relies on it), from the oldest grid that has blocks left.
//!
//! * `job`: one grid in progress; * `worker`: takes blocks and runs them; * `slot`: a block whose threads can suspend;
//! * `barrier`, `warp`: what suspended threads wait for; * `output`: what kernels print.
//!
//! Locks: the queue of grids, a job's error, its output pieces, the device heap. None is taken while another is held, and none is held
//! while generated code runs.
#![allow(unsafe_code)] // Calls generated code through pointers; hands pointers to it.

mod barrier;
mod job;
mod output;
mod slot;
mod warp;
mod worker;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::abi::FaultKind;
use crate::fault::KernelContext;
use crate::helpers::DeviceHeap;
use crate::kernel::Kernel;
use crate::region::{Arena, Region, RegionError};
pub(crate) use job::LaunchContext;
use job::{Hold, Job};
pub use output::{OutputSink, OutputStream};
use worker::{Helpers, Worker};

/// Most threads of a block.
pub const MAX_BLOCK_THREADS: u32 = 1024;
/// Most bytes of kernel parameters.
pub const MAX_PARAMS_LEN: usize = 64 << 10;
/// Bytes behind the parameters for the workspace of a cooperative grid.
const GRID_WORKSPACE_LEN: usize = 64;

/// Settings of an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Threads that run blocks, the launching one included; 0: as many as there are cores.
    pub threads: usize,
    /// Bytes of stack for generated code (calls and recursion in kernels), per thread.
    pub stack_len: usize,
    /// Most shared memory of a block in bytes, static and dynamic.
    pub max_shared_len: u32,
    /// Most local memory of a block (all its threads) in bytes.
    pub max_block_local_len: u64,
    /// Most suspended blocks that one thread keeps at a time; also the limit of a cooperative grid.
    pub max_resident_blocks: usize,
    /// Bytes of the heap for `malloc` in kernels, unless [`Engine::set_heap_limit`] changes it.
    pub heap_len: u64,
    /// Bytes of `printf` output kept per launch until the launching thread takes it; older output is lost.
    pub output_len: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            threads: 0,
            stack_len: 4 << 20,
            max_shared_len: 256 << 10,
            max_block_local_len: 4 << 30,
            max_resident_blocks: 256,
            heap_len: 8 << 20,
            output_len: 1 << 20,
        }
    }
}

/// What to launch.
#[derive(Clone, Copy, Debug)]
pub struct LaunchConfig<'a> {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared_len: u32,
    /// The parameter buffer, laid out as the kernel expects.
    pub params: &'a [u8],
    /// All blocks must be able to wait for each other (`cuLaunchCooperativeKernel`).
    pub cooperative: bool,
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaunchStats {
    /// Blocks run.
    pub blocks: u64,
    /// Threads run.
    pub threads: u64,
    /// How often threads suspended.
    pub suspensions: u64,
    /// From the call to the end of the last block.
    pub elapsed: Duration,
    /// `printf`s that were lost because the buffer was full.
    pub lost_outputs: u64,
}

/// Asks a launch to end: checked between blocks and where threads suspend. A kernel that does neither is not stopped.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels every launch that was given this token or a clone, also later ones.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why and where a kernel was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFault {
    /// What happened.
    pub kind: FaultKind,
    /// Address of the access; 0 where there is none.
    pub address: u64,
    /// Name of the kernel.
    pub kernel: Arc<str>,
    /// `%ctaid` of the faulting block.
    pub block: [u32; 3],
    /// `%tid` of the faulting thread.
    pub thread: [u32; 3],
    /// More, where there is more to say.
    pub detail: String,
}

impl fmt::Display for KernelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::IllegalAddress => "illegal address",
            FaultKind::MisalignedAddress => "misaligned address",
            FaultKind::Trap => "trap",
            FaultKind::Assert => "assertion failed",
            FaultKind::InvalidPc => "call of an address that is no function",
            FaultKind::StackOverflow => "stack overflow",
            FaultKind::Deadlock => "deadlock",
        };
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        write!(f, "kernel `{}`: {what}", self.kernel)?;
        if matches!(
            self.kind,
            FaultKind::IllegalAddress | FaultKind::MisalignedAddress | FaultKind::InvalidPc
        ) {
            write!(f, " {:#x}", self.address)?;
        }
        write!(f, " in block ({bx},{by},{bz}) thread ({tx},{ty},{tz})")?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for KernelFault {}

/// Why a launch did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The kernel was stopped.
    #[error(transparent)]
    Fault(#[from] KernelFault),
    /// The configuration is not possible.
    #[error("kernel `{kernel}`: invalid launch: {reason}")]
    InvalidConfig {
        /// Name of the kernel.
        kernel: Arc<str>,
        /// What is wrong.
        reason: String,
    },
    /// Not enough memory for shared memory, local memory or frames.
    #[error("kernel `{kernel}`: out of resources: {reason}")]
    OutOfResources {
        /// Name of the kernel.
        kernel: Arc<str>,
        /// What could not be had.
        reason: String,
    },
    /// The token was cancelled.
    #[error("the launch was cancelled")]
    Cancelled,
}

/// Errors of [`Engine::new`] and [`Engine::set_heap_limit`].
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Starting a thread or mapping its stack failed.
    #[error("starting the engine: {0}")]
    Io(#[from] std::io::Error),
    /// The heap is in use and can no longer be resized.
    #[error("the device heap is in use already")]
    HeapInUse,
    /// The heap does not fit.
    #[error(transparent)]
    Region(#[from] RegionError),
}

struct Queue {
    jobs: VecDeque<Arc<Job>>,
    idle: usize,
    shutdown: bool,
}

/// What engine threads and launching threads share.
struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
    region: Arc<Region>,
    config: EngineConfig,
}

/// Runs kernels. Any number of threads may launch at the same time.
pub struct Engine {
    pool: Arc<Pool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    heap: Arc<DeviceHeap>,
    grid_ids: AtomicU32,
    /// Stacks and arenas of launching threads, and parameter buffers, for reuse.
    idle_workers: Mutex<Vec<(KernelContext, Worker)>>,
    idle_params: Mutex<Vec<Arena>>,
}

impl Engine {
    /// Starts the threads. [`fault::install`](crate::fault::install) must have been called, or faults of kernels end the process.
    pub fn new(region: Arc<Region>, config: EngineConfig) -> Result<Engine, EngineError> {
        let heap = Arc::new(DeviceHeap::new(region.clone(), config.heap_len));
        let count = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let pool = Arc::new(Pool {
            queue: Mutex::new(Queue { jobs: VecDeque::new(), idle: 0, shutdown: false }),
            work: Condvar::new(),
            region,
            config,
        });
        let mut engine = Engine {
            pool: pool.clone(),
            threads: Vec::new(),
            heap,
            grid_ids: AtomicU32::new(0),
            idle_workers: Mutex::new(Vec::new()),
            idle_params: Mutex::new(Vec::new()),
        };
        // The launching thread is one of them.
        for index in 1..count {
            let context = KernelContext::new(pool.config.stack_len, pool.region.tag())?;
            let pool = pool.clone();
            let thread = std::thread::Builder::new()
                .name(format!("engine-{index}"))
                .spawn(move || engine_thread(&pool, context))?;
            engine.threads.push(thread);
        }
        Ok(engine)
    }

    /// Threads that run blocks, the launching one included.
    pub fn thread_count(&self) -> usize {
        self.threads.len() + 1
    }

    /// Most blocks of a cooperative grid.
    pub fn cooperative_limit(&self) -> usize {
        self.pool.config.max_resident_blocks
    }

    /// Size of the heap for `malloc` in kernels (`cuCtxSetLimit`); only before its first use.
    pub fn set_heap_limit(&self, len: u64) -> Result<(), EngineError> {
        if self.heap.set_limit(len) { Ok(()) } else { Err(EngineError::HeapInUse) }
    }

    /// Runs a grid and returns when it has ended. Output goes to `output` on this thread, at the latest before the return.
    ///
    /// # Errors
    /// See [`LaunchError`]; after a fault, blocks that had not begun were not run, and others may have been left in the middle.
    ///
    /// # Safety
    /// `kernel.entry` must keep to the contract of [`abi`](crate::abi) and stay mapped for the time of the call.
    pub unsafe fn launch(
        &self,
        kernel: &Kernel,
        config: &LaunchConfig<'_>,
        cancel: &CancelToken,
        output: &dyn OutputSink,
    ) -> Result<LaunchStats, LaunchError> {
        let begin = Instant::now();
        self.check(kernel, config)?;
        let params = self.parameter_buffer(kernel, config.params)?;
        let grid_id = self.grid_ids.fetch_add(1, Ordering::Relaxed);
        let context = LaunchContext::new(self.pool.config.output_len, self.heap.clone());
        let job = Arc::new(Job::new(kernel, config, params.base(), grid_id, cancel, context));
        let enqueued = job.total() > 1 && !self.threads.is_empty();
        if enqueued {
            let helpers = (job.total() - 1).min(self.threads.len() as u64) as usize;
            let mut queue = self.pool.lock();
            queue.jobs.push_back(job.clone());
            let wake = helpers.min(queue.idle);
            drop(queue);
            (0..wake).for_each(|_| self.pool.work.notify_one());
        }
        self.take_part(&job, output);
        if enqueued {
            // From here on nobody gains a hold on the job who has none.
            self.pool.lock().jobs.retain(|other| !Arc::ptr_eq(other, &job));
        }
        job.wait(output);
        let mut idle = self.idle_params.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(params);
        drop(idle);
        job.result(begin.elapsed())
    }

    fn check(&self, kernel: &Kernel, config: &LaunchConfig<'_>) -> Result<(), LaunchError> {
        let invalid = |reason: String| LaunchError::InvalidConfig { kernel: kernel.name.clone(), reason };
        let LaunchConfig { grid, block, .. } = *config;
        let product =
            |sizes: [u32; 3]| sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size.into()));
        match product(block) {
            None | Some(0) => return Err(invalid(format!("block of {block:?} threads"))),
            Some(threads) if threads > MAX_BLOCK_THREADS.into() => {
                return Err(invalid(format!("{threads} threads per block, limit {MAX_BLOCK_THREADS}")));
            }
            Some(_) => {}
        }
        // Half the range of the counter, so that it cannot wrap by threads that look for blocks after the last.
        let blocks = product(grid).filter(|&blocks| blocks != 0 && blocks < 1 << 63);
        let Some(blocks) = blocks else { return Err(invalid(format!("grid of {grid:?} blocks"))) };
        if config.cooperative && blocks > self.cooperative_limit() as u64 {
            let limit = self.cooperative_limit();
            return Err(invalid(format!("cooperative grid of {blocks} blocks, limit {limit}")));
        }
        let shared = u64::from(kernel.static_shared_len) + u64::from(config.dynamic_shared_len);
        if shared > self.pool.config.max_shared_len.into() {
            let limit = self.pool.config.max_shared_len;
            return Err(invalid(format!("{shared} bytes of shared memory, limit {limit}")));
        }
        if config.params.len() > MAX_PARAMS_LEN {
            return Err(invalid(format!(
                "{} bytes of parameters, limit {MAX_PARAMS_LEN}",
                config.params.len()
            )));
        }
        Ok(())
    }

    fn parameter_buffer(&self, kernel: &Kernel, params: &[u8]) -> Result<Arena, LaunchError> {
        let idle = self.idle_params.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let arena = match idle {
            Some(arena) => arena,
            None => {
                self.pool.region.arena((MAX_PARAMS_LEN + GRID_WORKSPACE_LEN) as u64).map_err(|error| {
                    LaunchError::OutOfResources { kernel: kernel.name.clone(), reason: error.to_string() }
                })?
            }
        };
        // SAFETY: the arena is mapped, long enough (checked by `check`), and nobody else's until it is given back.
        unsafe {
            std::ptr::copy_nonoverlapping(params.as_ptr(), arena.base() as *mut u8, params.len());
            std::ptr::write_bytes((arena.base() as *mut u8).add(MAX_PARAMS_LEN), 0, GRID_WORKSPACE_LEN);
        }
        Ok(arena)
    }

    /// Runs blocks of the job on this thread until none is left to take.
    fn take_part(&self, job: &Arc<Job>, output: &dyn OutputSink) {
        let Some(hold) = Hold::new(job) else { return };
        let idle = self.idle_workers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (mut context, mut worker) = match idle {
            Some(both) => both,
            None => match KernelContext::new(self.pool.config.stack_len, self.pool.region.tag()) {
                Ok(context) => (context, Worker::new(self.pool.region.clone(), self.pool.config.clone())),
                Err(error) => {
                    job.fail_resources(format!("stack: {error}"));
                    return;
                }
            },
        };
        worker.run(&context.enter(), hold, Helpers::Caller(output));
        self.idle_workers.lock().unwrap_or_else(PoisonError::into_inner).push((context, worker));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.pool.lock().shutdown = true;
        self.pool.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hold on the oldest grid that has blocks left.
    fn try_take(&self) -> Option<Hold> {
        Self::take_from(&mut self.lock())
    }

    fn take_from(queue: &mut Queue) -> Option<Hold> {
        while let Some(job) = queue.jobs.front() {
            if let Some(hold) = Hold::new(job) {
                return Some(hold);
            }
            queue.jobs.pop_front();
        }
        None
    }

    /// Waits for a grid; None: time to end.
    fn wait(&self) -> Option<Hold> {
        let mut queue = self.lock();
        loop {
            if queue.shutdown {
                return None;
            }
            if let Some(hold) = Self::take_from(&mut queue) {
                return Some(hold);
            }
            queue.idle += 1;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

fn engine_thread(pool: &Pool, mut context: KernelContext) {
    /// A launch would wait for ever for the blocks of a thread that has panicked.
    struct AbortOnPanic;
    impl Drop for AbortOnPanic {
        fn drop(&mut self) {
            if std::thread::panicking() {
                tracing::error!("an engine thread has panicked");
                std::process::abort();
            }
        }
    }
    let _abort = AbortOnPanic;
    let mut worker = Worker::new(pool.region.clone(), pool.config.clone());
    let entered = context.enter();
    while let Some(hold) = pool.wait() {
        worker.run(&entered, hold, Helpers::Pool(pool));
    }
}

#[cfg(test)]
mod tests;
