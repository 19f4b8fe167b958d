//! Lanes without shared memory: what they carry, in what order, and what they do with a side that is slow.
#![allow(unsafe_code)] // The staging copies take raw pointers.
#[path = "../common/mod.rs"]
mod common;
mod peers;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{MAX_BODY, PLACEMENT, TIMEOUT, windows};
use proptest::prelude::*;
use protocol::frame::{Flags, FrameHeader, HEADER_LEN, Kind};
use protocol::handshake::{LaneWelcome, Limits};
use protocol::lane::{SLOTS, slot_at};
use protocol::stream::{After, Data, NO_SLOT, Watch};
use protocol::{LanePlacement, Reader, Status, Writer};
use transport::stream::{MAX_WATCHES, SEND_LEN};
use transport::{Connection, Error, Flusher, GuestLane, HostLane, StreamLanes};

const STAGING: u32 = 1 << 20;

fn limits() -> Limits {
    Limits { max_body_len: MAX_BODY, staging_len: STAGING, ..Limits::default() }
}

fn welcome(lane: u32) -> LaneWelcome {
    let placement = LanePlacement { staging_len: STAGING, ..PLACEMENT };
    LaneWelcome { version: 1, lane, placement }
}

/// The worker's end and the other end's connection, after the handshake.
fn host_end(lanes: &Arc<StreamLanes>, lane: u32) -> (HostLane, Connection) {
    let welcome = welcome(lane);
    let (window, _) = windows(welcome.placement.offset + welcome.placement.block_len());
    let (ours, theirs) = Connection::pair().unwrap();
    let host = HostLane::welcome_stream(ours, window, lanes, &welcome, MAX_BODY, TIMEOUT).unwrap();
    let received = theirs.receive(4096, TIMEOUT).unwrap();
    assert_eq!(LaneWelcome::decode(&received.header, &received.body).unwrap(), welcome);
    (host, theirs)
}

fn lane_in(lanes: &Arc<StreamLanes>, lane: u32, flusher: Option<&Arc<Flusher>>) -> (GuestLane, HostLane) {
    let (host, theirs) = host_end(lanes, lane);
    (GuestLane::stream(theirs, &welcome(lane), &limits(), flusher).unwrap(), host)
}

fn lane(flusher: Option<&Arc<Flusher>>) -> (GuestLane, HostLane) {
    lane_in(&Arc::default(), 1, flusher)
}

/// A flusher that nobody runs: what is posted stays until something sends it.
fn lazy() -> Option<Arc<Flusher>> {
    Some(Arc::default())
}

/// A program's end that is not ours: raw bytes.
fn raw() -> (UnixStream, HostLane) {
    let (host, theirs) = host_end(&Arc::default(), 1);
    (UnixStream::from(theirs.into_fd()), host)
}

fn frame(header: &FrameHeader, body: &[u8]) -> Vec<u8> {
    [&header.encode()[..], body].concat()
}

/// Operations of the worker below.
const TO_DEVICE: u16 = 1;
const FROM_DEVICE: u16 = 2;
const SUM: u16 = 3;
const FAIL: u16 = 4;
const ECHO: u16 = 5;

/// A worker with a memory of its own: copies between it and the staging area, answers with sums.
struct Device {
    memory: Mutex<Vec<u8>>,
}

impl Device {
    fn new(len: usize) -> Arc<Device> {
        Arc::new(Device { memory: Mutex::new(vec![0; len]) })
    }

    /// Carries out a request: the reply's status and body.
    fn carry_out(&self, host: &HostLane, op: u16, seq: u64, body: &[u8]) -> (Status, Vec<u8>) {
        let mut r = Reader::new(body);
        let mut memory = self.memory.lock().unwrap();
        match op {
            TO_DEVICE | FROM_DEVICE => {
                let (at, staged, len) = (r.u64().unwrap(), r.u64().unwrap(), r.u64().unwrap());
                let part = &mut memory[at as usize..][..len as usize];
                // SAFETY: `part` is a vector's; the staging area is not.
                unsafe {
                    if op == TO_DEVICE {
                        host.copy_out(staged, part.as_mut_ptr(), part.len()).unwrap();
                    } else {
                        host.copy_in(staged, part.as_ptr(), part.len()).unwrap();
                    }
                }
                host.complete_slot(slot(staged), seq);
                (Status::SUCCESS, Vec::new())
            }
            SUM => (Status::SUCCESS, sum(&memory).to_le_bytes().to_vec()),
            FAIL => (Status(r.u32().unwrap()), Vec::new()),
            _ => (Status::SUCCESS, body.to_vec()),
        }
    }

