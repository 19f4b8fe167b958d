#![allow(unsafe_code)]
//! Contexts: which one is current is known here; the host is told when it matters.
//! Unsafe because results are written through the caller's pointers.

use core::ffi::{c_int, c_uint};

use protocol::status::{CuResult, Status};

use crate::context::Context;
use crate::custom::{device, init};
use crate::generated::wire;
use crate::idle;
use crate::marshal::put;
use crate::pointer::out;
use crate::process::process;
use crate::thread;
use crate::types::*;

/// Calls made before a successful `cuInit` fail with NOT_INITIALIZED.
pub fn require_init() -> CuResult {
    match process().initialised.get() {
        Some(Ok(())) => Ok(()),
        _ => Err(Status::NOT_INITIALIZED),
    }
}

fn current() -> Result<(u64, Context), Status> {
    require_init()?;
    let handle = thread::require_context()?;
    // A context that another thread destroyed while it is current here.
    let context = process().contexts.get(handle).map_err(|_| Status::CONTEXT_IS_DESTROYED)?;
    Ok((handle, context))
}

fn given_or_current(context: CUcontext) -> Result<(u64, Context), Status> {
    if context.is_null() {
        return current();
    }
    require_init()?;
    Ok((context as u64, process().contexts.get(context as u64)?))
}

/// Checks a handle that is to be made current.
fn given(context: CUcontext) -> CuResult {
    let contexts = &process().contexts;
    if context.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let known = contexts.exists(context as u64) || contexts.was(context as u64);
    if known { Ok(()) } else { Err(Status::INVALID_CONTEXT) }
}

pub unsafe fn cuCtxGetCurrent(context: *mut CUcontext) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(context) }? = thread::current_context() as CUcontext;
    Ok(())
}

pub unsafe fn cuCtxSetCurrent(context: CUcontext) -> CuResult {
    require_init()?;
    if !context.is_null() {
        given(context)?;
    }
    thread::with(|thread| {
        thread.set_current(context as u64);
        Ok(())
    })
}

pub unsafe fn cuCtxPushCurrent_v2(context: CUcontext) -> CuResult {
    require_init()?;
    given(context)?;
    thread::with(|thread| {
        thread.push(context as u64);
        Ok(())
    })
}

pub unsafe fn cuCtxPopCurrent_v2(context: *mut CUcontext) -> CuResult {
    require_init()?;
    let popped = thread::with(|thread| thread.pop())?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL, which is allowed here.
    if let Some(context) = unsafe { context.as_mut() } {
        *context = popped as CUcontext;
    }
    Ok(())
}

pub unsafe fn cuCtxGetDevice(device: *mut CUdevice) -> CuResult {
    let (_, context) = current()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(device) }? = context.device;
    Ok(())
}

pub unsafe fn cuCtxGetDevice_v2(device: *mut CUdevice, context: CUcontext) -> CuResult {
    let (_, context) = given_or_current(context)?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(device) }? = context.device;
    Ok(())
}

pub unsafe fn cuCtxGetFlags(flags: *mut c_uint) -> CuResult {
    let (_, context) = current()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(flags) }? = context.flags;
    Ok(())
}

pub unsafe fn cuCtxSetFlags(flags: c_uint) -> CuResult {
    /// Scheduling (one of 0, 1, 2, 4), and the flags from MAP_HOST to SYNC_MEMOPS.
    const SCHEDULING: c_uint = 7;
    const FLAGS: c_uint = 0xff;
    /// `CU_CTX_MAP_HOST`: always on.
    const MAP_HOST: c_uint = 8;
    let (handle, _) = current()?;
    if flags & !FLAGS != 0 || (flags & SCHEDULING).count_ones() > 1 {
        return Err(Status::INVALID_VALUE);
    }
    process().contexts.set_flags(handle, flags | MAP_HOST)
}

pub unsafe fn cuCtxGetApiVersion(context: CUcontext, version: *mut c_uint) -> CuResult {
    let (_, context) = given_or_current(context)?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(version) }? = context.api_version;
    Ok(())
}

pub unsafe fn cuCtxGetId(context: CUcontext, id: *mut u64) -> CuResult {
    let (handle, _) = given_or_current(context)?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(id) }? = handle;
    Ok(())
}

/// Makes an object of the current context.
///
/// # Safety
/// `place` is NULL or valid for a write.
pub unsafe fn make<T>(place: *mut *mut T, ask: impl FnOnce(Option<&mut u64>) -> CuResult) -> CuResult {
    let mut handle = (!place.is_null()).then_some(0);
    ask(handle.as_mut())?;
    if let Some(handle) = handle {
        process().owners.made(handle, thread::current_context());
    }
    // SAFETY: by the caller's promise.
    unsafe { put(place.cast(), handle) };
    Ok(())
}

/// Creates a context and makes it current.
pub fn create(context: *mut CUcontext, flags: c_uint, device: CUdevice) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let context = unsafe { out(context) }?;
    let mut handle = 0;
    wire::cuCtxCreate_v2(Some(&mut handle), flags, device)?;
    init::learn_more(device)?;
    process().contexts.created(handle, device, flags);
    thread::with(|thread| {
        thread.push(handle);
        Ok(())
    })?;
    *context = handle as CUcontext;
    Ok(())
}

pub unsafe fn cuCtxSynchronize() -> CuResult {
    idle::context(thread::current_context(), wire::cuCtxSynchronize)
}

pub unsafe fn cuCtxSynchronize_v2(context: CUcontext) -> CuResult {
    let context = context as u64;
    idle::context(context, || wire::cuCtxSynchronize_v2(context))
}

