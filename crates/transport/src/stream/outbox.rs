//! What leaves on a stream lane, gathered to few and bounded sends.
#![allow(unsafe_code)] // Sends from memory that only raw pointers name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::Duration;

use protocol::frame::FrameHeader;
use protocol::stream::Data;
use rustix::event::PollFlags;

use super::{SEND_LEN, send, wait_for};
use crate::error::Error;
use crate::traffic::Traffic;

/// Bytes that wait to be sent, at most [`SEND_LEN`] of them.
pub(super) struct Gathered {
    bytes: Vec<u8>,
    /// What of them has been sent.
    sent: usize,
    traffic: Arc<Traffic>,
}

impl Gathered {
    pub(super) fn new() -> Gathered {
        Gathered { bytes: Vec::with_capacity(SEND_LEN), sent: 0, traffic: Arc::default() }
    }

    /// The same, counting what is sent.
    pub(super) fn counted(traffic: Arc<Traffic>) -> Gathered {
        Gathered { traffic, ..Gathered::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends all. `wait` is called when the socket takes nothing; it returns when trying again makes sense.
    pub(super) fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        wait: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        while !self.try_flush(socket)? {
            wait()?;
        }
        Ok(())
    }

    /// Sends what the socket takes; whether that is all.
    pub(super) fn try_flush(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Error> {
        while self.sent < self.bytes.len() {
            let rest = &self.bytes[self.sent..];
            // SAFETY: a slice of ours is readable for its length.
            match unsafe { send(socket, rest.as_ptr(), rest.len()) }? {
                Some(count) => {
                    self.sent += count;
                    self.traffic.add_sent(count);
                }
                None => return Ok(false),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Adds bytes, sending whenever a full send is together. Long ones go from where they are.
    ///
    /// # Safety
    /// `from` is readable for `len` bytes. Others may change them meanwhile: what is sent is whatever was read.
    pub(super) unsafe fn add_raw(
        &mut self,
        socket: BorrowedFd<'_>,
        mut from: *const u8,
        mut len: usize,
        wait: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        while len > 0 {
            let count = if self.is_empty() && len >= SEND_LEN {
                // SAFETY: `len` bytes are left, by the caller's contract.
                match unsafe { send(socket, from, len) }? {
                    Some(count) => {
                        self.traffic.add_sent(count);
                        count
                    }
                    None => {
                        wait()?;
                        continue;
                    }
                }
            } else {
                let count = len.min(SEND_LEN - self.bytes.len());
                let at = self.bytes.len();
                // Within the capacity: no allocation.
                self.bytes.resize(at + count, 0);
                // SAFETY: `count` bytes are left of the source, by the caller's contract, and were added to the target.
                unsafe { crate::window::copy_shared(from, self.bytes[at..].as_mut_ptr(), count) };
                if self.bytes.len() == SEND_LEN {
                    self.flush(socket, wait)?;
                }
                count
            };
            // SAFETY: `count` is at most `len`.
            from = unsafe { from.add(count) };
            len -= count;
        }
        Ok(())
    }

    pub(super) fn add(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        wait: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        // SAFETY: a slice is readable for its length.
        unsafe { self.add_raw(socket, bytes.as_ptr(), bytes.len(), wait) }
    }

    pub(super) fn add_frame(
        &mut self,
        socket: BorrowedFd<'_>,
        header: &FrameHeader,
        body: &[u8],
        wait: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.add(socket, &header.encode(), wait)?;
        self.add(socket, body, wait)
    }

    /// Adds a data frame.
    ///
    /// # Safety
    /// As `add_raw`, for `data.len` bytes.
    pub(super) unsafe fn add_data(
        &mut self,
        socket: BorrowedFd<'_>,
        data: &Data,
        from: *const u8,
        wait: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.add(socket, &data.encode(), wait)?;
        // SAFETY: the caller's contract.
        unsafe { self.add_raw(socket, from, data.len as usize, wait) }?;
        self.add(socket, &[0; 8][..data.padding()], wait)
    }
}

/// The sending half of a program's end. Its own thread writes; other threads may only empty it.
pub(crate) struct Outbox {
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
    /// Number of the last request of which every byte has been handed to the socket.
    sent: AtomicU64,
    /// There may be something to send: for the flusher, which must not take the lock of every lane just to look.
    filled: AtomicBool,
    flusher: Option<Arc<Flusher>>,
}

/// What gathers in an outbox.
pub(super) struct Waiting {
    pub(super) gathered: Gathered,
    /// Number of the last request in it.
    pub(super) last: u64,
    /// Posted requests in it.
    pub(super) posts: u32,
}

impl Outbox {
    /// Without a flusher nothing is to be left waiting in it.
    pub(super) fn new(socket: OwnedFd, flusher: Option<&Arc<Flusher>>) -> Arc<Outbox> {
        let waiting = Mutex::new(Waiting { gathered: Gathered::new(), last: 0, posts: 0 });
        let outbox = Arc::new(Outbox {
            socket,
            waiting,
            sent: AtomicU64::new(0),
            filled: AtomicBool::new(false),
            flusher: flusher.cloned(),
        });
        if let Some(flusher) = flusher {
            flusher.lanes().push(Arc::downgrade(&outbox));
        }
        outbox
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn has_flusher(&self) -> bool {
        self.flusher.is_some()
    }

    /// For the thread that owns the lane.
    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called with the lock held, after everything was sent.
    pub(super) fn emptied(&self, waiting: &mut Waiting) {
        waiting.posts = 0;
        self.filled.store(false, Ordering::Relaxed);
        self.sent.store(waiting.last, Ordering::Release);
    }

    /// To be called when something is left waiting in it, after the lock was given back.
    pub(super) fn left(&self) {
        if !self.filled.swap(true, Ordering::SeqCst)
            && let Some(flusher) = &self.flusher
        {
            flusher.wake();
        }
    }

    /// Sends everything up to a request, for a thread that does not own the lane.
    ///
    /// The lock is not held while the socket takes nothing: the lane's own thread must be able to come in and read, without which the worker might not read either.
    pub(super) fn flush_up_to(&self, seq: u64) -> Result<(), Error> {
        while self.sent.load(Ordering::Acquire) < seq {
            let mut waiting = self.lock();
            if waiting.gathered.try_flush(self.socket())? {
                self.emptied(&mut waiting);
                return Ok(());
            }
            drop(waiting);
            wait_for(self.socket(), PollFlags::OUT)?;
        }
        Ok(())
    }

    /// Sends what the socket takes, if nobody else is about to; whether something was sent.
    fn flush_idle(&self) -> bool {
        if !self.filled.load(Ordering::SeqCst) {
            return false;
        }
        let mut waiting = match self.waiting.try_lock() {
            Ok(waiting) => waiting,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return true,
        };
        // After an error the lane's own thread sees the same one.
        if !matches!(waiting.gathered.try_flush(self.socket()), Ok(false)) {
            self.emptied(&mut waiting);
        }
        true
    }
}

/// How long a posted request may wait for others.
const MOMENT: Duration = Duration::from_micros(100);
/// Looks in vain after which the flusher sleeps until it is woken.
const LOOKS: u32 = 20;

/// Sends what programs' threads have posted and then left, when they go on to something else. Shared by all lanes of a session; a thread of its own runs
/// [`Flusher::run`].
#[derive(Default)]
pub struct Flusher {
    lanes: Mutex<Vec<Weak<Outbox>>>,
    /// The thread sleeps until it is woken.
    asleep: AtomicBool,
    sleep: Mutex<()>,
    woken: Condvar,
    stopped: AtomicBool,
}

impl std::fmt::Debug for Flusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flusher")
    }
}

impl Flusher {
    fn lanes(&self) -> MutexGuard<'_, Vec<Weak<Outbox>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            let _sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.asleep.store(false, Ordering::SeqCst);
            self.woken.notify_one();
        }
    }

    /// Serves until [`Flusher::stop`].
    pub fn run(&self) {
        let mut idle = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            if idle < LOOKS {
                thread::sleep(MOMENT);
                idle = if self.look() { 0 } else { idle + 1 };
                continue;
            }
            let mut sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.asleep.store(true, Ordering::SeqCst);
            // A lane that was filled before the store above has not woken us, and is seen here; one that is filled later waits for the lock to wake us.
            if !self.look() {
                while self.asleep.load(Ordering::SeqCst) {
                    sleep = self.woken.wait(sleep).unwrap_or_else(PoisonError::into_inner);
                }
            }
            self.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }

    /// Ends [`Flusher::run`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn look(&self) -> bool {
        let mut found = false;
        self.lanes().retain(|lane| {
            let Some(lane) = lane.upgrade() else { return false };
            found |= lane.flush_idle();
            true
        });
        found
    }
}
