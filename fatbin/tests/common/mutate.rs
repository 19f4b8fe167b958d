//! Damaged inputs, made from good ones, for the fuzz bodies. Shared by the tests and the example `fuzz`.

use std::path::PathBuf;

use super::{container, entry, golden, golden_containers, lz4, portable_executable, zstd};

/// Small deterministic random numbers (xorshift), so that a failure repeats.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Values that break careless arithmetic.
const NASTY: [u64; 10] = [0, 1, 7, 8, 0x3f, 0x40, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_fff8, u64::MAX];

/// Damages some bytes.
pub fn mutate(data: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if data.is_empty() {
            return;
        }
        let at = random.below(data.len());
        match random.below(6) {
            0 => data[at] ^= 1 << random.below(8),
            1 => data[at] = random.next() as u8,
            2 | 3 => {
                let at = at & !3;
                let width = [2, 4, 8][random.below(3)];
                let value = NASTY[random.below(NASTY.len())].to_le_bytes();
                for (slot, byte) in data[at..].iter_mut().zip(&value[..width]) {
                    *slot = *byte;
                }
            }
            4 => data.truncate(at),
            _ => {
                let len = random.below(64).min(data.len() - at);
                let piece = data[at..at + len].to_vec();
                let to = random.below(data.len());
                data.splice(to..to, piece);
            }
        }
    }
}

/// A fuzz body with the inputs to start from.
pub struct Target {
    pub name: &'static str,
    pub body: fn(&[u8]),
    pub seeds: Vec<Vec<u8>>,
}

/// A body with its corpus, the golden files and `seeds`.
fn target(name: &'static str, body: fn(&[u8]), mut seeds: Vec<Vec<u8>>) -> Target {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    for file in std::fs::read_dir(&corpus).unwrap_or_else(|e| panic!("{}: {e}", corpus.display())) {
        seeds.push(std::fs::read(file.expect("directory entry").path()).expect("readable"));
    }
    seeds.extend(golden_containers().into_iter().map(|(_, bytes)| bytes));
    Target { name, body, seeds }
}

/// Every image of the golden containers.
fn images() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (_, bytes) in golden_containers() {
        for entry in fatbin::Container::parse(&bytes).expect("container").entries() {
            out.push(entry.expect("entry").data(1 << 20).expect("decodes").into_owned());
        }
    }
    out
}

pub fn container_target() -> Target {
    let text = b".version 8.0\n.target sm_75\n.entry k() {}\0".repeat(20);
    let seeds = vec![
        container(&[lz4(1, 75, &text), zstd(1, 80, &text), entry(2, 75, &text)]),
        container(&[zstd(2, 90, &[0; 100_000])]),
    ];
    target("container", fatbin::fuzz::fuzz_container, seeds)
}

pub fn cubin_target() -> Target {
    target("cubin", fatbin::fuzz::fuzz_cubin, images())
}

pub fn file_target() -> Target {
    let windows = portable_executable(&golden("tiny_size.fatbin"));
    target("elf", fatbin::fuzz::fuzz_elf, vec![golden("rdc.so"), golden("tiny.o"), windows])
}

pub fn ptx_target() -> Target {
    target("ptx_header", fatbin::fuzz::fuzz_ptx_header, images())
}
