//! Bodies for fuzzing: whatever a program sends, nothing panics and nothing hangs.

use std::sync::{Arc, OnceLock};

use protocol::{Reader, Writer, ops};

use crate::backend::Backend as _;
use crate::backend::cpu::CpuBackend;
use crate::config::{ComputeCapability, Config, Limits};
use crate::generated::dispatch::dispatch;
use crate::session::{Call, Lane, Latch, Session};
pub use crate::vhost_user::fuzz::fuzz_vhost_user;
pub use crate::vmm::channel::fuzz_channel;
pub use crate::vmm::virtio::fuzz::fuzz_virtio_mmio;
use crate::worker::window::Window;

/// Bytes of an input, taken from its start; none when it ends.
pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number: a byte below `small` as it is, then 32 powers of two, `pages` addresses of pages of `page_len`, or four bytes.
    pub fn value(&mut self, small: u8, pages: u8, page_len: u32) -> Option<u32> {
        let byte = self.byte()?;
        let Some(above) = byte.checked_sub(small) else { return Some(byte.into()) };
        Some(match above {
            0..=31 => 1 << above,
            _ if above - 32 < pages => u32::from(above - 32) * page_len,
            _ => u32::from_le_bytes(self.array()?),
        })
    }

    /// An address within half a MiB, and what is written there.
    pub fn memory_write(&mut self) -> Option<(u64, [u8; 8])> {
        let slot = u16::from_le_bytes(self.array()?);
        Some((u64::from(slot) * 8, self.array()?))
    }
}

/// Largest body that a lane takes.
const MAX_BODY: usize = 48 << 10;

/// Operations that wait for the program's own action.
const WAITING: [u16; 2] = [ops::callback_next, ops::callback_post];

struct Target {
    session: Arc<Session>,
    backend: CpuBackend,
    context: u64,
    staging: u64,
}

/// One backend for the process: a region cannot be had twice.
fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        ptx_cpu::fault::install().expect("fault handlers");
        let limits = Limits {
            memory_bytes: 64 << 20,
            window_bytes: 64 << 20,
            handles: 500,
            image_bytes: 1 << 20,
            images_bytes: 4 << 20,
            ..Limits::default()
        };
        let config = Config {
            limits,
            devices: 2,
            compute_capability: ComputeCapability::DEFAULT,
            ..Config::default()
        };
        let region = ptx_cpu::region::RegionConfig { memory_limit: config.limits.memory_bytes };
        let region = Arc::new(ptx_cpu::region::Region::reserve_any(region).expect("a region"));
        let base = region.base() + protocol::region::WINDOW_OFFSET;
        let window = Arc::new(Window::create(base, config.limits.window_bytes).expect("a window"));
        region
            .map_shared(std::os::fd::AsFd::as_fd(window.file_to_share().expect("a file")), 0, 0, window.len())
            .expect("the window's mapping");
        let staging = window.alloc(1 << 20).expect("a staging area");
        let session = Arc::new(Session::new(config, window));
        let backend = CpuBackend::new(Arc::clone(&session), region).expect("a backend");
        let mut context = 0;
        {
            use crate::generated::driver::ContextCalls as _;
            let mut lane = Lane::new(0, (staging, 1 << 20), Arc::new(Latch::default()));
            let mut call = Call {
                session: &session,
                lane: &mut lane,
                max_body: MAX_BODY,
                device_output: false,
                in_flight: None,
            };
            backend.cuDevicePrimaryCtxRetain(&mut call, Some(&mut context), 0).expect("a context");
        }
        Target { session, backend, context, staging }
    })
}

/// Requests of a lane: each an opcode (u16), a number of words (u8), and the words, each one a
/// tag byte that chooses a likely value or says that 8 bytes follow.
pub fn fuzz_requests(data: &[u8]) {
    requests(data);
}

/// Returns how many requests succeeded.
fn requests(data: &[u8]) -> usize {
    let mut succeeded = 0;
    let target = target();
    let latch = Arc::new(Latch::default());
    static LANES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let id = LANES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut lane = Lane::new(id, (target.staging, 1 << 20), latch);
    lane.context = target.context;
    let mut data = data.iter().copied();
    let mut body = Vec::new();
    let mut reply = Vec::new();
    // What replies gave back is what later requests are likely to mean: handles and addresses.
    let mut seen = vec![target.context, target.staging];
    while let (Some(op), Some(words)) = (next_op(&mut data), data.next()) {
        let mut writer = Writer::new(&mut body);
        for _ in 0..words % 24 {
            let Some(word) = next_word(&mut data, &seen) else { break };
            writer.u64(word);
        }
        if WAITING.contains(&op) {
            continue;
        }
        let mut call = Call {
            session: &target.session,
            lane: &mut lane,
            max_body: MAX_BODY,
            device_output: false,
            in_flight: None,
        };
        let mut writer = Writer::new(&mut reply);
        let outcome = dispatch(&target.backend, &mut call, op, &mut Reader::new(&body), &mut writer);
        if outcome.is_ok_and(|status| status.is_success()) {
            succeeded += 1;
            let mut reader = Reader::new(&reply);
            while seen.len() < 64
                && let Ok(word) = reader.u64()
            {
                seen.push(word);
            }
        }
    }
    target.backend.lane_closed(&lane);
    succeeded
}

