//! The program's end of a lane whose rings lie in a window.
#![allow(unsafe_code)] // Copies between staging area and program memory that only raw pointers name.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use protocol::frame::{FrameHeader, Kind};
use protocol::lane::words;
use protocol::{LanePlacement, Status};

use super::arrival::Armed;
use super::memory::{LaneMemory, RingProgress};
use super::{Reply, Sent};
use crate::doorbell::Doorbell;
use crate::error::Error;
use crate::park::{Counter, Waiter, Waits, notify};
use crate::ring::{Consumer, Producer, PushError};
use crate::sync::Ordering;
use crate::unix::Connection;
use crate::window::Window;

/// How long a copy is watched. What takes longer waits for a kernel: then a question to the worker costs little, and lets this thread sleep.
const WATCH: Duration = Duration::from_micros(100);

/// See [`GuestLane`](crate::GuestLane).
pub struct RingGuest {
    requests: Producer,
    replies: Consumer,
    memory: Arc<LaneMemory>,
    bell: Doorbell,
    waiter: Waiter,
    max_body_len: u32,
    /// Number of the last request.
    seq: u64,
    dead: bool,
    /// Keeps the type from being Sync.
    not_sync: PhantomData<Cell<()>>,
}

impl RingGuest {
    /// The end of the lane whose block the worker has placed at `placement`; `connection` has carried its handshake.
    ///
    /// # Errors
    /// [`Error::Placement`].
    pub fn new(
        connection: Connection,
        window: Arc<Window>,
        placement: LanePlacement,
        max_body_len: u32,
    ) -> Result<RingGuest, Error> {
        let waits = if window.is_of_machine() { Waits::ForHost } else { Waits::ForWorker };
        let memory = Arc::new(LaneMemory::new(window, placement)?);
        Ok(RingGuest {
            requests: Producer::new(memory.request_ring()?),
            replies: Consumer::new(memory.reply_ring()?),
            memory,
            bell: Doorbell::new(connection.into_fd()),
            waiter: Waiter::new(waits),
            max_body_len,
            seq: 0,
            dead: false,
            not_sync: PhantomData,
        })
    }

    /// Sends a request that gets no reply and returns its number. Blocks only while the ring is full.
    ///
    /// # Errors
    /// [`Error::BodyLen`] (nothing was sent); [`Error::HungUp`] and others, after which the lane is dead.
    #[inline]
    pub fn post(&mut self, op: u16, body: &[u8]) -> Result<u64, Error> {
        self.push(Kind::POSTED, op, body)
    }

    /// Sends a request that gets a reply. Nothing else may be sent or waited for until [`RingGuest::receive`] has taken it.
    ///
    /// # Errors
    /// As [`RingGuest::post`].
    #[inline]
    pub fn send(&mut self, op: u16, body: &[u8]) -> Result<Sent, Error> {
        let seq = self.push(Kind::SYNC, op, body)?;
        Ok(Sent { op, seq })
    }

