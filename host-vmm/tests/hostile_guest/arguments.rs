//! Addresses as arguments: of the window where nothing is, of other programs, of nobody.

use std::time::Duration;

use protocol::{Status, ops};

use super::Scene;
use super::common::machine::{Asked, Program};
use super::common::{self, Client, eventually};

const PART: u64 = 8 << 20;

fn host_alloc(client: &mut Client, program: &mut Program, scene: &mut Scene, len: u64) -> u64 {
    std::thread::scope(|scope| {
        let allocating = scope.spawn(|| {
            client.word(ops::cuMemHostAlloc, |w| {
                w.present(true);
                w.u64(len);
                w.u32(0);
            })
        });
        program.grow(&mut scene.machine, 4096);
        allocating.join().unwrap().unwrap()
    })
}

/// A posted copy; its error.
fn copy(client: &mut Client, dst: u64, src: u64, len: u64) -> Option<Status> {
    let seq = client.post(ops::copy, |w| [dst, src, len, 0].into_iter().for_each(|word| w.u64(word)));
    client.lane.wait_completed(seq).unwrap();
    let waited = client.synchronize().err();
    client.lane.take_latched().or(waited)
}

#[test]
fn addresses_without_memory_are_errors() {
    let mut scene = Scene::start();
    let mut program = scene.attacker();
    let mut client = program.client(&mut scene.machine);
    client.set_up();
    let memory = client.alloc(1 << 20).unwrap();
    let base = program.window.address();
    let window_len = program.welcome.limits.window_len;
    let pinned = host_alloc(&mut client, &mut program, &mut scene, PART);
    // A part that is given back: the third of three large ones.
    let large: Vec<u64> =
        (0..2).map(|_| host_alloc(&mut client, &mut program, &mut scene, 40 << 20)).collect();
    for &address in &large {
        client.call(ops::cuMemFreeHost, |w| w.u64(address)).unwrap();
    }
    let Asked::Shrink(gone) = program.asked.recv_timeout(common::TIMEOUT).unwrap() else {
        panic!("no part is given back")
    };
    let removed = base + gone.offset;
    let theirs = scene.neighbour.window.address();
    let bad = [
        0,
        8,
        base - 4096,
        removed,
        removed + (20 << 20),
        base + window_len - 4096,
        base + window_len,
        base + (1 << 40),
        theirs,
        theirs + (20 << 20),
        u64::MAX - 4095,
    ];
    for address in bad {
        assert!(copy(&mut client, address, memory, 4096).is_some(), "to {address:#x}");
        assert!(copy(&mut client, memory, address, 4096).is_some(), "from {address:#x}");
        assert_eq!(client.copy_in(address, &[0; 200]).err(), Some(Status::INVALID_VALUE), "{address:#x}");
        assert_eq!(client.copy_out(address, 200).err(), Some(Status::INVALID_VALUE), "{address:#x}");
        let set = client.call(ops::cuMemsetD8_v2, |w| {
            w.u64(address);
            w.u32(1);
            w.u64(4096);
            w.u32(1);
        });
        let latched = client.synchronize().err();
        assert!(set.is_err() || latched.is_some() || client.lane.take_latched().is_some(), "{address:#x}");
        scene.check();
    }
    // Across the end of what is mapped, by a little and by much; lengths that wrap.
    let last = removed.min(base + window_len);
    for (address, len) in [
        (last - 4096, 8192),
        (pinned, 1 << 40),
        (pinned + 4096, u64::MAX - 100),
        (pinned, u64::MAX - pinned + 2),
    ] {
        assert!(copy(&mut client, address, memory, len).is_some(), "{len:#x} bytes to {address:#x}");
        assert!(copy(&mut client, memory, address, len).is_some(), "{len:#x} bytes from {address:#x}");
    }
    assert_eq!(copy(&mut client, pinned, memory, 4096), None);
    scene.check();
    drop(client);
    scene.machine.end(program);
    scene.check_alone();
}

#[test]
fn kernels_reach_no_memory_but_their_sessions() {
    let mut scene = Scene::start();
    // What a kernel does there ends its context, so each is a program's last.
    for place in 0..5 {
        let mut program = scene.attacker();
        let mut client = program.client(&mut scene.machine);
        client.set_up();
        let module = client.load(common::KERNELS).unwrap();
        let store = client.function(module, c"store").unwrap();
        let window = program.window.address();
        let address = match place {
            0 => window + PART,
            1 => window + program.welcome.limits.window_len - 4,
            2 => window - 4,
            3 => scene.neighbour.window.address() + 64,
            _ => 64,
        };
        client.store(store, address, 0xdead_beef);
        assert!(client.synchronize().is_err(), "{address:#x}");
        scene.check();
        drop(client);
        scene.machine.end(program);
    }
    scene.check_alone();
}

#[test]
fn only_what_was_allocated_is_freed() {
    let mut scene = Scene::start();
    let mut program = scene.attacker();
    let mut client = program.client(&mut scene.machine);
    client.set_up();
    let memory = client.alloc(1 << 20).unwrap();
    let base = program.window.address();
    let pinned = host_alloc(&mut client, &mut program, &mut scene, 64 << 20);
    let lane = base + client.placement.offset;
    let theirs = scene.neighbour.window.address();
    for address in
        [0, 1, lane, lane + 4096, base, memory, pinned + 4096, pinned + 1, pinned - 1, theirs, u64::MAX]
    {
        let freed = client.call(ops::cuMemFreeHost, |w| w.u64(address));
        assert!(freed.is_err(), "{address:#x}");
        client.synchronize().unwrap();
    }
    client.call(ops::cuMemFreeHost, |w| w.u64(pinned)).unwrap();
    assert!(client.call(ops::cuMemFreeHost, |w| w.u64(pinned)).is_err(), "twice");
    assert!(copy(&mut client, memory, lane, 4096).is_none(), "its own lane's block can be read");
    // And be overwritten: that ends at most the lane.
    client.copy_in(memory, &[0xff; 8192]).unwrap();
    client.lane.post(ops::copy, &[lane, memory, 8192, 0].map(u64::to_le_bytes).concat()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    scene.check();
    let control = std::sync::Arc::clone(&program.control);
    rustix::net::shutdown(&*control, rustix::net::Shutdown::Both).unwrap();
    eventually(common::TIMEOUT, "the lane is closed", || client.lane.is_closed());
    drop(client);
    scene.machine.end(program);
    scene.check_alone();
}
