//! The daemon: accepts connections, starts a worker process per program, and hands lanes to the worker of their session.
//!
//! Threads: one accepts; one per connection in its handshake (their number is bounded); one per worker reads its messages and reaps it.
//! Locks: `sessions` and `report`, never both at a time, neither held while waiting for a peer.

pub mod ipc;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use protocol::handshake::{Capabilities, ConnectionKind, Hello, RefusalCode, Refused};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use transport::handshake::{receive_hello, refuse};
use transport::{Address, Connection, Listener};

use crate::config::{Backend, Config};
use crate::stats::Report;
use ipc::{Channel, Start, ToDaemon, ToWorker};

/// What the workers of this build can do with any backend.
const CAPABILITIES: Capabilities = Capabilities::WINDOW_FD
    .union(Capabilities::RINGS)
    .union(Capabilities::DEVICE_OUTPUT)
    .union(Capabilities::PTX);

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
    channel: Channel,
    child: Mutex<Child>,
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
    sessions: Mutex<HashMap<[u8; 16], Arc<Session>>>,
    /// Signalled when a session has gone.
    gone: Condvar,
    handshakes: AtomicU32,
    stopping: AtomicBool,
    report: Mutex<Report>,
    malformed: AtomicU64,
}

/// A running daemon.
pub struct Daemon {
    inner: Arc<Inner>,
    accept: Option<JoinHandle<()>>,
    wake: Arc<OwnedFd>,
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(address: &Address, config: &Config) -> anyhow::Result<()> {
    let signals = crate::runner::signals::Signals::install(true).context("cannot install signal handlers")?;
    let daemon = Daemon::start(address, config)?;
    tracing::info!(%address, "listening");
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for signals"),
            Ok(_) if signals.take().is_empty() => {}
            Ok(_) => break,
        }
    }
    let report = daemon.stop();
    tracing::info!("{}", report.summary(config.backend.name()));
    Ok(())
}

