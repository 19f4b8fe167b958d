//! Virtual machines whose memory the daemon knows: their brokers' connections, and the regions that workers use.
//!
//! Threads: two per connection of a broker module, one reads and one writes; a module that does not read ends its own connection only. The broker's
//! table has a lock of its own ([`crate::broker`]); those here are leaves and are not held while a peer is waited for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};
use rustix::net::{Shutdown, shutdown};

use super::access::Owner;
use crate::broker::{Broker, GuestSession, Limits, RegionUse};
use crate::vmm::memory::GuestRam;
use crate::worker::guest_memory::Run;

/// How long workers of a daemon that is gone may take to end.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(10);

/// A machine whose memory is known.
pub struct Guest {
    broker: Broker,
    ram: GuestRam,
    files: Vec<Arc<File>>,
    output: Arc<Output>,
    /// Whether workers of another daemon may still use the memory.
    fresh: Mutex<bool>,
    /// Bytes to and from the module.
    traffic: Arc<AtomicU64>,
}

/// Wakes whoever writes to the module.
#[derive(Default)]
struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Default)]
struct OutputState {
    pending: bool,
    /// Counts connections: the writer of an old one ends.
    connection: u64,
    open: bool,
}

impl Output {
    fn update(&self, change: impl FnOnce(&mut OutputState)) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.changed.notify_all();
        state.connection
    }

    /// Waits for something to write on this connection; false when it is over.
    fn wait(&self, connection: u64) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |state: &OutputState| !state.open || state.connection != connection;
        let mut state = self
            .changed
            .wait_while(state, |state| !state.pending && !over(state))
            .unwrap_or_else(PoisonError::into_inner);
        state.pending = false;
        !over(&state)
    }
}

impl Guest {
    /// A machine with this memory.
    fn new(ram: GuestRam, traffic: Arc<AtomicU64>) -> Self {
        let mut files: Vec<Arc<File>> = Vec::new();
        for region in &ram.regions {
            if !files.iter().any(|file| Arc::ptr_eq(file, &region.file)) {
                files.push(Arc::clone(&region.file));
            }
        }
        let output = Arc::<Output>::default();
        let wake = Arc::clone(&output);
        let broker = Broker::new(
            ram.clone(),
            Limits::default(),
            Box::new(move || {
                wake.update(|state| state.pending = true);
            }),
        );
        Self { broker, ram, files, output, fresh: Mutex::new(true), traffic }
    }

