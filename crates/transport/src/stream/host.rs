//! The worker's end of a stream lane.
#![allow(unsafe_code)] // The staging area is memory that the worker's engine uses by address.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use protocol::Status;
use protocol::frame::{Flags, FrameHeader, Kind};
use protocol::handshake::LaneWelcome;
use protocol::lane::SLOTS;
use protocol::stream::{After, Data, FreeSlots, NO_SLOT, Watch};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::inbound::{Area, Inbound};
use super::lanes::StreamLanes;
use super::outbox::Gathered;
use super::{MAX_WATCHES, Taken, is_hung_up, wait_for};
use crate::error::Error;
use crate::lane::memory::LaneMemory;
use crate::traffic::Traffic;
use crate::unix::Connection;
use crate::window::Window;

/// What other threads of the worker use.
struct Shared {
    /// Only its staging area is used.
    memory: LaneMemory,
    socket: OwnedFd,
    completed: Arc<AtomicU64>,
    latched: AtomicU32,
    /// The lane's thread sleeps and is to be woken when a request completes.
    asleep: AtomicBool,
    wake: OwnedFd,
    lanes: Arc<StreamLanes>,
    lane: u32,
}

/// A watch that was not answered yet.
struct Pending {
    seq: u64,
    watch: Watch,
}

/// See [`HostLane`](crate::HostLane).
pub(crate) struct StreamHost {
    shared: Arc<Shared>,
    inbound: Inbound,
    outgoing: Gathered,
    /// In the order in which they came.
    pending: Vec<Pending>,
    /// For each slot of the staging area the number of the last request that is done with it.
    slots: [Cell<u64>; SLOTS as usize],
    /// A slot has become free since the watches were looked at.
    freed: Cell<bool>,
    /// Completion number when the watches were looked at.
    looked: u64,
    /// Completion number that the program was told.
    told: u64,
    max_body_len: u32,
    /// Number of the last request taken.
    seq: u64,
    dead: bool,
    /// Keeps the type from being Sync.
    not_sync: PhantomData<Cell<()>>,
}

/// See [`HostSignals`](crate::HostSignals).
#[derive(Clone)]
pub(crate) struct StreamSignals {
    shared: Arc<Shared>,
}

