//! Calls about memory and pools.
#![allow(non_snake_case)] // The driver's names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::status::{CuResult, Status};

use super::put;
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::device::{MAX_PITCH, PITCH_ALIGNMENT};
use crate::backend::cpu::memory::{Kind, Owner};
use crate::backend::cpu::pool::Pool;
use crate::generated::driver::{HostMemoryCalls, MemoryCalls, PoolCalls};
use crate::session::Call;
use crate::worker::window::PAGE;

/// `CU_MEM_ATTACH_GLOBAL | CU_MEM_ATTACH_HOST`
const ATTACH_FLAGS: u32 = 3;
/// `CU_MEMHOSTALLOC_PORTABLE | DEVICEMAP | WRITECOMBINED`
const HOST_ALLOC_FLAGS: u32 = 7;

impl MemoryCalls for CpuBackend {
    fn cuMemAlloc_v2(&self, call: &mut Call<'_>, dptr: Option<&mut u64>, bytesize: u64) -> CuResult {
        let live = self.live(call)?;
        let dptr = dptr.ok_or(Status::INVALID_VALUE)?;
        *dptr = self.memory.alloc(live.owner(), Kind::Device, bytesize, 0)?;
        Ok(())
    }

    fn cuMemAllocPitch_v2(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        pPitch: Option<&mut u64>,
        WidthInBytes: u64,
        Height: u64,
        ElementSizeBytes: u32,
    ) -> CuResult {
        let live = self.live(call)?;
        let (dptr, out) = dptr.zip(pPitch).ok_or(Status::INVALID_VALUE)?;
        if !matches!(ElementSizeBytes, 4 | 8 | 16)
            || WidthInBytes == 0
            || Height == 0
            || WidthInBytes > MAX_PITCH
        {
            return Err(Status::INVALID_VALUE);
        }
        let pitch = WidthInBytes.next_multiple_of(PITCH_ALIGNMENT);
        let len = pitch.checked_mul(Height).ok_or(Status::INVALID_VALUE)?;
        *dptr = self.memory.alloc(live.owner(), Kind::Device, len, 0)?;
        *out = pitch;
        Ok(())
    }

    fn cuMemFree_v2(&self, call: &mut Call<'_>, dptr: u64) -> CuResult {
        self.live(call)?;
        if dptr == 0 {
            return Ok(());
        }
        self.free(dptr, |kind| matches!(kind, Kind::Device | Kind::Managed | Kind::Pool(_)))
    }

    fn cuMemGetInfo_v2(
        &self,
        call: &mut Call<'_>,
        free: Option<&mut u64>,
        total: Option<&mut u64>,
    ) -> CuResult {
        self.live(call)?;
        let (free_bytes, total_bytes) = self.memory.info();
        put(free, free_bytes)?;
        put(total, total_bytes)
    }

    fn cuMemGetAddressRange_v2(
        &self,
        call: &mut Call<'_>,
        pbase: Option<&mut u64>,
        psize: Option<&mut u64>,
        dptr: u64,
    ) -> CuResult {
        self.live(call)?;
        // Either may be NULL; the driver looks at the pointer only if there is something to answer.
        if pbase.is_none() && psize.is_none() {
            return Ok(());
        }
        let allocation = self.memory.find(dptr).ok_or(Status::NOT_FOUND)?;
        if let Some(base) = pbase {
            *base = allocation.base;
        }
        if let Some(size) = psize {
            *size = allocation.len;
        }
        Ok(())
    }

    fn cuMemAllocManaged(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        bytesize: u64,
        flags: u32,
    ) -> CuResult {
        let live = self.live(call)?;
        let dptr = dptr.ok_or(Status::INVALID_VALUE)?;
        if flags == 0 || flags & !ATTACH_FLAGS != 0 || flags == ATTACH_FLAGS {
            return Err(Status::INVALID_VALUE);
        }
        *dptr = self.memory.alloc(live.owner(), Kind::Managed, bytesize, flags)?;
        Ok(())
    }

    fn cuMemPrefetchAsync(
        &self,
        call: &mut Call<'_>,
        devPtr: u64,
        count: u64,
        _dstDevice: i32,
        hStream: u64,
    ) -> CuResult {
        self.managed_hint(call, devPtr, count, Some(hStream))
    }

