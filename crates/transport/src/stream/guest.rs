//! The program's end of a stream lane.
#![allow(unsafe_code)] // Names the staging area for the receiving half, and copies from program memory that only raw pointers name.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use protocol::Status;
use protocol::frame::{FrameHeader, Kind};
use protocol::handshake::{LaneWelcome, Limits};
use protocol::lane::{SLOTS, slot_at};
use protocol::stream::{After, Data, FreeSlots, NO_SLOT, Watch};
use rustix::event::PollFlags;
use rustix::net::{Shutdown, shutdown};

use super::inbound::{Area, Inbound};
use super::outbox::{Flusher, Outbox, Waiting};
use super::{Taken, is_hung_up, wait_for};
use crate::error::Error;
use crate::lane::{Reply, Sent};
use crate::unix::Connection;
use crate::window::{check_bounds, copy_shared};

/// Posted requests that gather at most: the worker shall not idle while the program has something for it.
const MAX_POSTS: u32 = 32;

/// See [`GuestLane`](crate::GuestLane).
pub(crate) struct StreamGuest {
    outbox: Arc<Outbox>,
    incoming: Incoming,
    /// For the bodies of small frames.
    body: Vec<u8>,
    lane: u32,
    max_body_len: u32,
    /// Number of the last request.
    seq: u64,
    /// Highest number of which the completion has been watched.
    watched: u64,
    /// For each slot the highest number of which its freedom has been watched.
    watched_slots: [u64; SLOTS as usize],
    /// Slot to which bytes were sent ahead of the next request.
    staged: Option<u64>,
    dead: bool,
    /// Keeps the type from being Sync.
    not_sync: PhantomData<Cell<()>>,
}

/// A lane's progress, for lanes that must come after it.
#[derive(Clone)]
pub(crate) struct StreamProgress {
    outbox: Arc<Outbox>,
    lane: u32,
}

/// What has arrived.
struct Incoming {
    inbound: Inbound,
    /// Zeroed memory of our own; touched by raw pointers only.
    staging: NonNull<u8>,
    staging_len: usize,
    completed: u64,
    /// For each slot the number of the last request that is done with it.
    slots: [u64; SLOTS as usize],
    /// First latched error that was not taken yet, 0 for none.
    latched: u32,
}

// SAFETY: `staging` is memory of its own that only its owner uses.
unsafe impl Send for Incoming {}

impl Incoming {
    fn new(max_body_len: u32, staging_len: usize) -> Incoming {
        // Not touched until it is used: large allocations come as fresh pages.
        let staging = Box::leak(vec![0u8; staging_len].into_boxed_slice());
        let staging = NonNull::from(staging).cast();
        // SAFETY: the allocation lives until this value is dropped, and no reference to it is kept.
        let area = unsafe { Area::new(staging, staging_len as u64) };
        Incoming {
            inbound: Inbound::new(max_body_len, area),
            staging,
            staging_len,
            completed: 0,
            slots: [0; SLOTS as usize],
            latched: 0,
        }
    }

    fn progress(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), Error> {
        let slots = &mut self.slots;
        FreeSlots::decode(body, |slot, seq| {
            // The host's other slots are not ours.
            if let Some(place) = slots.get_mut(slot as usize) {
                *place = seq.max(*place);
            }
        })
        .map_err(|error| Error::Body(Kind::PROGRESS, error))?;
        self.completed = self.completed.max(header.seq);
        if self.latched == 0 {
            self.latched = header.status.0;
        }
        Ok(())
    }

    /// Takes all that has arrived, where nothing but data and progress can.
    fn take_all(&mut self, socket: BorrowedFd<'_>, body: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            match self.inbound.next(body)? {
                Some(header) if header.kind == Kind::PROGRESS => self.progress(&header, body)?,
                Some(header) => return Err(Error::UnexpectedKind(header.kind)),
                None => match self.inbound.receive(socket, false)? {
                    Taken::Bytes(_) => {}
                    Taken::Nothing => return Ok(()),
                    Taken::End => return Err(Error::HungUp),
                },
            }
        }
    }

    /// Takes what arrives until a frame that is neither data nor progress, or until `reached`.
    fn wait(
        &mut self,
        socket: BorrowedFd<'_>,
        reached: impl Fn(&Incoming) -> bool,
        body: &mut Vec<u8>,
    ) -> Result<Option<FrameHeader>, Error> {
        loop {
            if reached(self) {
                return Ok(None);
            }
            match self.inbound.next(body)? {
                Some(header) if header.kind == Kind::PROGRESS => self.progress(&header, body)?,
                Some(header) => return Ok(Some(header)),
                None => match self.inbound.receive(socket, true)? {
                    Taken::Bytes(_) | Taken::Nothing => {}
                    Taken::End => return Err(Error::HungUp),
                },
            }
        }
    }

    fn staging(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Error> {
        check_bounds(offset, len, self.staging_len as u64)?;
        // SAFETY: offset <= staging_len, the length of the allocation.
        Ok(unsafe { self.staging.add(offset as usize) })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.staging.as_ptr(), self.staging_len);
        // SAFETY: the allocation that `new` leaked, with its length; `inbound` does not use it in its drop.
        drop(unsafe { Box::from_raw(slice) });
    }
}

