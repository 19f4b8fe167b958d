//! Calls of the session itself: start, images, launches, staged copies, callbacks, output.
#![allow(non_snake_case)] // The driver's names.

use core::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::status::{CuResult, Status};
use ptx_cpu::engine::OutputStream;

use super::{image_status, put};
use crate::backend::callback::Due;
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::image::LoadFailure;
use crate::backend::cpu::launch::Launch;
use crate::backend::cpu::memory::Kind;
use crate::backend::cpu::memory::Rows;
use crate::backend::cpu::module::Images;
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::sched::Work;
use crate::generated::driver::{InitCalls, InternalCalls};
use crate::session::Call;
use crate::worker::guest_memory::Direction;

impl InitCalls for CpuBackend {
    fn cuInit(&self, _: &mut Call<'_>, Flags: u32) -> CuResult {
        if Flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        if self.device_count() == 0 { Err(Status::NO_DEVICE) } else { Ok(()) }
    }
}

impl InternalCalls for CpuBackend {
    fn lane_set_context(&self, call: &mut Call<'_>, ctx: u64) -> CuResult {
        call.lane.context = ctx;
        Ok(())
    }

    fn set_visible_devices(&self, _: &mut Call<'_>, list: Option<&CStr>) -> CuResult {
        self.set_visible(&list.ok_or(Status::INVALID_VALUE)?.to_string_lossy())
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
            .map_err(|error| crate::backend::cpu::memory::status_of(&error))?;
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
        self.memory
            .region()
            .copy_in(address, bytes)
            .map_err(|error| crate::backend::cpu::memory::status_of(&error))
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

    fn launch_with_attributes(
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
        attributes: Option<&[u8]>,
        params: Option<&[u8]>,
    ) -> CuResult {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let (mut flags, mut cluster) = (0, [0; 3]);
        // CUlaunchAttribute: id, padding, 64 bytes of value. The others are hints, or say no more than stream order does.
        for attribute in attributes.unwrap_or_default().chunks_exact(72) {
            let word = |at: usize| attribute[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
            match word(0) {
                2 => flags = u32::from(word(8) != 0),
                4 => cluster = [word(8), word(12), word(16)],
                _ => {}
            }
        }
        self.launch_kernel(
            call,
            &Launch { function, grid, block, shared_bytes, stream, flags, cluster, params },
        )
    }

    fn primary_context(&self, _: &mut Call<'_>, device: i32, ctx: Option<&mut u64>) -> CuResult {
        put(ctx, self.slot(device)?.primary.handle)
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
                Kind::Host | Kind::Registered => 2,
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

    fn lent_in(
        &self,
        call: &mut Call<'_>,
        dst: u64,
        region: u64,
        region_len: u64,
        offset: u64,
        len: u64,
        stream: u64,
    ) -> CuResult {
        call.session.counters.bytes_in.fetch_add(len, Ordering::Relaxed);
        self.lent(call, (region, region_len, offset), Direction::Read, dst, len, stream)
    }

    fn lent_out(
        &self,
        call: &mut Call<'_>,
        src: u64,
        region: u64,
        region_len: u64,
        offset: u64,
        len: u64,
        stream: u64,
    ) -> CuResult {
        call.session.counters.bytes_out.fetch_add(len, Ordering::Relaxed);
        self.lent(call, (region, region_len, offset), Direction::Write, src, len, stream)
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

    fn stage_out_watched(
        &self,
        call: &mut Call<'_>,
        src: u64,
        staging_offset: u64,
        len: u64,
        stream: u64,
    ) -> CuResult {
        let dst = call.staging(staging_offset, len).ok_or(Status::INVALID_VALUE)?;
        call.session.counters.bytes_out.fetch_add(len, Ordering::Relaxed);
        self.stage_watched(call, dst, src, len, stream)
    }
}