/// An opcode as it stands if there is such an operation, else one of those that exist (now and then the number all the same).
fn next_op(data: &mut impl Iterator<Item = u8>) -> Option<u16> {
    static KNOWN: OnceLock<Vec<u16>> = OnceLock::new();
    let number = u16::from_le_bytes([data.next()?, data.next()?]);
    let known =
        KNOWN.get_or_init(|| (0..u16::MAX).filter(|op| *op != 0 && ops::by_opcode(*op).is_some()).collect());
    if known.contains(&number) {
        return Some(number);
    }
    Some(known.get(usize::from(number) % (known.len() + 1)).copied().unwrap_or(number))
}

fn next_word(data: &mut impl Iterator<Item = u8>, seen: &[u64]) -> Option<u64> {
    let tag = data.next()?;
    Some(match tag {
        0..=95 => u64::from(tag % 24),
        96..=127 => u64::MAX - u64::from(tag % 8),
        128..=143 => 1 << (tag % 64),
        144..=223 => seen[usize::from(tag) % seen.len()],
        224..=239 => seen[usize::from(tag) % seen.len()].wrapping_add(8),
        _ => {
            let mut bytes = [0; 8];
            for byte in &mut bytes {
                *byte = data.next()?;
            }
            u64::from_le_bytes(bytes)
        }
    })
}

/// A module's bytes, to a broker with 16 MiB of guest memory. Every region that comes to be is looked at from end to end.
/// Tells whether all bytes were taken.
pub fn broker(data: &[u8]) -> bool {
    use crate::broker::{Broker, Limits};
    use crate::vmm::memory::GuestRam;

    static RAM: OnceLock<GuestRam> = OnceLock::new();
    let ram = RAM.get_or_init(|| GuestRam::new(16 << 20).expect("guest memory"));
    let limits = Limits { sessions: 4, regions: 8, extents: 64, guest_extents: 100, region_bytes: 8 << 20 };
    let broker = Broker::new(ram.clone(), limits, Box::new(|| ()));
    let Ok(mut connection) = broker.connect(1) else { return false };
    let mut taken = true;
    let mut sessions = Vec::new();
    // In pieces, so that something can be used between messages.
    for piece in data.chunks(32) {
        taken &= connection.receive(piece).is_ok();
        if !taken {
            break;
        }
        sessions.extend(broker.claim([5, 6]));
        for region in sessions.iter().flat_map(|session| (0..4).filter_map(|id| session.region(id).ok())) {
            let pieces = region.pieces(ram, 0, region.len_bytes()).expect("the region's own length");
            assert_eq!(pieces.iter().map(|piece| piece.len_bytes).sum::<u64>(), region.len_bytes());
            assert!(pieces.iter().all(|piece| piece.file_offset_bytes + piece.len_bytes <= 16 << 20));
        }
    }
    drop(connection);
    assert_eq!(broker.uses(), 0);
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn no_request_panics_or_hangs(data in proptest::collection::vec(any::<u8>(), 0..1500)) {
            corpus();
            fuzz_requests(&data);
        }
    }

    /// The corpus and how many of its requests succeed: before any others, which may leave the backend with a context that has failed.
    fn corpus() -> &'static (Vec<Vec<u8>>, usize) {
        static CORPUS: OnceLock<(Vec<Vec<u8>>, usize)> = OnceLock::new();
        CORPUS.get_or_init(|| {
            let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/requests");
            let mut paths: Vec<_> =
                std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            let files: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
            let succeeded = files.iter().map(|data| requests(data)).sum();
            (files, succeeded)
        })
    }

    #[test]
    fn the_corpus_and_mutations_of_it() {
        let (files, succeeded) = corpus();
        // Otherwise the corpus does not fit the operations any more and reaches nothing.
        assert!(
            !files.is_empty() && *succeeded >= 15,
            "{} files, {succeeded} requests succeeded",
            files.len()
        );
        for data in files {
            for at in 0..data.len() {
                let mut changed = data.clone();
                changed[at] = changed[at].wrapping_add(97);
                fuzz_requests(&changed);
                fuzz_requests(&data[..at]);
            }
        }
    }
}
