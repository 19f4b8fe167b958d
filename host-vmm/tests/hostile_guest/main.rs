//! A hostile virtual machine: its kernel, as the memory broker, and its programs. The machine is a file; the test plays it.
//!
//! What must hold whatever they do: nothing of the machine's memory but their own regions is read or written ([`Scene::check`] looks at a pattern in
//! all that is nobody's, and has a neighbour of the same machine copy), the daemon and the neighbour go on, and what an ended session had is gone.

#[path = "../common/mod.rs"]
mod common;

mod arguments;
mod kernel;
mod lane;
mod memory;

use common::machine::{Machine, Program};
use common::{Client, TIMEOUT, eventually};
use protocol::ops;

/// Bytes of the neighbour's buffers.
const LEN: usize = 300_000;

/// The machine and a program in it that does nothing wrong.
pub struct Scene {
    /// Dropped before the memory that its lane is in.
    client: Client,
    pub machine: Machine,
    pub neighbour: Program,
    device: u64,
    pinned: u64,
    round: u32,
    sessions: u64,
    descriptors: usize,
}

impl Scene {
    pub fn start() -> Self {
        let mut machine = Machine::start();
        machine.fill_with_canary();
        let mut neighbour = Program::connect(&mut machine, 1);
        let mut client = neighbour.client(&mut machine);
        client.set_up();
        let device = client.alloc(LEN as u64).unwrap();
        let pinned = std::thread::scope(|scope| {
            let allocating = scope.spawn(|| {
                client.word(ops::cuMemHostAlloc, |w| {
                    w.present(true);
                    w.u64(16 << 20);
                    w.u32(0);
                })
            });
            neighbour.grow(&mut machine, 4096);
            allocating.join().unwrap().unwrap()
        });
        let descriptors = machine.daemon.descriptors();
        let mut scene =
            Self { machine, neighbour, client, device, pinned, round: 0, sessions: 1, descriptors };
        scene.check();
        scene
    }

    /// A number for another session.
    pub fn next_session(&mut self) -> u64 {
        self.sessions += 1;
        self.sessions
    }

    /// A program that is about to do wrong.
    pub fn attacker(&mut self) -> Program {
        let session = self.next_session();
        Program::connect(&mut self.machine, session)
    }

    /// The neighbour copies, by its staging area and its page-locked memory, and nothing has changed that is nobody's.
    pub fn check(&mut self) {
        self.round += 1;
        let round = self.round;
        let bytes: Vec<u8> =
            (0..LEN as u32).map(|i| ((i ^ round).wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        let client = &mut self.client;
        client.copy_in(self.device, &bytes).unwrap();
        let len = LEN as u64;
        let mut copy = |dst: u64, src: u64| {
            client.post(ops::copy, |w| [dst, src, len, 0].into_iter().for_each(|word| w.u64(word)));
            client.synchronize().unwrap();
        };
        copy(self.pinned + 12_345, self.device);
        let mut pinned = vec![0; LEN];
        let window = &self.neighbour.window;
        window.copy_out(self.pinned + 12_345 - window.address(), &mut pinned).unwrap();
        assert!(pinned == bytes, "round {round}: the neighbour's page-locked memory");
        copy(self.device, self.pinned + 12_345);
        assert!(self.client.copy_out(self.device, len).unwrap() == bytes, "round {round}: the neighbour");
        self.machine.assert_canary();
    }

    /// As [`Scene::check`], when no session but the neighbour's is left.
    pub fn check_alone(&mut self) {
        let daemon = &self.machine.daemon;
        eventually(TIMEOUT, "the attacker's worker ends", || daemon.workers().len() == 1);
        eventually(TIMEOUT, "its descriptors are closed", || daemon.descriptors() <= self.descriptors);
        assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
        self.check();
    }
}
