//! What the C half calls (`glue/core.h`). All functions that take the state are called with `broker_lock` held.
//!
//! Results are 0, a count or a pointer, or a negative error number.
#![allow(unsafe_code)] // The boundary to C: pointers come in, and names go out unmangled.

use core::ffi::c_void;

use crate::account::{Charge, Limits};
use crate::errno::{ENOMEM, EPROTO};
use crate::memory::KVec;
use crate::region::{ExtentBuilder, enclosing_pages};
use crate::state::{Overdue, RegionInfo, State, Usage};
use crate::wire::{self, Extent, Header, HostMessage, Kind, RegionKind};

/// A value in an allocation of its own, for C to hold by pointer.
fn into_raw<T>(value: T) -> *mut T {
    // A vector of one element is an allocation with checks for alignment and failure; it is taken apart again in `from_raw`.
    let mut one = KVec::new();
    if one.push(value).is_err() {
        return core::ptr::null_mut();
    }
    let at = one.as_mut_slice().as_mut_ptr();
    core::mem::forget(one);
    at
}

/// Takes back what [`into_raw`] gave.
///
/// # Safety
/// `at` came from `into_raw` and is not used again.
unsafe fn from_raw<T>(at: *mut T) -> T {
    // SAFETY: the caller's promise: `at` points to an initialised value that nobody else reads again.
    let value = unsafe { at.read() };
    // SAFETY: the allocation came from broker_alloc by way of KVec, and its value has been moved out.
    unsafe { crate::memory::free_raw(at.cast()) };
    value
}

fn code(result: Result<(), i32>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => error,
    }
}

fn truth(result: Result<bool, i32>) -> i32 {
    match result {
        Ok(yes) => yes as i32,
        Err(error) => error,
    }
}

/// A new state; NULL without memory.
///
/// # Safety
/// `limits` points to readable limits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn broker_core_new(
    limits: *const Limits,
    instance_0: u64,
    instance_1: u64,
) -> *mut State {
    // SAFETY: the caller's promise.
    into_raw(State::new(unsafe { *limits }, [instance_0, instance_1]))
}

/// Frees a state. Pages that it still holds are not freed: there must be none.
///
/// # Safety
/// `state` came from [`broker_core_new`] and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn broker_core_free(state: *mut State) {
    // SAFETY: the caller's promise.
    drop(unsafe { from_raw(state) });
}

/// Declares a function that is called with the state: a reference in Rust, a pointer in C.
macro_rules! with_state {
    ($($(#[$doc:meta])* fn $name:ident($state:ident $(, $arg:ident: $type:ty)*) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// The state came from [`broker_core_new`], `broker_lock` is held, and pointers are valid for what they are used for.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($state: *mut State $(, $arg: $type)*) $(-> $result)? {
            // SAFETY: the caller's promise: the state is initialised, and the lock makes this the only reference.
            let $state = unsafe { &mut *$state };
            $body
        }
    )*};
}

