//! Lanes whose words, frames and bytes a program changes as it likes.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocol::frame::{FrameHeader, HEADER_LEN, Kind};
use protocol::handshake::{Hello, LaneWelcome, MAX_BODY, RefusalCode, Token};
use protocol::lane::{LanePlacement, SLOTS, words};
use protocol::ops;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use transport::{Connection, Error, Window};

use super::Scene;
use super::common::machine::{Machine, Program};
use super::common::{self, Daemon, TIMEOUT, eventually, open_lane};

/// A lane without the library's end.
struct RawLane {
    connection: Connection,
    window: Arc<Window>,
    place: LanePlacement,
    tail: u64,
    seq: u64,
}

impl RawLane {
    fn open(program: &mut Program, machine: &mut Machine) -> Self {
        let (address, window) = (program.address.clone(), Arc::clone(&program.window));
        let hello = Hello::lane(program.welcome.token, program.region, 1);
        let opening = std::thread::spawn(move || {
            let connection = Connection::connect(&address, TIMEOUT).unwrap();
            let mut body = Vec::new();
            connection.send(&hello.encode(&mut body), &body, &[], TIMEOUT).unwrap();
            let received = connection.receive(MAX_BODY, TIMEOUT).unwrap();
            (connection, LaneWelcome::decode(&received.header, &received.body).unwrap())
        });
        program.grow(machine, 2 << 20);
        let (connection, welcome) = opening.join().unwrap();
        Self { connection, window, place: welcome.placement, tail: 0, seq: 0 }
    }

    fn word(&self, word: u64) -> &AtomicU64 {
        self.window.word(self.place.offset + word).unwrap()
    }

    /// Writes bytes to the request ring, says that it ends behind them, and rings.
    fn publish(&mut self, bytes: &[u8]) {
        let (ring, len) = (self.place.request_ring(), u64::from(self.place.request_ring_len));
        let at = self.tail % len;
        let (before_wrap, after_wrap) = bytes.split_at(bytes.len().min((len - at) as usize));
        self.window.copy_in(ring + at, before_wrap).unwrap();
        self.window.copy_in(ring, after_wrap).unwrap();
        self.tail += bytes.len() as u64;
        self.set_tail(self.tail);
    }

    fn set_tail(&self, tail: u64) {
        self.word(words::REQUEST_TAIL).store(tail, Ordering::SeqCst);
        self.ring();
    }

