#![allow(unsafe_code)]
//! Launches and host functions. Unsafe because kernel parameters are read through the caller's pointers.

use core::ffi::{c_uint, c_void};
use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use protocol::status::{CuResult, Status};

use crate::call::settle;
use crate::custom::context::require_init;
use crate::custom::device;
use crate::function::{Function, Limits, Shape, check_launch};
use crate::generated::wire;
use crate::process::process;
use crate::types::*;
use crate::{sticky, thread};

/// Kernels with parameter buffers up to this size are launched without an allocation; no architecture before sm_70 took more than 4 KiB, and most
/// kernels take less than a hundred bytes.
const SMALL_PARAMS: usize = 512;

/// `CU_LAUNCH_PARAM_END`, `_BUFFER_POINTER`, `_BUFFER_SIZE`: keys of the `extra` list.
const EXTRA_END: usize = 0;
const EXTRA_BUFFER_POINTER: usize = 1;
const EXTRA_BUFFER_SIZE: usize = 2;

/// `launch` flag: all blocks are resident at once.
const COOPERATIVE: c_uint = 1;

fn launch_blocking() -> bool {
    static BLOCKING: OnceLock<bool> = OnceLock::new();
    *BLOCKING.get_or_init(|| std::env::var("CUDA_LAUNCH_BLOCKING").is_ok_and(|value| value == "1"))
}

/// Limits on launches, by device.
fn limits(device: i32) -> Result<Limits, Status> {
    let table = &process().launch_limits;
    let known = table.read().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, limits)) = known.iter().find(|(of, _)| *of == device) {
        return Ok(*limits);
    }
    drop(known);
    let attribute = |which: u32| device::attribute(device, which).map(|value| value as u32);
    let limits = Limits {
        threads_per_block: attribute(1)?,
        block: [attribute(2)?, attribute(3)?, attribute(4)?],
        grid: [attribute(5)?, attribute(6)?, attribute(7)?],
    };
    table.write().unwrap_or_else(PoisonError::into_inner).push((device, limits));
    Ok(limits)
}

/// Function, shape, flags and cluster.
type Judged = (u64, Shape, c_uint, [u32; 3]);

/// Launches with clusters, or with blocks that wait for each other: whether the device has room for them is the driver's to judge, so that the first one of
/// each kind is answered. What it has accepted once is posted from then on.
#[derive(Default)]
pub struct Accepted {
    seen: Mutex<HashSet<Judged>>,
}

impl Accepted {
    /// More kinds than any program has at a time.
    const MAX: usize = 4096;

    fn knows(&self, function: u64, launch: &Launch) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.contains(&(function, launch.shape, launch.flags, launch.cluster))
    }

    fn note(&self, function: u64, launch: &Launch) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= Self::MAX {
            seen.clear();
        }
        seen.insert((function, launch.shape, launch.flags, launch.cluster));
    }
}

/// Everything about a launch except its parameters.
struct Launch {
    shape: Shape,
    stream: u64,
    flags: c_uint,
    cluster: [u32; 3],
    /// All attributes as they travel, if there are others than those two.
    attributes: Vec<u8>,
}

/// A default stream, which is one of the current context, runs functions of that context only. Of other streams the host says whose they are.
#[inline]
fn check_context(function: &Function, stream: u64) -> CuResult {
    if function.context == 0 || stream > CU_STREAM_PER_THREAD as u64 {
        return Ok(());
    }
    let current = thread::current_context();
    if function.context != current && process().contexts.are_strangers(function.context, current) {
        return Err(Status::INVALID_HANDLE);
    }
    Ok(())
}

