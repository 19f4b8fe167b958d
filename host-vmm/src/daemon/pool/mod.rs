//! Warm workers: processes whose backend has been started before a program asks for it.
//!
//! One thread makes them, reads what they say and sees them end; threads of handshakes take them. A worker belongs to the pool from its start until it is taken, and to its
//! session from then on; it never comes back. What is decided here, and when, is in [`plan`].
//!
//! The one lock is held for look-ups and never while a process is started or waited for. Whoever has taken a worker out is alone with its channel; the pool's thread then
//! looks at a duplicate of it at most, and reads nothing.

mod plan;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::ipc::{Channel, NotReady, Ready, ToDaemon, ToWorker};
use crate::config::Config;
pub use plan::{Misfit, Settings, Wish};
use plan::{Plan, Present, Step};

/// Time to get ready; a driver that has slept takes seconds for each device.
const WARM_UP: Duration = Duration::from_secs(60);
/// How long a program waits for a worker that is getting ready: it would take as long for another one to get as far.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for a worker to say that it is still well.
const CHECK: Duration = Duration::from_secs(1);
/// How often killed workers are looked at.
const REAP: Duration = Duration::from_millis(20);
/// How long the daemon's end waits for them.
const END: Duration = Duration::from_secs(2);

/// A worker in the pool.
struct Waiting {
    number: u64,
    channel: Channel,
    /// The channel again, for the pool's thread to wait on.
    signals: Arc<OwnedFd>,
    child: Child,
    made: Instant,
    ready: Option<(Ready, Instant)>,
}

struct State {
    plan: Plan,
    waiting: Vec<Waiting>,
    /// Killed, and to be reaped.
    ending: Vec<Child>,
    /// Programs that wait for a worker to get ready.
    patient: usize,
    stopping: bool,
}

struct Shared {
    config: Config,
    make: Make,
    state: Mutex<State>,
    /// A worker has got ready, or will not.
    changed: Condvar,
    wake: OwnedFd,
}

/// Starts a process.
type Make = fn(&Config) -> anyhow::Result<(Channel, Child)>;

