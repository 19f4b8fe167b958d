//! Calls about streams and events.
#![allow(non_snake_case)] // The driver's names.

use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::memory::Kind;
use crate::backend::cpu::stream::Event;
use crate::generated::driver::{EventCalls, StreamCalls};
use crate::session::Call;

impl StreamCalls for CpuBackend {
    fn cuStreamCreate(&self, call: &mut Call<'_>, phStream: Option<&mut u64>, Flags: u32) -> CuResult {
        self.stream_create(call, phStream, Flags, 0)
    }

    fn cuStreamCreateWithPriority(
        &self,
        call: &mut Call<'_>,
        phStream: Option<&mut u64>,
        flags: u32,
        priority: i32,
    ) -> CuResult {
        self.stream_create(call, phStream, flags, priority)
    }

    fn cuStreamDestroy_v2(&self, call: &mut Call<'_>, hStream: u64) -> CuResult {
        self.stream_destroy(call, hStream)
    }

    fn cuStreamGetPriority(&self, call: &mut Call<'_>, hStream: u64, priority: Option<&mut i32>) -> CuResult {
        let target = self.target(call, hStream)?;
        put(priority, target.stream.map_or(0, |stream| stream.priority))
    }

    fn cuStreamGetFlags(&self, call: &mut Call<'_>, hStream: u64, flags: Option<&mut u32>) -> CuResult {
        let target = self.target(call, hStream)?;
        put(flags, target.stream.map_or(0, |stream| stream.flags))
    }

    fn cuStreamGetId(&self, call: &mut Call<'_>, hStream: u64, streamId: Option<&mut u64>) -> CuResult {
        let target = self.target(call, hStream)?;
        put(streamId, slotmap::Key::data(&target.key).as_ffi())
    }

    fn cuStreamGetCtx(&self, call: &mut Call<'_>, hStream: u64, pctx: Option<&mut u64>) -> CuResult {
        let target = self.target(call, hStream)?;
        put(pctx, target.live.context)
    }

    fn cuStreamGetCtx_v2(
        &self,
        call: &mut Call<'_>,
        hStream: u64,
        pCtx: Option<&mut u64>,
        pGreenCtx: Option<&mut u64>,
    ) -> CuResult {
        let target = self.target(call, hStream)?;
        if let Some(green) = pGreenCtx {
            *green = 0;
        }
        put(pCtx, target.live.context)
    }

    fn cuStreamGetDevice(&self, call: &mut Call<'_>, hStream: u64, device: Option<&mut i32>) -> CuResult {
        let target = self.target(call, hStream)?;
        put(device, self.ordinal(target.live.device))
    }

    fn cuStreamWaitEvent(&self, call: &mut Call<'_>, hStream: u64, hEvent: u64, Flags: u32) -> CuResult {
        self.stream_wait_event(call, hStream, hEvent, Flags)
    }

    fn cuStreamQuery(&self, call: &mut Call<'_>, hStream: u64) -> CuResult {
        self.stream_query(call, hStream)
    }

    fn cuStreamSynchronize(&self, call: &mut Call<'_>, hStream: u64) -> CuResult {
        self.stream_synchronize(call, hStream)
    }

    fn cuStreamAttachMemAsync(
        &self,
        call: &mut Call<'_>,
        hStream: u64,
        dptr: u64,
        _length: u64,
        flags: u32,
    ) -> CuResult {
        self.target(call, hStream)?;
        if !matches!(flags, 1 | 2 | 4) {
            return Err(Status::INVALID_VALUE);
        }
        match self.memory.find(dptr) {
            Some(allocation) if matches!(allocation.kind, Kind::Managed | Kind::ManagedGlobal) => Ok(()),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    fn cuStreamCopyAttributes(&self, call: &mut Call<'_>, dst: u64, src: u64) -> CuResult {
        self.target(call, dst)?;
        self.target(call, src).map(drop)
    }

    fn cuStreamGetAttribute(
        &self,
        call: &mut Call<'_>,
        hStream: u64,
        attr: u32,
        value_out: Option<&mut [u8; 64]>,
    ) -> CuResult {
        let target = self.target(call, hStream)?;
        let mut value = [0; 64];
        match attr {
            // CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY: CU_SYNC_POLICY_AUTO.
            3 => value[0] = 1,
            // CU_LAUNCH_ATTRIBUTE_PRIORITY
            8 => {
                let priority = target.stream.map_or(0, |stream| stream.priority);
                value[..4].copy_from_slice(&priority.to_le_bytes());
            }
            // Access policy window, memory synchronisation domain and its map: nothing set.
            1 | 9 | 10 => {}
            _ => return Err(Status::INVALID_VALUE),
        }
        put(value_out, value)
    }

    fn cuStreamSetAttribute(
        &self,
        call: &mut Call<'_>,
        hStream: u64,
        attr: u32,
        value: Option<&[u8; 64]>,
    ) -> CuResult {
        self.target(call, hStream)?;
        value.ok_or(Status::INVALID_VALUE)?;
        // Hints, all of them.
        if matches!(attr, 1 | 3 | 8 | 9 | 10) { Ok(()) } else { Err(Status::INVALID_VALUE) }
    }
}

impl EventCalls for CpuBackend {
    fn cuEventCreate(&self, call: &mut Call<'_>, phEvent: Option<&mut u64>, Flags: u32) -> CuResult {
        self.event_create(call, phEvent, Flags)
    }

    fn event_create(&self, call: &mut Call<'_>, event: u64, flags: u32) -> CuResult {
        self.event_create_named(call, event, flags)
    }

    fn cuEventDestroy_v2(&self, _: &mut Call<'_>, hEvent: u64) -> CuResult {
        self.handles.remove::<Event>(hEvent).map(drop).map_err(|_| Status::INVALID_HANDLE)
    }

    fn cuEventRecord(&self, call: &mut Call<'_>, hEvent: u64, hStream: u64) -> CuResult {
        self.event_record(call, hEvent, hStream)
    }

    fn cuEventRecordWithFlags(&self, call: &mut Call<'_>, hEvent: u64, hStream: u64, flags: u32) -> CuResult {
        // CU_EVENT_RECORD_EXTERNAL concerns capture only.
        if flags & !1 != 0 {
            return Err(Status::INVALID_VALUE);
        }
        self.event_record(call, hEvent, hStream)
    }

    fn cuEventQuery(&self, call: &mut Call<'_>, hEvent: u64) -> CuResult {
        self.event_query(call, hEvent)
    }

    fn cuEventSynchronize(&self, call: &mut Call<'_>, hEvent: u64) -> CuResult {
        self.event_synchronize(call, hEvent)
    }

    fn cuEventElapsedTime(
        &self,
        _: &mut Call<'_>,
        pMilliseconds: Option<&mut f32>,
        hStart: u64,
        hEnd: u64,
    ) -> CuResult {
        self.event_elapsed(pMilliseconds, hStart, hEnd)
    }
}
