//! The whole device: a front end connects, a driver works its rings.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guest::{F_INDIRECT, F_NEXT, F_WRITE, Guest, HIGH, RECEIVE, TRANSMIT};
use super::{CID, CLOSED_PORT, from, shut};
use crate::vhost_user::header::{HOST_CID, Header, op, shutdown};
use crate::vhost_user::switch::WINDOW;
use crate::vhost_user::{Error, Host, VhostUserVsock};
use crate::vmm::memory::{GuestRam, MIN_BYTES};

const LIMIT: Duration = Duration::from_secs(20);

enum News {
    Memory(GuestRam),
    Connection { source_port: u32, port: u32, end: UnixStream },
    Gone,
}

struct Reporter(Mutex<Sender<News>>);

impl Reporter {
    fn report(&self, news: News) {
        // The test may be over already.
        let _ = self.0.lock().expect("no panics").send(news);
    }
}

impl Host for Reporter {
    fn memory(&self, ram: GuestRam) {
        self.report(News::Memory(ram));
    }

    fn connect(&self, source_port: u32, port: u32) -> Option<OwnedFd> {
        if port == CLOSED_PORT {
            return None;
        }
        let (ours, end) = UnixStream::pair().expect("a socket pair");
        end.set_read_timeout(Some(LIMIT)).expect("a socket");
        self.report(News::Connection { source_port, port, end });
        Some(ours.into())
    }

    fn gone(&self) {
        self.report(News::Gone);
    }
}

/// A back end and what it reports.
struct Bench {
    _directory: tempfile::TempDir,
    socket: PathBuf,
    back_end: Option<VhostUserVsock>,
    news: Receiver<News>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("vhost");
        let (sender, news) = channel();
        let host = Arc::new(Reporter(Mutex::new(sender)));
        let back_end = VhostUserVsock::listen(&socket, CID, host).expect("a back end");
        Self { _directory: directory, socket, back_end: Some(back_end), news }
    }

    /// A running guest with receive buffers.
    fn guest(&self) -> Guest {
        let mut guest = Guest::start(&self.socket, Guest::ram());
        assert!(matches!(self.news(), News::Memory(_)));
        guest.give_buffers(32);
        guest
    }

    fn news(&self) -> News {
        self.news.recv_timeout(LIMIT).expect("news")
    }

    fn connection(&self) -> UnixStream {
        let News::Connection { end, .. } = self.news() else { panic!("something else than a connection") };
        end
    }

    fn open(&self, guest: &mut Guest, port: u32) -> UnixStream {
        guest.send(from(port, op::REQUEST), &[], &[]);
        assert_eq!(told(guest), (op::RESPONSE, port, 0));
        self.connection()
    }
}

