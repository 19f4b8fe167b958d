#![allow(unsafe_code)]
//! Threads of this library in the program: the one for host functions, the one that sends what was posted over a stream, and those that help with a long copy while it lasts.
//! They block signals, which belong to the program's threads. Unsafe because signal masks are set.

use core::marker::PhantomData;

use protocol::status::{CuResult, Status};

/// What a thread's own instructions cause. A program may have handlers that mend the cause, for instance of an access to memory that it watches.
const FAULTS: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];

/// While it lives, this thread and those that it starts get no signals but those of [`FAULTS`], if even these.
pub struct Blocked {
    before: libc::sigset_t,
    /// It is about one thread.
    not_send: PhantomData<*const ()>,
}

impl Blocked {
    pub fn all() -> Blocked {
        Blocked::but(&[])
    }

    /// For threads that touch the program's memory.
    pub fn but_faults() -> Blocked {
        Blocked::but(&FAULTS)
    }

    fn but(left: &[libc::c_int]) -> Blocked {
        // SAFETY: the sets are initialised by sigfillset and by pthread_sigmask before they are used; the mask of this thread is put back by `drop`.
        unsafe {
            let mut blocked = core::mem::zeroed::<libc::sigset_t>();
            let mut before = core::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&mut blocked);
            for signal in left {
                libc::sigdelset(&mut blocked, *signal);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &blocked, &mut before);
            Blocked { before, not_send: PhantomData }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the mask that this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, core::ptr::null_mut()) };
    }
}

/// Starts a thread with all signals blocked.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> CuResult {
    let blocked = Blocked::all();
    let started = std::thread::Builder::new().name(name.into()).spawn(body);
    drop(blocked);
    started.map(|_| ()).map_err(|error| {
        crate::log!(Error, "no thread '{name}': {error}");
        Status::OUT_OF_MEMORY
    })
}
