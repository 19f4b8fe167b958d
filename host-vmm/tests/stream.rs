//! Sessions without shared memory, over a socket that stands for a virtual machine's vsock port.
#![allow(unsafe_code)] // The staging copies take raw pointers.

mod common;

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use common::{Client, Daemon, TIMEOUT, hello};
use protocol::handshake::{Capabilities, ControlWelcome, Hello, MAX_BODY, RefusalCode};
use protocol::region::Region;
use protocol::stream::Data;
use protocol::{Reader, Status, Writer, ops};
use transport::handshake::{Lanes, connect_control, connect_lane};
use transport::{Address, Connection, Error, GuestLane};

/// A daemon that listens at both kinds of socket.
fn daemon() -> (Daemon, Address, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let address = Address::UnixStream(dir.path().join("vm.vsock_17237"));
    let daemon = Daemon::start(&["--listen", &address.to_string()]);
    (daemon, address, dir)
}

struct Program {
    _control: Connection,
    welcome: ControlWelcome,
    lane: GuestLane,
}

fn open_lane(address: &Address, welcome: &ControlWelcome) -> Result<GuestLane, Error> {
    let region = Region::new(welcome.region_tag).unwrap();
    let hello = Hello::lane(welcome.token, region, 1);
    connect_lane(address, &hello, &Lanes::Streams(None), &welcome.limits, TIMEOUT)
}

fn open(address: &Address) -> Program {
    let (control, welcome, window) = connect_control(address, &hello(), TIMEOUT).unwrap();
    assert!(window.is_none());
    assert!(!welcome.capabilities.contains(Capabilities::RINGS));
    let lane = open_lane(address, &welcome).unwrap();
    Program { _control: control, welcome, lane }
}

impl Program {
    fn call(&mut self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> Result<Vec<u8>, Status> {
        let (mut body, mut reply) = (Vec::new(), Vec::new());
        write(&mut Writer::new(&mut body));
        let answer = self.lane.call(op, &body, &mut reply).unwrap();
        if answer.status.is_success() { Ok(reply) } else { Err(answer.status) }
    }

    fn word(&mut self, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> u64 {
        Reader::new(&self.call(op, write).unwrap()).u64().unwrap()
    }

    fn set_up(&mut self) {
        self.call(ops::cuInit, |w| w.u32(0)).unwrap();
        let context = self.word(ops::cuDevicePrimaryCtxRetain, |w| {
            w.present(true);
            w.i32(0);
        });
        let mut body = Vec::new();
        Writer::new(&mut body).u64(context);
        self.lane.post(ops::lane_set_context, &body).unwrap();
    }

    fn copies(&mut self) {
        let memory = self.word(ops::cuMemAlloc_v2, |w| {
            w.present(true);
            w.u64(100_000);
        });
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
        let len = bytes.len() as u64;
        let stage = |w: &mut Writer<'_>| {
            [memory, len, 0, len, 1, 0].into_iter().for_each(|word| w.u64(word));
            w.u32(1);
        };
        // SAFETY: a vector is readable for its length.
        unsafe { self.lane.copy_in(0, bytes.as_ptr(), bytes.len()) }.unwrap();
        self.call(ops::stage_in_last, stage).unwrap();
        let mut back = vec![0; bytes.len()];
        self.lane.fetch(0, len).unwrap();
        self.call(ops::stage_out_last, stage).unwrap();
        self.lane.wait_slot(0, self.lane.last_seq()).unwrap();
        // SAFETY: a vector of that length.
        unsafe { self.lane.copy_out(0, back.as_mut_ptr(), back.len()) }.unwrap();
        assert!(back == bytes);
    }
}

#[test]
fn both_kinds_of_session_work_at_once() {
    let (daemon, address, _dir) = daemon();
    let mut program = open(&address);
    program.set_up();
    program.copies();
    let mut second = open_lane(&address, &program.welcome).unwrap();
    second.call(ops::cuInit, &[0; 8], &mut Vec::new()).unwrap();
    daemon.assert_serves();
    program.copies();
}

#[test]
fn what_needs_shared_memory_is_refused() {
    let (_daemon, address, _dir) = daemon();
    let mut program = open(&address);
    program.set_up();
    let managed = program.call(ops::cuMemAllocManaged, |w| {
        w.present(true);
        w.u64(4096);
        w.u32(1);
    });
    assert_eq!(managed, Err(Status::NOT_SUPPORTED));
    let pinned = program.call(ops::cuMemHostAlloc, |w| {
        w.present(true);
        w.u64(4096);
        w.u32(0);
    });
    assert_eq!(pinned, Err(Status::NOT_SUPPORTED));
}

#[test]
fn a_token_opens_nothing_from_elsewhere() {
    let (daemon, address, _dir) = daemon();
    let program = open(&address);
    let local = Client::connect(&daemon.address);
    for (address, welcome) in [(&daemon.address, &program.welcome), (&address, &local.welcome)] {
        match open_lane(address, welcome) {
            Err(Error::Refused(refused)) => assert_eq!(refused.code, RefusalCode::TOKEN),
            other => panic!("{:?}", other.err()),
        }
    }
    open_lane(&address, &program.welcome).unwrap();
}

#[test]
fn a_session_that_must_share_memory_is_refused_where_it_cannot() {
    let (_daemon, address, _dir) = daemon();
    let connection = Connection::connect(&address, TIMEOUT).unwrap();
    let mut body = Vec::new();
    let hello = Hello { capabilities: Capabilities::SHARED_MEMORY, ..hello() };
    connection.send(&hello.encode(&mut body), &body, &[], TIMEOUT).unwrap();
    let received = connection.receive(MAX_BODY, TIMEOUT).unwrap();
    match ControlWelcome::decode(&received.header, &received.body) {
        Err(protocol::handshake::HandshakeError::Refused(refused)) => {
            assert_eq!(refused.code, RefusalCode::KIND);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hostile_stream_ends_its_session_and_no_other() {
    let (daemon, address, _dir) = daemon();
    let mut other = open(&address);
    other.set_up();
    let (_control, welcome, _) = connect_control(&address, &hello(), TIMEOUT).unwrap();
    let connection = Connection::connect(&address, TIMEOUT).unwrap();
    let mut body = Vec::new();
    let region = Region::new(welcome.region_tag).unwrap();
    let header = Hello::lane(welcome.token, region, 1).encode(&mut body);
    connection.send(&header, &body, &[], TIMEOUT).unwrap();
    connection.receive(MAX_BODY, TIMEOUT).unwrap();
    let mut stream = UnixStream::from(connection.into_fd());
    stream.write_all(&Data { offset: u64::MAX - 7, len: 8 }.encode()).unwrap();
    daemon.expect_log("malformed request");
    other.copies();
    daemon.assert_serves();
}

#[test]
fn the_end_of_the_program_ends_the_worker() {
    let (daemon, address, _dir) = daemon();
    let mut program = open(&address);
    program.set_up();
    assert_eq!(daemon.workers().len(), 1);
    drop(program);
    common::eventually(TIMEOUT, "the worker ends", || daemon.workers().is_empty());
}
