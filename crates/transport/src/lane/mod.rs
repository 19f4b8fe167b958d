//! The two ends of a lane.
//!
//! A lane belongs to one program thread ([`GuestLane`]) and one worker thread ([`HostLane`]). Requests arrive in order, each sync one is answered; bulk data goes
//! through the staging area, whose use the operations define. Completion numbers and latched errors may come from any thread of the worker
//! ([`HostSignals`]).
//!
//! Where both sides share memory, requests and replies go through rings in the window, and the staging area lies there as well. Otherwise they are frames on the
//! lane's connection, and each side has a staging area of its own ([`crate::stream`]).
#![allow(unsafe_code)] // Passes on copies between staging area and memory that only raw pointers name.

mod arrival;
pub(crate) mod memory;
mod ring_guest;
mod ring_host;

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use protocol::frame::{Flags, FrameHeader, Kind};
use protocol::handshake::{LaneWelcome, Limits};
use protocol::{LanePlacement, Status};

use crate::error::Error;
use crate::stream::guest::{StreamGuest, StreamProgress};
use crate::stream::host::{StreamHost, StreamSignals};
use crate::stream::{Flusher, StreamLanes};
use crate::traffic::Traffic;
use crate::unix::Connection;
use crate::window::Window;
pub use arrival::Armed;
use memory::RingProgress;
use ring_guest::RingGuest;
use ring_host::{RingHost, RingSignals};

/// What a reply says beside its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Result of the operation. The body is empty unless it is success.
    pub status: Status,
    /// See [`Flags`].
    pub flags: Flags,
}

impl Reply {
    /// The reply of a frame, if that is the awaited one; None stands for no frame.
    pub(crate) fn check(header: Option<&FrameHeader>, op: u16, seq: u64) -> Result<Reply, Error> {
        let header = header.ok_or(Error::HungUp)?;
        if header.kind != Kind::REPLY {
            return Err(Error::UnexpectedKind(header.kind));
        }
        let unexpected = |field, got, expected| Err(Error::Unexpected { field, got, expected });
        if header.seq != seq {
            return unexpected("reply number", header.seq, seq);
        }
        if header.op != op {
            return unexpected("reply operation", header.op.into(), op.into());
        }
        if !header.status.is_success() && header.len != 0 {
            return unexpected("body length of an error reply", header.len.into(), 0);
        }
        Ok(Reply { status: header.status, flags: header.flags })
    }
}

/// A request whose reply has not been received yet.
#[must_use = "without its reply the lane is of no more use"]
#[derive(Debug)]
pub struct Sent {
    pub(crate) op: u16,
    pub(crate) seq: u64,
}

/// The program's end of a lane. Owned by one thread at a time (`Send`, not `Sync`).
///
/// Every error but [`Error::BodyLen`] and [`Error::Bounds`] ends the lane: later calls return [`Error::Dead`]. Dropping it closes the socket, which ends the
/// worker's side. A forked child must not drop it (the window is not mapped there) but forget it and close the descriptor.
pub struct GuestLane(Guest);

// Boxed: the ring's end is used in place, and the other is large.
enum Guest {
    Ring(RingGuest),
    Stream(Box<StreamGuest>),
}

/// How far a lane is, for threads that do not own it.
#[derive(Clone)]
pub struct Progress(Far);

#[derive(Clone)]
enum Far {
    Ring(RingProgress),
    Stream(StreamProgress),
}

macro_rules! either {
    ($this:expr, $lane:ident => $result:expr) => {
        match $this {
            Guest::Ring($lane) => $result,
            Guest::Stream($lane) => $result,
        }
    };
}

impl GuestLane {
    /// The end of the lane whose block the worker has placed at `placement`; `connection` has carried its handshake.
    ///
    /// # Errors
    /// [`Error::Placement`].
    pub fn new(
        connection: Connection,
        window: Arc<Window>,
        placement: LanePlacement,
        max_body_len: u32,
    ) -> Result<GuestLane, Error> {
        RingGuest::new(connection, window, placement, max_body_len).map(|lane| GuestLane(Guest::Ring(lane)))
    }

