//! The program and the daemon as the source of the window's memory.
#![allow(unsafe_code)] // Tells the window what is mapped.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::frame::{FrameHeader, HEADER_LEN, Kind};
use protocol::status::{CuResult, Status};
use protocol::window::{Grow, Grown, MAX_BODY, Shrink};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use transport::{Connection, Window};

use super::Scattered;
use super::ground::{Ground, Run, read_runs};
use super::parts::Source;
use crate::daemon::ipc::{Channel, ToDaemon};

/// How long the program may take to allocate. Its kernel may have to make room first.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the daemon may take to look a region up.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message may take to get into the program's socket.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Runs of all parts together: each is a mapping, of which a process has 65530 by default, and at the kernel's own limit nothing could be unmapped either. A region that is lent
/// may have as many of its own.
const MAX_RUNS: usize = 48 << 10;

type Answer = (Grown, Status);

/// What the window's source and the watcher of the control connection share.
pub struct Control {
    connection: Arc<Connection>,
    /// A [`Grow`] has been sent and not been answered.
    asked: AtomicBool,
}

/// The watcher's end: takes the program's answers off the control connection.
pub struct Answers {
    control: Arc<Control>,
    sender: SyncSender<Answer>,
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
}

/// What came on the control connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// Nothing more for now.
    Nothing,
    /// Its end.
    HangUp,
    /// What no program says that works.
    Violation(String),
}

impl Control {
    /// For a control connection whose handshake may still be under way.
    pub fn new(connection: Arc<Connection>) -> (Arc<Self>, Answers, Receiver<Answer>) {
        let control = Arc::new(Self { connection, asked: AtomicBool::new(false) });
        let (sender, receiver) = sync_channel(1);
        let answers = Answers { control: Arc::clone(&control), sender, partial: Vec::new() };
        (control, answers, receiver)
    }

    fn send(&self, header: &FrameHeader, body: &[u8]) -> CuResult {
        self.connection.send(header, body, &[], SEND_TIMEOUT).map_err(|error| {
            tracing::info!(%error, "the program cannot be asked for memory");
            Status::OUT_OF_MEMORY
        })
    }
}

impl Answers {
    /// Takes what has come, without waiting.
    pub fn receive(&mut self) -> Came {
        loop {
            let mut bytes = [0; HEADER_LEN + MAX_BODY as usize];
            let room = bytes.len() - self.partial.len();
            match recv(self.control.connection.as_fd(), &mut bytes[..room], RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Came::HangUp,
                Ok((_, count)) => {
                    self.partial.extend_from_slice(&bytes[..count]);
                    if let Err(what) = self.frames() {
                        return Came::Violation(what);
                    }
                }
                Err(Errno::AGAIN) => return Came::Nothing,
                Err(Errno::INTR) => {}
                Err(errno) => return Came::Violation(format!("control connection: {errno}")),
            }
        }
    }

    fn frames(&mut self) -> Result<(), String> {
        while let Some((head, rest)) = self.partial.split_first_chunk::<HEADER_LEN>() {
            let header = FrameHeader::decode(head, MAX_BODY).map_err(|error| error.to_string())?;
            let Some(body) = rest.get(..header.len as usize) else { break };
            if header.kind != Kind::WINDOW_GROWN {
                return Err(format!("{:?} on the control connection", header.kind));
            }
            let grown = Grown::decode(body).map_err(|error| error.to_string())?;
            if !self.control.asked.swap(false, Ordering::AcqRel)
                || self.sender.try_send((grown, header.status)).is_err()
            {
                return Err("memory that was not asked for".into());
            }
            self.partial.drain(..HEADER_LEN + header.len as usize);
        }
        Ok(())
    }
}

/// Questions about regions that the daemon has not answered yet. Answers come in on the worker's main thread.
#[derive(Default)]
pub struct Regions {
    waiting: Mutex<HashMap<u64, SyncSender<Option<OwnedFd>>>>,
}

impl Regions {
    /// The daemon's answer: where the region lies, or nothing if the session does not have it.
    pub fn answer(&self, region: u64, runs: Option<OwnedFd>) {
        let asker = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&region);
        if let Some(asker) = asker {
            // Whoever has stopped waiting does not take it.
            let _ = asker.try_send(runs);
        }
    }

    /// Asks for a region of `len` bytes; until it is told that it is [done with](Self::done), the daemon keeps it from going away.
    fn ask(&self, channel: &Channel, region: u64, len: u64, max_runs: usize) -> io::Result<Vec<Run>> {
        let (sender, receiver) = sync_channel(1);
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.contains_key(&region) {
                return Err(io::Error::other("asked for twice at a time"));
            }
            waiting.insert(region, sender);
        }
        channel.send(&ToDaemon::Region(region), None)?;
        let answer = receiver.recv_timeout(DAEMON_TIMEOUT);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&region);
        let runs = answer.map_err(|_| io::Error::other("the daemon does not answer"))?;
        read_runs(runs.ok_or_else(|| io::Error::other("the session has no such region"))?, len, max_runs)
    }

    fn done(channel: &Channel, region: u64) {
        if let Err(error) = channel.send(&ToDaemon::RegionDone(region), None) {
            // The daemon has gone, and with it this worker.
            tracing::debug!(%error, "the daemon cannot be told that a region is unmapped");
        }
    }
}

