//! Fuzz bodies: any input must give a value or an error, and what decodes must encode to the same bytes.

use alloc::vec::Vec;

use crate::broker::{self, GuestMessage, HostMessage};
use crate::frame::{FrameHeader, HEADER_LEN};
use crate::graph::NodeParams;
use crate::handshake::{ControlWelcome, Hello, LaneWelcome, MAX_BODY, Refused};
use crate::stream::{After, Data, FreeSlots, Watch};
use crate::window::{Grow, Grown, Shrink};
use crate::wire::Reader;

/// A frame header.
pub fn fuzz_frame(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<HEADER_LEN>() else { return };
    if let Ok(header) = FrameHeader::decode(bytes, 1 << 16) {
        assert!(header.len <= 1 << 16 && header.len.is_multiple_of(8));
        assert_eq!(header.encode(), *bytes);
    }
}

/// A header and a handshake body after it.
pub fn fuzz_handshake(data: &[u8]) {
    let Some((bytes, body)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let Ok(frame) = FrameHeader::decode(bytes, MAX_BODY) else { return };
    let body = &body[..body.len().min(frame.len as usize)];
    let mut again = Vec::new();
    if let Ok(hello) = Hello::decode(&frame, body) {
        hello.encode(&mut again);
        // A newer program may have appended words, and a null name is read as an empty one.
        if let Ok(second) = Hello::decode(&frame, &again) {
            assert_eq!(second, hello);
        }
        let _ =
            hello.negotiate(crate::handshake::PREVIOUS..=crate::handshake::CURRENT, crate::Capabilities::ALL);
    }
    if let Ok(welcome) = ControlWelcome::decode(&frame, body) {
        assert!(welcome.limits.is_valid());
        welcome.encode(&mut again);
        assert_eq!(again, body);
    }
    if let Ok(welcome) = LaneWelcome::decode(&frame, body) {
        let p = welcome.placement;
        if p.is_valid(1 << 41) {
            assert!(p.staging() + u64::from(p.staging_len) <= 1 << 41);
        }
        welcome.encode(&mut again);
        assert_eq!(again, body);
    }
    if let Ok(refused) = Refused::decode(&frame, body) {
        refused.encode(&mut again);
        assert!(again.len() <= MAX_BODY as usize);
    }
}

/// A broker message, of either side.
pub fn fuzz_broker(data: &[u8]) {
    let Some((bytes, body)) = data.split_first_chunk::<{ broker::HEADER_LEN }>() else { return };
    let Ok(header) = broker::Header::decode(bytes) else { return };
    assert!(header.len <= broker::MAX_BODY);
    let Some(body) = body.get(..header.len) else { return };
    let mut again = [0; broker::MAX_MESSAGE];
    let len = match (GuestMessage::decode(header.kind, body), HostMessage::decode(header.kind, body)) {
        (Ok(GuestMessage::RegionAdd(add)), Err(_)) => {
            let extents: Vec<_> = add.extents.iter().collect();
            broker::encode_region_add(&add, &extents, &mut again)
        }
        (Ok(message), Err(_)) => message.encode(&mut again),
        (Err(_), Ok(message)) => message.encode(&mut again),
        (Err(_), Err(_)) => return,
        (Ok(_), Ok(_)) => unreachable!("a kind belongs to one side"),
    };
    assert_eq!(&again[..len.unwrap_or(0)], &data[..broker::HEADER_LEN + header.len]);
}

/// A header and the body of a frame that only stream lanes have.
pub fn fuzz_stream(data: &[u8]) {
    let Some((bytes, body)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let Ok(frame) = FrameHeader::decode(bytes, 1 << 16) else { return };
    let mut again = Vec::new();
    if let Some(prefix) = body.first_chunk()
        && let Some(data) = Data::decode(&frame, prefix, 1 << 16)
    {
        assert!(data.offset + data.len <= 1 << 16);
        assert_eq!(data.encode()[HEADER_LEN..], *prefix);
    }
    if let Ok(watch) = Watch::decode(body) {
        watch.encode(frame.seq, &mut again);
        assert_eq!(again, body);
    }
    if let Ok(after) = After::decode(body) {
        after.encode(&mut again);
        assert_eq!(again, body);
    }
    let mut slots = Vec::new();
    if FreeSlots::decode(body, |slot, seq| slots.push((slot, seq))).is_ok() {
        FreeSlots::encode(slots, &mut again);
        assert_eq!(again, body);
    }
}

/// A header and the body of a frame about the window.
pub fn fuzz_window(data: &[u8]) {
    let Some((bytes, body)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let Ok(frame) = FrameHeader::decode(bytes, crate::window::MAX_BODY) else { return };
    let mut again = Vec::new();
    if let Ok(grow) = Grow::decode(body) {
        assert!(grow.len != 0 && grow.offset + grow.len <= crate::region::WINDOW_MAX_LEN);
        grow.encode(&mut again);
        assert_eq!(again, body);
    }
    if let Ok(grown) = Grown::decode(body) {
        grown.encode(frame.status, &mut again);
        assert_eq!(again, body);
    }
    if let Ok(shrink) = Shrink::decode(body) {
        shrink.encode(&mut again);
        assert_eq!(again, body);
    }
}

/// A script of reads (first byte: how many; then one byte each) and the body that they read. Tells whether all of them succeeded.
pub fn fuzz_wire(data: &[u8]) -> bool {
    let Some((&count, rest)) = data.split_first() else { return false };
    let (script, body) = rest.split_at(rest.len().min(usize::from(count)));
    let mut r = Reader::new(body);
    for &step in script {
        let before = r.position();
        let max = usize::from(step >> 3) * 8;
        let failed = match step & 7 {
            0 => r.u64().is_err(),
            1 => r.u32().is_err(),
            2 => r.bool().is_err(),
            3 => r.i32().is_err(),
            4 => r.bytes(max).map(|block| assert!(block.is_none_or(|b| b.len() <= max))).is_err(),
            5 => r.exact(max).map(|block| assert!(block.is_none_or(|b| b.len() == max))).is_err(),
            6 => r.cstr(max).is_err(),
            _ => r.fixed(max).map(|block| assert_eq!(block.len(), max)).is_err(),
        };
        assert!(r.position() >= before && r.position() <= body.len());
        if failed {
            return false;
        }
    }
    r.finish().is_ok()
}

/// Parameters of graph nodes: what is accepted encodes to the same bytes. True if it was accepted.
pub fn fuzz_node_params(data: &[u8]) -> bool {
    let Ok(params) = NodeParams::decode(data) else { return false };
    assert_eq!(params.encode(), data);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;
    use std::vec;

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", dir.display());
        files.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// Runs `body` over the corpus, over every truncation, and over a fixed set of byte changes of each file.
    fn run(name: &str, body: fn(&[u8])) {
        for seed in corpus(name) {
            body(&seed);
            for cut in 0..seed.len() {
                body(&seed[..cut]);
            }
            for at in 0..seed.len() {
                for value in [0, 1, 7, 8, 0x7f, 0x80, 0xff, seed[at].wrapping_add(1), seed[at] ^ 0x40] {
                    let mut changed = seed.clone();
                    changed[at] = value;
                    body(&changed);
                }
            }
        }
    }

    #[test]
    fn frame_corpus() {
        run("frame", fuzz_frame);
    }

    #[test]
    fn handshake_corpus() {
        run("handshake", fuzz_handshake);
    }

    #[test]
    fn broker_corpus() {
        run("broker", fuzz_broker);
    }

    #[test]
    fn stream_corpus() {
        run("stream", fuzz_stream);
    }

    #[test]
    fn window_corpus() {
        run("window", fuzz_window);
    }

    #[test]
    fn wire_corpus() {
        run("wire", |data| _ = fuzz_wire(data));
    }

    #[test]
    fn node_params_corpus() {
        run("node_params", |data| _ = fuzz_node_params(data));
        assert!(corpus("node_params").iter().all(|seed| fuzz_node_params(seed)));
    }

    /// The corpus must reach past the first checks, or the mutations prove nothing.
    #[test]
    fn corpus_files_decode() {
        for (i, seed) in corpus("handshake").into_iter().enumerate() {
            let (bytes, body) = seed.split_first_chunk::<HEADER_LEN>().unwrap();
            let frame = FrameHeader::decode(bytes, MAX_BODY).unwrap();
            let decoded = vec![
                Hello::decode(&frame, body).is_ok(),
                ControlWelcome::decode(&frame, body).is_ok(),
                LaneWelcome::decode(&frame, body).is_ok(),
                Refused::decode(&frame, body).is_ok(),
            ];
            assert_eq!(decoded.iter().filter(|ok| **ok).count(), 1, "file {i}: {decoded:?}");
        }
    }

    #[test]
    fn corpus_bodies_are_read_to_the_end() {
        assert!(corpus("wire").iter().all(|seed| fuzz_wire(seed)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_frame(&data);
            fuzz_handshake(&data);
            fuzz_stream(&data);
            fuzz_window(&data);
            fuzz_wire(&data);
            fuzz_node_params(&data);
            fuzz_broker(&data);
        }
    }
}
