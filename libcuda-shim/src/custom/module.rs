#![allow(unsafe_code)]
//! Modules. Unsafe because code comes as a bare pointer, and results are written through the caller's pointers.

use core::ffi::{c_char, c_uint, c_void};

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::custom::{function, library};
use crate::function::Parent;
use crate::generated::wire;
use crate::image::Image;
use crate::module::{self, Options};
use crate::pointer::{out, text};
use crate::process::process;
use crate::thread;
use crate::types::*;

/// Has the host load images into the current context.
fn load_images(images: &[Image], options: &mut Options) -> Result<u64, Status> {
    let (hashes, forms) = module::send_all(images)?;
    let (mut result, mut module) = (0, 0);
    let (mut info_log, mut error_log) = (Vec::new(), Vec::new());
    wire::module_load(
        images.len() as u32,
        Some(&hashes),
        Some(&forms),
        options.numbers(),
        Some(&mut result),
        Some(&mut module),
        Some(&mut info_log),
        Some(&mut error_log),
    )?;
    options.logs(&info_log, &error_log);
    Status(result).ok()?;
    process().owners.made(module, thread::current_context());
    Ok(module)
}

/// Loads the code at a pointer into the current context.
///
/// # Safety
/// As [`module::images_at`].
pub unsafe fn load(module: Option<&mut CUmodule>, code: *const c_void, options: &mut Options) -> CuResult {
    require_init()?;
    thread::require_context()?;
    let module = module.ok_or(Status::INVALID_VALUE)?;
    // SAFETY: by the caller's promise.
    let images = unsafe { module::images_at(code, options) }?;
    *module = load_images(&images, options)? as CUmodule;
    Ok(())
}

pub unsafe fn cuModuleLoad(module: *mut CUmodule, name: *const c_char) -> CuResult {
    require_init()?;
    thread::require_context()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let module = unsafe { out(module) }?;
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let name = unsafe { text(name) }?;
    let mut options = Options::default();
    let images = library::images_of_file(name, &mut options)?;
    *module = load_images(&images, &mut options)? as CUmodule;
    Ok(())
}

pub unsafe fn cuModuleLoadData(module: *mut CUmodule, code: *const c_void) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, and complete code, or NULL.
    unsafe { load(module.as_mut(), code, &mut Options::default()) }
}

pub unsafe fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    code: *const c_void,
    count: c_uint,
    keys: *mut CUjit_option,
    values: *mut *mut c_void,
) -> CuResult {
    // SAFETY: arrays of `count` elements by the caller's promise.
    let mut options = unsafe { Options::read(count, keys, values) }?;
    // SAFETY: as in `cuModuleLoadData`.
    unsafe { load(module.as_mut(), code, &mut options) }
}

pub unsafe fn cuModuleLoadFatBinary(module: *mut CUmodule, code: *const c_void) -> CuResult {
    // SAFETY: as in `cuModuleLoadData`.
    unsafe { load(module.as_mut(), code, &mut Options::default()) }
}

pub unsafe fn cuModuleUnload(module: CUmodule) -> CuResult {
    require_init()?;
    wire::cuModuleUnload(module as u64)?;
    process().functions.remove_parent(Parent::Module(module as u64));
    process().owners.ended(module as u64);
    Ok(())
}

pub unsafe fn cuModuleGetFunction(
    function: *mut CUfunction,
    module: CUmodule,
    name: *const c_char,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let function = unsafe { out(function) }?;
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let name = unsafe { text(name) }?.to_owned();
    let module = module as u64;
    let found = function::find(Parent::Module(module), name, |name| {
        let mut handle = 0;
        wire::cuModuleGetFunction(Some(&mut handle), module, Some(name))?;
        Ok(handle)
    });
    *function = found.unwrap_or(0) as CUfunction;
    found.map(|_| ())
}

pub unsafe fn cuModuleGetGlobal_v2(
    address: *mut CUdeviceptr,
    len: *mut usize,
    module: CUmodule,
    name: *const c_char,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let name = unsafe { text(name) }?;
    if address.is_null() && len.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let module = module as u64;
    // SAFETY: the caller passes pointers to its own variables, or NULL.
    unsafe {
        library::give_global(address, len, |a, l| {
            wire::cuModuleGetGlobal_v2(Some(a), Some(l), module, Some(name))
        })
    }
}

pub unsafe fn cuModuleGetFunctionCount(count: *mut c_uint, module: CUmodule) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let count = unsafe { out(count) }?;
    wire::cuModuleGetFunctionCount(Some(count), module as u64)
}

pub unsafe fn cuModuleEnumerateFunctions(
    functions: *mut CUfunction,
    count: c_uint,
    module: CUmodule,
) -> CuResult {
    require_init()?;
    let mut bytes = vec![0; count as usize * 8];
    wire::cuModuleEnumerateFunctions(Some(&mut bytes), count, module as u64)?;
    // SAFETY: the caller passes an array of `count` elements, or NULL.
    unsafe { library::give_handles(functions.cast(), &bytes, Parent::Module(module as u64)) }
}
