//! Containers made by hand: what is read back, and what is refused with which words.

mod common;

use common::{EntrySpec, container, entry, header, lz4, zstd};
use fatbin::{
    Codec, Container, Entry, Error, ErrorKind, Fatbins, Flags, ImageKind, Kind, Result, Wrapper,
    WrapperVersion,
};

const LIMIT: usize = 1 << 20;
const TEXT: &[u8] = b".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry kernel() { ret; }\n";

fn read(bytes: &[u8]) -> Result<Vec<Entry<'_>>> {
    Container::parse(bytes)?.read_entries()
}

fn refused(spec: EntrySpec) -> Error {
    let bytes = container(&[spec]);
    let error = read(&bytes).expect_err("refused");
    assert_eq!(Container::parse(&bytes).expect("container").entries().count(), 1, "nothing after an error");
    error
}

fn undecodable(spec: EntrySpec, limit: usize) -> Error {
    let bytes = container(&[spec]);
    read(&bytes).expect("entries")[0].data(limit).expect_err("does not decode")
}

#[test]
fn everything_written_is_read_back() {
    let mut with_nuls = TEXT.to_vec();
    with_nuls.extend([0; 3]);
    let mut named = zstd(1, 90, &with_nuls);
    named.name = Some(b"kernel.cu".to_vec());
    named.options = Some(b"-O1 -v".to_vec());
    named.flags |= Flags::ARCH_SPECIFIC.0;
    let specs = [lz4(1, 75, &with_nuls), named, entry(1, 80, &with_nuls), entry(0x1234, 80, b"12345678")];
    let bytes = container(&specs);
    let list = read(&bytes).expect("entries");
    assert_eq!(list.len(), 4);
    for entry in &list[..3] {
        assert_eq!(entry.data(LIMIT).expect("decodes").as_ref(), TEXT);
        assert_eq!(entry.kind(), Kind::Ptx);
    }
    assert_eq!([list[0].codec(), list[1].codec(), list[2].codec()], [Codec::Lz4, Codec::Zstd, Codec::Stored]);
    assert_eq!(list[0].image_size(), with_nuls.len() as u64);
    assert_eq!(list[0].stored_size(), u64::from(specs[0].compressed_size));
    assert_eq!(list[1].name().as_deref(), Some("kernel.cu"));
    assert_eq!(list[1].options().as_deref(), Some("-O1 -v"));
    assert_eq!(list[1].arch().to_string(), "sm_90a");
    assert_eq!(list[1].flags().to_string(), "64bit linux zstd arch-specific");
    assert_eq!((list[0].name(), list[0].options()), (None, None));
    assert_eq!(list[3].kind(), Kind::Unknown(0x1234));
    assert_eq!(list[3].data(LIMIT).expect("opaque").as_ref(), b"12345678");
}

#[test]
fn total_len_comes_from_the_header_alone() {
    let bytes = container(&[entry(1, 75, TEXT)]);
    let head = bytes.first_chunk::<16>().expect("header");
    assert_eq!(Container::total_len(head), Ok(bytes.len()));
    let mut longer = bytes.clone();
    longer.extend([0xff; 40]);
    let parsed = Container::parse(&longer).expect("container");
    assert_eq!(parsed.bytes(), bytes);
    assert!(Container::parse(&header(0)).expect("empty").read_entries().expect("none").is_empty());
}

#[test]
fn headers_that_lie_are_refused() {
    let total = |bytes: Vec<u8>| Container::total_len(bytes.first_chunk().expect("header"));
    for size in [u64::MAX, u64::MAX - 7, 1 << 63, i64::MAX as u64 - 7] {
        let error = total(header(size)).expect_err("too large");
        assert_eq!((error.field, error.offset), ("container size", 8), "{size:#x}");
    }
    assert!(total(header(4)).is_err(), "sizes are multiples of 8");
    let mut bad = header(8);
    bad[0] = 0;
    assert!(matches!(total(bad).expect_err("magic").kind, ErrorKind::BadMagic { .. }));
    let mut bad = header(8);
    bad[4] = 2;
    assert_eq!(
        total(bad).expect_err("version").to_string(),
        "container version at offset 0x4: unsupported: container version (0x2)"
    );
    for size in [0, 8, 17] {
        let mut bad = header(8);
        bad[6] = size;
        assert_eq!(total(bad).expect_err("header size").field, "container header size");
    }
}

