//! The selection rules, one table.

use fatbin::select::Candidate;
use fatbin::{Arch, CodeVersion, Device, Flags, Kind, Purpose, Rejection, Selection, Variant, select};

const OLD: CodeVersion = CodeVersion { major: 8, minor: 0 };
const NEW: CodeVersion = CodeVersion { major: 9, minor: 5 };

fn image(kind: Kind, sm: u32, variant: Variant) -> Candidate {
    Candidate { kind, arch: Arch { sm, variant }, version: OLD, flags: Flags::BITS64, grouped: false }
}

fn elf(sm: u32) -> Candidate {
    image(Kind::Elf, sm, Variant::Generic)
}

fn ptx(sm: u32) -> Candidate {
    image(Kind::Ptx, sm, Variant::Generic)
}

fn gpu(cc_major: u32, cc_minor: u32) -> Device {
    Device { cc_major, cc_minor, sass: true, max_ptx_version: OLD, groups: true }
}

fn cpu() -> Device {
    Device { cc_major: 9, cc_minor: 0, sass: false, max_ptx_version: OLD, groups: true }
}

fn load(images: &[Candidate], device: &Device) -> Selection {
    select(images.iter().copied(), device, Purpose::Load)
}

fn chosen(images: &[Candidate], device: &Device) -> Option<usize> {
    load(images, device).chosen
}

fn reason(image: Candidate, device: &Device) -> Rejection {
    let selection = load(&[image], device);
    assert_eq!(selection.chosen, None);
    selection.rejected[0].1
}

#[test]
fn machine_code_of_the_same_major_and_no_newer_minor() {
    assert_eq!(chosen(&[elf(80)], &gpu(8, 0)), Some(0));
    assert_eq!(chosen(&[elf(80)], &gpu(8, 9)), Some(0));
    assert_eq!(chosen(&[elf(86)], &gpu(8, 0)), None);
    assert_eq!(chosen(&[elf(75)], &gpu(8, 0)), None);
    assert_eq!(chosen(&[elf(80), elf(86), elf(89)], &gpu(8, 8)), Some(1), "the newest that fits");
    assert_eq!(chosen(&[elf(120)], &gpu(12, 1)), Some(0));
    assert_eq!(chosen(&[elf(100)], &gpu(12, 0)), None);
}

#[test]
fn machine_code_before_ptx_and_newest_ptx_otherwise() {
    assert_eq!(chosen(&[ptx(86), elf(80)], &gpu(8, 6)), Some(1));
    assert_eq!(chosen(&[ptx(75), ptx(80), ptx(90), elf(75)], &gpu(8, 6)), Some(1));
    assert_eq!(chosen(&[ptx(90)], &gpu(8, 6)), None);
    assert_eq!(chosen(&[elf(90), ptx(75), ptx(90), ptx(100)], &cpu()), Some(2));
    assert_eq!(chosen(&[ptx(80), ptx(80)], &cpu()), Some(0), "the first of equals");
}

#[test]
fn variants() {
    use Variant::{Family, Specific};
    for kind in [Kind::Elf, Kind::Ptx] {
        let a90 = image(kind, 90, Specific);
        assert_eq!(chosen(&[a90], &gpu(9, 0)), Some(0));
        assert_eq!(chosen(&[a90], &gpu(10, 0)), None);
        let f100 = image(kind, 100, Family);
        assert_eq!(chosen(&[f100], &gpu(10, 0)), Some(0));
        assert_eq!(chosen(&[f100], &gpu(10, 3)), Some(0));
        assert_eq!(chosen(&[f100], &gpu(12, 0)), None);
        assert_eq!(chosen(&[image(kind, 103, Family)], &gpu(10, 0)), None);
        // The narrower variant is made for the device.
        let all = [image(kind, 100, Variant::Generic), f100, image(kind, 100, Specific)];
        assert_eq!(chosen(&all, &gpu(10, 0)), Some(2));
    }
    assert_eq!(chosen(&[image(Kind::Ptx, 90, Specific)], &cpu()), Some(0));
}

#[test]
fn linking_takes_relocatable_ptx() {
    let reloc = image(Kind::Reloc, 75, Variant::Generic);
    assert_eq!(chosen(&[reloc], &cpu()), None);
    assert_eq!(reason(reloc, &cpu()), Rejection::OnlyForLinking);
    assert_eq!(select([reloc], &cpu(), Purpose::Link).chosen, Some(0));
    assert_eq!(select([elf(90), reloc], &cpu(), Purpose::Link).chosen, Some(1));
    assert_eq!(select([elf(90), reloc], &gpu(9, 0), Purpose::Link).chosen, Some(0));
}