with_state! {
    /// [`State::open`]; the id goes to `session`.
    fn broker_core_open(state, uid: u32, pid: u32, process: u64, cookie_0: u64, cookie_1: u64, session: *mut u64) -> i32 {
        match state.open(uid, pid, process, [cookie_0, cookie_1]) {
            Ok(id) => {
                // SAFETY: the caller's promise: `session` is writable.
                unsafe { session.write(id) };
                0
            }
            Err(error) => error,
        }
    }

    /// [`State::close`]
    fn broker_core_close(state, session: u64, now_ms: u64) {
        state.close(session, now_ms);
    }

    /// [`State::ready`]: 1, 0 or an error.
    fn broker_core_ready(state, session: u64) -> i32 {
        truth(state.ready(session))
    }

    /// [`State::cookie`] into two words; 1 if there is one.
    fn broker_core_cookie(state, session: u64, cookie: *mut [u64; 2]) -> i32 {
        match state.cookie(session) {
            Some(secret) => {
                // SAFETY: the caller's promise: `cookie` is writable.
                unsafe { cookie.write(secret) };
                1
            }
            None => 0,
        }
    }

    /// [`State::reserve`]
    fn broker_core_reserve(state, session: u64, kind: u64, len: u64, region: *mut u64, charge: *mut Charge) -> i32 {
        match state.reserve(session, RegionKind(kind), len) {
            Ok((id, charged)) => {
                // SAFETY: the caller's promise: both are writable.
                unsafe {
                    region.write(id);
                    charge.write(charged);
                }
                0
            }
            Err(error) => error,
        }
    }

    /// [`State::publish`]; takes `extents` whatever the outcome.
    fn broker_core_publish(state, region: u64, pages: *mut c_void, extents: *mut ExtentBuilder) -> i32 {
        // SAFETY: the caller's promise: it came from broker_extents_new and is not used again.
        let extents = unsafe { from_raw(extents) };
        code(state.publish(region, pages as usize, extents))
    }

    /// [`State::abandon`]
    fn broker_core_abandon(state, region: u64) {
        state.abandon(region);
    }

    /// [`State::added`]: 1, 0 or an error.
    fn broker_core_added(state, session: u64, region: u64) -> i32 {
        truth(state.added(session, region))
    }

    /// [`State::remove`]
    fn broker_core_remove(state, session: u64, region: u64, now_ms: u64) -> i32 {
        code(state.remove(session, region, now_ms))
    }

    /// [`State::released`]: 1, 0 or an error.
    fn broker_core_released(state, session: u64, region: u64) -> i32 {
        truth(state.released(session, region))
    }

    /// [`State::window_at`]: the pages or NULL.
    fn broker_core_window_at(state, session: u64, page_offset: u64) -> *mut c_void {
        state.window_at(session, page_offset).unwrap_or(0) as *mut c_void
    }

    /// [`State::usage`]
    fn broker_core_usage(state, session: u64, usage: *mut Usage) -> i32 {
        match state.usage(session) {
            Ok(found) => {
                // SAFETY: the caller's promise: `usage` is writable.
                unsafe { usage.write(found) };
                0
            }
            Err(error) => error,
        }
    }

    /// [`State::region_info`]
    fn broker_core_region_info(state, session: u64, region: u64, info: *mut RegionInfo) -> i32 {
        match state.region_info(session, region) {
            Ok(found) => {
                // SAFETY: the caller's promise: `info` is writable.
                unsafe { info.write(found) };
                0
            }
            Err(error) => error,
        }
    }

    /// [`State::take_dead`]: the pages or NULL.
    fn broker_core_take_dead(state) -> *mut c_void {
        state.take_dead().unwrap_or(0) as *mut c_void
    }

    /// Gives a charge back.
    fn broker_core_uncharge(state, charge: *const Charge) {
        // SAFETY: the caller's promise: `charge` is what broker_core_reserve wrote.
        state.accounts_mut().uncharge(unsafe { *charge });
    }

    /// [`State::overdue`]
    fn broker_core_overdue(state, now_ms: u64, limit_ms: u64, overdue: *mut Overdue) {
        // SAFETY: the caller's promise: `overdue` is writable.
        unsafe { overdue.write(state.overdue(now_ms, limit_ms)) };
    }

    /// [`State::max_region_bytes`]
    fn broker_core_max_region(state) -> u64 {
        state.max_region_bytes()
    }

    /// [`State::connected`]
    fn broker_core_connected(state) {
        state.connected();
    }

    /// [`State::disconnected`]
    fn broker_core_disconnected(state, now_ms: u64) {
        state.disconnected(now_ms);
    }

    /// [`State::is_up`]
    fn broker_core_is_up(state) -> i32 {
        state.is_up() as i32
    }

    /// [`State::has_message`]
    fn broker_core_has_message(state) -> i32 {
        state.has_message() as i32
    }

    /// [`State::next_message`] into `len` bytes at `out`: bytes written, 0 for none.
    fn broker_core_next_message(state, out: *mut u8, len: usize) -> usize {
        // SAFETY: the caller's promise: `len` bytes at `out` are writable and initialised, and nobody else uses them.
        let out = unsafe { core::slice::from_raw_parts_mut(out, len) };
        state.next_message(out).unwrap_or(0)
    }

    /// [`State::receive`] of a body of `len` bytes.
    fn broker_core_receive(state, kind: u32, body: *const u8, len: usize) -> i32 {
        // SAFETY: the caller's promise: `len` bytes at `body` are readable and do not change.
        let body = unsafe { core::slice::from_raw_parts(body, len) };
        match HostMessage::decode(Kind(kind as u16), body) {
            Ok(message) => code(state.receive(message)),
            Err(_) => EPROTO,
        }
    }
}

/// Decodes the header of a message of the host: its kind goes to `kind`, the length of its body is returned, at most 40.
///
/// # Safety
/// 16 bytes at `header` are readable, `kind` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn broker_core_header(header: *const [u8; wire::HEADER_LEN], kind: *mut u32) -> i32 {
    // SAFETY: the caller's promise.
    match Header::decode(unsafe { &*header }) {
        Ok(decoded) if decoded.len <= HostMessage::MAX_LEN - wire::HEADER_LEN => {
            // SAFETY: the caller's promise.
            unsafe { kind.write(u32::from(decoded.kind.0)) };
            decoded.len as i32
        }
        _ => EPROTO,
    }
}

/// [`enclosing_pages`]: address, pages and offset go to `out`.
///
/// # Safety
/// `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn broker_core_enclosing(
    address: u64,
    len: u64,
    limit_bytes: u64,
    out: *mut [u64; 3],
) -> i32 {
    match enclosing_pages(address, len, limit_bytes / wire::PAGE_SIZE) {
        Ok((first, pages, offset)) => {
            // SAFETY: the caller's promise.
            unsafe { out.write([first, pages, offset]) };
            0
        }
        Err(error) => error,
    }
}

/// An empty list of extents; NULL without memory.
#[unsafe(no_mangle)]
pub extern "C" fn broker_extents_new() -> *mut ExtentBuilder {
    into_raw(ExtentBuilder::new())
}

/// Appends whole pages.
///
/// # Safety
/// `extents` came from [`broker_extents_new`], and nobody else uses it now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn broker_extents_push(extents: *mut ExtentBuilder, gpa: u64, len: u64) -> i32 {
    if extents.is_null() {
        return ENOMEM;
    }
    // SAFETY: the caller's promise.
    code(unsafe { &mut *extents }.push(Extent { gpa, len }))
}

/// Frees a list that was not published.
///
/// # Safety
/// `extents` came from [`broker_extents_new`] and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn broker_extents_free(extents: *mut ExtentBuilder) {
    // SAFETY: the caller's promise.
    drop(unsafe { from_raw(extents) });
}
