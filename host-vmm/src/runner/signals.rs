//! Signals of the runner: noted by a handler in a pipe, so that they can be waited for together with the program's end.
//!
//! Handlers rather than a blocked mask, because a started program inherits the mask but not the handlers.
#![allow(unsafe_code)] // sigaction and an async-signal-safe handler

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::pipe::{PipeFlags, pipe_with};

/// Signals that are passed on to the program.
const FORWARDED: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// `si_code` of signals that the kernel makes, e.g. for Ctrl-C: those go to the whole foreground process group, the program included.
const SI_KERNEL: i32 = 0x80;

/// Write end of the pipe, or -1. It stays open for the life of the process.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Whether signals that the kernel made are noted.
static FROM_KERNEL: AtomicBool = AtomicBool::new(false);

/// Receives the signals that others sent to this process.
pub struct Signals {
    read: OwnedFd,
}

impl Signals {
    /// Installs the handlers. Signals that the process was started with ignored (`nohup`) stay ignored. With `from_kernel`, Ctrl-C
    /// and the like count too; otherwise they are left to the rest of the foreground process group.
    ///
    /// # Errors
    /// The pipe cannot be made, or a handler cannot be installed.
    pub fn install(from_kernel: bool) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        FROM_KERNEL.store(from_kernel, Ordering::Relaxed);
        PIPE.store(write.as_raw_fd(), Ordering::Relaxed);
        // The handler may run until the process ends.
        std::mem::forget(write);
        for signal in FORWARDED {
            // SAFETY: an all-zero sigaction is a valid value (default handler, empty mask).
            let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: asks for the present action only; `old` is a valid place for it.
            if unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut old) } != 0 {
                return Err(io::Error::last_os_error());
            }
            if old.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            // SAFETY: as above.
            let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
            new.sa_sigaction = handler as *const () as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            // SAFETY: `handler` has the signature that SA_SIGINFO asks for and calls async-signal-safe functions only.
            if unsafe { libc::sigaction(signal, &raw const new, std::ptr::null_mut()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { read })
    }

    /// Readable when a signal is there.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    /// Takes the signals that have arrived and should be passed on.
    pub fn take(&self) -> Vec<i32> {
        let mut bytes = [0u8; 64];
        match rustix::io::read(&self.read, &mut bytes) {
            Ok(len) => bytes[..len].iter().map(|&byte| i32::from(byte)).collect(),
            Err(_) => Vec::new(),
        }
    }
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO.
    if unsafe { (*info).si_code } == SI_KERNEL && !FROM_KERNEL.load(Ordering::Relaxed) {
        return;
    }
    let byte = [signal as u8];
    // SAFETY: errno is this thread's own; saved because the interrupted code may be about to read it.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: write(2) is async-signal-safe; the buffer is one valid byte; a full pipe only loses a repeated signal.
    unsafe { libc::write(PIPE.load(Ordering::Relaxed), byte.as_ptr().cast(), 1) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}
