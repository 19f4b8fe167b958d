//! Files made by nvcc 13.5 from `test-kernels` (see `test-kernels/make.sh`).

mod common;

use common::golden;
use fatbin::cubin::Param;
use fatbin::{
    Arch, CodeVersion, Codec, Container, Cubin, Device, Entry, Flags, Kind, LinkedSelection, Part, Purpose,
    Variant, WrapperVersion, ptx, scan_file, select, select_linked,
};

const LIMIT: usize = 1 << 20;
const ISA_9_5: CodeVersion = CodeVersion { major: 9, minor: 5 };

fn device(cc: (u32, u32), sass: bool) -> Device {
    Device { cc_major: cc.0, cc_minor: cc.1, sass, max_ptx_version: ISA_9_5, groups: true }
}

fn entries(bytes: &[u8]) -> Vec<Entry<'_>> {
    let container = Container::parse(bytes).expect("container");
    assert_eq!(container.len(), bytes.len(), "a .fatbin file is one container");
    container.read_entries().expect("entries")
}

/// Kind, architecture and codec of each entry.
fn shape(bytes: &[u8]) -> Vec<(Kind, String, Codec)> {
    entries(bytes).iter().map(|e| (e.kind(), e.arch().to_string(), e.codec())).collect()
}

#[test]
fn every_mode_lists_as_the_toolkit_wrote_it() {
    let of = |name: &str| shape(&golden(name));
    let row = |kind, arch: &str, codec| (kind, arch.to_owned(), codec);
    assert_eq!(of("tiny_speed.fatbin"), [row(Kind::Ptx, "sm_75", Codec::Lz4)]);
    assert_eq!(of("tiny_balance.fatbin"), [row(Kind::Ptx, "sm_75", Codec::Zstd)]);
    assert_eq!(of("tiny_none.fatbin"), [row(Kind::Ptx, "sm_75", Codec::Stored)]);
    assert_eq!(of("sass.fatbin"), [row(Kind::Elf, "sm_75", Codec::Zstd)]);
    assert_eq!(
        of("tiny_size.fatbin"),
        [row(Kind::Elf, "sm_75", Codec::Zstd), row(Kind::Ptx, "sm_75", Codec::Zstd)]
    );
    assert_eq!(
        of("nothing.fatbin"),
        [row(Kind::Elf, "sm_75", Codec::Stored), row(Kind::Ptx, "sm_75", Codec::Zstd)]
    );
    assert_eq!(
        of("two_archs.fatbin"),
        [
            row(Kind::Elf, "sm_75", Codec::Zstd),
            row(Kind::Elf, "sm_80", Codec::Zstd),
            row(Kind::Ptx, "sm_80", Codec::Zstd),
        ]
    );
}

#[test]
fn ptx_is_the_same_in_every_codec() {
    let texts: Vec<Vec<u8>> = ["tiny_none.fatbin", "tiny_speed.fatbin", "tiny_balance.fatbin"]
        .iter()
        .map(|name| entries(&golden(name))[0].data(LIMIT).expect("decodes").into_owned())
        .collect();
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2]);
    assert!(texts[0].iter().all(|&b| b != 0), "trailing NULs are stripped");
    let header = ptx::scan(&texts[0]).expect("PTX");
    assert_eq!(header.version, (9, 5));
    assert_eq!((header.target.sm, header.target.suffix), (75, ""));
    assert_eq!(header.address_size, 64);
    let names: Vec<_> = header.entries.iter().map(|e| e.name).collect();
    assert_eq!(names, ["axpy", "nothing"]);
    let layout: Vec<_> =
        header.entries[0].params.as_ref().expect("layout").iter().map(|p| (p.offset, p.size)).collect();
    assert_eq!(layout, [(0, 8), (8, 8), (16, 4), (20, 4)]);
    assert_eq!(header.entries[1].params.as_deref(), Ok([].as_slice()));
}