    /// Waits for the reply of a request and returns it; the reply's body is in `reply`, which is resized.
    ///
    /// # Errors
    /// [`Error::HungUp`] and others, after which the lane is dead.
    pub fn receive(&mut self, sent: Sent, reply: &mut Vec<u8>) -> Result<Reply, Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        let result = self.take_reply(sent, reply);
        self.dead |= result.is_err();
        result
    }

    #[inline]
    fn push(&mut self, kind: Kind, op: u16, body: &[u8]) -> Result<u64, Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        if body.len() > self.max_body_len as usize || !body.len().is_multiple_of(8) {
            return Err(Error::BodyLen { len: body.len(), max: self.max_body_len });
        }
        let seq = self.seq + 1;
        let header = FrameHeader::new(kind, op, seq, body.len() as u32);
        match self.push_frame(&header, body) {
            Ok(()) => {
                self.seq = seq;
                Ok(seq)
            }
            Err(error) => {
                self.dead = !matches!(error, Error::BodyLen { .. });
                Err(error)
            }
        }
    }

    #[inline]
    fn push_frame(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), Error> {
        loop {
            match self.requests.try_push(header, body) {
                Ok(()) => break,
                Err(PushError::Full { head }) => self.wait_room(head)?,
                Err(PushError::TooLarge) => {
                    return Err(Error::BodyLen { len: body.len(), max: self.max_body_len });
                }
                Err(PushError::Corrupt(corrupt)) => return Err(corrupt.into()),
            }
        }
        notify(self.memory.word(words::HOST_PARKED), Counter::Data, self.requests.tail(), &self.bell)
    }

    #[cold]
    fn wait_room(&mut self, head: u64) -> Result<(), Error> {
        let parked = self.memory.word(words::GUEST_PARKED);
        let requests = &mut self.requests;
        let room = self.waiter.wait(parked, Counter::Room, head, &self.bell, || {
            Ok::<_, Error>((requests.head()? >= head).then_some(()))
        });
        room?.ok_or(Error::HungUp)
    }

    fn take_reply(&mut self, sent: Sent, body: &mut Vec<u8>) -> Result<Reply, Error> {
        let parked = self.memory.word(words::GUEST_PARKED);
        let (replies, max_body_len) = (&mut self.replies, self.max_body_len);
        let wanted = replies.head() + 8;
        let header = self
            .waiter
            .wait(parked, Counter::Data, wanted, &self.bell, || {
                Ok::<_, Error>(replies.try_pop(max_body_len, body)?)
            })?
            .ok_or(Error::HungUp)?;
        let reply = Reply::check(Some(&header), sent.op, sent.seq)?;
        // The worker may wait for room in the reply ring.
        let head = self.replies.head();
        notify(self.memory.word(words::HOST_PARKED), Counter::Room, head, &self.bell)?;
        Ok(reply)
    }

    /// Number of the last request that was sent; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    /// Number of the last request that the worker has declared complete; 0 before the first. Everything that the worker wrote before (staging area) is visible.
    #[inline]
    pub fn completed(&self) -> u64 {
        self.memory.word(words::COMPLETED).load(Ordering::Acquire)
    }

    /// The lane's progress, to be watched by other threads.
    pub fn progress(&self) -> RingProgress {
        self.memory.progress()
    }

    /// Waits until [`RingGuest::completed`] has reached `seq`.
    ///
    /// # Errors
    /// [`Error::HungUp`] and others, after which the lane is dead.
    pub fn wait_completed(&mut self, seq: u64) -> Result<(), Error> {
        if self.completed() >= seq {
            return Ok(());
        }
        if self.dead {
            return Err(Error::Dead);
        }
        let completed = self.memory.word(words::COMPLETED);
        let parked = self.memory.word(words::GUEST_PARKED);
        let result = self.waiter.wait(parked, Counter::Completed, seq, &self.bell, || {
            Ok::<_, Error>((completed.load(Ordering::Acquire) >= seq).then_some(()))
        });
        let result = result.and_then(|reached| reached.ok_or(Error::HungUp));
        self.dead |= result.is_err();
        result
    }

    /// Waits until the worker is done with a slot of the staging area for the request `seq`, which is the last one that used it. Everything that the
    /// worker wrote there is visible then.
    ///
    /// # Errors
    /// [`Error::HungUp`] and others, after which the lane is dead.
    pub fn wait_slot(&mut self, slot: u64, seq: u64) -> Result<(), Error> {
        let word = self.memory.slot(slot);
        if word.load(Ordering::Acquire) >= seq {
            return Ok(());
        }
        if self.dead {
            return Err(Error::Dead);
        }
        let parked = self.memory.word(words::GUEST_PARKED);
        // The worker rings for each completed request and for each slot; what is not this slot's looks again.
        let result = self.waiter.wait(parked, Counter::Completed, seq, &self.bell, || {
            Ok::<_, Error>((word.load(Ordering::Acquire) >= seq).then_some(()))
        });
        let result = result.and_then(|reached| reached.ok_or(Error::HungUp));
        self.dead |= result.is_err();
        result
    }

    /// Takes the first error of a posted request since the last take. Costs a load if there is none.
    #[inline]
    pub fn take_latched(&mut self) -> Option<Status> {
        let word = self.memory.word(words::LATCHED);
        if word.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let status = word.swap(0, Ordering::AcqRel);
        // A status that does not fit is one that this side does not know.
        (status != 0).then(|| Status(u32::try_from(status).unwrap_or(Status::UNKNOWN.0)))
    }

    /// Whether the lane has failed or the worker has closed its end. Costs a system call.
    pub fn is_closed(&self) -> bool {
        self.dead || self.bell.is_hung_up()
    }

    /// Bytes of the staging area.
    pub fn staging_len(&self) -> u64 {
        self.memory.staging_len()
    }

    /// Pointer to a part of the staging area. Valid while the lane (or the window) lives; the worker may change the bytes, so make no reference of it.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    pub fn staging(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Error> {
        self.memory.staging(offset, len)
    }

    /// See [`GuestLane::arm`](crate::GuestLane::arm).
    pub fn arm(&mut self, offset: u64, len: u64) -> Result<Armed, Error> {
        let at = self.memory.staging(offset, len)?;
        let armed = Armed::new(offset, len, self.seq);
        // SAFETY: `at` has `len` bytes, of which no references are made but to atomics, and none of those is in use: `watch` makes its own.
        unsafe { at.as_ptr().write_bytes(armed.byte(), len as usize) };
        Ok(armed)
    }

    /// See [`GuestLane::watch`](crate::GuestLane::watch).
    pub fn watch(&mut self, armed: &Armed) -> Result<bool, Error> {
        let mut arrival = armed.arrival(self.memory.staging_words(armed.offset, armed.len)?);
        let latched = self.memory.word(words::LATCHED);
        let seen = self.waiter.spin(WATCH, || {
            if arrival.is_complete() {
                return Some(true);
            }
            (latched.load(Ordering::Relaxed) != 0).then_some(false)
        });
        Ok(seen == Some(true))
    }

    /// Copies program memory to the staging area.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    ///
    /// # Safety
    /// `from` is readable for `len` bytes and not in the staging area.
    pub unsafe fn copy_in(&mut self, offset: u64, from: *const u8, len: usize) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        unsafe { self.memory.copy_in(offset, from, len) }
    }

    /// Copies from the staging area to program memory.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    ///
    /// # Safety
    /// `to` is writable for `len` bytes and not in the staging area.
    pub unsafe fn copy_out(&self, offset: u64, to: *mut u8, len: usize) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        unsafe { self.memory.copy_out(offset, to, len) }
    }

    /// As [`RingGuest::copy_out`], for a part of a copy that is too long for the cache: the destination is not brought into it.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    ///
    /// # Safety
    /// As [`RingGuest::copy_out`].
    pub unsafe fn copy_out_streaming(&self, offset: u64, to: *mut u8, len: usize) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        unsafe { self.memory.copy_out_streaming(offset, to, len) }
    }
}

impl AsFd for RingGuest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
