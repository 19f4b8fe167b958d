//! Calls about devices.
#![allow(non_snake_case)] // The driver's names.

use core::ffi::CStr;

use protocol::status::{CuResult, Status};

use super::{put, put_text};
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::device::{MAX_BLOCK, MAX_GRID, MAX_THREADS_PER_BLOCK, attribute};
use crate::generated::driver::{DeviceCalls, PeerCalls};
use crate::session::Call;

impl DeviceCalls for CpuBackend {
    fn cuDeviceGetCount(&self, _: &mut Call<'_>, count: Option<&mut i32>) -> CuResult {
        put(count, i32::try_from(self.device_count()).unwrap_or(i32::MAX))
    }

    fn cuDeviceGet(&self, _: &mut Call<'_>, device: Option<&mut i32>, ordinal: i32) -> CuResult {
        let device = device.ok_or(Status::INVALID_VALUE)?;
        self.slot(ordinal)?;
        *device = ordinal;
        Ok(())
    }

    fn cuDeviceGetName(&self, _: &mut Call<'_>, name: Option<&mut [u8]>, len: i32, dev: i32) -> CuResult {
        if len <= 0 {
            return Err(Status::INVALID_VALUE);
        }
        put_text(name, &self.slot(dev)?.device.name)
    }

    fn cuDeviceGetUuid(&self, _: &mut Call<'_>, uuid: Option<&mut [u8; 16]>, dev: i32) -> CuResult {
        put(uuid, self.slot(dev)?.device.uuid)
    }

    fn cuDeviceGetUuid_v2(&self, _: &mut Call<'_>, uuid: Option<&mut [u8; 16]>, dev: i32) -> CuResult {
        put(uuid, self.slot(dev)?.device.uuid)
    }

    fn cuDeviceTotalMem_v2(&self, _: &mut Call<'_>, bytes: Option<&mut u64>, dev: i32) -> CuResult {
        put(bytes, self.slot(dev)?.device.memory_bytes)
    }

    fn cuDeviceGetAttribute(
        &self,
        _: &mut Call<'_>,
        pi: Option<&mut i32>,
        attrib: u32,
        dev: i32,
    ) -> CuResult {
        let pi = pi.ok_or(Status::INVALID_VALUE)?;
        let device = &self.slot(dev)?.device;
        *pi = i32::try_from(attrib).map_or(0, |id| device.attribute(id));
        Ok(())
    }

    fn cuDeviceGetProperties(&self, _: &mut Call<'_>, prop: Option<&mut [u8; 56]>, dev: i32) -> CuResult {
        let device = &self.slot(dev)?.device;
        let get = |id| device.attribute(id);
        // CUdevprop: maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3], sharedMemPerBlock, totalConstantMemory, SIMDWidth, memPitch,
        // regsPerBlock, clockRate, textureAlign.
        let mut words = vec![MAX_THREADS_PER_BLOCK as i32];
        words.extend(MAX_BLOCK.map(|size| size as i32));
        words.extend(MAX_GRID.map(|size| size as i32));
        words.extend([get(8), get(9), get(10), get(11), get(12), get(13), get(14)]);
        let prop = prop.ok_or(Status::INVALID_VALUE)?;
        for (place, word) in prop.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    fn cuDeviceComputeCapability(
        &self,
        _: &mut Call<'_>,
        major: Option<&mut i32>,
        minor: Option<&mut i32>,
        dev: i32,
    ) -> CuResult {
        let device = &self.slot(dev)?.device;
        put(major, device.attribute(attribute::COMPUTE_CAPABILITY_MAJOR))?;
        put(minor, device.attribute(attribute::COMPUTE_CAPABILITY_MINOR))
    }

    fn cuDeviceGetByPCIBusId(
        &self,
        _: &mut Call<'_>,
        dev: Option<&mut i32>,
        pciBusId: Option<&CStr>,
    ) -> CuResult {
        let dev = dev.ok_or(Status::INVALID_VALUE)?;
        let wanted = pciBusId.ok_or(Status::INVALID_VALUE)?.to_string_lossy().to_ascii_lowercase();
        for ordinal in 0..i32::try_from(self.device_count()).unwrap_or(i32::MAX) {
            // The domain and the function may be left out: 00000000:01:00.0, 01:00.0 and 01:00 name the same device.
            let full = self.slot(ordinal)?.device.pci_bus_id();
            let short = full.strip_prefix("00000000:").unwrap_or(&full);
            let bare = short.trim_end_matches(".0");
            if wanted == full
                || wanted == short
                || wanted == bare
                || wanted.strip_prefix("0000:") == Some(short)
            {
                *dev = ordinal;
                return Ok(());
            }
        }
        Err(Status::INVALID_DEVICE)
    }

    fn cuDeviceGetPCIBusId(
        &self,
        _: &mut Call<'_>,
        pciBusId: Option<&mut [u8]>,
        len: i32,
        dev: i32,
    ) -> CuResult {
        if len <= 0 {
            return Err(Status::INVALID_VALUE);
        }
        put_text(pciBusId, &self.slot(dev)?.device.pci_bus_id())
    }

    fn cuDeviceGetTexture1DLinearMaxWidth(
        &self,
        _: &mut Call<'_>,
        maxWidthInElements: Option<&mut u64>,
        _format: u32,
        numChannels: u32,
        dev: i32,
    ) -> CuResult {
        self.slot(dev)?;
        if !matches!(numChannels, 1 | 2 | 4) {
            return Err(Status::INVALID_VALUE);
        }
        put(maxWidthInElements, 268_435_456)
    }

    fn cuDeviceGetExecAffinitySupport(
        &self,
        _: &mut Call<'_>,
        pi: Option<&mut i32>,
        _type: u32,
        dev: i32,
    ) -> CuResult {
        self.slot(dev)?;
        put(pi, 0)
    }
}

impl PeerCalls for CpuBackend {
    fn cuDeviceCanAccessPeer(
        &self,
        _: &mut Call<'_>,
        canAccessPeer: Option<&mut i32>,
        dev: i32,
        peerDev: i32,
    ) -> CuResult {
        self.slot(dev)?;
        self.slot(peerDev)?;
        // All devices are the same memory.
        put(canAccessPeer, i32::from(dev != peerDev))
    }

    fn cuDeviceGetP2PAttribute(
        &self,
        _: &mut Call<'_>,
        value: Option<&mut i32>,
        attrib: u32,
        srcDevice: i32,
        dstDevice: i32,
    ) -> CuResult {
        self.slot(srcDevice)?;
        self.slot(dstDevice)?;
        if srcDevice == dstDevice {
            return Err(Status::INVALID_DEVICE);
        }
        // 1 performance rank, 2 access supported, 3 native atomics supported, 4 access to arrays supported.
        match attrib {
            1 => put(value, 0),
            2 | 3 => put(value, 1),
            4 => put(value, 0),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    fn cuCtxEnablePeerAccess(&self, call: &mut Call<'_>, peerContext: u64, Flags: u32) -> CuResult {
        let live = self.live(call)?;
        let peer = self.live_of(peerContext)?;
        if Flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        if peer.device == live.device { Err(Status::INVALID_DEVICE) } else { Ok(()) }
    }

    fn cuCtxDisablePeerAccess(&self, call: &mut Call<'_>, peerContext: u64) -> CuResult {
        self.live(call)?;
        self.live_of(peerContext).map(drop)
    }

    fn cuFlushGPUDirectRDMAWrites(&self, call: &mut Call<'_>, _target: u32, _scope: u32) -> CuResult {
        self.live(call).map(drop)
    }
}