#[test]
fn options_are_read() {
    let bytes = golden("tiny_balance.fatbin");
    let entry = entries(&bytes)[0];
    assert_eq!(entry.options().as_deref(), Some("-v -O1  "));
    assert_eq!(entry.code_version(), ISA_9_5);
    assert_eq!(entry.flags(), Flags(0x8011));
}

#[test]
fn uncompressed_machine_code_has_its_true_length() {
    let bytes = golden("nothing.fatbin");
    let elf = entries(&bytes)[0];
    let image = elf.data(LIMIT).expect("stored");
    assert!(matches!(image, std::borrow::Cow::Borrowed(_)), "stored images are not copied");
    let cubin = Cubin::parse(&image).expect("cubin");
    assert_eq!(cubin.kernels.len(), 1);
    assert_eq!(cubin.kernels[0].name, "nothing");
    assert_eq!((cubin.kernels[0].param_size, cubin.kernels[0].params.len()), (0, 0));
    assert!(elf.payload().len() - image.len() < 8);
}

#[test]
fn parameters_agree_between_machine_code_and_ptx() {
    let bytes = golden("params.fatbin");
    let entries = entries(&bytes);
    let elf =
        entries.iter().find(|e| e.kind() == Kind::Elf).expect("machine code").data(LIMIT).expect("decodes");
    let text = entries.iter().find(|e| e.kind() == Kind::Ptx).expect("PTX").data(LIMIT).expect("decodes");
    let cubin = Cubin::parse(&elf).expect("cubin");
    let header = ptx::scan(&text).expect("PTX");

    assert_eq!(
        (cubin.abi, cubin.arch, cubin.relocatable),
        (8, Arch { sm: 75, variant: Variant::Generic }, false)
    );
    assert_eq!(cubin.toolkit, Some(135));
    let mut seen = 0;
    for kernel in &cubin.kernels {
        let entry = header.entries.iter().find(|e| e.name == kernel.name).expect("same kernels");
        let from_ptx: Vec<_> =
            entry.params.as_ref().expect("layout").iter().map(|p| (p.offset, p.size)).collect();
        let from_elf: Vec<_> = kernel.params.iter().map(|p| (p.offset, p.size)).collect();
        assert_eq!(from_ptx, from_elf, "{}", kernel.name);
        assert_eq!(entry.param_size(), kernel.param_size, "{}", kernel.name);
        seen += 1;
    }
    assert_eq!(seen, 2);

    let by_value = cubin.kernels.iter().find(|k| k.name == "by_value").expect("by_value");
    // char, struct { double; int; char } with tail padding, pointer, short.
    let expected = [(0, 0, 1), (1, 8, 16), (2, 24, 8), (3, 32, 2)];
    let expected = expected.map(|(ordinal, offset, size)| Param { ordinal, offset, size });
    assert_eq!(by_value.params, expected);
    assert_eq!(by_value.param_size, 34);
    assert_eq!(by_value.param_base, Some(0x160));
    assert_eq!(by_value.max_threads, Some([128, 1, 1]));
    assert_eq!(by_value.shared_size, 256);
    assert!(by_value.registers.is_some_and(|r| r > 0));
    let ptx_by_value = header.entries.iter().find(|e| e.name == "by_value").expect("by_value");
    assert_eq!(ptx_by_value.max_threads, Some([128, 1, 1]));

    // More than 4 KB of parameters: second form of the records.
    let big = cubin.kernels.iter().find(|k| k.name == "big").expect("big");
    assert_eq!((big.params[0].size, big.params[1].offset, big.param_size), (4400, 4400, 4408));
    assert_eq!(big.param_base, Some(0x1a80));
}