    /// Serves until the program goes; gives the number of requests. With a `pace`, completion comes later and from another thread.
    fn serve(&self, mut host: HostLane, pace: Option<Duration>) -> u64 {
        let (mut body, mut count) = (Vec::new(), 0);
        let signals = host.signals();
        let (completer, due) = mpsc::channel::<u64>();
        let helper = thread::spawn(move || {
            for seq in due {
                thread::sleep(pace.unwrap_or_default());
                signals.complete(seq);
            }
        });
        while let Some(header) = host.next(&mut body).unwrap() {
            count += 1;
            let (status, reply) = self.carry_out(&host, header.op, header.seq, &body);
            if header.kind == Kind::POSTED && !status.is_success() {
                host.latch(status);
            }
            match pace {
                Some(_) if header.kind == Kind::POSTED => completer.send(header.seq).unwrap(),
                _ => host.complete(header.seq),
            }
            if header.kind == Kind::SYNC {
                let body: &[u8] = if status.is_success() { &reply } else { &[] };
                if host.reply(&header, status, Flags::NONE, body).is_err() {
                    break;
                }
            }
        }
        drop(completer);
        helper.join().unwrap();
        count
    }
}

fn slot(offset: u64) -> u64 {
    slot_at(STAGING.into(), offset).unwrap()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .enumerate()
        .fold(0, |sum, (i, byte)| sum.wrapping_mul(31).wrapping_add(i as u64 ^ u64::from(*byte)))
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn stage(guest: &mut GuestLane, offset: u64, bytes: &[u8]) {
    // SAFETY: a slice is readable for its length.
    unsafe { guest.copy_in(offset, bytes.as_ptr(), bytes.len()) }.unwrap();
}

fn take(guest: &GuestLane, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    // SAFETY: a vector of that length.
    unsafe { guest.copy_out(offset, bytes.as_mut_ptr(), len) }.unwrap();
    bytes
}

#[test]
fn a_reply_is_received_later() {
    let (mut guest, host) = lane(lazy().as_ref());
    let worker = thread::spawn(|| Device::new(0).serve(host, None));
    let mut reply = Vec::new();
    for round in 0..50u64 {
        let sent = guest.send(ECHO, &round.to_le_bytes()).unwrap();
        assert_eq!(guest.receive(sent, &mut reply).unwrap().status, Status::SUCCESS);
        assert_eq!(reply, round.to_le_bytes());
    }
    drop(guest);
    assert_eq!(worker.join().unwrap(), 50);
}

#[test]
fn a_lane_is_waited_for_before_its_program_knows_of_it() {
    let lanes: Arc<StreamLanes> = Arc::default();
    let (mut first, to_first) = host_end(&lanes, 1);
    // The second lane's welcome does not get through for now.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while let Ok(count) = (&ours).write(&[0; 4096]) {
        filled += count;
    }
    let opening = {
        let lanes = Arc::clone(&lanes);
        let placement = welcome(2).placement;
        let (window, _) = windows(placement.offset + placement.block_len());
        let connection = Connection::from_fd(ours.into());
        thread::spawn(move || {
            HostLane::welcome_stream(connection, window, &lanes, &welcome(2), MAX_BODY, TIMEOUT)
        })
    };
    thread::sleep(Duration::from_millis(100));
    let mut raw = UnixStream::from(to_first.into_fd());
    let mut body = Vec::new();
    let header = After { lane: 2, seq: 1 }.encode(&mut body);
    raw.write_all(&frame(&header, &body)).unwrap();
    raw.write_all(&frame(&FrameHeader::new(Kind::POSTED, ECHO, 1, 0), &[])).unwrap();
    let (sender, receiver) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let taken = first.next(&mut Vec::new());
        sender.send(()).unwrap();
        taken
    });
    assert!(
        receiver.recv_timeout(Duration::from_millis(200)).is_err(),
        "the request comes after the other's"
    );
    theirs.read_exact(&mut vec![0; filled]).unwrap();
    let second = opening.join().unwrap().unwrap();
    second.complete(1);
    receiver.recv_timeout(TIMEOUT).unwrap();
    assert!(waiting.join().unwrap().unwrap().is_some());
}

