//! What a program answers when it is asked for memory of its window.

use std::os::unix::fs::MetadataExt as _;

use protocol::broker::{Code, Extent, GuestMessage, HostMessage, RegionKind, RegionName};
use protocol::frame::{FrameHeader, Kind};
use protocol::window::Grown;
use protocol::{Status, ops};
use rustix::net::{SendFlags, send};
use transport::Error;

use super::Scene;
use super::common::machine::PAGE;
use super::common::{Client, TIMEOUT, eventually};

const PART: u64 = 8 << 20;

#[test]
fn regions_that_are_not_the_sessions_give_nothing() {
    let mut scene = Scene::start();
    let program = scene.attacker();
    let session = program.session;
    let foreign = scene.neighbour.parts.values().copied().collect::<Vec<_>>();
    let (removed, extents) = scene.machine.add_region(session, PART, 2 << 20);
    let name = RegionName { session, region: removed };
    scene.machine.say(&GuestMessage::RegionRemove(name));
    assert_eq!(scene.machine.hear(), HostMessage::RegionReleased(name));
    scene.machine.give_back(extents);
    let short = scene.machine.add_region(session, PAGE, PAGE).0;
    let long = scene.machine.add_region(session, PART + PAGE, PART + PAGE).0;
    // Announced in part.
    let page = scene.machine.take(PAGE, PAGE)[0];
    let parts = vec![page; 1001];
    let partial = scene.machine.name_region(session, RegionKind::PINNED, &parts[..1]) + 1;
    scene.machine.hear();
    let wrong = [&foreign[..], &[removed, short, long, partial, 0, u64::MAX, 1 << 40]].concat();
    for region in wrong {
        let lane = program.begin_lane();
        for _ in 0..2 {
            let grow = program.next_grow();
            program.answer(grow.offset, region, Status::SUCCESS);
            assert_eq!(program.next_shrink(), grow.offset, "region {region:#x}");
        }
        assert!(matches!(lane.join().unwrap(), Err(Error::HungUp)), "region {region:#x}");
        scene.check();
    }
    scene.machine.end(program);
    scene.check_alone();
}

fn host_alloc(client: &mut Client, len: u64) -> Result<u64, Status> {
    client.word(ops::cuMemHostAlloc, |w| {
        w.present(true);
        w.u64(len);
        w.u32(0);
    })
}

/// How many mappings of the machine's memory a worker has.
fn mappings(scene: &Scene, worker: i32) -> usize {
    let inode = scene.machine.ram.metadata().unwrap().ino().to_string();
    let maps = std::fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
    maps.lines().filter(|line| line.split_whitespace().nth(4) == Some(&inode)).count()
}

/// The worker of a program, beside the neighbour's.
fn worker(scene: &Scene) -> i32 {
    *scene.machine.daemon.workers().iter().max().unwrap()
}

#[test]
fn a_region_is_a_part_of_the_window_once() {
    let mut scene = Scene::start();
    let mut program = scene.attacker();
    let mut client = program.client(&mut scene.machine);
    client.set_up();
    let region = program.parts[&0];
    let mapped = mappings(&scene, worker(&scene));
    // Of the same length, and of another.
    for len in [PART, 3 * PART] {
        let refused = std::thread::scope(|scope| {
            let allocating = scope.spawn(|| host_alloc(&mut client, len));
            let mut asked = 0;
            while !allocating.is_finished() {
                let Ok(request) = program.asked.recv_timeout(std::time::Duration::from_millis(20)) else {
                    continue;
                };
                if let super::common::machine::Asked::Grow(grow) = request {
                    asked += 1;
                    program.answer(grow.offset, region, Status::SUCCESS);
                }
            }
            assert_ne!(asked, 0);
            allocating.join().unwrap()
        });
        assert_eq!(refused, Err(Status::OUT_OF_MEMORY), "{len}");
    }
    assert_eq!(mappings(&scene, worker(&scene)), mapped);
    // The region is in use as long as it is mapped, which is as long as the worker lives.
    let name = RegionName { session: program.session, region };
    scene.machine.say(&GuestMessage::RegionRemove(name));
    scene.machine.hear_nothing();
    client.synchronize().unwrap();
    program.end();
    assert_eq!(scene.machine.hear(), HostMessage::RegionReleased(name));
    scene.check_alone();
}

