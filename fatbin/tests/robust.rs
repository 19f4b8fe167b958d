//! Any input must be survived: mutations of real and hand-made files, and the fuzz bodies over their corpora.

mod common;

use common::mutate::{self, Random, Target, mutate};
use common::{container, entry, lz4, zstd};
use proptest::prelude::*;

/// Runs a body over its seeds, each as it is and mutated.
fn drive(target: &Target, rounds: usize) {
    assert!(target.seeds.len() > 10);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for input in &target.seeds {
        (target.body)(input);
        for _ in 0..rounds {
            let mut mutated = input.clone();
            mutate(&mut mutated, &mut random);
            (target.body)(&mutated);
        }
    }
}

#[test]
fn fuzz_container() {
    drive(&mutate::container_target(), 1500);
}

#[test]
fn fuzz_cubin() {
    drive(&mutate::cubin_target(), 1500);
}

#[test]
fn fuzz_elf() {
    drive(&mutate::file_target(), 1000);
}

#[test]
fn fuzz_ptx_header() {
    drive(&mutate::ptx_target(), 1500);
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
