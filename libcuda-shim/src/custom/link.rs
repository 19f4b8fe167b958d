#![allow(unsafe_code)]
//! The driver's linker: inputs are collected here and linked on the host, and the linked image is brought back, since programs load it, cache it or write
//! it to a file. Unsafe because inputs come as bare pointers and results are written through the caller's pointers.

use core::ffi::{CStr, c_char, c_uint, c_void};
use core::slice;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::custom::{device, library};
use crate::generated::wire;
use crate::image::{self, Form, Image};
use crate::module::{self, Options};
use crate::pointer::{out, text};
use crate::process::process;
use crate::thread;
use crate::types::*;

/// `CUjitInputType`
const INPUT_CUBIN: u32 = 0;
const INPUT_PTX: u32 = 1;
const INPUT_FATBINARY: u32 = 2;
const INPUT_OBJECT: u32 = 3;
const INPUT_LIBRARY: u32 = 4;

/// A link in progress. Options live until the link is destroyed: the log buffers in them belong to the program.
struct Link {
    inputs: Vec<Image>,
    options: Options,
    /// The result, which the program may use until it destroys the link.
    output: Vec<u8>,
}

/// All links of the process, by handle.
#[derive(Default)]
pub struct Links {
    state: Mutex<(HashMap<u64, Link>, u64)>,
}

/// Marks handles of links, so that none equals a handle of the host.
const LINK_HANDLE: u64 = 1 << 61;

impl Links {
    fn with<R>(
        &self,
        handle: CUlinkState,
        f: impl FnOnce(&mut Link) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f(state.0.get_mut(&(handle as u64)).ok_or(Status::INVALID_HANDLE)?)
    }
}

pub unsafe fn cuLinkCreate_v2(
    count: c_uint,
    keys: *mut CUjit_option,
    values: *mut *mut c_void,
    state: *mut CUlinkState,
) -> CuResult {
    require_init()?;
    thread::require_context()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let place = unsafe { out(state) }?;
    // SAFETY: arrays of `count` elements by the caller's promise, which the program keeps until the link is destroyed.
    let options = unsafe { Options::read(count, keys, values) }?;
    let mut state = process().links.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.1 += 1;
    let handle = LINK_HANDLE | (state.1 << 4);
    state.0.insert(handle, Link { inputs: Vec::new(), options, output: Vec::new() });
    *place = handle as CUlinkState;
    Ok(())
}

/// Adds an input, taking from it what the device can use.
fn add(state: CUlinkState, kind: CUjitInputType, data: &[u8], name: &CStr) -> CuResult {
    let target = module::target(device::current()?)?;
    process().links.with(state, |link| {
        let images = match kind {
            INPUT_PTX => image::ptx(data).map(|image| vec![image]),
            INPUT_CUBIN | INPUT_FATBINARY | INPUT_OBJECT | INPUT_LIBRARY => image::images_in(data, &target),
            _ => return Err(Status::INVALID_VALUE),
        };
        let images = images.map_err(|mut refused| {
            refused.reasons = format!("{}: {}", name.to_string_lossy(), refused.reasons);
            module::refuse(refused, &mut link.options)
        })?;
        link.inputs.extend(images);
        Ok(())
    })
}

pub unsafe fn cuLinkAddData_v2(
    state: CUlinkState,
    kind: CUjitInputType,
    data: *mut c_void,
    len: usize,
    name: *const c_char,
    _count: c_uint,
    _keys: *mut CUjit_option,
    _values: *mut *mut c_void,
) -> CuResult {
    require_init()?;
    if data.is_null() || len == 0 || len > image::MAX_IMAGE_LEN {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: not NULL, and of the length given with it.
    let data = unsafe { slice::from_raw_parts(data.cast::<u8>(), len) };
    // SAFETY: the caller passes NUL-terminated text, or NULL for an input without a name.
    let name = unsafe { text(name) }.unwrap_or(c"unnamed input");
    add(state, kind, data, name)
}

pub unsafe fn cuLinkAddFile_v2(
    state: CUlinkState,
    kind: CUjitInputType,
    path: *const c_char,
    _count: c_uint,
    _keys: *mut CUjit_option,
    _values: *mut *mut c_void,
) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes NUL-terminated text, or NULL.
    let path = unsafe { text(path) }?;
    add(state, kind, &library::read_file(path)?, path)
}

/// Brings a registered image into the program.
fn fetch(hash: [u8; 32], len: u64) -> Result<Vec<u8>, Status> {
    let len = usize::try_from(len).ok().filter(|len| *len <= image::MAX_IMAGE_LEN).ok_or(Status::UNKNOWN)?;
    let mut bytes = vec![0u8; len];
    let slot_len = thread::with(|thread| Ok(thread.lane()?.slot_len()))?;
    let mut offset = 0u64;
    for part in bytes.chunks_mut(slot_len) {
        let slot = thread::with(|thread| {
            let lane = thread.lane()?;
            let slot = lane.next_slot()?;
            lane.fetch_slot(&slot, part.len() as u64)?;
            Ok(slot)
        })?;
        wire::image_read(hash, offset, slot.offset(), part.len() as u64)?;
        thread::with(|thread| {
            // SAFETY: a slice is writable for its length.
            unsafe { thread.lane()?.copy_from_slot(&slot, 0, part.as_mut_ptr(), part.len(), false) }
        })?;
        offset += part.len() as u64;
    }
    Ok(bytes)
}

pub unsafe fn cuLinkComplete(state: CUlinkState, image: *mut *mut c_void, len: *mut usize) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let image = unsafe { out(image) }?;
    // The inputs leave the table while the host works, so that other links go on.
    let inputs = process().links.with(state, |link| Ok(core::mem::take(&mut link.inputs)))?;
    let (hashes, forms) = module::send_all(&inputs)?;
    let numbers =
        process().links.with(state, |link| Ok(link.options.numbers().unwrap_or_default().to_vec()))?;
    let (mut result, mut hash, mut form, mut found_len) = (0, [0; 32], 0, 0);
    let (mut info_log, mut error_log) = (Vec::new(), Vec::new());
    wire::link_images(
        inputs.len() as u32,
        Some(&hashes),
        Some(&forms),
        Some(&numbers),
        Some(&mut result),
        Some(&mut hash),
        Some(&mut form),
        Some(&mut found_len),
        Some(&mut info_log),
        Some(&mut error_log),
    )?;
    process().links.with(state, |link| {
        link.options.logs(&info_log, &error_log);
        Ok(())
    })?;
    Status(result).ok()?;
    let mut output = fetch(hash, found_len)?;
    if form == Form::Ptx as u32 {
        // Module loads get the pointer without the length: text ends with NUL.
        output.push(0);
    }
    process().links.with(state, |link| {
        link.output = output;
        *image = link.output.as_mut_ptr().cast();
        // SAFETY: the caller passes a pointer to its own variable, or NULL.
        if let Some(len) = unsafe { len.as_mut() } {
            *len = link.output.len();
        }
        Ok(())
    })
}

pub unsafe fn cuLinkDestroy(state: CUlinkState) -> CuResult {
    require_init()?;
    let mut links = process().links.state.lock().unwrap_or_else(PoisonError::into_inner);
    links.0.remove(&(state as u64)).map(|_| ()).ok_or(Status::INVALID_HANDLE)
}
