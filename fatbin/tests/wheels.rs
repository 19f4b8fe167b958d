//! Real libraries: every image must come out byte for byte as NVIDIA's own tool extracts it.
//!
//! Runs only if `FATBIN_WHEELS` names a directory: the wheels are downloaded there with pip (about 1.3 GB) and the tool
//! unpacks some 30 GB, one library at a time, below it. Best with `--release`. Writes `table.md`, the table of
//! docs/fatbin.md, to the directory.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use fatbin::files::sources;
use fatbin::{Fatbins, Kind};

const PACKAGES: [&str; 6] =
    ["nvidia-cublas", "nvidia-cufft", "nvidia-curand", "nvidia-cusparse", "nvidia-nccl-cu13", "cupy-cuda13x"];

fn wheel(dir: &Path, package: &str) -> PathBuf {
    let prefix = format!("{}-", package.replace('-', "_"));
    let find = || {
        let files = std::fs::read_dir(dir).expect("directory of wheels").flatten().map(|file| file.path());
        files.into_iter().find(|path| {
            path.extension().is_some_and(|e| e == "whl")
                && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
    };
    find().unwrap_or_else(|| {
        let status = Command::new("python3")
            .args(["-m", "pip", "download", "-q", "--no-deps", "-d"])
            .arg(dir)
            .arg(package)
            .status()
            .expect("pip runs");
        assert!(status.success(), "{package}: not downloaded");
        find().expect("pip made a wheel")
    })
}

/// Images by kind, size and hash, with their number.
type Images = BTreeMap<(&'static str, usize, u64), usize>;

fn add(images: &mut Images, kind: &'static str, bytes: &[u8]) {
    // The tool drops NULs at the end of PTX and adds a newline.
    let end = match kind {
        "ptx" => bytes.iter().rposition(|b| !matches!(b, 0 | b'\n')).map_or(0, |last| last + 1),
        _ => bytes.len(),
    };
    let mut hasher = DefaultHasher::new();
    bytes[..end].hash(&mut hasher);
    *images.entry((kind, end, hasher.finish())).or_default() += 1;
}

fn theirs(tool: &Path, file: &Path, dir: &Path) -> Images {
    std::fs::create_dir_all(dir).expect("temporary folder");
    let output = Command::new(tool)
        .args(["-all", "-xelf", "all", "-xptx", "all"])
        .arg(file)
        .current_dir(dir)
        .output()
        .expect("cuobjdump runs");
    let message = String::from_utf8_lossy(&output.stderr);
    let nothing = message.contains("does not contain device code");
    assert!(output.status.success() || nothing, "{}: {message}", file.display());
    let mut images = Images::new();
    for extracted in std::fs::read_dir(dir).expect("temporary folder") {
        let path = extracted.expect("directory entry").path();
        let bytes = std::fs::read(&path).expect("readable");
        match path.extension().and_then(|e| e.to_str()) {
            Some("cubin") => add(&mut images, "elf", &bytes),
            Some("ptx") => add(&mut images, "ptx", &bytes),
            other => panic!("{other:?}"),
        }
    }
    std::fs::remove_dir_all(dir).expect("temporary folder");
    images
}

struct Ours {
    images: Images,
    containers: usize,
    other: usize,
    stored: u64,
    unpacked: u64,
}

fn ours(data: &[u8]) -> Option<Ours> {
    let fatbins = Fatbins::parse(data).expect("scan");
    // A bare image is no container either.
    fatbins.containers().next()?;
    let mut ours = Ours { images: Images::new(), containers: 0, other: 0, stored: 0, unpacked: 0 };
    for located in fatbins.containers() {
        assert!(located.part.scan.problems.is_empty(), "{:?}", located.part.scan.problems);
        ours.containers += 1;
        ours.stored += located.container().len() as u64;
        for entry in located.container().read_entries().expect("entries") {
            let kind = match entry.kind() {
                Kind::Elf => "elf",
                Kind::Ptx => "ptx",
                _ => {
                    ours.other += 1;
                    continue;
                }
            };
            let image = entry.data(1 << 30).expect("decodes");
            ours.unpacked += image.len() as u64;
            add(&mut ours.images, kind, &image);
        }
    }
    Some(ours)
}

/// True if the containers lie in sections for them.
fn fatbins_in_sections(data: &[u8]) -> bool {
    let fatbins = Fatbins::parse(data).expect("scan");
    fatbins.parts().iter().any(|part| !part.scan.sections.is_empty())
}

#[test]
fn images_of_wheels_are_those_that_cuobjdump_extracts() {
    let Some(dir) = std::env::var_os("FATBIN_WHEELS").map(PathBuf::from) else {
        println!("skipped: FATBIN_WHEELS is not set");
        return;
    };
    std::fs::create_dir_all(&dir).expect("directory of wheels");
    let tool = common::cuobjdump().expect("cuobjdump; run `cargo xtask samples` or set CUOBJDUMP");
    let mut table = String::from(
        "| wheel | library | containers | ELF | PTX | other | stored bytes | unpacked bytes | |\n|---|---|--:|--:|--:|--:|--:|--:|---|\n",
    );
    let mut differing = Vec::new();
    for package in PACKAGES {
        let wheel = wheel(&dir, package);
        let mut found = 0;
        for source in sources(std::slice::from_ref(&wheel)) {
            let source = source.expect("readable wheel");
            let data = source.open().expect("unpacks");
            let Some(ours) = ours(&data) else { continue };
            let copy = dir.join(format!("copy-{}", source.file_name()));
            std::fs::write(&copy, &*data).expect("written");
            let theirs = theirs(&tool, &copy, &dir.join("extracted"));
            std::fs::remove_file(&copy).expect("removed");
            found += 1;
            // The tool looks into sections alone: it says that cuFFT, which has its code in `.data`, has none.
            let sections = fatbins_in_sections(&data);
            if ours.images != theirs && (sections || !theirs.is_empty()) {
                differing.push(source.name());
            }
            let count = |kind| -> usize {
                ours.images.iter().filter(|((k, ..), _)| *k == kind).map(|(_, n)| n).sum()
            };
            let version = wheel.file_name().expect("name").to_string_lossy();
            let version = version.split('-').nth(1).unwrap_or_default();
            writeln!(
                table,
                "| {package} {version} | {} | {} | {} | {} | {} | {} | {} | {} |",
                source.file_name(),
                ours.containers,
                count("elf"),
                count("ptx"),
                ours.other,
                ours.stored,
                ours.unpacked,
                if sections { "identical" } else { "not found by cuobjdump" }
            )
            .expect("string");
            println!("{}: {} containers", source.name(), ours.containers);
        }
        assert!(found > 0, "{package}: no device code");
    }
    std::fs::write(dir.join("table.md"), table).expect("written");
    assert!(differing.is_empty(), "images differ: {differing:?}");
}

/// True if the dynamic linker takes the library, in the interpreter that cupy's were made for.
fn loads(library: &Path, needed: &Path) -> bool {
    let code = "import ctypes, sys; ctypes.CDLL(sys.argv[1])";
    let mut python = Command::new("python3");
    python.args(["-c", code]).arg(library).env("LD_LIBRARY_PATH", needed);
    python.output().expect("python3 runs").status.success()
}

/// The CUDA runtime, which the libraries need.
fn runtime(dir: &Path) -> PathBuf {
    let top = dir.join("runtime");
    if !top.exists() {
        let pip = ["-m", "pip", "install", "-q", "--no-deps", "--target"];
        let status = Command::new("python3").args(pip).arg(&top).arg("nvidia-cuda-runtime==13.5.37").status();
        assert!(status.expect("pip runs").success(), "nvidia-cuda-runtime: not downloaded");
    }
    top.join("nvidia/cu13/lib")
}

#[test]
fn stripped_libraries_still_load() {
    let Some(dir) = std::env::var_os("FATBIN_WHEELS").map(PathBuf::from) else {
        println!("skipped: FATBIN_WHEELS is not set");
        return;
    };
    std::fs::create_dir_all(&dir).expect("directory of wheels");
    let runtime = runtime(&dir);
    let mut loaded = Vec::new();
    for package in ["nvidia-curand", "cupy-cuda13x"] {
        for source in sources(&[wheel(&dir, package)]) {
            let source = source.expect("readable wheel");
            let data = source.open().expect("unpacks");
            if ours(&data).is_none() {
                continue;
            }
            let (whole, stripped) = (dir.join("whole.so"), dir.join("stripped.so"));
            std::fs::write(&whole, &*data).expect("written");
            let tool = |args: &[&std::ffi::OsStr]| {
                let output =
                    Command::new(env!("CARGO_BIN_EXE_fatbin")).args(args).output().expect("fatbin runs");
                assert!(output.status.success(), "{}: {output:?}", source.name());
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            let words = ["strip", "--for", "sm_90", "-o"].map(std::ffi::OsStr::new);
            let summary = tool(&[&words[..], &[stripped.as_os_str(), whole.as_os_str()]].concat());
            let verified = tool(&["verify".as_ref(), stripped.as_os_str()]);
            // A library of cupy may need others that are not here: then the whole one does not load either.
            if loads(&whole, &runtime) {
                assert!(loads(&stripped, &runtime), "{}: does not load any more", source.name());
                print!("{}: {summary}{verified}", source.file_name());
                loaded.push(source.file_name().to_owned());
            }
            std::fs::remove_file(whole).expect("removed");
            std::fs::remove_file(stripped).expect("removed");
        }
    }
    assert!(loaded.iter().any(|name| name.contains("curand")), "{loaded:?}");
    assert!(loaded.iter().any(|name| name.contains("cpython")), "{loaded:?}");
}
