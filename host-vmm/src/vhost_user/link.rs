//! One connection: its state, the host's end of it, and the guest's bytes that this end has not taken yet.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::connection::{Accepted, Connection, Violation};

/// Who is connected: the guest's port and the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    pub guest: u32,
    pub host: u32,
}

/// What a read from the host's end gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// There will be no more.
    End,
}

/// See the module. Reads and writes never wait.
pub struct Link {
    pub ports: Ports,
    pub state: Connection,
    socket: OwnedFd,
    /// As long as `state.pending()`, and so at most one window.
    buffer: VecDeque<u8>,
    /// There may be bytes of the host's end: an event said so, and no read has found it empty since.
    pub readable: bool,
    /// Events of room in the socket are asked for.
    pub watches_room: bool,
    /// Stands in the queue of those that may have something for the guest.
    pub queued: bool,
    /// The host's end has been told that no more bytes come, or that none are taken.
    told_end: bool,
    told_stop: bool,
}

impl Link {
    pub fn new(ports: Ports, state: Connection, socket: OwnedFd) -> Self {
        Self {
            ports,
            state,
            socket,
            buffer: VecDeque::new(),
            readable: false,
            watches_room: false,
            queued: false,
            told_end: false,
            told_stop: false,
        }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes bytes of the guest; what the host's end does not take now is kept.
    ///
    /// # Errors
    /// The guest may not send them.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let len = u32::try_from(bytes.len()).map_err(|_| Violation::Credit)?;
        if self.state.data(len)? == Accepted::Discard {
            return Ok(());
        }
        let taken = if self.buffer.is_empty() { self.send(bytes) } else { Some(0) };
        if let Some(taken) = taken {
            self.buffer.extend(&bytes[taken..]);
        }
        Ok(())
    }

    /// Passes on what is kept, as far as the host's end takes it, and then the ends of the directions.
    pub fn settle(&mut self) {
        while !self.buffer.is_empty() {
            let kept = std::mem::take(&mut self.buffer);
            let (first, _) = kept.as_slices();
            let (len, taken) = (first.len(), self.send(first));
            let Some(taken) = taken else { break };
            // Once all has gone, so has the memory.
            if taken < kept.len() {
                self.buffer = kept;
                self.buffer.drain(..taken);
            }
            if taken < len {
                break;
            }
        }
        // Errors mean that the other side has closed, which reads and writes find out as well.
        if self.state.input_is_over() && !std::mem::replace(&mut self.told_end, true) {
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        if !self.state.guest_receives() && !std::mem::replace(&mut self.told_stop, true) {
            let _ = shutdown(&self.socket, Shutdown::Read);
        }
    }

    /// Whether bytes are kept that the host's end has no room for.
    pub fn is_full(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The host's end takes no more.
    fn stopped(&mut self) {
        self.state.host_stopped();
        self.buffer = VecDeque::new();
    }

    /// The host's end has closed: it takes no more, and if there is nothing left to read, it sends no more either.
    pub fn hung_up(&mut self) {
        self.stopped();
        if matches!(recv(&self.socket, &mut [0], RecvFlags::DONTWAIT | RecvFlags::PEEK), Ok((_, 0))) {
            self.state.host_ended();
        }
    }

    /// Reads bytes for the guest.
    pub fn receive(&mut self, to: &mut [u8]) -> Incoming {
        loop {
            match recv(&self.socket, &mut *to, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Incoming::End,
                Ok((len, _)) => return Incoming::Bytes(len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Incoming::Nothing,
                Err(_) => {
                    self.stopped();
                    return Incoming::End;
                }
            }
        }
    }

    /// For tests and fuzzing: what must hold between any two calls.
    pub fn check(&self) {
        assert_eq!(self.buffer.len(), self.state.pending() as usize);
        assert!(self.state.pending() <= self.state.window());
    }

    /// Sends what there is room for and counts it; None if the host's end takes no more.
    fn send(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            match send(&self.socket, &bytes[taken..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => taken += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.stopped();
                    return None;
                }
            }
        }
        // At most what is pending, which is a u32.
        self.state.forwarded(taken as u32);
        Some(taken)
    }
}