    fn cuMemPrefetchAsync_v2(
        &self,
        call: &mut Call<'_>,
        devPtr: u64,
        count: u64,
        _location: [u8; 8],
        _flags: u32,
        hStream: u64,
    ) -> CuResult {
        self.managed_hint(call, devPtr, count, Some(hStream))
    }

    fn cuMemAdvise(
        &self,
        call: &mut Call<'_>,
        devPtr: u64,
        count: u64,
        _advice: u32,
        _device: i32,
    ) -> CuResult {
        self.managed_hint(call, devPtr, count, None)
    }

    fn cuMemAdvise_v2(
        &self,
        call: &mut Call<'_>,
        devPtr: u64,
        count: u64,
        _advice: u32,
        _location: [u8; 8],
    ) -> CuResult {
        self.managed_hint(call, devPtr, count, None)
    }

    fn cuMemRangeGetAttribute(
        &self,
        call: &mut Call<'_>,
        data: Option<&mut [u8]>,
        _dataSize: u64,
        attribute: u32,
        devPtr: u64,
        count: u64,
    ) -> CuResult {
        self.managed_hint(call, devPtr, count, None)?;
        let data = data.ok_or(Status::INVALID_VALUE)?;
        match attribute {
            // Read-mostly: not set.
            1 => data.fill(0),
            // Preferred, accessing and last prefetch location: CU_DEVICE_INVALID.
            2..=4 => data.chunks_exact_mut(4).for_each(|id| id.copy_from_slice(&(-2i32).to_le_bytes())),
            _ => data.fill(0),
        }
        Ok(())
    }

    fn cuMemAllocAsync(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        bytesize: u64,
        hStream: u64,
    ) -> CuResult {
        let target = self.target(call, hStream)?;
        let pool = self.slots[target.live.device as usize].current_pool.load(Ordering::Acquire);
        self.alloc_async(call, dptr, bytesize, pool, hStream)
    }

    fn cuMemFreeAsync(&self, call: &mut Call<'_>, dptr: u64, hStream: u64) -> CuResult {
        let target = self.target(call, hStream)?;
        self.free_async(&target, dptr)
    }
}

impl HostMemoryCalls for CpuBackend {
    fn cuMemHostAlloc(
        &self,
        call: &mut Call<'_>,
        pp: Option<&mut u64>,
        bytesize: u64,
        Flags: u32,
    ) -> CuResult {
        let live = self.live(call)?;
        let pp = pp.ok_or(Status::INVALID_VALUE)?;
        if Flags & !HOST_ALLOC_FLAGS != 0 {
            return Err(Status::INVALID_VALUE);
        }
        *pp = self.memory.alloc(live.owner(), Kind::Host, bytesize, Flags)?;
        Ok(())
    }

    fn cuMemFreeHost(&self, call: &mut Call<'_>, p: u64) -> CuResult {
        self.live(call)?;
        self.free(p, |kind| kind == Kind::Host)
    }

    fn registered_map(
        &self,
        call: &mut Call<'_>,
        address: u64,
        len: u64,
        flags: u32,
        window: Option<&mut u64>,
        aliased: Option<&mut u32>,
    ) -> CuResult {
        let live = self.live(call)?;
        if len == 0 || !(address | len).is_multiple_of(PAGE) {
            return Err(Status::INVALID_VALUE);
        }
        if call.session.window.file_to_share().is_none() {
            return Err(Status::NOT_SUPPORTED);
        }
        // Of no context, with none of which it goes: the program's own bytes are there.
        let owner = Owner { id: 0, context: 0, ..live.owner() };
        put(window, self.memory.alloc(owner, Kind::Registered, len, flags)?)?;
        // Kernels reach the region alone.
        put(aliased, 0)
    }

    fn registered_lend(
        &self,
        call: &mut Call<'_>,
        _address: u64,
        region: u64,
        region_len: u64,
        flags: u32,
        window: Option<&mut u64>,
        aliased: Option<&mut u32>,
    ) -> CuResult {
        let live = self.live(call)?;
        let owner = Owner { id: 0, context: 0, ..live.owner() };
        put(window, self.memory.adopt(owner, Kind::Registered, region, region_len, flags)?)?;
        put(aliased, 0)
    }

