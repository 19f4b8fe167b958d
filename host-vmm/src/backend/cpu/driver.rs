//! The driver calls of the CPU backend: argument checks in the driver's order, then the modules beside this one.
#![allow(non_snake_case)] // The driver's names.

use core::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::status::{CuResult, Status};
use ptx_cpu::engine::OutputStream;

use super::CpuBackend;
use super::callback::Due;
use super::context::{self, Context};
use super::copy::{Area, Value};
use super::device::{MAX_BLOCK, MAX_GRID, MAX_PITCH, MAX_THREADS_PER_BLOCK, PITCH_ALIGNMENT, attribute};
use super::image::LoadFailure;
use super::launch::Launch;
use super::memory::{Kind, Rows};
use super::module::Images;
use super::occupancy;
use super::pool::Pool;
use super::sched::Work;
use super::stream::GREATEST_PRIORITY;
use crate::generated::driver::Driver;
use crate::session::Call;
use crate::worker::registry::RegistryError;

/// `CU_MEM_ATTACH_GLOBAL | CU_MEM_ATTACH_HOST`
const ATTACH_FLAGS: u32 = 3;
/// `CU_MEMHOSTALLOC_PORTABLE | DEVICEMAP | WRITECOMBINED`
const HOST_ALLOC_FLAGS: u32 = 7;

/// Writes through an out-pointer that must not be NULL.
fn put<T>(out: Option<&mut T>, value: T) -> CuResult {
    *out.ok_or(Status::INVALID_VALUE)? = value;
    Ok(())
}

/// Writes a NUL-terminated text, cut to the buffer.
fn put_text(out: Option<&mut [u8]>, text: &str) -> CuResult {
    let out = out.filter(|out| !out.is_empty()).ok_or(Status::INVALID_VALUE)?;
    let len = text.len().min(out.len() - 1);
    out[..len].copy_from_slice(&text.as_bytes()[..len]);
    out[len] = 0;
    Ok(())
}

impl Driver for CpuBackend {
    // Session

    fn cuInit(&self, _: &mut Call<'_>, Flags: u32) -> CuResult {
        if Flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        if self.device_count() == 0 { Err(Status::NO_DEVICE) } else { Ok(()) }
    }

    fn lane_set_context(&self, call: &mut Call<'_>, ctx: u64) -> CuResult {
        call.lane.context = ctx;
        Ok(())
    }

    fn set_visible_devices(&self, _: &mut Call<'_>, list: Option<&CStr>) -> CuResult {
        self.set_visible(&list.ok_or(Status::INVALID_VALUE)?.to_string_lossy());
        Ok(())
    }

    fn image_query(
        &self,
        call: &mut Call<'_>,
        hash: Option<&[u8; 32]>,
        len: u64,
        present: Option<&mut u32>,
    ) -> CuResult {
        let image = call.session.registry.get(hash.ok_or(Status::INVALID_VALUE)?);
        let here = image.is_some_and(|image| image.len() as u64 == len);
        if here {
            call.session.counters.images_cached.fetch_add(1, Ordering::Relaxed);
        }
        put(present, u32::from(here))
    }