    /// Whether it is the same memory.
    pub fn has(&self, ram: &GuestRam) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let id = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        self.ram.regions.len() == ram.regions.len()
            && self.ram.regions.iter().zip(&ram.regions).all(|(a, b)| {
                (a.gpa, a.len_bytes, a.offset_bytes) == (b.gpa, b.len_bytes, b.offset_bytes)
                    && id(&a.file) == id(&b.file)
            })
    }

    /// Serves a connection of the machine's broker module until its end. The first one waits until no worker of another daemon has the machine's memory.
    fn serve_module(&self, socket: OwnedFd, source_port: u32) -> anyhow::Result<()> {
        {
            let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            if *fresh {
                wait_for_predecessors(&self.files, PREDECESSOR_TIMEOUT)?;
                *fresh = false;
            }
        }
        // Any stream socket will do: what is used of the type is reading and writing.
        let mut stream = UnixStream::from(socket);
        let mut connection = match self.broker.connect(source_port) {
            Ok(connection) => connection,
            Err(refusal) => {
                let _ = stream.write_all(&refusal.encode());
                return Err(refusal.into());
            }
        };
        let number = self.output.update(|state| {
            state.connection += 1;
            (state.open, state.pending) = (true, false);
        });
        let mut writer = stream.try_clone().context("the connection cannot be duplicated")?;
        let (broker, output) = (self.broker.clone(), Arc::clone(&self.output));
        let traffic = Arc::clone(&self.traffic);
        let writing = thread::Builder::new().name("broker-out".into()).spawn(move || {
            while output.wait(number) {
                let bytes = broker.take_output();
                traffic.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if writer.write_all(&bytes).is_err() {
                    let _ = shutdown(&writer, Shutdown::Both);
                    return;
                }
            }
        })?;
        let mut buffer = vec![0; 32 << 10];
        let result = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(len) => {
                    self.traffic.fetch_add(len as u64, Ordering::Relaxed);
                    if let Err(error) = connection.receive(&buffer[..len]) {
                        break Err(error.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        let _ = shutdown(&stream, Shutdown::Both);
        self.output.update(|state| state.open = false);
        let _ = writing.join();
        drop(connection);
        result
    }

    /// The program's session with the module, if this is its cookie.
    pub fn claim(self: &Arc<Self>, cookie: [u64; 2]) -> Option<Claimed> {
        let session = self.broker.claim(cookie)?;
        Some(Claimed { guest: Arc::clone(self), session, uses: Mutex::default() })
    }
}

/// Waits until nobody has the lock that workers hold on the files of a machine (see [`Claimed::files_for_worker`]), and takes part in it.
fn wait_for_predecessors(files: &[Arc<File>], timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    for file in files {
        while let Err(errno) = flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            anyhow::ensure!(
                errno == rustix::io::Errno::WOULDBLOCK,
                "cannot lock the machine's memory: {errno}"
            );
            anyhow::ensure!(Instant::now() < deadline, "another daemon's workers use the machine's memory");
            thread::sleep(Duration::from_millis(20));
        }
        flock(file.as_fd(), FlockOperation::LockShared).context("cannot lock the machine's memory")?;
    }
    Ok(())
}

/// A program's session with its machine's broker, and the regions that its worker uses.
pub struct Claimed {
    guest: Arc<Guest>,
    session: GuestSession,
    uses: Mutex<HashMap<u64, RegionUse>>,
}

impl Claimed {
    /// The machine's memory, for the worker: descriptors of their own, with a shared lock that lasts as long as the worker has them. It tells a later daemon
    /// that the memory is in use, whatever has become of this one.
    ///
    /// # Errors
    /// A file cannot be opened again.
    pub fn files_for_worker(&self) -> io::Result<Vec<OwnedFd>> {
        use std::os::fd::AsRawFd as _;
        let open = |file: &Arc<File>| {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let own = File::options().read(true).write(true).open(path)?;
            flock(&own, FlockOperation::NonBlockingLockShared)?;
            Ok(OwnedFd::from(own))
        };
        self.guest.files.iter().map(open).collect()
    }

    /// Begins the worker's use of a region: where it lies, as a file of [runs](Run). `None` if the session does not have it.
    pub fn region(&self, id: u64) -> Option<OwnedFd> {
        let region = self
            .session
            .region(id)
            .map_err(|error| tracing::info!(%error, "a region that the program has named"))
            .ok()?;
        let runs = self
            .runs(&region)
            .map_err(|error| tracing::error!(%error, "the worker cannot be told where a region is"))
            .ok()?;
        let before = self.uses().insert(id, region);
        // Dropped outside of the lock: it may tell the module.
        drop(before);
        Some(runs)
    }

    fn runs(&self, region: &RegionUse) -> io::Result<OwnedFd> {
        use std::io::Seek as _;
        let pieces = region.pieces(&self.guest.ram, 0, region.len_bytes()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(pieces.len() * Run::LEN);
        for piece in pieces {
            let file = self.guest.files.iter().position(|file| Arc::ptr_eq(file, &piece.file));
            let file = file.ok_or_else(|| io::Error::other("a region outside of the machine's memory"))?;
            let run = Run { file, offset: piece.file_offset_bytes, len: piece.len_bytes };
            bytes.extend_from_slice(&run.encode());
        }
        let mut file = File::from(memfd_create("region", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// The worker has unmapped it.
    pub fn done(&self, id: u64) {
        let region = self.uses().remove(&id);
        drop(region);
    }

    /// The worker has ended.
    pub fn all_done(&self) {
        let all = std::mem::take(&mut *self.uses());
        drop(all);
    }

    fn uses(&self) -> std::sync::MutexGuard<'_, HashMap<u64, RegionUse>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The machines that there are now.
#[derive(Default)]
pub struct Guests {
    table: RwLock<HashMap<Owner, Arc<Guest>>>,
    /// Bytes to and from the modules of all machines that there have been.
    traffic: Arc<AtomicU64>,
}

impl Guests {
    /// A machine's memory has become known, or is another now.
    pub fn insert(&self, owner: Owner, ram: GuestRam) {
        let guest = Guest::new(ram, Arc::clone(&self.traffic));
        self.table.write().unwrap_or_else(PoisonError::into_inner).insert(owner, Arc::new(guest));
    }

    /// The machine has ended.
    pub fn remove(&self, owner: Owner) {
        let gone = self.table.write().unwrap_or_else(PoisonError::into_inner).remove(&owner);
        drop(gone);
    }

    /// Bytes to and from the modules of all machines that there have been.
    pub fn traffic(&self) -> u64 {
        self.traffic.load(Ordering::Relaxed)
    }

    pub fn get(&self, owner: Owner) -> Option<Arc<Guest>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(&owner).cloned()
    }

    /// Takes a connection to the broker's port.
    pub fn accept_module(&self, socket: OwnedFd, owner: Owner, source_port: u32) {
        let Some(guest) = self.get(owner) else {
            tracing::info!(?owner, "a memory broker of a machine whose memory is not known; see --guest");
            return;
        };
        let serve = move || {
            tracing::info!(?owner, "the machine's memory broker has connected");
            match guest.serve_module(socket, source_port) {
                Ok(()) => tracing::info!(?owner, "the machine's memory broker has gone"),
                Err(error) => tracing::warn!(?owner, "memory broker: {error:#}"),
            }
        };
        if let Err(error) = thread::Builder::new().name("broker-in".into()).spawn(serve) {
            tracing::error!(%error, "cannot start a thread for a memory broker");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_workers_of_another_daemon_have_is_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || Arc::new(File::options().read(true).write(true).open(file.path()).unwrap());
        let theirs = open();
        flock(&theirs, FlockOperation::LockShared).unwrap();
        let short = Duration::from_millis(50);
        let error = wait_for_predecessors(&[open()], short).unwrap_err();
        assert!(error.to_string().contains("another daemon"), "{error}");
        let ours = [open()];
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait_for_predecessors(&ours, Duration::from_secs(20)));
            thread::sleep(short);
            assert!(!waiting.is_finished());
            drop(theirs);
            waiting.join().unwrap().unwrap();
        });
        // Now it is ours, for a daemon after us to see.
        assert!(wait_for_predecessors(&[open()], short).is_err());
    }
}