    fn registered_release(&self, call: &mut Call<'_>, window: u64) -> CuResult {
        let live = self.live(call)?;
        self.scheduler.wait_context(live.key);
        match self.memory.find(window) {
            Some(found) if found.base == window && found.kind == Kind::Registered => Ok(()),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    fn registered_unmap(&self, call: &mut Call<'_>, window: u64) -> CuResult {
        let live = self.live(call)?;
        self.scheduler.wait_context(live.key);
        self.free(window, |kind| kind == Kind::Registered)
    }
}

impl PoolCalls for CpuBackend {
    fn cuMemAllocFromPoolAsync(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        bytesize: u64,
        pool: u64,
        hStream: u64,
    ) -> CuResult {
        self.alloc_async(call, dptr, bytesize, pool, hStream)
    }

    fn cuDeviceGetDefaultMemPool(&self, _: &mut Call<'_>, pool_out: Option<&mut u64>, dev: i32) -> CuResult {
        put(pool_out, self.slot(dev)?.default_pool)
    }

    fn cuDeviceGetMemPool(&self, _: &mut Call<'_>, pool: Option<&mut u64>, dev: i32) -> CuResult {
        put(pool, self.slot(dev)?.current_pool.load(Ordering::Acquire))
    }

    fn cuDeviceSetMemPool(&self, _: &mut Call<'_>, dev: i32, pool: u64) -> CuResult {
        let slot = self.slot(dev)?;
        let object = self.handles.get::<Pool>(pool).map_err(|_| Status::INVALID_VALUE)?;
        if object.device != slot.device.index {
            return Err(Status::INVALID_VALUE);
        }
        slot.current_pool.store(pool, Ordering::Release);
        Ok(())
    }

    fn cuMemPoolCreate(
        &self,
        _: &mut Call<'_>,
        pool: Option<&mut u64>,
        poolProps: Option<&[u8; 88]>,
    ) -> CuResult {
        let pool = pool.ok_or(Status::INVALID_VALUE)?;
        let props = poolProps.ok_or(Status::INVALID_VALUE)?;
        let word = |at: usize| i32::from_le_bytes([props[at], props[at + 1], props[at + 2], props[at + 3]]);
        // CUmemPoolProps: allocType, handleTypes, location { type, id }, ...
        let (pinned, no_export, on_device) = (word(0) == 1, word(4) == 0, word(8) == 1);
        if !(pinned && no_export && on_device) {
            return Err(Status::INVALID_VALUE);
        }
        let device = self.slot(word(12))?.device.index;
        *pool = self.handles.insert(Arc::new(Pool::new(device, false))).ok_or(Status::OUT_OF_MEMORY)?;
        Ok(())
    }

    fn cuMemPoolDestroy(&self, _: &mut Call<'_>, pool: u64) -> CuResult {
        let object = self.handles.get::<Pool>(pool).map_err(|_| Status::INVALID_VALUE)?;
        if object.default {
            return Err(Status::INVALID_VALUE);
        }
        // A device whose current pool goes returns to its default pool.
        let slot = &self.slots[object.device as usize];
        let _ =
            slot.current_pool.compare_exchange(pool, slot.default_pool, Ordering::AcqRel, Ordering::Relaxed);
        self.handles.remove::<Pool>(pool).map(drop).map_err(|_| Status::INVALID_VALUE)
    }

    fn cuMemPoolTrimTo(&self, _: &mut Call<'_>, pool: u64, _minBytesToKeep: u64) -> CuResult {
        self.handles.get::<Pool>(pool).map(drop).map_err(|_| Status::INVALID_VALUE)
    }

    fn cuMemPoolSetAccess(&self, _: &mut Call<'_>, pool: u64, map: Option<&[u8]>, _count: u64) -> CuResult {
        self.handles.get::<Pool>(pool).map_err(|_| Status::INVALID_VALUE)?;
        map.map(drop).ok_or(Status::INVALID_VALUE)
    }

    fn cuMemPoolGetAccess(
        &self,
        _: &mut Call<'_>,
        flags: Option<&mut u32>,
        memPool: u64,
        location: Option<&[u8; 8]>,
    ) -> CuResult {
        self.handles.get::<Pool>(memPool).map_err(|_| Status::INVALID_VALUE)?;
        location.ok_or(Status::INVALID_VALUE)?;
        // CU_MEM_ACCESS_FLAGS_PROT_READWRITE: all devices share the memory.
        put(flags, 3)
    }
}
