//! What the lanes do with peers that are hostile or gone.

use super::*;

#[test]
fn the_end_of_the_worker_ends_every_wait_of_the_program() {
    type Wait = fn(&mut GuestLane) -> Result<(), Error>;
    let waits: [(&str, Wait); 4] = [
        ("call", |guest| guest.call(ECHO, &[], &mut Vec::new()).map(drop)),
        ("post", |guest| {
            loop {
                guest.post(ECHO, &[0; 2000])?;
            }
        }),
        ("wait_completed", |guest| {
            guest.post(ECHO, &[])?;
            guest.wait_completed(1)
        }),
        ("copy_in", |guest| {
            loop {
                // SAFETY: an array is readable for its length.
                unsafe { guest.copy_in(0, [0; 50_000].as_ptr(), 50_000) }?;
            }
        }),
    ];
    for (name, wait) in waits {
        let (mut guest, host) = lane(lazy().as_ref());
        let signals = host.signals();
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
        assert!(matches!(guest.post(ECHO, &[]), Err(Error::Dead)), "{name}");
        assert!(matches!(guest.wait_completed(u64::MAX), Err(Error::Dead)), "{name}");
        signals.complete(u64::MAX);
    }
}

#[test]
fn a_program_that_has_shut_its_half_is_served_to_the_end_of_it() {
    let (mut stream, mut host) = raw();
    stream.write_all(&frame(&FrameHeader::new(Kind::SYNC, 7, 1, 0), &[])).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let header = host.next(&mut Vec::new()).unwrap().unwrap();
    host.reply(&header, Status::SUCCESS, Flags::NONE, &[1; 8]).unwrap();
    assert!(host.next(&mut Vec::new()).unwrap().is_none());
    drop(host);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), HEADER_LEN + 8);

    // In the middle of a frame the end is an end as well.
    for len in [1, HEADER_LEN - 1, HEADER_LEN, HEADER_LEN + 20] {
        let (mut stream, mut host) = raw();
        let bytes = frame(&FrameHeader::new(Kind::POSTED, 1, 1, 64), &[0; 64]);
        stream.write_all(&bytes[..len]).unwrap();
        drop(stream);
        assert!(host.next(&mut Vec::new()).unwrap().is_none(), "{len}");
    }
}

#[test]
fn violations_by_the_program_end_the_lane() {
    let good = FrameHeader::new(Kind::POSTED, 1, 1, 0);
    let mut body = Vec::new();
    let mut watch = |seq: u64, offset: u64, len: u64| {
        let header = Watch { slot: offset % SLOTS, offset, len }.encode(seq, &mut body);
        frame(&header, &body)
    };
    let data = |offset: u64, len: u64| Data { offset, len }.encode().to_vec();
    let area = u64::from(STAGING);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("kind reply", frame(&FrameHeader { kind: Kind::REPLY, ..good }, &[])),
        ("kind hello", frame(&FrameHeader { kind: Kind::HELLO, ..good }, &[])),
        ("kind progress", frame(&FrameHeader { kind: Kind::PROGRESS, ..good }, &[])),
        ("number 0", frame(&FrameHeader { seq: 0, ..good }, &[])),
        ("number 2", frame(&FrameHeader { seq: 2, ..good }, &[])),
        ("body above the limit", frame(&FrameHeader { len: MAX_BODY + 8, ..good }, &[])),
        ("body of 4 GiB", frame(&FrameHeader { len: !7, ..good }, &[])),
        ("no magic", vec![0; HEADER_LEN]),
        ("data beyond the area", data(area - 7, 8)),
        ("data longer than the area", data(0, area + 8)),
        ("data of a wild offset", data(u64::MAX, 8)),
        ("data of another length than its frame", {
            let mut bytes = data(0, 8);
            bytes[0] += 8;
            bytes
        }),
        ("data without its words", frame(&FrameHeader { kind: Kind::DATA, ..good }, &[0; 16])),
        ("watch of a number to come", watch(2, 0, 0)),
        ("watch beyond the area", watch(1, area, 1)),
        ("watch of a wild place", watch(1, u64::MAX, u64::MAX)),
        ("short watch", frame(&FrameHeader { kind: Kind::WATCH, len: 8, ..good }, &[0; 8])),
        ("watch of no slot", {
            let mut body = Vec::new();
            let header = Watch { slot: SLOTS, offset: 0, len: 0 }.encode(1, &mut body);
            frame(&header, &body)
        }),
        ("too many watches", watch(1, 0, 0).repeat(MAX_WATCHES + 1)),
        ("long after", frame(&FrameHeader { kind: Kind::AFTER, len: 24, ..good }, &[0; 24])),
        ("after itself", {
            let mut body = Vec::new();
            let header = After { lane: 1, seq: 1 }.encode(&mut body);
            frame(&header, &body)
        }),
    ];
    for (name, bytes) in cases {
        let (mut stream, mut host) = raw();
        stream.write_all(&bytes).unwrap();
        let error = host.next(&mut Vec::new()).unwrap_err();
        assert!(error.is_violation(), "{name}: {error:?}");
        assert!(matches!(host.next(&mut Vec::new()), Err(Error::Dead)), "{name}");
        assert!(matches!(host.reply(&good, Status::SUCCESS, Flags::NONE, &[]), Err(Error::Dead)), "{name}");
    }
    // The same without the fault is accepted: the cases above fail for the reason that they name.
    let (mut stream, mut host) = raw();
    stream.write_all(&data(area - 8, 8)).unwrap();
    stream.write_all(&[1; 8]).unwrap();
    stream.write_all(&watch(1, area - 1, 1)).unwrap();
    stream.write_all(&watch(1, 0, 0).repeat(MAX_WATCHES - 1)).unwrap();
    stream.write_all(&frame(&good, &[])).unwrap();
    assert_eq!(host.next(&mut Vec::new()).unwrap(), Some(good));
}

