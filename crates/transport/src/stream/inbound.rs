//! What arrives on a stream lane: frames, in whatever pieces, through a buffer of fixed size.
#![allow(unsafe_code)] // Data goes from the socket to the staging area, which only raw pointers name.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use protocol::frame::{FrameError, FrameHeader, HEADER_LEN, Kind};
use protocol::stream::{DATA_PREFIX_LEN, Data};

use super::{Taken, receive};
use crate::error::Error;
use crate::traffic::Traffic;
use crate::window::copy_shared;

/// Smallest buffer: many small frames with one system call.
const BUFFER_LEN: usize = 64 << 10;

/// A side's staging area.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    start: NonNull<u8>,
    len: u64,
}

// SAFETY: it only names memory; whoever uses it promises that it is there (`Area::new`).
unsafe impl Send for Area {}

impl Area {
    /// Names a staging area.
    ///
    /// # Safety
    /// The memory is writable for as long as the value is used, and no references to it exist meanwhile.
    pub(crate) unsafe fn new(start: NonNull<u8>, len: u64) -> Area {
        Area { start, len }
    }
}

/// The rest of a data frame whose start has been taken.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Offset in the staging area of the next byte.
    at: u64,
    left: u64,
    padding: usize,
}

/// The receiving half of a lane's end.
pub(crate) struct Inbound {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    max_body_len: u32,
    area: Area,
    rest: Option<Rest>,
    traffic: Arc<Traffic>,
}

impl Inbound {
    /// Takes frames of at most `max_body_len` bytes of body, and data into `area`.
    pub(crate) fn new(max_body_len: u32, area: Area) -> Inbound {
        let largest = HEADER_LEN + max_body_len as usize;
        let buffer = vec![0; largest.next_multiple_of(4096).max(BUFFER_LEN)].into();
        Inbound { buffer, start: 0, end: 0, max_body_len, area, rest: None, traffic: Arc::default() }
    }

    /// What has been received.
    pub(crate) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// The next frame that has arrived as a whole, with its body in `body` (which is resized). Data goes to the staging area and is not returned. None: more must be
    /// received first.
    ///
    /// # Errors
    /// A violation of the protocol.
    pub(crate) fn next(&mut self, body: &mut Vec<u8>) -> Result<Option<FrameHeader>, Error> {
        loop {
            if let Some(rest) = self.rest
                && !self.take_data(rest)
            {
                return Ok(None);
            }
            let here = &self.buffer[self.start..self.end];
            let Some((head, after)) = here.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
            let header = FrameHeader::decode(head, u32::MAX)?;
            if header.kind == Kind::DATA {
                let Some(prefix) = after.first_chunk::<DATA_PREFIX_LEN>() else { return Ok(None) };
                let Some(data) = Data::decode(&header, prefix, self.area.len) else {
                    return Err(Error::Data { len: header.len, area_len: self.area.len });
                };
                self.start += HEADER_LEN + DATA_PREFIX_LEN;
                self.rest = Some(Rest { at: data.offset, left: data.len, padding: data.padding() });
                continue;
            }
            if header.len > self.max_body_len {
                return Err(FrameError::LenLimit { len: header.len, max: self.max_body_len }.into());
            }
            let Some(bytes) = after.get(..header.len as usize) else { return Ok(None) };
            body.clear();
            body.extend_from_slice(bytes);
            self.start += HEADER_LEN + bytes.len();
            return Ok(Some(header));
        }
    }

    /// Moves what has arrived of a data frame to its place; whether that was all of it.
    fn take_data(&mut self, mut rest: Rest) -> bool {
        let count = rest.left.min((self.end - self.start) as u64) as usize;
        // SAFETY: `Data::decode` has checked that `at + left` lies in the area, whose memory is there by the promise of `Area::new`; the
        // source is part of our own buffer.
        unsafe {
            let to = self.area.start.add(rest.at as usize);
            copy_shared(self.buffer[self.start..].as_ptr(), to.as_ptr(), count);
        }
        self.start += count;
        rest.at += count as u64;
        rest.left -= count as u64;
        let padding = if rest.left == 0 { rest.padding.min(self.end - self.start) } else { 0 };
        self.start += padding;
        rest.padding -= padding;
        let done = rest.left == 0 && rest.padding == 0;
        self.rest = (!done).then_some(rest);
        done
    }

    /// Receives more. To be called when [`Inbound::next`] has given None.
    ///
    /// # Errors
    /// A system call.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, wait: bool) -> Result<Taken, Error> {
        if self.start > 0 {
            // What is left is the beginning of a frame, mostly nothing.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if let Some(rest) = &mut self.rest
            && rest.left > 0
            && self.end == 0
        {
            // SAFETY: `at + left` lies in the area (checked by `Data::decode`), whose memory is there by the promise of `Area::new`.
            let taken = unsafe {
                let to = self.area.start.add(rest.at as usize);
                receive(socket, to.as_ptr(), rest.left as usize, wait)?
            };
            if let Taken::Bytes(count) = taken {
                self.traffic.add_received(count);
                rest.at += count as u64;
                rest.left -= count as u64;
            }
            return Ok(taken);
        }
        let room = &mut self.buffer[self.end..];
        debug_assert!(!room.is_empty(), "a frame that fits in the buffer is taken when it is there");
        // SAFETY: a slice of ours is writable for its length.
        let taken = unsafe { receive(socket, room.as_mut_ptr(), room.len(), wait)? };
        if let Taken::Bytes(count) = taken {
            self.traffic.add_received(count);
            self.end += count;
        }
        Ok(taken)
    }
}
