use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use proptest::prelude::*;
use protocol::frame::Kind;

use super::*;

/// A ring in ordinary memory. The ends are used while it lives.
struct TestRing {
    tail: AtomicU64,
    head: AtomicU64,
    words: Vec<AtomicU64>,
}

impl TestRing {
    fn new(words: usize) -> Arc<TestRing> {
        let words = (0..words).map(|_| AtomicU64::new(0)).collect();
        Arc::new(TestRing { tail: AtomicU64::new(0), head: AtomicU64::new(0), words })
    }

    fn memory(&self) -> RingMemory {
        // SAFETY: every test keeps the Arc for as long as the ends; all accesses are atomic.
        unsafe {
            RingMemory::new(
                (&self.tail).into(),
                (&self.head).into(),
                // Of all words, not of the first one.
                NonNull::new(self.words.as_ptr().cast_mut()).unwrap(),
                self.words.len(),
            )
        }
    }

    fn ends(&self) -> (Producer, Consumer) {
        (Producer::new(self.memory()), Consumer::new(self.memory()))
    }
}

fn frame(seq: u64, len: usize) -> (FrameHeader, Vec<u8>) {
    let body = (0..len).map(|i| (i as u64 * 31 + seq) as u8).collect();
    (FrameHeader::new(Kind::POSTED, seq as u16, seq, len as u32), body)
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![(0usize..20).prop_map(|words| Step::Push(words * 8)), Just(Step::Pop)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is pushed and popped in whatever order: the ring is a queue that is full exactly when the bytes do not fit.
    #[test]
    fn behaves_like_a_queue(bits in 2u32..7, steps in prop::collection::vec(step(), 1..300)) {
        let ring = TestRing::new(1 << bits);
        let capacity = 8 << bits;
        let (mut producer, mut consumer) = ring.ends();
        let mut model: VecDeque<(FrameHeader, Vec<u8>)> = VecDeque::new();
        let mut body = Vec::new();
        let mut seq = 0;
        for step in steps {
            let used: usize = model.iter().map(|(_, body)| HEADER_LEN + body.len()).sum();
            match step {
                Step::Push(len) => {
                    seq += 1;
                    let (header, body) = frame(seq, len);
                    let result = producer.try_push(&header, &body);
                    if HEADER_LEN + len > capacity {
                        prop_assert_eq!(result, Err(PushError::TooLarge));
                    } else if used + HEADER_LEN + len > capacity {
                        let needed = (used + HEADER_LEN + len - capacity) as u64;
                        prop_assert_eq!(result, Err(PushError::Full { head: consumer.head() + needed }));
                    } else {
                        prop_assert_eq!(result, Ok(()));
                        model.push_back((header, body));
                    }
                }
                Step::Pop => match model.pop_front() {
                    None => prop_assert_eq!(consumer.try_pop(4096, &mut body), Ok(None)),
                    Some((header, expected)) => {
                        prop_assert_eq!(consumer.try_pop(4096, &mut body), Ok(Some(header)));
                        prop_assert_eq!(&body, &expected);
                    }
                },
            }
        }
    }

    /// Whatever the other side publishes: the consumer takes only what lies between its index and a plausible tail.
    #[test]
    fn hostile_tail(published: u64, near in -40i64..40, words in prop::collection::vec(any::<u64>(), 16)) {
        for tail in [published, 0u64.wrapping_add_signed(near), 128u64.wrapping_add_signed(near)] {
            let ring = TestRing::new(16);
            for (word, value) in ring.words.iter().zip(&words) {
                word.store(*value, Ordering::Relaxed);
            }
            ring.tail.store(tail, Ordering::Relaxed);
            let (_, mut consumer) = ring.ends();
            let result = consumer.try_pop(4096, &mut Vec::new());
            match tail {
                0 => prop_assert_eq!(result, Ok(None)),
                8 | 16 => prop_assert_eq!(result, Err(Corrupt::Short { available: tail })),
                24..=128 if tail % 8 == 0 => prop_assert!(result.is_err() || consumer.head() <= tail),
                _ => prop_assert_eq!(result, Err(Corrupt::Index { which: "tail", value: tail, low: 0, high: 128 })),
            }
        }
    }
}

#[test]
fn largest_record_fits_exactly() {
    let ring = TestRing::new(16);
    let (mut producer, mut consumer) = ring.ends();
    let mut out = Vec::new();
    for seq in 0..20 {
        // An odd record in between moves the wrap to every place.
        for len in [104, 8] {
            let (header, body) = frame(seq, len);
            producer.try_push(&header, &body).unwrap();
            assert_eq!(consumer.try_pop(104, &mut out), Ok(Some(header)));
            assert_eq!(out, body);
        }
    }
    let (header, body) = frame(1, 112);
    assert_eq!(producer.try_push(&header, &body), Err(PushError::TooLarge));
    assert_eq!(producer.try_push(&header, &body[..104]), Err(PushError::TooLarge));
    let (header, body) = frame(1, 12);
    assert_eq!(producer.try_push(&header, &body), Err(PushError::TooLarge));
}

#[test]
fn indices_that_jump() {
    let ring = TestRing::new(16);
    let (mut producer, mut consumer) = ring.ends();
    let (header, body) = frame(1, 40);
    producer.try_push(&header, &body).unwrap();
    consumer.try_pop(64, &mut Vec::new()).unwrap();
    producer.try_push(&header, &body).unwrap();
    // The consumer's index at 64, the producer's at 128.
    for head in [56, 63, 65, 136, u64::MAX, 1 << 63] {
        producer.head_seen = 64;
        ring.head.store(head, Ordering::Relaxed);
        let expected = Corrupt::Index { which: "head", value: head, low: 64, high: 128 };
        assert_eq!(producer.head(), Err(expected));
        assert_eq!(producer.try_push(&frame(2, 80).0, &[0; 80]), Err(PushError::Corrupt(expected)));
    }
    for tail in [56, 65, 72 + 128, 64 + 136, u64::MAX] {
        ring.tail.store(tail, Ordering::Relaxed);
        let expected = Corrupt::Index { which: "tail", value: tail, low: 64, high: 192 };
        assert_eq!(consumer.try_pop(64, &mut Vec::new()), Err(expected));
    }
}

#[test]
fn lengths_that_lie() {
    let ring = TestRing::new(16);
    let (mut producer, mut consumer) = ring.ends();
    let (header, body) = frame(1, 40);
    producer.try_push(&header, &body).unwrap();
    for (len, expected) in [
        (48, Corrupt::Overrun { len: 48, available: 40 }),
        (41, Corrupt::Frame(FrameError::LenAlignment(41))),
        (72, Corrupt::Frame(FrameError::LenLimit { len: 72, max: 64 })),
        (u32::MAX - 7, Corrupt::Frame(FrameError::LenLimit { len: u32::MAX - 7, max: 64 })),
    ] {
        let first = FrameHeader { len, ..header }.encode();
        ring.words[0].store(u64::from_le_bytes(*first.first_chunk().unwrap()), Ordering::Relaxed);
        let mut out = vec![7; 3];
        assert_eq!(consumer.try_pop(64, &mut out), Err(expected));
        assert_eq!((out.len(), consumer.head()), (3, 0));
    }
    ring.words[2].store(0, Ordering::Relaxed);
    assert_eq!(consumer.try_pop(64, &mut Vec::new()), Err(Corrupt::Frame(FrameError::Magic(0))));
}

/// A peer that keeps changing header and body while they are read: every popped body has the length of its own header, and one that is allowed.
#[test]
fn header_that_changes_after_the_check() {
    let ring = TestRing::new(16);
    let (mut producer, mut consumer) = ring.ends();
    let (header, body) = frame(1, 40);
    producer.try_push(&header, &body).unwrap();
    let long = FrameHeader { len: 64, ..header }.encode();
    let (short, long) =
        (ring.words[0].load(Ordering::Relaxed), u64::from_le_bytes(*long.first_chunk().unwrap()));
    let peer_ring = ring.clone();
    let stop = Arc::new(AtomicU64::new(0));
    let peer_stop = stop.clone();
    let peer = thread::spawn(move || {
        while peer_stop.load(Ordering::Relaxed) == 0 {
            peer_ring.words[0].store(long, Ordering::Relaxed);
            peer_ring.words[0].store(short, Ordering::Relaxed);
        }
    });
    let mut out = Vec::new();
    for _ in 0..if cfg!(miri) { 50 } else { 50_000 } {
        match consumer.try_pop(64, &mut out) {
            Ok(Some(taken)) => assert_eq!((taken.len, out.len(), consumer.head()), (40, 40, 64)),
            Err(Corrupt::Overrun { len: 64, available: 40 }) => {}
            other => panic!("{other:?}"),
        }
        // Look at the same record again.
        consumer.head = 0;
    }
    stop.store(1, Ordering::Relaxed);
    peer.join().unwrap();
}

/// Two threads, a ring each way, a million frames on each (few under miri: `MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=16 cargo +nightly miri test -p transport --lib ring::tests`).
#[test]
fn a_million_frames_both_ways() {
    const FRAMES: u64 = if cfg!(miri) { 300 } else { 1_000_000 };
    fn run(mut producer: Producer, mut consumer: Consumer) {
        let (mut sent, mut got, mut body) = (0, 0, Vec::new());
        while sent < FRAMES || got < FRAMES {
            while sent < FRAMES {
                let word = (sent * 3).to_le_bytes();
                let words = [word; 4];
                let out = &words.as_flattened()[..8 + (sent % 4 * 8) as usize];
                let header = FrameHeader::new(Kind::POSTED, 1, sent, out.len() as u32);
                match producer.try_push(&header, out) {
                    Ok(()) => sent += 1,
                    Err(PushError::Full { .. }) => break,
                    Err(error) => panic!("{error:?}"),
                }
            }
            while let Some(header) = consumer.try_pop(64, &mut body).unwrap() {
                assert_eq!(header.seq, got);
                assert_eq!(body.len() as u64, 8 + got % 4 * 8);
                assert!(body.chunks_exact(8).all(|word| word == (got * 3).to_le_bytes()));
                got += 1;
            }
            thread::yield_now();
        }
    }
    let (there, back) = (TestRing::new(512), TestRing::new(64));
    let (a_out, b_in) = there.ends();
    let (b_out, a_in) = back.ends();
    let other = thread::spawn(move || run(b_out, b_in));
    run(a_out, a_in);
    other.join().unwrap();
    drop((there, back));
}