    /// The end of a lane without shared memory; `connection` has carried its handshake. Posted requests gather until something is waited for, they are many, or
    /// the flusher sends them; without a flusher they are sent at once.
    ///
    /// # Errors
    /// [`Error::Placement`] for a staging area above the limit.
    pub fn stream(
        connection: Connection,
        welcome: &LaneWelcome,
        limits: &Limits,
        flusher: Option<&Arc<Flusher>>,
    ) -> Result<GuestLane, Error> {
        let lane = StreamGuest::new(connection, welcome, limits, flusher)?;
        Ok(GuestLane(Guest::Stream(Box::new(lane))))
    }

    /// Sends a request that gets no reply and returns its number. Blocks only while the ring or the socket is full.
    ///
    /// # Errors
    /// [`Error::BodyLen`] (nothing was sent); [`Error::HungUp`] and others, after which the lane is dead.
    #[inline]
    pub fn post(&mut self, op: u16, body: &[u8]) -> Result<u64, Error> {
        either!(&mut self.0, lane => lane.post(op, body))
    }

    /// Sends a request, waits for its reply and returns it; the reply's body is in `reply`, which is resized.
    ///
    /// # Errors
    /// As [`GuestLane::post`].
    #[inline]
    pub fn call(&mut self, op: u16, body: &[u8], reply: &mut Vec<u8>) -> Result<Reply, Error> {
        let sent = self.send(op, body)?;
        self.receive(sent, reply)
    }

    /// The first half of [`GuestLane::call`]: sends the request. Nothing else may be sent or waited for on this lane until [`GuestLane::receive`] has taken the reply; without
    /// that the next call finds a reply that is not its own, and the lane is dead.
    ///
    /// # Errors
    /// As [`GuestLane::post`].
    #[inline]
    pub fn send(&mut self, op: u16, body: &[u8]) -> Result<Sent, Error> {
        either!(&mut self.0, lane => lane.send(op, body))
    }

    /// The second half of [`GuestLane::call`]: waits for the reply.
    ///
    /// # Errors
    /// [`Error::HungUp`] and others, after which the lane is dead.
    #[inline]
    pub fn receive(&mut self, sent: Sent, reply: &mut Vec<u8>) -> Result<Reply, Error> {
        either!(&mut self.0, lane => lane.receive(sent, reply))
    }

    /// Sends posted requests that were not sent yet. In a ring there are none.
    ///
    /// # Errors
    /// As [`GuestLane::post`].
    pub fn flush(&mut self) -> Result<(), Error> {
        match &mut self.0 {
            Guest::Ring(_) => Ok(()),
            Guest::Stream(lane) => lane.flush(),
        }
    }

    /// Says that the next request, whose slot begins at or before `offset`, writes this part of the staging area, and that the program will read it when the
    /// slot is free. In shared memory there is nothing to say.
    ///
    /// # Errors
    /// [`Error::Bounds`]; as [`GuestLane::post`].
    #[inline]
    pub fn fetch(&mut self, offset: u64, len: u64) -> Result<(), Error> {
        match &mut self.0 {
            Guest::Ring(_) => Ok(()),
            Guest::Stream(lane) => lane.fetch(offset, len),
        }
    }

    /// Makes what is sent from here on come after request `seq` of another lane of the session. Whether that is so now; if not, it is to be tried again.
    ///
    /// # Errors
    /// As [`GuestLane::post`].
    #[inline]
    pub fn follow(&mut self, other: &Progress, seq: u64) -> Result<bool, Error> {
        match (&mut self.0, &other.0) {
            (_, Far::Ring(other)) => Ok(other.completed() >= seq),
            (Guest::Stream(lane), Far::Stream(other)) => lane.follow(other, seq).map(|()| true),
            // All lanes of a session are of the same kind.
            (Guest::Ring(_), Far::Stream(_)) => Err(Error::Lanes),
        }
    }

    /// Number of the last request that was sent; 0 before the first.
    #[inline]
    pub fn last_seq(&self) -> u64 {
        either!(&self.0, lane => lane.last_seq())
    }