#[test]
fn entries_that_lie_are_refused() {
    let spec = || entry(1, 75, TEXT);
    let cases: Vec<(EntrySpec, &str, u64)> = vec![
        (EntrySpec { header_size: Some(0x38), ..spec() }, "entry header size", 0x14),
        (EntrySpec { header_size: Some(0), ..spec() }, "entry header size", 0x14),
        (EntrySpec { header_size: Some(0x44), ..spec() }, "entry header size", 0x14),
        (EntrySpec { header_size: Some(0xffff_fff8), ..spec() }, "entry header size", 0x14),
        (EntrySpec { payload_size: Some(u64::MAX), ..spec() }, "entry payload size", 0x18),
        (EntrySpec { payload_size: Some(u64::MAX - 7), ..spec() }, "entry payload size", 0x18),
        (EntrySpec { payload_size: Some(TEXT.len() as u64 + 800), ..spec() }, "entry payload size", 0x18),
        (EntrySpec { version: 0x0102, ..spec() }, "entry version", 0x12),
        (EntrySpec { compressed_size: u32::MAX, ..spec() }, "entry compressed size", 0x20),
        (EntrySpec { flags: 0xa011, compressed_size: 8, ..spec() }, "entry flags", 0x38),
        (EntrySpec { flags: 0x2011, ..spec() }, "entry compressed size", 0x20),
    ];
    for (spec, field, offset) in cases {
        let error = refused(spec);
        assert_eq!((error.field, error.offset), (field, offset), "{error}");
    }
}

#[test]
fn a_remainder_too_small_for_an_entry_is_refused() {
    let mut bytes = header(8);
    bytes.extend([0; 8]);
    let error = read(&bytes).expect_err("8 bytes are no entry");
    assert_eq!((error.field, error.offset), ("entry header", 16));
}