#[test]
fn calls_and_posts_arrive_in_order() {
    for flusher in [None, lazy()] {
        let (mut guest, host) = lane(flusher.as_ref());
        let worker = thread::spawn(|| Device::new(0).serve(host, None));
        let mut reply = vec![9; 99];
        for round in 0..300u64 {
            let body: Vec<u8> = (0..round % 40 * 8).map(|i| (i + round) as u8).collect();
            assert_eq!(guest.post(ECHO, &body).unwrap(), 2 * round + 1);
            assert_eq!(guest.call(ECHO, &body, &mut reply).unwrap().status, Status::SUCCESS);
            assert_eq!(reply, body);
            assert_eq!(guest.last_seq(), 2 * round + 2);
            guest.wait_completed(guest.last_seq()).unwrap();
            assert_eq!(guest.completed(), guest.last_seq());
        }
        drop(guest);
        assert_eq!(worker.join().unwrap(), 600);
    }
}

#[test]
fn staged_bytes_travel_both_ways() {
    let (mut guest, host) = lane(lazy().as_ref());
    let device = Device::new(STAGING as usize);
    let worker = {
        let device = Arc::clone(&device);
        thread::spawn(move || device.serve(host, None))
    };
    let bytes: Vec<u8> = (0..STAGING).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    for len in [0, 1, 7, 8, 9, 4096, SEND_LEN - 41, SEND_LEN, SEND_LEN + 1, STAGING as usize] {
        for offset in [0, 3, 4096].into_iter().filter(|offset| offset + len <= STAGING as usize) {
            stage(&mut guest, offset as u64, &bytes[..len]);
            guest.post(TO_DEVICE, &words(&[0, offset as u64, len as u64])).unwrap();
            let back = (STAGING as usize - len.max(1)) as u64;
            guest.fetch(back, len as u64).unwrap();
            let seq = guest.post(FROM_DEVICE, &words(&[0, back, len as u64])).unwrap();
            guest.wait_slot(slot(back), seq).unwrap();
            assert!(take(&guest, back, len) == bytes[..len], "{len} bytes at {offset}");
        }
    }
    // The end of a fetch by a sync request is its reply.
    guest.fetch(0, 100).unwrap();
    guest.call(FROM_DEVICE, &words(&[0, 0, 100]), &mut Vec::new()).unwrap();
    assert_eq!(take(&guest, 0, 100), bytes[..100]);
    for (offset, len) in
        [(0, u64::from(STAGING) + 1), (u64::from(STAGING), 1), (u64::MAX, 1), (u64::MAX, u64::MAX)]
    {
        assert!(matches!(guest.fetch(offset, len), Err(Error::Bounds { .. })));
        assert!(guest.staging(offset, len).is_err());
    }
    drop(guest);
    worker.join().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Echo(usize),
    Call(usize),
    In { at: usize, staged: usize, len: usize },
    Out { at: usize, staged: usize, len: usize, sync: bool },
    Fail(u32),
    Sum,
    Wait(usize),
    Flush,
}

