//! The switch by itself: packets in, packets out, with real sockets but no rings. `device` has the whole device with a front end.

mod device;
mod guest;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::Host;
use super::fuzz::{Reached, fuzz_vhost_user, vhost_user};
use super::header::{HOST_CID, Header, STREAM, op, shutdown};
use super::switch::{Event, Limits, Switch, WINDOW, Watch};
use crate::vmm::memory::GuestRam;

const CID: u32 = 42;
const FIRST: u16 = 5;
/// Whoever connects to this port is refused.
const CLOSED_PORT: u32 = 99;

/// Keeps the other ends, by the guest's port.
#[derive(Default)]
pub struct Ends(Mutex<HashMap<u32, UnixStream>>);

impl Ends {
    fn take(&self, guest_port: u32) -> UnixStream {
        self.0.lock().expect("no panics").remove(&guest_port).expect("a connection from this port")
    }
}

impl Host for Ends {
    fn memory(&self, _: GuestRam) {}

    fn connect(&self, source_port: u32, port: u32) -> Option<OwnedFd> {
        if port == CLOSED_PORT {
            return None;
        }
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        self.0.lock().expect("no panics").insert(source_port, theirs);
        Some(ours.into())
    }

    fn gone(&self) {}
}

/// What is watched, and whether for room.
#[derive(Clone, Default)]
struct Watched(Arc<Mutex<HashMap<u16, bool>>>);

impl Watch for Watched {
    fn watch(&self, _: BorrowedFd<'_>, token: u16, room: bool) -> io::Result<()> {
        assert!(self.0.lock().expect("no panics").insert(token, room).is_none(), "watched twice");
        Ok(())
    }

    fn unwatch(&self, _: BorrowedFd<'_>, token: u16) {
        self.0.lock().expect("no panics").remove(&token);
    }
}

struct Bench {
    switch: Switch,
    ends: Arc<Ends>,
    watched: Watched,
    data: Vec<u8>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let (ends, watched) = (Arc::new(Ends::default()), Watched::default());
        let switch = Switch::new(CID, limits, ends.clone(), Box::new(watched.clone()), FIRST);
        Self { switch, ends, watched, data: vec![0; 4096] }
    }

    fn guest(&mut self, header: Header, data: &[u8]) {
        self.switch.packet(&Header { len: (data.len() as u32).into(), ..header }, Some(data));
        let links = self.switch.check();
        assert_eq!(self.watched.0.lock().expect("no panics").len(), links, "watched and open");
    }

    /// The next packet, and its bytes.
    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        let header = self.switch.next(&mut self.data)?;
        self.switch.check();
        assert_eq!((header.src_cid.get(), header.dst_cid.get()), (HOST_CID, CID.into()));
        Some((header, self.data[..header.len.get() as usize].to_vec()))
    }

    /// The next packet's operation and flags, of the connection from `port`.
    fn expect(&mut self, port: u32) -> (u16, u32) {
        let (header, _) = self.next().expect("a packet");
        assert_eq!(header.dst_port.get(), port);
        (header.op.get(), header.flags.get())
    }

    /// Events of all connections, as epoll gives them at a change.
    fn events(&mut self, hung_up: bool) {
        let tokens: Vec<u16> = self.watched.0.lock().expect("no panics").keys().copied().collect();
        for token in tokens {
            self.switch.event(token, Event { hung_up });
        }
        self.switch.check();
    }

    fn open(&mut self, port: u32) -> UnixStream {
        self.guest(from(port, op::REQUEST), &[]);
        assert_eq!(self.expect(port), (op::RESPONSE, 0));
        self.ends.take(port)
    }
}

/// A packet of the guest with much credit.
fn from(port: u32, op: u16) -> Header {
    Header {
        src_cid: u64::from(CID).into(),
        dst_cid: HOST_CID.into(),
        src_port: port.into(),
        dst_port: 7000.into(),
        kind: STREAM.into(),
        op: op.into(),
        buf_alloc: (1 << 20).into(),
        ..Header::default()
    }
}

fn shut(port: u32, flags: u32) -> Header {
    Header { flags: flags.into(), ..from(port, op::SHUTDOWN) }
}

#[test]
fn bytes_pass_both_ways() {
    let mut bench = Bench::new(Limits::default());
    let mut end = bench.open(1023);
    bench.guest(from(1023, op::RW), b"to the host");
    let mut seen = [0; 11];
    end.read_exact(&mut seen).expect("bytes");
    assert_eq!(&seen, b"to the host");
    assert!(bench.next().is_none());
    end.write_all(b"to the guest").expect("room");
    bench.events(false);
    let (header, data) = bench.next().expect("a packet");
    assert_eq!((header.op.get(), &data[..]), (op::RW, &b"to the guest"[..]));
    assert_eq!((header.src_port.get(), header.dst_port.get()), (7000, 1023));
    assert_eq!((header.buf_alloc.get(), header.fwd_cnt.get()), (WINDOW, 11));
    assert!(bench.next().is_none());
}

