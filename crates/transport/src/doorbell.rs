//! A lane's socket after its handshake: one byte wakes, the end of the stream is the end of the lane.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use crate::error::Error;
use crate::park::{Bell, Wake};
use crate::traffic::Traffic;

pub(crate) struct Doorbell {
    socket: OwnedFd,
    traffic: Arc<Traffic>,
}

impl Doorbell {
    pub(crate) fn new(socket: OwnedFd) -> Doorbell {
        Doorbell { socket, traffic: Arc::default() }
    }

    /// What has gone over it.
    pub(crate) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Whether the other side has closed the socket; never blocks.
    pub(crate) fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
    }

    /// As [`Bell::sleep`], for a limited time; does not tell what ended it.
    pub(crate) fn sleep_for(&self, limit: Duration) -> Result<(), Error> {
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&limit)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Ok(_) => {
                let mut rings = [0; 64];
                // What it says, the next look at the ring says too; a hang-up is for the next sleep to find.
                if let Ok((_, count)) = recv(&self.socket, &mut rings, RecvFlags::DONTWAIT) {
                    self.traffic.add_received(count);
                }
                Ok(())
            }
            Err(errno) => Err(Error::io("wait on the lane's doorbell", io::Error::from(errno))),
        }
    }

    /// Ends the stream for the other side, whoever else holds the socket.
    pub(crate) fn hang_up(&self) {
        // It fails only if the other side was faster.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Bell for Doorbell {
    type Error = Error;

    fn ring(&self) -> Result<(), Error> {
        loop {
            match send(&self.socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                // A full socket buffer means that rings are pending: the next sleep ends at once.
                Ok(count) => {
                    self.traffic.add_sent(count);
                    return Ok(());
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Error::HungUp),
                Err(errno) => return Err(Error::io("ring the lane's doorbell", io::Error::from(errno))),
            }
        }
    }

    fn sleep(&self) -> Result<Wake, Error> {
        let mut rings = [0; 64];
        match recv(&self.socket, &mut rings, RecvFlags::empty()) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(Wake::HungUp),
            Ok((_, count)) => {
                self.traffic.add_received(count);
                Ok(Wake::Rung)
            }
            // A signal handler may have done anything: look again.
            Err(Errno::INTR) => Ok(Wake::Rung),
            // The descriptor is non-blocking (or has a receive timeout): wait with poll instead.
            Err(Errno::AGAIN) => {
                match poll(&mut [PollFd::new(&self.socket, PollFlags::IN | PollFlags::RDHUP)], None) {
                    Ok(_) | Err(Errno::INTR) => Ok(Wake::Rung),
                    Err(errno) => Err(Error::io("wait on the lane's doorbell", io::Error::from(errno))),
                }
            }
            Err(errno) => Err(Error::io("wait on the lane's doorbell", io::Error::from(errno))),
        }
    }
}