    fn ring(&self) {
        // Fails if the lane has been closed.
        let _ = send(&self.connection, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    fn next(&mut self, kind: Kind, op: u16, len: u32) -> FrameHeader {
        self.seq += 1;
        FrameHeader::new(kind, op, self.seq, len)
    }

    /// A call that is as it should be; whether it was answered before the lane was closed.
    fn call(&mut self) -> bool {
        let before = self.word(words::REPLY_TAIL).load(Ordering::SeqCst);
        let header = self.next(Kind::SYNC, ops::cuCtxSynchronize, 0);
        self.publish(&header.encode());
        let begin = Instant::now();
        while self.word(words::REPLY_TAIL).load(Ordering::SeqCst) == before {
            if self.is_closed() {
                return false;
            }
            assert!(begin.elapsed() < TIMEOUT, "neither an answer nor an end");
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn is_closed(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(self.connection.as_fd(), PollFlags::RDHUP)];
        poll(&mut fds, Some(&now)).unwrap() > 0
    }
}

/// What must become of the lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Ends,
    Serves,
}

#[test]
fn words_that_jump_and_frames_that_lie_end_the_session_or_nothing() {
    use Fate::{Ends, Serves};
    type Case = (&'static str, Fate, fn(&mut RawLane));
    const CASES: [Case; 30] = [
        ("nothing", Serves, |_| {}),
        ("tail of part of a word", Ends, |lane| lane.set_tail(4)),
        ("tail of part of a header", Ends, |lane| lane.set_tail(8)),
        ("tail without a frame", Ends, |lane| lane.set_tail(64)),
        ("tail of the whole ring", Ends, |lane| lane.set_tail(lane.place.request_ring_len.into())),
        ("tail beyond the ring", Ends, |lane| lane.set_tail(u64::from(lane.place.request_ring_len) + 8)),
        ("tail far away", Ends, |lane| lane.set_tail(1 << 40)),
        ("last tail", Ends, |lane| lane.set_tail(u64::MAX - 7)),
        ("odd last tail", Ends, |lane| lane.set_tail(u64::MAX)),
        ("tail that goes back", Ends, |lane| {
            assert!(lane.call() && lane.call());
            lane.set_tail(HEADER_LEN as u64);
        }),
        ("tail that starts again", Ends, |lane| {
            assert!(lane.call());
            lane.set_tail(0);
        }),
        ("half a frame", Ends, |lane| {
            let header = lane.next(Kind::SYNC, ops::cuMemAlloc_v2, 16);
            lane.publish(&[&header.encode()[..], &[0; 8]].concat());
        }),
        ("a header of which half is published", Ends, |lane| {
            let header = lane.next(Kind::SYNC, ops::cuCtxSynchronize, 0);
            lane.publish(&header.encode()[..16]);
        }),
        ("a body across the end of what is published", Ends, |lane| {
            let header = lane.next(Kind::POSTED, ops::image_chunk, lane.place.request_ring_len);
            lane.publish(&header.encode());
        }),
        ("the longest body", Ends, |lane| {
            let header = lane.next(Kind::POSTED, ops::image_chunk, u32::MAX - 7);
            lane.publish(&header.encode());
        }),
        ("an odd body", Ends, |lane| {
            let header = lane.next(Kind::POSTED, ops::image_chunk, 12);
            lane.publish(&[&header.encode()[..], &[0; 16]].concat());
        }),
        ("no magic", Ends, |lane| lane.publish(&[0; HEADER_LEN])),
        ("a reply", Ends, |lane| {
            let header = lane.next(Kind::REPLY, ops::cuCtxSynchronize, 0);
            lane.publish(&header.encode());
        }),
        ("a frame of a stream", Ends, |lane| {
            let header = lane.next(Kind::DATA, 0, 0);
            lane.publish(&header.encode());
        }),
        ("a frame again", Ends, |lane| {
            assert!(lane.call());
            lane.seq -= 1;
            lane.call();
        }),
        ("a number left out", Ends, |lane| {
            lane.seq += 1;
            lane.call();
        }),
        ("number 0", Ends, |lane| {
            lane.seq = u64::MAX - 1;
            lane.publish(&FrameHeader::new(Kind::SYNC, ops::cuCtxSynchronize, 0, 0).encode());
        }),
        ("two frames, each in the other", Ends, |lane| {
            let (a, b) =
                (lane.next(Kind::SYNC, ops::cuMemAlloc_v2, 16), lane.next(Kind::SYNC, ops::cuInit, 8));
            lane.publish(&[&a.encode()[..12], &b.encode()[..], &a.encode()[12..], &[0; 24]].concat());
        }),
        ("operations that are none", Serves, |lane| {
            for op in [0, 0xfffe, 0xffff] {
                let header = lane.next(Kind::SYNC, op, 0);
                lane.publish(&header.encode());
            }
        }),
        ("the host's head", Serves, |lane| {
            for value in [8, u64::MAX, 0] {
                lane.word(words::REQUEST_HEAD).store(value, Ordering::SeqCst);
                assert!(lane.call());
            }
        }),
        ("the host's tail", Serves, |lane| {
            lane.word(words::REPLY_TAIL).store(u64::MAX - 7, Ordering::SeqCst);
            assert!(lane.call());
        }),
        ("completion", Serves, |lane| {
            for value in [1, u64::MAX, 0] {
                lane.word(words::COMPLETED).store(value, Ordering::SeqCst);
                lane.word(words::LATCHED).store(value, Ordering::SeqCst);
                for slot in 0..SLOTS {
                    lane.word(words::SLOTS + slot * 8).store(value, Ordering::SeqCst);
                }
                assert!(lane.call());
            }
        }),
        ("parked words", Serves, |lane| {
            for value in [0, 1 << 62, 2 << 62, 3 << 62, u64::MAX, 1 << 62 | 1 << 61] {
                lane.word(words::HOST_PARKED).store(value, Ordering::SeqCst);
                lane.word(words::GUEST_PARKED).store(value, Ordering::SeqCst);
                assert!(lane.call());
            }
        }),
        ("bells", Serves, |lane| (0..10_000).for_each(|_| lane.ring())),
        ("a reply head that jumps", Ends, |lane| {
            // It is looked at when the ring seems to be full.
            lane.word(words::REPLY_HEAD).store(u64::MAX - 7, Ordering::SeqCst);
            let answers = lane.place.reply_ring_len as usize / HEADER_LEN + 2;
            (0..answers).take_while(|_| lane.call()).count();
        }),
    ];
    let mut scene = Scene::start();
    for (what, fate, attack) in CASES {
        let mut program = scene.attacker();
        let mut lane = RawLane::open(&mut program, &mut scene.machine);
        attack(&mut lane);
        let daemon = &scene.machine.daemon;
        if fate == Fate::Ends {
            eventually(TIMEOUT, what, || lane.is_closed() && daemon.workers().len() == 1);
        } else {
            assert!(lane.call(), "{what}");
        }
        scene.check();
        drop(lane);
        scene.machine.end(program);
        scene.check_alone();
    }
}

#[test]
fn lanes_belong_to_who_has_the_token_at_the_same_machine() {
    let mut scene = Scene::start();
    let elsewhere = Daemon::start(&[]);
    let program = scene.attacker();
    let refused = |address: &transport::Address, token: Token| {
        let mut welcome = program.welcome.clone();
        welcome.token = token;
        match open_lane(address, &welcome, &program.window) {
            Err(Error::Refused(refused)) => refused.code,
            other => panic!("{:?}", other.map(drop)),
        }
    };
    let machine = scene.machine.address();
    let theirs = scene.neighbour.welcome.token;
    for token in [Token::NONE, Token([7; 16]), Token([0xff; 16])] {
        assert_eq!(refused(&machine, token), RefusalCode::TOKEN);
    }
    for flipped in 0..16 {
        let mut token = theirs.0;
        token[flipped] ^= 1 << (flipped % 8);
        assert_eq!(refused(&machine, Token(token)), RefusalCode::TOKEN);
    }
    // The right one, at a place where that machine's programs do not call, and at another daemon.
    assert_eq!(refused(&scene.machine.daemon.address, theirs), RefusalCode::TOKEN);
    assert_eq!(refused(&elsewhere.address, theirs), RefusalCode::TOKEN);
    // The host's own program has a session; the machine's programs have no way to it.
    let host = common::Client::connect(&scene.machine.daemon.address);
    assert_eq!(refused(&machine, host.welcome.token), RefusalCode::TOKEN);
    drop(host);
    scene.machine.end(program);
    scene.check_alone();
}

/// How long bytes are changed under the host's hands.
const LONG: Duration = Duration::from_secs(2);
/// A program's life under them.
const LIFE: Duration = Duration::from_millis(250);

/// A generator of numbers that are the same in each run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Flips bits of a lane's block, mostly where requests and staged bytes are, until told to stop.
fn flip(window: &Window, place: LanePlacement, seed: u64, stop: &AtomicBool) -> u64 {
    let mut numbers = Numbers(seed);
    let mut flipped = 0;
    while !stop.load(Ordering::Relaxed) {
        let number = numbers.next();
        // Staged bytes are the first of the area: what is written there is read there.
        let (start, len) = match number % 16 {
            0 => (place.offset, 0x600),
            1..=3 => (place.reply_ring(), 4096),
            4..=9 => (place.request_ring(), u64::from(place.request_ring_len)),
            _ => (place.staging(), 8192.min(u64::from(place.staging_len))),
        };
        let word = window.word(start + ((numbers.next() % len) & !7)).unwrap();
        word.fetch_xor(1 << (numbers.next() % 64), Ordering::Relaxed);
        flipped += 1;
        // Now in bursts, now after a request has gone through.
        if number >> 60 == 0 {
            std::thread::sleep(Duration::from_micros((number >> 32) & 0x1ff));
        }
    }
    flipped
}

#[test]
fn bytes_that_change_while_they_are_read_harm_nobody_else() {
    let mut scene = Scene::start();
    let begin = Instant::now();
    let (mut lives, mut flipped, mut answered) = (0, 0, 0);
    while begin.elapsed() < LONG || lives < 4 {
        let mut program = scene.attacker();
        let mut client = program.client(&mut scene.machine);
        client.set_up();
        let memory = client.alloc(1 << 20).unwrap();
        let place = client.placement;
        let (window, control) = (Arc::clone(&program.window), Arc::clone(&program.control));
        let stop = AtomicBool::new(false);
        let stop = &stop;
        std::thread::scope(|scope| {
            let flipping = scope.spawn(move || flip(&window, place, 0x5eed + lives, stop));
            // Whatever the two sides have come to wait for, this ends it.
            let ending = scope.spawn(move || {
                std::thread::sleep(LIFE);
                let _ = rustix::net::shutdown(&*control, rustix::net::Shutdown::Both);
            });
            answered += requests(&mut client, memory, Instant::now() + LIFE);
            ending.join().unwrap();
            stop.store(true, Ordering::Relaxed);
            flipped += flipping.join().unwrap();
        });
        drop(client);
        scene.check();
        scene.machine.end(program);
        lives += 1;
    }
    scene.check_alone();
    println!("{lives} programs, {flipped} bits flipped, {answered} requests answered");
    assert!(answered > lives && flipped > 10_000, "{answered} {flipped}");
}

/// Requests of many kinds, until the lane is closed.
fn requests(client: &mut common::Client, memory: u64, end: Instant) -> u64 {
    let ptx = common::KERNELS.as_bytes();
    let hash = *blake3::hash(ptx).as_bytes();
    let staging = client.placement.staging();
    let mut answered = 0;
    let mut reply = Vec::new();
    let mut body = Vec::new();
    while Instant::now() < end {
        let len = 4096 + answered % 4096;
        let _ = client.window.copy_in(staging, &ptx[..ptx.len().min(8192)]);
        for step in 0..6 {
            let mut w = protocol::Writer::new(&mut body);
            let (posted, op) = match step {
                0 => {
                    w.bytes(Some(&hash));
                    [0, 0, ptx.len() as u64].into_iter().for_each(|word| w.u64(word));
                    (true, ops::image_chunk)
                }
                1 => {
                    w.bytes(Some(&hash));
                    w.u64(ptx.len() as u64);
                    (false, ops::image_commit)
                }
                2 => {
                    w.u32(1);
                    w.bytes(Some(&hash));
                    w.bytes(Some(&1u32.to_le_bytes()));
                    w.bytes(Some(&[]));
                    (0..4).for_each(|_| w.present(true));
                    (false, ops::module_load)
                }
                3 | 4 => {
                    [memory, len, 0, len, 1, 0].into_iter().for_each(|word| w.u64(word));
                    w.u32(0);
                    (false, if step == 3 { ops::stage_in_last } else { ops::stage_out_last })
                }
                _ => {
                    [memory + 8192, memory, len, 0].into_iter().for_each(|word| w.u64(word));
                    (true, ops::copy)
                }
            };
            let done = if posted {
                client.lane.post(op, &body).map(drop)
            } else {
                client.lane.call(op, &body, &mut reply).map(drop)
            };
            if done.is_err() {
                return answered;
            }
            answered += 1;
        }
    }
    answered
}
