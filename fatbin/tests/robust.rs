//! Any input must be survived: mutations of real and hand-made files, and the fuzz bodies over their corpora.

mod common;

use std::path::PathBuf;

use common::{container, entry, lz4, zstd};
use proptest::prelude::*;

type Body = fn(&[u8]);

/// Small deterministic random numbers (xorshift), so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Values that break careless arithmetic.
const NASTY: [u64; 10] = [0, 1, 7, 8, 0x3f, 0x40, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_fff8, u64::MAX];

fn mutate(data: &mut Vec<u8>, random: &mut Random) {
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

/// Runs a body over its corpus, the golden files and `seeds`, each as it is and mutated.
fn drive(name: &str, body: Body, seeds: Vec<Vec<u8>>, rounds: usize) {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut inputs = seeds;
    for file in std::fs::read_dir(&corpus).unwrap_or_else(|e| panic!("{}: {e}", corpus.display())) {
        inputs.push(std::fs::read(file.expect("directory entry").path()).expect("readable"));
    }
    inputs.extend(common::golden_containers().into_iter().map(|(_, bytes)| bytes));
    assert!(inputs.len() > 10);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for input in &inputs {
        body(input);
        for _ in 0..rounds {
            let mut mutated = input.clone();
            mutate(&mut mutated, &mut random);
            body(&mutated);
        }
    }
}

/// Every image of the golden containers.
fn images() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (_, bytes) in common::golden_containers() {
        for entry in fatbin::Container::parse(&bytes).expect("container").entries() {
            out.push(entry.expect("entry").data(1 << 20).expect("decodes").into_owned());
        }
    }
    out
}

#[test]
fn fuzz_container() {
    let text = b".version 8.0\n.target sm_75\n.entry k() {}\0".repeat(20);
    let seeds = vec![
        container(&[lz4(1, 75, &text), zstd(1, 80, &text), entry(2, 75, &text)]),
        container(&[zstd(2, 90, &[0; 100_000])]),
    ];
    drive("container", fatbin::fuzz::fuzz_container, seeds, 1500);
}

#[test]
fn fuzz_cubin() {
    drive("cubin", fatbin::fuzz::fuzz_cubin, images(), 1500);
}

#[test]
fn fuzz_elf() {
    let seeds = vec![common::golden("rdc.so"), common::golden("tiny.o")];
    drive("elf", fatbin::fuzz::fuzz_elf, seeds, 1000);
}

#[test]
fn fuzz_ptx_header() {
    drive("ptx_header", fatbin::fuzz::fuzz_ptx_header, images(), 1500);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read(
        images in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..300), 0..3_u8, 0..130_u32), 0..6)
    ) {
        // Kind 0x80 is not trimmed, so that any bytes come back.
        let specs: Vec<_> = images.iter().map(|(image, codec, arch)| match codec {
            0 => entry(0x80, *arch, image),
            1 => lz4(0x80, *arch, image),
            _ => zstd(0x80, *arch, image),
        }).collect();
        let bytes = container(&specs);
        let list = fatbin::Container::parse(&bytes)?.read_entries()?;
        prop_assert_eq!(list.len(), images.len());
        for (entry, (image, codec, arch)) in list.iter().zip(&images) {
            let mut expected = image.clone();
            if *codec == 0 {
                expected.resize(image.len().next_multiple_of(8), 0);
            }
            let image = entry.data(1 << 20)?;
            prop_assert_eq!(image.as_ref(), expected.as_slice());
            prop_assert_eq!(entry.arch().sm, *arch);
        }
    }

    #[test]
    fn mutated_containers_are_survived(seed in 1..u64::MAX, choice in any::<prop::sample::Index>()) {
        let all = common::golden_containers();
        let mut bytes = choice.get(&all).1.clone();
        mutate(&mut bytes, &mut Random(seed));
        fatbin::fuzz::fuzz_container(&bytes);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        fatbin::fuzz::fuzz_container(&bytes);
        fatbin::fuzz::fuzz_cubin(&bytes);
        fatbin::fuzz::fuzz_elf(&bytes);
        fatbin::fuzz::fuzz_ptx_header(&bytes);
        let mut with_header = common::header(bytes.len() as u64 & !7);
        with_header.extend(&bytes);
        fatbin::fuzz::fuzz_container(&with_header);
    }

    #[test]
    fn any_text_is_survived(text in "[.a-z{}()/*\"\\\\,;\\[\\]0-9 \n]{0,300}") {
        fatbin::fuzz::fuzz_ptx_header(format!(".version 8.0 .target sm_75 {text}").as_bytes());
    }
}
