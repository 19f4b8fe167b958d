//! What of the driver's private tables needs the real device.
//!
//! Only what was observed at calls of NVIDIA's runtime and libraries. Runtimes from 11.8 to 13.5 call slot 2 of their own table with a variable for a context and a device, for each device, at their
//! start: it gives the handle that cuDevicePrimaryCtxRetain gives later, and the context stays inactive. cuBLASLt 13 (driver 580) calls slot 4 of another table with two variables for
//! pointers, which it fills with blocks of the C library's allocator; slot 13 is called with the two and frees them.
#![allow(unsafe_code)] // Calls functions of the driver that have no prototype.

use core::ffi::c_void;

use protocol::status::{CuResult, Status};

use crate::generated::cuda_raw::Raw;

/// The first word of both is the table's length in bytes.
const RUNTIME: [u8; 16] =
    [0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9];
const PRIMARY_CONTEXT: usize = 2;

const BLOCKS: [u8; 16] =
    [0x17, 0x34, 0xdc, 0x26, 0x80, 0x0d, 0x47, 0x45, 0x87, 0x26, 0xc0, 0xf1, 0xe7, 0xdd, 0x8b, 0xca];
const GET: usize = 4;
const FREE: usize = 13;

/// Longer ones are not what was observed.
const MAX_LEN: usize = 16 << 10;

type PrimaryContext = unsafe extern "C" fn(*mut u64, i32) -> u32;
type Get = unsafe extern "C" fn(*mut *mut u8, *mut *mut u8) -> u32;
type Free = unsafe extern "C" fn(*mut u8, *mut u8) -> u32;

/// Functions of a table whose first word is its length.
///
/// # Errors
/// Those of cuGetExportTable; NOT_SUPPORTED if the table is shorter.
fn functions<const N: usize>(raw: &Raw, table: &[u8; 16], slots: [usize; N]) -> CuResult<[*const c_void; N]> {
    let mut found = 0u64;
    // SAFETY: the output is a variable for a pointer, the id has 16 bytes.
    unsafe { raw.cuGetExportTable(&mut found, table.as_ptr().cast()) }?;
    let found: *const usize = core::ptr::with_exposed_provenance(found as usize);
    if found.is_null() {
        return Err(Status::NOT_SUPPORTED);
    }
    // SAFETY: the first word of this table is its length in bytes.
    let len = unsafe { found.read() } / size_of::<usize>();
    let mut functions = [core::ptr::null::<c_void>(); N];
    for (function, slot) in functions.iter_mut().zip(slots) {
        if slot >= len {
            return Err(Status::NOT_SUPPORTED);
        }
        // SAFETY: the slot is within the table.
        *function = core::ptr::with_exposed_provenance(unsafe { found.add(slot).read() });
        if function.is_null() {
            return Err(Status::NOT_SUPPORTED);
        }
    }
    Ok(functions)
}

/// The primary context of a device that exists, active or not, which stays as it is.
///
/// # Errors
/// NOT_SUPPORTED if the driver does not tell; the driver's own.
pub fn primary_context(raw: &Raw, device: i32) -> CuResult<u64> {
    let [tell] = functions(raw, &RUNTIME, [PRIMARY_CONTEXT]).map_err(|_| Status::NOT_SUPPORTED)?;
    // SAFETY: a function of the driver, which stays loaded, with the parameters with which NVIDIA's runtime calls it.
    let tell = unsafe { core::mem::transmute::<*const c_void, PrimaryContext>(tell) };
    let mut context = 0;
    // SAFETY: a variable for a handle, and a device that exists.
    match unsafe { tell(&mut context, device) } {
        0 if context == 0 => Err(Status::NOT_SUPPORTED),
        0 => Ok(context),
        status => Err(Status(status)),
    }
}

/// The two blocks for the thread's current context.
///
/// # Errors
/// NOT_SUPPORTED if the driver has no such table; the driver's own.
pub fn device_tables(raw: &Raw) -> CuResult<(Vec<u8>, Vec<u8>)> {
    let [get, free] = functions(raw, &BLOCKS, [GET, FREE])?;
    // SAFETY: functions of the driver, which stays loaded, with the parameters with which NVIDIA's libraries call them.
    let (get, free) = unsafe {
        (core::mem::transmute::<*const c_void, Get>(get), core::mem::transmute::<*const c_void, Free>(free))
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
