//! The operations of `spec/internal.rs`: the session, images, copies, pointers. Launches are in `super::super::launch`.

use core::ffi::CStr;
use std::sync::atomic::Ordering;

use protocol::function::FunctionInfo;
use protocol::status::{CuResult, Status};
use protocol::wire::Writer;

use super::put;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::callback::callbacks;
use crate::backend::cuda::images::{Logs, Request};
use crate::backend::cuda::launch::{Launch, Shape};
use crate::backend::cuda::private;
use crate::backend::cuda::staging::Rows;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;
use crate::worker::guest_memory::Direction;
use crate::worker::registry::RegistryError;

pub fn lane_set_context(cuda: &CudaBackend, call: &mut Call<'_>, ctx: u64) -> CuResult {
    call.lane.context = ctx;
    let raw = cuda.inward(Kind::CUcontext, ctx);
    // SAFETY: takes a handle of the driver, or NULL for one that has gone.
    let result = unsafe { cuda.raw().cuCtxSetCurrent(raw.unwrap_or(0)) };
    raw.and(result)
}

pub fn set_visible_devices(cuda: &CudaBackend, _: &mut Call<'_>, list: Option<&CStr>) -> CuResult {
    cuda.set_visible(&list.ok_or(Status::INVALID_VALUE)?.to_string_lossy())
}

pub fn device_ranges(cuda: &CudaBackend, _: &mut Call<'_>, ranges: Option<&mut Vec<u8>>) -> CuResult {
    let outside = cuda.space.outside();
    let words = outside.iter().flat_map(|range| [range.start, range.end]);
    put(ranges, words.flat_map(u64::to_le_bytes).collect())
}

/// The CUresult for an image that the registry does not accept. The program's shim made the image, so this is its or our defect.
fn image_status(error: &RegistryError) -> Status {
    tracing::warn!("image refused: {error}");
    match error {
        RegistryError::TooLarge { .. } | RegistryError::TooMany => Status::OUT_OF_MEMORY,
        _ => Status::INVALID_IMAGE,
    }
}

pub fn image_query(
    _: &CudaBackend,
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

/// The offset in the window of `len` bytes of the staging area.
fn staging(call: &Call<'_>, offset: u64, len: u64) -> CuResult<u64> {
    let address = call.staging(offset, len).ok_or(Status::INVALID_VALUE)?;
    call.session.window.offset(address).ok_or(Status::INVALID_VALUE)
}

pub fn image_chunk(
    _: &CudaBackend,
    call: &mut Call<'_>,
    hash: Option<&[u8; 32]>,
    offset: u64,
    staging_offset: u64,
    len: u64,
) -> CuResult {
    let hash = hash.ok_or(Status::INVALID_VALUE)?;
    let at = staging(call, staging_offset, len)?;
    // Bounded by the staging area. The bytes are copied before they are looked at: the program may change them meanwhile.
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| Status::INVALID_VALUE)?];
    call.session.window.mapped().copy_out(at, &mut bytes).map_err(|_| Status::INVALID_VALUE)?;
    call.session.registry.chunk(hash, offset, &bytes).map_err(|error| image_status(&error))
}

pub fn image_commit(_: &CudaBackend, call: &mut Call<'_>, hash: Option<&[u8; 32]>, len: u64) -> CuResult {
    let hash = hash.ok_or(Status::INVALID_VALUE)?;
    call.session.registry.commit(hash, len).map_err(|error| image_status(&error))?;
    call.session.counters.images_sent.fetch_add(1, Ordering::Relaxed);
    call.session.counters.image_bytes.fetch_add(len, Ordering::Relaxed);
    Ok(())
}

pub fn image_read(
    _: &CudaBackend,
    call: &mut Call<'_>,
    hash: [u8; 32],
    offset: u64,
    staging_offset: u64,
    len: u64,
) -> CuResult {
    let image = call.session.registry.get(&hash).ok_or(Status::NOT_FOUND)?;
    let at = staging(call, staging_offset, len)?;
    let end = offset.checked_add(len).filter(|end| *end <= image.len() as u64);
    let end = end.ok_or(Status::INVALID_VALUE)?;
    let bytes = &image[offset as usize..end as usize];
    call.session.window.mapped().copy_in(at, bytes).map_err(|_| Status::INVALID_VALUE)
}