impl Daemon {
    /// Listens and serves on threads of this process.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(address: &Address, config: &Config) -> anyhow::Result<Self> {
        let path: &Path = match address {
            Address::Unix(path) => path,
            other => anyhow::bail!("cannot listen on {other} yet; use unix:PATH"),
        };
        let listener = Listener::bind(path).with_context(|| format!("cannot listen on {address}"))?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("cannot create an event descriptor")?);
        let inner = Arc::new(Inner {
            config: config.clone(),
            sessions: Mutex::default(),
            gone: Condvar::new(),
            handshakes: AtomicU32::new(0),
            stopping: AtomicBool::new(false),
            report: Mutex::default(),
            malformed: AtomicU64::new(0),
        });
        let accept = {
            let (inner, wake) = (Arc::clone(&inner), Arc::clone(&wake));
            thread::Builder::new().name("accept".into()).spawn(move || inner.accept(&listener, &wake))?
        };
        Ok(Self { inner, accept: Some(accept), wake })
    }

    /// Ends all sessions and returns what they did. Also done, less politely, when dropped.
    pub fn stop(mut self) -> Report {
        self.end();
        std::mem::take(&mut *self.inner.report())
    }

    fn end(&mut self) {
        let Some(accept) = self.accept.take() else { return };
        self.inner.stopping.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        if accept.join().is_err() {
            tracing::error!("the accepting thread panicked");
        }
        let inner = &self.inner;
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

    fn accept(self: &Arc<Self>, listener: &Listener, wake: &OwnedFd) {
        loop {
            let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
            if let Err(error) = poll(&mut fds, None)
                && error != rustix::io::Errno::INTR
            {
                tracing::error!(%error, "cannot wait for connections");
                thread::sleep(ACCEPT_PAUSE);
            }
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            if !fds[0].revents().contains(PollFlags::IN) {
                continue;
            }
            match listener.accept() {
                Ok(connection) => self.begin_handshake(connection),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn begin_handshake(self: &Arc<Self>, connection: Connection) {
        if self.handshakes.fetch_add(1, Ordering::AcqRel) >= self.config.limits.handshakes {
            self.handshakes.fetch_sub(1, Ordering::AcqRel);
            refuse(
                &connection,
                &Refused::new(RefusalCode::BUSY, format_args!("too many connections at once")),
            );
            return;
        }
        let this = Arc::clone(self);
        let started = thread::Builder::new().name("handshake".into()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| this.handshake(connection))).is_err() {
                tracing::error!("a handshake panicked");
            }
            this.handshakes.fetch_sub(1, Ordering::AcqRel);
        });
        if let Err(error) = started {
            self.handshakes.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(%error, "cannot start a handshake thread");
        }
    }

    fn handshake(self: &Arc<Self>, connection: Connection) {
        let peer = match connection.credentials() {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "a connection without credentials");
                return;
            }
        };
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
            ConnectionKind::CONTROL => self.start_session(connection, &hello, peer.pid),
            ConnectionKind::LANE => self.pass_lane(connection, &hello),
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
    fn pass_lane(&self, connection: Connection, hello: &Hello) -> Result<(), Refusal> {
        let session = self.sessions().get(&hello.token.0).cloned();
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
        pid: u32,
    ) -> Result<(), Refusal> {
        let versions = protocol::handshake::PREVIOUS..=protocol::handshake::CURRENT;
        let (version, capabilities) = match hello.negotiate(versions, capabilities(&self.config)) {
            Ok(agreed) => agreed,
            Err(code) => {
                return Err(Refusal::new(connection, Refused::new(code, format_args!("no common version"))));
            }
        };
        // Looked at again below; without a process for each of many that are refused.
        if self.sessions().len() >= self.config.limits.sessions as usize {
            let refused = Refused::new(RefusalCode::LIMIT, format_args!("no more sessions"));
            return Err(Refusal::new(connection, refused));
        }
        let mut token = [0; 16];
        if rustix::rand::getrandom(&mut token, rustix::rand::GetRandomFlags::empty()) != Ok(token.len()) {
            return Err(Refusal::new(
                connection,
                Refused::new(RefusalCode::INTERNAL, format_args!("no random numbers")),
            ));
        }
        let (channel, child) = match spawn_worker(&self.config) {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!(%error, "cannot start a worker");
                let refused =
                    Refused::new(RefusalCode::INTERNAL, format_args!("cannot start a worker: {error}"));
                return Err(Refusal::new(connection, refused));
            }
        };
        let session = Arc::new(Session { channel, child: Mutex::new(child) });
        let admitted = {
            let mut sessions = self.sessions();
            // Checked under the lock that `end` takes, so that no session starts behind its back.
            let admitted = sessions.len() < self.config.limits.sessions as usize
                && !self.stopping.load(Ordering::Acquire);
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
            config: self.config.clone(),
            token,
            version,
            capabilities: capabilities.0,
            region_tag: hello.region_tag,
            pid,
        };
        let fd = connection.into_fd();
        session.channel.send(&ToWorker::Start(Box::new(start)), Some(&fd)).map_err(|error| {
            // The worker's end is noticed by its watching thread.
            let refused = Refused::new(RefusalCode::INTERNAL, format_args!("the worker has ended: {error}"));
            Refusal::new(Connection::from_fd(fd), refused)
        })
    }

    /// Reads a worker's messages until it ends.
    fn watch(&self, token: [u8; 16], session: &Session) {
        let mut welcomed = false;
        let mut report = None;
        loop {
            match session.channel.receive::<ToDaemon>() {
                Ok(Some((ToDaemon::Welcomed, _))) => welcomed = true,
                Ok(Some((ToDaemon::Report(sums), _))) => report = Some(sums),
                Ok(Some((ToDaemon::Malformed(what), _))) => {
                    let count = self.malformed.fetch_add(1, Ordering::Relaxed) + 1;
                    tracing::warn!(count, "session closed: malformed request: {what}");
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
