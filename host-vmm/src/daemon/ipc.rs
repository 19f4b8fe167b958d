//! Messages between the daemon and a worker: one JSON object per packet of a socket pair, with at most one descriptor.
//!
//! Both ends are this program in the same version, so the format needs no compatibility; it is still bounded and checked, because a
//! worker shares its address space with nothing but works for a program that is not trusted.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use protocol::handshake::Capabilities;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::config::Config;
use crate::stats::Report;

/// Largest packet in bytes. A report has one short row per driver call and a bounded number of kernel names.
const MAX_PACKET: usize = 128 << 10;

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub config: Config,
    pub token: [u8; 16],
    /// Negotiated with the program.
    pub version: u32,
    pub capabilities: u64,
    /// The region that the program proposes.
    pub region_tag: u32,
    /// Process id of the program as the kernel says, 0 if it cannot be seen from here.
    pub pid: u32,
    /// How many messages with files of the program's machine follow.
    pub memory_files: usize,
}

/// What a session's window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// A memfd that the worker makes and the program maps.
    File,
    /// Memory of the program's machine.
    Guest,
    /// The worker's alone: lanes are streams.
    Private,
}

impl Start {
    /// What the session's window is.
    pub fn window_kind(&self) -> WindowKind {
        let capabilities = Capabilities(self.capabilities);
        if capabilities.contains(Capabilities::SHARED_MEMORY) {
            WindowKind::File
        } else if capabilities.contains(Capabilities::SHARED_GUEST_MEMORY) {
            WindowKind::Guest
        } else {
            WindowKind::Private
        }
    }
}

/// How a warm worker has got ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The region that it has taken.
    pub region_tag: u32,
    /// Devices that its driver shows.
    pub devices: u32,
}

/// Why a worker cannot be kept warm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    pub reason: String,
    /// It will be so for the next one, too.
    pub lasting: bool,
}

/// From the daemon to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The program's control connection (with its descriptor). Sent once, first; to a warm worker after [`ToWorker::Warm`] and [`ToWorker::Check`].
    Start(Box<Start>),
    /// Get ready for a program that is yet to come. Sent once, first.
    Warm(Box<Config>),
    /// Is a warm worker still ready?
    Check,
    /// A lane (with its descriptor).
    Lane,
    /// One of the files that are the memory of the program's machine (with its descriptor). Sent right after the start.
    Memory,
    /// The answer to [`ToDaemon::Region`]: where the region lies, in a file of [runs](crate::worker::guest_memory::Run) (its descriptor; none if the session has no
    /// such region).
    Region(u64),
    /// Report and end.
    Stop,
}

/// From a worker to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDaemon {
    /// The program has been welcomed: there is a session.
    Welcomed,
    /// Where is this region of the program's memory? The worker uses it from now on.
    Region(u64),
    /// It does not use it any more.
    RegionDone(u64),
    /// The session is over; the worker ends after this.
    Report(Report),
    /// The program sent something that is against the protocol.
    Malformed(String),
    /// Answer to [`ToWorker::Warm`]: waits for its program.
    Ready(Ready),
    /// Answer to [`ToWorker::Warm`] or [`ToWorker::Check`]; the worker ends after this.
    NotReady(NotReady),
    /// Answer to [`ToWorker::Check`].
    StillReady,
}

/// One end of the socket pair.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// How messages are sent: the daemon's end does not wait for a worker that does not read.
    flags: SendFlags,
}

impl Channel {
    /// The daemon's end, which never waits to send, and the other one.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: a, flags: SendFlags::NOSIGNAL | SendFlags::DONTWAIT }, b))
    }

    /// The worker's end.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, flags: SendFlags::NOSIGNAL }
    }

    /// Sends a message, with a descriptor if the message has one.
    ///
    /// # Errors
    /// The other end is gone (or, on the daemon's end, has not read for long: `WouldBlock`), or the message is too large.
    pub fn send<M: Serialize>(&self, message: &M, fd: Option<&OwnedFd>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_PACKET {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("message of {} bytes", bytes.len()),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd.as_fd()]);
        if let Some(fds) = &fds {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut ancillary, self.flags)?;
        Ok(())
    }

    /// The next message and its descriptor; `None` when the other end is closed.
    ///
    /// # Errors
    /// A packet that is no message, or a failure of the socket.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Option<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut reset = false;
        let received = loop {
            match recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                // The other end was closed with something in it unread. That is said once, before what it has sent itself.
                Err(rustix::io::Errno::CONNRESET) if !std::mem::replace(&mut reset, true) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let fd = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .next();
        if received.bytes == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fd)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_carry_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let b = Channel::new(b);
        let (read, write) = rustix::pipe::pipe().unwrap();
        a.send(&ToWorker::Lane, Some(&write)).unwrap();
        a.send(&ToWorker::Stop, None).unwrap();
        drop(write);
        let (message, fd) = b.receive::<ToWorker>().unwrap().unwrap();
        assert_eq!(message, ToWorker::Lane);
        rustix::io::write(fd.unwrap(), b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut [0; 4]), Ok(1));
        assert!(matches!(b.receive::<ToWorker>().unwrap(), Some((ToWorker::Stop, None))));
        drop(a);
        assert!(b.receive::<ToWorker>().unwrap().is_none());
    }

    #[test]
    fn the_daemon_does_not_wait_for_a_worker() {
        let (a, b) = Channel::pair().unwrap();
        let error = std::iter::repeat_with(|| a.send(&ToWorker::Lane, None)).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(b);
    }

    /// A worker reports and ends while the daemon tells it to stop.
    #[test]
    fn the_last_words_of_an_end_that_did_not_listen_are_heard() {
        let (a, b) = Channel::pair().unwrap();
        let b = Channel::new(b);
        a.send(&ToWorker::Stop, None).unwrap();
        b.send(&ToDaemon::Malformed("first".into()), None).unwrap();
        b.send(&ToDaemon::Report(Report { sessions: 1, launches: 7, ..Report::default() }), None).unwrap();
        drop(b);
        assert!(matches!(a.receive().unwrap(), Some((ToDaemon::Malformed(_), None))));
        assert!(matches!(a.receive().unwrap(), Some((ToDaemon::Report(Report { launches: 7, .. }), None))));
        assert!(a.receive::<ToDaemon>().unwrap().is_none());
        assert!(a.receive::<ToDaemon>().unwrap().is_none());
    }

    #[test]
    fn junk_is_an_error() {
        let (a, b) = Channel::pair().unwrap();
        rustix::io::write(&b, b"junk").unwrap();
        assert!(a.receive::<ToDaemon>().is_err());
    }
}
