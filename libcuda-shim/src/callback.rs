#![allow(unsafe_code)]
//! Functions of the program that run in stream order: host functions and stream callbacks, those of graphs, destructors of user objects.
//!
//! The host holds the stream while the function runs. A thread of the program, started with the first such function, asks the host over a lane
//! of its own which one is due, calls it, and reports that it has returned. Unsafe because the functions are C functions of the program.

use core::ffi::c_void;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use protocol::status::{CuResult, Status};

use crate::background;
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

/// Address of a function, its stream, its argument: what makes two calls the same.
type Key = (usize, u64, usize);

impl Entry {
    fn key(&self) -> Key {
        match self.function {
            Function::Host(function) => ((function as *const c_void).addr(), 0, self.data),
            Function::Stream(function, stream) => ((function as *const c_void).addr(), stream, self.data),
        }
    }

    fn host(function: HostFunction, data: *mut c_void) -> Entry {
        Entry { function: Function::Host(function), data: data.expose_provenance() }
    }
}

/// Functions that are queued.
#[derive(Default)]
pub struct Callbacks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Functions that are called once.
    entries: HashMap<u64, Entry>,
    /// Functions of graphs, which are called at every launch, and their numbers. A number stays for the life of the process: graphs are copied and
    /// updated, so that nobody knows when the last use of one is over.
    kept: HashMap<u64, Entry>,
    kept_ids: HashMap<Key, u64>,
    last_id: u64,
    running: bool,
}

pub fn queue_host_function(stream: u64, function: HostFunction, data: *mut c_void) -> CuResult {
    queue(stream, HOST_FUNCTION, Entry::host(function, data))
}

pub fn queue_stream_callback(stream: u64, function: CUstreamCallback, data: *mut c_void) -> CuResult {
    let function = Function::Stream(function.ok_or(Status::INVALID_VALUE)?, stream);
    queue(stream, STREAM_CALLBACK, Entry { function, data: data.expose_provenance() })
}

/// Enters a destructor, which is called once with an argument; it is the host that says when.
pub fn enter_destructor(function: HostFunction, data: *mut c_void) -> Result<u64, Status> {
    with_state(thread::current_context(), |state| state.enter(Entry::host(function, data)))
}

/// Forgets a function that will not be called after all.
pub fn forget(id: u64) {
    process().callbacks.state.lock().unwrap_or_else(PoisonError::into_inner).entries.remove(&id);
}

/// The number of a function of a graph, which may be called any number of times.
pub fn keep_host_function(function: HostFunction, data: *mut c_void) -> Result<u64, Status> {
    with_state(thread::current_context(), |state| state.keep(Entry::host(function, data)))
}

/// The function and the argument behind a number of [`keep_host_function`].
pub fn kept_host_function(id: u64) -> Option<(HostFunction, *mut c_void)> {
    let state = process().callbacks.state.lock().unwrap_or_else(PoisonError::into_inner);
    match state.kept.get(&id)? {
        Entry { function: Function::Host(function), data } => {
            Some((*function, core::ptr::with_exposed_provenance_mut(*data)))
        }
        Entry { function: Function::Stream(..), .. } => None,
    }
}

impl State {
    fn enter(&mut self, entry: Entry) -> u64 {
        self.last_id += 1;
        self.entries.insert(self.last_id, entry);
        self.last_id
    }

    fn keep(&mut self, entry: Entry) -> u64 {
        if let Some(id) = self.kept_ids.get(&entry.key()) {
            return *id;
        }
        self.last_id += 1;
        self.kept.insert(self.last_id, entry);
        self.kept_ids.insert(entry.key(), self.last_id);
        self.last_id
    }

    /// What is to be called.
    fn take(&mut self, id: u64) -> Option<Entry> {
        self.entries.remove(&id).or_else(|| self.kept.get(&id).copied())
    }
}

/// Runs `f` with the thread that calls the functions in being.
fn with_state<R>(context: u64, f: impl FnOnce(&mut State) -> R) -> Result<R, Status> {
    let mut state = process().callbacks.state.lock().unwrap_or_else(PoisonError::into_inner);
    if !state.running {
        background::spawn("cuda-callbacks", move || serve(context))?;
        state.running = true;
    }
    Ok(f(&mut state))
}

fn queue(stream: u64, kind: u32, entry: Entry) -> CuResult {
    let context = thread::require_context()?;
    if process().captures.active() {
        // If it is captured, it will be called at every launch of the graph.
        let id = with_state(context, |state| state.keep(entry))?;
        return wire::capture_callback(stream, id, kind);
    }
    let id = with_state(context, |state| state.enter(entry))?;
    let posted = wire::callback_post(stream, id, kind);
    if posted.is_err() {
        forget(id);
    }
    posted
}

/// A failure changes nothing that the program could see but the code of a mistaken call.
fn in_host_function(running: bool) {
    let _ = thread::with(|thread| {
        thread.in_host_function = running;
        Ok(())
    });
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
        let entry = process().callbacks.state.lock().unwrap_or_else(PoisonError::into_inner).take(id);
        if let Some(Entry { function, data }) = entry {
            let data = core::ptr::with_exposed_provenance_mut(data);
            in_host_function(true);
            match function {
                // SAFETY: the program asked for this call with this argument.
                Function::Host(function) => unsafe { function(data) },
                Function::Stream(function, stream) => {
                    // SAFETY: as above.
                    unsafe { function(stream as CUstream, status, data) }
                }
            }
        }
        in_host_function(false);
        if wire::callback_done(id).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn one(_: *mut c_void) {}
    unsafe extern "C" fn with_stream(_: CUstream, _: u32, _: *mut c_void) {}

    #[test]
    fn functions_of_graphs_keep_their_numbers_and_others_are_called_once() {
        let mut state = State::default();
        let at = core::ptr::without_provenance_mut;
        let kept = state.keep(Entry::host(one, at(8)));
        assert_eq!(state.keep(Entry::host(one, at(8))), kept);
        assert_ne!(state.keep(Entry::host(one, at(16))), kept);
        let once = state.enter(Entry::host(one, at(8)));
        assert!(state.take(kept).is_some() && state.take(kept).is_some());
        assert!(state.take(once).is_some() && state.take(once).is_none());
        let entry = |stream| Entry { function: Function::Stream(with_stream, stream), data: 8 };
        assert_ne!(state.keep(entry(3)), state.keep(entry(4)), "a callback is told its stream");
    }
}