const MEMORY: usize = 200_000;

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..MEMORY / 2, 0..STAGING as usize / 2, prop_oneof![0..50usize, 0..MEMORY / 2]);
    prop_oneof![
        (0..400usize).prop_map(Step::Echo),
        (0..500usize).prop_map(Step::Call),
        place().prop_map(|(at, staged, len)| Step::In { at, staged, len }),
        (place(), any::<bool>()).prop_map(|((at, staged, len), sync)| Step::Out { at, staged, len, sync }),
        (1..1000u32).prop_map(Step::Fail),
        Just(Step::Sum),
        (0..20usize).prop_map(Step::Wait),
        Just(Step::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever the program does, it sees what it would see if each request were carried out at once.
    #[test]
    fn a_lane_behaves_like_its_reference(
        steps in prop::collection::vec((step(), any::<u8>()), 1..60),
        late: bool,
        gathers: bool,
    ) {
        let flusher = if gathers { lazy() } else { None };
        let (mut guest, host) = lane(flusher.as_ref());
        let device = Device::new(MEMORY);
        let pace = late.then_some(Duration::from_micros(20));
        let worker = {
            let device = Arc::clone(&device);
            thread::spawn(move || device.serve(host, pace))
        };
        let mut model = vec![0u8; MEMORY];
        let mut latched = None;
        let mut used = [0; SLOTS as usize];
        let mut reply = Vec::new();
        for (step, seed) in steps {
            match step {
                Step::Echo(len) => _ = guest.post(ECHO, &vec![seed; len * 8]).unwrap(),
                Step::Call(len) => {
                    let body = vec![seed; len * 8];
                    guest.call(ECHO, &body, &mut reply).unwrap();
                    prop_assert_eq!(&reply, &body);
                }
                Step::In { at, staged, len } => {
                    let bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8 ^ seed).collect();
                    // Its last user may still read it.
                    let place = slot(staged as u64);
                    guest.wait_slot(place, used[place as usize]).unwrap();
                    stage(&mut guest, staged as u64, &bytes);
                    used[place as usize] =
                        guest.post(TO_DEVICE, &words(&[at as u64, staged as u64, len as u64])).unwrap();
                    model[at..at + len].copy_from_slice(&bytes);
                }
                Step::Out { at, staged, len, sync } => {
                    guest.fetch(staged as u64, len as u64).unwrap();
                    let body = words(&[at as u64, staged as u64, len as u64]);
                    if sync {
                        guest.call(FROM_DEVICE, &body, &mut reply).unwrap();
                    } else {
                        guest.post(FROM_DEVICE, &body).unwrap();
                    }
                    guest.wait_slot(slot(staged as u64), guest.last_seq()).unwrap();
                    prop_assert!(take(&guest, staged as u64, len) == model[at..at + len]);
                }
                Step::Fail(status) => {
                    let mut body = Vec::new();
                    Writer::new(&mut body).u32(status);
                    guest.post(FAIL, &body).unwrap();
                    latched = latched.or(Some(Status(status)));
                }
                Step::Sum => {
                    guest.call(SUM, &[], &mut reply).unwrap();
                    prop_assert_eq!(&reply, &sum(&model).to_le_bytes());
                    // A reply tells of all errors before it.
                    prop_assert_eq!(guest.take_latched(), latched.take());
                }
                Step::Wait(back) => {
                    let seq = guest.last_seq().saturating_sub(back as u64);
                    guest.wait_completed(seq).unwrap();
                    prop_assert!(guest.completed() >= seq);
                }
                Step::Flush => guest.flush().unwrap(),
            }
        }
        guest.call(SUM, &[], &mut reply).unwrap();
        prop_assert_eq!(&reply, &sum(&model).to_le_bytes());
        drop(guest);
        worker.join().unwrap();
    }

    /// However the bytes of a stream are cut, the same frames come out.
    #[test]
    fn cuts_do_not_matter(
        lens in prop::collection::vec((0..300usize, 0..5000usize), 1..20),
        cuts in prop::collection::vec(1..3000usize, 1..40),
    ) {
        let (mut stream, mut host) = raw();
        let mut bytes = Vec::new();
        for (index, &(body, data)) in lens.iter().enumerate() {
            let at = index as u64 * 5000;
            bytes.extend(Data { offset: at, len: data as u64 }.encode());
            bytes.extend(vec![index as u8 + 1; data.next_multiple_of(8)]);
            bytes.extend(frame(&FrameHeader::new(Kind::POSTED, 1, index as u64 + 1, body as u32 * 8), &vec![index as u8; body * 8]));
        }
        let writer = thread::spawn(move || {
            let (mut at, mut cuts) = (0, cuts.into_iter().cycle());
            while at < bytes.len() {
                let end = (at + cuts.next().unwrap()).min(bytes.len());
                stream.write_all(&bytes[at..end]).unwrap();
                at = end;
            }
            stream
        });
        let mut body = Vec::new();
        for (index, &(len, data)) in lens.iter().enumerate() {
            let header = host.next(&mut body).unwrap().unwrap();
            prop_assert_eq!(header.seq, index as u64 + 1);
            prop_assert_eq!(&body, &vec![index as u8; len * 8]);
            let mut staged = vec![0; data];
            // SAFETY: a vector of that length.
            unsafe { host.copy_out(index as u64 * 5000, staged.as_mut_ptr(), data) }.unwrap();
            prop_assert!(staged.iter().all(|byte| *byte == index as u8 + 1));
        }
        drop(writer.join().unwrap());
        prop_assert!(host.next(&mut body).unwrap().is_none());
    }

    /// Any bytes whatsoever end the lane without harm.
    #[test]
    fn junk_is_a_violation_or_an_end(junk in prop::collection::vec(any::<u8>(), 0..300), good in 0..3u64) {
        let (mut stream, mut host) = raw();
        for seq in 1..=good {
            stream.write_all(&frame(&FrameHeader::new(Kind::POSTED, 1, seq, 0), &[])).unwrap();
        }
        stream.write_all(&junk).unwrap();
        drop(stream);
        let mut body = Vec::new();
        let mut taken = 0;
        loop {
            match host.next(&mut body) {
                Ok(Some(_)) => taken += 1,
                Ok(None) => break,
                Err(error) => {
                    prop_assert!(error.is_violation(), "{error:?}");
                    break;
                }
            }
        }
        prop_assert_eq!(taken, good);
    }
}

