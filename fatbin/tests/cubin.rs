//! Cubins that are not as nvcc 13 makes them: the older ABI, and lies. Real ones are in `golden.rs`.

mod common;

use fatbin::{Arch, Cubin, ErrorKind, Kind, Variant, elf_len, elf_len_with};

/// Machine code of a golden file.
fn image(name: &str) -> Vec<u8> {
    let bytes = common::golden(name);
    let container = fatbin::Container::parse(&bytes).expect("container");
    let entry =
        container.entries().map(|e| e.expect("entry")).find(|e| e.kind() == Kind::Elf).expect("machine code");
    entry.data(1 << 20).expect("decodes").into_owned()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// File offset of the first occurrence of `pattern`, which must be the only one.
fn find(bytes: &[u8], pattern: &[u8]) -> usize {
    let found: Vec<_> =
        (0..bytes.len() - pattern.len()).filter(|at| bytes[*at..].starts_with(pattern)).collect();
    assert_eq!(found.len(), 1, "{pattern:x?}");
    found[0]
}

#[test]
fn the_abi_of_cuda_12_keeps_the_architecture_elsewhere() {
    let mut old = image("nothing.fatbin");
    old[7] = 0x33;
    old[8] = 7;
    old[48..52].copy_from_slice(&0x0056_0550_u32.to_le_bytes());
    let cubin = Cubin::parse(&old).expect("cubin");
    assert_eq!((cubin.abi, cubin.arch), (7, Arch { sm: 86, variant: Variant::Generic }));
    assert_eq!(cubin.virtual_sm, Some(80));
    assert_eq!((cubin.kernels.len(), cubin.kernels[0].barriers), (1, Some(0)));
    // Barriers are counted in the flags of the section with the code: allocated, executable program bits.
    let (table, number) = (u64_at(&old, 40) as usize, usize::from(old[60]));
    let is_code = |at: &usize| old[at + 4..at + 8] == [1, 0, 0, 0] && old[at + 8] == 6;
    let at = (0..number).map(|n| table + n * 64).find(is_code).expect("section with code");
    old[at + 10] |= 0x50;
    assert_eq!(Cubin::parse(&old).expect("cubin").kernels[0].barriers, Some(5));

    old[8] = 9;
    let error = Cubin::parse(&old).expect_err("unknown ABI");
    assert_eq!((error.field, error.offset), ("ELF ABI version", 8));
    old[8] = 7;
    old[18] = 62;
    assert_eq!(Cubin::parse(&old).expect_err("a host program").field, "ELF machine");
}

#[test]
fn parameter_records_that_contradict_each_other_are_refused() {
    let good = image("params.fatbin");
    // The record of parameter 1 of `by_value`: format 4, attribute 0x17, 12 bytes; index 0, ordinal 1, offset 8, size 16.
    let at = find(&good, &[4, 0x17, 12, 0, 0, 0, 0, 0, 1, 0, 8, 0]);
    let with = |offset: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at + offset..at + offset + bytes.len()].copy_from_slice(bytes);
        Cubin::parse(&bad).map(|_| ()).expect_err("refused").field
    };
    assert_eq!(with(8, &[2, 0]), "kernel parameter number", "given twice");
    assert_eq!(with(8, &[9, 0]), "kernel parameter number", "one is missing");
    assert_eq!(with(10, &[0, 0]), "kernel parameter offset", "overlaps the one before");
    assert_eq!(with(10, &[0xff, 0xff]), "kernel parameter offset", "overlaps the one after");
    assert_eq!(with(12, &[0xff, 0xff, 0xff, 0xff]), "kernel parameter offset", "too large");
    assert_eq!(with(0, &[9]), ".nv.info record", "unknown format");
    assert_eq!(with(2, &[0xff, 0xff]), ".nv.info record", "longer than the section");
    assert_eq!(with(2, &[4, 0]), ".nv.info record length", "too short for its attribute");
}

#[test]
fn a_parameter_beyond_the_buffer_is_refused() {
    let mut bad = image("params.fatbin");
    // Total size of `by_value`'s parameters: format 3, attribute 0x19, 34 bytes.
    let at = find(&bad, &[3, 0x19, 34, 0]);
    bad[at + 2] = 33;
    let error = Cubin::parse(&bad).expect_err("refused");
    assert!(matches!(error.kind, ErrorKind::OutOfBounds { container: "parameter buffer", .. }), "{error}");
}

#[test]
fn the_length_of_an_elf_file_is_in_its_headers() {
    for name in ["nothing.fatbin", "params.fatbin", "debug.fatbin", "variants.fatbin"] {
        let good = image(name);
        let mut longer = good.clone();
        longer.extend([0xaa; 100]);
        assert_eq!(elf_len(&longer), Ok(good.len()), "{name}");
        for len in 0..good.len() {
            assert!(elf_len(&good[..len]).is_err(), "{name} cut at {len}");
        }
        // The same through reads of at most 64 bytes.
        let mut most = 0;
        let len = elf_len_with(|offset, buffer| {
            most = most.max(buffer.len());
            buffer.copy_from_slice(good.get(offset as usize..)?.get(..buffer.len())?);
            Some(())
        });
        assert_eq!(len, Ok(good.len() as u64));
        assert!(most <= 64);
    }
}

#[test]
fn lying_elf_headers_are_refused() {
    let good = image("nothing.fatbin");
    let table = u64_at(&good, 40) as usize;
    for (at, value) in
        [(40, u64::MAX), (40, u64::MAX - 63), (table + 64 + 24, u64::MAX), (table + 64 + 32, u64::MAX)]
    {
        let mut bad = good.clone();
        bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
        assert!(elf_len(&bad).is_err(), "{at:#x} = {value:#x}");
    }
    let mut bad = good.clone();
    bad[58] = 63;
    assert_eq!(elf_len(&bad).expect_err("header size").field, "ELF section header size");
    assert!(matches!(elf_len(b"\x7fELG").expect_err("short").kind, ErrorKind::Truncated { .. }));
    // A section count of 2^32 in section 0.
    let mut bad = good;
    bad[60..62].fill(0);
    bad[table + 32..table + 40].copy_from_slice(&(1_u64 << 32).to_le_bytes());
    assert_eq!(elf_len(&bad).expect_err("count").field, "ELF section count");
}

#[test]
fn records_are_not_read_twice_over() {
    let mut bad = image("params.fatbin");
    // All sections of records show the same long run of empty records, added at the end.
    let (table, end) = (u64_at(&bad, 40) as usize, bad.len());
    let len = 4 * end as u64;
    bad.extend([1, 0, 0, 0].repeat(end));
    for section in (table..end).step_by(64) {
        if bad[section + 4..section + 8] == 0x7000_0000_u32.to_le_bytes() {
            bad[section + 24..section + 32].copy_from_slice(&(end as u64).to_le_bytes());
            bad[section + 32..section + 40].copy_from_slice(&len.to_le_bytes());
        }
    }
    let error = Cubin::parse(&bad).expect_err("refused");
    assert!(matches!(error.kind, ErrorKind::BadValue { rule: "overlaps other sections", .. }), "{error}");
}

#[test]
fn a_recursion_has_no_stack_size() {
    let mut bytes = image("nothing.fatbin");
    let known = |bytes: &[u8]| Cubin::parse(bytes).expect("cubin").kernels[0].stack_size();
    assert_eq!(known(&bytes), Some(0));
    // The record of the stack's size: kind, number, length, kernel, bytes.
    let at = find(&bytes, &[0x04, 0x12, 8, 0]);
    bytes[at + 8..at + 12].fill(0xff);
    assert_eq!(known(&bytes), None);
}
