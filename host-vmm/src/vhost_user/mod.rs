//! vsock without the host kernel: a vhost-user back end for stock QEMU (`vhost-user-vsock-pci`), on hosts that have no vhost_vsock module.
//!
//! QEMU connects to the socket and hands over the guest's memory and the device's rings. A connection of the guest becomes a connected
//! descriptor that the [`Host`] supplies, with the ports of both sides; connections from the host to the guest do not exist. The whole
//! guest is hostile, and so is all that its rings point at. The front end is not: it holds the guest's memory and could do all that the
//! guest can.
//!
//! | module | what it has |
//! |---|---|
//! | `connection` | one connection's credit and ends: a state machine without I/O |
//! | `link` | the host's end of a connection, and bytes that it has not taken yet |
//! | `switch` | all connections, by ports; what goes to the guest next |
//! | `rings`, `chain`, `header` | packets in the guest's memory |
//! | `backend`, `table` | what vhost-user-backend asks for |
//!
//! Threads: one here, which waits for a front end and then for its end; while there is one, two of vhost-user-backend (requests, events).
//! Guest's kicks and the host's ends are events of one epoll instance on one thread, which moves the bytes itself.

mod backend;
mod chain;
mod connection;
#[doc(hidden)]
pub mod fuzz;
mod header;
mod link;
mod rings;
mod switch;
mod table;

#[cfg(test)]
mod tests;

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use vhost::vhost_user::Listener;
use vhost_user_backend::{ShutdownHandle, VhostUserDaemon};
use vm_memory::GuestMemoryAtomic;

use self::backend::Unattached;
use crate::vmm::memory::{GuestRam, Memory};

/// What the back end tells its owner. Called from the back end's threads, which wait for the answer: nothing here may block.
pub trait Host: Send + Sync + 'static {
    /// The guest's memory is known, or is another than before. No connection comes before it.
    fn memory(&self, ram: GuestRam);

    /// The guest connects to `port` of the host from its own `source_port`: below 1024 it is a privileged program or the kernel, as the guest's kernel
    /// says. Gives the host's end, a connected stream socket; or None if nobody listens there, and the guest's connection is refused.
    fn connect(&self, source_port: u32, port: u32) -> Option<OwnedFd>;

    /// The front end has gone, and all connections with it; the socket waits for the next one. Not called when the back end is dropped.
    fn gone(&self);
}

/// Why there is no back end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// CIDs 0 to 2 and 2^32 - 1 have meanings of their own.
    #[error("a guest cannot have CID {0}")]
    Cid(u32),
    /// The socket cannot be had.
    #[error(transparent)]
    Socket(#[from] transport::Error),
    /// A system call failed.
    #[error("{what}: {source}")]
    Os { what: &'static str, source: std::io::Error },
}

impl Error {
    fn os<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Os { what, source: error.into() }
    }
}