struct Live {
    region: u64,
    runs: Vec<Run>,
}

/// What is mapped.
#[derive(Default)]
struct Mapped {
    /// Regions that are being asked for, lent, mapped or being unmapped; and those that are mapped in part and cannot be unmapped, which are in use until
    /// this process ends.
    regions: HashSet<u64>,
    /// By offset in the window.
    live: HashMap<u64, Live>,
    /// Runs of all of them.
    runs: usize,
}

/// See the module's documentation.
pub struct Remote {
    pub control: Arc<Control>,
    pub answers: Mutex<Receiver<Answer>>,
    pub channel: Arc<Channel>,
    pub regions: Arc<Regions>,
    /// The machine's memory.
    pub files: Arc<[OwnedFd]>,
    pub ground: Ground,
    pub window: Arc<Window>,
    mapped: Mutex<Mapped>,
    /// The program has failed to answer once: what it says later could be meant for another question.
    broken: AtomicBool,
}

impl Remote {
    /// A source for `window`, whose addresses are `ground`.
    pub fn new(
        (control, answers): (Arc<Control>, Receiver<Answer>),
        channel: Arc<Channel>,
        regions: Arc<Regions>,
        files: Arc<[OwnedFd]>,
        ground: Ground,
        window: Arc<Window>,
    ) -> Self {
        Self {
            control,
            answers: Mutex::new(answers),
            channel,
            regions,
            files,
            ground,
            window,
            mapped: Mutex::default(),
            broken: AtomicBool::new(false),
        }
    }

    /// Has the program allocate and map; the region's number.
    fn ask_program(&self, offset: u64, len: u64) -> CuResult<u64> {
        if self.broken.load(Ordering::Acquire) {
            return Err(Status::OUT_OF_MEMORY);
        }
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        self.control.asked.store(true, Ordering::Release);
        let mut body = Vec::new();
        let header = Grow { offset, len }.encode(&mut body);
        self.control.send(&header, &body)?;
        let Ok((grown, status)) = answers.recv_timeout(PROGRAM_TIMEOUT) else {
            tracing::warn!(len, "the program does not answer when asked for memory; it gets no more");
            self.broken.store(true, Ordering::Release);
            return Err(Status::OUT_OF_MEMORY);
        };
        if status != Status::SUCCESS {
            return Err(status);
        }
        if grown.offset != offset {
            tracing::warn!("the program gives memory for another place");
            self.broken.store(true, Ordering::Release);
            return Err(Status::OUT_OF_MEMORY);
        }
        Ok(grown.region)
    }

    /// Takes a region that the program has named into use, until it is [done](Self::done) with; any thread may be at it.
    ///
    /// The daemon holds one use per region and drops it at the first `done`: so that is said once, when nothing uses the region here. A program
    /// that names a region a second time would otherwise keep memory in use that its kernel has given to somebody else.
    fn take_region(&self, region: u64, len: u64) -> io::Result<Vec<Run>> {
        if !self.mapped().regions.insert(region) {
            return Err(io::Error::other("the region is in use already"));
        }
        let runs =
            self.regions.ask(&self.channel, region, len, MAX_RUNS).inspect_err(|_| self.done(region))?;
        tracing::debug!(region, len, pieces = runs.len(), "a region is in use");
        Ok(runs)
    }

    /// Maps a region that the program has named.
    fn map_region(&self, region: u64, offset: u64, len: u64) -> io::Result<()> {
        let runs = self.take_region(region, len)?;
        let room = {
            let mut mapped = self.mapped();
            mapped.runs += runs.len();
            mapped.runs <= MAX_RUNS
        };
        if !room {
            self.unmapped(region, &runs, true);
            let text = format!("more than {MAX_RUNS} pieces with those of other regions");
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        let address = self.window.address() + offset;
        if let Err(error) = self.ground.map(address, &self.files, &runs) {
            self.unmapped(region, &runs, !error.stuck);
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, error));
        }
        // SAFETY: mapped just now, and until `forget`, which takes the piece out first.
        if let Err(error) = unsafe { self.window.add_piece(offset, len) } {
            self.unmapped(region, &runs, self.ground.unmap(address, &runs));
            return Err(io::Error::other(error));
        }
        self.mapped().live.insert(offset, Live { region, runs });
        Ok(())
    }

    /// Unmaps what is mapped at an offset; whether there was something.
    fn forget(&self, offset: u64) -> bool {
        let live = self.mapped().live.remove(&offset);
        let Some(live) = live else { return false };
        // SAFETY: the callers say that nothing uses it: no lane has its block in a part that is given back.
        unsafe { self.window.remove_piece(offset) };
        let all = self.ground.unmap(self.window.address() + offset, &live.runs);
        self.unmapped(live.region, &live.runs, all);
        true
    }

    /// A region is no longer mapped, or (not `all`) stays so in part.
    fn unmapped(&self, region: u64, runs: &[Run], all: bool) {
        if all {
            self.mapped().runs -= runs.len();
            self.done(region);
        }
    }

    /// Nothing uses the region any more.
    fn done(&self, region: u64) {
        Regions::done(&self.channel, region);
        // Last: whoever asks for it again does so after the daemon has been told.
        self.mapped().regions.remove(&region);
    }

    fn mapped(&self) -> MutexGuard<'_, Mapped> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_program(&self, offset: u64) {
        let mut body = Vec::new();
        let header = Shrink { offset }.encode(&mut body);
        // A program that cannot be told is about to end.
        let _ = self.control.send(&header, &body);
    }
}

