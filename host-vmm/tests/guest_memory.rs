//! Sessions whose window is memory of a virtual machine. The machine is a file; its broker module and its programs are played by the test.
#![allow(unsafe_code)] // Staged bytes are passed by pointer.

mod common;

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::machine::{Machine, PAGE, Program, program_hello};
use common::{TIMEOUT, eventually};
use protocol::broker::{self, Code, GuestMessage, HostMessage, RegionName};
use protocol::handshake::{Capabilities, Hello, RefusalCode};
use protocol::region::Region;
use protocol::{Status, Writer, ops};
use transport::Error;
use transport::handshake::connect_control;

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

#[test]
fn programs_and_workers_share_the_machines_memory() {
    let mut machine = Machine::start();
    let mut program = Program::connect(&mut machine, 1);
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
    let mut program = Program::connect(&mut machine, 5);
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
        &program_hello(region, cookie),
        TIMEOUT,
    ) {
        Err(Error::Refused(refused)) => refused.code,
        other => panic!("{:?}", other.map(|_| ())),
    };
    assert_eq!(refused(&machine, [1, 1]), RefusalCode::TOKEN);
    let program = Program::connect(&mut machine, 7);
    assert_eq!(refused(&machine, [7, 77]), RefusalCode::TOKEN);
    program.end();
    // At another listener, where no machine is, it means nothing: a session with a memfd.
    let cookie = machine.begin(8);
    let hello = program_hello(Region::new(14).unwrap(), cookie);
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
    let mut neighbour = Program::connect(&mut machine, 1);
    let _lane = neighbour.lane(&mut machine);
    let foreign = neighbour.parts[&0];
    let program = Program::connect(&mut machine, 2);
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
    let program = Program::connect(&mut machine, 1);
    program.answer(0, 1, Status::SUCCESS);
    machine.daemon.expect_log("memory that was not asked for");
    eventually(TIMEOUT, "the worker has ended", || machine.daemon.workers().is_empty());
    let mut other = Program::connect(&mut machine, 2);
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
