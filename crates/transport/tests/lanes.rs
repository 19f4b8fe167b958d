//! Lanes between two threads over real sockets.
#![allow(unsafe_code)] // The staging copies take raw pointers.
mod common;

use std::thread;
use std::time::Duration;

use common::{MAX_BODY, PLACEMENT, lane, lane_with};
use protocol::frame::{Flags, FrameHeader, Kind};
use protocol::lane::words;
use protocol::{LanePlacement, Status};
use std::sync::atomic::Ordering;
use transport::ring::Corrupt;
use transport::{Error, HostLane};

/// Answers sync requests with their body, completes every request, until the program goes.
fn echo(mut host: HostLane) -> u64 {
    let mut body = Vec::new();
    let mut frames = 0;
    while let Some(header) = host.next(&mut body).unwrap() {
        frames += 1;
        if header.kind == Kind::SYNC {
            host.reply(&header, Status::SUCCESS, Flags(header.op as u8), &body).unwrap();
        }
        host.complete(header.seq);
    }
    frames
}

#[test]
fn calls_and_posts_arrive_in_order() {
    let (mut guest, host, _) = lane();
    let worker = thread::spawn(|| echo(host));
    let mut reply = vec![9; 99];
    for round in 0..200u64 {
        let body: Vec<u8> = (0..round % 40 * 8).map(|i| (i + round) as u8).collect();
        assert_eq!(guest.post(1, &body).unwrap(), 2 * round + 1);
        let result = guest.call(7, &body, &mut reply).unwrap();
        assert_eq!((result.status, result.flags), (Status::SUCCESS, Flags(7)));
        assert_eq!(reply, body);
        assert_eq!(guest.last_seq(), 2 * round + 2);
        guest.wait_completed(guest.last_seq()).unwrap();
        assert_eq!(guest.completed(), guest.last_seq());
    }
    drop(guest);
    assert_eq!(worker.join().unwrap(), 400);
}

#[test]
fn a_reply_is_received_later() {
    let (mut guest, host, _) = lane();
    let worker = thread::spawn(|| echo(host));
    let mut reply = Vec::new();
    for round in 0..50u64 {
        let sent = guest.send(7, &round.to_le_bytes()).unwrap();
        let result = guest.receive(sent, &mut reply).unwrap();
        assert_eq!((result.status, &reply[..]), (Status::SUCCESS, &round.to_le_bytes()[..]));
    }
    // Never received: the lane is of no more use.
    drop(guest.send(1, &[]).unwrap());
    let result = guest.call(2, &[], &mut reply);
    assert!(matches!(result, Err(Error::Unexpected { field: "reply number", .. })), "{result:?}");
    assert!(matches!(guest.send(1, &[]), Err(Error::Dead)));
    drop(guest);
    assert_eq!(worker.join().unwrap(), 52);
}

#[test]
fn a_million_small_frames() {
    const FRAMES: u64 = 1_000_000;
    let placement = LanePlacement { request_ring_len: 65536, reply_ring_len: 65536, ..PLACEMENT };
    let (mut guest, mut host, _) = lane_with(placement, MAX_BODY);
    // Every frame carries a number; every 50000th is a sync one that asks for the sum so far.
    let worker = thread::spawn(move || {
        let (mut body, mut sum, mut count) = (Vec::new(), 0u64, 0);
        while let Some(header) = host.next(&mut body).unwrap() {
            count += 1;
            assert_eq!(header.seq, count);
            assert_eq!(body.len() as u64, 8 + header.seq % 3 * 8);
            sum = sum.wrapping_add(u64::from_le_bytes(*body.first_chunk().unwrap()));
            if header.kind == Kind::SYNC {
                host.reply(&header, Status::SUCCESS, Flags::NONE, &sum.to_le_bytes()).unwrap();
            }
        }
        count
    });
    let (mut sum, mut reply) = (0u64, Vec::new());
    for i in 1..=FRAMES {
        let value = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sum = sum.wrapping_add(value);
        let mut body = [0xff; 24];
        body[..8].copy_from_slice(&value.to_le_bytes());
        let body = &body[..8 + (i % 3 * 8) as usize];
        if i % 50_000 == 0 {
            guest.call(2, body, &mut reply).unwrap();
            assert_eq!(reply, sum.to_le_bytes());
        } else {
            guest.post(2, body).unwrap();
        }
    }
    drop(guest);
    assert_eq!(worker.join().unwrap(), FRAMES);
}

