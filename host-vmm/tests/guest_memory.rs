//! Sessions whose window is memory of a virtual machine. The machine is a file; its broker module and its programs are played by the test.
#![allow(unsafe_code)] // Maps the machine's memory as the module would.

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Daemon, TIMEOUT, eventually};
use protocol::broker::{
    self, Code, Extent, GuestMessage, HostMessage, RegionAdd, RegionKind, RegionName, SessionBegin,
};
use protocol::frame::Kind;
use protocol::handshake::{Capabilities, ControlWelcome, Hello, RefusalCode};
use protocol::region::Region;
use protocol::text::Text;
use protocol::window::{Grow, Grown, MAX_BODY, Shrink};
use protocol::{Reader, Status, Writer, ops};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use transport::handshake::{Lanes, connect_control, connect_lane};
use transport::{Address, Connection, Error, GuestLane, Reservation, Window};

const RAM: u64 = 256 << 20;
const PAGE: u64 = 4096;

/// A machine: a file of memory, and the module's connection.
struct Machine {
    daemon: Daemon,
    directory: tempfile::TempDir,
    ram: Arc<File>,
    module: UnixStream,
    /// Guest-physical memory is given out from the end.
    free: Arc<Mutex<u64>>,
    regions: u64,
}

impl Machine {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spec = |name: &str| directory.path().join(name).display().to_string();
        let guest = format!("sockets={},memory={},size=256M", spec("vm"), spec("ram"));
        let daemon = Daemon::start(&["--guest", &guest]);
        let path = PathBuf::from(spec(&format!("vm_{}", broker::PORT)));
        eventually(TIMEOUT, "the broker's socket", || path.exists());
        let module = UnixStream::connect(path).unwrap();
        module.set_read_timeout(Some(TIMEOUT)).unwrap();
        let ram = Arc::new(File::options().read(true).write(true).open(spec("ram")).unwrap());
        let mut machine =
            Self { daemon, directory, ram, module, free: Arc::new(Mutex::new(RAM)), regions: 0 };
        machine.say(&GuestMessage::Hello(broker::Hello {
            version: broker::VERSION,
            instance: [1, 2],
            held: 0,
        }));
        assert!(matches!(machine.hear(), HostMessage::Welcome(_)));
        assert_eq!(machine.hear(), HostMessage::Fenced);
        machine
    }

    fn address(&self) -> Address {
        Address::UnixStream(self.directory.path().join("vm_17237"))
    }

    fn say(&mut self, message: &GuestMessage<'_>) {
        let mut out = [0; broker::MAX_MESSAGE];
        let len = message.encode(&mut out).unwrap();
        self.module.write_all(&out[..len]).unwrap();
    }

    fn hear(&mut self) -> HostMessage {
        let mut head = [0; broker::HEADER_LEN];
        self.module.read_exact(&mut head).unwrap();
        let header = broker::Header::decode(&head).unwrap();
        let mut body = vec![0; header.len];
        self.module.read_exact(&mut body).unwrap();
        HostMessage::decode(header.kind, &body).unwrap()
    }

    fn begin(&mut self, session: u64) -> [u64; 2] {
        let cookie = [session, 77];
        self.say(&GuestMessage::SessionBegin(SessionBegin { session, cookie, uid: 1, pid: 2 }));
        assert_eq!(self.hear(), HostMessage::SessionBegun { session, code: Code::OK });
        cookie
    }

    /// A window region whose pieces of `piece` bytes lie in the machine's memory in descending order.
    fn add_region(&mut self, session: u64, len: u64, piece: u64) -> (u64, Vec<Extent>) {
        let extents: Vec<Extent> = {
            let mut free = self.free.lock().unwrap();
            (0..len / piece)
                .map(|_| {
                    // Never next to each other.
                    *free -= piece + PAGE;
                    Extent { gpa: *free, len: piece }
                })
                .collect()
        };
        self.regions += 1;
        let region = self.regions;
        for (first, part) in extents.chunks(broker::MAX_EXTENTS_PER_MESSAGE).enumerate() {
            let add = RegionAdd {
                session,
                region,
                kind: RegionKind::WINDOW,
                len,
                extents_total: extents.len() as u32,
                first: (first * broker::MAX_EXTENTS_PER_MESSAGE) as u32,
                extents: Default::default(),
            };
            let mut out = [0; broker::MAX_MESSAGE];
            let len = broker::encode_region_add(&add, part, &mut out).unwrap();
            self.module.write_all(&out[..len]).unwrap();
        }
        let name = RegionName { session, region };
        assert_eq!(self.hear(), HostMessage::RegionAdded { name, code: Code::OK });
        (region, extents)
    }
}