    /// Number of the last request that the worker has declared complete, as far as this side knows; 0 before the first. Everything that the worker wrote before
    /// (staging area) is visible.
    #[inline]
    pub fn completed(&self) -> u64 {
        either!(&self.0, lane => lane.completed())
    }

    /// The lane's progress, for [`GuestLane::follow`] of other lanes.
    pub fn progress(&self) -> Progress {
        Progress(match &self.0 {
            Guest::Ring(lane) => Far::Ring(lane.progress()),
            Guest::Stream(lane) => Far::Stream(lane.progress()),
        })
    }

    /// Waits until [`GuestLane::completed`] has reached `seq`.
    ///
    /// # Errors
    /// [`Error::HungUp`] and others, after which the lane is dead.
    #[inline]
    pub fn wait_completed(&mut self, seq: u64) -> Result<(), Error> {
        either!(&mut self.0, lane => lane.wait_completed(seq))
    }

    /// Waits until the worker is done with a slot of the staging area for the request `seq`, which is the last one that used it. Everything that the
    /// worker wrote there is visible then.
    ///
    /// # Errors
    /// [`Error::HungUp`] and others, after which the lane is dead.
    #[inline]
    pub fn wait_slot(&mut self, slot: u64, seq: u64) -> Result<(), Error> {
        either!(&mut self.0, lane => lane.wait_slot(slot, seq))
    }

    /// Takes the first error of a posted request since the last take, as far as this side knows. Costs a load if there is none.
    #[inline]
    pub fn take_latched(&mut self) -> Option<Status> {
        either!(&mut self.0, lane => lane.take_latched())
    }

    /// Whether the lane has failed or the worker has closed its end. Costs a system call.
    pub fn is_closed(&self) -> bool {
        either!(&self.0, lane => lane.is_closed())
    }

    /// Bytes of the staging area.
    pub fn staging_len(&self) -> u64 {
        either!(&self.0, lane => lane.staging_len())
    }

    /// Whether both sides see the same staging area.
    pub fn shares_staging(&self) -> bool {
        matches!(self.0, Guest::Ring(_))
    }

    /// Pointer to a part of the staging area, to be read; to be written too if it is [shared](Self::shares_staging). Valid while the lane (or the window) lives; the worker may change the bytes, so make no reference of it.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    pub fn staging(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Error> {
        either!(&self.0, lane => lane.staging(offset, len))
    }

    /// Prepares `len` bytes of a shared staging area (both multiples of 4) for [`GuestLane::watch`]: to be called before the request is sent that has them written.
    ///
    /// # Errors
    /// [`Error::Bounds`]; [`Error::Lanes`] without shared memory.
    #[inline]
    pub fn arm(&mut self, offset: u64, len: u64) -> Result<Armed, Error> {
        match &mut self.0 {
            Guest::Ring(lane) => lane.arm(offset, len),
            Guest::Stream(_) => Err(Error::Lanes),
        }
    }

    /// Watches a part of the staging area for a while: whether each of its words has been written. If not, they may have been all the same (with what
    /// happened to be there before), an error may be latched, or it takes longer.
    ///
    /// # Errors
    /// As for `arm`.
    #[inline]
    pub fn watch(&mut self, armed: &Armed) -> Result<bool, Error> {
        match &mut self.0 {
            Guest::Ring(lane) => lane.watch(armed),
            Guest::Stream(_) => Err(Error::Lanes),
        }
    }

    /// Copies program memory to the worker's view of the staging area, for the next request.
    ///
    /// # Errors
    /// [`Error::Bounds`]; without shared memory also as [`GuestLane::post`].
    ///
    /// # Safety
    /// `from` is readable for `len` bytes and not in the staging area.
    pub unsafe fn copy_in(&mut self, offset: u64, from: *const u8, len: usize) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        unsafe { either!(&mut self.0, lane => lane.copy_in(offset, from, len)) }
    }

    /// Copies from the staging area to program memory. Without shared memory it has what was asked for with [`GuestLane::fetch`].
    ///
    /// # Errors
    /// [`Error::Bounds`].
    ///
    /// # Safety
    /// `to` is writable for `len` bytes and not in the staging area.
    pub unsafe fn copy_out(&self, offset: u64, to: *mut u8, len: usize) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        unsafe { either!(&self.0, lane => lane.copy_out(offset, to, len)) }
    }

    /// As [`GuestLane::copy_out`], for a part of a copy that is too long for the cache: the destination is not brought into it.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    ///
    /// # Safety
    /// As [`GuestLane::copy_out`].
    pub unsafe fn copy_out_streaming(&self, offset: u64, to: *mut u8, len: usize) -> Result<(), Error> {
        match &self.0 {
            // SAFETY: the caller's contract.
            Guest::Ring(lane) => unsafe { lane.copy_out_streaming(offset, to, len) },
            // SAFETY: the caller's contract.
            Guest::Stream(lane) => unsafe { lane.copy_out(offset, to, len) },
        }
    }
}