#[test]
fn a_hundred_thousand_round_trips() {
    let (mut guest, host, _) = lane();
    let worker = thread::spawn(|| echo(host));
    let mut reply = Vec::new();
    for i in 0..100_000u64 {
        guest.call(3, &i.to_le_bytes(), &mut reply).unwrap();
        assert_eq!(reply, i.to_le_bytes());
    }
    drop(guest);
    assert_eq!(worker.join().unwrap(), 100_000);
}

#[test]
fn a_full_ring_blocks_until_the_worker_reads() {
    let (mut guest, mut host, _) = lane();
    let body = [1; 1000];
    let poster = thread::spawn(move || {
        for _ in 0..100 {
            guest.post(1, &body).unwrap();
        }
        guest
    });
    // 8 frames fit in the ring of 8192 bytes: the poster must be asleep after this time.
    thread::sleep(Duration::from_millis(100));
    assert!(!poster.is_finished());
    let mut received = Vec::new();
    for seq in 1..=100 {
        assert_eq!(host.next(&mut received).unwrap().unwrap().seq, seq);
        assert_eq!(received, body);
    }
    drop(poster.join().unwrap());
    assert!(host.next(&mut received).unwrap().is_none());
}

#[test]
fn frames_that_were_sent_before_the_end_are_delivered() {
    let (mut guest, mut host, _) = lane();
    guest.post(1, &[]).unwrap();
    guest.post(2, &[0; 8]).unwrap();
    drop(guest);
    let mut body = Vec::new();
    assert_eq!(host.next(&mut body).unwrap().unwrap().op, 1);
    assert_eq!(host.next(&mut body).unwrap().unwrap().op, 2);
    assert!(host.next(&mut body).unwrap().is_none());
    assert!(matches!(host.next(&mut body), Err(Error::Dead)));
}

#[test]
fn hang_up_ends_every_wait_of_the_program() {
    type Wait = fn(&mut transport::GuestLane) -> Result<(), Error>;
    let waits: [(&str, Wait); 3] = [
        ("call", |guest| guest.call(1, &[], &mut Vec::new()).map(drop)),
        ("post", |guest| {
            loop {
                guest.post(1, &[0; 2000])?;
            }
        }),
        ("wait_completed", |guest| {
            guest.post(1, &[])?;
            guest.wait_completed(1)
        }),
    ];
    for (name, wait) in waits {
        let (mut guest, host, _) = lane();
        let waiter = thread::spawn(move || {
            let result = wait(&mut guest);
            (result, guest)
        });
        thread::sleep(Duration::from_millis(50));
        assert!(!waiter.is_finished(), "{name}");
        drop(host);
        let (result, mut guest) = waiter.join().unwrap();
        assert!(matches!(result, Err(Error::HungUp)), "{name}: {result:?}");
        assert!(guest.is_closed());
        assert!(matches!(guest.post(1, &[]), Err(Error::Dead)), "{name}");
        assert!(matches!(guest.wait_completed(u64::MAX), Err(Error::Dead)), "{name}");
    }
}

