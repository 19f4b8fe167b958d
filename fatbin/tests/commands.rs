//! The commands beside `inspect`: what they write, and their exit status.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fatbin::{Fatbins, Kind};

fn fatbin(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fatbin"))
        .args(args)
        .current_dir(common::data_dir())
        .output()
        .expect("fatbin runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn status(args: &[&str]) -> i32 {
    fatbin(args).status.code().expect("exit status")
}

/// A directory that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fatbin-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("temporary folder");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.0).expect("folder");
        let mut names: Vec<_> =
            files.map(|f| f.expect("entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Kind and architecture of all images of a file.
fn images(path: impl AsRef<Path>) -> Vec<(Kind, String)> {
    let data = std::fs::read(path).expect("readable");
    let fatbins = Fatbins::parse(&data).expect("scan");
    assert!(fatbins.parts().iter().all(|part| part.scan.problems.is_empty()));
    fatbins
        .containers()
        .flat_map(|l| l.entries().map(|e| (e.kind(), e.arch().to_string())).collect::<Vec<_>>())
        .collect()
}

#[test]
fn extracted_files_are_named_and_hold_what_the_library_reads() {
    let folder = Folder::new("extract");
    let output = fatbin(&["extract", "concat.fatbin", "-d", &folder.path("")]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = [
        "concat.1.sm_75.cubin",
        "concat.1.sm_80.ptx",
        "concat.2.sm_80.cubin",
        "concat.2.sm_90.ptx",
        "concat.3.sm_90.cubin",
    ];
    assert_eq!(folder.names(), expected);
    let bytes = common::golden("concat.fatbin");
    let entries = fatbin::Container::parse(&bytes).expect("container").read_entries().expect("entries");
    let elf90 = entries.iter().find(|e| e.kind() == Kind::Elf && e.arch().sm == 90).expect("sm_90");
    let written = std::fs::read(folder.path("concat.3.sm_90.cubin")).expect("written");
    assert_eq!(written, elf90.data(1 << 20).expect("decodes").as_ref());

    // No file is written over by accident.
    assert_eq!(status(&["extract", "concat.fatbin", "-d", &folder.path("")]), 1);
    assert_eq!(status(&["extract", "concat.fatbin", "--force", "-d", &folder.path("")]), 0);
    let one = fatbin(&["extract", "concat.fatbin", "--kind", "ptx", "--arch", "sm_90", "--stdout"]);
    assert!(text(&one.stdout).contains(".target sm_90"));
    let by_index = fatbin(&["extract", "concat.fatbin", "--index", "0.4", "--stdout"]);
    assert_eq!(by_index.stdout, written);
    assert_eq!(status(&["extract", "concat.fatbin", "--arch", "sm_61"]), 1, "nothing matches");
}

#[test]
fn why_answers_with_its_status() {
    assert_eq!(status(&["why", "two_archs.fatbin", "--device", "sm_75"]), 0);
    assert_eq!(status(&["why", "sass.fatbin", "--device", "8.6"]), 1);
    assert_eq!(status(&["why", "sass.fatbin", "--device", "nonsense"]), 2);
    assert_eq!(status(&["why", "../../Cargo.toml", "--device", "sm_75"]), 3);
    // PTX 9.5 does not compile with the driver for CUDA 12.4.
    assert_eq!(status(&["why", "tiny_none.fatbin", "--device", "sm_90"]), 0);
    let output = fatbin(&["why", "tiny_none.fatbin", "--device", "sm_90", "--driver", "12.4"]);
    assert_eq!(output.status.code(), Some(1));
    let expected =
        "not entry 0, PTX for sm_75: PTX ISA 9.5 is newer than 8.4, the newest that the device compiles";
    assert!(text(&output.stdout).contains(expected), "{output:?}");

    let output = fatbin(&["why", "rdc.so", "--device", "sm_75", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value[0]["runs"], true);
    let roles: Vec<_> =
        value[0]["containers"].as_array().expect("array").iter().map(|c| c["role"].clone()).collect();
    assert_eq!(roles, ["link-input", "link-input", "linked"]);
    assert_eq!(
        value[0]["containers"][2]["chosen"],
        serde_json::json!({"index": 0, "kind": "ELF", "arch": "sm_75"})
    );
}

#[test]
fn strip_leaves_what_was_asked_for() {
    let folder = Folder::new("strip");
    let out = folder.path("out");
    let strip = |file: &str, what: &[&str]| {
        let output = fatbin(&[&["strip", file, "-o", &out], what].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        images(&out)
    };
    let elf = |arch: &str| (Kind::Elf, arch.to_owned());
    let ptx = |arch: &str| (Kind::Ptx, arch.to_owned());
    assert_eq!(strip("two_archs.fatbin", &["--keep", "sm_75"]), [elf("sm_75")]);
    let shorter = std::fs::metadata(&out).expect("written").len();
    assert!(shorter < std::fs::metadata(common::data_dir().join("two_archs.fatbin")).expect("golden").len());
    assert_eq!(strip("two_archs.fatbin", &["--keep", "sm_75,sm_80+ptx"]).len(), 3);
    assert_eq!(strip("two_archs.fatbin", &["--keep", "compute_80"]), [ptx("sm_80")]);
    assert_eq!(strip("two_archs.fatbin", &["--for", "8.9"]), [elf("sm_80")]);
    assert_eq!(strip("two_archs.fatbin", &["--for", "9.0,7.5"]), [elf("sm_75"), ptx("sm_80")]);
    assert_eq!(strip("variants.fatbin", &["--keep", "sm_90"]), [elf("sm_90a")]);
    // A group is kept whole.
    assert_eq!(strip("concat.fatbin", &["--keep", "sm_80"]), [elf("sm_75"), elf("sm_80"), elf("sm_90")]);
    assert_eq!(status(&["strip", "two_archs.fatbin", "-o", &out, "--keep", "sm_61"]), 1, "nothing left");
    assert_eq!(status(&["strip", "two_archs.fatbin", "-o", &out]), 2);
}

#[test]
fn strip_keeps_containers_of_libraries_at_their_addresses() {
    let folder = Folder::new("strip-so");
    let out = folder.path("rdc.so");
    assert_eq!(status(&["strip", "rdc.so", "-o", &out, "--keep", "sm_75"]), 0);
    let (old, new) = (common::golden("rdc.so"), std::fs::read(&out).expect("written"));
    assert_eq!(old.len(), new.len());
    let places = |data: &[u8]| -> Vec<_> {
        Fatbins::parse(data)
            .expect("scan")
            .containers()
            .map(|l| (l.offset(), l.wrappers().collect::<Vec<_>>()))
            .collect()
    };
    assert_eq!(places(&old), places(&new));
    assert_eq!(images(&out), vec![(Kind::Elf, "sm_75".to_owned()); 3]);
    // Outside of the containers nothing changed.
    let mut spans = Vec::new();
    for located in Fatbins::parse(&old).expect("scan").containers() {
        spans.push(located.offset() as usize..located.offset() as usize + located.container().len());
    }
    for (at, (a, b)) in old.iter().zip(&new).enumerate() {
        assert!(a == b || spans.iter().any(|span| span.contains(&at)), "byte {at:#x} changed");
    }
    // In place, too.
    assert_eq!(status(&["strip", &out, "-o", &out, "--keep", "sm_75"]), 0);
    assert_eq!(std::fs::read(&out).expect("written"), new);
}

#[test]
fn verify_finds_damage() {
    assert_eq!(status(&["verify", "."]), 0);
    let folder = Folder::new("verify");
    let path = folder.path("damaged.fatbin");
    let mut bytes = common::golden("tiny_size.fatbin");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 16].fill(0xff);
    std::fs::write(&path, bytes).expect("written");
    let output = fatbin(&["verify", &path]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("damaged.fatbin: entry"), "{output:?}");
    // An entry that lies about its architecture.
    let lie = common::container(&[common::entry(1, 80, b".version 8.0\n.target sm_75\n.address_size 64\n")]);
    std::fs::write(&path, lie).expect("written");
    let output = fatbin(&["verify", &path]);
    assert!(text(&output.stderr).contains("the entry says sm_80, the PTX sm_75"), "{output:?}");
}

#[test]
fn tile_ir_is_listed_with_its_version_and_checked() {
    let folder = Folder::new("tile");
    let path = folder.path("tile.fatbin");
    let mut spec = common::entry(0x80, 90, b"\x7fTileIR\0\x0d\x05\0\0rest");
    // Both numbers of the version stand in the major one.
    spec.code = (0x0d05, 0);
    std::fs::write(&path, common::container(&[spec.clone()])).expect("written");
    let output = fatbin(&["inspect", "--json", &path]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let entry = &value[0]["containers"][0]["entries"][0];
    assert_eq!((&entry["kind"], &entry["version"]), (&"Tile IR".into(), &"13.5".into()), "{entry}");
    assert_eq!(status(&["verify", &path]), 0);
    assert_eq!(status(&["why", &path, "--device", "sm_90"]), 1, "the driver does not compile it");
    spec.code = (0x0d04, 0);
    std::fs::write(&path, common::container(&[spec.clone()])).expect("written");
    let output = fatbin(&["verify", &path]);
    assert!(text(&output.stderr).contains("says Tile IR 13.4, the bytecode 13.5"), "{output:?}");
    spec.stored = b"no Tile IR".to_vec();
    std::fs::write(&path, common::container(&[spec])).expect("written");
    assert_eq!(status(&["verify", &path]), 1);
}

#[test]
fn many_problems_are_not_told_one_by_one() {
    let folder = Folder::new("problems");
    let path = folder.path("bad.fatbin");
    let spec = common::entry(1, 75, b"no PTX");
    std::fs::write(&path, common::container(&vec![spec; 300])).expect("written");
    let output = fatbin(&["verify", "--json", &path]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let problems = value[0]["problems"].as_array().expect("array");
    assert_eq!((problems.len(), &value[0]["images"]), (101, &300.into()));
    assert!(problems[0].as_str().expect("text").contains("PTX directive .version at offset 0x0: missing"));
    assert!(problems[100].as_str().expect("text").starts_with("more problems"), "{problems:?}");
}

#[test]
fn diff_counts_equal_images_wherever_they_lie() {
    assert_eq!(status(&["diff", "concat.fatbin", "concat.fatbin"]), 0);
    let output = fatbin(&["diff", "two_archs.fatbin", "concat.fatbin", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&value["same"], value["only_b"].as_array().map(Vec::len)), (&3.into(), Some(2)));
    let output = fatbin(&["diff", "tiny_size.fatbin", "tiny_none.fatbin"]);
    assert!(text(&output.stdout).starts_with("1 images are the same, 0 changed, 1 only in"), "{output:?}");
}

#[test]
fn size_adds_up() {
    let output = fatbin(&["size", "concat.fatbin", "--kernels", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let architectures = value[0]["architectures"].as_array().expect("array");
    let stored: u64 = architectures.iter().map(|a| a["stored"].as_u64().expect("number")).sum();
    assert_eq!(value[0]["stored"], stored);
    assert!(stored < value[0]["containers"].as_u64().expect("number"));
    assert_eq!(value[0]["kernels"][0]["name"], "nothing");
    let of_kernel: u64 = value[0]["kernels"][0]["architectures"]
        .as_object()
        .expect("object")
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum();
    assert_eq!(value[0]["kernels"][0]["code_size"], of_kernel);
}

#[test]
fn directories_wheels_and_windows_files() {
    let folder = Folder::new("inputs");
    std::fs::create_dir(folder.path("deep")).expect("folder");
    std::fs::write(folder.path("deep/text.txt"), "no code").expect("written");
    std::fs::write(
        folder.path("deep/a.dll"),
        common::portable_executable(&common::golden("two_archs.fatbin")),
    )
    .expect("written");
    let wheel = std::fs::File::create(folder.path("w.whl")).expect("written");
    let mut wheel = zip::ZipWriter::new(wheel);
    for (name, content) in [("lib/rdc.so", common::golden("rdc.so")), ("lib/readme", b"text".to_vec())] {
        wheel.start_file(name, zip::write::SimpleFileOptions::default()).expect("zip");
        std::io::Write::write_all(&mut wheel, &content).expect("zip");
    }
    wheel.finish().expect("zip");
    let output = fatbin(&["inspect", "--json", &folder.path("")]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = value.as_array().expect("array");
    assert_eq!(list.len(), 2, "{value}");
    assert_eq!(
        (&list[0]["format"], &list[0]["containers"][0]["wrappers"]),
        (&"pe".into(), &serde_json::json!([1]))
    );
    assert_eq!(list[0]["containers"][0]["entries"].as_array().map(Vec::len), Some(3));
    assert!(list[1]["file"].as_str().expect("name").ends_with("w.whl!/lib/rdc.so"));
    let containers = list[1]["containers"].as_array().expect("array");
    assert_eq!(containers.len(), 3);
    assert_eq!(containers[2]["wrapper_sections"], serde_json::json!([".nvFatBinSegment"]));
}

#[test]
fn containers_among_other_data_are_found() {
    let folder = Folder::new("embedded");
    // A library whose fatbin sections have other names: what cuFFT does.
    let mut bytes = common::golden("rdc.so");
    for name in [b".nv_fatbin".as_slice(), b"__nv_relfatbin", b".nvFatBinSegment"] {
        let at = bytes.windows(name.len()).rposition(|window| window == name).expect("section name");
        bytes[at + 1] = b'x';
    }
    std::fs::write(folder.path("other.so"), bytes).expect("written");
    assert_eq!(images(folder.path("other.so")), images(common::data_dir().join("rdc.so")));
}

#[test]
fn selection_is_marked_and_sections_are_listed() {
    let output = fatbin(&["inspect", "two_archs.fatbin", "--select", "sm_89"]);
    let table = text(&output.stdout);
    assert!(table.contains("loaded: entry 1, ELF for sm_80"), "{table}");
    assert!(table.contains("not entry 0: sm_75 machine code runs on devices sm_7x only"), "{table}");
    let output = fatbin(&["inspect", "rdc.so", "--sections", "--arch", "sm_99"]);
    assert!(text(&output.stdout).contains("__nv_relfatbin"), "{output:?}");
}

#[test]
fn completions_and_manual() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&fatbin(&["completions", shell]).stdout).contains("inspect"));
    }
    assert!(text(&fatbin(&["man"]).stdout).contains(".TH fatbin 1"));
    assert!(text(&fatbin(&["man", "strip"]).stdout).contains("\\-\\-keep"));
    assert_eq!(status(&["man", "nothing"]), 1);
}
