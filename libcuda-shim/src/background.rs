#![allow(unsafe_code)]
//! Threads of this library in the program: the one for host functions, and the one that sends what was posted over a stream. They block all signals, which
//! belong to the program's threads. Unsafe because signal masks are set.

use protocol::status::{CuResult, Status};

/// Starts a thread with all signals blocked.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> CuResult {
    // SAFETY: the set is initialised by sigfillset before it is used, and the old mask is put back below.
    let old = unsafe {
        let mut all = core::mem::zeroed::<libc::sigset_t>();
        let mut old = core::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        old
    };
    let started = std::thread::Builder::new().name(name.into()).spawn(body);
    // SAFETY: the mask that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, core::ptr::null_mut()) };
    started.map(|_| ()).map_err(|error| {
        crate::log!(Error, "no thread '{name}': {error}");
        Status::OUT_OF_MEMORY
    })
}