/// What the host asks a program for.
enum Asked {
    Grow(Grow),
    Shrink(Shrink),
}

/// A program of the machine.
struct Program {
    control: Arc<Connection>,
    asked: Receiver<Asked>,
    welcome: ControlWelcome,
    window: Arc<Window>,
    region: Region,
    session: u64,
    address: Address,
    parts: HashMap<u64, u64>,
}

fn hello(region: Region, cookie: [u64; 2]) -> Hello {
    Hello { cookie, ..Hello::control(region, 1, Text::new("test")) }
}

impl Program {
    fn connect(machine: &mut Machine, session: u64, tag: u32) -> Self {
        let cookie = machine.begin(session);
        let address = machine.address();
        let region = Region::new(tag).unwrap();
        let (control, welcome, file) = connect_control(&address, &hello(region, cookie), TIMEOUT).unwrap();
        assert!(file.is_none());
        assert!(welcome.capabilities.contains(Capabilities::SHARED_GUEST_MEMORY));
        Reservation::new(region.window_start(), welcome.limits.window_len).unwrap().leak();
        let window = Arc::new(Window::in_pieces(region.window_start(), welcome.limits.window_len).unwrap());
        let control = Arc::new(control);
        let (sender, asked) = channel();
        let reader = Arc::clone(&control);
        std::thread::spawn(move || read_requests(&reader, &sender));
        Self { control, asked, welcome, window, region, session, address, parts: HashMap::new() }
    }

    /// Opens a lane on another thread, which waits until the host has memory for it.
    fn begin_lane(&self) -> std::thread::JoinHandle<Result<GuestLane, Error>> {
        let hello = Hello::lane(self.welcome.token, self.region, 1);
        let (address, lanes) = (self.address.clone(), Lanes::Rings(Arc::clone(&self.window)));
        let limits = self.welcome.limits;
        std::thread::spawn(move || connect_lane(&address, &hello, &lanes, &limits, TIMEOUT))
    }

    fn next_grow(&self) -> Grow {
        match self.asked.recv_timeout(TIMEOUT).unwrap() {
            Asked::Grow(grow) => grow,
            Asked::Shrink(shrink) => panic!("{shrink:?}"),
        }
    }

    fn next_shrink(&self) -> u64 {
        match self.asked.recv_timeout(TIMEOUT).unwrap() {
            Asked::Shrink(shrink) => shrink.offset,
            Asked::Grow(grow) => panic!("{grow:?}"),
        }
    }

    fn answer(&self, offset: u64, region: u64, status: Status) {
        let mut body = Vec::new();
        let header = Grown { offset, region }.encode(status, &mut body);
        self.control.send(&header, &body, &[], TIMEOUT).unwrap();
    }

    /// Does what the shim and the module do.
    fn grow(&mut self, machine: &mut Machine, piece: u64) -> u64 {
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
        self.answer(grow.offset, region, Status::SUCCESS);
        grow.len
    }

    /// As the end of a process does, whoever else has the descriptor.
    fn end(self) {
        rustix::net::shutdown(&*self.control, rustix::net::Shutdown::Both).unwrap();
    }

    fn lane(&mut self, machine: &mut Machine) -> Lane {
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
            kind => panic!("{kind:?}"),
        };
        if sender.send(asked).is_err() {
            return;
        }
    }
}

struct Lane {
    lane: GuestLane,
}

