//! Fuzz bodies: a ring whose shared memory the other side writes at will, and a stream of any bytes.
#![allow(unsafe_code)] // Makes ring ends and a staging area over local arrays.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;

use protocol::frame::{FrameHeader, HEADER_LEN, Kind};

use crate::ring::{Consumer, Producer, PushError, RingMemory};
use crate::stream::Taken;
use crate::stream::inbound::{Area, Inbound};
use crate::sync::{AtomicU64, Ordering};

const WORDS: usize = 64;

/// First byte: number of steps; two bytes each: a hostile write (where, what), then a look by consumer and producer. The rest: contents of the ring.
pub fn fuzz_ring(data: &[u8]) {
    let Some((&steps, rest)) = data.split_first() else { return };
    let (script, contents) = rest.split_at(rest.len().min(usize::from(steps) * 2));
    let words: [AtomicU64; WORDS] = std::array::from_fn(|i| {
        let chunk = contents.get(i * 8..).and_then(|rest| rest.first_chunk::<8>());
        AtomicU64::new(chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk)))
    });
    let (tail, head) = (AtomicU64::new(0), AtomicU64::new(0));
    let memory = || {
        // SAFETY: the array and the indices outlive both ends (declared before them) and are only accessed atomically.
        unsafe { RingMemory::new((&tail).into(), (&head).into(), NonNull::from(&words[0]), WORDS) }
    };
    let (mut consumer, mut producer) = (Consumer::new(memory()), Producer::new(memory()));
    let mut body = Vec::new();
    for step in script.chunks_exact(2) {
        let (what, value) = (step[0], u64::from(step[1]));
        match what % 8 {
            0 => tail.store(value * 8, Ordering::Relaxed),
            1 => head.store(value * 8, Ordering::Relaxed),
            2 => tail.store(u64::MAX - value, Ordering::Relaxed),
            3 => head.store(u64::MAX - value, Ordering::Relaxed),
            4 => _ = tail.fetch_add(value, Ordering::Relaxed),
            5 => _ = head.fetch_add(value, Ordering::Relaxed),
            _ => words[usize::from(what / 8) + 32 * usize::from(what & 1)].store(value, Ordering::Relaxed),
        }
        let before = consumer.head();
        match consumer.try_pop(256, &mut body) {
            Ok(Some(header)) => {
                assert_eq!(header.len as usize, body.len());
                assert!(body.len() <= 256);
                assert_eq!(consumer.head(), before + (HEADER_LEN + body.len()) as u64);
            }
            Ok(None) | Err(_) => assert_eq!(consumer.head(), before),
        }
        let len = (value as usize % 40) * 8;
        let before = producer.tail();
        let header = FrameHeader::new(Kind::POSTED, 1, 1, len as u32);
        match producer.try_push(&header, &[0x55; 320][..len]) {
            Ok(()) => assert_eq!(producer.tail(), before + (HEADER_LEN + len) as u64),
            Err(PushError::Full { head }) => assert!(head <= producer.tail()),
            Err(PushError::TooLarge) => assert!(len + HEADER_LEN > WORDS * 8),
            Err(PushError::Corrupt(_)) => assert_eq!(producer.tail(), before),
        }
    }
}

/// First byte: how many bytes arrive at a time (0: all). The rest: the stream.
pub fn fuzz_stream(data: &[u8]) {
    const AREA: usize = 4096;
    const GUARD: usize = 64;
    let Some((&cut, stream)) = data.split_first() else { return };
    let Ok((mut here, there)) = UnixStream::pair() else { return };
    let mut memory = vec![0xa5u8; AREA + 2 * GUARD];
    let start = NonNull::from(&mut memory[GUARD]);
    // SAFETY: the vector outlives `inbound` and is not touched otherwise before that is gone.
    let area = unsafe { Area::new(start, AREA as u64) };
    let mut inbound = Inbound::new(256, area);
    let mut body = Vec::new();
    'stream: for part in stream.chunks(if cut == 0 { stream.len().max(1) } else { cut.into() }) {
        if here.write_all(part).is_err() {
            break;
        }
        loop {
            match inbound.next(&mut body) {
                Ok(Some(header)) => {
                    assert_eq!(header.len as usize, body.len());
                    assert!(body.len() <= 256 && header.kind != Kind::DATA);
                }
                Ok(None) => match inbound.receive(there.as_fd(), false) {
                    Ok(Taken::Bytes(count)) => assert!(count > 0),
                    _ => break,
                },
                Err(error) => {
                    assert!(error.is_violation());
                    break 'stream;
                }
            }
        }
    }
    drop(inbound);
    assert!(memory[..GUARD].iter().chain(&memory[GUARD + AREA..]).all(|byte| *byte == 0xa5));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn run(name: &str, body: fn(&[u8])) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let seed = std::fs::read(entry.unwrap().path()).unwrap();
            files += 1;
            body(&seed);
            for at in 0..seed.len() {
                body(&seed[..at]);
                for value in [0, 1, 3, 8, 0x7f, 0x80, 0xff, seed[at].wrapping_add(1), seed[at] ^ 0x20] {
                    let mut changed = seed.clone();
                    changed[at] = value;
                    body(&changed);
                }
            }
        }
        assert!(files >= 2);
    }

    #[test]
    fn ring_corpus() {
        run("ring", fuzz_ring);
    }

    #[test]
    fn stream_corpus() {
        run("stream", fuzz_stream);
    }

    proptest! {
        #[test]
        fn arbitrary_ring(data in prop::collection::vec(any::<u8>(), 0..700)) {
            fuzz_ring(&data);
            fuzz_stream(&data);
        }
    }
}
