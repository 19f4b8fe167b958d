#![allow(unsafe_code)]
//! Libraries and kernels. Unsafe because code comes as a bare pointer, and results are written through the caller's pointers.

use core::ffi::{c_char, c_int, c_uint, c_void};
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::status::{CuResult, Status};

use crate::copy::in_window;
use crate::custom::context::require_init;
use crate::custom::{device, function};
use crate::function::Parent;
use crate::generated::wire;
use crate::image::{self, Image};
use crate::module::{self, Options};
use crate::pointer::{out, text};
use crate::process::process;
use crate::types::*;

/// Sends a library's images and has the host load them.
pub fn load_on_host(images: &[Image]) -> Result<u64, Status> {
    let (hashes, forms) = module::send_all(images)?;
    let (mut result, mut library) = (0, 0);
    let (mut info_log, mut error_log) = (Vec::new(), Vec::new());
    wire::library_load(
        images.len() as u32,
        Some(&hashes),
        Some(&forms),
        None,
        Some(&mut result),
        Some(&mut library),
        Some(&mut info_log),
        Some(&mut error_log),
    )?;
    if !error_log.is_empty() {
        crate::log!(Warn, "library load: {}", String::from_utf8_lossy(&error_log));
    }
    Status(result).ok().map(|()| library)
}

fn host_library(library: u64) -> Result<u64, Status> {
    process().libraries.get(library)?.host()
}

/// The module of a library in the current context.
pub fn module_of(library: u64) -> Result<u64, Status> {
    let mut module = 0;
    wire::cuLibraryGetModule(Some(&mut module), host_library(library)?)?;
    Ok(module)
}

pub unsafe fn cuLibraryLoadData(
    library: *mut CUlibrary,
    code: *const c_void,
    jit_options: *mut CUjit_option,
    jit_values: *mut *mut c_void,
    jit_count: c_uint,
    _library_options: *mut CUlibraryOption,
    _library_values: *mut *mut c_void,
    _library_count: c_uint,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let library = unsafe { out(library) }?;
    // SAFETY: arrays of `jit_count` elements by the caller's promise.
    let mut options = unsafe { Options::read(jit_count, jit_options, jit_values) }?;
    // SAFETY: the caller passes a wrapper, container, ELF image or PTX text, or NULL.
    let images = match unsafe { module::images_at(code, &mut options) } {
        // Text is compiled when something of the library is asked for; that it is no PTX is reported then.
        // SAFETY: as above, and not NULL, which is another error.
        Err(status @ Status::INVALID_IMAGE) if unsafe { image::is_text(code) } => Err(status),
        images => Ok(images?),
    };
    *library = process().libraries.insert(images) as CUlibrary;
    Ok(())
}

/// Reads a file of device code.
pub fn read_file(name: &CStr) -> Result<Vec<u8>, Status> {
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    std::fs::read(path).map_err(|error| {
        crate::log!(Info, "{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Status::FILE_NOT_FOUND,
            // A driver asks where a directory ends, and has no memory for that much.
            std::io::ErrorKind::IsADirectory => Status::OUT_OF_MEMORY,
            _ => Status::OPERATING_SYSTEM,
        }
    })
}

/// The images of a file for the current device.
pub fn images_of_file(name: &CStr, options: &mut Options) -> Result<Vec<Image>, Status> {
    let bytes = read_file(name)?;
    let target = module::target(device::current().unwrap_or(0))?;
    image::images_in(&bytes, &target).map_err(|refused| module::refuse(refused, options))
}

pub unsafe fn cuLibraryLoadFromFile(
    library: *mut CUlibrary,
    name: *const c_char,
    jit_options: *mut CUjit_option,
    jit_values: *mut *mut c_void,
    jit_count: c_uint,
    _library_options: *mut CUlibraryOption,
    _library_values: *mut *mut c_void,
    _library_count: c_uint,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let library = unsafe { out(library) }?;
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let name = unsafe { text(name) }?;
    // SAFETY: arrays of `jit_count` elements by the caller's promise.
    let mut options = unsafe { Options::read(jit_count, jit_options, jit_values) }?;
    let images = images_of_file(name, &mut options)?;
    *library = process().libraries.insert(Ok(images)) as CUlibrary;
    Ok(())
}

pub unsafe fn cuLibraryUnload(library: CUlibrary) -> CuResult {
    require_init()?;
    let removed = process().libraries.remove(library as u64)?;
    process().functions.remove_parent(Parent::Library(library as u64));
    match removed.host_if_loaded() {
        Some(handle) => wire::cuLibraryUnload(handle),
        None => Ok(()),
    }
}

pub unsafe fn cuLibraryGetKernel(kernel: *mut CUkernel, library: CUlibrary, name: *const c_char) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let kernel = unsafe { out(kernel) }?;
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let name = unsafe { text(name) }?.to_owned();
    let host = host_library(library as u64)?;
    let handle = function::find(Parent::Library(library as u64), name, |name| {
        let mut handle = 0;
        wire::cuLibraryGetKernel(Some(&mut handle), host, Some(name))?;
        Ok(handle)
    })?;
    *kernel = handle as CUkernel;
    Ok(())
}

pub unsafe fn cuLibraryGetModule(module: *mut CUmodule, library: CUlibrary) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(module) }? = module_of(library as u64)? as CUmodule;
    Ok(())
}