/// Answers a load: the result is an output, so that the logs come with it.
fn answer(
    loaded: CuResult,
    logs: Logs,
    result: Option<&mut u32>,
    info_log: Option<&mut Vec<u8>>,
    error_log: Option<&mut Vec<u8>>,
) -> CuResult {
    if let Some(log) = info_log {
        *log = logs.info;
    }
    if let Some(log) = error_log {
        *log = logs.error;
    }
    put(result, loaded.err().unwrap_or(Status::SUCCESS).0)
}

pub fn module_load(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    count: u32,
    hashes: Option<&[u8]>,
    forms: Option<&[u8]>,
    options: Option<&[u8]>,
    result: Option<&mut u32>,
    module: Option<&mut u64>,
    info_log: Option<&mut Vec<u8>>,
    error_log: Option<&mut Vec<u8>>,
) -> CuResult {
    cuda.room()?;
    let request = Request { count, hashes, forms, options };
    let (loaded, logs) = cuda.load_module(call, request);
    let loaded = loaded.and_then(|loaded| put(module, cuda.born_loaded(call, Kind::CUmodule, loaded)?));
    answer(loaded, logs, result, info_log, error_log)
}

pub fn library_load(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    count: u32,
    hashes: Option<&[u8]>,
    forms: Option<&[u8]>,
    options: Option<&[u8]>,
    result: Option<&mut u32>,
    library: Option<&mut u64>,
    info_log: Option<&mut Vec<u8>>,
    error_log: Option<&mut Vec<u8>>,
) -> CuResult {
    cuda.room()?;
    let request = Request { count, hashes, forms, options };
    let (loaded, logs) = cuda.load_library(call, request);
    let loaded = loaded.and_then(|loaded| put(library, cuda.born_loaded(call, Kind::CUlibrary, loaded)?));
    answer(loaded, logs, result, info_log, error_log)
}

pub fn link_images(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    count: u32,
    hashes: Option<&[u8]>,
    forms: Option<&[u8]>,
    options: Option<&[u8]>,
    result: Option<&mut u32>,
    hash: Option<&mut [u8; 32]>,
    form: Option<&mut u32>,
    len: Option<&mut u64>,
    info_log: Option<&mut Vec<u8>>,
    error_log: Option<&mut Vec<u8>>,
) -> CuResult {
    let request = Request { count, hashes, forms, options };
    let (linked, logs) = cuda.link_to_image(&call.session.registry, request);
    let linked = linked.and_then(|image| {
        put(hash, image.0)?;
        put(form, image.1)?;
        put(len, image.2)
    });
    answer(linked, logs, result, info_log, error_log)
}

/// Attributes that driver 580 has; those that it does not know end the list.
const ATTRIBUTES: u32 = 16;

pub fn function_info(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    function: u64,
    info: Option<&mut Vec<u8>>,
) -> CuResult {
    let raw = cuda.inward(Kind::CUfunction, function)?;
    let kernel = cuda.handles.kind(function) == Ok(Kind::CUkernel);
    let device = if kernel { cuda.current_device().unwrap_or(0) } else { 0 };
    let driver = cuda.raw();
    if !kernel {
        // One from the list of a module's functions is not loaded yet, and tells nothing before it is. A driver that cannot load by itself has loaded it.
        // SAFETY: takes a handle of the driver.
        let _ = unsafe { driver.cuFuncLoad(raw) };
    }
    let name = cuda.function_name(function)?;
    let mut attributes = Vec::new();
    for attribute in 0..ATTRIBUTES {
        let mut value = 0;
        // SAFETY: the output is a variable of the right type.
        let known = unsafe {
            if kernel {
                driver.cuKernelGetAttribute(&mut value, attribute, raw, device)
            } else {
                driver.cuFuncGetAttribute(&mut value, attribute, raw)
            }
        };
        match known {
            Ok(()) => attributes.push(value),
            // The first one is one that every driver has: a kernel that cannot be loaded says so here.
            Err(status) if attribute == 0 => return Err(status),
            Err(_) => break,
        }
    }
    let params = cuda.params(function)?;
    let described = FunctionInfo { handle: function, name, attributes, params };
    described.encode(&mut Writer::new(info.ok_or(Status::INVALID_VALUE)?));
    Ok(())
}