/// The warm workers of a daemon.
pub struct Pool {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// Begins to make workers, with the daemon's own limits.
    ///
    /// # Errors
    /// No descriptors or threads are left.
    pub fn start(settings: Settings, config: &Config, make: Make) -> anyhow::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC).context("cannot create an event descriptor")?;
        let state = State {
            plan: Plan::new(settings),
            waiting: Vec::new(),
            ending: Vec::new(),
            patient: 0,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            config: config.clone(),
            make,
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake,
        });
        let thread = (settings.workers > 0).then(|| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("pool".into()).spawn(move || shared.run())
        });
        let thread = thread.transpose().context("cannot start a thread")?;
        Ok(Self { shared, thread: Mutex::new(thread) })
    }

    /// A worker for this program, which has said just now that it is well. None: make one.
    pub fn take(&self, wish: &Wish<'_>) -> Option<(Channel, Child)> {
        let shared = &*self.shared;
        if let Err(misfit) = wish.for_any(&shared.config) {
            tracing::debug!(?misfit, "no warm worker for this program");
            return None;
        }
        while let Some(worker) = shared.next(wish) {
            let result = still_ready(&worker.channel);
            let mut state = shared.lock();
            match result {
                Ok(()) => {
                    state.plan.handed_out(Instant::now());
                    drop(state);
                    shared.wake();
                    return Some((worker.channel, worker.child));
                }
                Err(reason) => {
                    state.end(worker, &reason, false);
                    drop(state);
                    shared.wake();
                }
            }
        }
        None
    }

    /// Ends all workers that wait. None is handed out after this.
    pub fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        self.shared.wake();
        if thread.join().is_err() {
            tracing::error!("the thread of warm workers panicked");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks a worker that nobody else talks to.
fn still_ready(channel: &Channel) -> Result<(), String> {
    channel.send(&ToWorker::Check, None).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + CHECK;
    loop {
        match poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&timespec(deadline))) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return Err("it does not answer".to_owned()),
            Err(error) => return Err(error.to_string()),
            Ok(_) => break,
        }
    }
    match channel.receive::<ToDaemon>() {
        Ok(Some((ToDaemon::StillReady, _))) => Ok(()),
        Ok(Some((ToDaemon::NotReady(NotReady { reason, .. }), _))) => Err(reason),
        Ok(Some(_)) => Err("it says something else".to_owned()),
        Ok(None) => Err("it has ended".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn timespec(deadline: Instant) -> Timespec {
    // Rounded up, so that the moment has come when the wait is over.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
}

impl State {
    fn present(&self) -> Present {
        let ready = self.waiting.iter().filter(|worker| worker.ready.is_some()).count();
        Present { warming: self.waiting.len() - ready, ready, ending: self.ending.len() }
    }

    /// A worker is of no use any more. `lasting`: neither would be the next one.
    fn end(&mut self, worker: Waiting, reason: &str, lasting: bool) {
        let Waiting { mut child, ready, .. } = worker;
        // It may have ended by itself.
        let _ = child.kill();
        self.ending.push(child);
        if lasting {
            self.plan.give_up();
            tracing::warn!("no warm workers on this host: {reason}");
        } else {
            let pause = self.plan.failed(Instant::now(), ready.map(|(_, since)| since.elapsed()));
            tracing::warn!(?pause, "a warm worker is lost: {reason}");
        }
    }

    fn reap(&mut self) {
        self.ending.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes a worker out that fits; waits for one that is getting ready, unless others wait for it already.
    fn next(&self, wish: &Wish<'_>) -> Option<Waiting> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        let mut counted = false;
        let found = loop {
            if state.stopping {
                break None;
            }
            let fits =
                |worker: &Waiting| match worker.ready.map(|(ready, _)| wish.for_this(&self.config, ready)) {
                    Some(Err(misfit)) => {
                        tracing::debug!(?misfit, "a warm worker will not do for this program");
                        false
                    }
                    Some(Ok(())) => true,
                    None => false,
                };
            // The one that has waited for longest.
            if let Some(place) = state.waiting.iter().position(fits) {
                break Some(state.waiting.remove(place));
            }
            let others = state.patient - usize::from(counted);
            let left = deadline.saturating_duration_since(Instant::now());
            if state.present().warming <= others || left.is_zero() {
                break None;
            }
            if !counted {
                state.patient += 1;
                counted = true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.patient -= usize::from(counted);
        found
    }

    /// The pool's thread.
    fn run(&self) {
        loop {
            let mut state = self.lock();
            if state.stopping {
                break;
            }
            state.reap();
            let now = Instant::now();
            self.expire(&mut state, now);
            let next = match state.plan.next(now, state.present()) {
                Step::Make => {
                    drop(state);
                    self.make();
                    continue;
                }
                Step::At(moment) => Some(moment),
                Step::Rest => None,
            };
            let expiry = state
                .waiting
                .iter()
                .filter(|worker| worker.ready.is_none())
                .map(|worker| worker.made + WARM_UP);
            let reap = (!state.ending.is_empty()).then(|| now + REAP);
            let deadline = next.into_iter().chain(reap).chain(expiry).min();
            let watched: Vec<(u64, Arc<OwnedFd>)> =
                state.waiting.iter().map(|worker| (worker.number, Arc::clone(&worker.signals))).collect();
            drop(state);
            self.wait(&watched, deadline);
        }
        self.end_all();
    }

    /// Waits until a worker has something to say, or has ended, or somebody wakes this thread.
    fn wait(&self, watched: &[(u64, Arc<OwnedFd>)], deadline: Option<Instant>) {
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(watched.iter().map(|(_, fd)| PollFd::new(&**fd, PollFlags::IN)));
        match poll(&mut fds, deadline.map(timespec).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for warm workers");
                thread::sleep(REAP);
                return;
            }
        }
        if !fds[0].revents().is_empty() {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        for ((number, _), fd) in watched.iter().zip(&fds[1..]) {
            if !fd.revents().is_empty() {
                self.hear(*number);
            }
        }
    }

    /// A worker says something, or has ended.
    fn hear(&self, number: u64) {
        let mut state = self.lock();
        // Taken meanwhile: what it says is not for the pool.
        let Some(place) = state.waiting.iter().position(|worker| worker.number == number) else { return };
        let (reason, lasting) = match state.waiting[place].channel.receive::<ToDaemon>() {
            Ok(Some((ToDaemon::Ready(ready), _))) if state.waiting[place].ready.is_none() => {
                let worker = &mut state.waiting[place];
                tracing::debug!(pid = worker.child.id(), ?ready, took = ?worker.made.elapsed(), "a worker is warm");
                worker.ready = Some((ready, Instant::now()));
                self.changed.notify_all();
                return;
            }
            Ok(Some((ToDaemon::NotReady(NotReady { reason, lasting }), _))) => (reason, lasting),
            Ok(Some(_)) => ("it says something unexpected".to_owned(), false),
            Ok(None) => ("it has ended".to_owned(), false),
            Err(error) => (format!("its message cannot be read: {error}"), false),
        };
        let worker = state.waiting.remove(place);
        state.end(worker, &reason, lasting);
        // Who waits for it makes one of his own.
        self.changed.notify_all();
    }

    /// Ends workers that do not get ready.
    fn expire(&self, state: &mut State, now: Instant) {
        let late = |worker: &Waiting| worker.ready.is_none() && now >= worker.made + WARM_UP;
        while let Some(place) = state.waiting.iter().position(late) {
            let worker = state.waiting.remove(place);
            state.end(worker, "it does not get ready", false);
            self.changed.notify_all();
        }
    }

    fn make(&self) {
        let made = self.try_make();
        let mut state = self.lock();
        match made {
            Ok(worker) => state.waiting.push(worker),
            Err(error) => {
                let pause = state.plan.failed(Instant::now(), None);
                tracing::warn!(?pause, "cannot make a warm worker: {error:#}");
            }
        }
    }

    fn try_make(&self) -> anyhow::Result<Waiting> {
        let (channel, mut child) = (self.make)(&self.config)?;
        let told = (|| -> io::Result<_> {
            let signals = Arc::new(rustix::io::fcntl_dupfd_cloexec(channel.as_fd(), 3)?);
            channel.send(&ToWorker::Warm(Box::new(self.config.clone())), None)?;
            Ok(signals)
        })();
        match told {
            Ok(signals) => {
                let number = u64::from(child.id());
                Ok(Waiting { number, channel, signals, child, made: Instant::now(), ready: None })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error).context("cannot talk to a new worker")
            }
        }
    }

    fn end_all(&self) {
        let mut state = self.lock();
        let mut left: Vec<Child> = std::mem::take(&mut state.ending);
        left.extend(state.waiting.drain(..).map(|worker| worker.child));
        drop(state);
        for child in &mut left {
            let _ = child.kill();
        }
        let deadline = Instant::now() + END;
        while !left.is_empty() && Instant::now() < deadline {
            left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            if !left.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        if !left.is_empty() {
            tracing::warn!(workers = left.len(), "warm workers do not end");
        }
    }
}