#[test]
fn device_functions_of_debug_code_are_no_kernels() {
    let bytes = golden("debug.fatbin");
    let entries = entries(&bytes);
    let elf = entries.iter().find(|e| e.kind() == Kind::Elf).expect("machine code");
    assert!(elf.flags().contains(Flags::DEBUG));
    let image = elf.data(LIMIT).expect("decodes");
    let cubin = Cubin::parse(&image).expect("cubin");
    let names: Vec<_> = cubin.kernels.iter().map(|k| k.name).collect();
    assert_eq!(names, ["squared"]);
    assert_eq!(cubin.kernels[0].param_size, 12);
}

#[test]
fn concatenated_groups_are_expanded() {
    let bytes = golden("concat.fatbin");
    let list = entries(&bytes);
    let rows: Vec<_> = list
        .iter()
        .map(|e| (e.kind(), e.arch().sm, e.group().map(|g| (g.index, g.count)), e.code_version()))
        .collect();
    let elf = CodeVersion { major: 1, minor: 8 };
    assert_eq!(
        rows,
        [
            (Kind::Ptx, 80, Some((0, 2)), ISA_9_5),
            (Kind::Ptx, 90, Some((1, 2)), ISA_9_5),
            (Kind::Elf, 75, Some((0, 3)), elf),
            (Kind::Elf, 80, Some((1, 3)), elf),
            (Kind::Elf, 90, Some((2, 3)), elf),
        ]
    );
    for entry in &list {
        let image = entry.data(LIMIT).expect("decodes");
        if entry.kind() == Kind::Elf {
            let cubin = Cubin::parse(&image).expect("cubin");
            assert_eq!(cubin.arch.sm, entry.arch().sm);
            assert_eq!(fatbin::elf_len(&image), Ok(image.len()));
        } else {
            assert_eq!(ptx::scan(&image).expect("PTX").target.sm, entry.arch().sm);
        }
    }
}

#[test]
fn variants_carry_their_suffix() {
    let bytes = golden("variants.fatbin");
    let list = entries(&bytes);
    let mut rows: Vec<_> = list.iter().map(|e| format!("{} {}", e.kind(), e.arch())).collect();
    rows.sort();
    assert_eq!(rows, ["ELF sm_100f", "ELF sm_90a", "PTX sm_100f", "PTX sm_90a"]);
    for entry in &list {
        let image = entry.data(LIMIT).expect("decodes");
        match entry.kind() {
            Kind::Ptx => {
                assert_eq!(ptx::scan(&image).expect("PTX").target.suffix, entry.arch().variant.suffix())
            }
            _ => {
                let cubin = Cubin::parse(&image).expect("cubin");
                assert_eq!(cubin.arch.sm, entry.arch().sm);
                // Copies of the records in sections of another type must not be counted.
                assert_eq!(cubin.kernels.len(), 1);
            }
        }
    }
    let pick =
        |cc, sass| select(&list, &device(cc, sass), Purpose::Load).chosen.map(|i| list[i].arch().to_string());
    assert_eq!(pick((9, 0), true).as_deref(), Some("sm_90a"));
    assert_eq!(pick((10, 3), true).as_deref(), Some("sm_100f"));
    assert_eq!(pick((12, 0), true), None);
    assert_eq!(pick((8, 9), false), None);
}

fn only_part(data: &[u8]) -> Part<'_> {
    let mut parts = scan_file(data).expect("scan");
    assert_eq!(parts.len(), 1);
    parts.remove(0)
}