#[test]
fn hang_up_ends_every_wait_of_the_worker() {
    let (guest, mut host, _) = lane();
    let waiter = thread::spawn(move || host.next(&mut Vec::new()).map(|frame| frame.is_some()));
    thread::sleep(Duration::from_millis(50));
    assert!(!waiter.is_finished());
    drop(guest);
    assert!(!waiter.join().unwrap().unwrap());

    // A program that takes no replies: the reply ring fills.
    let (guest, mut host, _) = lane();
    let waiter = thread::spawn(move || {
        let request = FrameHeader::new(Kind::SYNC, 1, 1, 0);
        loop {
            if let Err(error) = host.reply(&request, Status::SUCCESS, Flags::NONE, &[0; 512]) {
                return (error, host.next(&mut Vec::new()));
            }
        }
    });
    thread::sleep(Duration::from_millis(50));
    assert!(!waiter.is_finished());
    drop(guest);
    let (error, after) = waiter.join().unwrap();
    assert!(matches!(error, Error::HungUp), "{error:?}");
    assert!(matches!(after, Err(Error::Dead)));
}

#[test]
fn the_worker_hangs_up_though_signals_are_held() {
    let (mut guest, host, _) = lane();
    let signals = host.signals();
    drop(host);
    assert!(matches!(guest.call(1, &[], &mut Vec::new()), Err(Error::HungUp)));
    signals.complete(1);
    signals.latch(Status::UNKNOWN);
    assert_eq!(guest.take_latched(), Some(Status::UNKNOWN));
}

#[test]
fn the_first_latched_error_wins() {
    let (mut guest, host, _) = lane();
    assert_eq!(guest.take_latched(), None);
    let signals = host.signals();
    signals.latch(Status::SUCCESS);
    assert_eq!(guest.take_latched(), None);
    thread::spawn(move || signals.latch(Status::ILLEGAL_ADDRESS)).join().unwrap();
    host.latch(Status::OUT_OF_MEMORY);
    assert_eq!(guest.take_latched(), Some(Status::ILLEGAL_ADDRESS));
    assert_eq!(guest.take_latched(), None);
    host.latch(Status::OUT_OF_MEMORY);
    assert_eq!(guest.take_latched(), Some(Status::OUT_OF_MEMORY));
}

#[test]
fn completion_comes_from_any_thread_and_never_goes_back() {
    let (mut guest, host, _) = lane();
    let signals = host.signals();
    for _ in 0..5 {
        guest.post(1, &[]).unwrap();
    }
    let completer = thread::spawn(move || {
        for seq in [1, 3, 2, 5, 4] {
            thread::sleep(Duration::from_millis(20));
            signals.complete(seq);
        }
    });
    guest.wait_completed(3).unwrap();
    assert!(guest.completed() >= 3);
    guest.wait_completed(5).unwrap();
    completer.join().unwrap();
    assert_eq!(guest.completed(), 5);
}

#[test]
fn slots_are_free_in_any_order() {
    let (mut guest, mut host, _) = lane();
    let mut body = Vec::new();
    assert!(host.poll(&mut body).unwrap().is_none());
    assert!(host.poll_for(&mut body, Duration::from_millis(1)).unwrap().is_none());
    let worker = thread::spawn(move || {
        let mut taken = Vec::new();
        while taken.len() < 3 {
            taken.extend(host.poll_for(&mut body, Duration::from_secs(5)).unwrap());
        }
        assert!(taken.iter().map(|header: &FrameHeader| header.seq).eq(1..=3));
        // The last one first; the first two while the program sleeps.
        host.complete(3);
        for (slot, seq) in [(31, 3), (1, 2), (0, 1)] {
            thread::sleep(Duration::from_millis(20));
            host.complete_slot(slot, seq);
        }
        while host.next(&mut body).unwrap().is_some() {}
    });
    for _ in 0..3 {
        guest.post(1, &[]).unwrap();
    }
    guest.wait_slot(31, 3).unwrap();
    guest.wait_slot(0, 1).unwrap();
    guest.wait_slot(1, 2).unwrap();
    guest.wait_slot(7, 0).unwrap();
    drop(guest);
    worker.join().unwrap();
}

