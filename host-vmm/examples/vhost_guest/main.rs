//! A guest without a machine: host-vmm's own vsock device, the kernel's vhost-vsock behind it, and in front of it a driver in this process. For tests of the
//! whole way from a program to the daemon where no machine can be started.
//!
//! `vhost_guest CID PORT -- PROGRAM ARGUMENTS`: waits until the host takes connections at PORT, and runs the program with `CUDA_SHIM_CONNECT` set to a
//! socket each of whose connections is one from the guest to that port. Ends with the program's exit code.
//!
//! One thread does it all. Bytes that the host sends are bounded by the room that we announce; what a program sends stays in its socket until the host
//! has room.

mod driver;
mod packet;

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use driver::{Driver, PAYLOAD_BYTES};
use packet::{Header, op};

/// What we have room for on each connection.
const ROOM: u32 = 256 << 10;
const HOST_CID: u64 = 2;
const FIRST_PORT: u32 = 50_000;
/// Both directions of a connection.
const SHUTDOWN_BOTH: u32 = 3;
/// Time until the host listens.
const START: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(100);

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cid, port, separator, program, rest @ ..] = &arguments[..] else {
        bail!("vhost_guest CID PORT -- PROGRAM ARGUMENTS");
    };
    anyhow::ensure!(separator == "--", "-- stands before the program");
    let (cid, port) = (cid.parse().context("CID")?, port.parse().context("PORT")?);
    let mut guest = Guest::new(Driver::start(cid)?, cid, port);
    guest.wait_for_host()?;
    eprintln!("vhost_guest: the host answers");

    let directory = tempfile::tempdir().context("a temporary directory")?;
    let socket = directory.path().join("vsock");
    let listener = UnixListener::bind(&socket).context("a socket")?;
    listener.set_nonblocking(true).context("a socket")?;
    let child = Command::new(program)
        .args(rest)
        .env("CUDA_SHIM_CONNECT", format!("unix-stream:{}", socket.display()))
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let code = guest.serve(&listener, child)?;
    eprintln!("vhost_guest: {} connections, {} bytes out, {} in", guest.opened, guest.sent, guest.received);
    Ok(ExitCode::from(code))
}

/// A program's connection, and the host's end of it.
struct Stream {
    /// `None` for the first one, which only asks whether anybody is there.
    socket: Option<UnixStream>,
    established: bool,
    /// The program will send nothing more, and the host knows it.
    ended: bool,
    /// From the host, for the program.
    pending: VecDeque<u8>,
    /// What the program has taken; what the host knows of that.
    forwarded: u32,
    told: u32,
    /// What the host has got; what it has taken and has room for.
    sent: u32,
    host_forwarded: u32,
    host_room: u32,
}

impl Stream {
    fn room_at_host(&self) -> usize {
        self.host_room.saturating_sub(self.sent.wrapping_sub(self.host_forwarded)) as usize
    }

    fn wants(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.established && !self.ended && self.room_at_host() > 0 {
            flags |= PollFlags::IN;
        }
        if !self.pending.is_empty() {
            flags |= PollFlags::OUT;
        }
        flags
    }
}

struct Guest {
    driver: Driver,
    cid: u32,
    port: u32,
    next_port: u32,
    streams: BTreeMap<u32, Stream>,
    opened: u64,
    sent: u64,
    received: u64,
}

impl Guest {
    fn new(driver: Driver, cid: u32, port: u32) -> Self {
        Self {
            driver,
            cid,
            port,
            next_port: FIRST_PORT,
            streams: BTreeMap::new(),
            opened: 0,
            sent: 0,
            received: 0,
        }
    }

