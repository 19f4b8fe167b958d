//! Figures of a lane: `cargo bench -p transport`.
#![allow(unsafe_code)] // The staging copies take raw pointers.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use common::lane_with;
use protocol::frame::{Flags, Kind};
use protocol::{LanePlacement, Limits, Status};

/// Operations of the worker below.
const NOTHING: u16 = 1;
const ECHO: u16 = 2;

fn main() {
    // `cargo test --benches` runs this too: the smallest amount of work, no figures.
    let quick = !std::env::args().any(|arg| arg == "--bench");
    let limits = Limits::default();
    let placement = LanePlacement {
        offset: 0,
        request_ring_len: limits.request_ring_len,
        reply_ring_len: limits.reply_ring_len,
        staging_len: limits.staging_len,
    };
    let (mut guest, mut host, _) = lane_with(placement, limits.max_body_len);
    let worker = thread::spawn(move || {
        let mut body = Vec::new();
        while let Some(header) = host.next(&mut body).expect("request") {
            if header.kind == Kind::SYNC {
                host.reply(&header, Status::SUCCESS, Flags::NONE, &body).expect("reply");
            } else {
                host.complete(header.seq);
            }
        }
    });
    let scale = |n: u64| if quick { n / 1000 } else { n };
    let body = [7; 104];
    let mut reply = Vec::new();

    let rounds = scale(50_000).max(10);
    print("floor: one byte there and back, blocking", ping_pong(rounds), rounds);

    let rounds = scale(200_000).max(10);
    let mut all = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        guest.call(ECHO, &body, &mut reply).expect("call");
        all.push(start.elapsed());
    }
    distribution("sync round trip, 104 bytes", all);

    // After 300 us the worker is asleep.
    let rounds = scale(2_000).max(2);
    let mut all = Vec::new();
    for _ in 0..rounds {
        thread::sleep(Duration::from_micros(300));
        let start = Instant::now();
        guest.call(ECHO, &body, &mut reply).expect("call");
        all.push(start.elapsed());
    }
    distribution("sync round trip, worker parked", all);

    // Batches that fit in the ring: the caller's cost alone.
    let (batches, batch) = (scale(2_000).max(2), 1_000);
    let mut spent = Duration::ZERO;
    for _ in 0..batches {
        guest.call(ECHO, &body, &mut reply).expect("call");
        let start = Instant::now();
        for _ in 0..batch {
            black_box(guest.post(NOTHING, &body).expect("post"));
        }
        spent += start.elapsed();
    }
    print("posted frame, 104 bytes, worker awake", spent, batches * batch);

    let rounds = scale(3_000_000).max(10);
    let start = Instant::now();
    for _ in 0..rounds {
        guest.post(NOTHING, &body).expect("post");
    }
    guest.call(ECHO, &body, &mut reply).expect("call");
    print("posted frame, sustained (worker's speed)", start.elapsed(), rounds);

    let mut spent = Duration::ZERO;
    let rounds = scale(2_000).max(2);
    for _ in 0..rounds {
        thread::sleep(Duration::from_micros(300));
        let start = Instant::now();
        guest.post(NOTHING, &body).expect("post");
        spent += start.elapsed();
    }
    print("posted frame, worker parked (rings)", spent, rounds);

    let big = vec![3; limits.max_body_len as usize];
    let rounds = scale(100_000).max(2);
    let start = Instant::now();
    for _ in 0..rounds {
        guest.post(NOTHING, &big).expect("post");
    }
    guest.call(ECHO, &[], &mut reply).expect("call");
    throughput("posted frames of 48 KiB", start.elapsed(), rounds * big.len() as u64);

    let len = limits.staging_len as usize;
    let source = vec![5u8; len];
    let mut target = vec![1u8; len];
    let rounds = scale(2_000).max(2);
    let bytes = rounds * len as u64;
    for _ in 0..2 {
        // SAFETY: vectors of `len` bytes, not in the staging area.
        unsafe { guest.copy_in(0, source.as_ptr(), len) }.expect("copy");
    }
    let start = Instant::now();
    for _ in 0..rounds {
        target.copy_from_slice(black_box(&source));
        black_box(&mut target);
    }
    throughput("memcpy 4 MiB, private memory", start.elapsed(), bytes);
    let start = Instant::now();
    for _ in 0..rounds {
        // SAFETY: as above.
        unsafe { guest.copy_in(0, source.as_ptr(), len) }.expect("copy");
    }
    throughput("copy to staging, 4 MiB", start.elapsed(), bytes);
    let start = Instant::now();
    for _ in 0..rounds {
        // SAFETY: as above.
        unsafe { guest.copy_out(0, target.as_mut_ptr(), len) }.expect("copy");
    }
    throughput("copy from staging, 4 MiB", start.elapsed(), bytes);
    assert_eq!(source, target);

    drop(guest);
    worker.join().expect("worker");
}

/// What the kernel alone takes to wake a thread on a socket, twice.
fn ping_pong(rounds: u64) -> Duration {
    let (mut here, mut there) = UnixStream::pair().expect("pair");
    let other = thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() {
            there.write_all(&byte).expect("write");
        }
    });
    let mut byte = [0];
    let start = Instant::now();
    for _ in 0..rounds {
        here.write_all(&byte).expect("write");
        here.read_exact(&mut byte).expect("read");
    }
    let elapsed = start.elapsed();
    drop(here);
    other.join().expect("join");
    elapsed
}

fn distribution(what: &str, mut all: Vec<Duration>) {
    all.sort();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    let mean = all.iter().sum::<Duration>().as_secs_f64() * 1e6 / all.len() as f64;
    println!(
        "{what:<45} {:>10.3} us (10%: {:.2}, 90%: {:.2}, 99%: {:.2}, mean {mean:.2})",
        at(50),
        at(10),
        at(90),
        at(99)
    );
}

fn print(what: &str, elapsed: Duration, count: u64) {
    println!("{what:<45} {:>10.3} us", elapsed.as_secs_f64() * 1e6 / count as f64);
}

fn throughput(what: &str, elapsed: Duration, bytes: u64) {
    println!("{what:<45} {:>10.2} GB/s", bytes as f64 / elapsed.as_secs_f64() / 1e9);
}
