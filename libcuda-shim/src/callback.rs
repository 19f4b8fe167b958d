#![allow(unsafe_code)]
//! Functions of the program that run in stream order: host functions and stream callbacks.
//!
//! The host holds the stream while the function runs. A thread of the program, started with the first such function, asks the host over a lane
//! of its own which one is due, calls it, and reports that it has returned. Unsafe because the functions are C functions of the program.
//!
//! The thread is the only one that this library ever starts in a program; it blocks all signals, which belong to the program's threads.

use core::ffi::c_void;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use protocol::status::{CuResult, Status};

use crate::generated::wire;
use crate::process::process;
use crate::thread;
use crate::types::{CUstream, CUstreamCallback};

type HostFunction = unsafe extern "C" fn(*mut c_void);
type StreamCallback = unsafe extern "C" fn(CUstream, u32, *mut c_void);

/// `callback_post` kinds.
const STREAM_CALLBACK: u32 = 0;
const HOST_FUNCTION: u32 = 1;

#[derive(Clone, Copy)]
enum Function {
    Host(HostFunction),
    Stream(StreamCallback, u64),
}

#[derive(Clone, Copy)]
struct Entry {
    function: Function,
    /// The program's pointer, as a number: it is only handed back.
    data: usize,
}

/// Functions that are queued.
#[derive(Default)]
pub struct Callbacks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<u64, Entry>,
    last_id: u64,
    running: bool,
}

pub fn queue_host_function(stream: u64, function: HostFunction, data: *mut c_void) -> CuResult {
    queue(stream, HOST_FUNCTION, Entry { function: Function::Host(function), data: data.expose_provenance() })
}

pub fn queue_stream_callback(stream: u64, function: CUstreamCallback, data: *mut c_void) -> CuResult {
    let function = Function::Stream(function.ok_or(Status::INVALID_VALUE)?, stream);
    queue(stream, STREAM_CALLBACK, Entry { function, data: data.expose_provenance() })
}

fn queue(stream: u64, kind: u32, entry: Entry) -> CuResult {
    let context = thread::require_context()?;
    let id = {
        let mut state = process().callbacks.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.running {
            start(context)?;
            state.running = true;
        }
        state.last_id += 1;
        let id = state.last_id;
        state.entries.insert(id, entry);
        id
    };
    let posted = wire::callback_post(stream, id, kind);
    if posted.is_err() {
        process().callbacks.state.lock().unwrap_or_else(PoisonError::into_inner).entries.remove(&id);
    }
    posted
}

/// Starts the thread with all signals blocked.
fn start(context: u64) -> CuResult {
    // SAFETY: the set is initialised by sigfillset before it is used, and the old mask is put back below.
    let old = unsafe {
        let mut all = core::mem::zeroed::<libc::sigset_t>();
        let mut old = core::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        old
    };
    let started = std::thread::Builder::new().name("cuda-callbacks".into()).spawn(move || serve(context));
    // SAFETY: the mask that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, core::ptr::null_mut()) };
    started.map(|_| ()).map_err(|error| {
        crate::log!(Error, "no thread for host functions: {error}");
        Status::OUT_OF_MEMORY
    })
}

fn serve(context: u64) {
    let set = thread::with(|thread| {
        thread.set_current(context);
        Ok(())
    });
    if set.is_err() {
        return;
    }
    loop {
        let (mut id, mut status) = (0, 0);
        if let Err(error) = wire::callback_next(Some(&mut id), Some(&mut status)) {
            crate::log!(Debug, "no more host functions: {error:?}");
            return;
        }
        let entry =
            process().callbacks.state.lock().unwrap_or_else(PoisonError::into_inner).entries.remove(&id);
        if let Some(Entry { function, data }) = entry {
            let data = core::ptr::with_exposed_provenance_mut(data);
            match function {
                // SAFETY: the program asked for this call with this argument.
                Function::Host(function) => unsafe { function(data) },
                Function::Stream(function, stream) => {
                    // SAFETY: as above.
                    unsafe { function(stream as CUstream, status, data) }
                }
            }
        }
        if wire::callback_done(id).is_err() {
            return;
        }
    }
}