    /// Until somebody listens, the host's kernel resets connections.
    fn wait_for_host(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            let local = self.open(None)?;
            let retry = Instant::now() + RETRY;
            while Instant::now() < retry {
                wait(&mut [PollFd::from_borrowed_fd(self.driver.interrupt(), PollFlags::IN)], RETRY)?;
                self.take_packets()?;
                if self.streams.get(&local).is_some_and(|stream| stream.established) {
                    self.packet(local, op::RST, SHUTDOWN_BOTH, &[])?;
                    self.streams.remove(&local);
                    return Ok(());
                }
            }
            self.streams.remove(&local);
        }
        bail!("nobody listens at port {} of the host", self.port)
    }

    fn open(&mut self, socket: Option<UnixStream>) -> Result<u32> {
        let local = self.next_port;
        self.next_port += 1;
        let stream = Stream {
            socket,
            established: false,
            ended: false,
            pending: VecDeque::new(),
            forwarded: 0,
            told: 0,
            sent: 0,
            host_forwarded: 0,
            host_room: 0,
        };
        self.streams.insert(local, stream);
        self.packet(local, op::REQUEST, 0, &[])?;
        Ok(local)
    }

    /// Sends a packet of a connection, and with it what we have taken.
    fn packet(&mut self, local: u32, op: u16, flags: u32, payload: &[u8]) -> Result<()> {
        let deadline = Instant::now() + START;
        while !self.driver.can_send()? {
            // The kernel is busy with what it has; it interrupts when it is done.
            wait(&mut [PollFd::from_borrowed_fd(self.driver.interrupt(), PollFlags::IN)], RETRY)?;
            self.driver.acknowledge();
            anyhow::ensure!(Instant::now() < deadline, "the device does not send");
        }
        let forwarded = self.streams.get_mut(&local).map_or(0, |stream| {
            stream.told = stream.forwarded;
            stream.forwarded
        });
        let header = Header {
            source_cid: self.cid.into(),
            destination_cid: HOST_CID,
            source_port: local,
            destination_port: self.port,
            len: payload.len() as u32,
            op,
            flags,
            buffer: ROOM,
            forwarded,
        };
        self.driver.send(&header, payload)
    }

    fn take_packets(&mut self) -> Result<()> {
        self.driver.acknowledge();
        while let Some((header, payload)) = self.driver.receive()? {
            let local = header.destination_port;
            anyhow::ensure!(
                header.source_cid == HOST_CID && header.destination_cid == u64::from(self.cid),
                "a packet for somebody else: {header:?}"
            );
            let Some(stream) = self.streams.get_mut(&local) else {
                // Of a connection that we have given up.
                continue;
            };
            (stream.host_room, stream.host_forwarded) = (header.buffer, header.forwarded);
            match header.op {
                op::RESPONSE => {
                    stream.established = true;
                    self.opened += 1;
                }
                op::RW => {
                    self.received += payload.len() as u64;
                    stream.pending.extend(payload);
                    anyhow::ensure!(stream.pending.len() <= ROOM as usize, "more than we have room for");
                    self.pass_on(local)?;
                }
                op::CREDIT_REQUEST => self.packet(local, op::CREDIT_UPDATE, 0, &[])?,
                op::CREDIT_UPDATE => {}
                op::SHUTDOWN => {
                    self.pass_on(local)?;
                    // The host closes at once: nothing that the program would still send is read.
                    self.packet(local, op::RST, 0, &[])?;
                    self.close(local);
                }
                op::RST => self.close(local),
                other => bail!("operation {other} of the host"),
            }
        }
        Ok(())
    }

    /// Drops a connection; what the program has not taken yet it gets first.
    fn close(&mut self, local: u32) {
        if let Some(stream) = self.streams.remove(&local)
            && let (Some(mut socket), false) = (stream.socket, stream.pending.is_empty())
        {
            let bytes: Vec<u8> = stream.pending.into();
            // It may have gone as well.
            let _ = socket.set_nonblocking(false).and_then(|()| socket.write_all(&bytes));
        }
    }

    /// Gives the program what has come for it, and tells the host of the new room.
    fn pass_on(&mut self, local: u32) -> Result<()> {
        let Some(stream) = self.streams.get_mut(&local) else { return Ok(()) };
        let Some(socket) = &mut stream.socket else { return Ok(()) };
        while !stream.pending.is_empty() {
            match socket.write(stream.pending.as_slices().0) {
                Ok(count) => {
                    stream.pending.drain(..count);
                    stream.forwarded = stream.forwarded.wrapping_add(count as u32);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    // A program that has gone; the end of its socket will be seen.
                    stream.forwarded = stream.forwarded.wrapping_add(stream.pending.len() as u32);
                    stream.pending.clear();
                }
            }
        }
        if stream.forwarded.wrapping_sub(stream.told) >= ROOM / 4 {
            self.packet(local, op::CREDIT_UPDATE, 0, &[])?;
        }
        Ok(())
    }

    /// Sends what the program has written, as far as the host has room.
    fn pass_in(&mut self, local: u32) -> Result<()> {
        let Some(stream) = self.streams.get_mut(&local) else { return Ok(()) };
        let room = stream.room_at_host().min(PAYLOAD_BYTES);
        let Some(socket) = &mut stream.socket else { return Ok(()) };
        if room == 0 || stream.ended {
            return Ok(());
        }
        let mut buffer = vec![0; room];
        match socket.read(&mut buffer) {
            Ok(0) => {
                stream.ended = true;
                self.packet(local, op::SHUTDOWN, SHUTDOWN_BOTH, &[])?;
            }
            Ok(count) => {
                stream.sent = stream.sent.wrapping_add(count as u32);
                self.sent += count as u64;
                self.packet(local, op::RW, 0, &buffer[..count])?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                self.packet(local, op::RST, 0, &[])?;
                self.streams.remove(&local);
            }
        }
        Ok(())
    }

    /// Until the program has ended. Its exit code.
    fn serve(&mut self, listener: &UnixListener, mut child: Child) -> Result<u8> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        let ended = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the program")?;
        loop {
            let ready = self.ready(listener, ended.as_fd())?;
            self.take_packets()?;
            for local in ready {
                self.pass_on(local)?;
                self.pass_in(local)?;
            }
            while let Ok((socket, _)) = listener.accept() {
                socket.set_nonblocking(true).context("a connection")?;
                self.open(Some(socket))?;
            }
            if let Some(status) = child.try_wait().context("cannot wait for the program")? {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return code.with_context(|| format!("the program ended: {status}"));
            }
        }
    }

    /// Waits for anything; connections whose sockets are ready.
    fn ready(&self, listener: &UnixListener, ended: BorrowedFd<'_>) -> Result<Vec<u32>> {
        let mut locals = Vec::new();
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.driver.interrupt(), PollFlags::IN),
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
        ];
        let fixed = fds.len();
        for (local, stream) in &self.streams {
            // One that nothing is wanted of would report its hang-up over and over.
            if let Some(socket) = stream.socket.as_ref().filter(|_| !stream.wants().is_empty()) {
                locals.push(*local);
                fds.push(PollFd::from_borrowed_fd(socket.as_fd(), stream.wants()));
            }
        }
        wait(&mut fds, Duration::from_secs(1))?;
        let ready = locals.iter().zip(&fds[fixed..]).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(local, _)| *local).collect())
    }
}

fn wait(fds: &mut [PollFd<'_>], limit: Duration) -> Result<()> {
    match poll(fds, Some(&Timespec::try_from(limit)?)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("poll"),
    }
}