#[test]
fn memory_in_too_many_pieces_is_refused_or_kept() {
    let mut scene = Scene::start();
    let mut program = scene.attacker();
    let session = program.session;
    // A lane whose memory is scattered page by page, then as many pieces as the window has pages: more mappings than a process can have.
    let opening = program.begin_lane();
    program.grow(&mut scene.machine, PAGE);
    let mut lane = super::common::machine::Lane { lane: opening.join().unwrap().unwrap() };
    lane.set_up();
    let worker = worker(&scene);
    let before = mappings(&scene, worker);
    let pages = scene.machine.take(2 * PAGE, PAGE);
    let (refused, lane) = std::thread::scope(|scope| {
        let len = program.welcome.limits.window_len - PART;
        let allocating = scope.spawn(move || (lane.host_alloc(len), lane));
        let grow = program.next_grow();
        let extents: Vec<Extent> = (0..(grow.len / PAGE) as usize).map(|i| pages[i % 2]).collect();
        let region = scene.machine.name_region(session, RegionKind::PINNED, &extents);
        let name = RegionName { session, region };
        assert_eq!(scene.machine.hear(), HostMessage::RegionAdded { name, code: Code::OK });
        program.answer(grow.offset, region, Status::SUCCESS);
        assert_eq!(program.next_shrink(), grow.offset);
        scene.machine.say(&GuestMessage::RegionRemove(name));
        // What stays mapped is not released.
        assert_eq!(scene.machine.hear(), HostMessage::RegionReleased(name));
        assert_eq!(mappings(&scene, worker), before, "released while it is mapped");
        allocating.join().unwrap()
    });
    assert_eq!(refused, Err(Status::OUT_OF_MEMORY));
    drop(lane);
    scene.machine.end(program);
    scene.check_alone();
}

/// Copies from a region that the program lends.
fn lent_in(
    client: &mut Client,
    dst: u64,
    region: u64,
    region_len: u64,
    offset: u64,
    len: u64,
) -> Result<(), Status> {
    let words = [dst, region, region_len, offset, len, 0];
    client.call(ops::lent_in, |w| words.into_iter().for_each(|word| w.u64(word))).map(drop)
}

fn lent_out(
    client: &mut Client,
    src: u64,
    region: u64,
    region_len: u64,
    offset: u64,
    len: u64,
) -> Result<(), Status> {
    let words = [src, region, region_len, offset, len, 0];
    client.call(ops::lent_out, |w| words.into_iter().for_each(|word| w.u64(word))).map(drop)
}

