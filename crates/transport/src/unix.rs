//! Sockets that carry single frames, over unix sockets with descriptors: the handshake, and the daemon's hand-over of connections to workers.
//!
//! Every wait has a deadline, so that a silent or slow peer cannot hold a daemon thread for longer than the daemon wants.

use std::fmt;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use protocol::frame::{FrameHeader, HEADER_LEN};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with, sockopt,
};

use crate::address::Address;
use crate::error::Error;
use crate::vsock;

/// The most descriptors that a frame can carry.
pub const MAX_DESCRIPTORS: usize = 4;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Who is at the other end, as the kernel vouches for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Process id in our pid namespace at the time of the connect; 0 if it is not visible there.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} uid {}", self.pid, self.uid)
    }
}

/// Who is at the other end of a connection, by what vouches for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A process of this machine.
    Process(Credentials),
    /// A virtual machine (or this one, for CIDs below 3).
    Machine {
        /// Its context id, for which our kernel vouches.
        cid: u32,
        /// The port that the connection comes from, for which its kernel vouches: below 1024 it is privileged there.
        port: u32,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Process(credentials) => credentials.fmt(f),
            Peer::Machine { cid, port } => write!(f, "cid {cid} port {port}"),
        }
    }
}

/// A listening socket. Removes its file when dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    file: Option<SocketFile>,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that has replaced ours is not removed.
    id: (u64, u64),
}

impl Listener {
    /// Listens at an address; at a path as [`Listener::bind`] does.
    ///
    /// # Errors
    /// As there.
    pub fn listen(address: &Address) -> Result<Listener, Error> {
        match address {
            Address::Unix(path) | Address::UnixStream(path) => Listener::bind(path),
            Address::Vsock { cid, port } => {
                let failed = |error| Error::io(format!("listen at {address}"), error);
                let socket = vsock::socket(false).map_err(failed)?;
                let socket = off_stdio(socket).map_err(|errno| failed(errno.into()))?;
                vsock::bind(socket.as_fd(), cid.unwrap_or(vsock::CID_ANY), *port).map_err(failed)?;
                listen(&socket, BACKLOG).map_err(|errno| failed(errno.into()))?;
                Ok(Listener { socket, file: None })
            }
        }
    }

    /// Listens at `path` with mode 0600. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`Error::InUse`] if somebody listens there; a system call.
    pub fn bind(path: &Path) -> Result<Listener, Error> {
        let failed = |what: &str, source: io::Error| Error::io(format!("{what} {}", path.display()), source);
        let address = SocketAddrUnix::new(path).map_err(|errno| failed("use socket path", errno.into()))?;
        let socket = new_socket(SocketFlags::CLOEXEC)?;
        match bind(&socket, &address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address)?;
                bind(&socket, &address).map_err(|errno| failed("bind socket", errno.into()))?;
            }
            Err(errno) => return Err(failed("bind socket", errno.into())),
        }
        // Before listen() nobody can connect, so the mode is in force from the first connection on.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|error| failed("set the mode of socket", error))?;
        let meta = fs::symlink_metadata(path).map_err(|error| failed("examine socket", error))?;
        listen(&socket, BACKLOG).map_err(|errno| failed("listen on socket", errno.into()))?;
        let file = SocketFile { path: path.into(), id: (meta.dev(), meta.ino()) };
        Ok(Listener { socket, file: Some(file) })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// A system call (for instance no descriptors left: wait before the next attempt).
    pub fn accept(&self) -> Result<Connection, Error> {
        loop {
            match accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(socket) => return Ok(Connection { socket }),
                // The peer has given up meanwhile.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(Error::io("accept a connection", errno.into())),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(SocketFile { path, id }) = &self.file else { return };
        let ours = fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == *id);
        if ours {
            // Nothing to be done if it fails: the next daemon replaces a stale file.
            let _ = fs::remove_file(path);
        }
    }
}

fn new_socket(flags: SocketFlags) -> Result<OwnedFd, Error> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(off_stdio)
        .map_err(|errno| Error::io("create a socket", errno.into()))
}

/// Moves a descriptor away from those of standard input, output and error: where a program has closed these, a new descriptor takes their place, and what
/// the program prints would go into it.
fn off_stdio(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { rustix::io::fcntl_dupfd_cloexec(&fd, 3) }
}

