//! A virtual machine played by a test: its memory is a file, and the test speaks for its broker module and its programs.
#![allow(dead_code)] // Each test file uses a part.
#![allow(unsafe_code)] // Maps the machine's memory as the module would.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::broker::{
    self, Code, Extent, GuestMessage, HostMessage, RegionAdd, RegionKind, RegionName, SessionBegin,
};
use protocol::frame::Kind;
use protocol::handshake::{Capabilities, ControlWelcome, Hello};
use protocol::region::Region;
use protocol::text::Text;
use protocol::window::{Grow, Grown, MAX_BODY, Shrink};
use protocol::{Reader, Status, Writer, ops};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use transport::handshake::{Lanes, connect_control, connect_lane};
use transport::{Address, Connection, Error, GuestLane, Reservation, Window};

use super::{Client, Daemon, TIMEOUT, eventually, open_lane};

pub const RAM: u64 = 256 << 20;
pub const PAGE: u64 = 4096;

/// A machine: a file of memory, and the module's connection.
pub struct Machine {
    pub daemon: Daemon,
    pub directory: tempfile::TempDir,
    pub ram: Arc<File>,
    pub module: UnixStream,
    pub memory: Arc<Mutex<Memory>>,
    pub regions: u64,
}

/// What of the machine's memory is in use.
pub struct Memory {
    /// It is given out from the end.
    free: u64,
    /// Given back: for regions of this length in pieces of this length.
    spare: HashMap<(u64, u64), Vec<Vec<Extent>>>,
    /// Pages that are nobody's: true.
    nobodys: Vec<bool>,
}

impl Memory {
    fn mark(&mut self, extents: &[Extent], nobodys: bool) {
        for extent in extents {
            let first = (extent.gpa / PAGE) as usize;
            self.nobodys[first..first + (extent.len / PAGE) as usize].fill(nobodys);
        }
    }
}