#[test]
fn answers_that_do_not_belong_are_errors() {
    let good = FrameHeader::new(Kind::REPLY, 5, 1, 0);
    let progress = FrameHeader::new(Kind::PROGRESS, 0, 1, 0);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("number", frame(&FrameHeader { seq: 2, ..good }, &[])),
        ("operation", frame(&FrameHeader { op: 6, ..good }, &[])),
        ("kind", frame(&FrameHeader { kind: Kind::SYNC, ..good }, &[])),
        ("watch", frame(&FrameHeader { kind: Kind::WATCH, ..good }, &[])),
        ("error with body", frame(&FrameHeader { status: Status::NOT_FOUND, len: 8, ..good }, &[0; 8])),
        ("progress with half a slot", frame(&FrameHeader { len: 8, ..progress }, &[0; 8])),
        ("body above the limit", frame(&FrameHeader { len: MAX_BODY + 8, ..good }, &[])),
        ("data beyond the area", Data { offset: u64::from(STAGING) - 1, len: 8 }.encode().to_vec()),
        ("good", [frame(&progress, &[]), frame(&good, &[])].concat()),
    ];
    for (name, bytes) in cases {
        let (ours, theirs) = Connection::pair().unwrap();
        let mut guest = GuestLane::stream(theirs, &welcome(1), &limits(), None).unwrap();
        let mut stream = UnixStream::from(ours.into_fd());
        stream.write_all(&bytes).unwrap();
        let result = guest.call(5, &[], &mut Vec::new());
        if name == "good" {
            assert!(result.is_ok());
            assert_eq!(guest.completed(), 1);
        } else {
            assert!(result.unwrap_err().is_violation(), "{name}");
            assert!(matches!(guest.post(5, &[]), Err(Error::Dead)), "{name}");
        }
    }
    // A reply that nobody has asked for.
    let (ours, theirs) = Connection::pair().unwrap();
    let mut guest = GuestLane::stream(theirs, &welcome(1), &limits(), None).unwrap();
    let mut stream = UnixStream::from(ours.into_fd());
    stream.write_all(&frame(&good, &[])).unwrap();
    assert!(guest.wait_completed(1).unwrap_err().is_violation());
}

#[test]
fn a_staging_area_above_the_limit_is_refused() {
    let (_ours, theirs) = Connection::pair().unwrap();
    let limits = Limits { staging_len: STAGING - 4096, ..limits() };
    assert!(matches!(GuestLane::stream(theirs, &welcome(1), &limits, None), Err(Error::Placement(_))));
}

#[test]
fn bodies_are_bounded_and_the_lane_survives_a_refusal() {
    let (mut guest, host) = lane(None);
    for len in [4, MAX_BODY as usize + 8, 100_000] {
        assert!(matches!(guest.post(ECHO, &vec![0; len]), Err(Error::BodyLen { .. })), "{len}");
    }
    let worker = thread::spawn(|| Device::new(0).serve(host, None));
    let mut reply = Vec::new();
    guest.call(ECHO, &[6; MAX_BODY as usize], &mut reply).unwrap();
    assert_eq!(reply, [6; MAX_BODY as usize]);
    drop(guest);
    assert_eq!(worker.join().unwrap(), 1);
}