pub fn launch(
    cuda: &CudaBackend,
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
    let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
    let cluster = [cluster_x, cluster_y, cluster_z];
    cuda.launch_plain(call, &Launch { function, shape, stream, params }, flags, cluster)
}

pub fn launch_with_attributes(
    cuda: &CudaBackend,
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
    let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
    cuda.launch_with(call, &Launch { function, shape, stream, params }, attributes.unwrap_or_default())
}

pub fn occupancy_clusters(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    function: u64,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    cluster_x: u32,
    cluster_y: u32,
    cluster_z: u32,
    active_clusters: Option<&mut i32>,
    max_cluster_size: Option<&mut i32>,
) -> CuResult {
    let shape = Shape { grid: [1; 3], block: [block_x, block_y, block_z], shared_bytes };
    let (active, largest) = cuda.clusters(function, shape, [cluster_x, cluster_y, cluster_z])?;
    put(active_clusters, active)?;
    put(max_cluster_size, largest)
}

pub fn copy(cuda: &CudaBackend, call: &mut Call<'_>, dst: u64, src: u64, len: u64, stream: u64) -> CuResult {
    copy_2d(cuda, call, dst, len, src, len, len, 1, stream)
}

pub fn copy_2d(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dst: u64,
    dst_pitch: u64,
    src: u64,
    src_pitch: u64,
    width: u64,
    height: u64,
    stream: u64,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let rows = Rows { dst, dst_pitch, src, src_pitch, width, height };
    cuda.range(dst, rows.span(dst_pitch)?)?;
    cuda.range(src, rows.span(src_pitch)?)?;
    cuda.copy_rows(&rows, stream)?;
    let bytes = width.saturating_mul(height);
    call.session.counters.bytes_within.fetch_add(bytes, Ordering::Relaxed);
    Ok(())
}

/// A copy between the device and memory that the program lends: region, its length and an offset in it.
fn lent(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    (region, region_len, offset): (u64, u64, u64),
    direction: Direction,
    device: u64,
    len: u64,
    stream: u64,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let mut lent = call.session.window.lend(region, region_len)?;
    cuda.map_whole(&mut lent.memory);
    cuda.copy_lent(call, (&lent.memory, offset), direction, device, len, stream)?;
    cuda.flushed(call);
    Ok(())
}

pub fn lent_in(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dst: u64,
    region: u64,
    region_len: u64,
    offset: u64,
    len: u64,
    stream: u64,
) -> CuResult {
    lent(cuda, call, (region, region_len, offset), Direction::Read, dst, len, stream)?;
    call.session.counters.bytes_in.fetch_add(len, Ordering::Relaxed);
    Ok(())
}

pub fn lent_out(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    src: u64,
    region: u64,
    region_len: u64,
    offset: u64,
    len: u64,
    stream: u64,
) -> CuResult {
    lent(cuda, call, (region, region_len, offset), Direction::Write, src, len, stream)?;
    call.session.counters.bytes_out.fetch_add(len, Ordering::Relaxed);
    Ok(())
}

/// One piece of a copy from the staging area to the device.
fn piece_in(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    (dst, pitch): (u64, u64),
    staging_offset: u64,
    (width, height): (u64, u64),
    stream: u64,
    last: bool,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let len = width.checked_mul(height).ok_or(Status::INVALID_VALUE)?;
    let src = call.staging(staging_offset, len).ok_or(Status::INVALID_VALUE)?;
    let rows = Rows { dst, dst_pitch: pitch, src, src_pitch: width, width, height };
    cuda.range(dst, rows.span(pitch)?)?;
    call.session.counters.bytes_in.fetch_add(len, Ordering::Relaxed);
    cuda.stage(call, &rows, stream, last)
}