#[test]
fn staging_is_shared_and_bounded() {
    let (mut guest, host, _) = lane();
    let from: Vec<u8> = (0..8192u32).map(|i| (i * 7) as u8).collect();
    let mut to = vec![0; 8192];
    assert_eq!((guest.staging_len(), host.staging_len()), (8192, 8192));
    assert_eq!(host.staging_window_offset(), PLACEMENT.staging());
    // SAFETY: vectors of 8192 bytes, not in the staging area.
    unsafe {
        guest.copy_in(0, from.as_ptr(), 8192).unwrap();
        host.copy_out(0, to.as_mut_ptr(), 8192).unwrap();
        assert_eq!(to, from);
        host.copy_in(8000, from.as_ptr(), 192).unwrap();
        guest.copy_out(8000, to.as_mut_ptr(), 192).unwrap();
        assert_eq!(to[..192], from[..192]);
        for (offset, len) in [(0, 8193), (8192, 1), (u64::MAX, 1), (u64::MAX, 8192)] {
            assert!(matches!(guest.copy_in(offset, from.as_ptr(), len), Err(Error::Bounds { .. })));
            assert!(matches!(guest.copy_out(offset, to.as_mut_ptr(), len), Err(Error::Bounds { .. })));
            assert!(matches!(host.copy_in(offset, from.as_ptr(), len), Err(Error::Bounds { .. })));
            assert!(matches!(host.copy_out(offset, to.as_mut_ptr(), len), Err(Error::Bounds { .. })));
            assert!(host.staging(offset, len as u64).is_err() && guest.staging(offset, len as u64).is_err());
        }
    }
    assert!(guest.staging(8192, 0).is_ok());
}

#[test]
fn bodies_are_bounded_and_the_lane_survives_a_refusal() {
    let (mut guest, host, _) = lane();
    for len in [4, 4008, 100_000] {
        assert!(matches!(guest.post(1, &vec![0; len]), Err(Error::BodyLen { .. })), "{len}");
        assert!(matches!(guest.call(1, &vec![0; len], &mut Vec::new()), Err(Error::BodyLen { .. })), "{len}");
    }
    let worker = thread::spawn(|| {
        let mut host = host;
        let mut body = Vec::new();
        let header = host.next(&mut body).unwrap().unwrap();
        let too_long = host.reply(&header, Status::SUCCESS, Flags::NONE, &[0; 4008]);
        assert!(matches!(too_long, Err(Error::BodyLen { .. })));
        let error_with_body = host.reply(&header, Status::NOT_FOUND, Flags::NONE, &[0; 8]);
        assert!(matches!(error_with_body, Err(Error::BodyLen { .. })));
        host.reply(&header, Status::NOT_FOUND, Flags::NONE, &[]).unwrap();
        echo(host)
    });
    let mut reply = vec![1];
    assert_eq!(guest.call(1, &[5; 4000], &mut reply).unwrap().status, Status::NOT_FOUND);
    assert_eq!(reply, []);
    guest.call(1, &[6; 4000], &mut reply).unwrap();
    assert_eq!(reply, [6; 4000]);
    drop(guest);
    assert_eq!(worker.join().unwrap(), 1);
}

/// Writes a raw request where the worker expects the first one.
fn forge(window: &transport::Window, header: [u8; 24], tail: u64) {
    window.copy_in(PLACEMENT.request_ring(), &header).unwrap();
    window.word(PLACEMENT.offset + words::REQUEST_TAIL).unwrap().store(tail, Ordering::Release);
}

