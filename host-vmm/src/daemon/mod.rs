//! The daemon: accepts connections, starts a worker process per program, and hands lanes to the worker of their session.
//!
//! Threads: one accepts; one per connection in its handshake (their number is bounded); one per worker reads its messages and reaps it; one looks after the workers that
//! wait for programs ([`pool`]).
//! Locks: `sessions`, `report` and the pool's, never two at a time, none held while waiting for a peer.

pub mod access;
pub mod guest_spec;
pub mod guests;
pub mod ipc;
pub mod pool;
mod vsock_device;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use protocol::handshake::{Capabilities, ConnectionKind, Hello, RefusalCode, Refused};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use transport::handshake::{receive_hello, refuse};
use transport::{Address, Connection, Listener, Peer};

use crate::config::{Backend, Config, Limits};
use crate::stats::Report;
use crate::vhost_user::VhostUserVsock;
use access::{Access, Owner};
use guest_spec::GuestSpec;
use guests::{Claimed, Guest, Guests};
use ipc::{Channel, Start, ToDaemon, ToWorker};
use pool::{Pool, Settings, Wish};

/// What the workers of this build can do with any backend.
const CAPABILITIES: Capabilities = Capabilities::WINDOW_FD
    .union(Capabilities::RINGS)
    .union(Capabilities::STREAM_LANES)
    .union(Capabilities::GUEST_MEMORY)
    .union(Capabilities::DEVICE_OUTPUT)
    .union(Capabilities::PTX)
    .union(Capabilities::WATCHED_COPIES)
    .union(Capabilities::NAMED_EVENTS);

fn capabilities(config: &Config) -> Capabilities {
    match &config.backend {
        Backend::Cuda(cuda) if !cuda.nested => CAPABILITIES.union(Capabilities::MACHINE_CODE),
        _ => CAPABILITIES,
    }
}

/// After this, workers that were asked to stop are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// After this, a worker that has closed its channel but has not ended is killed.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after a failed accept (no descriptors left, mostly), so that the daemon does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One program's worker, as the daemon knows it.
struct Session {
    owner: Owner,
    channel: Channel,
    child: Mutex<Child>,
    /// The program's memory in its machine, where the window is that.
    memory: Option<Claimed>,
}

/// A place where the daemon listens.
struct Endpoint {
    listener: Listener,
    address: Address,
    /// Endpoints of one machine have the same.
    group: usize,
    purpose: Purpose,
}

/// Who connects to an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Programs.
    Programs,
    /// Memory brokers of machines. A unix socket does not tell the port that a connection comes from; then any will do, which whoever has set the daemon up so has
    /// accepted.
    Brokers,
}

/// A connection in its handshake.
#[derive(Clone, Copy)]
struct Caller {
    peer: Peer,
    owner: Owner,
    /// Its socket can carry descriptors, and so share memory.
    passes_descriptors: bool,
}

/// A connection that is not served, and why.
struct Refusal {
    connection: Connection,
    refused: Box<Refused>,
}

impl Refusal {
    fn new(connection: Connection, refused: Refused) -> Self {
        Self { connection, refused: Box::new(refused) }
    }
}

struct Inner {
    config: Config,
    guests: Guests,
    sessions: Mutex<HashMap<[u8; 16], Arc<Session>>>,
    /// Signalled when a session has gone.
    gone: Condvar,
    access: Access,
    pool: Pool,
    /// Whose connections are in their handshakes.
    handshakes: Mutex<Vec<Owner>>,
    stopping: AtomicBool,
    report: Mutex<Report>,
    malformed: AtomicU64,
}

