//! Calls about contexts.
#![allow(non_snake_case)] // The driver's names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::context;
use crate::backend::cpu::context::Context;
use crate::backend::cpu::stream::GREATEST_PRIORITY;
use crate::generated::driver::ContextCalls;
use crate::session::Call;

impl ContextCalls for CpuBackend {
    fn cuDevicePrimaryCtxRetain(&self, _: &mut Call<'_>, pctx: Option<&mut u64>, dev: i32) -> CuResult {
        let pctx = pctx.ok_or(Status::INVALID_VALUE)?;
        let primary = &self.slot(dev)?.primary;
        let mut retained = primary.retained();
        primary.activate(&self.scheduler, retained.flags);
        retained.count += 1;
        *pctx = primary.handle;
        Ok(())
    }

    fn cuDevicePrimaryCtxRelease_v2(&self, _: &mut Call<'_>, dev: i32) -> CuResult {
        let primary = &self.slot(dev)?.primary;
        let mut retained = primary.retained();
        if retained.count == 0 {
            return Err(Status::INVALID_CONTEXT);
        }
        retained.count -= 1;
        if retained.count == 0
            && let Some(live) = primary.deactivate()
        {
            self.destroy_contents(&live);
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxSetFlags_v2(&self, _: &mut Call<'_>, dev: i32, flags: u32) -> CuResult {
        let primary = &self.slot(dev)?.primary;
        context::check_flags(flags)?;
        primary.retained().flags = flags;
        if let Some(live) = primary.live() {
            live.flags.store(flags, Ordering::Relaxed);
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxReset_v2(&self, _: &mut Call<'_>, dev: i32) -> CuResult {
        let primary = &self.slot(dev)?.primary;
        let mut retained = primary.retained();
        retained.flags = 0;
        if let Some(live) = primary.deactivate() {
            self.destroy_contents(&live);
        }
        // Who has retained the context keeps it: it is empty, and active when it is used next.
        if retained.count > 0 {
            primary.activate(&self.scheduler, 0);
        }
        Ok(())
    }

    fn cuCtxCreate_v2(&self, _: &mut Call<'_>, pctx: Option<&mut u64>, flags: u32, dev: i32) -> CuResult {
        let pctx = pctx.ok_or(Status::INVALID_VALUE)?;
        let device = self.slot(dev)?.device.index;
        context::check_flags(flags)?;
        let context = self.handles.insert_with(|handle| Arc::new(Context::new(handle, device, false)));
        let context = context.ok_or(Status::OUT_OF_MEMORY)?;
        context.activate(&self.scheduler, flags);
        // The program tells which context is current before it uses it.
        *pctx = context.handle;
        Ok(())
    }

    fn cuCtxDestroy_v2(&self, _: &mut Call<'_>, ctx: u64) -> CuResult {
        let context = self.handles.get::<Context>(ctx).map_err(|_| Status::INVALID_CONTEXT)?;
        if context.primary {
            return Err(Status::INVALID_CONTEXT);
        }
        self.handles.remove::<Context>(ctx).map_err(|_| Status::INVALID_CONTEXT)?;
        if let Some(live) = context.deactivate() {
            self.destroy_contents(&live);
        }
        Ok(())
    }

    fn cuCtxSynchronize(&self, call: &mut Call<'_>) -> CuResult {
        let live = self.live(call)?;
        self.context_synchronize(call, &live)
    }

    fn cuCtxSynchronize_v2(&self, call: &mut Call<'_>, ctx: u64) -> CuResult {
        let live = if ctx == 0 { self.live(call)? } else { self.live_of(ctx)? };
        live.check()?;
        self.context_synchronize(call, &live)
    }

    fn cuCtxSetLimit(&self, call: &mut Call<'_>, limit: u32, value: u64) -> CuResult {
        let live = self.live(call)?;
        // The heap of kernels counts apart from allocations; it must not be a way around their limit.
        if limit == context::limit::MALLOC_HEAP_SIZE && value > call.session.config.limits.memory_bytes {
            return Err(Status::OUT_OF_MEMORY);
        }
        live.set_limit(limit, value)?;
        self.limit_changed(limit, value);
        Ok(())
    }

    fn cuCtxGetLimit(&self, call: &mut Call<'_>, pvalue: Option<&mut u64>, limit: u32) -> CuResult {
        let live = self.live(call)?;
        let value = live.limit(limit)?;
        put(pvalue, value)
    }

    fn cuCtxGetStreamPriorityRange(
        &self,
        call: &mut Call<'_>,
        leastPriority: Option<&mut i32>,
        greatestPriority: Option<&mut i32>,
    ) -> CuResult {
        self.live(call)?;
        // Both may be NULL.
        if let Some(least) = leastPriority {
            *least = 0;
        }
        if let Some(greatest) = greatestPriority {
            *greatest = GREATEST_PRIORITY;
        }
        Ok(())
    }

    fn cuCtxResetPersistingL2Cache(&self, call: &mut Call<'_>) -> CuResult {
        self.live(call).map(drop)
    }
}
