#![allow(unsafe_code)]
//! Functions and kernels. Unsafe because results are written through the caller's pointers.

use core::ffi::{c_char, c_int};
use std::ffi::CString;

use protocol::function::FunctionInfo;
use protocol::status::{CuResult, Status};
use protocol::wire::Reader;

use crate::function::Parent;
use crate::generated::wire;
use crate::pointer::out;
use crate::process::process;
use crate::types::*;

/// Asks for a function by name, once; later requests get the same handle.
pub fn find(
    parent: Parent,
    name: CString,
    ask: impl FnOnce(&CString) -> Result<u64, Status>,
) -> Result<u64, Status> {
    let functions = &process().functions;
    if let Some(handle) = functions.by_name(parent, &name) {
        return Ok(handle);
    }
    learn(parent, ask(&name)?)
}

/// Asks for what a launch needs to know of a function, and enters it.
pub fn learn(parent: Parent, handle: u64) -> Result<u64, Status> {
    let mut block = Vec::new();
    wire::function_info(handle, Some(&mut block))?;
    let info = FunctionInfo::decode(&mut Reader::new(&block)).map_err(|error| {
        crate::log!(Error, "function {handle:#x}: {error}");
        Status::UNKNOWN
    })?;
    let context = match parent {
        Parent::Module(module) => process().owners.of(module),
        Parent::Library(_) => 0,
    };
    Ok(process().functions.insert(parent, context, FunctionInfo { handle, ..info }))
}

pub unsafe fn cuFuncGetName(name: *mut *const c_char, function: CUfunction) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let name = unsafe { out(name) }?;
    let function = process().functions.get(function as u64)?;
    // The name lives as long as the function's module: the table holds it.
    *name = function.name.as_ptr();
    Ok(())
}

pub unsafe fn cuFuncGetModule(module: *mut CUmodule, function: CUfunction) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let module = unsafe { out(module) }?;
    match process().functions.get(function as u64)?.parent {
        Parent::Module(handle) => *module = handle as CUmodule,
        Parent::Library(library) => *module = crate::custom::library::module_of(library)? as CUmodule,
    }
    Ok(())
}

pub fn attribute(value: *mut c_int, attribute: u32, function: u64) -> CuResult {
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let value = unsafe { out(value) }?;
    let function = process().functions.get(function)?;
    *value = function.attribute(attribute as usize).ok_or(Status::INVALID_VALUE)?;
    Ok(())
}

pub fn set_attribute(attribute: u32, value: c_int, function: u64) -> CuResult {
    let function = process().functions.get(function)?;
    wire::cuFuncSetAttribute(function.handle, attribute, value)?;
    function.set_attribute(attribute as usize, value);
    Ok(())
}

pub unsafe fn cuFuncGetAttribute(
    value: *mut c_int,
    which: CUfunction_attribute,
    function: CUfunction,
) -> CuResult {
    attribute(value, which, function as u64)
}

pub unsafe fn cuFuncSetAttribute(
    function: CUfunction,
    which: CUfunction_attribute,
    value: c_int,
) -> CuResult {
    set_attribute(which, value, function as u64)
}

pub unsafe fn cuFuncSetCacheConfig(function: CUfunction, config: CUfunc_cache) -> CuResult {
    let function = process().functions.get(function as u64)?;
    wire::cuFuncSetCacheConfig(function.handle, config)
}

/// Bank widths cannot be chosen on any device since Kepler; accepted and without effect, as on those.
pub unsafe fn cuFuncSetSharedMemConfig(function: CUfunction, _config: CUsharedconfig) -> CuResult {
    process().functions.get(function as u64).map(|_| ())
}

pub fn param_info(function: u64, index: usize, offset: *mut usize, size: *mut usize) -> CuResult {
    let function = process().functions.get(function)?;
    let param = function.params.get(index).ok_or(Status::INVALID_VALUE)?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(offset) }? = param.offset as usize;
    // SAFETY: as above; the size may be left out.
    if let Some(size) = unsafe { size.as_mut() } {
        *size = param.size as usize;
    }
    Ok(())
}

pub unsafe fn cuFuncGetParamInfo(
    function: CUfunction,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CuResult {
    param_info(function as u64, index, offset, size)
}

pub fn param_count(function: u64, count: *mut usize) -> CuResult {
    let function = process().functions.get(function)?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(count) }? = function.params.len();
    Ok(())
}

pub unsafe fn cuFuncGetParamCount(function: CUfunction, count: *mut usize) -> CuResult {
    param_count(function as u64, count)
}

/// Loading is complete when a function handle exists.
pub unsafe fn cuFuncIsLoaded(state: *mut CUfunctionLoadingState, function: CUfunction) -> CuResult {
    process().functions.get(function as u64)?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(state) }? = 1;
    Ok(())
}

pub unsafe fn cuFuncLoad(function: CUfunction) -> CuResult {
    process().functions.get(function as u64).map(|_| ())
}