/// Operation, guest's port and flags of the next packet.
fn told(guest: &mut Guest) -> (u16, u32, u32) {
    let (header, _) = guest.receive();
    assert_eq!((header.src_cid.get(), header.dst_cid.get()), (HOST_CID, CID.into()));
    (header.op.get(), header.dst_port.get(), header.flags.get())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn the_owner_learns_the_memory_the_ports_and_the_end() {
    let bench = Bench::new();
    let mut guest = Guest::start(&bench.socket, Guest::ram());
    assert_eq!(guest.cid(), u64::from(CID));
    let News::Memory(ram) = bench.news() else { panic!("memory comes first") };
    let places: Vec<_> = ram.regions.iter().map(|r| (r.gpa, r.len_bytes, r.offset_bytes)).collect();
    assert_eq!(places, [(0, MIN_BYTES, MIN_BYTES), (HIGH, MIN_BYTES, 0)]);
    let mine = &guest.ram.regions[0].file;
    mine.write_all_at(b"guest", 0x1234).expect("a file");
    let (file, offset) = ram.locate(HIGH + 0x1234, 5).expect("located");
    let mut seen = [0; 5];
    file.read_exact_at(&mut seen, offset).expect("a file");
    assert_eq!(&seen, b"guest");
    // The same table again is no news.
    guest.share_memory();
    guest.give_buffers(4);
    guest.send(Header { dst_port: 7101.into(), ..from(1023, op::REQUEST) }, &[], &[]);
    match bench.news() {
        News::Connection { source_port, port, .. } => assert_eq!((source_port, port), (1023, 7101)),
        _ => panic!("something else than a connection"),
    }
    drop(guest);
    assert!(matches!(bench.news(), News::Gone));
}

#[test]
fn bytes_pass_both_ways_in_one_descriptor_or_many() {
    let bench = Bench::new();
    let mut guest = bench.guest();
    let mut end = bench.open(&mut guest, 5000);
    let data = pattern(60_000);
    let mut seen = vec![0; data.len()];
    let many = vec![4000; 15];
    for pieces in [&many[..], &[60_000], &[1, 0, 59_999], &[30_000, 30_000]] {
        guest.send(from(5000, op::RW), &data, pieces);
        end.read_exact(&mut seen).expect("bytes");
        assert!(seen == data, "{pieces:?}");
        seen.fill(0);
    }
    guest.send_indirect(from(5000, op::RW), &data, &many);
    end.read_exact(&mut seen).expect("bytes");
    assert!(seen == data, "indirect");

    end.write_all(&data).expect("room");
    let mut received = Vec::new();
    let mut heard = 0;
    while received.len() < data.len() {
        let (header, bytes) = guest.receive();
        assert!(matches!(header.op.get(), op::RW | op::CREDIT_UPDATE));
        heard = header.fwd_cnt.get();
        received.extend(bytes);
    }
    assert!(received == data);
    assert_eq!(heard, 5 * 60_000);

    guest.send(shut(5000, shutdown::BOTH), &[], &[]);
    assert_eq!(told(&mut guest), (op::RST, 5000, 0));
    assert_eq!(end.read(&mut seen).expect("the end"), 0);
}

/// A packet may come between the device's last look at the ring and its wish to be told of the next, again and again.
#[test]
fn a_guest_that_is_just_as_fast_is_served() {
    let bench = Bench::new();
    let mut guest = bench.guest();
    let mut stream = bench.open(&mut guest, 1024);
    guest.flood(from(1024, op::CREDIT_UPDATE), 100_000);
    guest.send(from(1024, op::RW), b"still there", &[11]);
    let mut bytes = [0; 11];
    stream.read_exact(&mut bytes).expect("the guest's bytes");
    assert_eq!(&bytes, b"still there");
}

#[test]
fn refusals_and_half_closed_connections() {
    let bench = Bench::new();
    let mut guest = bench.guest();
    guest.send(Header { dst_port: CLOSED_PORT.into(), ..from(9, op::REQUEST) }, &[], &[]);
    assert_eq!(told(&mut guest), (op::RST, 9, 0));
    let mut end = bench.open(&mut guest, 10);
    guest.send(from(10, op::RW), b"question", &[8]);
    guest.send(shut(10, shutdown::SEND), &[], &[]);
    let mut question = String::new();
    end.read_to_string(&mut question).expect("the end");
    assert_eq!(question, "question");
    end.write_all(b"answer").expect("open");
    assert_eq!(guest.receive().1, b"answer");
    drop(end);
    assert_eq!(told(&mut guest), (op::SHUTDOWN, 10, shutdown::BOTH));
}

#[test]
fn a_slow_host_holds_up_the_guest_until_it_reads() {
    let bench = Bench::new();
    let mut guest = bench.guest();
    let mut end = bench.open(&mut guest, 1);
    let block = pattern(WINDOW as usize / 8);
    let (mut sent, mut heard, mut checked) = (0u32, 0u32, 0usize);
    // As much as it may, as a driver does.
    while sent - heard <= WINDOW - block.len() as u32 {
        guest.send(from(1, op::RW), &block, &[block.len() / 2, block.len() / 2]);
        sent += block.len() as u32;
        // What the socket took is told at the latest when we ask.
        guest.send(from(1, op::CREDIT_REQUEST), &[], &[]);
        let mut header = guest.receive().0;
        while guest.used_index(RECEIVE) != guest.seen(RECEIVE) {
            header = guest.receive().0;
        }
        assert_eq!(header.op.get(), op::CREDIT_UPDATE);
        heard = header.fwd_cnt.get();
    }
    assert!(sent > WINDOW);
    let mut piece = vec![0; 50_000];
    while checked < sent as usize {
        let len = end.read(&mut piece).expect("bytes");
        for (at, byte) in piece[..len].iter().enumerate() {
            assert_eq!(*byte, block[(checked + at) % block.len()], "byte {}", checked + at);
        }
        checked += len;
    }
    // Without being asked.
    while heard < sent - WINDOW / 4 {
        heard = guest.receive().0.fwd_cnt.get();
    }
}

#[test]
fn a_guest_that_starts_anew_has_no_connections_and_one_that_pauses_keeps_them() {
    let bench = Bench::new();
    let mut guest = bench.guest();
    let mut end = bench.open(&mut guest, 1);
    let bases = guest.stop_rings();
    assert_eq!(bases[TRANSMIT], 1);
    end.write_all(b"while paused").expect("room");
    guest.start_rings(bases);
    assert_eq!(guest.receive().1, b"while paused");

    guest.stop_rings();
    guest.clear_rings();
    guest.start_rings([0, 0]);
    assert_eq!(end.read(&mut [0]).expect("the end"), 0);
    guest.give_buffers(8);
    guest.send(from(1, op::RW), b"x", &[1]);
    assert_eq!(told(&mut guest), (op::RST, 1, 0));
    bench.open(&mut guest, 1);
}

#[test]
fn front_ends_come_one_after_the_other() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        let mut guest = bench.guest();
        let mut end = bench.open(&mut guest, 1);
        drop(guest);
        assert!(matches!(bench.news(), News::Gone));
        assert_eq!(end.read(&mut [0]).expect("the end"), 0);
    }
    // One that says nothing, and one that talks nonsense.
    drop(UnixStream::connect(&bench.socket).expect("listening"));
    assert!(matches!(bench.news(), News::Gone));
    let mut nonsense = UnixStream::connect(&bench.socket).expect("listening");
    nonsense.write_all(&[0xFF; 64]).expect("room");
    assert!(matches!(bench.news(), News::Gone));

    let mut guest = bench.guest();
    let mut end = bench.open(&mut guest, 1);
    drop(bench.back_end.take());
    assert_eq!(end.read(&mut [0]).expect("the end"), 0);
    assert!(!bench.socket.exists());
    assert_eq!(bench.news.try_recv().err(), Some(std::sync::mpsc::TryRecvError::Disconnected));
}

