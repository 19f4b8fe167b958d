//! What of the driver's private tables needs the real device.
//!
//! Only what was observed at calls of NVIDIA's libraries (driver 580, cuBLASLt 13): slot 4 of the table below is called with two variables for
//! pointers and fills them with blocks of the C library's allocator; slot 13 is called with the two and frees them.
#![allow(unsafe_code)] // Calls functions of the driver that have no prototype.

use core::ffi::c_void;

use protocol::status::{CuResult, Status};

use crate::generated::cuda_raw::Raw;

const TABLE: [u8; 16] =
    [0x17, 0x34, 0xdc, 0x26, 0x80, 0x0d, 0x47, 0x45, 0x87, 0x26, 0xc0, 0xf1, 0xe7, 0xdd, 0x8b, 0xca];
const GET: usize = 4;
const FREE: usize = 13;

/// Longer ones are not what was observed.
const MAX_LEN: usize = 16 << 10;

type Get = unsafe extern "C" fn(*mut *mut u8, *mut *mut u8) -> u32;
type Free = unsafe extern "C" fn(*mut u8, *mut u8) -> u32;

/// The two blocks for the thread's current context.
///
/// # Errors
/// NOT_SUPPORTED if the driver has no such table; the driver's own.
pub fn device_tables(raw: &Raw) -> CuResult<(Vec<u8>, Vec<u8>)> {
    let mut table = 0u64;
    // SAFETY: the output is a variable for a pointer, the id has 16 bytes.
    unsafe { raw.cuGetExportTable(&mut table, TABLE.as_ptr().cast()) }?;
    let table: *const usize = core::ptr::with_exposed_provenance(table as usize);
    if table.is_null() {
        return Err(Status::NOT_SUPPORTED);
    }
    // SAFETY: the first word of this table is its length in bytes.
    let len = unsafe { table.read() } / size_of::<usize>();
    if len <= FREE {
        return Err(Status::NOT_SUPPORTED);
    }
    // SAFETY: both slots are within the table.
    let (get, free) = unsafe { (table.add(GET).read(), table.add(FREE).read()) };
    if get == 0 || free == 0 {
        return Err(Status::NOT_SUPPORTED);
    }
    // SAFETY: functions of the driver, which stays loaded, with the parameters with which NVIDIA's libraries call them.
    let (get, free) = unsafe {
        (
            core::mem::transmute::<*const c_void, Get>(core::ptr::with_exposed_provenance(get)),
            core::mem::transmute::<*const c_void, Free>(core::ptr::with_exposed_provenance(free)),
        )
    };
    let (mut first, mut second) = (core::ptr::null_mut(), core::ptr::null_mut());
    // SAFETY: two variables for pointers.
    match unsafe { get(&mut first, &mut second) } {
        0 => {}
        status => return Err(Status(status)),
    }
    let copies = (copy(first), copy(second));
    // SAFETY: what was just given, not used any more.
    unsafe { free(first, second) };
    Ok(copies)
}

/// The contents of a block of the C library's allocator; nothing of NULL or of one that is too long.
fn copy(block: *mut u8) -> Vec<u8> {
    // SAFETY: NULL, or a live block of the allocator.
    let len = unsafe { libc::malloc_usable_size(block.cast()) };
    if block.is_null() || len > MAX_LEN {
        return Vec::new();
    }
    // SAFETY: a live block of this length.
    unsafe { core::slice::from_raw_parts(block, len) }.to_vec()
}