/// Asks for a variable; both outputs may be left out.
///
/// # Safety
/// The pointers are NULL or valid for writes.
pub unsafe fn give_global(
    address: *mut CUdeviceptr,
    len: *mut usize,
    ask: impl FnOnce(&mut u64, &mut u64) -> CuResult,
) -> CuResult {
    let (mut found_address, mut found_len) = (0, 0);
    ask(&mut found_address, &mut found_len)?;
    // SAFETY: by the caller's promise.
    if let Some(address) = unsafe { address.as_mut() } {
        *address = found_address;
    }
    // SAFETY: by the caller's promise.
    if let Some(len) = unsafe { len.as_mut() } {
        *len = found_len as usize;
    }
    Ok(())
}

pub unsafe fn cuLibraryGetGlobal(
    address: *mut CUdeviceptr,
    len: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let name = unsafe { text(name) }?;
    let host = host_library(library as u64)?;
    // SAFETY: the caller passes pointers to its own variables, or NULL.
    unsafe { give_global(address, len, |a, l| wire::cuLibraryGetGlobal(Some(a), Some(l), host, Some(name))) }
}

pub unsafe fn cuLibraryGetManaged(
    address: *mut CUdeviceptr,
    len: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let name = unsafe { text(name) }?;
    let host = host_library(library as u64)?;
    let ask = |a: &mut u64, l: &mut u64| {
        wire::cuLibraryGetManaged(Some(&mut *a), Some(l), host, Some(name))?;
        // The CUDA backend places those that it finds in the code. Should a driver have placed one itself, the program has no memory there: better an error than a
        // crash at the first use.
        if !in_window(*a) {
            crate::log!(
                Error,
                "managed variable {name:?}: the driver has placed it where the program has no memory"
            );
            return Err(Status::NOT_SUPPORTED);
        }
        Ok(())
    };
    // SAFETY: the caller passes pointers to its own variables, or NULL.
    unsafe { give_global(address, len, ask) }
}

pub unsafe fn cuLibraryGetKernelCount(count: *mut c_uint, library: CUlibrary) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let count = unsafe { out(count) }?;
    wire::cuLibraryGetKernelCount(Some(count), host_library(library as u64)?)
}

pub unsafe fn cuLibraryEnumerateKernels(
    kernels: *mut CUkernel,
    count: c_uint,
    library: CUlibrary,
) -> CuResult {
    require_init()?;
    let host = host_library(library as u64)?;
    let mut bytes = vec![0; count as usize * 8];
    wire::cuLibraryEnumerateKernels(Some(&mut bytes), count, host)?;
    // SAFETY: the caller passes an array of `count` elements, or NULL.
    unsafe { give_handles(kernels.cast(), &bytes, Parent::Library(library as u64)) }
}

/// Gives the program the handles of functions that it has not asked for by name.
///
/// # Safety
/// `place` is NULL or an array with room for them.
pub unsafe fn give_handles(place: *mut *mut c_void, bytes: &[u8], parent: Parent) -> CuResult {
    if place.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    for (index, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let handle = u64::from_le_bytes(*word);
        if handle != 0 && process().functions.get(handle).is_err() {
            function::learn(parent, handle)?;
        }
        // SAFETY: by the caller's promise.
        unsafe { place.add(index).write(handle as *mut c_void) };
    }
    Ok(())
}

/// A kernel serves as the function of every context, on the host too.
pub unsafe fn cuKernelGetFunction(function: *mut CUfunction, kernel: CUkernel) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let function = unsafe { out(function) }?;
    process().functions.get(kernel as u64)?;
    *function = kernel as CUfunction;
    Ok(())
}

pub unsafe fn cuKernelGetLibrary(library: *mut CUlibrary, kernel: CUkernel) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let library = unsafe { out(library) }?;
    match process().functions.get(kernel as u64)?.parent {
        Parent::Library(handle) => *library = handle as CUlibrary,
        Parent::Module(_) => return Err(Status::INVALID_HANDLE),
    }
    Ok(())
}

pub unsafe fn cuKernelGetName(name: *mut *const c_char, kernel: CUkernel) -> CuResult {
    // SAFETY: passed on as received.
    unsafe { function::cuFuncGetName(name, kernel.cast()) }
}

pub unsafe fn cuKernelSetCacheConfig(kernel: CUkernel, config: CUfunc_cache, _device: CUdevice) -> CuResult {
    let kernel = process().functions.get(kernel as u64)?;
    wire::cuFuncSetCacheConfig(kernel.handle, config)
}

pub unsafe fn cuKernelGetAttribute(
    value: *mut c_int,
    which: CUfunction_attribute,
    kernel: CUkernel,
    device: CUdevice,
) -> CuResult {
    if !(0..device::count()?).contains(&device) {
        return Err(Status::INVALID_DEVICE);
    }
    function::attribute(value, which, kernel as u64)
}

pub unsafe fn cuKernelSetAttribute(
    which: CUfunction_attribute,
    value: c_int,
    kernel: CUkernel,
    _device: CUdevice,
) -> CuResult {
    function::set_attribute(which, value, kernel as u64)
}

pub unsafe fn cuKernelGetParamInfo(
    kernel: CUkernel,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CuResult {
    function::param_info(kernel as u64, index, offset, size)
}

pub unsafe fn cuKernelGetParamCount(kernel: CUkernel, count: *mut usize) -> CuResult {
    function::param_count(kernel as u64, count)
}
