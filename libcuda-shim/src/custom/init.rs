#![allow(unsafe_code)]
//! Initialisation and look-up of entry points. Unsafe because results are written through the caller's pointers.

use core::ffi::{CStr, c_char, c_int, c_void};

use protocol::status::{CuResult, Status};

use crate::custom::device;
use crate::generated::wire;
use crate::pointer::{out, text};
use crate::proc_address::{self, Found};
use crate::process::process;
use crate::session::Session;
use crate::types::{CUdriverProcAddressQueryResult, CUmoduleLoadingMode, CUuuid};
use crate::{private, symbols};

/// The CUDA version whose driver interface this library has: that of the exports list.
pub const DRIVER_VERSION: u32 = 13_000;

/// The version that programs see.
pub fn driver_version() -> Result<u32, Status> {
    Ok(DRIVER_VERSION)
}

pub unsafe fn cuInit(flags: u32) -> CuResult {
    if flags != 0 {
        return Err(Status::INVALID_VALUE);
    }
    let process = process();
    if let Some(result) = process.initialised.get() {
        return *result;
    }
    let _one_at_a_time = process.init.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // Read once: the hello must say the same about it as what follows, whatever other threads do to the environment.
    let devices = device::visible()?;
    if process.session.get().is_none() {
        let session = Session::open(devices.as_deref()).map_err(|error| {
            crate::log!(Error, "cuInit: {error}");
            error.status()
        })?;
        // Nobody else sets it: the lock is held.
        let _ = process.session.set(session);
    }
    // Without a host the next call may find one; what the host says is final, as with NVIDIA's driver.
    *process.initialised.get_or_init(|| {
        device::announce_visible(devices.as_deref())?;
        wire::cuInit(flags)?;
        learn_ranges()
    })
}

/// Asks where the device has memory outside of the region: after `cuInit`, and when another device may have come into use.
pub fn learn_ranges() -> CuResult {
    let session = process().session.get().ok_or(Status::NOT_INITIALIZED)?;
    let mut bytes = Vec::new();
    match wire::device_ranges(Some(&mut bytes)) {
        // All of it is in the region.
        Err(Status::NOT_SUPPORTED) => return Ok(()),
        other => other?,
    }
    let words = bytes.as_chunks::<16>().0.iter().map(|pair| {
        let (start, end) = pair.split_at(8);
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        word(start)..word(end)
    });
    session.reserve(words)
}

/// Memory of a graph or a pool: the driver may have given it addresses where it had none before.
pub fn learn_of(address: u64) -> CuResult {
    let known = process().session.get().is_some_and(|session| session.contains(address));
    if known { Ok(()) } else { learn_ranges() }
}

/// As [`learn_of`], for an output that may be absent or 0.
pub fn learn_address(address: Option<u64>) -> CuResult {
    match address {
        None | Some(0) => Ok(()),
        Some(address) => learn_of(address),
    }
}

/// A context of a device has come into use. That of the first one is ready after `cuInit`.
pub fn learn_more(device: i32) -> CuResult {
    if device == 0 { Ok(()) } else { learn_ranges() }
}

pub unsafe fn cuDriverGetVersion(version: *mut c_int) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(version) }? = driver_version()? as c_int;
    Ok(())
}

pub unsafe fn cuGetExportTable(table: *mut *const c_void, id: *const CUuuid) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let table = unsafe { out(table) }?;
    if id.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: not NULL; a CUuuid is 16 bytes.
    let id = unsafe { id.cast::<[u8; 16]>().read() };
    *table = private::find(&id).ok_or_else(|| {
        crate::log!(Info, "cuGetExportTable: table {:032x} is not known", u128::from_be_bytes(id));
        Status::NOT_FOUND
    })?;
    Ok(())
}

/// The 4-argument form (CUDA 11.3 to 11.8).
pub unsafe fn cuGetProcAddress(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { cuGetProcAddress_v2(symbol, function, version, flags, core::ptr::null_mut()) }
}

pub unsafe fn cuGetProcAddress_v2(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
    symbol_status: *mut CUdriverProcAddressQueryResult,
) -> CuResult {
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let symbol: &CStr = unsafe { text(symbol) }?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let function = unsafe { out(function) }?;
    if flags & !proc_address::FLAGS != 0 {
        return Err(Status::INVALID_VALUE);
    }
    let found = proc_address::resolve(symbol.to_bytes(), version, flags);
    let (address, status) = match found {
        Found::Symbol(name) => match symbols::address(name) {
            Some(address) => (address, 0),
            None => (core::ptr::null_mut(), 1),
        },
        Found::NoSymbol => (core::ptr::null_mut(), 1),
        Found::VersionNotSufficient => (core::ptr::null_mut(), 2),
    };
    *function = address;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    if let Some(symbol_status) = unsafe { symbol_status.as_mut() } {
        *symbol_status = status;
        // Who takes the status learns of a miss by it alone.
        return Ok(());
    }
    if address.is_null() { Err(Status::NOT_FOUND) } else { Ok(()) }
}

/// `CU_MODULE_EAGER_LOADING`, `CU_MODULE_LAZY_LOADING`
const EAGER: CUmoduleLoadingMode = 1;
const LAZY: CUmoduleLoadingMode = 2;

pub unsafe fn cuModuleGetLoadingMode(mode: *mut CUmoduleLoadingMode) -> CuResult {
    crate::custom::context::require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(mode) }? = match std::env::var("CUDA_MODULE_LOADING").as_deref() {
        Ok("EAGER") => EAGER,
        _ => LAZY,
    };
    Ok(())
}
