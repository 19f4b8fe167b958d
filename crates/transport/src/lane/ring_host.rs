//! The worker's end of a lane whose rings lie in a window.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use protocol::Status;
use protocol::frame::{Flags, FrameHeader, Kind};
use protocol::handshake::LaneWelcome;
use protocol::lane::words;

use super::memory::LaneMemory;
use crate::doorbell::Doorbell;
use crate::error::Error;
use crate::park::{Counter, Waiter, Waits, declare, notify};
use crate::ring::{Consumer, Producer, PushError};
use crate::sync::Ordering;
use crate::traffic::Traffic;
use crate::unix::Connection;
use crate::window::Window;

/// What outlives a call: the block and the doorbell.
struct Shared {
    memory: LaneMemory,
    bell: Doorbell,
}

/// See [`HostLane`](crate::HostLane).
pub struct RingHost {
    requests: Consumer,
    replies: Producer,
    shared: Arc<Shared>,
    waiter: Waiter,
    max_body_len: u32,
    /// Number of the last request taken.
    seq: u64,
    dead: bool,
    /// Keeps the type from being Sync.
    not_sync: PhantomData<Cell<()>>,
}

/// See [`HostSignals`](crate::HostSignals).
#[derive(Clone)]
pub struct RingSignals {
    shared: Arc<Shared>,
}

impl RingHost {
    /// Prepares the block of a new lane (the caller has set it aside in the window), sends the welcome and returns the lane.
    ///
    /// # Errors
    /// [`Error::Placement`]; those of [`Connection::send`].
    pub fn welcome(
        connection: Connection,
        window: Arc<Window>,
        welcome: &LaneWelcome,
        max_body_len: u32,
        timeout: Duration,
    ) -> Result<RingHost, Error> {
        let waits = if window.is_of_machine() { Waits::ForGuest } else { Waits::ForProgram };
        let memory = LaneMemory::new(window, welcome.placement)?;
        memory.reset();
        let mut buf = Vec::new();
        connection.send(&welcome.encode(&mut buf), &buf, &[], timeout)?;
        Ok(RingHost {
            requests: Consumer::new(memory.request_ring()?),
            replies: Producer::new(memory.reply_ring()?),
            shared: Arc::new(Shared { memory, bell: Doorbell::new(connection.into_fd()) }),
            waiter: Waiter::new(waits),
            max_body_len,
            seq: 0,
            dead: false,
            not_sync: PhantomData,
        })
    }

    /// See [`HostLane::traffic`](crate::HostLane::traffic).
    pub fn traffic(&self) -> &Arc<Traffic> {
        self.shared.bell.traffic()
    }

