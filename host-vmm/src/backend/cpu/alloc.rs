//! Allocation calls that are ordered with the work of streams.

use std::sync::Arc;

use protocol::status::{CuResult, Status};

use super::CpuBackend;
use super::context::limit;
use super::memory::Kind;
use super::pool::Pool;
use super::sched::Work;
use super::stream::Target;
use crate::session::Call;

impl CpuBackend {
    /// Frees after the work that may use the memory: like the driver, waits for the context that it belongs to.
    pub(super) fn free(&self, address: u64, may_free: impl Fn(Kind) -> bool) -> CuResult {
        let allocation = self.memory.find(address).filter(|a| a.base == address && may_free(a.kind));
        let allocation = allocation.ok_or(Status::INVALID_VALUE)?;
        if let Ok(live) = self.live_of(allocation.context) {
            self.scheduler.wait_context(live.key);
            live.check()?;
        }
        self.memory.free(address, may_free)?;
        if let Kind::Pool(handle) = allocation.kind
            && let Ok(pool) = self.handles.get::<Pool>(handle)
        {
            pool.freed(allocation.len);
        }
        Ok(())
    }

    /// Allocates from a pool. The memory is there at once, which is earlier than stream order asks for.
    pub(super) fn alloc_async(
        &self,
        call: &Call<'_>,
        out: Option<&mut u64>,
        len: u64,
        pool: u64,
        stream: u64,
    ) -> CuResult {
        let target = self.target(call, stream)?;
        let out = out.ok_or(Status::INVALID_VALUE)?;
        let object = self.handles.get::<Pool>(pool).map_err(|_| Status::INVALID_VALUE)?;
        *out = self.memory.alloc(target.live.owner(), Kind::Pool(pool), len, 0)?;
        object.allocated(len);
        Ok(())
    }

    /// Frees in stream order.
    pub(super) fn free_async(&self, target: &Target, address: u64) -> CuResult {
        let may_free = |kind| matches!(kind, Kind::Pool(_) | Kind::Device);
        let allocation = self.memory.find(address).filter(|a| a.base == address && may_free(a.kind));
        let allocation = allocation.ok_or(Status::INVALID_VALUE)?;
        let pool = match allocation.kind {
            Kind::Pool(handle) => self.handles.get::<Pool>(handle).ok(),
            _ => None,
        };
        let memory = Arc::clone(&self.memory);
        // Also after a fault: the memory is not used any more.
        let work: Work = Box::new(move |_| {
            if memory.free(address, may_free).is_ok()
                && let Some(pool) = pool
            {
                pool.freed(allocation.len);
            }
        });
        self.submit_short(target, Vec::new(), Some(work)).map(drop)
    }

    /// Advice and prefetches: nothing to be done, since there is only one place, but the range must be managed memory.
    pub(super) fn managed_hint(
        &self,
        call: &Call<'_>,
        address: u64,
        len: u64,
        stream: Option<u64>,
    ) -> CuResult {
        match stream {
            Some(stream) => self.target(call, stream).map(drop)?,
            None => self.live(call).map(drop)?,
        }
        let allocation = self
            .memory
            .find(address)
            .filter(|a| matches!(a.kind, Kind::Managed | Kind::ManagedGlobal))
            .ok_or(Status::INVALID_VALUE)?;
        if len == 0 || len > allocation.len - (address - allocation.base) {
            return Err(Status::INVALID_VALUE);
        }
        Ok(())
    }

    /// Passes a limit on to the engine, where it has an effect.
    pub(super) fn limit_changed(&self, limit: u32, value: u64) {
        if limit == limit::MALLOC_HEAP_SIZE
            && let Err(error) = self.engine.set_heap_limit(value)
        {
            tracing::warn!(%error, value, "the heap for malloc in kernels stays as it is");
        }
    }
}