#[test]
fn the_socket_is_private_and_the_cid_a_guests() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    let meta = std::fs::metadata(&bench.socket).expect("a socket");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let (sender, _news) = channel();
    let host = Arc::new(Reporter(Mutex::new(sender)));
    assert!(matches!(VhostUserVsock::listen(&bench.socket, CID, host.clone()), Err(Error::Socket(_))));
    for cid in [0, 1, 2, u32::MAX] {
        assert!(matches!(VhostUserVsock::listen(&bench.socket, cid, host.clone()), Err(Error::Cid(_))));
    }
}

#[test]
fn hostile_chains_come_back_and_do_nothing() {
    let bench = Bench::new();
    let mut guest = bench.guest();
    let mut end = bench.open(&mut guest, 1);
    // The header of the request is still in memory, but none of these holds all of it.
    let chains: &[&[(u64, u32, u16)]] = &[
        &[(0x3_0000, 43, 0)],
        &[(0x3_0000, 44, F_WRITE)],
        &[(MIN_BYTES - 4, 44, 0)],
        &[(u64::MAX - 4, 44, 0)],
        &[(0x2000_0000, 44, 0)],
        &[(0x3_1000, 17, F_INDIRECT)],
        &[(0x3_1000, !15, F_INDIRECT)],
        &[(u64::MAX - 15, 16, F_INDIRECT)],
        // An indirect table whose entry is itself one.
        &[(0x2_0000, 16, F_INDIRECT)],
    ];
    for chain in chains {
        guest.send_raw(chain, 0);
    }
    // A descriptor that does not exist.
    guest.send_raw(&[], 63);
    end.set_nonblocking(true).expect("a socket");
    assert_eq!(end.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    end.set_nonblocking(false).expect("a socket");

    // Data that are longer than what follows, than 2^32 bytes, or than any packet; and a chain that has no end.
    guest.send(from(1, op::RW), b"good", &[4]);
    end.read_exact(&mut [0; 4]).expect("still open");
    for (port, len, chain) in [
        (2, 100, &[(0x3_0000, 44, F_NEXT), (HIGH, 99, 0)][..]),
        (3, 100, &[(0x3_0000, 44, F_NEXT), (HIGH + MIN_BYTES - 99, 100, 0)]),
        (4, 100, &[(0x3_0000, 44, F_NEXT), (HIGH, u32::MAX, 0)]),
        (5, WINDOW + 1, &[(0x3_0000, 44, F_NEXT), (HIGH, WINDOW + 1, 0)]),
        (6, u32::MAX, &[(0x3_0000, 44, F_NEXT), (HIGH, 1 << 20, 0)]),
    ] {
        let mut end = bench.open(&mut guest, port);
        guest.write(0x3_0000, Header { len: len.into(), ..from(port, op::RW) });
        guest.send_raw(chain, 0);
        assert_eq!(told(&mut guest), (op::RST, port, 0));
        assert_eq!(end.read(&mut [0]).expect("the end"), 0);
    }
    guest.write(0x3_0000, Header { len: 200.into(), ..from(1, op::RW) });
    guest.send_endless(0x3_0000, 44);
    // Its 64 descriptors hold the header again and again: so much is there, and so much is sent.
    end.read_exact(&mut [0; 200]).expect("still open");
}

#[test]
fn a_ring_whose_index_jumps_is_left_alone_until_the_next_start() {
    let bench = Bench::new();
    let mut guest = bench.guest();
    let mut end = bench.open(&mut guest, 1);
    guest.break_ring(TRANSMIT);
    // The other ring still works, and the thread too.
    end.write_all(b"alive").expect("room");
    assert_eq!(guest.receive().1, b"alive");
    guest.stop_rings();
    guest.clear_rings();
    guest.start_rings([0, 0]);
    guest.give_buffers(8);
    bench.open(&mut guest, 2);
}