#[test]
fn both_sides_may_write_a_lot_at_once() {
    // Every request asks for a megabyte and brings one: with sockets of a few hundred kilobytes each side is soon unable to write.
    let (mut guest, host) = lane(lazy().as_ref());
    let device = Device::new(STAGING as usize);
    let worker = thread::spawn(move || device.serve(host, None));
    let half = u64::from(STAGING) / 2;
    let bytes = vec![0x5a; half as usize];
    let mut last = 0;
    let mut fetched = 0;
    for _ in 0..40 {
        guest.fetch(half, half).unwrap();
        fetched = guest.post(FROM_DEVICE, &words(&[0, half, half])).unwrap();
        stage(&mut guest, 0, &bytes);
        last = guest.post(TO_DEVICE, &words(&[0, 0, half])).unwrap();
    }
    guest.wait_completed(last).unwrap();
    guest.wait_slot(slot(half), fetched).unwrap();
    assert_eq!(take(&guest, half, half as usize), bytes);
    drop(guest);
    assert_eq!(worker.join().unwrap(), 80);
}

#[test]
fn a_worker_that_does_not_read_blocks_the_program_and_no_more() {
    let (mut guest, mut host) = lane(None);
    let poster = thread::spawn(move || {
        for _ in 0..2000 {
            guest.post(ECHO, &[1; 1000]).unwrap();
        }
        guest
    });
    thread::sleep(Duration::from_millis(100));
    assert!(!poster.is_finished());
    let mut body = Vec::new();
    for seq in 1..=2000 {
        assert_eq!(host.next(&mut body).unwrap().unwrap().seq, seq);
        assert_eq!(body, [1; 1000]);
    }
    drop(poster.join().unwrap());
    assert!(host.next(&mut body).unwrap().is_none());
}

#[test]
fn completion_from_another_thread_does_not_wait_for_a_program_that_does_not_read() {
    let (mut stream, mut host) = raw();
    let mut watch = Vec::new();
    for seq in 1..=4u64 {
        let header = Watch { slot: NO_SLOT, offset: 0, len: STAGING.into() }.encode(seq, &mut watch);
        stream.write_all(&frame(&header, &watch)).unwrap();
        stream.write_all(&frame(&FrameHeader::new(Kind::POSTED, 1, seq, 0), &[])).unwrap();
    }
    let signals = host.signals();
    let worker = thread::spawn(move || {
        let mut body = Vec::new();
        while let Ok(Some(header)) = host.next(&mut body) {
            host.complete(header.seq);
        }
    });
    thread::sleep(Duration::from_millis(100));
    assert!(!worker.is_finished(), "the lane's own thread waits for the program");
    signals.complete(4);
    signals.latch(Status::UNKNOWN);
    drop(stream);
    worker.join().unwrap();
}

#[test]
fn posted_requests_gather_and_leave_by_themselves() {
    let flusher: Arc<Flusher> = Arc::default();
    let (mut guest, mut host) = lane(Some(&flusher));
    guest.post(ECHO, &[]).unwrap();
    let waiter = thread::spawn(move || {
        let header = host.next(&mut Vec::new()).unwrap().unwrap();
        (header.seq, host)
    });
    thread::sleep(Duration::from_millis(100));
    assert!(!waiter.is_finished(), "without its thread the flusher sends nothing");
    let runner = {
        let flusher = Arc::clone(&flusher);
        thread::spawn(move || flusher.run())
    };
    let (seq, mut host) = waiter.join().unwrap();
    assert_eq!(seq, 1);
    // Also when it has fallen asleep meanwhile.
    for seq in 2..12 {
        thread::sleep(Duration::from_millis(20));
        guest.post(ECHO, &[]).unwrap();
        assert_eq!(host.next(&mut Vec::new()).unwrap().unwrap().seq, seq);
    }
    flusher.stop();
    runner.join().unwrap();
}