impl StreamHost {
    /// Sends the welcome and returns the lane. `window` is the worker's own, in which the staging area lies.
    pub(crate) fn welcome(
        connection: Connection,
        window: Arc<Window>,
        lanes: &Arc<StreamLanes>,
        welcome: &LaneWelcome,
        max_body_len: u32,
        timeout: Duration,
    ) -> Result<StreamHost, Error> {
        let memory = LaneMemory::new(window, welcome.placement)?;
        let start = memory.staging(0, memory.staging_len())?;
        // SAFETY: part of the window, which `memory` keeps mapped; its bytes are never borrowed.
        let area = unsafe { Area::new(start, memory.staging_len()) };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::io("create an event descriptor", errno.into()))?;
        let inbound = Inbound::new(max_body_len, area);
        let outgoing = Gathered::counted(Arc::clone(inbound.traffic()));
        // Before the program knows of the lane: another lane may be told to wait for it as soon as that, and a lane that is not entered is taken for one that has ended.
        let completed = lanes.enter(welcome.lane);
        let mut body = Vec::new();
        if let Err(error) = connection.send(&welcome.encode(&mut body), &body, &[], timeout) {
            lanes.leave(welcome.lane);
            return Err(error);
        }
        Ok(StreamHost {
            shared: Arc::new(Shared {
                memory,
                socket: connection.into_fd(),
                completed,
                latched: AtomicU32::new(0),
                asleep: AtomicBool::new(false),
                wake,
                lanes: Arc::clone(lanes),
                lane: welcome.lane,
            }),
            inbound,
            outgoing,
            pending: Vec::new(),
            slots: [const { Cell::new(0) }; SLOTS as usize],
            freed: Cell::new(false),
            looked: 0,
            told: 0,
            max_body_len,
            seq: 0,
            dead: false,
            not_sync: PhantomData,
        })
    }

    /// See [`HostLane::traffic`](crate::HostLane::traffic).
    pub(crate) fn traffic(&self) -> &Arc<Traffic> {
        self.inbound.traffic()
    }

    /// See [`HostLane::next`](crate::HostLane::next).
    pub(crate) fn next(&mut self, body: &mut Vec<u8>) -> Result<Option<FrameHeader>, Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        let result = self.take_request(body, true);
        self.dead = !matches!(result, Ok(Some(_)));
        match result {
            Err(Error::HungUp) => Ok(None),
            other => other,
        }
    }

    /// See [`HostLane::poll`](crate::HostLane::poll).
    pub(crate) fn poll(&mut self, body: &mut Vec<u8>) -> Result<Option<FrameHeader>, Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        match self.take_request(body, false) {
            // The next call of `next` says so.
            Err(Error::HungUp) => Ok(None),
            Err(error) => {
                self.dead = true;
                Err(error)
            }
            taken => taken,
        }
    }

    /// See [`HostLane::poll_for`](crate::HostLane::poll_for).
    pub(crate) fn poll_for(
        &mut self,
        body: &mut Vec<u8>,
        timeout: Duration,
    ) -> Result<Option<FrameHeader>, Error> {
        let taken = self.poll(body)?;
        if taken.is_some() {
            return Ok(taken);
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // Errors and the end of the stream are for the next look to find.
        let _ = poll(&mut [PollFd::new(&self.shared.socket, PollFlags::IN)], Some(&timeout));
        self.poll(body)
    }

    fn take_request(&mut self, body: &mut Vec<u8>, wait: bool) -> Result<Option<FrameHeader>, Error> {
        loop {
            self.answer_watches()?;
            let Some(header) = self.inbound.next(body)? else {
                let more = if wait {
                    self.receive()?
                } else {
                    let socket = self.shared.socket.as_fd();
                    matches!(self.inbound.receive(socket, false)?, Taken::Bytes(_))
                };
                if more {
                    continue;
                }
                return Ok(None);
            };
            match header.kind {
                Kind::POSTED | Kind::SYNC => {
                    if header.seq != self.seq + 1 {
                        return Err(Error::Unexpected {
                            field: "request number",
                            got: header.seq,
                            expected: self.seq + 1,
                        });
                    }
                    self.seq = header.seq;
                    return Ok(Some(header));
                }
                Kind::WATCH => self.watch(&header, body)?,
                Kind::AFTER => self.after(body)?,
                kind => return Err(Error::UnexpectedKind(kind)),
            }
        }
    }

    fn watch(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), Error> {
        let watch = Watch::decode(body).map_err(|error| Error::Body(Kind::WATCH, error))?;
        let seq = header.seq;
        if seq > self.seq + 1 {
            return Err(Error::Unexpected { field: "watched number", got: seq, expected: self.seq + 1 });
        }
        if self.shared.memory.staging(watch.offset, watch.len).is_err() {
            let len = u32::try_from(watch.len).unwrap_or(u32::MAX);
            return Err(Error::Data { len, area_len: self.shared.memory.staging_len() });
        }
        if self.pending.len() >= MAX_WATCHES {
            return Err(Error::Watches);
        }
        if watch.slot >= SLOTS && watch.slot != NO_SLOT {
            return Err(Error::Unexpected { field: "watched slot", got: watch.slot, expected: NO_SLOT });
        }
        self.pending.push(Pending { seq, watch });
        // It may be free already.
        self.freed.set(true);
        Ok(())
    }

    fn after(&mut self, body: &[u8]) -> Result<(), Error> {
        let after = After::decode(body).map_err(|error| Error::Body(Kind::AFTER, error))?;
        let shared = &self.shared;
        if after.lane == shared.lane {
            return Err(Error::Unexpected { field: "lane to wait for", got: after.lane.into(), expected: 0 });
        }
        let open = shared.lanes.wait(after.lane, after.seq, || is_hung_up(&shared.socket));
        if open { Ok(()) } else { Err(Error::HungUp) }
    }

    /// Sends what was asked for and is there.
    fn answer_watches(&mut self) -> Result<(), Error> {
        let completed = self.shared.completed.load(Ordering::SeqCst);
        if self.pending.is_empty() || (completed == self.looked && !self.freed.get()) {
            return Ok(());
        }
        let before = self.pending.len();
        self.gather_answers(completed, false)?;
        if self.pending.len() < before { self.flush() } else { Ok(()) }
    }

    /// Answers the watches of what is done. What they ask for comes before the numbers. `tell`: numbers and error, also if nobody watches.
    fn gather_answers(&mut self, completed: u64, tell: bool) -> Result<(), Error> {
        self.looked = completed;
        self.freed.set(false);
        let shared = Arc::clone(&self.shared);
        let socket = shared.socket.as_fd();
        let mut wait = || wait_for(socket, PollFlags::OUT);
        let slots = &self.slots;
        let done = |slot: u64| slots.get(slot as usize).map_or(completed, Cell::get);
        let answered: Vec<_> =
            self.pending.extract_if(.., |pending| done(pending.watch.slot) >= pending.seq).collect();
        if answered.is_empty() && !tell {
            return Ok(());
        }
        for Pending { watch: Watch { offset, len, .. }, .. } in &answered {
            if *len > 0 {
                let from = shared.memory.staging(*offset, *len)?;
                let data = Data { offset: *offset, len: *len };
                // SAFETY: the part has `len` bytes and stays mapped with `shared`.
                unsafe { self.outgoing.add_data(socket, &data, from.as_ptr(), &mut wait)? };
            }
        }
        let free = answered.iter().filter(|pending| pending.watch.slot != NO_SLOT);
        let mut body = Vec::new();
        FreeSlots::encode(free.map(|pending| (pending.watch.slot, done(pending.watch.slot))), &mut body);
        let status = Status(shared.latched.swap(0, Ordering::AcqRel));
        let header = FrameHeader::new(Kind::PROGRESS, 0, completed, body.len() as u32);
        let header = FrameHeader { status, ..header };
        self.outgoing.add_frame(socket, &header, &body, &mut wait)?;
        self.told = completed;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let shared = &self.shared;
        let socket = shared.socket.as_fd();
        self.outgoing.flush(socket, &mut || wait_for(socket, PollFlags::OUT))
    }

    /// Waits for bytes, or for the completion of what is watched; false at the end of the stream.
    fn receive(&mut self) -> Result<bool, Error> {
        let shared = &self.shared;
        let socket = shared.socket.as_fd();
        if self.pending.is_empty() {
            return Ok(self.inbound.receive(socket, true)? != Taken::End);
        }
        shared.asleep.store(true, Ordering::SeqCst);
        if shared.completed.load(Ordering::SeqCst) == self.looked {
            let mut fds = [
                PollFd::from_borrowed_fd(socket, PollFlags::IN | PollFlags::RDHUP),
                PollFd::new(&shared.wake, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io("wait on a lane", errno.into())),
            }
        }
        shared.asleep.store(false, Ordering::SeqCst);
        // Empty unless a completion has woken us.
        let _ = rustix::io::read(&shared.wake, &mut [0; 8]);
        Ok(self.inbound.receive(socket, false)? != Taken::End)
    }

    /// See [`HostLane::reply`](crate::HostLane::reply).
    pub(crate) fn reply(
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
        let result = self.send_reply(&header, body);
        self.dead = result.is_err();
        result
    }

    fn send_reply(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), Error> {
        let completed = self.shared.completed.load(Ordering::SeqCst);
        let tell = completed > self.told || self.shared.latched.load(Ordering::Acquire) != 0;
        self.gather_answers(completed, tell)?;
        let shared = Arc::clone(&self.shared);
        let socket = shared.socket.as_fd();
        self.outgoing.add_frame(socket, header, body, &mut || wait_for(socket, PollFlags::OUT))?;
        self.flush()
    }

    pub(crate) fn signals(&self) -> StreamSignals {
        StreamSignals { shared: self.shared.clone() }
    }

    pub(crate) fn complete(&self, seq: u64) {
        self.shared.complete(seq);
    }

    /// See [`HostLane::complete_slot`](crate::HostLane::complete_slot).
    pub(crate) fn complete_slot(&self, slot: u64, seq: u64) {
        self.slots[(slot % SLOTS) as usize].set(seq);
        self.freed.set(true);
    }

    pub(crate) fn latch(&self, status: Status) {
        self.shared.latch(status);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.dead || is_hung_up(&self.shared.socket)
    }

    pub(crate) fn staging_len(&self) -> u64 {
        self.shared.memory.staging_len()
    }

    pub(crate) fn staging_window_offset(&self) -> u64 {
        self.shared.memory.staging_window_offset()
    }

    pub(crate) fn staging(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Error> {
        self.shared.memory.staging(offset, len)
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.shared.socket.as_fd()
    }
}

impl Drop for StreamHost {
    fn drop(&mut self) {
        self.shared.lanes.leave(self.shared.lane);
        // Signals may keep the socket open for longer. It fails only if the other side was faster.
        let _ = shutdown(&self.shared.socket, Shutdown::Both);
    }
}

impl Shared {
    fn complete(&self, seq: u64) {
        self.completed.fetch_max(seq, Ordering::SeqCst);
        self.lanes.advanced();
        if self.asleep.swap(false, Ordering::SeqCst) {
            // A full counter wakes as well.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    fn latch(&self, status: Status) {
        let _ = self.latched.compare_exchange(0, status.0, Ordering::Release, Ordering::Relaxed);
    }
}

impl StreamSignals {
    pub(crate) fn complete(&self, seq: u64) {
        self.shared.complete(seq);
    }

    pub(crate) fn latch(&self, status: Status) {
        self.shared.latch(status);
    }
}