/// # Safety
/// `params` and `extra` are as the driver API demands: an array with a pointer to each parameter, or a list with a buffer.
unsafe fn launch(
    handle: CUfunction,
    launch: &Launch,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CuResult {
    require_init()?;
    let device = device::current()?;
    let function = process().functions.get(handle as u64)?;
    check_context(&function, launch.stream)?;
    check_launch(&function, &launch.shape, &limits(device)?)?;

    let mut small = [0u8; SMALL_PARAMS];
    let mut large;
    let buffer = if function.params_len <= SMALL_PARAMS {
        &mut small[..function.params_len]
    } else {
        large = vec![0u8; function.params_len];
        &mut large[..]
    };
    // SAFETY: by the caller's promise.
    unsafe { gather(&function, params, extra, buffer) }?;
    reach(buffer)?;

    let Launch { shape, stream, flags, cluster, attributes } = launch;
    let judged = *flags != 0 || *cluster != [0; 3];
    let accepted = &process().accepted;
    let unknown = judged && !accepted.knows(function.handle, launch);
    if !attributes.is_empty() {
        wire::launch_with_attributes(
            function.handle,
            shape.grid[0],
            shape.grid[1],
            shape.grid[2],
            shape.block[0],
            shape.block[1],
            shape.block[2],
            shape.dynamic_shared_bytes,
            *stream,
            Some(attributes),
            Some(buffer),
        )?;
        if unknown {
            settle()?;
            accepted.note(function.handle, launch);
        }
        return if launch_blocking() { wire::cuStreamSynchronize(*stream) } else { Ok(()) };
    }
    wire::launch(
        function.handle,
        shape.grid[0],
        shape.grid[1],
        shape.grid[2],
        shape.block[0],
        shape.block[1],
        shape.block[2],
        shape.dynamic_shared_bytes,
        *stream,
        *flags,
        cluster[0],
        cluster[1],
        cluster[2],
        Some(buffer),
    )?;
    if unknown {
        settle()?;
        accepted.note(function.handle, launch);
    }
    if launch_blocking() { wire::cuStreamSynchronize(*stream) } else { Ok(()) }
}

/// Lets the device reach what parameters point to in registered memory. Refuses those that point to page-locked memory which it cannot reach: a fault in the kernel would say less.
pub fn reach(params: &mut [u8]) -> CuResult {
    process().registered.show(params);
    let Some(pinned) = process().session.get().and_then(|session| session.pinned()) else { return Ok(()) };
    for word in params.chunks_exact(8) {
        let address = word.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        if pinned.contains(address) && pinned.find(address).is_some() {
            crate::log!(
                Warn,
                "launch: a parameter points to page-locked memory ({address:#x}); this session shares no memory with the host"
            );
            return Err(Status::NOT_SUPPORTED);
        }
    }
    Ok(())
}

/// Lays the parameters out as the kernel expects them.
///
/// # Safety
/// As [`launch`].
pub unsafe fn gather(
    function: &Function,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
    buffer: &mut [u8],
) -> CuResult {
    if !params.is_null() {
        if !extra.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        for (index, param) in function.params.iter().enumerate() {
            // SAFETY: the array has a pointer for each parameter of the kernel.
            let source = unsafe { params.add(index).read() };
            let (start, size) = (param.offset as usize, param.size as usize);
            let place = buffer.get_mut(start..start + size).ok_or(Status::INVALID_VALUE)?;
            if source.is_null() {
                return Err(Status::INVALID_VALUE);
            }
            // SAFETY: it points to a value of the parameter's size.
            unsafe { source.cast::<u8>().copy_to_nonoverlapping(place.as_mut_ptr(), size) };
        }
        return Ok(());
    }
    if function.params.is_empty() {
        return Ok(());
    }
    if extra.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let (mut source, mut len) = (core::ptr::null::<u8>(), 0usize);
    for pair in 0.. {
        // SAFETY: the list consists of pairs up to the end key.
        let key = unsafe { extra.add(pair * 2).read() }.addr();
        if key == EXTRA_END {
            break;
        }
        // SAFETY: not the end key, so a value follows.
        let value = unsafe { extra.add(pair * 2 + 1).read() };
        match key {
            EXTRA_BUFFER_POINTER => source = value.cast::<u8>().cast_const(),
            EXTRA_BUFFER_SIZE => {
                // SAFETY: the value is the address of a size_t.
                len = *unsafe { value.cast::<usize>().as_ref() }.ok_or(Status::INVALID_VALUE)?;
            }
            _ => return Err(Status::INVALID_VALUE),
        }
    }
    if source.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // What a short buffer leaves out is not looked for: the driver takes it as it is.
    // SAFETY: the buffer has the length given with it, of which the kernel takes its part.
    unsafe { source.copy_to_nonoverlapping(buffer.as_mut_ptr(), buffer.len().min(len)) };
    Ok(())
}

pub unsafe fn cuLaunchKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: CUstream,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CuResult {
    let shape = Shape {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        dynamic_shared_bytes: shared_bytes,
    };
    let how = Launch { shape, stream: stream as u64, flags: 0, cluster: [0; 3], attributes: Vec::new() };
    // SAFETY: passed on as received.
    unsafe { launch(function, &how, params, extra) }
}

pub unsafe fn cuLaunchCooperativeKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: CUstream,
    params: *mut *mut c_void,
) -> CuResult {
    let shape = Shape {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        dynamic_shared_bytes: shared_bytes,
    };
    let how =
        Launch { shape, stream: stream as u64, flags: COOPERATIVE, cluster: [0; 3], attributes: Vec::new() };
    // SAFETY: passed on as received.
    unsafe { launch(function, &how, params, core::ptr::null_mut()) }
}

/// `CUlaunchAttribute`: id, padding, and a value of 64 bytes.
const ATTRIBUTE_IGNORE: u32 = 0;
const ATTRIBUTE_COOPERATIVE: u32 = 2;
const ATTRIBUTE_CLUSTER_DIMENSION: u32 = 4;
/// More attributes than there are ids; a larger count is a mistake of the caller.
const MAX_ATTRIBUTES: u32 = 64;

