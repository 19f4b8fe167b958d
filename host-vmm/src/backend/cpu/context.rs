//! Contexts: primary ones that come and go with their retain count, and created ones.
//!
//! A [`Context`] is the identity behind a handle; its contents ([`Live`]) exist while it is active. Resetting a primary context replaces
//! the contents and keeps the handle, as programs expect.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use protocol::status::{CuResult, Status};
use ptx_cpu::engine::CancelToken;

use super::sched::{ContextKey, Scheduler, StreamKey};

/// `CU_CTX_*` flags that a context may have.
const FLAGS_MASK: u32 = 0xff;
/// `CU_CTX_SCHED_*`: at most one bit.
const SCHED_MASK: u32 = 0x07;

/// `CUlimit` values.
pub mod limit {
    pub const STACK_SIZE: u32 = 0;
    pub const PRINTF_FIFO_SIZE: u32 = 1;
    pub const MALLOC_HEAP_SIZE: u32 = 2;
    pub const DEV_RUNTIME_SYNC_DEPTH: u32 = 3;
    pub const DEV_RUNTIME_PENDING_LAUNCH_COUNT: u32 = 4;
    pub const MAX_L2_FETCH_GRANULARITY: u32 = 5;
    pub const PERSISTING_L2_CACHE_SIZE: u32 = 6;
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What a handle of a context stands for.
pub struct Context {
    pub handle: u64,
    /// Index of the device.
    pub device: u32,
    pub primary: bool,
    live: RwLock<Option<Arc<Live>>>,
    retained: Mutex<Retained>,
}

/// The part of a primary context that outlives its contents.
#[derive(Debug, Default)]
pub struct Retained {
    pub count: u32,
    pub flags: u32,
}

/// Contents of an active context.
pub struct Live {
    /// Unique in the worker; says whose a resource is.
    pub id: u64,
    pub context: u64,
    pub device: u32,
    pub flags: AtomicU32,
    pub key: ContextKey,
    pub legacy: StreamKey,
    /// The sticky error: 0, or the CUresult that every later call returns.
    pub poison: Arc<AtomicU32>,
    /// Ends kernels when the context goes.
    pub cancel: CancelToken,
    limits: Mutex<HashMap<u32, u64>>,
    /// Per-thread default streams by lane.
    per_thread: Mutex<HashMap<u64, StreamKey>>,
}

impl Context {
    pub fn new(handle: u64, device: u32, primary: bool) -> Self {
        Self { handle, device, primary, live: RwLock::default(), retained: Mutex::default() }
    }

    /// Retain count and flags of a primary context. Held while it is activated or emptied, so that these do not overlap.
    pub fn retained(&self) -> MutexGuard<'_, Retained> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents, if the context is active.
    pub fn live(&self) -> Option<Arc<Live>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Activates the context if it is not.
    pub fn activate(&self, scheduler: &Scheduler, flags: u32) -> Arc<Live> {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(live.get_or_insert_with(|| {
            let poison = Arc::new(AtomicU32::new(0));
            let (key, legacy) = scheduler.add_context(Arc::clone(&poison));
            Arc::new(Live {
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                context: self.handle,
                device: self.device,
                flags: AtomicU32::new(flags),
                key,
                legacy,
                poison,
                cancel: CancelToken::new(),
                limits: Mutex::default(),
                per_thread: Mutex::default(),
            })
        }))
    }

