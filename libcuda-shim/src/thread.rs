#![allow(unsafe_code)]
//! What belongs to one thread of the program: its stack of current contexts, and its lane to the host.
//!
//! Unsafe because the thread-local slot is a raw pointer: exit handlers of the program run after thread-local destructors, and must still find
//! (or make) a state, which a `thread_local!` with a destructor cannot give them. A separate guard with a destructor returns the lane to the
//! session's pool when a thread ends. The main thread's state is kept: when its destructors run the program is at its end, and its
//! exit handlers still expect their current context.

use std::cell::{Cell, RefCell};
use std::ptr;

use protocol::status::Status;

use crate::idle::Idle;
use crate::local_storage::Remembered;
use crate::order::Stamp;
use crate::process::{Process, is_current, process};
use crate::session::Lane;

/// State of one thread.
pub struct Thread {
    /// The process state this belongs to; another one after a fork.
    process: &'static Process,
    /// Current contexts, the last one being current.
    stack: Vec<u64>,
    lane: Option<Lane>,
    remembered: Remembered,
    /// Streams known to be idle.
    pub idle: Idle,
    /// A host function of the program is running: it must not call the driver.
    pub in_host_function: bool,
    /// The thread's lane, when it is opened, is to wait for nothing that other threads have posted.
    pub alone: bool,
    /// `cuThreadExchangeStreamCaptureMode`; starts as CU_STREAM_CAPTURE_MODE_GLOBAL.
    pub capture_mode: u32,
}

thread_local! {
    static SLOT: Cell<*const RefCell<Thread>> = const { Cell::new(ptr::null()) };
    static GUARD: Guard = const { Guard };
}

/// Runs at the end of a thread.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if rustix::thread::gettid() == rustix::process::getpid() {
            return;
        }
        let state = SLOT.replace(ptr::null());
        if state.is_null() {
            return;
        }
        // SAFETY: made by `Box::into_raw` in `state`, owned by this thread, and no longer reachable through the slot.
        let state = unsafe { Box::from_raw(state.cast_mut()) }.into_inner();
        if let (true, Some(lane)) = (is_current(state.process), state.lane)
            && let Some(session) = state.process.session.get()
        {
            session.give_back(lane);
        }
    }
}

fn state() -> &'static RefCell<Thread> {
    let process = process();
    let present = SLOT.get();
    if !present.is_null() {
        // SAFETY: the slot's state is freed only by the guard, which empties the slot first.
        let state = unsafe { &*present };
        match state.try_borrow() {
            // In use further up this very thread's stack: `with` refuses it.
            Err(_) => return state,
            Ok(thread) if ptr::eq(thread.process, process) => return state,
            Ok(_) => {}
        }
        // A forked child: the parent's state, with the parent's lane, is leaked; its memory may be in any state.
    }
    let fresh = Thread {
        process,
        stack: Vec::new(),
        lane: None,
        remembered: Remembered::default(),
        idle: Idle::default(),
        in_host_function: false,
        alone: false,
        capture_mode: 0,
    };
    let state = Box::into_raw(Box::new(RefCell::new(fresh)));
    SLOT.set(state);
    // Registers the destructor; fails when the thread's destructors have run already, and then the state is leaked at exit.
    let _ = GUARD.try_with(|_| ());
    // SAFETY: just made.
    unsafe { &*state }
}

/// Runs `f` with the thread's state. Not re-entrant: nothing called by `f` may call back into the program.
#[inline]
pub fn with<R>(f: impl FnOnce(&mut Thread) -> Result<R, Status>) -> Result<R, Status> {
    match state().try_borrow_mut() {
        Ok(mut thread) => f(&mut thread),
        // A signal handler that interrupted a driver call of this very thread.
        Err(_) => Err(Status::NOT_PERMITTED),
    }
}

/// The thread's current context, or 0.
#[inline]
pub fn current_context() -> u64 {
    state().try_borrow().map_or(0, |thread| thread.current())
}

/// The current context; INVALID_CONTEXT when there is none.
#[inline]
pub fn require_context() -> Result<u64, Status> {
    match current_context() {
        0 => Err(Status::INVALID_CONTEXT),
        context => Ok(context),
    }
}

/// Looks up context-local storage, remembering the answer.
#[inline]
pub fn local_storage(context: u64, key: usize) -> Result<usize, Status> {
    with(|thread| thread.process.local_storage.get(context, key, &mut thread.remembered))
}

impl Thread {
    #[inline]
    pub fn current(&self) -> u64 {
        self.stack.last().copied().unwrap_or(0)
    }

    /// Replaces the current context; 0 pops it.
    pub fn set_current(&mut self, context: u64) {
        self.stack.pop();
        if context != 0 {
            self.stack.push(context);
        }
    }

    pub fn push(&mut self, context: u64) {
        self.stack.push(context);
    }

    /// Pops the current context; INVALID_CONTEXT when there is none.
    pub fn pop(&mut self) -> Result<u64, Status> {
        self.stack.pop().ok_or(Status::INVALID_CONTEXT)
    }

    /// To be called when a call returns whose last request was posted.
    #[inline]
    pub fn posted(&mut self) {
        if let (Some(session), Some(lane)) = (self.process.session.get(), &mut self.lane) {
            lane.posted(&session.order);
        }
    }

    /// The session's stamp; none before there is a session.
    #[inline]
    pub fn stamp(&self) -> Option<Stamp> {
        self.process.session.get().map(|session| session.order.stamp())
    }

    /// To be called before a call returns whose request was answered and may have queued work.
    #[inline]
    pub fn asked(&self) {
        if let Some(session) = self.process.session.get() {
            session.order.asked();
        }
    }

    /// The first error of this thread's posted requests since the last look.
    #[inline]
    pub fn take_latched(&mut self) -> Option<Status> {
        self.lane.as_mut().and_then(Lane::take_latched)
    }

    /// The thread's lane, opened on first use, with the host told of the current context.
    ///
    /// # Errors
    /// NOT_PERMITTED in a host function.
    #[inline]
    pub fn lane(&mut self) -> Result<&mut Lane, Status> {
        let current = self.current();
        let session = self.process.session.get().ok_or(Status::NOT_INITIALIZED)?;
        // Not yet set is fine: `cuInit` itself comes here.
        if let Some(Err(_)) = self.process.initialised.get() {
            return Err(Status::NOT_INITIALIZED);
        }
        if self.in_host_function {
            return Err(Status::NOT_PERMITTED);
        }
        let lane = match &mut self.lane {
            Some(lane) => lane,
            none => {
                let mut lane = session.lane()?;
                if self.alone {
                    lane.stay_alone();
                }
                none.insert(lane)
            }
        };
        lane.follow(&session.order)?;
        lane.set_context(current)?;
        lane.set_capture_mode(self.capture_mode)?;
        Ok(lane)
    }
}