/// What memory that is nobody's holds.
fn canary(page: usize) -> [u8; PAGE as usize] {
    let mut bytes = [0xc5; PAGE as usize];
    bytes[..8].copy_from_slice(&(page as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    bytes
}

impl Machine {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more options of the daemon.
    pub fn start_with(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spec = |name: &str| directory.path().join(name).display().to_string();
        let guest = format!("sockets={},memory={},size=256M", spec("vm"), spec("ram"));
        let daemon = Daemon::start_telling(&[&["--guest", &guest], options].concat());
        let path = PathBuf::from(spec(&format!("vm_{}", broker::PORT)));
        // It has its name before it takes connections.
        let mut module = None;
        eventually(TIMEOUT, "the broker's socket", || {
            module = UnixStream::connect(&path).ok();
            module.is_some()
        });
        let module = module.unwrap();
        module.set_read_timeout(Some(TIMEOUT)).unwrap();
        let ram = Arc::new(File::options().read(true).write(true).open(spec("ram")).unwrap());
        let memory = Memory { free: RAM, spare: HashMap::new(), nobodys: vec![true; (RAM / PAGE) as usize] };
        let mut machine =
            Self { daemon, directory, ram, module, memory: Arc::new(Mutex::new(memory)), regions: 0 };
        machine.greet();
        assert_eq!(machine.hear(), HostMessage::Fenced);
        machine
    }

    pub fn greet(&mut self) {
        let hello = broker::Hello { version: broker::VERSION, instance: [1, 2], held: 0 };
        self.say(&GuestMessage::Hello(hello));
        assert!(matches!(self.hear(), HostMessage::Welcome(_)));
    }

    /// Another connection of the module, when the daemon has noticed the end of the one before.
    pub fn reconnect(&mut self) {
        let path = self.directory.path().join(format!("vm_{}", broker::PORT));
        eventually(TIMEOUT, "the daemon takes another connection of the module", || {
            self.module = UnixStream::connect(&path).unwrap();
            self.module.set_read_timeout(Some(TIMEOUT)).unwrap();
            let hello = broker::Hello { version: broker::VERSION, instance: [1, 2], held: 0 };
            let mut out = [0; broker::MAX_MESSAGE];
            let len = GuestMessage::Hello(hello).encode(&mut out).unwrap();
            self.module.write_all(&out[..len]).is_ok()
                && matches!(self.try_hear(), Ok(HostMessage::Welcome(_)))
        });
    }

    /// Fills what is nobody's; to be called before any of it is given out.
    pub fn fill_with_canary(&self) {
        let mut bytes = Vec::new();
        (0..(RAM / PAGE) as usize).for_each(|page| bytes.extend_from_slice(&canary(page)));
        self.ram.write_all_at(&bytes, 0).unwrap();
    }

    /// Nobody has written to memory that is nobody's.
    pub fn assert_canary(&self) {
        let memory = self.memory.lock().unwrap();
        let mut bytes = vec![0; 1 << 20];
        for (part, pages) in memory.nobodys.chunks(bytes.len() / PAGE as usize).enumerate() {
            let at = part * bytes.len();
            self.ram.read_exact_at(&mut bytes, at as u64).unwrap();
            for (i, page) in bytes.as_chunks::<{ PAGE as usize }>().0.iter().enumerate() {
                let number = at / PAGE as usize + i;
                assert!(!pages[i] || *page == canary(number), "page {number:#x} was written");
            }
        }
    }

    /// Ends a program, waits for the host's word that its memory is free, and gives it to whoever asks next.
    pub fn end(&mut self, program: Program) {
        let (session, parts) = (program.session, program.extents.clone());
        program.end();
        self.say(&GuestMessage::SessionEnd(session));
        self.hear_until(&HostMessage::SessionReleased(session));
        parts.into_iter().for_each(|extents| self.give_back(extents));
    }

    /// Pages that nobody has any more.
    pub fn give_back(&self, extents: Vec<Extent>) {
        for page in
            extents.iter().flat_map(|extent| (extent.gpa..extent.gpa + extent.len).step_by(PAGE as usize))
        {
            self.ram.write_all_at(&canary((page / PAGE) as usize), page).unwrap();
        }
        let len = extents.iter().map(|extent| extent.len).sum();
        let piece = extents[0].len;
        let mut memory = self.memory.lock().unwrap();
        memory.mark(&extents, true);
        memory.spare.entry((len, piece)).or_default().push(extents);
    }

    pub fn address(&self) -> Address {
        Address::UnixStream(self.directory.path().join("vm_17237"))
    }

    pub fn say(&mut self, message: &GuestMessage<'_>) {
        let mut out = [0; broker::MAX_MESSAGE];
        let len = message.encode(&mut out).unwrap();
        self.module.write_all(&out[..len]).unwrap();
    }

    pub fn hear(&mut self) -> HostMessage {
        self.try_hear().unwrap()
    }

    pub fn try_hear(&mut self) -> io::Result<HostMessage> {
        let mut head = [0; broker::HEADER_LEN];
        self.module.read_exact(&mut head)?;
        let header = broker::Header::decode(&head).unwrap();
        let mut body = vec![0; header.len];
        self.module.read_exact(&mut body)?;
        Ok(HostMessage::decode(header.kind, &body).unwrap())
    }

    /// Skips what comes before.
    pub fn hear_until(&mut self, wanted: &HostMessage) {
        while self.hear() != *wanted {}
    }

    /// The host says nothing for a while.
    pub fn hear_nothing(&mut self) {
        self.module.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(self.module.read(&mut [0; 1]).is_err());
        self.module.set_read_timeout(Some(TIMEOUT)).unwrap();
    }

    pub fn begin(&mut self, session: u64) -> [u64; 2] {
        let cookie = [session, 77];
        self.say(&GuestMessage::SessionBegin(SessionBegin { session, cookie, uid: 1, pid: 2 }));
        assert_eq!(self.hear(), HostMessage::SessionBegun { session, code: Code::OK });
        cookie
    }

    /// Memory in pieces of `piece` bytes, in descending order.
    pub fn take(&self, len: u64, piece: u64) -> Vec<Extent> {
        let mut memory = self.memory.lock().unwrap();
        let spare = memory.spare.get_mut(&(len, piece)).and_then(Vec::pop);
        let extents = spare.unwrap_or_else(|| {
            let next = |_| {
                // Never next to each other.
                memory.free = memory.free.checked_sub(piece + PAGE).expect("memory of the machine");
                Extent { gpa: memory.free, len: piece }
            };
            (0..len / piece).map(next).collect()
        });
        memory.mark(&extents, false);
        extents
    }

    /// A window region of such memory.
    pub fn add_region(&mut self, session: u64, len: u64, piece: u64) -> (u64, Vec<Extent>) {
        let extents = self.take(len, piece);
        let region = self.name_region(session, RegionKind::WINDOW, &extents);
        let name = RegionName { session, region };
        assert_eq!(self.hear(), HostMessage::RegionAdded { name, code: Code::OK });
        (region, extents)
    }

    /// Tells the host of a region. Its answer is still to come.
    pub fn name_region(&mut self, session: u64, kind: RegionKind, extents: &[Extent]) -> u64 {
        self.regions += 1;
        let region = self.regions;
        let len = extents.iter().fold(0, |sum: u64, extent| sum.wrapping_add(extent.len));
        for (first, part) in extents.chunks(broker::MAX_EXTENTS_PER_MESSAGE).enumerate() {
            let add = RegionAdd {
                session,
                region,
                kind,
                len,
                extents_total: extents.len() as u32,
                first: (first * broker::MAX_EXTENTS_PER_MESSAGE) as u32,
                extents: Default::default(),
            };
            let mut out = [0; broker::MAX_MESSAGE];
            let len = broker::encode_region_add(&add, part, &mut out).unwrap();
            self.module.write_all(&out[..len]).unwrap();
        }
        region
    }
}

/// What the host asks a program for.
pub enum Asked {
    Grow(Grow),
    Shrink(Shrink),
}

/// A program of the machine.
pub struct Program {
    pub control: Arc<Connection>,
    pub asked: Receiver<Asked>,
    pub welcome: ControlWelcome,
    pub window: Arc<Window>,
    pub region: Region,
    pub session: u64,
    pub address: Address,
    /// Regions by offset.
    pub parts: HashMap<u64, u64>,
    /// All of its memory.
    pub extents: Vec<Vec<Extent>>,
    /// Addresses of the window: unmapped when this is dropped, so lanes go first.
    reservation: Option<Reservation>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // A failed test's other threads may still have lanes.
        if std::thread::panicking()
            && let Some(reservation) = self.reservation.take()
        {
            reservation.leak();
        }
    }
}

/// The first region that no other program of this process has.
fn reserve() -> (Region, Reservation) {
    const WINDOW: u64 = 256 << 20;
    let mut tags = 9..28;
    tags.find_map(|tag| {
        let region = Region::new(tag)?;
        Some((region, Reservation::new(region.window_start(), WINDOW).ok()?))
    })
    .expect("addresses for another program")
}

pub fn program_hello(region: Region, cookie: [u64; 2]) -> Hello {
    Hello { cookie, ..Hello::control(region, 1, Text::new("test")) }
}

impl Program {
    pub fn connect(machine: &mut Machine, session: u64) -> Self {
        let cookie = machine.begin(session);
        let address = machine.address();
        let (region, reservation) = reserve();
        let (control, welcome, file) =
            connect_control(&address, &program_hello(region, cookie), TIMEOUT).unwrap();
        assert!(file.is_none());
        assert!(welcome.capabilities.contains(Capabilities::SHARED_GUEST_MEMORY));
        assert!(welcome.limits.window_len <= reservation.len());
        let window = Arc::new(Window::in_pieces(region.window_start(), welcome.limits.window_len).unwrap());
        let control = Arc::new(control);
        let (sender, asked) = channel();
        let reader = Arc::clone(&control);
        std::thread::spawn(move || read_requests(&reader, &sender));
        Self {
            control,
            asked,
            welcome,
            window,
            region,
            session,
            address,
            parts: HashMap::new(),
            extents: Vec::new(),
            reservation: Some(reservation),
        }
    }

    /// Opens a lane on another thread, which waits until the host has memory for it.
    pub fn begin_lane(&self) -> std::thread::JoinHandle<Result<GuestLane, Error>> {
        let hello = Hello::lane(self.welcome.token, self.region, 1);
        let (address, lanes) = (self.address.clone(), Lanes::Rings(Arc::clone(&self.window)));
        let limits = self.welcome.limits;
        std::thread::spawn(move || connect_lane(&address, &hello, &lanes, &limits, TIMEOUT))
    }

    pub fn next_grow(&self) -> Grow {
        match self.asked.recv_timeout(TIMEOUT).unwrap() {
            Asked::Grow(grow) => grow,
            Asked::Shrink(shrink) => panic!("{shrink:?}"),
        }
    }

    pub fn next_shrink(&self) -> u64 {
        match self.asked.recv_timeout(TIMEOUT).unwrap() {
            Asked::Shrink(shrink) => shrink.offset,
            Asked::Grow(grow) => panic!("{grow:?}"),
        }
    }

    pub fn answer(&self, offset: u64, region: u64, status: Status) {
        let mut body = Vec::new();
        let header = Grown { offset, region }.encode(status, &mut body);
        self.control.send(&header, &body, &[], TIMEOUT).unwrap();
    }

    /// Does what the shim and the module do.
    pub fn grow(&mut self, machine: &mut Machine, piece: u64) -> u64 {
        let grow = self.next_grow();
        let (region, extents) = machine.add_region(self.session, grow.len, piece);
        let mut at = self.window.address() + grow.offset;
        for extent in &extents {
            // SAFETY: in the window's reserved addresses, where nothing is mapped.
            unsafe {
                mmap(
                    std::ptr::with_exposed_provenance_mut(at as usize),
                    extent.len as usize,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED | MapFlags::FIXED,
                    &*machine.ram,
                    extent.gpa,
                )
            }
            .unwrap();
            at += extent.len;
        }
        // SAFETY: mapped just now, for good.
        unsafe { self.window.add_piece(grow.offset, grow.len) }.unwrap();
        self.parts.insert(grow.offset, region);
        self.extents.push(extents);
        self.answer(grow.offset, region, Status::SUCCESS);
        grow.len
    }

    /// As the end of a process does, whoever else has the descriptor.
    pub fn end(self) {
        rustix::net::shutdown(&*self.control, rustix::net::Shutdown::Both).unwrap();
    }

    /// A program with one lane.
    pub fn client(&mut self, machine: &mut Machine) -> Client {
        let (address, welcome, window) =
            (self.address.clone(), self.welcome.clone(), Arc::clone(&self.window));
        let opening = std::thread::spawn(move || open_lane(&address, &welcome, &window));
        self.grow(machine, 2 << 20);
        let (lane, placement) = opening.join().unwrap().unwrap();
        let (control, welcome) = (Arc::clone(&self.control), self.welcome.clone());
        Client { control, welcome, window: Arc::clone(&self.window), lane, placement }
    }

    pub fn lane(&mut self, machine: &mut Machine) -> Lane {
        let lane = self.begin_lane();
        self.grow(machine, 2 << 20);
        Lane { lane: lane.join().unwrap().unwrap() }
    }
}

fn read_requests(control: &Connection, sender: &Sender<Asked>) {
    loop {
        let received = match control.receive(MAX_BODY, Duration::from_secs(3600)) {
            Ok(received) => received,
            Err(_) => return,
        };
        let asked = match received.header.kind {
            Kind::WINDOW_GROW => Asked::Grow(Grow::decode(&received.body).unwrap()),
            Kind::WINDOW_SHRINK => Asked::Shrink(Shrink::decode(&received.body).unwrap()),
            _ => return,
        };
        if sender.send(asked).is_err() {
            return;
        }
    }
}

pub struct Lane {
    pub lane: GuestLane,
}

impl Lane {
    pub fn call(&mut self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<Vec<u8>, Status> {
        let (mut body, mut reply) = (Vec::new(), Vec::new());
        write(&mut Writer::new(&mut body));
        let answer = self.lane.call(op, &body, &mut reply).unwrap();
        if answer.status.is_success() { Ok(reply) } else { Err(answer.status) }
    }

    pub fn word(&mut self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<u64, Status> {
        self.call(op, write).map(|reply| Reader::new(&reply).u64().unwrap())
    }

    pub fn set_up(&mut self) {
        self.call(ops::cuInit, |w| w.u32(0)).unwrap();
        let context = self.word(ops::cuDevicePrimaryCtxRetain, |w| {
            w.present(true);
            w.i32(0);
        });
        let mut body = Vec::new();
        Writer::new(&mut body).u64(context.unwrap());
        self.lane.post(ops::lane_set_context, &body).unwrap();
    }

    pub fn host_alloc(&mut self, len: u64) -> Result<u64, Status> {
        self.word(ops::cuMemHostAlloc, |w| {
            w.present(true);
            w.u64(len);
            w.u32(0);
        })
    }

    pub fn copy(&mut self, dst: u64, src: u64, len: u64) {
        let mut body = Vec::new();
        let mut w = Writer::new(&mut body);
        [dst, src, len, 0].into_iter().for_each(|word| w.u64(word));
        self.lane.post(ops::copy, &body).unwrap();
        self.call(ops::cuCtxSynchronize, |_| {}).unwrap();
    }
}