impl AsFd for GuestLane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Guest::Ring(lane) => lane.as_fd(),
            Guest::Stream(lane) => lane.socket(),
        }
    }
}

/// The worker's end of a lane. Owned by one thread at a time (`Send`, not `Sync`).
///
/// Every error but [`Error::BodyLen`] and [`Error::Bounds`] ends the lane: later calls return [`Error::Dead`].
pub struct HostLane(Host);

enum Host {
    Ring(RingHost),
    Stream(Box<StreamHost>),
}

/// Completion numbers and latched errors of a lane, for any thread of the worker. Keeps the window mapped; the lane's block in it must not be given to
/// another lane before this is dropped. Dropping the [`HostLane`] hangs up all the same.
#[derive(Clone)]
pub struct HostSignals(Signals);

#[derive(Clone)]
enum Signals {
    Ring(RingSignals),
    Stream(StreamSignals),
}

macro_rules! either_host {
    ($this:expr, $lane:ident => $result:expr) => {
        match $this {
            Host::Ring($lane) => $result,
            Host::Stream($lane) => $result,
        }
    };
}

impl HostLane {
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
    ) -> Result<HostLane, Error> {
        RingHost::welcome(connection, window, welcome, max_body_len, timeout)
            .map(|lane| HostLane(Host::Ring(lane)))
    }

    /// As [`HostLane::welcome`], for a session without shared memory. The block is set aside in the worker's own window all the same: for the staging area.
    /// `lanes` are those of the session, and the welcome's number is this one's alone.
    ///
    /// # Errors
    /// As there.
    pub fn welcome_stream(
        connection: Connection,
        window: Arc<Window>,
        lanes: &Arc<StreamLanes>,
        welcome: &LaneWelcome,
        max_body_len: u32,
        timeout: Duration,
    ) -> Result<HostLane, Error> {
        let lane = StreamHost::welcome(connection, window, lanes, welcome, max_body_len, timeout)?;
        Ok(HostLane(Host::Stream(Box::new(lane))))
    }

    /// Waits for the next request: its header, and its body in `body`, which is resized. None if the program has closed the lane.
    ///
    /// The kind is `POSTED` or `SYNC`, and the numbers count up from 1.
    ///
    /// # Errors
    /// A violation of the protocol ([`Error::is_violation`]) or a system call; the lane is dead then.
    #[inline]
    pub fn next(&mut self, body: &mut Vec<u8>) -> Result<Option<FrameHeader>, Error> {
        either_host!(&mut self.0, lane => lane.next(body))
    }

    /// As [`HostLane::next`], without waiting: None if there is no request now. Does not notice that the program has closed the lane.
    ///
    /// # Errors
    /// As [`HostLane::next`].
    #[inline]
    pub fn poll(&mut self, body: &mut Vec<u8>) -> Result<Option<FrameHeader>, Error> {
        either_host!(&mut self.0, lane => lane.poll(body))
    }

    /// As [`HostLane::poll`], waiting for a limited time.
    ///
    /// # Errors
    /// As [`HostLane::next`].
    pub fn poll_for(&mut self, body: &mut Vec<u8>, timeout: Duration) -> Result<Option<FrameHeader>, Error> {
        either_host!(&mut self.0, lane => lane.poll_for(body, timeout))
    }

    /// Answers a sync request. `body` must be empty unless the status is success.
    ///
    /// # Errors
    /// [`Error::BodyLen`] (nothing was sent); [`Error::HungUp`] and others, after which the lane is dead.
    #[inline]
    pub fn reply(
        &mut self,
        request: &FrameHeader,
        status: Status,
        flags: Flags,
        body: &[u8],
    ) -> Result<(), Error> {
        either_host!(&mut self.0, lane => lane.reply(request, status, flags, body))
    }

    /// Declares the requests up to `seq` complete; see [`HostSignals::complete`].
    #[inline]
    pub fn complete(&self, seq: u64) {
        either_host!(&self.0, lane => lane.complete(seq));
    }

    /// Declares a slot of the staging area free of the request `seq`, whose use of it is over. Requests may be declared so in any order, those of one
    /// slot in theirs.
    #[inline]
    pub fn complete_slot(&self, slot: u64, seq: u64) {
        either_host!(&self.0, lane => lane.complete_slot(slot, seq));
    }

    /// Latches the error of a posted request; see [`HostSignals::latch`].
    pub fn latch(&self, status: Status) {
        either_host!(&self.0, lane => lane.latch(status));
    }

    /// Completion and errors for other threads.
    pub fn signals(&self) -> HostSignals {
        HostSignals(match &self.0 {
            Host::Ring(lane) => Signals::Ring(lane.signals()),
            Host::Stream(lane) => Signals::Stream(lane.signals()),
        })
    }

    /// What goes over the lane's socket.
    pub fn traffic(&self) -> &Arc<Traffic> {
        either_host!(&self.0, lane => lane.traffic())
    }

    /// Whether the program has closed the lane, for an operation that takes long. Costs a system call.
    pub fn is_closed(&self) -> bool {
        either_host!(&self.0, lane => lane.is_closed())
    }

    /// Bytes of the staging area.
    pub fn staging_len(&self) -> u64 {
        either_host!(&self.0, lane => lane.staging_len())
    }

    /// Window offset of the staging area, for an engine that reads and writes it by address.
    pub fn staging_window_offset(&self) -> u64 {
        either_host!(&self.0, lane => lane.staging_window_offset())
    }

    /// Pointer to a part of the staging area. Valid while the lane (or the window) lives; the program may change the bytes, so make no reference of it and read
    /// nothing twice.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    pub fn staging(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Error> {
        either_host!(&self.0, lane => lane.staging(offset, len))
    }

    /// Copies worker memory to the staging area.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    ///
    /// # Safety
    /// `from` is readable for `len` bytes and not in the staging area.
    pub unsafe fn copy_in(&self, offset: u64, from: *const u8, len: usize) -> Result<(), Error> {
        let to = self.staging(offset, len as u64)?;
        // SAFETY: `to` has `len` bytes; `from` by the caller's contract.
        unsafe { crate::window::copy_shared(from, to.as_ptr(), len) };
        Ok(())
    }

    /// Copies from the staging area to worker memory.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    ///
    /// # Safety
    /// `to` is writable for `len` bytes and not in the staging area.
    pub unsafe fn copy_out(&self, offset: u64, to: *mut u8, len: usize) -> Result<(), Error> {
        let from = self.staging(offset, len as u64)?;
        // SAFETY: `from` has `len` bytes; `to` by the caller's contract.
        unsafe { crate::window::copy_shared(from.as_ptr(), to, len) };
        Ok(())
    }
}

impl AsFd for HostLane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Host::Ring(lane) => lane.as_fd(),
            Host::Stream(lane) => lane.socket(),
        }
    }
}

impl HostSignals {
    /// Declares the requests up to `seq` complete (numbers never go back). [`HostLane::reply`] does not do this: a reply needs no completion.
    pub fn complete(&self, seq: u64) {
        match &self.0 {
            Signals::Ring(signals) => signals.complete(seq),
            Signals::Stream(signals) => signals.complete(seq),
        }
    }

    /// Latches the error of a posted request, unless one is latched already. To be called before the request is declared complete. Success is ignored.
    pub fn latch(&self, status: Status) {
        match &self.0 {
            Signals::Ring(signals) => signals.latch(status),
            Signals::Stream(signals) => signals.latch(status),
        }
    }
}