/// Sets a u32 of the first entry.
fn patched(spec: &EntrySpec, at: usize, value: u32) -> Vec<u8> {
    let mut bytes = container(std::slice::from_ref(spec));
    bytes[16 + at..16 + at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn offsets_out_of_the_header_are_refused() {
    let spec =
        EntrySpec { name: Some(b"a.cu".to_vec()), options: Some(b"-v".to_vec()), ..entry(1, 75, TEXT) };
    assert!(read(&container(std::slice::from_ref(&spec))).is_ok());
    // (field of the header, value, name in the error)
    for (at, value, field) in [
        (0x20, 0x3f, "entry name"),
        (0x20, 0x58, "entry name"),
        (0x20, u32::MAX, "entry name"),
        (0x24, 0x100, "entry name"),
        (0x24, u32::MAX, "entry name"),
        (0x14, 0x08, "entry option descriptor"),
        (0x14, 0x5c, "entry option descriptor"),
        (0x14, u32::MAX, "entry option descriptor"),
        (0x40, 0x10, "entry options"),
        (0x40, u32::MAX, "entry options"),
        (0x44, u32::MAX, "entry options"),
        (0x44, 0x100, "entry options"),
    ] {
        let bytes = patched(&spec, at, value);
        let error = read(&bytes).expect_err("out of the header");
        assert_eq!(error.field, field, "{at:#x} = {value:#x}: {error}");
        assert!(error.offset >= 16 && error.offset < 16 + 0x60, "{error}");
    }
}

#[test]
fn an_empty_option_descriptor_is_none() {
    let spec = EntrySpec { options: Some(Vec::new()), ..entry(1, 75, TEXT) };
    let bytes = patched(&spec, 0x40, 0);
    assert_eq!(read(&bytes).expect("entries")[0].options_bytes(), None);
}

#[test]
fn sizes_that_do_not_match_the_data_are_refused() {
    for make in [lz4, zstd] {
        let spec = make(1, 75, TEXT);
        for size in [0, 1, TEXT.len() as u64 - 1, TEXT.len() as u64 + 1, 4096] {
            let error = undecodable(EntrySpec { uncompressed_size: size, ..spec.clone() }, LIMIT);
            assert_eq!(error.field, "uncompressed size", "{size}: {error}");
            assert_eq!(error.offset, 16 + 0x40, "{error}");
        }
        // Larger than allowed, before anything is decoded.
        let error = undecodable(spec.clone(), TEXT.len() - 1);
        assert!(matches!(error.kind, ErrorKind::TooLarge { .. }), "{error}");
        // More than so few bytes can hold: no allocation either, whatever the limit.
        let error = undecodable(EntrySpec { uncompressed_size: 1 << 40, ..spec.clone() }, usize::MAX);
        assert!(matches!(error.kind, ErrorKind::SizeMismatch { .. }), "{error}");
        let error = undecodable(EntrySpec { uncompressed_size: u64::MAX, ..spec.clone() }, usize::MAX);
        assert!(matches!(error.kind, ErrorKind::SizeMismatch { .. }), "{error}");
        // A cut stream.
        let short = EntrySpec { compressed_size: spec.compressed_size - 1, ..spec.clone() };
        undecodable(short, LIMIT);
        // Garbage.
        let garbage = vec![0xff; spec.stored.len()];
        undecodable(EntrySpec { stored: garbage, ..spec }, LIMIT);
    }
    let error = undecodable(entry(1, 75, TEXT), TEXT.len() - 1);
    assert!(matches!(error.kind, ErrorKind::TooLarge { .. }), "{error}");
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 4 << 20];
    for make in [lz4, zstd] {
        let spec = make(2, 75, &zeros);
        let bytes = container(std::slice::from_ref(&spec));
        let list = read(&bytes).expect("entries");
        assert!(matches!(list[0].data(1 << 20).expect_err("limit").kind, ErrorKind::TooLarge { .. }));
        assert_eq!(list[0].data(4 << 20).expect("decodes").len(), zeros.len());
        // The header is modest, the stream is not.
        let error = undecodable(EntrySpec { uncompressed_size: 1000, ..spec }, 1 << 20);
        assert!(matches!(error.kind, ErrorKind::SizeMismatch { .. }), "{error}");
    }
}

#[test]
fn bytes_after_the_zstd_frame_are_refused() {
    let mut spec = zstd(1, 75, TEXT);
    spec.stored.extend(b"more");
    spec.compressed_size += 4;
    assert!(matches!(undecodable(spec, LIMIT).kind, ErrorKind::Corrupt { .. }));
}

#[test]
fn obfuscated_lto_ir_is_passed_through() {
    let spec = EntrySpec { flags: 0x1_8011, compressed_size: 21, ..entry(8, 75, b"scrambled LTO-IR here") };
    let bytes = container(&[spec]);
    let list = read(&bytes).expect("entries");
    let error = list[0].data(LIMIT).expect_err("obfuscated");
    assert_eq!(
        error.to_string(),
        "payload at offset 0x50: obfuscated LTO-IR, 21 bytes: only the CUDA linker can read it"
    );
    assert!(list[0].payload().starts_with(b"scrambled"));
}

fn group() -> Vec<u8> {
    let images: [(u32, &str, &[u8]); 3] = [(75, "", TEXT), (80, "-v", b"second\0\0"), (90, "", b"third")];
    let mut bytes = container(&[common::group(1, &images), entry(1, 100, TEXT)]);
    common::set_options_offset(&mut bytes, 16, 0x40);
    bytes
}

#[test]
fn groups_are_expanded() {
    let bytes = group();
    let list = read(&bytes).expect("entries");
    let rows: Vec<_> = list
        .iter()
        .map(|e| (e.arch().sm, e.group().map(|g| g.index), e.data(LIMIT).expect("decodes").into_owned()))
        .collect();
    assert_eq!(
        rows,
        [
            (75, Some(0), TEXT.to_vec()),
            (80, Some(1), b"second".to_vec()),
            (90, Some(2), b"third".to_vec()),
            (100, None, TEXT.to_vec()),
        ]
    );
    assert_eq!(list[1].options().as_deref(), Some("-v"));
}

#[test]
fn groups_that_lie_are_refused() {
    // Offsets from the container's start: entry at 16, table at 16 + 0x40, first sub-header 8 later.
    const TABLE: usize = 16 + 0x40;
    const SUB: usize = TABLE + 8;
    for (at, value) in [
        (16 + 0x14, 0),
        (16 + 0x14, 0x20),
        (16 + 0x14, u32::MAX),
        (TABLE, 2),
        (TABLE, 4),
        (TABLE, u32::MAX),
        (TABLE + 4, 0),
        (TABLE + 4, 8),
        (TABLE + 4, u32::MAX),
        (SUB + 4, u32::MAX),
        (SUB + 8, u32::MAX),
        (SUB + 12, u32::MAX),
        // Reaches into the second image.
        (SUB + 8, TEXT.len() as u32 + 1),
        (SUB + 0x40 + 4, 0),
        (SUB + 0x14, 0xffff_fff0),
        (SUB + 0x20, 0xffff_fff0),
    ] {
        let mut bytes = group();
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        let error = read(&bytes).expect_err("refused");
        assert!(error.offset >= 16 && error.offset < bytes.len() as u64, "{at:#x} = {value:#x}: {error}");
    }
}

#[test]
fn wrappers() {
    let make = |magic: u32, version: u32| {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&magic.to_le_bytes());
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        bytes[8..16].copy_from_slice(&0x1122_u64.to_le_bytes());
        bytes[16..].copy_from_slice(&0x3344_u64.to_le_bytes());
        Wrapper::parse(&bytes)
    };
    let magic = fatbin::raw::WRAPPER_MAGIC;
    assert_eq!(make(magic, 1), Ok(Wrapper { container: 0x1122, version: WrapperVersion::Plain }));
    let linked = WrapperVersion::Linked { list: 0x3344 };
    assert_eq!(make(magic, 2), Ok(Wrapper { container: 0x1122, version: linked }));
    assert_eq!(
        (make(magic, 3).expect_err("version").field, make(magic, 0).is_err()),
        ("wrapper version", true)
    );
    assert!(matches!(make(1, 1).expect_err("magic").kind, ErrorKind::BadMagic { found: 1 }));
}

