//! A worker that gets ready before its program is there.
//!
//! The main thread takes the region, starts the backend and then waits in the daemon's channel until it is handed out; from there on it is a worker like any other. It has
//! seen nothing of a program before, and serves one. Meanwhile one more thread watches the daemon: the driver's start can take long, and a worker that nobody will ever use
//! must not outlive it. That thread has ended when the program's first byte is looked at.

use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use protocol::handshake::RefusalCode;
use protocol::region::Region;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use transport::Connection;

use super::{Begun, Failed, begin_backend, exit};
use crate::backend::NotReady;
use crate::config::Config;
use crate::daemon::ipc::{self, Channel, Ready, Start, ToDaemon, ToWorker, WindowKind};

/// What the process is called while it waits, and then; for people who look at a list of processes.
const WARM: &core::ffi::CStr = c"warm-worker";
const HANDED_OUT: &core::ffi::CStr = c"worker";

/// A program for a worker that is ready.
pub struct Handed {
    pub start: Box<Start>,
    pub connection: Connection,
    pub begun: Begun,
}

/// Gets ready and waits for a program. Ends the process if none comes.
///
/// # Errors
/// The daemon's messages make no sense.
pub fn wait(channel: &Channel, config: &Config) -> anyhow::Result<Handed> {
    name(WARM);
    let guard = Guard::start(channel).context("cannot watch the daemon")?;
    let (region, begun) = get_ready(config)
        .and_then(|(region, begun)| {
            let devices = begun.1.warm_up()?;
            let ready = Ready { region_tag: region.tag(), devices };
            tell(channel, &ToDaemon::Ready(ready));
            Ok((region, begun))
        })
        .unwrap_or_else(|error| give_up(channel, error));
    loop {
        match channel.receive::<ToWorker>().context("cannot read the daemon's message")? {
            Some((ToWorker::Check, None)) => match begun.1.still_warm() {
                Ok(()) => tell(channel, &ToDaemon::StillReady),
                Err(error) => give_up(channel, error),
            },
            Some((ToWorker::Start(start), Some(fd))) => {
                // What the daemon has looked at, too: a program must not get more than it is allowed.
                anyhow::ensure!(
                    start.region_tag == region.tag()
                        && start.config.same_worker(config)
                        && start.window_kind() != WindowKind::Guest,
                    "the program needs another worker than this one"
                );
                begun.0.window.set_shared(start.window_kind() == WindowKind::File);
                guard.end();
                name(HANDED_OUT);
                return Ok(Handed { start, connection: Connection::from_fd(fd), begun });
            }
            Some((ToWorker::Stop, _)) | None => exit::now(),
            // Not printed: it may hold a session's token.
            Some(_) => anyhow::bail!("unexpected message from the daemon to a warm worker"),
        }
    }
}

/// A region that is free here, the first of those that programs propose, and what lives in it.
fn get_ready(config: &Config) -> Result<(Region, Begun), NotReady> {
    for region in Region::candidates() {
        match begin_backend(config, region, WindowKind::File, None) {
            Ok(begun) => return Ok((region, begun)),
            Err(Failed { refused, .. }) if refused.code == RefusalCode::REGION_BUSY => {}
            Err(Failed { refused, error }) => {
                let reason = error.map_or_else(|| refused.to_string(), |error| format!("{error:#}"));
                return Err(NotReady::Failed(reason));
            }
        }
    }
    Err(NotReady::Failed("no region is free in the worker".to_owned()))
}

fn tell(channel: &Channel, message: &ToDaemon) {
    if channel.send(message, None).is_err() {
        // The daemon has gone, or has given this worker up.
        exit::now();
    }
}

fn give_up(channel: &Channel, error: NotReady) -> ! {
    let lasting = matches!(error, NotReady::Unsuitable(_));
    tell(channel, &ToDaemon::NotReady(ipc::NotReady { reason: error.to_string(), lasting }));
    exit::now()
}

fn name(name: &core::ffi::CStr) {
    if let Err(error) = rustix::thread::set_name(name) {
        tracing::debug!(%error, "the process keeps its name");
    }
}

/// The thread that ends the process when the daemon goes.
struct Guard {
    end: OwnedFd,
    thread: JoinHandle<()>,
}

impl Guard {
    fn start(channel: &Channel) -> anyhow::Result<Self> {
        let end = eventfd(0, EventfdFlags::CLOEXEC)?;
        let wake = rustix::io::fcntl_dupfd_cloexec(&end, 3)?;
        let daemon = rustix::io::fcntl_dupfd_cloexec(channel.as_fd(), 3)?;
        let thread = thread::Builder::new().name("guard".into()).spawn(move || watch(&daemon, &wake))?;
        Ok(Self { end, thread })
    }

    fn end(self) {
        let _ = rustix::io::write(&self.end, &1u64.to_ne_bytes());
        let _ = self.thread.join();
    }
}

fn watch(daemon: &OwnedFd, wake: &OwnedFd) {
    loop {
        // Messages are the main thread's; here only the hang-up counts.
        let mut fds = [PollFd::new(wake, PollFlags::IN), PollFd::new(daemon, PollFlags::empty())];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) if !fds[0].revents().is_empty() => return,
            _ => exit::now(),
        }
    }
}