/// The back end of one guest at a time. Dropping it ends its threads and connections and removes the socket file.
pub struct VhostUserVsock {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and the owner both have.
struct Shared {
    /// Written when the owner drops the back end, and never read: it stays readable.
    stop: OwnedFd,
    front_end: Mutex<FrontEnd>,
}

/// Whether somebody is connected, or may be.
enum FrontEnd {
    None,
    Connected(ShutdownHandle),
    Stopped,
}

impl VhostUserVsock {
    /// Listens at `socket` (mode 0600) for the front end of the guest with this `cid`.
    ///
    /// # Errors
    /// The CID is no guest's, somebody listens there, or a system call failed.
    pub fn listen(socket: &Path, cid: u32, host: Arc<dyn Host>) -> Result<Self, Error> {
        if !(3..u32::MAX).contains(&cid) {
            return Err(Error::Cid(cid));
        }
        let file = transport::Listener::bind(socket)?;
        let copy = file.as_fd().try_clone_to_owned().map_err(Error::os("cannot copy a descriptor"))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(Error::os("cannot make an eventfd"))?;
        let shared = Arc::new(Shared { stop, front_end: Mutex::new(FrontEnd::None) });
        let mut server = Server {
            cid,
            host,
            shared: Arc::clone(&shared),
            listener: Listener::from(UnixListener::from(copy)),
            file,
        };
        let thread = std::thread::Builder::new()
            .name("vhost-vsock".into())
            .spawn(move || server.run())
            .map_err(Error::os("cannot start a thread"))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for VhostUserVsock {
    fn drop(&mut self) {
        // An eventfd takes one write always.
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let FrontEnd::Connected(handle) = self.shared.set(FrontEnd::Stopped) {
            handle.shutdown();
        }
        if let Some(thread) = self.thread.take() {
            // It has said already if it panicked.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Changes the state, except that stopped it stays; gives the one before.
    fn set(&self, new: FrontEnd) -> FrontEnd {
        let mut state = self.front_end.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, FrontEnd::Stopped) {
            return FrontEnd::Stopped;
        }
        std::mem::replace(&mut state, new)
    }
}

/// The thread that waits for front ends.
struct Server {
    cid: u32,
    host: Arc<dyn Host>,
    shared: Arc<Shared>,
    listener: Listener,
    /// The same socket; removes its file in the end.
    file: transport::Listener,
}

impl Server {
    fn run(&mut self) {
        while self.wait() {
            match self.serve() {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!("vsock of CID {}: {error}", self.cid);
                    // What is missing (descriptors, memory) is not there again at once.
                    self.pause();
                }
            }
        }
    }

    /// Waits for a front end; false when the back end is to end.
    fn wait(&self) -> bool {
        loop {
            let mut ready =
                [PollFd::new(&self.shared.stop, PollFlags::IN), PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) if ready[0].revents().is_empty() => return true,
                Ok(_) => return false,
                Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!("vsock of CID {}: cannot wait for a front end: {error}", self.cid);
                    return false;
                }
            }
        }
    }

    /// Waits a second, or until the back end is to end.
    fn pause(&self) {
        let second = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&self.shared.stop, PollFlags::IN)], Some(&second));
    }

    /// Serves the front end that has connected, until it goes.
    fn serve(&mut self) -> Result<(), Error> {
        let memory = GuestMemoryAtomic::new(Memory::new());
        let unattached = Unattached::new(self.cid, Arc::clone(&self.host), memory.clone())
            .map_err(Error::os("cannot make an eventfd"))?;
        let backend = Arc::clone(&unattached.backend);
        let failed = |what| {
            move |error: vhost_user_backend::Error| Error::Os {
                what,
                source: std::io::Error::other(error.to_string()),
            }
        };
        let mut daemon = VhostUserDaemon::new("vhost-vsock-ctl".into(), Arc::clone(&backend), memory)
            .map_err(failed("cannot start the device"))?;
        // By default the crate has one event thread for all rings.
        if let Err(error) =
            daemon.get_epoll_handlers().iter().try_for_each(|handler| unattached.attach(handler))
        {
            // Its event thread cannot be woken, so it is not to be waited for.
            std::mem::forget(daemon);
            return Err(Error::os("cannot watch a descriptor")(error));
        }
        let outcome = daemon.start(&mut self.listener).map_err(failed("cannot take the front end"));
        if outcome.is_ok() {
            tracing::info!("vsock of CID {}: a front end has connected", self.cid);
            if let Some(handle) = daemon.shutdown_handle()
                && matches!(self.shared.set(FrontEnd::Connected(handle.clone())), FrontEnd::Stopped)
            {
                handle.shutdown();
            }
            match daemon.wait() {
                Ok(()) => tracing::info!("vsock of CID {}: the front end has gone", self.cid),
                Err(error) => tracing::info!("vsock of CID {}: the front end has gone: {error}", self.cid),
            }
        }
        // The crate joins the event thread when the daemon is dropped.
        backend.stop();
        drop(daemon);
        backend.reset();
        if outcome.is_ok() && !matches!(self.shared.set(FrontEnd::None), FrontEnd::Stopped) {
            self.host.gone();
        }
        outcome
    }
}
