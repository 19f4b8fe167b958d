//! Managed variables of machine code that nvcc 13.5 made, and the same code with the variables elsewhere.

mod common;

use std::process::Command;

use fatbin::{Container, ErrorKind, Kind, Managed};

/// Far apart, so that no half of one is a half of another.
const ADDRESSES: [u64; 3] = [0x3a12_0000_5550_1000, 0x3b34_0000_6660_2000, 0x3c56_0000_7770_3000];

/// Machine code of a golden file, by architecture.
fn images(name: &str) -> Vec<(u32, Vec<u8>)> {
    let bytes = common::golden(name);
    let container = Container::parse(&bytes).expect("container");
    let entries = container.entries().map(|entry| entry.expect("entry"));
    entries
        .filter(|entry| entry.kind() == Kind::Elf)
        .map(|entry| (entry.arch().sm, entry.data(1 << 20).expect("decodes").into_owned()))
        .collect()
}

/// What the toolkit says of a cubin.
fn ask(tool: &std::path::Path, option: &str, image: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("image.cubin");
    std::fs::write(&file, image).expect("temporary file");
    let output = Command::new(tool).arg(option).arg(&file).output().expect("cuobjdump runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn all_of_them_are_listed_with_their_values() {
    for file in ["managed.fatbin", "managed_code.fatbin"] {
        let images = images(file);
        assert_eq!(images.iter().map(|(sm, _)| *sm).collect::<Vec<_>>(), [75, 90]);
        for (_, image) in &images {
            let managed = Managed::parse(image).expect("cubin");
            assert!(!managed.is_relocatable());
            let value = |name: &str| {
                let variable = managed.variables().iter().find(|v| v.name == name).expect(name);
                (variable.size, variable.value.clone().map(|range| image[range].to_vec()))
            };
            assert_eq!(managed.variables().len(), 3);
            assert_eq!(value("total"), (4, Some(vec![5, 0, 0, 0])));
            assert_eq!(value("zero"), (4, None));
            let weights: Vec<u8> = [0.5f64, 1.5, 2.5, 3.5].iter().flat_map(|w| w.to_le_bytes()).collect();
            assert_eq!(value("weights"), (32, Some(weights)));
        }
    }
}

#[test]
fn code_without_any_stays_as_it_is() {
    for (_, image) in images("two_archs.fatbin") {
        let managed = Managed::parse(&image).expect("cubin");
        assert!(managed.variables().is_empty());
        assert_eq!(managed.place(&[]).expect("nothing to be placed"), image);
    }
}

#[test]
fn placed_variables_are_ordinary_ones_that_nothing_names() {
    for file in ["managed.fatbin", "managed_code.fatbin"] {
        for (sm, image) in images(file) {
            let managed = Managed::parse(&image).expect("cubin");
            let placed = managed.place(&ADDRESSES).expect("places");
            assert_eq!(placed.len(), image.len());
            let again = Managed::parse(&placed).expect("cubin");
            assert!(again.variables().is_empty());
            assert_eq!(again.place(&[]).expect("nothing is left"), placed);
            for address in ADDRESSES {
                for half in [address as u32, (address >> 32) as u32] {
                    assert!(
                        placed.windows(4).any(|word| word == half.to_le_bytes()),
                        "sm_{sm} of {file}: {half:#x}"
                    );
                }
            }
            // Names, kernels and initial values are where they were.
            let (before, after) = (fatbin::Cubin::parse(&image), fatbin::Cubin::parse(&placed));
            assert_eq!(before.expect("cubin"), after.expect("cubin"));
            for variable in managed.variables() {
                if let Some(value) = variable.value.clone() {
                    assert_eq!(image[value.clone()], placed[value]);
                }
            }
        }
    }
}

/// The toolkit reads the result, and sees the addresses where the code takes them from.
#[test]
fn the_toolkit_sees_the_addresses() {
    let Some(tool) = common::cuobjdump() else {
        println!("skipped: no cuobjdump");
        return;
    };
    for (sm, image) in images("managed_code.fatbin") {
        let managed = Managed::parse(&image).expect("cubin");
        assert_eq!(ask(&tool, "-elf", &image).matches(" MANAGED ").count(), 3);
        let placed = managed.place(&ADDRESSES).expect("places");
        let listing = ask(&tool, "-elf", &placed);
        assert_eq!(listing.matches(" MANAGED ").count(), 0);
        // `MOV R2, 0x55501000`
        let code = ask(&tool, "-sass", &placed);
        let used = managed.variables().iter().zip(ADDRESSES);
        for (variable, address) in used {
            let loads =
                [format!("MOV R{{}}, {:#x}", address as u32), format!("MOV R{{}}, {:#x}", address >> 32)];
            for load in loads {
                let (start, end) = load.split_once("{}").expect("a register");
                let found = code
                    .lines()
                    .any(|line| line.split_once(start).is_some_and(|(_, rest)| rest.contains(end)));
                assert!(found, "sm_{sm}: {} is not loaded from {address:#x}\n{code}", variable.name);
            }
        }
        let plain = ask(&tool, "-elf", &image);
        let relocations = |text: &str, name: &str| {
            text.lines().filter(|line| line.contains("R_CUDA_") && line.contains(name)).count()
        };
        for name in [" total ", " zero ", " weights "] {
            assert!(relocations(&plain, name) > 0);
            assert_eq!(relocations(&listing, name), 0);
        }
        assert_eq!(relocations(&listing, " plain "), relocations(&plain, " plain "));
        assert!(relocations(&plain, " plain ") > 0);
    }
}

#[test]
fn the_address_of_another_variable_is_no_known_value() {
    let (_, image) = images("managed_address.fatbin").remove(0);
    let managed = Managed::parse(&image).expect("cubin");
    assert_eq!(managed.variables().len(), 1);
    let error = managed.place(&ADDRESSES[..1]).expect_err("only the loader knows");
    assert!(
        matches!(error.kind, ErrorKind::Unsupported { what, .. } if what.contains("address of another")),
        "{error}"
    );
}

#[test]
fn what_cannot_be_placed_is_refused() {
    let (_, image) = images("managed.fatbin").remove(1);
    let managed = Managed::parse(&image).expect("cubin");
    assert_eq!(managed.place(&ADDRESSES[..2]).expect_err("an address is missing").field, "addresses");
    // Code to be linked.
    let mut object = image.clone();
    object[16] = 1;
    let managed = Managed::parse(&object).expect("cubin");
    assert!(managed.is_relocatable());
    assert_eq!(managed.place(&ADDRESSES).expect_err("not linked").field, "ELF type");
    // Relocations of another type: all of type 2, which name a symbol.
    let mut other = image.clone();
    for at in (0..image.len() - 8).step_by(8) {
        if matches!(image[at..at + 8], [2, 0, 0, 0, symbol, 0, 0, 0] if symbol > 0) {
            other[at] = 0x77;
        }
    }
    let error = Managed::parse(&other).expect("cubin").place(&ADDRESSES).expect_err("not known");
    assert!(matches!(error.kind, ErrorKind::Unsupported { found: 0x77, .. }), "{error}");
    assert!(Managed::parse(b"\x7fELF").is_err());
}