    /// Takes the contents out; the caller frees what belongs to them.
    pub fn deactivate(&self) -> Option<Arc<Live>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Live {
    /// Fails with the sticky error after a fault.
    ///
    /// # Errors
    /// The CUresult of the fault.
    pub fn check(&self) -> CuResult {
        match self.poison.load(Ordering::Acquire) {
            0 => Ok(()),
            status => Err(Status(status)),
        }
    }

    /// The first fault makes the context unusable.
    pub fn fail(&self, status: Status) {
        let _ = self.poison.compare_exchange(0, status.0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The default stream of a program's thread.
    pub fn per_thread(&self, scheduler: &Scheduler, lane: u64) -> CuResult<StreamKey> {
        let mut streams = self.per_thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = streams.get(&lane) {
            return Ok(*key);
        }
        let key = scheduler.add_stream(self.key, true).ok_or(Status::CONTEXT_IS_DESTROYED)?;
        streams.insert(lane, key);
        Ok(key)
    }

    /// The program's thread has ended: its default stream finishes and goes.
    pub fn forget_lane(&self, scheduler: &Scheduler, lane: u64) {
        let key = self.per_thread.lock().unwrap_or_else(PoisonError::into_inner).remove(&lane);
        if let Some(key) = key {
            scheduler.close_stream(key);
        }
    }

    /// A limit's value.
    ///
    /// # Errors
    /// `UNSUPPORTED_LIMIT` for limits that the devices do not have, `INVALID_VALUE` for what is no limit.
    pub fn limit(&self, limit: u32) -> CuResult<u64> {
        let default = default_limit(limit)?;
        Ok(self.limits.lock().unwrap_or_else(PoisonError::into_inner).get(&limit).copied().unwrap_or(default))
    }

    /// Sets a limit.
    ///
    /// # Errors
    /// As [`limit`](Self::limit).
    pub fn set_limit(&self, limit: u32, value: u64) -> CuResult {
        default_limit(limit)?;
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).insert(limit, value);
        Ok(())
    }
}

/// What the limits are in a new context.
fn default_limit(limit: u32) -> CuResult<u64> {
    match limit {
        limit::STACK_SIZE => Ok(1 << 10),
        limit::PRINTF_FIFO_SIZE => Ok(1 << 20),
        limit::MALLOC_HEAP_SIZE => Ok(8 << 20),
        // Launches from kernels are not there yet.
        limit::DEV_RUNTIME_SYNC_DEPTH | limit::DEV_RUNTIME_PENDING_LAUNCH_COUNT => {
            Err(Status::UNSUPPORTED_LIMIT)
        }
        limit::MAX_L2_FETCH_GRANULARITY => Ok(64),
        limit::PERSISTING_L2_CACHE_SIZE => Ok(0),
        _ => Err(Status::INVALID_VALUE),
    }
}

/// Are these flags that a context can be created with?
///
/// # Errors
/// `INVALID_VALUE`.
pub fn check_flags(flags: u32) -> CuResult {
    let sched = flags & SCHED_MASK;
    if flags & !FLAGS_MASK != 0 || !(sched == 0 || sched.is_power_of_two()) {
        return Err(Status::INVALID_VALUE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_sticks_until_the_context_is_renewed() {
        let scheduler = Scheduler::new();
        let context = Context::new(99, 0, true);
        assert!(context.live().is_none());
        let live = context.activate(&scheduler, 0);
        assert_eq!(context.activate(&scheduler, 0).id, live.id);
        live.fail(Status::ILLEGAL_ADDRESS);
        live.fail(Status::ASSERT);
        assert_eq!(live.check(), Err(Status::ILLEGAL_ADDRESS));
        context.deactivate().unwrap();
        let renewed = context.activate(&scheduler, 0);
        assert_eq!(renewed.check(), Ok(()));
        assert_ne!(renewed.id, live.id);
    }

    #[test]
    fn limits_keep_what_is_set() {
        let live = Context::new(99, 0, true).activate(&Scheduler::new(), 0);
        assert_eq!(live.limit(limit::MALLOC_HEAP_SIZE), Ok(8 << 20));
        live.set_limit(limit::MALLOC_HEAP_SIZE, 1 << 26).unwrap();
        assert_eq!(live.limit(limit::MALLOC_HEAP_SIZE), Ok(1 << 26));
        assert_eq!(live.limit(77), Err(Status::INVALID_VALUE));
    }

    #[test]
    fn each_thread_has_its_default_stream() {
        let scheduler = Scheduler::new();
        let live = Context::new(99, 0, true).activate(&scheduler, 0);
        let a = live.per_thread(&scheduler, 1).unwrap();
        assert_eq!(live.per_thread(&scheduler, 1), Ok(a));
        assert_ne!(live.per_thread(&scheduler, 2), Ok(a));
        live.forget_lane(&scheduler, 1);
        assert!(scheduler.submit(a, vec![], None).is_none());
    }

    #[test]
    fn only_one_way_of_waiting() {
        assert_eq!(check_flags(0), Ok(()));
        assert_eq!(check_flags(4 | 8), Ok(()));
        assert_eq!(check_flags(3), Err(Status::INVALID_VALUE));
        assert_eq!(check_flags(1 << 16), Err(Status::INVALID_VALUE));
    }
}