/// A running daemon.
pub struct Daemon {
    inner: Arc<Inner>,
    accept: Option<JoinHandle<()>>,
    wake: Arc<OwnedFd>,
    /// vsock devices of machines.
    devices: Vec<VhostUserVsock>,
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// An address cannot be listened on.
pub fn serve(
    addresses: &[Address],
    guests: &[GuestSpec],
    config: &Config,
    access: Access,
    warm: Settings,
) -> anyhow::Result<()> {
    let signals = crate::runner::signals::Signals::install(true).context("cannot install signal handlers")?;
    let daemon = Daemon::start_with_guests(addresses, guests, config, access, warm)?;
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for signals"),
            Ok(_) if signals.take().is_empty() => {}
            Ok(_) => break,
        }
    }
    let report = daemon.stop();
    if config.timing {
        use std::io::Write as _;
        // Standard error may be closed.
        let _ = std::io::stderr().write_all(report.table().as_bytes());
    }
    tracing::info!("{}", report.summary(config.backend.name()));
    Ok(())
}

impl Daemon {
    /// Listens and serves on threads of this process. `warm`: the workers that wait for programs.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub fn start(
        addresses: &[Address],
        config: &Config,
        access: Access,
        warm: Settings,
    ) -> anyhow::Result<Self> {
        Self::start_with_guests(addresses, &[], config, access, warm)
    }

    /// As [`Daemon::start`], for virtual machines too whose memory is known.
    ///
    /// # Errors
    /// An address cannot be listened on, or a machine's memory cannot be used.
    pub fn start_with_guests(
        addresses: &[Address],
        specs: &[GuestSpec],
        config: &Config,
        access: Access,
        warm: Settings,
    ) -> anyhow::Result<Self> {
        let listen = |address: &Address, group: usize, purpose: Purpose| {
            let listener =
                Listener::listen(address).with_context(|| format!("cannot listen on {address}"))?;
            tracing::info!(%address, "listening");
            anyhow::Ok(Endpoint { listener, address: address.clone(), group, purpose })
        };
        let guests = Guests::default();
        let mut endpoints = Vec::new();
        for (group, address) in addresses.iter().enumerate() {
            endpoints.push(listen(address, group, Purpose::Programs)?);
        }
        for (group, spec) in (addresses.len()..).zip(specs) {
            if let Some(ram) = spec.ram().with_context(|| spec.to_string())? {
                guests.insert(spec.owner(group), ram);
            }
            if let Some(address) = spec.program_address() {
                endpoints.push(listen(&address, group, Purpose::Programs)?);
            }
            // One vsock port does for all machines.
            if let Some(address) = spec.broker_address()
                && !endpoints.iter().any(|endpoint| endpoint.address == address)
            {
                endpoints.push(listen(&address, group, Purpose::Brokers)?);
            }
        }
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("cannot create an event descriptor")?);
        let inner = Arc::new(Inner {
            config: config.clone(),
            guests,
            sessions: Mutex::default(),
            gone: Condvar::new(),
            access,
            pool: Pool::start(warm, config, spawn_worker)?,
            handshakes: Mutex::default(),
            stopping: AtomicBool::new(false),
            report: Mutex::default(),
            malformed: AtomicU64::new(0),
        });
        let mut devices = Vec::new();
        for (group, spec) in (addresses.len()..).zip(specs) {
            if let Some(device) = spec.device() {
                let owner = spec.owner(group);
                devices.push(vsock_device::start(&inner, owner, &device).with_context(|| spec.to_string())?);
                tracing::info!(socket = %device.socket.display(), cid = device.cid, "vsock device");
            }
        }
        let accept = {
            let (inner, wake) = (Arc::clone(&inner), Arc::clone(&wake));
            thread::Builder::new().name("accept".into()).spawn(move || inner.accept(&endpoints, &wake))?
        };
        Ok(Self { inner, accept: Some(accept), wake, devices })
    }

    /// Ends all sessions and returns what they did. Also done, less politely, when dropped.
    pub fn stop(mut self) -> Report {
        self.end();
        Report { broker: self.inner.guests.traffic(), ..std::mem::take(&mut *self.inner.report()) }
    }

    fn end(&mut self) {
        let Some(accept) = self.accept.take() else { return };
        self.devices.clear();
        self.inner.stopping.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        if accept.join().is_err() {
            tracing::error!("the accepting thread panicked");
        }
        let inner = &self.inner;
        inner.pool.stop();
        let mut sessions = inner.sessions();
        for session in sessions.values() {
            // A worker whose program has gone reports by itself.
            let _ = session.channel.send(&ToWorker::Stop, None);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut killed = false;
        while !sessions.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && !killed {
                killed = true;
                for session in sessions.values() {
                    tracing::warn!("a worker does not end; killing it");
                    let _ = session.child.lock().unwrap_or_else(PoisonError::into_inner).kill();
                }
            }
            // After the kill the reaping threads need a moment; the wait is bounded so that a missed signal cannot hang it.
            let wait = if killed { Duration::from_millis(100) } else { left };
            sessions = inner.gone.wait_timeout(sessions, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

impl Inner {
    fn sessions(&self) -> MutexGuard<'_, HashMap<[u8; 16], Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, endpoints: &[Endpoint], wake: &OwnedFd) {
        loop {
            let mut fds: Vec<_> =
                endpoints.iter().map(|endpoint| PollFd::new(&endpoint.listener, PollFlags::IN)).collect();
            fds.push(PollFd::new(wake, PollFlags::IN));
            if let Err(error) = poll(&mut fds, None)
                && error != rustix::io::Errno::INTR
            {
                tracing::error!(%error, "cannot wait for connections");
                thread::sleep(ACCEPT_PAUSE);
            }
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            for (endpoint, fd) in endpoints.iter().zip(&fds) {
                if !fd.revents().contains(PollFlags::IN) {
                    continue;
                }
                match endpoint.listener.accept() {
                    Ok(connection) => self.accepted(connection, endpoint),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        thread::sleep(ACCEPT_PAUSE);
                    }
                }
            }
        }
    }

    fn accepted(self: &Arc<Self>, connection: Connection, endpoint: &Endpoint) {
        let peer = match connection.peer() {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "a connection without credentials");
                return;
            }
        };
        let passes_descriptors = endpoint.address.passes_descriptors();
        let owner = Owner::of(&peer, endpoint.group, passes_descriptors);
        self.admit(connection, Caller { peer, owner, passes_descriptors }, endpoint.purpose);
    }

    fn admit(self: &Arc<Self>, connection: Connection, caller: Caller, purpose: Purpose) {
        let Caller { peer, owner, .. } = caller;
        if purpose == Purpose::Brokers {
            let port = match peer {
                Peer::Machine { port, .. } => port,
                Peer::Process(_) => 0,
            };
            self.guests.accept_module(connection.into_fd(), owner, port);
            return;
        }
        if self.access.limits(owner, &self.config.limits).is_none() {
            tracing::info!(%peer, "connection refused: not allowed; see --allow-cid");
            let text = format_args!("{peer} is not allowed by this daemon; see its --allow-cid");
            refuse(&connection, &Refused::new(RefusalCode::PERMISSION, text));
            return;
        }
        self.begin_handshake(connection, caller);
    }

    fn handshakes(&self) -> MutexGuard<'_, Vec<Owner>> {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place among the handshakes, if one is left: a machine gets a part of them, so that others can come in.
    fn enter_handshake(&self, owner: Owner) -> bool {
        let limit = self.config.limits.handshakes as usize;
        let own_limit = if owner == Owner::Local { limit } else { limit.div_ceil(4) };
        let mut all = self.handshakes();
        let own = all.iter().filter(|other| **other == owner).count();
        let room = all.len() < limit && own < own_limit;
        if room {
            all.push(owner);
        }
        room
    }

    fn leave_handshake(&self, owner: Owner) {
        let mut all = self.handshakes();
        if let Some(place) = all.iter().position(|other| *other == owner) {
            all.swap_remove(place);
        }
    }

    fn begin_handshake(self: &Arc<Self>, connection: Connection, caller: Caller) {
        if !self.enter_handshake(caller.owner) {
            refuse(
                &connection,
                &Refused::new(RefusalCode::BUSY, format_args!("too many connections at once")),
            );
            return;
        }
        let this = Arc::clone(self);
        let started = thread::Builder::new().name("handshake".into()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| this.handshake(connection, caller))).is_err() {
                tracing::error!("a handshake panicked");
            }
            this.leave_handshake(caller.owner);
        });
        if let Err(error) = started {
            self.leave_handshake(caller.owner);
            tracing::warn!(%error, "cannot start a handshake thread");
        }
    }

    fn handshake(self: &Arc<Self>, connection: Connection, caller: Caller) {
        let peer = caller.peer;
        let timeout = Duration::from_millis(self.config.limits.handshake_ms);
        let hello = match receive_hello(&connection, timeout) {
            Ok(hello) => hello,
            Err(error) => {
                if error.is_violation() {
                    let count = self.malformed.fetch_add(1, Ordering::Relaxed) + 1;
                    tracing::warn!(%peer, count, "malformed handshake: {error}");
                } else {
                    tracing::info!(%peer, %error, "a connection ended in its handshake");
                }
                return;
            }
        };
        let refused = match hello.kind {
            ConnectionKind::CONTROL => self.start_session(connection, &hello, &caller),
            ConnectionKind::LANE => self.pass_lane(connection, &hello, caller.owner),
            kind => Err(Refusal::new(
                connection,
                Refused::new(RefusalCode::KIND, format_args!("connection kind {}", kind.0)),
            )),
        };
        if let Err(Refusal { connection, refused }) = refused {
            tracing::info!(%peer, %refused, "connection refused");
            refuse(&connection, &refused);
        }
    }

    /// Hands a lane's connection to the worker of its session.
    fn pass_lane(&self, connection: Connection, hello: &Hello, owner: Owner) -> Result<(), Refusal> {
        // A token that another machine has got hold of opens nothing.
        let session = self.sessions().get(&hello.token.0).filter(|session| session.owner == owner).cloned();
        let Some(session) = session else {
            let refused = Refused::new(RefusalCode::TOKEN, format_args!("no session with this token"));
            return Err(Refusal::new(connection, refused));
        };
        let fd = connection.into_fd();
        session.channel.send(&ToWorker::Lane, Some(&fd)).map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::WouldBlock => RefusalCode::BUSY,
                _ => RefusalCode::TOKEN,
            };
            let refused = Refused::new(code, format_args!("the session takes no lane: {error}"));
            Refusal::new(Connection::from_fd(fd), refused)
        })
    }

    /// Starts a worker and hands it the program's control connection.
    fn start_session(
        self: &Arc<Self>,
        connection: Connection,
        hello: &Hello,
        caller: &Caller,
    ) -> Result<(), Refusal> {
        let versions = protocol::handshake::PREVIOUS..=protocol::handshake::CURRENT;
        let mut ours = capabilities(&self.config);
        if !caller.passes_descriptors {
            ours = ours.without(Capabilities::WINDOW_FD);
        }
        let guest = self.guests.get(caller.owner).filter(|_| hello.cookie != [0; 2]);
        if guest.is_none() {
            ours = ours.without(Capabilities::GUEST_MEMORY);
        }
        let (version, capabilities) = match hello.negotiate(versions, ours) {
            Ok(agreed) => agreed,
            Err(code) => {
                return Err(Refusal::new(connection, Refused::new(code, format_args!("no common version"))));
            }
        };
        let Some(capabilities) = capabilities.choose_lanes() else {
            let refused =
                Refused::new(RefusalCode::KIND, format_args!("no kind of lane that both sides have"));
            return Err(Refusal::new(connection, refused));
        };
        // Looked at when it was accepted.
        let Some(limits) = self.access.limits(caller.owner, &self.config.limits) else {
            return Err(Refusal::new(connection, Refused::new(RefusalCode::PERMISSION, format_args!(""))));
        };
        // Looked at again below; without a process for each of many that are refused.
        if !self.has_room(&self.sessions(), caller.owner, &limits) {
            let refused = Refused::new(RefusalCode::LIMIT, format_args!("no more sessions"));
            return Err(Refusal::new(connection, refused));
        }
        let memory = match guest.filter(|_| capabilities.contains(Capabilities::GUEST_MEMORY)) {
            Some(guest) => match Self::claim(&guest, hello.cookie) {
                Ok(claimed) => Some(claimed),
                Err(refused) => return Err(Refusal { connection, refused }),
            },
            None => None,
        };
        let mut token = [0; 16];
        if rustix::rand::getrandom(&mut token, rustix::rand::GetRandomFlags::empty()) != Ok(token.len()) {
            return Err(Refusal::new(
                connection,
                Refused::new(RefusalCode::INTERNAL, format_args!("no random numbers")),
            ));
        }
        let config = Config { limits: limits.clone(), ..self.config.clone() };
        let wish = Wish {
            config: &config,
            region_tag: hello.region_tag,
            session: capabilities,
            hello: hello.capabilities,
        };
        // A warm worker has a window already, which is no memory of a machine.
        let warm = memory.is_none().then(|| self.pool.take(&wish)).flatten();
        let (channel, child) = match warm.map_or_else(|| spawn_worker(&self.config), Ok) {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!(%error, "cannot start a worker");
                let refused =
                    Refused::new(RefusalCode::INTERNAL, format_args!("cannot start a worker: {error}"));
                return Err(Refusal::new(connection, refused));
            }
        };
        let (memory, files) = memory.unzip();
        let files: Vec<OwnedFd> = files.unwrap_or_default();
        let session = Arc::new(Session { owner: caller.owner, channel, child: Mutex::new(child), memory });
        let admitted = {
            let mut sessions = self.sessions();
            // Checked under the lock that `end` takes, so that no session starts behind its back.
            let admitted =
                self.has_room(&sessions, caller.owner, &limits) && !self.stopping.load(Ordering::Acquire);
            if admitted {
                sessions.insert(token, Arc::clone(&session));
            }
            admitted
        };
        if !admitted {
            let mut child = session.child.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = child.kill();
            let _ = child.wait();
            return Err(Refusal::new(
                connection,
                Refused::new(RefusalCode::LIMIT, format_args!("no more sessions")),
            ));
        }
        let this = Arc::clone(self);
        let reader = Arc::clone(&session);
        if let Err(error) =
            thread::Builder::new().name("worker".into()).spawn(move || this.watch(token, &reader))
        {
            tracing::error!(%error, "cannot start a thread for a worker");
            self.forget(token, &session);
            return Err(Refusal::new(
                connection,
                Refused::new(RefusalCode::INTERNAL, format_args!("out of threads")),
            ));
        }
        let start = Start {
            config,
            token,
            version,
            capabilities: capabilities.0,
            region_tag: hello.region_tag,
            pid: match caller.peer {
                Peer::Process(peer) => peer.pid,
                Peer::Machine { .. } => 0,
            },
            memory_files: files.len(),
        };
        let fd = connection.into_fd();
        let send = || {
            session.channel.send(&ToWorker::Start(Box::new(start)), Some(&fd))?;
            files.iter().try_for_each(|file| session.channel.send(&ToWorker::Memory, Some(file)))
        };
        send().map_err(|error| {
            // The worker's end is noticed by its watching thread.
            let refused = Refused::new(RefusalCode::INTERNAL, format_args!("the worker has ended: {error}"));
            Refusal::new(Connection::from_fd(fd), refused)
        })
    }

    /// The memory of a program in a virtual machine, and the machine's files for its worker.
    fn claim(guest: &Arc<Guest>, cookie: [u64; 2]) -> Result<(Claimed, Vec<OwnedFd>), Box<Refused>> {
        let claimed = guest.claim(cookie).ok_or_else(|| {
            Refused::new(
                RefusalCode::TOKEN,
                format_args!("the memory broker has no session with this cookie"),
            )
        })?;
        let files = claimed.files_for_worker().map_err(|error| {
            tracing::error!(%error, "the machine's memory cannot be given to a worker");
            let text = format_args!("the machine's memory cannot be used: {error}");
            Box::new(Refused::new(RefusalCode::INTERNAL, text))
        })?;
        Ok((claimed, files))
    }

    /// Whether one more session may begin: of all, and of this owner.
    fn has_room(&self, sessions: &HashMap<[u8; 16], Arc<Session>>, owner: Owner, limits: &Limits) -> bool {
        let own = sessions.values().filter(|session| session.owner == owner).count();
        sessions.len() < self.config.limits.sessions as usize && own < limits.sessions as usize
    }

    /// Reads a worker's messages until it ends.
    fn watch(&self, token: [u8; 16], session: &Session) {
        let mut welcomed = false;
        let mut report = None;
        loop {
            match session.channel.receive::<ToDaemon>() {
                Ok(Some((ToDaemon::Welcomed, _))) => welcomed = true,
                Ok(Some((ToDaemon::Region(region), _))) => {
                    let runs = session.memory.as_ref().and_then(|memory| memory.region(region));
                    if let Err(error) = session.channel.send(&ToWorker::Region(region), runs.as_ref()) {
                        tracing::error!(%error, "a worker cannot be told where a region is");
                    }
                }
                Ok(Some((ToDaemon::RegionDone(region), _))) => {
                    if let Some(memory) = &session.memory {
                        memory.done(region);
                    }
                }
                Ok(Some((ToDaemon::Report(sums), _))) => report = Some(sums),
                Ok(Some((ToDaemon::Malformed(what), _))) => {
                    let count = self.malformed.fetch_add(1, Ordering::Relaxed) + 1;
                    tracing::warn!(count, "session closed: malformed request: {what}");
                }
                Ok(Some((ToDaemon::Ready(_) | ToDaemon::NotReady(_) | ToDaemon::StillReady, _))) => {
                    tracing::error!("a worker with a program says what one without it would");
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "a worker's message cannot be read");
                    break;
                }
            }
        }
        if welcomed {
            // A worker that died without a report still was a session.
            self.report().add(report.unwrap_or(Report { sessions: 1, ..Report::default() }));
        }
        self.forget(token, session);
    }

    /// Reaps a worker and takes its session out.
    fn forget(&self, token: [u8; 16], session: &Session) {
        let status = {
            let mut child = session.child.lock().unwrap_or_else(PoisonError::into_inner);
            // Its channel is closed: it is ending, or has to.
            if !ends_within(&child, END_TIMEOUT) {
                let _ = child.kill();
            }
            child.wait()
        };
        match status {
            Ok(status) if !status.success() => {
                tracing::error!(%status, "a worker failed; its program sees errors")
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot reap a worker"),
        }
        // The process is gone, and with it all that it had mapped.
        if let Some(memory) = &session.memory {
            memory.all_done();
        }
        self.sessions().remove(&token);
        self.gone.notify_all();
    }
}

/// Does the process end within this time? It is not reaped.
fn ends_within(child: &Child, limit: Duration) -> bool {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return false };
    let timeout = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)), Ok(1..))
}

/// Starts a worker: this program again, with the channel as standard input, in a process group of its own so that a terminal's Ctrl-C
/// does not reach it.
fn spawn_worker(config: &Config) -> anyhow::Result<(Channel, Child)> {
    use std::os::unix::process::CommandExt as _;
    let (channel, theirs) = Channel::pair().context("cannot create a socket pair")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("host-vmm").arg("worker").stdin(Stdio::from(theirs)).stdout(Stdio::null()).process_group(0);
    if let Some(log) = &config.log {
        command.args(["--log", log]);
    }
    let child = command.spawn().context("cannot run /proc/self/exe")?;
    Ok((channel, child))
}