#[test]
fn who_is_not_there_is_reset() {
    let mut bench = Bench::new(Limits::default());
    bench.guest(Header { dst_port: CLOSED_PORT.into(), ..from(1, op::REQUEST) }, &[]);
    assert_eq!(bench.expect(1), (op::RST, 0));
    for op in [op::RESPONSE, op::RW, op::SHUTDOWN, op::CREDIT_UPDATE, op::CREDIT_REQUEST, 77] {
        bench.guest(from(2, op), &[]);
        assert_eq!(bench.expect(2), (op::RST, 0), "{op}");
    }
    // Never in answer to one.
    bench.guest(from(2, op::RST), &[]);
    assert!(bench.next().is_none());
    // A kind of socket that is not supported is answered in kind.
    bench.guest(Header { kind: 2.into(), ..from(3, op::REQUEST) }, &[]);
    assert_eq!(bench.next().map(|(header, _)| (header.op.get(), header.kind.get())), Some((op::RST, 2)));
}

#[test]
fn other_cids_are_ignored() {
    let mut bench = Bench::new(Limits::default());
    let mut end = bench.open(1);
    for (source, destination) in [(CID + 1, 2), (CID, 3), (2, CID), (0, 0)] {
        for op in [op::REQUEST, op::RW, op::RST] {
            let mut header = from(1, op);
            (header.src_cid, header.dst_cid) = (u64::from(source).into(), u64::from(destination).into());
            bench.guest(header, b"x");
        }
    }
    // The upper half counts.
    bench.guest(Header { src_cid: (u64::from(CID) | 1 << 32).into(), ..from(1, op::RST) }, &[]);
    assert!(bench.next().is_none());
    assert_eq!(bench.switch.check(), 1);
    end.set_nonblocking(true).expect("a socket");
    assert_eq!(end.read(&mut [0]).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
}

#[test]
fn a_port_that_is_used_again_ends_the_old_connection() {
    let mut bench = Bench::new(Limits::default());
    let mut end = bench.open(1);
    bench.guest(from(1, op::REQUEST), &[]);
    assert_eq!(bench.expect(1), (op::RST, 0));
    assert_eq!(end.read(&mut [0]).expect("the end"), 0);
    bench.open(1);
    assert_eq!(bench.switch.check(), 1);
}

#[test]
fn the_guest_closes() {
    let mut bench = Bench::new(Limits::default());
    let mut end = bench.open(1);
    bench.guest(from(1, op::RW), b"last words");
    bench.guest(shut(1, shutdown::BOTH), &[]);
    assert_eq!(bench.expect(1), (op::RST, 0));
    assert_eq!(bench.switch.check(), 0);
    let mut words = String::new();
    end.read_to_string(&mut words).expect("the end");
    assert_eq!(words, "last words");
    let mut end = bench.open(2);
    bench.guest(from(2, op::RST), &[]);
    assert_eq!(bench.switch.check(), 0);
    assert_eq!(end.read(&mut [0]).expect("the end"), 0);
    assert!(bench.next().is_none());
}

#[test]
fn the_guest_closes_one_direction() {
    let mut bench = Bench::new(Limits::default());
    let mut end = bench.open(1);
    bench.guest(shut(1, shutdown::SEND), &[]);
    assert!(bench.next().is_none());
    assert_eq!(end.read(&mut [0]).expect("the end"), 0);
    end.write_all(b"answer").expect("still open");
    drop(end);
    bench.events(true);
    assert_eq!(bench.next().map(|(_, data)| data), Some(b"answer".to_vec()));
    assert_eq!(bench.expect(1), (op::SHUTDOWN, shutdown::BOTH));
    assert_eq!(bench.switch.check(), 0);

    let mut end = bench.open(2);
    bench.guest(shut(2, shutdown::RECEIVE), &[]);
    assert_eq!(end.write(b"x").map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
    bench.guest(from(2, op::RW), b"y");
    end.read_exact(&mut [0]).expect("still open");
    bench.guest(shut(2, shutdown::SEND), &[]);
    assert_eq!(bench.expect(2), (op::RST, 0));
}

#[test]
fn the_host_closes_one_direction() {
    let mut bench = Bench::new(Limits::default());
    let mut end = bench.open(1);
    end.write_all(b"question").expect("room");
    end.shutdown(Shutdown::Write).expect("a socket");
    bench.events(false);
    assert_eq!(bench.next().map(|(_, data)| data), Some(b"question".to_vec()));
    assert_eq!(bench.expect(1), (op::SHUTDOWN, shutdown::SEND));
    bench.guest(from(1, op::RW), b"answer");
    end.read_exact(&mut [0; 6]).expect("still open");
    drop(end);
    bench.events(true);
    assert_eq!(bench.expect(1), (op::SHUTDOWN, shutdown::BOTH));
    assert_eq!(bench.switch.check(), 0);
    // The guest's own last packet crosses ours.
    bench.guest(shut(1, shutdown::BOTH), &[]);
    assert_eq!(bench.expect(1), (op::RST, 0));
}

#[test]
fn the_host_closes() {
    let mut bench = Bench::new(Limits::default());
    drop(bench.open(1));
    bench.events(true);
    assert_eq!(bench.expect(1), (op::SHUTDOWN, shutdown::BOTH));
    let mut end = bench.open(2);
    end.write_all(b"last words").expect("room");
    bench.guest(from(2, op::RW), b"never read");
    drop(end);
    bench.events(true);
    assert_eq!(bench.expect(2), (op::SHUTDOWN, shutdown::RECEIVE));
    assert_eq!(bench.next().map(|(_, data)| data), Some(b"last words".to_vec()));
    assert_eq!(bench.expect(2), (op::SHUTDOWN, shutdown::BOTH));
    assert_eq!(bench.switch.check(), 0);
}

#[test]
fn a_host_that_does_not_read_stops_its_connection_only() {
    let mut bench = Bench::new(Limits::default());
    let (mut slow, mut other) = (bench.open(1), bench.open(2));
    let block = [7; 32 << 10];
    // What the socket holds is the kernel's matter; a window more is ours.
    let (mut sent, mut told) = (0u32, 0);
    while sent - told < WINDOW {
        bench.guest(from(1, op::RW), &block);
        sent += block.len() as u32;
        while let Some((header, _)) = bench.next() {
            assert_eq!(header.op.get(), op::CREDIT_UPDATE);
            told = header.fwd_cnt.get();
        }
        assert!(sent < 16 << 20, "an endless socket");
    }
    assert!(bench.watched.0.lock().expect("no panics")[&FIRST]);
    bench.guest(from(2, op::RW), b"z");
    other.read_exact(&mut [0]).expect("the other one goes on");
    let mut left = sent as usize;
    let mut piece = vec![0; 64 << 10];
    while left > 0 {
        let len = slow.read(&mut piece).expect("bytes");
        assert!(piece[..len].iter().all(|byte| *byte == 7));
        left -= len;
        bench.events(false);
        while let Some((header, _)) = bench.next() {
            assert_eq!(header.op.get(), op::CREDIT_UPDATE);
            told = header.fwd_cnt.get();
        }
    }
    assert!(sent - told < WINDOW / 4, "the guest has heard of its room");
    assert!(!bench.watched.0.lock().expect("no panics")[&FIRST]);
}

#[test]
fn more_than_the_window_is_a_reset() {
    let mut bench = Bench::new(Limits { links: 10, windows_bytes: 0 });
    let mut end = bench.open(1);
    let too_much = vec![0; (16 << 10) + 1];
    bench.guest(from(1, op::RW), &too_much);
    assert_eq!(bench.expect(1), (op::RST, 0));
    assert_eq!(end.read(&mut [0]).expect("the end"), 0);
    let _end = bench.open(2);
    bench.switch.packet(&from(2, op::RW), None);
    assert_eq!(bench.expect(2), (op::RST, 0), "bytes that were not there");
    let _end = bench.open(3);
    bench.guest(shut(3, shutdown::SEND), &[]);
    bench.guest(from(3, op::RW), b"x");
    assert_eq!(bench.expect(3), (op::RST, 0), "bytes after the end");
}

#[test]
fn no_more_goes_to_the_guest_than_it_has_room_for() {
    let mut bench = Bench::new(Limits::default());
    bench.guest(Header { buf_alloc: 10.into(), ..from(1, op::REQUEST) }, &[]);
    assert_eq!(bench.expect(1), (op::RESPONSE, 0));
    let mut end = bench.ends.take(1);
    end.write_all(&[1; 25]).expect("room");
    bench.events(false);
    assert_eq!(bench.next().map(|(_, data)| data.len()), Some(10));
    assert_eq!(bench.expect(1), (op::CREDIT_REQUEST, 0));
    assert!(bench.next().is_none());
    bench.guest(Header { buf_alloc: 10.into(), fwd_cnt: 4.into(), ..from(1, op::CREDIT_UPDATE) }, &[]);
    assert_eq!(bench.next().map(|(_, data)| data.len()), Some(4));
    bench.guest(Header { buf_alloc: 20.into(), fwd_cnt: 14.into(), ..from(1, op::CREDIT_REQUEST) }, &[]);
    // Asked for once more when the credit had gone again; theirs is answered.
    let mut ops = Vec::new();
    let mut bytes = 0;
    while let Some((header, data)) = bench.next() {
        ops.push(header.op.get());
        bytes += data.len();
    }
    assert_eq!(bytes, 11);
    assert!(ops.contains(&op::CREDIT_UPDATE), "{ops:?}");
}

#[test]
fn connections_take_turns() {
    let mut bench = Bench::new(Limits::default());
    let mut ends: Vec<UnixStream> = (1..=3).map(|port| bench.open(port)).collect();
    for end in &mut ends {
        end.write_all(&[0; 3 * 4096]).expect("room");
    }
    bench.events(false);
    let mut order = Vec::new();
    while let Some((header, _)) = bench.next() {
        order.push(header.dst_port.get());
    }
    let (first, rest) = order.split_at(3);
    assert_eq!(rest, [first, first].concat());
}

#[test]
fn the_number_of_connections_and_the_windows_are_bounded() {
    let mut bench = Bench::new(Limits { links: 5, windows_bytes: 3 * u64::from(WINDOW) });
    let mut windows = Vec::new();
    for port in 1..=6 {
        bench.guest(from(port, op::REQUEST), &[]);
        let (header, _) = bench.next().expect("a packet");
        windows.push((header.op.get(), header.buf_alloc.get()));
    }
    let large = (op::RESPONSE, WINDOW);
    let small = (op::RESPONSE, 16 << 10);
    assert_eq!(windows, [large, large, large, small, small, (op::RST, 0)]);
    // What ends makes room.
    bench.guest(from(1, op::RST), &[]);
    bench.guest(from(6, op::REQUEST), &[]);
    assert_eq!(bench.next().map(|(header, _)| (header.op.get(), header.buf_alloc.get())), Some(large));
}

#[test]
fn a_guest_that_takes_no_replies_is_not_heard() {
    let mut bench = Bench::new(Limits::default());
    let mut taken = 0;
    while bench.switch.accepts() {
        bench.guest(from(1, op::RW), b"x");
        taken += 1;
        assert!(taken < 10_000);
    }
    assert!(bench.next().is_some());
    assert!(bench.switch.accepts());
}

#[test]
fn a_flood_of_requests_and_resets_leaves_nothing() {
    let mut bench = Bench::new(Limits::default());
    for round in 0..70_000 {
        let port = round % 7;
        bench.switch.packet(&from(port, op::REQUEST), Some(&[]));
        bench.switch.packet(&from(port, op::RST), Some(&[]));
    }
    assert_eq!(bench.switch.check(), 0);
    assert!(bench.next().is_none());
    bench.open(1);
}

#[test]
fn a_reset_of_the_guest_closes_everything() {
    let mut bench = Bench::new(Limits::default());
    let mut end = bench.open(1);
    bench.guest(from(2, op::RW), b"x");
    bench.switch.reset();
    assert_eq!(bench.switch.check(), 0);
    assert!(bench.next().is_none());
    assert_eq!(end.read(&mut [0]).expect("the end"), 0);
    assert!(bench.watched.0.lock().expect("no panics").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_guest_panics_or_hangs_the_device(data in proptest::collection::vec(any::<u8>(), 0..1200)) {
        fuzz_vhost_user(&data);
    }
}

#[test]
fn the_corpus_and_mutations_of_it() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/vhost_user");
    let mut reached = HashMap::new();
    for entry in fs::read_dir(directory).expect("corpus") {
        let entry = entry.expect("entry");
        let data = fs::read(entry.path()).expect("readable");
        let name = entry.file_name().into_string().expect("text");
        reached.insert(name, vhost_user(&data));
        for at in 0..data.len() {
            for change in [1, 97] {
                let mut changed = data.clone();
                changed[at] = changed[at].wrapping_add(change);
                fuzz_vhost_user(&changed);
            }
        }
    }
    // Otherwise the corpus does not fit the operations any more.
    let of = |name: &str| reached.get(name).copied().unwrap_or_default();
    let outcome = |opened, to_host, to_guest| Reached { opened, to_host, to_guest };
    assert_eq!(of("echo"), outcome(1, 100, 3), "{reached:?}");
    assert_eq!(of("scattered"), outcome(1, 9000, 2), "{reached:?}");
    assert_eq!(of("indirect"), outcome(1, 300, 1), "{reached:?}");
    assert_eq!(of("loop"), outcome(1, 200, 2), "{reached:?}");
    assert_eq!(of("limits").opened, 7, "{reached:?}");
    assert!(of("slow_host").to_host > 300_000, "{reached:?}");
}