    fn image_chunk(
        &self,
        call: &mut Call<'_>,
        hash: Option<&[u8; 32]>,
        offset: u64,
        staging_offset: u64,
        len: u64,
    ) -> CuResult {
        let hash = hash.ok_or(Status::INVALID_VALUE)?;
        let address = call.staging(staging_offset, len).ok_or(Status::INVALID_VALUE)?;
        // Bounded by the staging area. The bytes are copied before they are looked at: the program may change them meanwhile.
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| Status::INVALID_VALUE)?];
        self.memory
            .region()
            .copy_out(address, &mut bytes)
            .map_err(|error| super::memory::status_of(&error))?;
        call.session.registry.chunk(hash, offset, &bytes).map_err(|error| image_status(&error))
    }

    fn image_commit(&self, call: &mut Call<'_>, hash: Option<&[u8; 32]>, len: u64) -> CuResult {
        let hash = hash.ok_or(Status::INVALID_VALUE)?;
        call.session.registry.commit(hash, len).map_err(|error| image_status(&error))?;
        call.session.counters.images_sent.fetch_add(1, Ordering::Relaxed);
        call.session.counters.image_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    fn image_read(
        &self,
        call: &mut Call<'_>,
        hash: [u8; 32],
        offset: u64,
        staging_offset: u64,
        len: u64,
    ) -> CuResult {
        let image = call.session.registry.get(&hash).ok_or(Status::NOT_FOUND)?;
        let address = call.staging(staging_offset, len).ok_or(Status::INVALID_VALUE)?;
        let end =
            offset.checked_add(len).filter(|end| *end <= image.len() as u64).ok_or(Status::INVALID_VALUE)?;
        let bytes = &image[offset as usize..end as usize];
        self.memory.region().copy_in(address, bytes).map_err(|error| super::memory::status_of(&error))
    }

    fn device_output(
        &self,
        call: &mut Call<'_>,
        max_len: u32,
        stream: Option<&mut u32>,
        text: Option<&mut Vec<u8>>,
    ) -> CuResult {
        let text = text.ok_or(Status::INVALID_VALUE)?;
        // The other outputs and the length word need room in the reply as well.
        let max = (max_len as usize).min(call.max_body().saturating_sub(32));
        let (from, bytes) = self.output.take(max).unwrap_or((OutputStream::Stdout, Vec::new()));
        *text = bytes;
        call.device_output = self.output.pending();
        put(stream, if from == OutputStream::Stdout { 1 } else { 2 })
    }

    fn callback_post(&self, call: &mut Call<'_>, stream: u64, id: u64, kind: u32) -> CuResult {
        let target = self.target(call, stream)?;
        let (callbacks, live) = (Arc::clone(&self.callbacks), Arc::clone(&target.live));
        let work: Work = Box::new(move |_| {
            let status = live.check().err().unwrap_or(Status::SUCCESS);
            // Stream callbacks are told of an error, host functions are not called after one.
            if status.is_success() || kind == 0 {
                callbacks.call(Due { id, status });
            }
        });
        self.submit(&target, Vec::new(), work).map(drop)
    }

    fn callback_next(&self, _: &mut Call<'_>, id: Option<&mut u64>, status: Option<&mut u32>) -> CuResult {
        let due = self.callbacks.next();
        put(id, due.id)?;
        put(status, due.status.0)
    }

    fn callback_done(&self, _: &mut Call<'_>, id: u64) -> CuResult {
        self.callbacks.done(id);
        Ok(())
    }

    // Devices

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

    // Modules, functions, launches

    fn module_load(
        &self,
        call: &mut Call<'_>,
        count: u32,
        hashes: Option<&[u8]>,
        forms: Option<&[u8]>,
        _options: Option<&[u8]>,
        result: Option<&mut u32>,
        module: Option<&mut u64>,
        _info_log: Option<&mut Vec<u8>>,
        error_log: Option<&mut Vec<u8>>,
    ) -> CuResult {
        let loaded = self.load_module(call, Images { count, hashes, forms });
        self.answer_load(call, loaded, result, module, error_log)
    }

    fn library_load(
        &self,
        call: &mut Call<'_>,
        count: u32,
        hashes: Option<&[u8]>,
        forms: Option<&[u8]>,
        _options: Option<&[u8]>,
        result: Option<&mut u32>,
        library: Option<&mut u64>,
        _info_log: Option<&mut Vec<u8>>,
        error_log: Option<&mut Vec<u8>>,
    ) -> CuResult {
        let loaded = self.load_library(call, Images { count, hashes, forms });
        self.answer_load(call, loaded, result, library, error_log)
    }

    fn link_images(
        &self,
        call: &mut Call<'_>,
        count: u32,
        hashes: Option<&[u8]>,
        forms: Option<&[u8]>,
        _options: Option<&[u8]>,
        result: Option<&mut u32>,
        hash: Option<&mut [u8; 32]>,
        form: Option<&mut u32>,
        len: Option<&mut u64>,
        _info_log: Option<&mut Vec<u8>>,
        error_log: Option<&mut Vec<u8>>,
    ) -> CuResult {
        let mut size = 0;
        let linked = self.link_to_image(call, Images { count, hashes, forms }).and_then(|image| {
            let store = || -> CuResult {
                put(hash, image.0)?;
                put(form, image.1)?;
                put(len, image.2)
            };
            store().map_err(|status| LoadFailure { status, log: String::new() }).map(|()| image.2)
        });
        self.answer_load(call, linked, result, Some(&mut size), error_log)
    }

    fn function_info(&self, call: &mut Call<'_>, function: u64, info: Option<&mut Vec<u8>>) -> CuResult {
        self.function_describe(call, function, info)
    }

    fn launch(
        &self,
        call: &mut Call<'_>,
        function: u64,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: u64,
        flags: u32,
        cluster_x: u32,
        cluster_y: u32,
        cluster_z: u32,
        params: Option<&[u8]>,
    ) -> CuResult {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let cluster = [cluster_x, cluster_y, cluster_z];
        self.launch_kernel(
            call,
            &Launch { function, grid, block, shared_bytes, stream, flags, cluster, params },
        )
    }

    fn cuModuleUnload(&self, call: &mut Call<'_>, hmod: u64) -> CuResult {
        self.module_unload(call, hmod)
    }

    fn cuModuleGetFunction(
        &self,
        call: &mut Call<'_>,
        hfunc: Option<&mut u64>,
        hmod: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        let hfunc = hfunc.ok_or(Status::INVALID_VALUE)?;
        *hfunc = self.module_function(call, hmod, name)?;
        Ok(())
    }

    fn cuModuleGetGlobal_v2(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        bytes: Option<&mut u64>,
        hmod: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        put_global(self.module_global(call, hmod, name)?, dptr, bytes)
    }

    fn cuModuleGetFunctionCount(&self, _: &mut Call<'_>, count: Option<&mut u32>, mod_: u64) -> CuResult {
        put(count, self.module_functions(mod_)?.len() as u32)
    }

    fn cuModuleEnumerateFunctions(
        &self,
        _: &mut Call<'_>,
        functions: Option<&mut [u8]>,
        numFunctions: u32,
        mod_: u64,
    ) -> CuResult {
        self.functions_out(functions, numFunctions, &self.module_functions(mod_)?)
    }

    fn cuLibraryUnload(&self, _: &mut Call<'_>, library: u64) -> CuResult {
        self.library_unload(library)
    }

    fn cuLibraryGetKernel(
        &self,
        _: &mut Call<'_>,
        pKernel: Option<&mut u64>,
        library: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        let kernel = pKernel.ok_or(Status::INVALID_VALUE)?;
        *kernel = self.library_kernel(library, name)?;
        Ok(())
    }

    fn cuLibraryGetModule(&self, call: &mut Call<'_>, pMod: Option<&mut u64>, library: u64) -> CuResult {
        let module = pMod.ok_or(Status::INVALID_VALUE)?;
        *module = self.library_get_module(call, library)?;
        Ok(())
    }

    fn cuLibraryGetGlobal(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        bytes: Option<&mut u64>,
        library: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        put_global(self.library_global(call, library, name, false)?, dptr, bytes)
    }

    fn cuLibraryGetManaged(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        bytes: Option<&mut u64>,
        library: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        put_global(self.library_global(call, library, name, true)?, dptr, bytes)
    }

    fn cuLibraryGetKernelCount(&self, _: &mut Call<'_>, count: Option<&mut u32>, lib: u64) -> CuResult {
        put(count, self.library_kernels(lib)?.len() as u32)
    }

    fn cuLibraryEnumerateKernels(
        &self,
        _: &mut Call<'_>,
        kernels: Option<&mut [u8]>,
        numKernels: u32,
        lib: u64,
    ) -> CuResult {
        self.functions_out(kernels, numKernels, &self.library_kernels(lib)?)
    }

    fn cuKernelGetFunction(&self, call: &mut Call<'_>, pFunc: Option<&mut u64>, kernel: u64) -> CuResult {
        let function = pFunc.ok_or(Status::INVALID_VALUE)?;
        *function = self.kernel_get_function(call, kernel)?;
        Ok(())
    }

    fn cuFuncSetAttribute(&self, call: &mut Call<'_>, hfunc: u64, attrib: u32, value: i32) -> CuResult {
        self.function_set(call, hfunc, attrib, value)
    }

    fn cuFuncSetCacheConfig(&self, call: &mut Call<'_>, hfunc: u64, config: u32) -> CuResult {
        let live = self.live(call)?;
        self.function(&live, hfunc)?;
        // None, shared, L1, equal.
        if config > 3 { Err(Status::INVALID_VALUE) } else { Ok(()) }
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        &self,
        call: &mut Call<'_>,
        numBlocks: Option<&mut i32>,
        func: u64,
        blockSize: i32,
        dynamicSMemSize: u64,
    ) -> CuResult {
        let live = self.live(call)?;
        let (_, function) = self.function(&live, func)?;
        let size = u32::try_from(blockSize).ok().filter(|size| *size > 0).ok_or(Status::INVALID_VALUE)?;
        let shape = self.device_of(&live).shape();
        let blocks = occupancy::blocks_per_multiprocessor(&shape, &function.need()?, size, dynamicSMemSize);
        put(numBlocks, blocks as i32)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        &self,
        call: &mut Call<'_>,
        numBlocks: Option<&mut i32>,
        func: u64,
        blockSize: i32,
        dynamicSMemSize: u64,
        flags: u32,
    ) -> CuResult {
        // CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE
        if flags & !1 != 0 {
            return Err(Status::INVALID_VALUE);
        }
        self.cuOccupancyMaxActiveBlocksPerMultiprocessor(call, numBlocks, func, blockSize, dynamicSMemSize)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        &self,
        call: &mut Call<'_>,
        dynamicSmemSize: Option<&mut u64>,
        func: u64,
        numBlocks: i32,
        blockSize: i32,
    ) -> CuResult {
        let live = self.live(call)?;
        let (_, function) = self.function(&live, func)?;
        if numBlocks <= 0 || blockSize <= 0 {
            return Err(Status::INVALID_VALUE);
        }
        let shape = self.device_of(&live).shape();
        put(dynamicSmemSize, occupancy::available_shared(&shape, &function.need()?, numBlocks as u32))
    }

    // Contexts

    fn primary_context(&self, _: &mut Call<'_>, device: i32, ctx: Option<&mut u64>) -> CuResult {
        put(ctx, self.slot(device)?.primary.handle)
    }

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

    // Streams and events

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

    fn cuEventCreate(&self, call: &mut Call<'_>, phEvent: Option<&mut u64>, Flags: u32) -> CuResult {
        self.event_create(call, phEvent, Flags)
    }

    fn cuEventDestroy_v2(&self, _: &mut Call<'_>, hEvent: u64) -> CuResult {
        self.handles.remove::<super::Event>(hEvent).map(drop).map_err(|_| Status::INVALID_HANDLE)
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

    // Memory

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
        let allocation = self.memory.find(dptr).ok_or(Status::NOT_FOUND)?;
        // Either may be NULL.
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

    fn cuMemFreeAsync(&self, call: &mut Call<'_>, dptr: u64, hStream: u64) -> CuResult {
        let target = self.target(call, hStream)?;
        self.free_async(&target, dptr)
    }

    fn pointer_info(
        &self,
        _: &mut Call<'_>,
        address: u64,
        kind: Option<&mut u32>,
        base: Option<&mut u64>,
        size: Option<&mut u64>,
        ctx: Option<&mut u64>,
        device: Option<&mut i32>,
        flags: Option<&mut u32>,
        buffer_id: Option<&mut u64>,
        pool: Option<&mut u64>,
    ) -> CuResult {
        let Some(allocation) = self.memory.find(address) else { return put(kind, 0) };
        put(
            kind,
            match allocation.kind {
                Kind::Device | Kind::Pool(_) | Kind::Global => 1,
                Kind::Host => 2,
                Kind::Managed | Kind::ManagedGlobal => 3,
            },
        )?;
        put(base, allocation.base)?;
        put(size, allocation.len)?;
        put(ctx, allocation.context)?;
        put(device, self.ordinal(allocation.device))?;
        put(flags, allocation.flags)?;
        put(buffer_id, allocation.id)?;
        put(pool, if let Kind::Pool(handle) = allocation.kind { handle } else { 0 })
    }

    // Pools

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

    fn pool_get_attribute(
        &self,
        _: &mut Call<'_>,
        pool: u64,
        attribute: u32,
        value: Option<&mut u64>,
    ) -> CuResult {
        let object = self.handles.get::<Pool>(pool).map_err(|_| Status::INVALID_VALUE)?;
        put(value, object.attribute(attribute)?)
    }

    fn pool_set_attribute(&self, _: &mut Call<'_>, pool: u64, attribute: u32, value: u64) -> CuResult {
        let object = self.handles.get::<Pool>(pool).map_err(|_| Status::INVALID_VALUE)?;
        object.set_attribute(attribute, value)
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

    // Copies and fills

    fn copy(&self, call: &mut Call<'_>, dst: u64, src: u64, len: u64, stream: u64) -> CuResult {
        let rows = Rows { width: len, height: 1, dst_pitch: len, src_pitch: len };
        self.copy_rows(call, dst, src, rows, stream)
    }

    fn copy_2d(
        &self,
        call: &mut Call<'_>,
        dst: u64,
        dst_pitch: u64,
        src: u64,
        src_pitch: u64,
        width: u64,
        height: u64,
        stream: u64,
    ) -> CuResult {
        self.copy_rows(call, dst, src, Rows { width, height, dst_pitch, src_pitch }, stream)
    }

    fn stage_in(
        &self,
        call: &mut Call<'_>,
        dst: u64,
        pitch: u64,
        staging_offset: u64,
        width: u64,
        height: u64,
        stream: u64,
        _flags: u32,
    ) -> CuResult {
        let len = width.checked_mul(height).ok_or(Status::INVALID_VALUE)?;
        let src = call.staging(staging_offset, len).ok_or(Status::INVALID_VALUE)?;
        call.session.counters.bytes_in.fetch_add(len, Ordering::Relaxed);
        let rows = Rows { width, height, dst_pitch: pitch, src_pitch: width };
        self.stage(call, dst, src, rows, stream)
    }

    fn stage_in_last(
        &self,
        call: &mut Call<'_>,
        dst: u64,
        pitch: u64,
        staging_offset: u64,
        width: u64,
        height: u64,
        stream: u64,
        flags: u32,
    ) -> CuResult {
        self.stage_in(call, dst, pitch, staging_offset, width, height, stream, flags)
    }

    fn stage_out(
        &self,
        call: &mut Call<'_>,
        src: u64,
        pitch: u64,
        staging_offset: u64,
        width: u64,
        height: u64,
        stream: u64,
        _flags: u32,
    ) -> CuResult {
        let len = width.checked_mul(height).ok_or(Status::INVALID_VALUE)?;
        let dst = call.staging(staging_offset, len).ok_or(Status::INVALID_VALUE)?;
        call.session.counters.bytes_out.fetch_add(len, Ordering::Relaxed);
        let rows = Rows { width, height, dst_pitch: width, src_pitch: pitch };
        self.stage(call, dst, src, rows, stream)
    }

    fn stage_out_last(
        &self,
        call: &mut Call<'_>,
        src: u64,
        pitch: u64,
        staging_offset: u64,
        width: u64,
        height: u64,
        stream: u64,
        flags: u32,
    ) -> CuResult {
        self.stage_out(call, src, pitch, staging_offset, width, height, stream, flags)
    }

    fn cuMemsetD8_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        uc: u8,
        N: u64,
        default_stream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U8(uc), default_stream)
    }

    fn cuMemsetD16_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        us: u16,
        N: u64,
        default_stream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U16(us), default_stream)
    }

    fn cuMemsetD32_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        ui: u32,
        N: u64,
        default_stream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U32(ui), default_stream)
    }

    fn cuMemsetD2D8_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        uc: u8,
        Width: u64,
        Height: u64,
        default_stream: u64,
    ) -> CuResult {
        let area = Area { dst: dstDevice, pitch: dstPitch, width: Width, height: Height };
        self.fill(call, area, Value::U8(uc), default_stream)
    }

    fn cuMemsetD2D16_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        us: u16,
        Width: u64,
        Height: u64,
        default_stream: u64,
    ) -> CuResult {
        let area = Area { dst: dstDevice, pitch: dstPitch, width: Width, height: Height };
        self.fill(call, area, Value::U16(us), default_stream)
    }

    fn cuMemsetD2D32_v2(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        ui: u32,
        Width: u64,
        Height: u64,
        default_stream: u64,
    ) -> CuResult {
        let area = Area { dst: dstDevice, pitch: dstPitch, width: Width, height: Height };
        self.fill(call, area, Value::U32(ui), default_stream)
    }

    fn cuMemsetD8Async(&self, call: &mut Call<'_>, dstDevice: u64, uc: u8, N: u64, hStream: u64) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U8(uc), hStream)
    }

    fn cuMemsetD16Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        us: u16,
        N: u64,
        hStream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U16(us), hStream)
    }

    fn cuMemsetD32Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        ui: u32,
        N: u64,
        hStream: u64,
    ) -> CuResult {
        self.fill_row(call, dstDevice, N, Value::U32(ui), hStream)
    }

    fn cuMemsetD2D8Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        uc: u8,
        Width: u64,
        Height: u64,
        hStream: u64,
    ) -> CuResult {
        self.cuMemsetD2D8_v2(call, dstDevice, dstPitch, uc, Width, Height, hStream)
    }

    fn cuMemsetD2D16Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        us: u16,
        Width: u64,
        Height: u64,
        hStream: u64,
    ) -> CuResult {
        self.cuMemsetD2D16_v2(call, dstDevice, dstPitch, us, Width, Height, hStream)
    }

    fn cuMemsetD2D32Async(
        &self,
        call: &mut Call<'_>,
        dstDevice: u64,
        dstPitch: u64,
        ui: u32,
        Width: u64,
        Height: u64,
        hStream: u64,
    ) -> CuResult {
        self.cuMemsetD2D32_v2(call, dstDevice, dstPitch, ui, Width, Height, hStream)
    }
}

/// Address and size of a variable; either out-pointer may be NULL.
fn put_global(global: (u64, u64), address: Option<&mut u64>, size: Option<&mut u64>) -> CuResult {
    if let Some(out) = address {
        *out = global.0;
    }
    if let Some(out) = size {
        *out = global.1;
    }
    Ok(())
}

/// The CUresult for an image that the registry does not accept. The program's shim made the image, so this is its or our defect.
fn image_status(error: &RegistryError) -> Status {
    tracing::warn!("image refused: {error}");
    match error {
        RegistryError::TooLarge { .. } => Status::OUT_OF_MEMORY,
        _ => Status::INVALID_IMAGE,
    }
}