pub unsafe fn cuCtxCreate_v2(context: *mut CUcontext, flags: c_uint, device: CUdevice) -> CuResult {
    create(context, flags, device)
}

/// Execution affinity (MPS) is not offered: only the plain form is accepted.
pub unsafe fn cuCtxCreate_v3(
    context: *mut CUcontext,
    affinity: *mut CUexecAffinityParam,
    affinity_count: c_int,
    flags: c_uint,
    device: CUdevice,
) -> CuResult {
    if !affinity.is_null() && affinity_count > 0 {
        return Err(Status::UNSUPPORTED_EXEC_AFFINITY);
    }
    create(context, flags, device)
}

pub unsafe fn cuCtxCreate_v4(
    context: *mut CUcontext,
    params: *mut CUctxCreateParams,
    flags: c_uint,
    device: CUdevice,
) -> CuResult {
    // SAFETY: the caller passes a CUctxCreateParams, which begins with three pointer-sized fields of which the second is a count; or NULL.
    if let Some(words) = unsafe { params.cast::<[usize; 3]>().as_ref() }
        && words.iter().any(|word| *word != 0)
    {
        return Err(Status::UNSUPPORTED_EXEC_AFFINITY);
    }
    create(context, flags, device)
}

/// Runs the destructors of what runtimes keep with a context that goes away.
pub fn drop_local_storage(context: u64) {
    for (key, value, destructor) in process().local_storage.take_context(context) {
        // SAFETY: the owner of the value gave this function for exactly this purpose, and no lock of ours is held.
        unsafe { destructor(context, key, value) };
    }
}

pub unsafe fn cuCtxDestroy_v2(context: CUcontext) -> CuResult {
    require_init()?;
    let handle = context as u64;
    if context.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    if process().contexts.was(handle) {
        return Err(Status::CONTEXT_IS_DESTROYED);
    }
    let known = process().contexts.get(handle)?;
    if known.primary {
        return Err(Status::INVALID_CONTEXT);
    }
    drop_local_storage(handle);
    process().allocations.forget();
    wire::cuCtxDestroy_v2(handle)?;
    process().contexts.destroyed(handle);
    process().owners.context_ended(handle);
    process().graph_buffers.context_ended(handle);
    thread::with(|thread| {
        if thread.current() == handle {
            thread.pop()?;
        }
        Ok(())
    })
}

// Primary contexts.

pub unsafe fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let context = unsafe { out(context) }?;
    let mut handle = 0;
    wire::cuDevicePrimaryCtxRetain(Some(&mut handle), device)?;
    init::learn_more(device)?;
    process().contexts.primary_retained(device, handle);
    *context = handle as CUcontext;
    Ok(())
}

pub unsafe fn cuDevicePrimaryCtxRelease_v2(device: CUdevice) -> CuResult {
    require_init()?;
    let handle = process().contexts.primary(device);
    process().allocations.forget();
    wire::cuDevicePrimaryCtxRelease_v2(device)?;
    if process().contexts.primary_released(device)
        && let Some(handle) = handle
    {
        drop_local_storage(handle);
        process().owners.context_ended(handle);
        process().graph_buffers.context_ended(handle);
    }
    Ok(())
}

pub unsafe fn cuDevicePrimaryCtxReset_v2(device: CUdevice) -> CuResult {
    require_init()?;
    let handle = process().contexts.primary(device);
    if let Some(handle) = handle {
        drop_local_storage(handle);
    }
    process().allocations.forget();
    wire::cuDevicePrimaryCtxReset_v2(device)?;
    if let Some(handle) = handle {
        process().owners.context_ended(handle);
        process().graph_buffers.context_ended(handle);
    }
    process().contexts.primary_reset(device);
    // An error of what was posted before belongs to the context that is gone.
    thread::with(|thread| {
        let _ = thread.lane()?.take_latched();
        Ok(())
    })
}

pub unsafe fn cuDevicePrimaryCtxGetState(
    device: CUdevice,
    flags: *mut c_uint,
    active: *mut c_int,
) -> CuResult {
    require_init()?;
    if device < 0 || device >= device::count()? {
        return Err(Status::INVALID_DEVICE);
    }
    let (known_flags, is_active) = process().contexts.primary_state(device);
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(flags) }? = known_flags;
    // SAFETY: as above.
    *unsafe { out(active) }? = c_int::from(is_active);
    Ok(())
}

pub unsafe fn cuDevicePrimaryCtxSetFlags_v2(device: CUdevice, flags: c_uint) -> CuResult {
    require_init()?;
    wire::cuDevicePrimaryCtxSetFlags_v2(device, flags)?;
    process().contexts.primary_set_flags(device, flags);
    Ok(())
}

// Preferences without an effect on today's devices: remembered here, as far as they can be asked for.

pub unsafe fn cuCtxGetCacheConfig(config: *mut CUfunc_cache) -> CuResult {
    let (_, context) = current()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(config) }? = context.cache_config;
    Ok(())
}

pub unsafe fn cuCtxSetCacheConfig(config: CUfunc_cache) -> CuResult {
    /// `CU_FUNC_CACHE_PREFER_EQUAL`
    const LAST: CUfunc_cache = 3;
    let (handle, _) = current()?;
    if config > LAST {
        return Err(Status::INVALID_VALUE);
    }
    process().contexts.set_cache_config(handle, config)
}

/// `CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE`
const FOUR_BYTE_BANKS: u32 = 1;

pub unsafe fn cuCtxGetSharedMemConfig(config: *mut CUsharedconfig) -> CuResult {
    current()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(config) }? = FOUR_BYTE_BANKS;
    Ok(())
}

pub unsafe fn cuCtxSetSharedMemConfig(_config: CUsharedconfig) -> CuResult {
    current().map(|_| ())
}