#[test]
fn reasons_are_words() {
    let text = |image, device: &Device| reason(image, device).to_string();
    assert_eq!(text(elf(90), &cpu()), "sm_90 machine code, but the device is the CPU backend: only PTX runs");
    assert_eq!(text(ptx(100), &gpu(9, 0)), "PTX for sm_100 is newer than the device sm_90");
    assert_eq!(text(elf(89), &gpu(8, 6)), "machine code for sm_89 is newer than the device sm_86");
    assert_eq!(
        text(elf(75), &gpu(8, 6)),
        "sm_75 machine code runs on devices sm_7x only, the device is sm_86"
    );
    assert_eq!(
        text(image(Kind::Ptx, 90, Variant::Specific), &gpu(10, 0)),
        "arch-specific sm_90a PTX runs on sm_90 only, the device is sm_100"
    );
    assert_eq!(
        text(image(Kind::Elf, 100, Variant::Family), &gpu(9, 0)),
        "family-specific sm_100f machine code: the device sm_90 is not in that family"
    );
    assert_eq!(
        text(Candidate { version: NEW, ..ptx(75) }, &gpu(9, 0)),
        "PTX ISA 9.5 is newer than 8.0, the newest that the device compiles"
    );
    assert_eq!(
        text(image(Kind::LtoIr, 75, Variant::Generic), &cpu()),
        "LTO-IR: no image that a device loads"
    );
    assert_eq!(
        text(Candidate { flags: Flags::LINUX, ..ptx(75) }, &cpu()),
        "not 64-bit CUDA code (flags: linux)"
    );
    let selection = load(&[ptx(75), elf(90), ptx(80)], &cpu());
    assert_eq!(
        selection.to_string(),
        "entry 0: usable, but entry 2 fits better\n\
         entry 1: sm_90 machine code, but the device is the CPU backend: only PTX runs"
    );
    assert_eq!(Selection::default().to_string(), "the container holds no image");
}

#[test]
fn ptx_that_is_too_new_shadows_the_rest() {
    let device = gpu(9, 0);
    let new = |sm| Candidate { version: NEW, ..ptx(sm) };
    // Measured: the driver does not fall back to PTX that it could compile.
    let selection = load(&[ptx(75), new(80)], &device);
    assert_eq!(selection.chosen, None);
    assert_eq!(selection.rejected[0].1, Rejection::Shadowed { by: 1 });
    assert_eq!(selection.rejected[1].1, Rejection::PtxTooNew { version: NEW, max: OLD });
    assert_eq!(chosen(&[ptx(80), new(75)], &device), Some(0));
    assert_eq!(chosen(&[new(80), elf(90)], &device), Some(1), "machine code does not need the PTX");
}

#[test]
fn equals() {
    let device = gpu(9, 0);
    let specific = image(Kind::Ptx, 90, Variant::Specific);
    assert_eq!(chosen(&[ptx(90), ptx(90), ptx(90)], &device), Some(2), "the last for exactly the device");
    assert_eq!(chosen(&[ptx(86), ptx(86)], &device), Some(0));
    assert_eq!(chosen(&[specific, specific, ptx(90)], &device), Some(0));
    assert_eq!(chosen(&[elf(90), elf(90)], &device), Some(0));
}

#[test]
fn groups_need_a_driver_that_knows_them() {
    let images = [Candidate { grouped: true, ..elf(90) }, ptx(80)];
    assert_eq!(chosen(&images, &gpu(9, 0)), Some(0));
    let old = Device { groups: false, ..gpu(9, 0) };
    let selection = load(&images, &old);
    assert_eq!((selection.chosen, selection.rejected[0].1), (Some(1), Rejection::InGroup));
}

/// What the driver did with containers of all sorts, measured; see tests/gpu.
#[test]
fn as_the_real_driver() {
    let device = Device { max_ptx_version: CodeVersion { major: 9, minor: 0 }, groups: false, ..gpu(9, 0) };
    let mut count = 0;
    for line in include_str!("driver_580_sm90.tsv").lines().filter(|line| !line.starts_with('#')) {
        let (answer, entries) = line.split_once('\t').expect("two columns");
        let images: Vec<Candidate> = entries.split(' ').map(measured).collect();
        let selection = load(&images, &device);
        assert_eq!(selection.chosen, answer.parse().ok(), "{line}: {selection}");
        let too_new = selection.rejected.iter().any(|(_, why)| matches!(why, Rejection::PtxTooNew { .. }));
        assert_eq!(too_new, answer == "UNSUPPORTED_PTX_VERSION", "{line}: {selection}");
        count += 1;
    }
    assert!(count > 300, "{count}");
}

/// `ELF/90a/1.8` or `PTX/80/9.0/group`.
fn measured(text: &str) -> Candidate {
    let mut fields = text.split('/');
    let mut next = || fields.next().unwrap_or_default();
    let kind = if next() == "ELF" { Kind::Elf } else { Kind::Ptx };
    let arch = next();
    let variant = match arch.as_bytes().last() {
        Some(b'a') => Variant::Specific,
        Some(b'f') => Variant::Family,
        _ => Variant::Generic,
    };
    let sm = arch.trim_end_matches(['a', 'f']).parse().expect("architecture");
    let (major, minor) = next().split_once('.').expect("version");
    let version = CodeVersion { major: major.parse().expect("major"), minor: minor.parse().expect("minor") };
    Candidate { version, grouped: next() == "group", ..image(kind, sm, variant) }
}

#[test]
fn every_loser_names_the_winner() {
    let images = [ptx(50), ptx(60), ptx(70), ptx(75), ptx(61)];
    let selection = load(&images, &cpu());
    assert_eq!(selection.chosen, Some(3));
    let expected: Vec<_> = [0, 1, 2, 4].map(|i| (i, Rejection::Outranked { by: 3 })).to_vec();
    assert_eq!(selection.rejected, expected);
}
