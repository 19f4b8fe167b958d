//! Every interleaving of publish, park and wake: `RUSTFLAGS="--cfg loom" cargo test -p transport --test loom --release`.
#![cfg(loom)]
#![allow(unsafe_code)] // Makes ring ends over arrays.

use std::ptr::NonNull;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use protocol::frame::{FrameHeader, Kind};
use transport::park::{Bell, Counter, Waiter, Waits, Wake, notify};
use transport::ring::{Consumer, Corrupt, Producer, PushError, RingMemory};

/// A socket direction: pending bytes and the end of the stream.
struct TestBell {
    state: Mutex<(u32, bool)>,
    condvar: Condvar,
}

impl TestBell {
    fn new() -> TestBell {
        TestBell { state: Mutex::new((0, false)), condvar: Condvar::new() }
    }

    fn hang_up(&self) {
        self.state.lock().unwrap().1 = true;
        self.condvar.notify_one();
    }
}

impl Bell for TestBell {
    type Error = Corrupt;

    fn ring(&self) -> Result<(), Corrupt> {
        self.state.lock().unwrap().0 += 1;
        self.condvar.notify_one();
        Ok(())
    }

    fn sleep(&self) -> Result<Wake, Corrupt> {
        let mut state = self.state.lock().unwrap();
        // A lost wake-up blocks here for good, which loom reports as a deadlock.
        while state.0 == 0 && !state.1 {
            state = self.condvar.wait(state).unwrap();
        }
        if state.0 > 0 {
            state.0 = 0;
            return Ok(Wake::Rung);
        }
        Ok(Wake::HungUp)
    }
}

struct Shared {
    tail: AtomicU64,
    head: AtomicU64,
    completed: AtomicU64,
    words: Vec<AtomicU64>,
    reader_parked: AtomicU64,
    writer_parked: AtomicU64,
    reader_bell: TestBell,
    writer_bell: TestBell,
}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared {
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            words: (0..4).map(|_| AtomicU64::new(0)).collect(),
            reader_parked: AtomicU64::new(0),
            writer_parked: AtomicU64::new(0),
            reader_bell: TestBell::new(),
            writer_bell: TestBell::new(),
        })
    }

    fn memory(&self) -> RingMemory {
        // SAFETY: every thread keeps the Arc beside its end; all accesses are atomic.
        unsafe { RingMemory::new((&self.tail).into(), (&self.head).into(), NonNull::from(&self.words[0]), 4) }
    }

    fn push(&self, producer: &mut Producer, waiter: &mut Waiter, seq: u64) {
        let body = (seq * 5).to_le_bytes();
        let header = FrameHeader::new(Kind::POSTED, 1, seq, 8);
        loop {
            match producer.try_push(&header, &body) {
                Ok(()) => break,
                Err(PushError::Full { head }) => {
                    let room = waiter
                        .wait(&self.writer_parked, Counter::Room, head, &self.writer_bell, || {
                            Ok::<_, Corrupt>((producer.head()? >= head).then_some(()))
                        })
                        .unwrap();
                    assert!(room.is_some());
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        notify(&self.reader_parked, Counter::Data, producer.tail(), &self.reader_bell).unwrap();
    }

    /// The next frame's number, None after the end.
    fn pop(&self, consumer: &mut Consumer, waiter: &mut Waiter) -> Option<u64> {
        let mut body = Vec::new();
        let wanted = consumer.head() + 8;
        let header = waiter
            .wait(&self.reader_parked, Counter::Data, wanted, &self.reader_bell, || {
                consumer.try_pop(8, &mut body)
            })
            .unwrap()?;
        assert_eq!(body, (header.seq * 5).to_le_bytes());
        notify(&self.writer_parked, Counter::Room, consumer.head(), &self.writer_bell).unwrap();
        Some(header.seq)
    }
}

/// The ring holds one frame, so that the writer parks for room as often as the reader parks for data.
#[test]
fn frames_arrive_and_nobody_sleeps_for_good() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new();
        let theirs = shared.clone();
        let writer = thread::spawn(move || {
            let (mut producer, mut waiter) = (Producer::new(theirs.memory()), Waiter::new(Waits::ForWorker));
            for seq in 1..=3 {
                theirs.push(&mut producer, &mut waiter, seq);
            }
        });
        let (mut consumer, mut waiter) = (Consumer::new(shared.memory()), Waiter::new(Waits::ForWorker));
        for seq in 1..=3 {
            assert_eq!(shared.pop(&mut consumer, &mut waiter), Some(seq));
        }
        writer.join().unwrap();
    });
}

