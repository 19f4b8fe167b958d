#![allow(unsafe_code)]
//! Functions of the program that run in stream order: host functions and stream callbacks, those of graphs, destructors of user objects; and the
//! library's own part of copies of pageable memory in graphs.
//!
//! The host holds the stream while the function runs. A thread of the program, started with the first such function, asks the host over a lane
//! of its own which one is due, calls it, and reports that it has returned. Unsafe because the functions are C functions of the program.

use core::ffi::c_void;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::status::{CuResult, Status};

use crate::background;
use crate::generated::wire;
use crate::graph_copy::GraphCopy;
use crate::process::process;
use crate::thread;
use crate::types::{CUstream, CUstreamCallback};

type HostFunction = unsafe extern "C" fn(*mut c_void);
type StreamCallback = unsafe extern "C" fn(CUstream, u32, *mut c_void);

/// `callback_post` kinds.
const STREAM_CALLBACK: u32 = 0;
const HOST_FUNCTION: u32 = 1;

#[derive(Clone)]
enum Function {
    Host(HostFunction),
    Stream(StreamCallback, u64),
    /// The library's part of a copy in a graph.
    Copy(Arc<GraphCopy>),
    /// No graph has the copy with this number any more.
    CopyEnded(u64),
}

#[derive(Clone)]
struct Entry {
    function: Function,
    /// The program's pointer, as a number: it is only handed back.
    data: usize,
}

/// Address of a function, its stream, its argument: what makes two calls the same.
type Key = (usize, u64, usize);

impl Entry {
    /// None for what is not the program's: it is never the same.
    fn key(&self) -> Option<Key> {
        match self.function {
            Function::Host(function) => Some(((function as *const c_void).addr(), 0, self.data)),
            Function::Stream(function, stream) => {
                Some(((function as *const c_void).addr(), stream, self.data))
            }
            Function::Copy(_) | Function::CopyEnded(_) => None,
        }
    }

    fn own(function: Function) -> Entry {
        Entry { function, data: 0 }
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
    /// Functions of graphs, which are called at every launch, and their numbers. A number of the program's stays for the life of the process: graphs are
    /// copied and updated, so that nobody knows when the last use of one is over. A copy's ends with the user object that its graphs hold.
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
        _ => None,
    }
}

/// The number of a copy in a graph, which may be carried out any number of times.
pub fn keep_copy(copy: Arc<GraphCopy>) -> Result<u64, Status> {
    with_state(thread::current_context(), |state| state.keep(Entry::own(Function::Copy(copy))))
}

/// The copy behind a number of [`keep_copy`].
pub fn kept_copy(id: u64) -> Option<Arc<GraphCopy>> {
    let state = process().callbacks.state.lock().unwrap_or_else(PoisonError::into_inner);
    match &state.kept.get(&id)?.function {
        Function::Copy(copy) => Some(Arc::clone(copy)),
        _ => None,
    }
}

/// Enters the end of a copy, of which the host tells when no graph has it any more.
pub fn enter_copy_end(copy: u64) -> Result<u64, Status> {
    with_state(thread::current_context(), |state| state.enter(Entry::own(Function::CopyEnded(copy))))
}

/// No graph has the copy with this number any more, or none has come to have it.
pub fn copy_ended(id: u64) {
    let mut state = process().callbacks.state.lock().unwrap_or_else(PoisonError::into_inner);
    let ended = state.end_copy(id);
    drop(state);
    if let Some(copy) = ended {
        process().graph_buffers.give_back(copy.buffer());
    }
}

impl State {
    fn enter(&mut self, entry: Entry) -> u64 {
        self.last_id += 1;
        self.entries.insert(self.last_id, entry);
        self.last_id
    }

    fn keep(&mut self, entry: Entry) -> u64 {
        let key = entry.key();
        if let Some(id) = key.and_then(|key| self.kept_ids.get(&key)) {
            return *id;
        }
        self.last_id += 1;
        self.kept.insert(self.last_id, entry);
        if let Some(key) = key {
            self.kept_ids.insert(key, self.last_id);
        }
        self.last_id
    }

    /// Forgets a copy.
    fn end_copy(&mut self, id: u64) -> Option<Arc<GraphCopy>> {
        match self.kept.remove(&id)? {
            Entry { function: Function::Copy(copy), .. } => Some(copy),
            other => {
                // A number of the program's, of which nobody says this.
                self.kept.insert(id, other);
                None
            }
        }
    }

    /// What is to be called.
    fn take(&mut self, id: u64) -> Option<Entry> {
        self.entries.remove(&id).or_else(|| self.kept.get(&id).cloned())
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
        // A launch that another thread has posted may wait in the driver for room in its stream, and that for the function whose return is told here.
        thread.alone = true;
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
                // SAFETY: the program launched a graph with this copy of its memory; the buffer is the copy's until its end, which is not yet.
                Function::Copy(copy) => unsafe { copy.carry_out() },
                Function::CopyEnded(copy) => copy_ended(copy),
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
    use crate::graph_buffers::Buffers;
    use crate::graph_copy::Plan;
    use crate::types::CUDA_MEMCPY3D;
    use core::mem::offset_of;
    use protocol::graph::{NodeParams, NodeType, at};

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

    #[test]
    fn copies_are_kept_until_their_end() {
        let mut params = NodeParams::new(NodeType::MEMCPY);
        let host = at::MEMCPY_COPY + offset_of!(CUDA_MEMCPY3D, srcHost);
        for (field, value) in
            [(offset_of!(CUDA_MEMCPY3D, srcMemoryType), 1), (offset_of!(CUDA_MEMCPY3D, dstMemoryType), 2)]
        {
            params.set_u32(at::MEMCPY_COPY + field, value);
        }
        params.set_u64(host, 0x1000);
        for field in [
            offset_of!(CUDA_MEMCPY3D, WidthInBytes),
            offset_of!(CUDA_MEMCPY3D, Height),
            offset_of!(CUDA_MEMCPY3D, Depth),
        ] {
            params.set_u64(at::MEMCPY_COPY + field, 1);
        }
        let copy = || {
            let plan = Plan::of(&params).unwrap().unwrap();
            let buffer = Buffers::default().take(1, plan.len(), Ok).unwrap();
            Arc::new(GraphCopy::new(plan, buffer))
        };
        let mut state = State::default();
        let program = state.keep(Entry::host(one, core::ptr::without_provenance_mut(8)));
        let first = state.keep(Entry::own(Function::Copy(copy())));
        let second = state.keep(Entry::own(Function::Copy(copy())));
        assert_ne!(first, second, "each copy has a number of its own");
        assert!(state.take(first).is_some() && state.take(first).is_some());
        assert!(state.end_copy(first).is_some() && state.end_copy(first).is_none());
        assert!(state.take(first).is_none() && state.take(second).is_some());
        assert!(state.end_copy(program).is_none() && state.take(program).is_some());
        assert_eq!((state.kept.len(), state.kept_ids.len()), (2, 1));
    }
}