#[test]
fn many_posts_leave_without_being_asked() {
    let (mut guest, mut host) = lane(lazy().as_ref());
    for _ in 0..100 {
        guest.post(ECHO, &[]).unwrap();
    }
    // The last few may still be gathering.
    for seq in 1..=64 {
        assert_eq!(host.next(&mut Vec::new()).unwrap().unwrap().seq, seq);
    }
}

#[test]
fn lanes_follow_each_other() {
    let lanes = Arc::default();
    let (mut first, mut first_host) = lane_in(&lanes, 1, lazy().as_ref());
    let (mut second, mut second_host) = lane_in(&lanes, 2, lazy().as_ref());
    let seq = first.post(ECHO, &[]).unwrap();
    assert!(second.follow(&first.progress(), seq).unwrap());
    second.post(ECHO, &[]).unwrap();
    second.flush().unwrap();
    let waiter = thread::spawn(move || {
        let header = second_host.next(&mut Vec::new()).unwrap();
        (header.is_some(), second_host)
    });
    // Following has sent what the first one had posted, though that thread did nothing more.
    assert_eq!(first_host.next(&mut Vec::new()).unwrap().unwrap().seq, 1);
    thread::sleep(Duration::from_millis(50));
    assert!(!waiter.is_finished());
    first_host.complete(1);
    let (came, mut second_host) = waiter.join().unwrap();
    assert!(came);

    // A lane that has ended keeps nobody waiting, nor does the end of the waiting lane.
    let seq = first.post(ECHO, &[]).unwrap();
    assert!(second.follow(&first.progress(), seq).unwrap());
    second.post(ECHO, &[]).unwrap();
    second.flush().unwrap();
    let waiter = thread::spawn(move || {
        let header = second_host.next(&mut Vec::new()).unwrap();
        (header.is_some(), second_host)
    });
    thread::sleep(Duration::from_millis(50));
    assert!(!waiter.is_finished());
    drop(first_host);
    let (came, mut second_host) = waiter.join().unwrap();
    assert!(came);
    assert!(second.follow(&first.progress(), u64::MAX).is_ok_and(|done| done));
    let (_third, _third_host) = lane_in(&lanes, 3, None);
    let waiter = thread::spawn(move || second_host.next(&mut Vec::new()).unwrap().is_some());
    let progress = _third.progress();
    second.follow(&progress, 0).unwrap();
    second.flush().unwrap();
    drop(second);
    assert!(!waiter.join().unwrap());
}

#[test]
fn slots_are_free_in_any_order() {
    let (mut guest, mut host) = lane(None);
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
            host.poll_for(&mut body, Duration::from_millis(20)).unwrap();
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

/// Threads post on lanes of their own in turns; each request must see all before it.
#[test]
fn turns_of_many_threads_keep_their_order() {
    const THREADS: u32 = 4;
    const TURNS: u64 = 400;
    let lanes: Arc<StreamLanes> = Arc::default();
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let mut guests = Vec::new();
    let mut workers = Vec::new();
    for lane in 0..THREADS {
        let (guest, mut host) = lane_in(&lanes, lane, lazy().as_ref());
        guests.push(guest);
        let seen = Arc::clone(&seen);
        workers.push(thread::spawn(move || {
            let mut body = Vec::new();
            while let Some(header) = host.next(&mut body).unwrap() {
                seen.lock().unwrap().push(u64::from_le_bytes(*body.first_chunk().unwrap()));
                host.complete(header.seq);
            }
        }));
    }
    let progress: Vec<_> = guests.iter().map(GuestLane::progress).collect();
    let mut posted = vec![0; THREADS as usize];
    for turn in 0..TURNS {
        let own = (turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as usize % THREADS as usize;
        for other in (0..THREADS as usize).filter(|other| *other != own && posted[*other] > 0) {
            assert!(guests[own].follow(&progress[other], posted[other]).unwrap());
        }
        posted[own] = guests[own].post(ECHO, &turn.to_le_bytes()).unwrap();
    }
    for guest in &mut guests {
        guest.wait_completed(guest.last_seq()).unwrap();
    }
    drop(guests);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(*seen.lock().unwrap(), (0..TURNS).collect::<Vec<_>>());
}