#[test]
fn only_own_regions_are_lent_and_within_their_bounds() {
    const LEN: u64 = 64 * PAGE;
    let mut scene = Scene::start();
    let mut program = scene.attacker();
    let session = program.session;
    let mut client = program.client(&mut scene.machine);
    client.set_up();
    let memory = client.alloc(1 << 20).unwrap();
    let (own, extents) = scene.machine.add_region(session, LEN, PAGE);
    let (removed, gone) = scene.machine.add_region(session, LEN, PAGE);
    let name = RegionName { session, region: removed };
    scene.machine.say(&GuestMessage::RegionRemove(name));
    assert_eq!(scene.machine.hear(), HostMessage::RegionReleased(name));
    scene.machine.give_back(gone);
    let window = program.parts[&0];
    let before = mappings(&scene, worker(&scene));
    lent_in(&mut client, memory, own, LEN, 100, LEN - 100).unwrap();
    lent_out(&mut client, memory, own, LEN, 0, LEN).unwrap();

    let mut wrong: Vec<(u64, u64, u64, u64)> =
        scene.neighbour.parts.values().map(|&part| (part, PART, 0, 4096)).collect();
    wrong.extend([
        (removed, LEN, 0, 4096),
        (window, PART, 0, 4096),
        (0, LEN, 0, 4096),
        (u64::MAX, LEN, 0, 4096),
        (extents[0].gpa, LEN, 0, 4096),
        // Another length than the region's.
        (own, LEN - PAGE, 0, 4096),
        (own, LEN + PAGE, 0, 4096),
        (own, 0, 0, 4096),
        (own, 1, 0, 1),
        (own, u64::MAX, 0, 4096),
        (own, u64::MAX - PAGE + 1, 0, 4096),
        // Beyond its end.
        (own, LEN, LEN, 1),
        (own, LEN, LEN - 8, 16),
        (own, LEN, u64::MAX, 1),
        (own, LEN, u64::MAX - 7, 16),
        (own, LEN, 8, u64::MAX),
    ]);
    for (region, region_len, offset, len) in wrong {
        let case = format!("{len} at {offset:#x} of region {region:#x} of {region_len:#x}");
        assert!(lent_in(&mut client, memory, region, region_len, offset, len).is_err(), "from {case}");
        assert!(lent_out(&mut client, memory, region, region_len, offset, len).is_err(), "to {case}");
        assert_eq!(mappings(&scene, worker(&scene)), before, "{case}");
    }
    let end = program.window.address() + program.welcome.limits.window_len;
    for address in [0, memory + (1 << 20), end - 4096, end, u64::MAX - 100] {
        assert!(lent_in(&mut client, address, own, LEN, 0, 4096).is_err(), "{address:#x}");
        assert!(lent_out(&mut client, address, own, LEN, 0, 4096).is_err(), "{address:#x}");
    }
    scene.check();
    lent_in(&mut client, memory, own, LEN, 0, LEN).unwrap();

    // More pieces than are taken.
    let pages = scene.machine.take(2 * PAGE, PAGE);
    let many: Vec<Extent> = (0..(50 << 10)).map(|i| pages[i % 2]).collect();
    let region = scene.machine.name_region(session, RegionKind::PINNED, &many);
    let name = RegionName { session, region };
    assert_eq!(scene.machine.hear(), HostMessage::RegionAdded { name, code: Code::OK });
    let refused = lent_in(&mut client, memory, region, (50 << 10) * PAGE, 0, 4096);
    assert_eq!(refused, Err(Status::OUT_OF_MEMORY));
    assert_eq!(mappings(&scene, worker(&scene)), before);
    drop(client);
    scene.machine.end(program);
    scene.machine.give_back(extents);
    scene.check_alone();
}

#[test]
fn a_region_that_is_lent_by_two_is_released_once() {
    const LEN: u64 = 16 * PAGE;
    let mut scene = Scene::start();
    let mut program = scene.attacker();
    let session = program.session;
    let mut clients = [program.client(&mut scene.machine), program.client(&mut scene.machine)];
    clients.iter_mut().for_each(|client| _ = client.set_up());
    let memory = clients[0].alloc(1 << 20).unwrap();
    let before = mappings(&scene, worker(&scene));
    let (region, _) = scene.machine.add_region(session, LEN, PAGE);
    let done: u32 = std::thread::scope(|scope| {
        let lending = clients.each_mut().map(|client| {
            scope.spawn(move || {
                let lend = |_: &u32| match lent_in(client, memory, region, LEN, 0, LEN) {
                    Ok(()) => true,
                    Err(status) => {
                        assert_eq!(status, Status::INVALID_VALUE);
                        false
                    }
                };
                (0..500).filter(lend).count() as u32
            })
        });
        lending.into_iter().map(|lending| lending.join().unwrap()).sum()
    });
    assert_ne!(done, 0);
    let name = RegionName { session, region };
    scene.machine.say(&GuestMessage::RegionRemove(name));
    assert_eq!(scene.machine.hear(), HostMessage::RegionReleased(name));
    assert_eq!(mappings(&scene, worker(&scene)), before);

    // A region is not released while a copy waits for its turn to use it; the end of the program ends that.
    let (region, _) = scene.machine.add_region(session, LEN, PAGE);
    let [mut client, mut other] = clients;
    let module = client.load(super::common::KERNELS).unwrap();
    let spin = client.function(module, c"spin").unwrap();
    client.launch(spin, 0, &[]);
    let words = [memory, region, LEN, 0, LEN, 0].map(u64::to_le_bytes).concat();
    let waiting =
        std::thread::spawn(move || client.lane.call(ops::lent_in, &words, &mut Vec::new()).is_err());
    scene.machine.daemon.expect_log(&format!("a region is in use region={region} "));
    let again = lent_in(&mut other, memory, region, LEN + PAGE, 0, PAGE);
    assert_eq!(again, Err(Status::INVALID_VALUE));
    let name = RegionName { session, region };
    scene.machine.say(&GuestMessage::RegionRemove(name));
    scene.machine.hear_nothing();
    let worker = worker(&scene);
    rustix::net::shutdown(&*program.control, rustix::net::Shutdown::Both).unwrap();
    assert_eq!(scene.machine.hear(), HostMessage::RegionReleased(name));
    assert!(!scene.machine.daemon.workers().contains(&worker), "released before the worker's end");
    assert!(waiting.join().unwrap());
    drop(other);
    scene.machine.end(program);
    scene.check_alone();
}

