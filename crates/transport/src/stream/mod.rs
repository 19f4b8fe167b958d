//! Lanes without shared memory: frames in both directions on the lane's own connection.
//!
//! Requests, replies and the parts of the staging area that are in use travel as frames ([`protocol::stream`]). Each side has a staging area of its own.
//!
//! * What the program copies in is sent at once, ahead of the request that uses it. What it wants back it announces with a *watch* before the request; the
//!   worker sends the bytes when it is done with the slot, and a *progress* frame after them.
//! * Posted requests gather in the [`outbox`] and leave together: when they are many, when the program waits for something, or after a moment of idleness
//!   ([`outbox::Flusher`]). No `send` is given more than [`SEND_LEN`] bytes.
//! * The worker speaks only when asked: one reply for a sync request, bytes and progress for a watch. So what an idle program leaves unread is bounded by what it has
//!   asked for: its staging area and a few small frames.
//! * Order between lanes is kept by the worker: before a request that must come after one of another lane, the program empties that lane's outbox and sends an *after*
//!   frame; the worker's lane waits there. (A program that watched the other lane instead would wait for ever if that lane's thread is inside a long call.)
//!
//! # Why nobody waits for ever
//!
//! Both sides block in `send` when the other does not read. Suppose that both did at once, each with a full buffer before it. The program's side does not merely
//! block: while it cannot send it takes whatever arrives, for which it has room by construction: data goes to the staging area where it has asked for it, progress is two
//! numbers, and a reply cannot come while its request is still being sent. So the worker's send ends, the worker reads again, and the program's send
//! ends. The worker, on the other hand, never needs to read in order to write. Inside a lane there is therefore no cycle.
//!
//! Between lanes there are two edges more. A thread that empties another lane's outbox never blocks while it holds the outbox's lock, so that lane's own thread can
//! always come in, and take what arrives. And a worker's lane that waits at an *after* frame waits for requests that were sent before that frame was; a cycle of such waits would need a
//! request that is sent before itself. What remains is the other lane's worker being blocked in a send to a thread that is not inside a call, thus reads nothing: what
//! that thread has left unread is a few small frames (callers take their staged bytes before they return, also after errors), for which every socket has room.
//!
//! # A hostile peer
//!
//! Nothing is allocated by a length that comes from the peer: frames go through a buffer of fixed size, data directly into the staging area after its bounds were
//! checked, watches into a list of bounded length. A program that does not read blocks the thread of its own lane and nothing else: completion by other threads
//! ([`HostSignals`](crate::HostSignals)) never sends.
#![allow(unsafe_code)] // Sends from and receives into memory that only raw pointers name.

pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod inbound;
mod lanes;
pub(crate) mod outbox;

pub use lanes::StreamLanes;
pub use outbox::Flusher;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::error::Error;

/// The most bytes of one `send`: user-space vsock devices lose a larger write of guests since Linux 6.12, which split it over several descriptors.
pub const SEND_LEN: usize = 32 << 10;

/// Watches that may be unanswered at a time. A program has one or two per slot of its staging area and one more.
pub const MAX_WATCHES: usize = 128;

/// Sends at most [`SEND_LEN`] bytes without blocking; None if the socket takes none.
///
/// # Safety
/// `from` is readable for `len` bytes.
unsafe fn send(socket: BorrowedFd<'_>, from: *const u8, len: usize) -> Result<Option<usize>, Error> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: the caller's contract; the kernel only reads.
        let sent = unsafe { libc::send(socket.as_raw_fd(), from.cast(), len.min(SEND_LEN), flags) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(Some(sent));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) => return Ok(None),
            Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN) => return Err(Error::HungUp),
            _ => return Err(Error::io("send on a lane", error)),
        }
    }
}

/// What a receive gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    Bytes(usize),
    /// Nothing there, and not to be waited for.
    Nothing,
    /// The other side has closed.
    End,
}

/// Receives at most `len` bytes (not 0).
///
/// # Safety
/// `to` is writable for `len` bytes.
unsafe fn receive(socket: BorrowedFd<'_>, to: *mut u8, len: usize, wait: bool) -> Result<Taken, Error> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    loop {
        // SAFETY: the caller's contract; the kernel writes at most `len` bytes.
        let taken = unsafe { libc::recv(socket.as_raw_fd(), to.cast(), len, flags) };
        match usize::try_from(taken) {
            Ok(0) => return Ok(Taken::End),
            Ok(taken) => return Ok(Taken::Bytes(taken)),
            Err(_) => {}
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) if wait => wait_for(socket, PollFlags::IN | PollFlags::RDHUP)?,
            Some(libc::EAGAIN) => return Ok(Taken::Nothing),
            Some(libc::ECONNRESET | libc::ENOTCONN) => return Ok(Taken::End),
            _ => return Err(Error::io("receive on a lane", error)),
        }
    }
}

/// Waits until the socket is ready for any of `flags`, or broken.
fn wait_for(socket: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Error> {
    match poll(&mut [PollFd::new(&socket, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Error::io("wait on a lane", errno.into())),
    }
}

/// Whether the other side has closed the socket; never blocks.
fn is_hung_up(socket: impl AsFd) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&socket, PollFlags::RDHUP)], Some(&now)).is_ok_and(|count| count > 0)
}