#[test]
fn images_are_told_apart_by_four_bytes() {
    for (bytes, kind) in [
        (&[0xb1, 0x43, 0x62, 0x46][..], ImageKind::Wrapper),
        (&[0x50, 0xed, 0x55, 0xba], ImageKind::Container),
        (b"\x7fELF", ImageKind::Elf),
        (b".ver", ImageKind::Ptx),
        (b"//\n/", ImageKind::Ptx),
        (b"\n\n\n\n", ImageKind::Ptx),
        (&[0xed, 0x43, 0x4e, 0x7f], ImageKind::LtoIr),
        (b"\x7fTileIR!", ImageKind::TileIr),
        (b"!<arch>\n", ImageKind::Archive),
        (&[0, 0, 0, 0], ImageKind::Unknown),
        (b"", ImageKind::Unknown),
    ] {
        assert_eq!(ImageKind::of(bytes), kind, "{bytes:?}");
    }
}

#[test]
fn containers_inside_of_each_other_are_not_read_for_ever() {
    // Each of the first containers leads over the others to the same long list of entries, whose last one is damaged.
    const HEADS: usize = 600;
    const TAIL: usize = 600;
    let mut file = common::golden("rdc.so");
    // A library without sections for device code is searched as a whole.
    for name in [b".nv_fatbin".as_slice(), b"__nv_relfatbin", b".nvFatBinSegment"] {
        let at = file.windows(name.len()).rposition(|window| window == name).expect("section name");
        file[at + 1] = b'x';
    }
    let start = file.len().next_multiple_of(8);
    file.resize(start, 0);
    let tail = vec![common::entry(1, 75, b""); TAIL];
    let tail_len = tail.len() * 0x40;
    for n in 0..HEADS {
        let rest = ((HEADS - n) * 0x50 - 0x50 + tail_len + 0x40) as u64;
        file.extend(common::header(rest + 0x40));
        let mut skip = common::entry(1, 75, b"");
        skip.payload_size = Some((HEADS - n) as u64 * 0x50 - 0x50);
        file.extend(skip.bytes());
    }
    tail.iter().for_each(|entry| file.extend(entry.bytes()));
    file.extend([0xff; 0x40]);
    let fatbins = Fatbins::parse(&file).expect("scan");
    // The library's own three are found before.
    assert_eq!(fatbins.containers().count(), 3);
    let problems = &fatbins.parts()[0].scan.problems;
    assert!(
        problems[0].to_string().contains("containers that do not lie inside of each other"),
        "{problems:?}"
    );
}

#[test]
fn wrappers_are_listed_with_their_container() {
    // In a Windows file, whose wrappers are taken as they stand.
    let mut file = common::portable_executable(&container(&[entry(1, 75, b"x")]));
    let wrappers = file.len() - 0x200;
    let one: Vec<u8> = file[wrappers..wrappers + 24].to_vec();
    let size = wrappers_size_field(&file);
    file[size..size + 4].copy_from_slice(&72_u32.to_le_bytes());
    for n in 1..3 {
        file[wrappers + n * 24..wrappers + (n + 1) * 24].copy_from_slice(&one);
    }
    // The second one is of version 2.
    file[wrappers + 28] = 2;
    let fatbins = Fatbins::parse(&file).expect("scan");
    let located = fatbins.containers().next().expect("container");
    assert_eq!(located.wrappers().collect::<Vec<_>>(), [1, 2, 1]);
    let offsets: Vec<_> = located.found_wrappers().map(|found| found.offset as usize - wrappers).collect();
    assert_eq!(offsets, [0, 24, 48]);
}

/// Offset of the virtual size of the section of wrappers: in the second section header.
fn wrappers_size_field(file: &[u8]) -> usize {
    let name = file.windows(8).position(|name| name == b".nvFatBi").expect("section");
    name + 8
}