    /// Waits for the next request: its header, and its body in `body`, which is resized. None if the program has closed the lane.
    ///
    /// The kind is `POSTED` or `SYNC`, and the numbers count up from 1.
    ///
    /// # Errors
    /// A violation of the protocol ([`Error::is_violation`]) or a system call; the lane is dead then.
    pub fn next(&mut self, body: &mut Vec<u8>) -> Result<Option<FrameHeader>, Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        let result = self.take_request(body);
        self.dead = !matches!(result, Ok(Some(_)));
        match result {
            // The program went away between its last ring and our answer: no fault.
            Err(Error::HungUp) => Ok(None),
            other => other,
        }
    }

    /// As [`HostLane::next`], without waiting: None if there is no request now. Does not notice that the program has closed the lane.
    ///
    /// # Errors
    /// As [`HostLane::next`].
    pub fn poll(&mut self, body: &mut Vec<u8>) -> Result<Option<FrameHeader>, Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        let popped = self.requests.try_pop(self.max_body_len, body).map_err(Error::from);
        let result = match popped {
            Ok(Some(header)) => self.taken(header),
            Ok(None) => return Ok(None),
            Err(error) => Err(error),
        };
        self.dead = result.is_err();
        result
    }

    /// As [`HostLane::poll`], waiting for a limited time.
    ///
    /// # Errors
    /// As [`HostLane::next`].
    pub fn poll_for(&mut self, body: &mut Vec<u8>, timeout: Duration) -> Result<Option<FrameHeader>, Error> {
        let shared = Arc::clone(&self.shared);
        let parked = shared.memory.word(words::HOST_PARKED);
        declare(parked, Counter::Data, self.requests.head() + 8);
        let mut result = self.poll(body);
        if matches!(result, Ok(None)) {
            result = match shared.bell.sleep_for(timeout) {
                Ok(()) => self.poll(body),
                Err(error) => Err(error),
            };
        }
        parked.store(0, Ordering::Relaxed);
        result
    }

    fn take_request(&mut self, body: &mut Vec<u8>) -> Result<Option<FrameHeader>, Error> {
        let shared = &*self.shared;
        let parked = shared.memory.word(words::HOST_PARKED);
        let (requests, max_body_len) = (&mut self.requests, self.max_body_len);
        let wanted = requests.head() + 8;
        let header = self.waiter.wait(parked, Counter::Data, wanted, &shared.bell, || {
            Ok::<_, Error>(requests.try_pop(max_body_len, body)?)
        })?;
        header.map_or(Ok(None), |header| self.taken(header))
    }

    /// Checks a request that was just taken, and tells the program of the room.
    fn taken(&mut self, header: FrameHeader) -> Result<Option<FrameHeader>, Error> {
        let shared = &*self.shared;
        if header.kind != Kind::POSTED && header.kind != Kind::SYNC {
            return Err(Error::UnexpectedKind(header.kind));
        }
        if header.seq != self.seq + 1 {
            return Err(Error::Unexpected {
                field: "request number",
                got: header.seq,
                expected: self.seq + 1,
            });
        }
        self.seq = header.seq;
        // The program may wait for room in the request ring. If it is gone by now, the request still counts and the next call says so.
        let head = self.requests.head();
        match notify(shared.memory.word(words::GUEST_PARKED), Counter::Room, head, &shared.bell) {
            Ok(()) | Err(Error::HungUp) => Ok(Some(header)),
            Err(error) => Err(error),
        }
    }

    /// Answers a sync request. `body` must be empty unless the status is success.
    ///
    /// # Errors
    /// [`Error::BodyLen`] (nothing was sent); [`Error::HungUp`] and others, after which the lane is dead.
    pub fn reply(
        &mut self,
        request: &FrameHeader,
        status: Status,
        flags: Flags,
        body: &[u8],
    ) -> Result<(), Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        let max = if status.is_success() { self.max_body_len } else { 0 };
        if body.len() > max as usize || !body.len().is_multiple_of(8) {
            return Err(Error::BodyLen { len: body.len(), max });
        }
        let header = FrameHeader {
            len: body.len() as u32,
            op: request.op,
            kind: Kind::REPLY,
            flags,
            seq: request.seq,
            status,
        };
        let result = self.push_reply(&header, body);
        self.dead = matches!(&result, Err(error) if !matches!(error, Error::BodyLen { .. }));
        result
    }

    fn push_reply(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), Error> {
        let shared = &*self.shared;
        loop {
            match self.replies.try_push(header, body) {
                Ok(()) => break,
                Err(PushError::Full { head }) => {
                    let parked = shared.memory.word(words::HOST_PARKED);
                    let replies = &mut self.replies;
                    self.waiter
                        .wait(parked, Counter::Room, head, &shared.bell, || {
                            Ok::<_, Error>((replies.head()? >= head).then_some(()))
                        })?
                        .ok_or(Error::HungUp)?;
                }
                Err(PushError::TooLarge) => {
                    return Err(Error::BodyLen { len: body.len(), max: self.max_body_len });
                }
                Err(PushError::Corrupt(corrupt)) => return Err(corrupt.into()),
            }
        }
        notify(shared.memory.word(words::GUEST_PARKED), Counter::Data, self.replies.tail(), &shared.bell)
    }

    /// Declares the requests up to `seq` complete; see [`RingSignals::complete`].
    pub fn complete(&self, seq: u64) {
        self.shared.complete(seq);
    }

    /// Declares a slot of the staging area free of the request `seq`, whose use of it is over. Requests may be declared so in any order, those of one
    /// slot in theirs.
    pub fn complete_slot(&self, slot: u64, seq: u64) {
        let shared = &*self.shared;
        // Release: what was written to the slot is visible with the number.
        shared.memory.slot(slot).store(seq, Ordering::Release);
        let _ = notify(shared.memory.word(words::GUEST_PARKED), Counter::Completed, seq, &shared.bell);
    }

    /// Latches the error of a posted request; see [`RingSignals::latch`].
    pub fn latch(&self, status: Status) {
        self.shared.latch(status);
    }

    /// Completion and errors for other threads.
    pub fn signals(&self) -> RingSignals {
        RingSignals { shared: self.shared.clone() }
    }

    /// Whether the program has closed the lane, for an operation that takes long. Costs a system call.
    pub fn is_closed(&self) -> bool {
        self.dead || self.shared.bell.is_hung_up()
    }

    /// Bytes of the staging area.
    pub fn staging_len(&self) -> u64 {
        self.shared.memory.staging_len()
    }

    /// Window offset of the staging area, for an engine that reads and writes it by address.
    pub fn staging_window_offset(&self) -> u64 {
        self.shared.memory.staging_window_offset()
    }

    /// Pointer to a part of the staging area. Valid while the lane (or the window) lives; the program may change the bytes, so make no reference of it and read
    /// nothing twice.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    pub fn staging(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Error> {
        self.shared.memory.staging(offset, len)
    }
}

impl Drop for RingHost {
    fn drop(&mut self) {
        // RingSignals may keep the socket open for longer; the program must not wait for an end that nobody serves.
        self.shared.bell.hang_up();
    }
}

impl AsFd for RingHost {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }
}

impl Shared {
    fn complete(&self, seq: u64) {
        // Release: what was written for the request is visible with the number. A later number stays.
        self.memory.word(words::COMPLETED).fetch_max(seq, Ordering::Release);
        // If the program is gone there is nobody to tell; the lane's thread learns it from its next wait.
        let _ = notify(self.memory.word(words::GUEST_PARKED), Counter::Completed, seq, &self.bell);
    }

    fn latch(&self, status: Status) {
        let word = self.memory.word(words::LATCHED);
        let _ = word.compare_exchange(0, status.0.into(), Ordering::Release, Ordering::Relaxed);
    }
}

impl RingSignals {
    /// Declares the requests up to `seq` complete (numbers never go back). [`RingHost::reply`] does not do this: a reply needs no completion.
    pub fn complete(&self, seq: u64) {
        self.shared.complete(seq);
    }

    /// Latches the error of a posted request, unless one is latched already. To be called before the request is declared complete. Success is ignored.
    pub fn latch(&self, status: Status) {
        self.shared.latch(status);
    }
}