/// Reads a launch configuration.
///
/// # Safety
/// NULL, or a valid configuration with its attribute array.
unsafe fn configuration(config: *const CUlaunchConfig) -> Result<Launch, Status> {
    // SAFETY: by the caller's promise.
    let config = unsafe { config.as_ref() }.ok_or(Status::INVALID_VALUE)?;
    let mut launch = Launch {
        shape: Shape {
            grid: [config.gridDimX, config.gridDimY, config.gridDimZ],
            block: [config.blockDimX, config.blockDimY, config.blockDimZ],
            dynamic_shared_bytes: config.sharedMemBytes,
        },
        stream: config.hStream as u64,
        flags: 0,
        cluster: [0; 3],
        attributes: Vec::new(),
    };
    let mut others = false;
    if config.numAttrs > MAX_ATTRIBUTES || (config.numAttrs > 0 && config.attrs.is_null()) {
        return Err(Status::INVALID_VALUE);
    }
    for index in 0..config.numAttrs as usize {
        // SAFETY: an array of `numAttrs` elements by the caller's promise.
        let attribute = unsafe { &*config.attrs.add(index) };
        let word = |index: usize| {
            attribute.value.bytes.as_chunks::<4>().0.get(index).map_or(0, |word| u32::from_le_bytes(*word))
        };
        match attribute.id {
            ATTRIBUTE_COOPERATIVE if word(0) != 0 => launch.flags |= COOPERATIVE,
            ATTRIBUTE_CLUSTER_DIMENSION => {
                launch.cluster = [word(0), word(1), word(2)];
            }
            ATTRIBUTE_IGNORE | ATTRIBUTE_COOPERATIVE => {}
            _ => others = true,
        }
    }
    if others {
        for index in 0..config.numAttrs as usize {
            // SAFETY: as above.
            let attribute = unsafe { &*config.attrs.add(index) };
            if attribute.id != ATTRIBUTE_IGNORE {
                launch.attributes.extend_from_slice(&u64::from(attribute.id).to_le_bytes());
                launch.attributes.extend_from_slice(&attribute.value.bytes);
            }
        }
    }
    Ok(launch)
}

pub unsafe fn cuLaunchKernelEx(
    config: *const CUlaunchConfig,
    function: CUfunction,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
    default_stream: CUstream,
) -> CuResult {
    // A driver looks at this before it looks for a fault of the context.
    if config.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: passed on as received.
    let launched = unsafe { configuration(config) }.and_then(|mut how| {
        if how.stream == 0 {
            how.stream = default_stream as u64;
        }
        // SAFETY: passed on as received.
        unsafe { launch(function, &how, params, extra) }
    });
    launched.map_err(sticky::of_arguments)
}

/// Shape of a configuration for the occupancy queries.
///
/// # Safety
/// As [`configuration`].
pub unsafe fn shape_of(config: *const CUlaunchConfig) -> Result<(Shape, [u32; 3]), Status> {
    // SAFETY: passed on as received.
    let launch = unsafe { configuration(config) }?;
    Ok((launch.shape, launch.cluster))
}

pub unsafe fn cuLaunchHostFunc(stream: CUstream, function: CUhostFn, data: *mut c_void) -> CuResult {
    require_init()?;
    thread::require_context()?;
    let function = function.ok_or(Status::INVALID_VALUE)?;
    crate::callback::queue_host_function(stream as u64, function, data)
}

pub unsafe fn cuLaunchHostFunc_v2(
    stream: CUstream,
    function: CUhostFn,
    data: *mut c_void,
    _sync_mode: c_uint,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuLaunchHostFunc(stream, function, data) }
}

/// Devices of one launch; more than any machine has.
const MAX_DEVICES: c_uint = 1024;

pub unsafe fn cuLaunchCooperativeKernelMultiDevice(
    list: *mut CUDA_LAUNCH_PARAMS,
    count: c_uint,
    flags: c_uint,
) -> CuResult {
    require_init()?;
    if list.is_null() || count == 0 || count > MAX_DEVICES {
        return Err(Status::INVALID_VALUE);
    }
    let (mut launches, mut params) = (Vec::new(), Vec::new());
    for index in 0..count as usize {
        // SAFETY: an array of `count` elements by the caller's promise.
        let one = unsafe { &*list.add(index) };
        let function = process().functions.get(one.function as u64)?;
        let mut buffer = vec![0; function.params_len];
        // SAFETY: the array has a pointer for each parameter of the kernel, by the caller's promise.
        unsafe { gather(&function, one.kernelParams, core::ptr::null_mut(), &mut buffer) }?;
        reach(&mut buffer)?;
        launches.extend_from_slice(&function.handle.to_le_bytes());
        for word in [
            one.gridDimX,
            one.gridDimY,
            one.gridDimZ,
            one.blockDimX,
            one.blockDimY,
            one.blockDimZ,
            one.sharedMemBytes,
            buffer.len() as u32,
        ] {
            launches.extend_from_slice(&word.to_le_bytes());
        }
        launches.extend_from_slice(&(one.hStream as u64).to_le_bytes());
        buffer.resize(buffer.len().next_multiple_of(8), 0);
        params.extend_from_slice(&buffer);
    }
    wire::launch_multi_device(count, Some(&launches), Some(&params), flags)
}
