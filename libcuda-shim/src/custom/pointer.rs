#![allow(unsafe_code)]
//! What a pointer points to. Unsafe because results are written through the caller's pointers.

use core::ffi::{c_uint, c_void};

use protocol::status::{CuResult, Status};

use crate::allocations::Answer;
use crate::copy::in_region;
use crate::custom::context::require_init;
use crate::custom::device;
use crate::generated::wire;
use crate::process::process;
use crate::types::*;
use crate::{sticky, thread};

/// What the host knows of an address.
#[derive(Clone, Copy, Default)]
pub struct Info {
    pub kind: u32,
    pub base: u64,
    pub size: u64,
    pub context: u64,
    pub device: i32,
    pub flags: u32,
    pub buffer_id: u64,
    pub pool: u64,
}

const KIND_NONE: u32 = 0;
pub const KIND_HOST: u32 = 2;
const KIND_MANAGED: u32 = 3;
/// Of the guest alone: not a kind that the host knows.
const KIND_REGISTERED: u32 = u32::MAX;

/// What is known of page-locked memory that is the program's alone. It has no address on the device.
fn own(address: u64) -> Option<Info> {
    let own = process().session.get()?.pinned()?.find(address)?;
    Some(Info {
        kind: KIND_REGISTERED,
        base: own.base,
        size: own.len,
        context: own.context,
        device: own.device,
        flags: own.flags,
        buffer_id: own.id,
        pool: 0,
    })
}

/// What is known of memory that the program has registered. Its address on the device is another question.
fn registered(address: u64) -> Option<Info> {
    let range = process().registered.range(address as usize)?;
    Some(Info {
        kind: KIND_REGISTERED,
        base: range.start as u64,
        size: range.len() as u64,
        context: thread::current_context(),
        device: device::current().unwrap_or(0),
        flags: 0,
        buffer_id: range.start as u64,
        pool: 0,
    })
}

/// What an address is: the host is asked once for each allocation. INVALID_VALUE for an address that CUDA does not know.
pub fn info(address: u64) -> Result<Info, Status> {
    if !in_region(address) {
        return registered(address).or_else(|| own(address)).ok_or(Status::INVALID_VALUE);
    }
    // After a fault every call is to say so.
    let answer = if sticky::any() { Answer::Unknown } else { process().allocations.answer(address) };
    match answer {
        Answer::Known(info) => Ok(info),
        Answer::Ask(ticket) => {
            let info = ask(address)?;
            process().allocations.answered(ticket, info);
            Ok(info)
        }
        Answer::Unknown => ask(address),
    }
}

fn ask(address: u64) -> Result<Info, Status> {
    let mut info = Info::default();
    wire::pointer_info(
        address,
        Some(&mut info.kind),
        Some(&mut info.base),
        Some(&mut info.size),
        Some(&mut info.context),
        Some(&mut info.device),
        Some(&mut info.flags),
        Some(&mut info.buffer_id),
        Some(&mut info.pool),
    )?;
    if info.kind == KIND_NONE { Err(Status::INVALID_VALUE) } else { Ok(info) }
}

const MEMORYTYPE_HOST: u32 = 1;
const MEMORYTYPE_DEVICE: u32 = 2;
/// `CU_DEVICE_INVALID`
const DEVICE_INVALID: i32 = -2;
const SYNC_MEMOPS: u32 = 6;

/// A value as CUDA stores it.
enum Value {
    Word(u64),
    Int(u32),
    /// No such address: an error if nothing else is asked for, else 0.
    Nowhere,
    /// `CUDA_POINTER_ATTRIBUTE_P2P_TOKENS`: deprecated, never available here.
    Unsupported,
}