/// Removes a socket file on which nobody listens.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), Error> {
    let in_use = || Err(Error::InUse(path.into()));
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if !is_socket {
        return in_use();
    }
    match connect(new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path)
            .map_err(|error| Error::io(format!("remove the stale socket {}", path.display()), error)),
        _ => in_use(),
    }
}

/// A frame that came over a connection.
#[derive(Debug)]
pub struct Received {
    /// The header; magic and length were checked.
    pub header: FrameHeader,
    /// The body.
    pub body: Vec<u8>,
    /// The descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

impl Received {
    /// The descriptors, if there are exactly `N`; otherwise they are closed.
    ///
    /// # Errors
    /// [`Error::Descriptors`].
    pub fn take_fds<const N: usize>(&mut self) -> Result<[OwnedFd; N], Error> {
        std::mem::take(&mut self.fds)
            .try_into()
            .map_err(|fds: Vec<OwnedFd>| Error::Descriptors { got: fds.len(), expected: N })
    }
}

/// A connected socket in its handshake.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// Connects to a daemon.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the daemon accepts nothing for that long; a system call.
    pub fn connect(address: &Address, timeout: Duration) -> Result<Connection, Error> {
        match address {
            Address::Unix(path) | Address::UnixStream(path) => Self::connect_unix(address, path, timeout),
            Address::Vsock { cid, port } => {
                Self::connect_vsock(address, cid.unwrap_or(vsock::CID_HOST), *port, timeout)
            }
        }
    }