#[test]
fn violations_by_the_program_end_the_lane() {
    let good = FrameHeader::new(Kind::POSTED, 1, 1, 0);
    let cases: [(&str, FrameHeader, u64); 10] = [
        ("kind reply", FrameHeader { kind: Kind::REPLY, ..good }, 24),
        ("kind hello", FrameHeader { kind: Kind::HELLO, ..good }, 24),
        ("kind 0", FrameHeader { kind: Kind(0), ..good }, 24),
        ("number 0", FrameHeader { seq: 0, ..good }, 24),
        ("number 2", FrameHeader { seq: 2, ..good }, 24),
        ("body not published", FrameHeader { len: 8, ..good }, 24),
        ("body above the limit", FrameHeader { len: 4008, ..good }, 8192),
        ("half a header", good, 16),
        ("tail not aligned", good, 25),
        ("tail beyond the capacity", good, 8200),
    ];
    for (name, header, tail) in cases {
        let (_guest, mut host, window) = lane();
        forge(&window, header.encode(), tail);
        let error = host.next(&mut Vec::new()).unwrap_err();
        assert!(error.is_violation(), "{name}: {error:?}");
        assert!(matches!(host.next(&mut Vec::new()), Err(Error::Dead)), "{name}");
        assert!(matches!(host.reply(&good, Status::SUCCESS, Flags::NONE, &[]), Err(Error::Dead)), "{name}");
    }
    // The same forgery without a fault is accepted: the cases above fail for the reason they name.
    let (_guest, mut host, window) = lane();
    forge(&window, good.encode(), 24);
    assert_eq!(host.next(&mut Vec::new()).unwrap(), Some(good));
    // Going back is a violation, too.
    forge(&window, good.encode(), 16);
    assert!(matches!(host.next(&mut Vec::new()), Err(Error::Corrupt(Corrupt::Index { value: 16, .. }))));
}

#[test]
fn a_reply_ring_that_lies_is_a_violation() {
    for head in [12, 1 << 63, 4096 * 2] {
        let (_guest, mut host, window) = lane();
        let request = FrameHeader::new(Kind::SYNC, 1, 1, 0);
        window.word(PLACEMENT.offset + words::REPLY_HEAD).unwrap().store(head, Ordering::Release);
        let error = (0..10)
            .find_map(|_| host.reply(&request, Status::SUCCESS, Flags::NONE, &[0; 1024]).err())
            .expect("the ring must be full by now");
        assert!(error.is_violation(), "head {head:#x}: {error:?}");
    }
}

#[test]
fn replies_that_do_not_belong_are_errors() {
    let good = FrameHeader::new(Kind::REPLY, 5, 1, 0);
    let cases: [(&str, FrameHeader); 4] = [
        ("number", FrameHeader { seq: 2, ..good }),
        ("operation", FrameHeader { op: 6, ..good }),
        ("kind", FrameHeader { kind: Kind::SYNC, ..good }),
        ("error with body", FrameHeader { status: Status::NOT_FOUND, len: 8, ..good }),
    ];
    for (name, header) in cases.into_iter().chain([("good", good)]) {
        let (mut guest, _host, window) = lane();
        window.copy_in(PLACEMENT.reply_ring(), &header.encode()).unwrap();
        let tail = 24 + u64::from(header.len);
        window.word(PLACEMENT.offset + words::REPLY_TAIL).unwrap().store(tail, Ordering::Release);
        let result = guest.call(5, &[], &mut Vec::new());
        if name == "good" {
            assert!(result.is_ok());
        } else {
            assert!(result.unwrap_err().is_violation(), "{name}");
            assert!(matches!(guest.post(5, &[]), Err(Error::Dead)), "{name}");
        }
    }
}

#[test]
fn a_latched_word_that_is_no_status_is_unknown() {
    let (mut guest, _host, window) = lane();
    window.word(PLACEMENT.offset + words::LATCHED).unwrap().store(1 << 40, Ordering::Release);
    assert_eq!(guest.take_latched(), Some(Status::UNKNOWN));
}

#[test]
fn a_parked_word_that_lies_costs_a_ring_at_most() {
    // The worker must not block on a program that claims to sleep and never reads its socket.
    let (mut guest, mut host, window) = lane();
    let parked = window.word(PLACEMENT.offset + words::GUEST_PARKED).unwrap();
    for counter in [1u64, 2, 3] {
        for _ in 0..2000 {
            parked.store(counter << 62, Ordering::Release);
            host.complete(1);
        }
    }
    guest.post(1, &[]).unwrap();
    assert!(host.next(&mut Vec::new()).unwrap().is_some());
}