impl Lane {
    fn call(&mut self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<Vec<u8>, Status> {
        let (mut body, mut reply) = (Vec::new(), Vec::new());
        write(&mut Writer::new(&mut body));
        let answer = self.lane.call(op, &body, &mut reply).unwrap();
        if answer.status.is_success() { Ok(reply) } else { Err(answer.status) }
    }

    fn word(&mut self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<u64, Status> {
        self.call(op, write).map(|reply| Reader::new(&reply).u64().unwrap())
    }

    fn set_up(&mut self) {
        self.call(ops::cuInit, |w| w.u32(0)).unwrap();
        let context = self.word(ops::cuDevicePrimaryCtxRetain, |w| {
            w.present(true);
            w.i32(0);
        });
        let mut body = Vec::new();
        Writer::new(&mut body).u64(context.unwrap());
        self.lane.post(ops::lane_set_context, &body).unwrap();
    }

    fn host_alloc(&mut self, len: u64) -> Result<u64, Status> {
        self.word(ops::cuMemHostAlloc, |w| {
            w.present(true);
            w.u64(len);
            w.u32(0);
        })
    }

    fn copy(&mut self, dst: u64, src: u64, len: u64) {
        let mut body = Vec::new();
        let mut w = Writer::new(&mut body);
        [dst, src, len, 0].into_iter().for_each(|word| w.u64(word));
        self.lane.post(ops::copy, &body).unwrap();
        self.call(ops::cuCtxSynchronize, |_| {}).unwrap();
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

#[test]
fn programs_and_workers_share_the_machines_memory() {
    let mut machine = Machine::start();
    let mut program = Program::connect(&mut machine, 1, 9);
    let mut lane = program.lane(&mut machine);
    lane.set_up();
    let device = lane
        .word(ops::cuMemAlloc_v2, |w| {
            w.present(true);
            w.u64(3 << 20);
        })
        .unwrap();

    // Pageable copies: through the staging area, which is the machine's memory.
    let bytes = pattern(100_000);
    let len = bytes.len() as u64;
    // SAFETY: a vector is readable for its length.
    unsafe { lane.lane.copy_in(0, bytes.as_ptr(), bytes.len()) }.unwrap();
    let stage = |w: &mut Writer<'_>| {
        [device, len, 0, len, 1, 0].into_iter().for_each(|word| w.u64(word));
        w.u32(1);
    };
    lane.call(ops::stage_in_last, stage).unwrap();
    lane.call(ops::stage_out_last, stage).unwrap();
    let mut back = vec![0; bytes.len()];
    // SAFETY: a vector of that length.
    unsafe { lane.lane.copy_out(0, back.as_mut_ptr(), back.len()) }.unwrap();
    assert!(back == bytes);

    // Page-locked memory: at the same address on both sides, in memory that is scattered page by page.
    let allocated = std::thread::scope(|scope| {
        let allocating = scope.spawn(|| lane.host_alloc(20 << 20));
        program.grow(&mut machine, PAGE);
        allocating.join().unwrap().unwrap()
    });
    assert!(program.region.window_range().contains(&allocated));
    let offset = allocated - program.window.address();
    let bytes = pattern(3 << 20);
    program.window.copy_in(offset, &bytes).unwrap();
    lane.copy(device, allocated, 3 << 20);
    lane.copy(allocated + (10 << 20) + 1, device, 3 << 20);
    let mut back = vec![0; bytes.len()];
    program.window.copy_out(offset + (10 << 20) + 1, &mut back).unwrap();
    assert!(back == bytes);

    // What is not needed goes back when it is much: here the third of three.
    let mut more = Vec::new();
    for _ in 0..3 {
        let address = std::thread::scope(|scope| {
            let allocating = scope.spawn(|| lane.host_alloc(40 << 20));
            program.grow(&mut machine, 2 << 20);
            allocating.join().unwrap().unwrap()
        });
        more.push(address);
    }
    for address in more {
        lane.call(ops::cuMemFreeHost, |w| w.u64(address)).unwrap();
    }
    let gone = [program.next_shrink(), program.next_shrink()];
    for offset in gone {
        // The worker has let go of it before it said so.
        let name = RegionName { session: 1, region: program.parts[&offset] };
        machine.say(&GuestMessage::RegionRemove(name));
        assert_eq!(machine.hear(), HostMessage::RegionReleased(name));
    }
    // The part with the lane is in use as long as the worker lives.
    let name = RegionName { session: 1, region: program.parts[&0] };
    machine.say(&GuestMessage::RegionRemove(name));
    lane.call(ops::cuCtxSynchronize, |_| {}).unwrap();
    machine.say(&GuestMessage::SessionEnd(1));
    drop(lane);
    program.end();
    // Removed before the end: it is confirmed as a region or with the session.
    loop {
        match machine.hear() {
            HostMessage::RegionReleased(other) => assert_eq!(other, name),
            HostMessage::SessionReleased(session) => break assert_eq!(session, 1),
            other => panic!("{other:?}"),
        }
    }
    eventually(TIMEOUT, "no worker is left", || machine.daemon.workers().is_empty());
}

#[test]
fn a_killed_worker_gives_everything_back() {
    let mut machine = Machine::start();
    let mut program = Program::connect(&mut machine, 5, 10);
    let mut lane = program.lane(&mut machine);
    lane.set_up();
    machine.say(&GuestMessage::SessionEnd(5));
    // Nothing is released while the worker has it mapped.
    machine.module.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(machine.module.read(&mut [0; 1]).is_err());
    machine.module.set_read_timeout(Some(TIMEOUT)).unwrap();
    machine.daemon.workers().into_iter().for_each(|pid| common::kill(pid, rustix::process::Signal::KILL));
    assert_eq!(machine.hear(), HostMessage::SessionReleased(5));
}

#[test]
fn cookies_open_one_session_and_only_for_their_machine() {
    let mut machine = Machine::start();
    let region = Region::new(11).unwrap();
    let refused = |machine: &Machine, cookie| match connect_control(
        &machine.address(),
        &hello(region, cookie),
        TIMEOUT,
    ) {
        Err(Error::Refused(refused)) => refused.code,
        other => panic!("{:?}", other.map(|_| ())),
    };
    assert_eq!(refused(&machine, [1, 1]), RefusalCode::TOKEN);
    let program = Program::connect(&mut machine, 7, 11);
    assert_eq!(refused(&machine, [7, 77]), RefusalCode::TOKEN);
    program.end();
    // At another listener, where no machine is, it means nothing: a session with a memfd.
    let cookie = machine.begin(8);
    let hello = hello(Region::new(14).unwrap(), cookie);
    let (_control, welcome, file) = connect_control(&machine.daemon.address, &hello, TIMEOUT).unwrap();
    assert!(file.is_some() && !welcome.capabilities.contains(Capabilities::GUEST_MEMORY));
    // Without a cookie the machine's programs have stream lanes.
    let hello = Hello { cookie: [0; 2], ..hello };
    let (_control, welcome, _) = connect_control(&machine.address(), &hello, TIMEOUT).unwrap();
    assert!(welcome.capabilities.contains(Capabilities::STREAM_LANES));
}

#[test]
fn foreign_short_and_missing_regions_give_no_memory() {
    let mut machine = Machine::start();
    let mut neighbour = Program::connect(&mut machine, 1, 9);
    let _lane = neighbour.lane(&mut machine);
    let foreign = neighbour.parts[&0];
    let program = Program::connect(&mut machine, 2, 10);
    let short = machine.add_region(2, 2 << 20, 2 << 20).0;
    for region in [foreign, short, 999] {
        // Each lane is tried with the usual length and with what it needs.
        let lane = program.begin_lane();
        for _ in 0..2 {
            let grow = program.next_grow();
            program.answer(grow.offset, region, Status::SUCCESS);
            assert_eq!(program.next_shrink(), grow.offset);
        }
        assert!(matches!(lane.join().unwrap(), Err(Error::HungUp)), "region {region}");
    }
    // The program may have no memory to give; the next one works.
    let lane = program.begin_lane();
    for _ in 0..2 {
        program.answer(program.next_grow().offset, 0, Status::OUT_OF_MEMORY);
    }
    assert!(lane.join().unwrap().is_err());
    let mut program = program;
    program.lane(&mut machine).set_up();
}

#[test]
fn answers_that_nobody_asked_for_end_the_session() {
    let mut machine = Machine::start();
    let program = Program::connect(&mut machine, 1, 9);
    program.answer(0, 1, Status::SUCCESS);
    machine.daemon.expect_log("memory that was not asked for");
    eventually(TIMEOUT, "the worker has ended", || machine.daemon.workers().is_empty());
    let mut other = Program::connect(&mut machine, 2, 10);
    other.lane(&mut machine).set_up();
}

#[test]
fn one_broker_per_machine() {
    let machine = Machine::start();
    let path = machine.directory.path().join(format!("vm_{}", broker::PORT));
    let mut second = UnixStream::connect(path).unwrap();
    second.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut bytes = Vec::new();
    second.read_to_end(&mut bytes).unwrap();
    let (head, body) = bytes.split_first_chunk().unwrap();
    let header = broker::Header::decode(head).unwrap();
    assert_eq!(HostMessage::decode(header.kind, body), Ok(HostMessage::Refused(Code::BUSY)));
}