#[test]
fn relocatable_device_code_is_found_and_linked_from_its_parts() {
    let data = golden("rdc.so");
    let scan = only_part(&data).scan;
    assert_eq!(scan.problems, []);
    let sections: Vec<_> = scan.containers.iter().map(|c| c.section.expect("section")).collect();
    assert_eq!(sections, ["__nv_relfatbin", "__nv_relfatbin", ".nv_fatbin"]);
    let wrappers: Vec<_> = scan.wrappers.iter().map(|w| (w.wrapper.version.number(), w.container)).collect();
    assert_eq!(wrappers, [(1, Some(0)), (1, Some(1)), (2, Some(2))]);
    assert!(matches!(scan.wrappers[2].wrapper.version, WrapperVersion::Linked { list } if list != 0));

    let read = |i: usize| scan.containers[i].container.read_entries().expect("entries");
    let (linked, parts) = (read(2), [read(0), read(1)]);
    // Machine code of the right architecture: the linked image is there.
    let LinkedSelection::Linked(selection) = select_linked(&linked, &parts, &device((7, 5), true)) else {
        panic!("sm_75 code is in the linked container");
    };
    let image = linked[selection.chosen.expect("chosen")].data(LIMIT).expect("decodes");
    let cubin = Cubin::parse(&image).expect("cubin");
    assert!(!cubin.relocatable);
    assert_eq!(cubin.kernels.iter().map(|k| k.name).collect::<Vec<_>>(), ["call_twice"]);
    // No machine code: the PTX of each part.
    for device in [device((7, 5), false), device((9, 0), true)] {
        let LinkedSelection::Link { linked: reasons, prelinked } = select_linked(&linked, &parts, &device)
        else {
            panic!("nothing in the linked container fits");
        };
        assert_eq!(reasons.rejected.len(), linked.len());
        assert_eq!(prelinked.len(), 2);
        for (selection, entries) in prelinked.iter().zip(&parts) {
            assert!(entries[selection.chosen.expect("PTX")].kind().is_ptx());
        }
    }
    // Programs with PTX alone have an empty linked container.
    let LinkedSelection::Link { linked: reasons, prelinked } =
        select_linked(&[], &parts, &device((7, 5), false))
    else {
        panic!("nothing is linked");
    };
    assert_eq!((reasons.to_string().as_str(), prelinked.len()), ("the container holds no image", 2));
    // The parts' machine code is relocatable.
    let elf =
        parts[0].iter().find(|e| e.kind() == Kind::Elf).expect("machine code").data(LIMIT).expect("decodes");
    let cubin = Cubin::parse(&elf).expect("cubin");
    assert!(cubin.relocatable);
    assert_eq!(cubin.kernels.iter().map(|k| k.name).collect::<Vec<_>>(), ["call_twice"]);
}

#[test]
fn a_file_without_section_headers_gives_the_same() {
    let mut data = golden("rdc.so");
    let with: Vec<_> = only_part(&data).scan.containers.iter().map(|c| c.offset).collect();
    let wrappers: Vec<_> = only_part(&data).scan.wrappers.iter().map(|w| (w.wrapper, w.container)).collect();
    data[40..48].fill(0); // e_shoff
    data[60..64].fill(0); // e_shnum, e_shstrndx
    let scan = only_part(&data).scan;
    assert_eq!(scan.containers.iter().map(|c| c.offset).collect::<Vec<_>>(), with);
    assert_eq!(scan.wrappers.iter().map(|w| (w.wrapper, w.container)).collect::<Vec<_>>(), wrappers);
    assert!(scan.containers.iter().all(|c| c.section.is_none()));
}

#[test]
fn relocations_count_where_the_linker_left_no_value() {
    let mut data = golden("rdc.so");
    let before: Vec<_> =
        only_part(&data).scan.wrappers.iter().map(|w| (w.wrapper.container, w.container)).collect();
    assert!(before.iter().all(|(address, container)| *address != 0 && container.is_some()));
    for at in only_part(&data).scan.wrappers.iter().map(|w| w.offset as usize).collect::<Vec<_>>() {
        data[at + 8..at + 16].fill(0);
    }
    let after: Vec<_> =
        only_part(&data).scan.wrappers.iter().map(|w| (w.wrapper.container, w.container)).collect();
    assert_eq!(after, before);
}

#[test]
fn objects_are_resolved_through_symbol_relocations() {
    let data = golden("tiny.o");
    let scan = only_part(&data).scan;
    assert_eq!(scan.problems, []);
    assert_eq!(scan.containers.len(), 1);
    assert_eq!(scan.wrappers.len(), 1);
    assert_eq!(scan.wrappers[0].wrapper.container, 0, "a relocation stands in its place");
    assert_eq!(scan.wrappers[0].container, Some(0));
    assert_eq!(shape(scan.containers[0].container.bytes()).len(), 1);
}