/// The value of a `CUpointer_attribute`; for an unknown pointer what `cuPointerGetAttributes` gives.
fn value(attribute: u32, pointer: u64, info: Option<&Info>) -> Result<Value, Status> {
    let known = info.is_some();
    let zero = Info { device: DEVICE_INVALID, ..Info::default() };
    let info = info.unwrap_or(&zero);
    let registered = info.kind == KIND_REGISTERED;
    let host = info.kind == KIND_HOST || registered;
    let reachable = host || info.kind == KIND_MANAGED;
    Ok(match attribute {
        1 => Value::Word(info.context),
        2 if !known => Value::Int(0),
        2 => Value::Int(if host { MEMORYTYPE_HOST } else { MEMORYTYPE_DEVICE }),
        3 if registered => match process().registered.device_address(pointer as usize) {
            Ok(address) => Value::Word(address),
            Err(_) => Value::Nowhere,
        },
        3 if !known => Value::Nowhere,
        3 => Value::Word(pointer),
        4 if !reachable => Value::Nowhere,
        4 => Value::Word(pointer),
        5 => Value::Unsupported,
        SYNC_MEMOPS => Value::Int(u32::from(info.kind == KIND_MANAGED)),
        7 => Value::Word(info.buffer_id),
        8 => Value::Int(u32::from(info.kind == KIND_MANAGED)),
        9 => Value::Int(info.device as u32),
        // No legacy IPC, no RDMA registration flags, no GPUDirect.
        10 | 15 | 18 | 20 => Value::Int(0),
        // `CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE`
        16 => Value::Int(if known { 3 } else { 0 }),
        11 => Value::Word(info.base),
        12 => Value::Word(info.size),
        13 => Value::Int(u32::from(known)),
        14 => Value::Int(0),
        17 => Value::Word(info.pool),
        _ => return Err(Status::INVALID_VALUE),
    })
}

/// # Safety
/// `data` has room for the value.
unsafe fn store(data: *mut c_void, value: Value) -> CuResult {
    match value {
        // SAFETY: by the caller's promise; the alignment of a void pointer is not relied on.
        Value::Word(word) => unsafe { data.cast::<u64>().write_unaligned(word) },
        // SAFETY: as above.
        Value::Int(int) => unsafe { data.cast::<u32>().write_unaligned(int) },
        // SAFETY: as above.
        Value::Nowhere => unsafe { data.cast::<u64>().write_unaligned(0) },
        Value::Unsupported => return Err(Status::NOT_SUPPORTED),
    }
    Ok(())
}

pub unsafe fn cuPointerGetAttribute(
    data: *mut c_void,
    attribute: CUpointer_attribute,
    pointer: CUdeviceptr,
) -> CuResult {
    require_init()?;
    if data.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let info = info(pointer)?;
    let value = value(attribute, pointer, Some(&info))?;
    if matches!(value, Value::Nowhere) {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: the caller passes room for the value that it asks for.
    unsafe { store(data, value) }
}

/// Unlike the single query this one succeeds for a pointer that CUDA does not know.
pub unsafe fn cuPointerGetAttributes(
    count: c_uint,
    attributes: *mut CUpointer_attribute,
    data: *mut *mut c_void,
    pointer: CUdeviceptr,
) -> CuResult {
    require_init()?;
    if count == 0 || attributes.is_null() || data.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let info = match info(pointer) {
        Ok(info) => Some(info),
        Err(Status::INVALID_VALUE) => None,
        Err(status) => return Err(status),
    };
    for index in 0..count as usize {
        // SAFETY: both are arrays of `count` elements by the caller's promise.
        let (attribute, data) = unsafe { (attributes.add(index).read(), data.add(index).read()) };
        if data.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the element has room for the value that is asked for.
        unsafe { store(data, value(attribute, pointer, info.as_ref())?) }?;
    }
    Ok(())
}

/// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS` is the only one that can be set.
pub unsafe fn cuPointerSetAttribute(
    value: *const c_void,
    attribute: CUpointer_attribute,
    pointer: CUdeviceptr,
) -> CuResult {
    require_init()?;
    if value.is_null() || attribute != SYNC_MEMOPS {
        return Err(Status::INVALID_VALUE);
    }
    // Whoever asks for that has another device look at the memory: its copies are over when they return.
    process().allocations.shared(pointer);
    info(pointer).map(|_| ())
}
