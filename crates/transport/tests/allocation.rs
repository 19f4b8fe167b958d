//! A frame costs no allocation once the buffers have their size.
#![allow(unsafe_code)] // A counting allocator.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::lane;
use protocol::{Flags, Kind, Status};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: forwards to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn frames_allocate_nothing() {
    let (mut guest, mut host, _) = lane();
    let worker = thread::spawn(move || {
        let mut body = Vec::new();
        while let Some(header) = host.next(&mut body).unwrap() {
            if header.kind == Kind::SYNC {
                host.reply(&header, Status::SUCCESS, Flags::NONE, &body).unwrap();
            }
            host.complete(header.seq);
        }
    });
    let (body, mut reply) = ([1; 104], Vec::new());
    let mut round = || {
        for _ in 0..100 {
            guest.post(1, &body).unwrap();
        }
        guest.call(1, &body, &mut reply).unwrap();
        guest.wait_completed(guest.last_seq()).unwrap();
    };
    // The first round sizes the buffers.
    round();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..100 {
        round();
    }
    // The test harness may allocate on its own thread now and then; 10100 frames would show.
    let during = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(during < 100, "{during} allocations for 10100 frames");
    drop(guest);
    worker.join().unwrap();
}