/// An archive by hand: name table, one member with a long name, one without.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut names = Vec::new();
    let mut bodies = Vec::new();
    for (name, data) in members {
        let field = if name.len() < 15 { format!("{name}/") } else { format!("/{}", names.len()) };
        if name.len() >= 15 {
            names.extend_from_slice(format!("{name}/\n").as_bytes());
        }
        bodies.push((field, *data));
    }
    let mut out = b"!<arch>\n".to_vec();
    let mut put = |field: &str, data: &[u8]| {
        out.extend_from_slice(
            format!("{field:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, data.len()).as_bytes(),
        );
        out.extend_from_slice(data);
        if data.len() % 2 == 1 {
            out.push(b'\n');
        }
    };
    put("//", &names);
    for (field, data) in bodies {
        put(&field, data);
    }
    out
}

#[test]
fn archives_are_scanned_member_by_member() {
    let object = golden("tiny.o");
    let bytes = archive(&[("readme.txt", b"odd"), ("a_name_that_is_long.o", &object), ("b.o", &object)]);
    let parts = scan_file(&bytes).expect("archive");
    let names: Vec<_> = parts.iter().map(|p| (p.member.expect("member"), p.scan.containers.len())).collect();
    assert_eq!(names, [("readme.txt", 0), ("a_name_that_is_long.o", 1), ("b.o", 1)]);
    for part in &parts {
        for found in &part.scan.containers {
            let at = (part.offset + found.offset) as usize;
            assert_eq!(bytes[at..at + 4], [0x50, 0xed, 0x55, 0xba]);
            assert_eq!(found.container.read_entries().expect("entries").len(), 1);
        }
    }
}

#[test]
fn truncation_at_every_byte_is_noticed() {
    for (name, bytes) in common::golden_containers() {
        let whole = entries(&bytes);
        for len in 0..bytes.len() {
            let cut = &bytes[..len];
            let error = Container::parse(cut).expect_err("a cut container is an error");
            assert!(error.is_truncation(), "{name} at {len}: {error}");
            let Ok(container) = Container::parse_truncated(cut) else {
                assert!(len < 16, "{name} at {len}: the header is there");
                continue;
            };
            assert!(container.is_truncated());
            let mut list = Vec::new();
            let mut errors = 0;
            for entry in container.entries() {
                match entry {
                    Ok(entry) => list.push(entry),
                    Err(error) => {
                        assert!(error.is_truncation(), "{name} at {len}: {error}");
                        errors += 1;
                    }
                }
            }
            assert_eq!(errors, 1, "{name} at {len}: the listing says that it is short");
            assert!(list.len() < whole.len());
            for (short, full) in list.iter().zip(&whole) {
                assert_eq!((short.offset(), short.header()), (full.offset(), full.header()));
                assert_eq!(short.data(LIMIT).expect("whole entry"), full.data(LIMIT).expect("whole entry"));
            }
        }
    }
}

#[test]
fn a_truncated_program_is_no_wrong_listing() {
    let data = golden("rdc.so");
    let full: Vec<_> =
        only_part(&data).scan.containers.iter().map(|c| (c.offset, c.container.len())).collect();
    // Fewer bytes are not even an ELF file.
    for len in 4..data.len() {
        let Ok(parts) = scan_file(&data[..len]) else { continue };
        for part in parts {
            assert!(!part.scan.problems.is_empty(), "cut at {len}: a problem is told");
            for found in &part.scan.containers {
                assert!(full.contains(&(found.offset, found.container.len())), "cut at {len}");
                let whole = found.offset as usize + found.container.len() <= len;
                assert_eq!(found.container.is_truncated(), !whole, "cut at {len}");
            }
        }
    }
}