    fn connect_vsock(address: &Address, cid: u32, port: u32, timeout: Duration) -> Result<Connection, Error> {
        let failed = |error: io::Error| Error::io(format!("connect to {address}"), error);
        let deadline = Deadline::after(timeout);
        let socket = vsock::socket(true).map_err(failed)?;
        let socket = off_stdio(socket).map_err(|errno| failed(errno.into()))?;
        match vsock::connect(socket.as_fd(), cid, port) {
            Ok(()) => {}
            // Both go on in the background.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
                deadline.wait(&socket, PollFlags::OUT, "connect")?;
                sockopt::socket_error(&socket)
                    .map_err(|errno| failed(errno.into()))?
                    .map_err(|errno| failed(errno.into()))?;
            }
            Err(error) => return Err(failed(error)),
        }
        ioctl_fionbio(&socket, false).map_err(|errno| failed(errno.into()))?;
        Ok(Connection { socket })
    }

    fn connect_unix(address: &Address, path: &Path, timeout: Duration) -> Result<Connection, Error> {
        let failed = |errno: Errno| Error::io(format!("connect to {address}"), errno.into());
        let deadline = Deadline::after(timeout);
        let socket_address = SocketAddrUnix::new(path).map_err(failed)?;
        let socket = new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        loop {
            match connect(&socket, &socket_address) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                // The backlog is full. A unix socket offers no way to wait for room but to try again.
                Err(Errno::AGAIN) => {
                    if deadline.remaining().is_zero() {
                        return Err(Error::Timeout("connect"));
                    }
                    thread::sleep(Duration::from_millis(5).min(deadline.remaining()));
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        ioctl_fionbio(&socket, false).map_err(failed)?;
        Ok(Connection { socket })
    }

    /// Two connected ends, for parent and child or for tests.
    ///
    /// # Errors
    /// A system call.
    pub fn pair() -> Result<(Connection, Connection), Error> {
        let (a, b) =
            std::os::unix::net::UnixStream::pair().map_err(|e| Error::io("create a socket pair", e))?;
        Ok((Connection { socket: a.into() }, Connection { socket: b.into() }))
    }

    /// Takes over a connected stream socket (a descriptor that was passed on).
    pub fn from_fd(socket: OwnedFd) -> Connection {
        Connection { socket }
    }

    /// The socket.
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Who is at the other end, for a connection of any kind.
    ///
    /// # Errors
    /// A system call.
    pub fn peer(&self) -> Result<Peer, Error> {
        let machine =
            vsock::peer(self.socket.as_fd()).map_err(|error| Error::io("read the peer's address", error))?;
        match machine {
            Some((cid, port)) => Ok(Peer::Machine { cid, port }),
            None => self.credentials().map(Peer::Process),
        }
    }

    /// The process at the other end of a unix socket.
    ///
    /// # Errors
    /// A system call.
    pub fn credentials(&self) -> Result<Credentials, Error> {
        let ucred = sockopt::socket_peercred(&self.socket)
            .map_err(|errno| Error::io("read the peer's credentials", errno.into()))?;
        Ok(Credentials {
            pid: rustix::process::Pid::as_raw(Some(ucred.pid)).cast_unsigned(),
            uid: ucred.uid.as_raw(),
            gid: ucred.gid.as_raw(),
        })
    }

    /// Sends one frame with descriptors. After an error the connection is of no use.
    ///
    /// # Errors
    /// [`Error::HungUp`], [`Error::Timeout`], [`Error::BodyLen`] if the body is not of the header's length, [`Error::Descriptors`] for more than
    /// [`MAX_DESCRIPTORS`], a system call.
    pub fn send(
        &self,
        header: &FrameHeader,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        timeout: Duration,
    ) -> Result<(), Error> {
        if body.len() != header.len as usize || !body.len().is_multiple_of(8) {
            return Err(Error::BodyLen { len: body.len(), max: header.len });
        }
        if fds.len() > MAX_DESCRIPTORS {
            return Err(Error::Descriptors { got: fds.len(), expected: MAX_DESCRIPTORS });
        }
        let deadline = Deadline::after(timeout);
        let head = header.encode();
        let mut sent = 0;
        while sent < HEADER_LEN + body.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            // Descriptors travel with the first byte.
            if sent == 0 && !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(Error::Descriptors { got: fds.len(), expected: MAX_DESCRIPTORS });
            }
            let slices = [
                IoSlice::new(&head[sent.min(HEADER_LEN)..]),
                IoSlice::new(&body[sent.saturating_sub(HEADER_LEN)..]),
            ];
            match sendmsg(&self.socket, &slices, &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => deadline.wait(&self.socket, PollFlags::OUT, "send a frame")?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Error::HungUp),
                Err(errno) => return Err(Error::io("send a frame", errno.into())),
            }
        }
        Ok(())
    }

    /// Receives one frame of at most `max_body` body bytes. Reads nothing of what follows it. After an error the connection is of no use.
    ///
    /// # Errors
    /// [`Error::HungUp`], [`Error::Timeout`], [`Error::Frame`], [`Error::Descriptors`] for too many of them, a system call.
    pub fn receive(&self, max_body: u32, timeout: Duration) -> Result<Received, Error> {
        let deadline = Deadline::after(timeout);
        let mut fds = Vec::new();
        let mut head = [0; HEADER_LEN];
        self.fill(&mut head, &mut fds, &deadline)?;
        let header = FrameHeader::decode(&head, max_body)?;
        let mut body = vec![0; header.len as usize];
        self.fill(&mut body, &mut fds, &deadline)?;
        Ok(Received { header, body, fds })
    }

    fn fill(&self, buf: &mut [u8], fds: &mut Vec<OwnedFd>, deadline: &Deadline) -> Result<(), Error> {
        let mut filled = 0;
        while filled < buf.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut buf[filled..])];
            let received = recvmsg(
                &self.socket,
                &mut slices,
                &mut ancillary,
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            );
            match received {
                Ok(message) => {
                    for part in ancillary.drain() {
                        if let RecvAncillaryMessage::ScmRights(rights) = part {
                            for fd in rights {
                                let fd = off_stdio(fd);
                                fds.push(fd.map_err(|errno| Error::io("keep a descriptor", errno.into()))?);
                            }
                        }
                    }
                    // The kernel has installed what fits and dropped the rest; what we have is closed with `fds`.
                    if message.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_DESCRIPTORS {
                        let got = fds.len().max(MAX_DESCRIPTORS + 1);
                        return Err(Error::Descriptors { got, expected: MAX_DESCRIPTORS });
                    }
                    if message.bytes == 0 {
                        return Err(Error::HungUp);
                    }
                    filled += message.bytes;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => deadline.wait(&self.socket, PollFlags::IN, "receive a frame")?,
                Err(Errno::CONNRESET) => return Err(Error::HungUp),
                Err(errno) => return Err(Error::io("receive a frame", errno.into())),
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The end of a wait.
struct Deadline(Instant);

impl Deadline {
    /// `timeout` from now, at most a day.
    fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now() + timeout.min(Duration::from_secs(86400)))
    }

    fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Waits until the socket is ready or broken.
    fn wait(&self, socket: &OwnedFd, flags: PollFlags, action: &'static str) -> Result<(), Error> {
        loop {
            let left = self.remaining();
            if left.is_zero() {
                return Err(Error::Timeout(action));
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(socket, flags)], Some(&timeout)) {
                Ok(0) => return Err(Error::Timeout(action)),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io(action, errno.into())),
            }
        }
    }
}
