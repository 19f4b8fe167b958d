//! Figures of a lane without shared memory, over a unix socket: `cargo bench -p transport --bench stream`.
#![allow(unsafe_code)] // The staging copies take raw pointers.

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{TIMEOUT, windows};
use protocol::frame::{Flags, Kind};
use protocol::handshake::LaneWelcome;
use protocol::lane::{SLOTS, slot_len};
use protocol::{LanePlacement, Limits, Status};
use transport::{Connection, Flusher, GuestLane, HostLane, StreamLanes};

const NOTHING: u16 = 1;
const ECHO: u16 = 2;
/// Uses the slot that its body names.
const SLOT: u16 = 3;

fn main() {
    // `cargo test --benches` runs this too: the smallest amount of work, no figures.
    let quick = !std::env::args().any(|arg| arg == "--bench");
    let limits = Limits::default();
    let placement = LanePlacement {
        offset: 0,
        request_ring_len: 4096,
        reply_ring_len: 4096,
        staging_len: limits.staging_len,
    };
    let welcome = LaneWelcome { version: 1, lane: 1, placement };
    let (window, _) = windows(placement.block_len());
    let (ours, theirs) = Connection::pair().expect("pair");
    let lanes: Arc<StreamLanes> = Arc::default();
    let mut host =
        HostLane::welcome_stream(ours, window, &lanes, &welcome, limits.max_body_len, TIMEOUT).expect("lane");
    theirs.receive(4096, TIMEOUT).expect("welcome");
    let flusher: Arc<Flusher> = Arc::default();
    let runner = {
        let flusher = Arc::clone(&flusher);
        thread::spawn(move || flusher.run())
    };
    let mut guest = GuestLane::stream(theirs, &welcome, &limits, Some(&flusher)).expect("lane");
    let worker = thread::spawn(move || {
        let mut body = Vec::new();
        while let Some(header) = host.next(&mut body).expect("request") {
            if header.op == SLOT {
                host.complete_slot(u64::from(body[0]), header.seq);
            }
            host.complete(header.seq);
            if header.kind == Kind::SYNC {
                host.reply(&header, Status::SUCCESS, Flags::NONE, &body).expect("reply");
            }
        }
    });
    let scale = |n: u64| if quick { n / 1000 } else { n };
    let body = [7; 104];
    let mut reply = Vec::new();

    let rounds = scale(50_000).max(10);
    let mut all: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            guest.call(ECHO, &body, &mut reply).expect("call");
            start.elapsed()
        })
        .collect();
    all.sort();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!(
        "{:<45} {:>10.3} us (10%: {:.2}, 90%: {:.2})",
        "sync round trip, 104 bytes",
        at(50),
        at(10),
        at(90)
    );

    let rounds = scale(1_000_000).max(10);
    let start = Instant::now();
    for _ in 0..rounds {
        guest.post(NOTHING, &body).expect("post");
    }
    guest.call(ECHO, &body, &mut reply).expect("call");
    let each = start.elapsed().as_secs_f64() * 1e6 / rounds as f64;
    println!("{:<45} {each:>10.3} us", "posted frame, 104 bytes, sustained");

    let len = slot_len(limits.staging_len.into());
    let mut bytes = vec![5u8; len as usize];
    let mut used = [0; SLOTS as usize];
    let rounds = scale(20_000).max(64);
    let start = Instant::now();
    for round in 0..rounds {
        let slot = round % SLOTS;
        guest.wait_slot(slot, used[slot as usize]).expect("slot");
        // SAFETY: a vector of `len` bytes.
        unsafe { guest.copy_in(slot * len, bytes.as_ptr(), bytes.len()) }.expect("copy");
        used[slot as usize] = guest.post(SLOT, &slot.to_le_bytes()).expect("post");
    }
    guest.call(ECHO, &body, &mut reply).expect("call");
    throughput("to the worker, by slots of 128 KiB", start.elapsed(), rounds * len);

    const AHEAD: u64 = 4;
    let start = Instant::now();
    for round in 0..rounds + AHEAD {
        if round >= AHEAD {
            let slot = (round - AHEAD) % SLOTS;
            guest.wait_slot(slot, used[slot as usize]).expect("slot");
            // SAFETY: a vector of `len` bytes.
            unsafe { guest.copy_out(slot * len, bytes.as_mut_ptr(), bytes.len()) }.expect("copy");
        }
        if round < rounds {
            let slot = round % SLOTS;
            guest.fetch(slot * len, len).expect("fetch");
            used[slot as usize] = guest.post(SLOT, &slot.to_le_bytes()).expect("post");
        }
    }
    throughput("from the worker, by slots of 128 KiB", start.elapsed(), rounds * len);

    drop(guest);
    worker.join().expect("worker");
    flusher.stop();
    runner.join().expect("flusher");
}

fn throughput(what: &str, elapsed: Duration, bytes: u64) {
    println!("{what:<45} {:>10.2} GB/s", bytes as f64 / elapsed.as_secs_f64() / 1e9);
}