/// What a region that the program names cannot be used for.
fn refused(error: &io::Error, region: u64, len: u64) -> Status {
    tracing::info!(%error, region, len, "memory that the program lends cannot be used");
    match error.kind() {
        io::ErrorKind::OutOfMemory => Status::OUT_OF_MEMORY,
        _ => Status::INVALID_VALUE,
    }
}

impl Source for Remote {
    fn map(&self, offset: u64, len: u64) -> CuResult {
        let region = self.ask_program(offset, len)?;
        self.map_region(region, offset, len).map_err(|error| {
            tracing::warn!(%error, region, len, "memory that the program gave cannot be used");
            self.tell_program(offset);
            Status::OUT_OF_MEMORY
        })
    }

    fn unmap(&self, offset: u64, _len: u64) {
        if self.forget(offset) {
            self.tell_program(offset);
        }
    }

    fn adopt(&self, region: u64, offset: u64, len: u64) -> CuResult<Vec<Run>> {
        self.map_region(region, offset, len).map_err(|error| refused(&error, region, len))?;
        let mapped = self.mapped();
        Ok(mapped.live.get(&offset).map(|live| live.runs.clone()).unwrap_or_default())
    }

    fn disown(&self, offset: u64) {
        self.forget(offset);
    }

    fn lend(&self, region: u64, len: u64) -> CuResult<Scattered> {
        let runs = self.take_region(region, len).map_err(|error| refused(&error, region, len))?;
        Ok(Scattered::new(Arc::clone(&self.files), runs))
    }

    fn take_back(&self, region: u64) {
        self.done(region);
    }

    fn files(&self) -> Arc<[OwnedFd]> {
        Arc::clone(&self.files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> (Connection, Arc<Control>, Answers, Receiver<Answer>) {
        let (ours, theirs) = Connection::pair().unwrap();
        let (control, answers, receiver) = Control::new(Arc::new(ours));
        (theirs, control, answers, receiver)
    }

    fn send(to: &Connection, bytes: &[u8]) {
        rustix::net::send(to, bytes, rustix::net::SendFlags::empty()).unwrap();
    }

    fn grown(offset: u64, region: u64) -> Vec<u8> {
        let mut body = Vec::new();
        let header = Grown { offset, region }.encode(Status::SUCCESS, &mut body);
        [&header.encode()[..], &body].concat()
    }

    #[test]
    fn answers_come_in_any_pieces() {
        let (program, control, mut answers, receiver) = control();
        let bytes = grown(2 << 20, 7);
        control.asked.store(true, Ordering::Release);
        for byte in &bytes {
            assert!(receiver.try_recv().is_err());
            send(&program, &[*byte]);
            assert_eq!(answers.receive(), Came::Nothing);
        }
        assert_eq!(receiver.try_recv(), Ok((Grown { offset: 2 << 20, region: 7 }, Status::SUCCESS)));
        drop(program);
        assert_eq!(answers.receive(), Came::HangUp);
    }

    #[test]
    fn what_was_not_asked_for_is_a_violation() {
        let mut shrink = Vec::new();
        let header = Shrink { offset: 0 }.encode(&mut shrink);
        let cases = [
            (false, grown(0, 1)),
            (true, [grown(0, 1), grown(0, 2)].concat()),
            (true, [&header.encode()[..], &shrink].concat()),
            (true, vec![7; 64]),
        ];
        for (asked, bytes) in cases {
            let (program, control, mut answers, _receiver) = control();
            control.asked.store(asked, Ordering::Release);
            send(&program, &bytes);
            assert!(matches!(answers.receive(), Came::Violation(_)), "{bytes:?}");
        }
    }

    #[test]
    fn a_region_is_asked_for_once_at_a_time() {
        let regions = Regions::default();
        let (daemon, fd) = Channel::pair().unwrap();
        let channel = Channel::new(fd);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| regions.ask(&channel, 5, 4096, 1));
            assert!(matches!(daemon.receive().unwrap(), Some((ToDaemon::Region(5), None))));
            assert!(regions.ask(&channel, 5, 4096, 1).is_err());
            // The answer to nobody's question.
            regions.answer(6, None);
            regions.answer(5, None);
            assert!(first.join().unwrap().unwrap_err().to_string().contains("no such region"));
        });
    }
}