fn grown(offset: u64, region: u64) -> Vec<u8> {
    let mut body = Vec::new();
    let header = Grown { offset, region }.encode(Status::SUCCESS, &mut body);
    [&header.encode()[..], &body].concat()
}

#[test]
fn other_words_on_the_control_connection_end_the_session() {
    let mut scene = Scene::start();
    let frame = |kind: u8, len: usize| {
        let header = FrameHeader::new(Kind(kind), ops::cuMemAlloc_v2, 1, len as u32);
        [&header.encode()[..], &vec![0; len]].concat()
    };
    let mut cases: Vec<Vec<u8>> = vec![
        vec![0; 48],
        vec![0xff; 1000],
        frame(Kind::WINDOW_GROWN.0, 8),
        frame(Kind::WINDOW_GROWN.0, 24),
        FrameHeader::new(Kind::WINDOW_GROWN, 0, 0, u32::MAX - 7).encode().to_vec(),
        // The right answer, once too often: what is refused is asked for once more, with a smaller length, and the second may come in time for that.
        grown(0, 1).repeat(3),
    ];
    cases
        .extend((0..=22).filter(|kind| *kind != Kind::WINDOW_GROWN.0).step_by(2).map(|kind| frame(kind, 16)));
    cases.extend([19, 21, 192, 255].map(|kind| frame(kind, 16)));
    for bytes in cases {
        for asked in [false, true] {
            let program = scene.attacker();
            let lane = asked.then(|| {
                let lane = program.begin_lane();
                program.next_grow();
                lane
            });
            send(&*program.control, &bytes, SendFlags::NOSIGNAL).unwrap();
            let daemon = &scene.machine.daemon;
            eventually(TIMEOUT, "the session ends", || daemon.workers().len() == 1);
            if let Some(lane) = lane {
                assert!(lane.join().unwrap().is_err());
            }
            scene.machine.end(program);
        }
        scene.check_alone();
    }
}

#[test]
fn answers_in_pieces_and_for_other_places() {
    let mut scene = Scene::start();
    let mut program = scene.attacker();
    let opening = program.begin_lane();
    let grow = program.next_grow();
    let (region, extents) = scene.machine.add_region(program.session, grow.len, PART);
    program.extents.push(extents);
    for byte in grown(grow.offset, region) {
        send(&*program.control, &[byte], SendFlags::NOSIGNAL).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // It is mapped on the other side; here nothing is, so the lane cannot be used.
    assert!(opening.join().unwrap().is_err());
    assert!(mappings(&scene, worker(&scene)) > 0);
    scene.machine.end(program);

    let program = scene.attacker();
    let opening = program.begin_lane();
    let grow = program.next_grow();
    let (region, extents) = scene.machine.add_region(program.session, grow.len, PART);
    program.answer(grow.offset + (2 << 20), region, Status::SUCCESS);
    assert!(opening.join().unwrap().is_err());
    // It is not asked again.
    assert!(program.begin_lane().join().unwrap().is_err());
    assert!(program.asked.try_recv().is_err());
    // Half an answer, then the end.
    send(&*program.control, &grown(0, 1)[..30], SendFlags::NOSIGNAL).unwrap();
    scene.machine.end(program);
    scene.machine.give_back(extents);
    scene.check_alone();
}