/// One piece of a copy from the device to the staging area.
fn piece_out(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    (src, pitch): (u64, u64),
    staging_offset: u64,
    (width, height): (u64, u64),
    stream: u64,
    last: bool,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let len = width.checked_mul(height).ok_or(Status::INVALID_VALUE)?;
    let dst = call.staging(staging_offset, len).ok_or(Status::INVALID_VALUE)?;
    let rows = Rows { dst, dst_pitch: width, src, src_pitch: pitch, width, height };
    cuda.range(src, rows.span(pitch)?)?;
    call.session.counters.bytes_out.fetch_add(len, Ordering::Relaxed);
    cuda.stage(call, &rows, stream, last)
}

pub fn stage_in(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dst: u64,
    pitch: u64,
    staging_offset: u64,
    width: u64,
    height: u64,
    stream: u64,
    _flags: u32,
) -> CuResult {
    piece_in(cuda, call, (dst, pitch), staging_offset, (width, height), stream, false)
}

pub fn stage_in_last(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dst: u64,
    pitch: u64,
    staging_offset: u64,
    width: u64,
    height: u64,
    stream: u64,
    _flags: u32,
) -> CuResult {
    piece_in(cuda, call, (dst, pitch), staging_offset, (width, height), stream, true)
}

pub fn stage_out(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    src: u64,
    pitch: u64,
    staging_offset: u64,
    width: u64,
    height: u64,
    stream: u64,
    _flags: u32,
) -> CuResult {
    piece_out(cuda, call, (src, pitch), staging_offset, (width, height), stream, false)
}

pub fn stage_out_last(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    src: u64,
    pitch: u64,
    staging_offset: u64,
    width: u64,
    height: u64,
    stream: u64,
    _flags: u32,
) -> CuResult {
    piece_out(cuda, call, (src, pitch), staging_offset, (width, height), stream, true)
}

pub fn stage_out_watched(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    src: u64,
    staging_offset: u64,
    len: u64,
    stream: u64,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let dst = call.staging(staging_offset, len).ok_or(Status::INVALID_VALUE)?;
    cuda.range(src, len)?;
    call.session.counters.bytes_out.fetch_add(len, Ordering::Relaxed);
    cuda.register_staging(call);
    cuda.copy_rows(&Rows { dst, dst_pitch: len, src, src_pitch: len, width: len, height: 1 }, stream)
}

/// `CUpointer_attribute`.
const POINTER_CONTEXT: u32 = 1;
const POINTER_MEMORY_TYPE: u32 = 2;
const POINTER_BUFFER_ID: u32 = 7;
const POINTER_DEVICE_ORDINAL: u32 = 9;
const POINTER_RANGE_START: u32 = 11;
const POINTER_RANGE_SIZE: u32 = 12;
const POINTER_MEMPOOL_HANDLE: u32 = 17;
const MEMORYTYPE_DEVICE: u32 = 2;

/// Numbers of window memory, beyond those that the driver gives: it counts from 1.
const WINDOW_NUMBERS: u64 = 1 << 48;