impl StreamGuest {
    /// The end of a lane whose handshake `connection` has carried. Without a flusher, posted requests leave at once.
    pub(crate) fn new(
        connection: Connection,
        welcome: &LaneWelcome,
        limits: &Limits,
        flusher: Option<&Arc<Flusher>>,
    ) -> Result<StreamGuest, Error> {
        let staging_len = welcome.placement.staging_len;
        if staging_len > limits.staging_len {
            return Err(Error::Placement(welcome.placement));
        }
        Ok(StreamGuest {
            outbox: Outbox::new(connection.into_fd(), flusher),
            incoming: Incoming::new(limits.max_body_len, staging_len as usize),
            body: Vec::new(),
            lane: welcome.lane,
            max_body_len: limits.max_body_len,
            seq: 0,
            watched: 0,
            watched_slots: [0; SLOTS as usize],
            staged: None,
            dead: false,
            not_sync: PhantomData,
        })
    }

    /// Writes to the outbox. Whenever the socket takes nothing, what has arrived is taken.
    fn write<R>(
        &mut self,
        write: impl FnOnce(
            &mut Waiting,
            BorrowedFd<'_>,
            &mut dyn FnMut() -> Result<(), Error>,
        ) -> Result<R, Error>,
    ) -> Result<R, Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        let Self { outbox, incoming, body, .. } = self;
        let socket = outbox.socket();
        let mut waiting = outbox.lock();
        let result = write(&mut waiting, socket, &mut || {
            wait_for(socket, PollFlags::OUT | PollFlags::IN | PollFlags::RDHUP)?;
            incoming.take_all(socket, body)
        });
        let empty = waiting.gathered.is_empty();
        if empty {
            outbox.emptied(&mut waiting);
        }
        drop(waiting);
        if !empty {
            outbox.left();
        }
        self.dead |= result.is_err();
        result
    }

    /// Sends all that waits.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.write(|waiting, socket, wait| waiting.gathered.flush(socket, wait))
    }

    fn push(&mut self, kind: Kind, op: u16, body: &[u8]) -> Result<u64, Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        if body.len() > self.max_body_len as usize || !body.len().is_multiple_of(8) {
            return Err(Error::BodyLen { len: body.len(), max: self.max_body_len });
        }
        let seq = self.seq + 1;
        // The worker answers a sync request, and tells its progress with that. It tells nothing of a posted one, unless it is asked to.
        let watch = self.staged.filter(|_| kind == Kind::POSTED);
        let now = kind == Kind::SYNC || !self.outbox.has_flusher();
        let header = FrameHeader::new(kind, op, seq, body.len() as u32);
        self.write(|waiting, socket, wait| {
            if let Some(slot) = watch {
                add_watch(waiting, socket, seq, Watch { slot, offset: 0, len: 0 }, wait)?;
            }
            waiting.gathered.add_frame(socket, &header, body, wait)?;
            waiting.last = seq;
            waiting.posts += 1;
            if now || waiting.posts >= MAX_POSTS { waiting.gathered.flush(socket, wait) } else { Ok(()) }
        })?;
        self.seq = seq;
        self.staged = None;
        if let Some(slot) = watch {
            self.watching(slot, seq);
        }
        Ok(seq)
    }

    /// See [`GuestLane::post`](crate::GuestLane::post).
    pub(crate) fn post(&mut self, op: u16, body: &[u8]) -> Result<u64, Error> {
        self.push(Kind::POSTED, op, body)
    }

    /// See [`GuestLane::send`](crate::GuestLane::send).
    pub(crate) fn send(&mut self, op: u16, body: &[u8]) -> Result<Sent, Error> {
        let seq = self.push(Kind::SYNC, op, body)?;
        Ok(Sent { op, seq })
    }

    /// See [`GuestLane::receive`](crate::GuestLane::receive).
    pub(crate) fn receive(&mut self, sent: Sent, reply: &mut Vec<u8>) -> Result<Reply, Error> {
        if self.dead {
            return Err(Error::Dead);
        }
        let header = self.incoming.wait(self.outbox.socket(), |_| false, reply);
        let result = header.and_then(|header| Reply::check(header.as_ref(), sent.op, sent.seq));
        self.dead |= result.is_err();
        result
    }

    /// Notes that a watch was sent.
    fn watching(&mut self, slot: u64, seq: u64) {
        let place = self.watched_slots.get_mut(slot as usize).unwrap_or(&mut self.watched);
        *place = seq.max(*place);
    }

    /// The slot that a request uses which has this offset in the staging area.
    fn slot_at(&self, offset: u64) -> u64 {
        slot_at(self.incoming.staging_len as u64, offset).unwrap_or(NO_SLOT)
    }

    /// See [`GuestLane::fetch`](crate::GuestLane::fetch).
    pub(crate) fn fetch(&mut self, offset: u64, len: u64) -> Result<(), Error> {
        self.incoming.staging(offset, len)?;
        let (seq, slot) = (self.seq + 1, self.slot_at(offset));
        let watch = Watch { slot, offset, len };
        self.write(|waiting, socket, wait| add_watch(waiting, socket, seq, watch, wait))?;
        self.watching(slot, seq);
        Ok(())
    }

    /// See [`GuestLane::follow`](crate::GuestLane::follow).
    pub(crate) fn follow(&mut self, other: &StreamProgress, seq: u64) -> Result<(), Error> {
        // A lane that has failed keeps nobody waiting.
        if other.outbox.flush_up_to(seq).is_err() {
            return Ok(());
        }
        let mut body = Vec::new();
        let header = After { lane: other.lane, seq }.encode(&mut body);
        self.write(|waiting, socket, wait| waiting.gathered.add_frame(socket, &header, &body, wait))
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.seq
    }

    pub(crate) fn completed(&self) -> u64 {
        self.incoming.completed
    }

    pub(crate) fn progress(&self) -> StreamProgress {
        StreamProgress { outbox: self.outbox.clone(), lane: self.lane }
    }

    /// See [`GuestLane::wait_completed`](crate::GuestLane::wait_completed).
    pub(crate) fn wait_completed(&mut self, seq: u64) -> Result<(), Error> {
        self.wait_until(NO_SLOT, seq, self.watched < seq, |incoming| incoming.completed >= seq)
    }

    /// See [`GuestLane::wait_slot`](crate::GuestLane::wait_slot).
    pub(crate) fn wait_slot(&mut self, slot: u64, seq: u64) -> Result<(), Error> {
        let index = (slot % SLOTS) as usize;
        let watched = self.watched_slots[index] >= seq;
        self.wait_until(slot % SLOTS, seq, !watched, |incoming| incoming.slots[index] >= seq)
    }

    fn wait_until(
        &mut self,
        slot: u64,
        seq: u64,
        watch: bool,
        reached: impl Fn(&Incoming) -> bool,
    ) -> Result<(), Error> {
        if reached(&self.incoming) {
            return Ok(());
        }
        self.write(|waiting, socket, wait| {
            if watch {
                add_watch(waiting, socket, seq, Watch { slot, offset: 0, len: 0 }, wait)?;
            }
            waiting.gathered.flush(socket, wait)
        })?;
        self.watching(slot, seq);
        let result = match self.incoming.wait(self.outbox.socket(), reached, &mut self.body) {
            Ok(None) => Ok(()),
            Ok(Some(header)) => Err(Error::UnexpectedKind(header.kind)),
            Err(error) => Err(error),
        };
        self.dead |= result.is_err();
        result
    }

    pub(crate) fn take_latched(&mut self) -> Option<Status> {
        let status = std::mem::take(&mut self.incoming.latched);
        (status != 0).then_some(Status(status))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.dead || is_hung_up(self.outbox.socket())
    }

    pub(crate) fn staging_len(&self) -> u64 {
        self.incoming.staging_len as u64
    }

    pub(crate) fn staging(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Error> {
        self.incoming.staging(offset, len)
    }

    /// See [`GuestLane::copy_in`](crate::GuestLane::copy_in).
    ///
    /// # Safety
    /// `from` is readable for `len` bytes.
    pub(crate) unsafe fn copy_in(&mut self, offset: u64, from: *const u8, len: usize) -> Result<(), Error> {
        self.incoming.staging(offset, len as u64)?;
        let data = Data { offset, len: len as u64 };
        // SAFETY: the caller's contract.
        self.write(|waiting, socket, wait| unsafe { waiting.gathered.add_data(socket, &data, from, wait) })?;
        self.staged = Some(self.slot_at(offset));
        Ok(())
    }

    /// See [`GuestLane::copy_out`](crate::GuestLane::copy_out).
    ///
    /// # Safety
    /// `to` is writable for `len` bytes.
    pub(crate) unsafe fn copy_out(&self, offset: u64, to: *mut u8, len: usize) -> Result<(), Error> {
        let from = self.incoming.staging(offset, len as u64)?;
        // SAFETY: `from` has `len` bytes; `to` by the caller's contract, and it is not our private staging area.
        unsafe { copy_shared(from.as_ptr(), to, len) };
        Ok(())
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.outbox.socket()
    }
}

impl Drop for StreamGuest {
    fn drop(&mut self) {
        // Those who follow the lane keep the socket open for longer. It fails only if the other side was faster.
        let _ = shutdown(self.outbox.socket(), Shutdown::Both);
    }
}

fn add_watch(
    waiting: &mut Waiting,
    socket: BorrowedFd<'_>,
    seq: u64,
    watch: Watch,
    wait: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let mut body = Vec::new();
    let header = watch.encode(seq, &mut body);
    waiting.gathered.add_frame(socket, &header, &body, wait)
}