#[test]
fn what_was_written_before_the_hang_up_is_read() {
    loom::model(|| {
        let shared = Shared::new();
        let theirs = shared.clone();
        let writer = thread::spawn(move || {
            let (mut producer, mut waiter) = (Producer::new(theirs.memory()), Waiter::new(Waits::ForWorker));
            theirs.push(&mut producer, &mut waiter, 1);
            theirs.reader_bell.hang_up();
        });
        let (mut consumer, mut waiter) = (Consumer::new(shared.memory()), Waiter::new(Waits::ForWorker));
        assert_eq!(shared.pop(&mut consumer, &mut waiter), Some(1));
        assert_eq!(shared.pop(&mut consumer, &mut waiter), None);
        writer.join().unwrap();
    });
}

/// As if killed between publishing and ringing.
#[test]
fn what_was_published_without_a_ring_before_the_hang_up_is_read() {
    loom::model(|| {
        let shared = Shared::new();
        let theirs = shared.clone();
        let writer = thread::spawn(move || {
            let header = FrameHeader::new(Kind::POSTED, 1, 1, 8);
            Producer::new(theirs.memory()).try_push(&header, &5u64.to_le_bytes()).unwrap();
            theirs.reader_bell.hang_up();
        });
        let (mut consumer, mut waiter) = (Consumer::new(shared.memory()), Waiter::new(Waits::ForWorker));
        assert_eq!(shared.pop(&mut consumer, &mut waiter), Some(1));
        writer.join().unwrap();
    });
}

/// The waiter changes what it waits for while the other side is between look and clearing.
#[test]
fn a_wait_follows_another() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(|| {
        let shared = Shared::new();
        let theirs = shared.clone();
        let worker = thread::spawn(move || {
            for seq in 1..=3 {
                theirs.completed.fetch_max(seq, Ordering::Release);
                notify(&theirs.writer_parked, Counter::Completed, seq, &theirs.writer_bell).unwrap();
            }
        });
        let mut waiter = Waiter::new(Waits::ForWorker);
        for seq in [1, 3] {
            let done = waiter
                .wait(&shared.writer_parked, Counter::Completed, seq, &shared.writer_bell, || {
                    Ok::<_, Corrupt>((shared.completed.load(Ordering::Acquire) >= seq).then_some(()))
                })
                .unwrap();
            assert!(done.is_some());
        }
        worker.join().unwrap();
    });
}

/// Completions come from several threads of the worker.
#[test]
fn two_threads_complete() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new();
        let workers: Vec<_> = [1, 2]
            .into_iter()
            .map(|seq| {
                let theirs = shared.clone();
                thread::spawn(move || {
                    theirs.completed.fetch_max(seq, Ordering::Release);
                    notify(&theirs.writer_parked, Counter::Completed, seq, &theirs.writer_bell).unwrap();
                })
            })
            .collect();
        let done = Waiter::new(Waits::ForWorker)
            .wait(&shared.writer_parked, Counter::Completed, 2, &shared.writer_bell, || {
                Ok::<_, Corrupt>((shared.completed.load(Ordering::Acquire) >= 2).then_some(()))
            })
            .unwrap();
        assert!(done.is_some());
        for worker in workers {
            worker.join().unwrap();
        }
    });
}