pub fn pointer_info(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
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
    let known = cuda.memory.find(address);
    if cuda.session.window.offset(address).is_some() {
        let Some(allocation) = known else { return put(kind, 0) };
        put(kind, if allocation.kind.is_managed() { 3 } else { 2 })?;
        put(base, allocation.base)?;
        put(size, allocation.len)?;
        put(ctx, allocation.context)?;
        put(device, allocation.device)?;
        put(flags, allocation.flags)?;
        put(buffer_id, WINDOW_NUMBERS + allocation.number)?;
        return put(pool, 0);
    }
    // Each attribute alone: one that does not exist for this memory fails, and is 0.
    let mut words = [0u64; 7];
    let attributes = [
        POINTER_MEMORY_TYPE,
        POINTER_CONTEXT,
        POINTER_BUFFER_ID,
        POINTER_DEVICE_ORDINAL,
        POINTER_RANGE_START,
        POINTER_RANGE_SIZE,
        POINTER_MEMPOOL_HANDLE,
    ];
    for (word, attribute) in words.iter_mut().zip(attributes) {
        // SAFETY: no attribute of these is longer than 8 bytes.
        let result = unsafe { cuda.raw().cuPointerGetAttribute((&raw mut *word).cast(), attribute, address) };
        match result {
            Ok(()) => {}
            Err(Status::INVALID_VALUE) if attribute == POINTER_MEMORY_TYPE => return put(kind, 0),
            Err(status) if attribute == POINTER_MEMORY_TYPE => return Err(status),
            Err(_) => *word = 0,
        }
    }
    let [memory_type, context, number, ordinal, start, len, pool_raw] = words;
    // Host memory that is not in the window is the worker's own.
    if memory_type as u32 != MEMORYTYPE_DEVICE {
        return put(kind, 0);
    }
    put(kind, 1)?;
    put(base, start)?;
    put(size, len)?;
    put(ctx, if context == 0 { 0 } else { cuda.born(call, Kind::CUcontext, context, None)? })?;
    put(device, ordinal as u32 as i32)?;
    put(flags, known.map_or(0, |known| known.flags))?;
    put(buffer_id, number)?;
    put(pool, if pool_raw == 0 { 0 } else { cuda.born(call, Kind::CUmemoryPool, pool_raw, None)? })
}

pub fn pool_get_attribute(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    pool: u64,
    attribute: u32,
    value: Option<&mut u64>,
) -> CuResult {
    let pool = cuda.inward(Kind::CUmemoryPool, pool)?;
    let mut word = 0u64;
    // SAFETY: no attribute of a pool is longer than 8 bytes; shorter ones are the low bytes.
    unsafe { cuda.raw().cuMemPoolGetAttribute(pool, attribute, (&raw mut word).cast()) }?;
    put(value, word)
}

pub fn pool_set_attribute(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    pool: u64,
    attribute: u32,
    value: u64,
) -> CuResult {
    let pool = cuda.inward(Kind::CUmemoryPool, pool)?;
    let mut word = value;
    // SAFETY: as above.
    unsafe { cuda.raw().cuMemPoolSetAttribute(pool, attribute, (&raw mut word).cast()) }
}

pub fn primary_context(cuda: &CudaBackend, _: &mut Call<'_>, device: i32, ctx: Option<&mut u64>) -> CuResult {
    put(ctx, cuda.primary_id(device)?)
}

/// Stream callbacks are called also after an error, host functions are not.
const STREAM_CALLBACK: u32 = 0;

pub fn callback_post(cuda: &CudaBackend, _: &mut Call<'_>, stream: u64, id: u64, kind: u32) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    if kind == STREAM_CALLBACK {
        cuda.queue_stream_callback(stream, id)
    } else {
        cuda.queue_host_function(stream, id)
    }
}

pub fn callback_next(
    _: &CudaBackend,
    _: &mut Call<'_>,
    id: Option<&mut u64>,
    status: Option<&mut u32>,
) -> CuResult {
    let due = callbacks().next();
    put(id, due.id)?;
    put(status, due.status.0)
}

pub fn callback_done(_: &CudaBackend, _: &mut Call<'_>, id: u64) -> CuResult {
    callbacks().done(id);
    Ok(())
}

pub fn device_output(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    max_len: u32,
    stream: Option<&mut u32>,
    text: Option<&mut Vec<u8>>,
) -> CuResult {
    let text = text.ok_or(Status::INVALID_VALUE)?;
    // The other outputs and the length word need room in the reply as well.
    let max = (max_len as usize).min(call.max_body().saturating_sub(32));
    let (from, bytes) = cuda.output.take(max);
    *text = bytes;
    call.device_output = cuda.output.pending();
    put(stream, from)
}

pub fn device_tables(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    first: Option<&mut Vec<u8>>,
    second: Option<&mut Vec<u8>>,
) -> CuResult {
    let (first, second) = (first.ok_or(Status::INVALID_VALUE)?, second.ok_or(Status::INVALID_VALUE)?);
    (*first, *second) = private::device_tables(cuda.raw())?;
    Ok(())
}
