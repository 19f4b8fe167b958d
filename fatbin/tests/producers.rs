//! What other producers make: libnvfatbin of many versions, nvcc 11.8 and 12.4, Tile IR by nvcc 13.5. Every image must come
//! out as NVIDIA's own tool extracts it, or as it went in.
//!
//! Runs only if `FATBIN_WHEELS` names a directory; what is missing is downloaded to it: wheels with pip (about 450 MB), and
//! the compilers of CUDA 11.8 and 12.4, of which there are no wheels, from Debian's non-free packages with apt (190 MB),
//! which are unpacked there and not installed. `FATBIN_DEBIAN` names the mirror; by default it is that of apt's own
//! sources, and without one the test says what it leaves out. Writes `toolkits.md`, a table of docs/fatbin.md, to the directory.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fatbin::files::FileData;
use fatbin::{Cubin, Fatbins, Kind};

/// Versions of the wheels with libnvfatbin.
const NVFATBIN: [(&str, &[&str]); 2] = [
    ("nvidia-nvfatbin-cu12", &["12.4.127", "12.5.82", "12.6.77", "12.8.90", "12.9.82"]),
    ("nvidia-nvfatbin", &["13.0.85", "13.1.115", "13.2.86", "13.3.29", "13.4.92", "13.5.37"]),
];
const CUDA_13: [&str; 7] = [
    "nvidia-cuda-nvcc==13.5.37",
    "nvidia-cuda-runtime==13.5.37",
    "nvidia-nvvm==13.5.37",
    "nvidia-cuda-crt==13.5.37",
    "nvidia-cuda-cuobjdump==13.5.37",
    "nvidia-cuda-cccl==13.3.5.0.6",
    "nvidia-cuda-tileiras==13.5.37",
];
/// Release of Debian, version of its packages, and the wheels with the headers.
const DEBIAN: [(&str, &str, [&str; 2]); 2] = [
    ("bookworm", "11.8", ["nvidia-cuda-nvcc-cu11==11.8.89", "nvidia-cuda-runtime-cu11==11.8.89"]),
    ("trixie", "12.4", ["nvidia-cuda-nvcc-cu12==12.4.131", "nvidia-cuda-runtime-cu12==12.4.127"]),
];

fn directory() -> Option<PathBuf> {
    let dir = std::env::var_os("FATBIN_WHEELS").map(PathBuf::from);
    if dir.is_none() {
        println!("skipped: FATBIN_WHEELS is not set");
    }
    let dir = dir?;
    std::fs::create_dir_all(&dir).expect("directory of wheels");
    Some(dir.canonicalize().expect("directory of wheels"))
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn fatbin(args: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_fatbin")).args(args))
}

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_slice(&fatbin(args).stdout).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Makes a directory once: `fill` works in another one that gets the name at the end.
fn once(place: PathBuf, fill: impl FnOnce(&Path)) -> PathBuf {
    // Tests run side by side.
    let lock = std::fs::File::create(place.with_extension("lock")).expect("lock file");
    lock.lock().expect("locked");
    if !place.exists() {
        let unfinished = place.with_extension("unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        std::fs::create_dir_all(&unfinished).expect("directory");
        fill(&unfinished);
        std::fs::rename(&unfinished, &place).expect("renamed");
    }
    place
}

/// Unpacks wheels.
fn wheels(dir: &Path, name: &str, packages: &[&str]) -> PathBuf {
    once(dir.join(name), |place| {
        let pip = ["-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check", "--target"];
        run(Command::new("python3").args(pip).arg(place).args(packages));
    })
}

/// The mirror and key of apt's own sources.
fn debian_mirror() -> Option<(String, Option<String>)> {
    if let Ok(mirror) = std::env::var("FATBIN_DEBIAN") {
        return Some((mirror, None));
    }
    let sources = Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]).output().ok()?;
    let sources = String::from_utf8(sources.stdout).ok()?;
    let mirror = sources.lines().find(|site| site.trim_end_matches('/').ends_with("/debian"))?;
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    Some((mirror.to_owned(), Path::new(key).exists().then(|| key.to_owned())))
}

/// Unpacks nvcc of a release of Debian.
fn debian(dir: &Path, (mirror, key): &(String, Option<String>), release: &str) -> PathBuf {
    once(dir.join(format!("debian-{release}")), |place| {
        let lists = place.join("apt");
        std::fs::create_dir_all(lists.join("lists/partial")).expect("directory");
        let key = key.as_ref().map_or_else(String::new, |key| format!("signed-by={key} "));
        let source = format!("deb [{key}arch=amd64] {mirror} {release} non-free\n");
        std::fs::write(lists.join("sources.list"), source).expect("written");
        // Nothing of the system's own apt is touched.
        let options = [
            format!("Dir::Etc::sourcelist={}", text(&lists.join("sources.list"))),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", text(&lists.join("lists"))),
            format!("Dir::Cache={}", text(&lists)),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let apt = |args: &[&str]| {
            let mut command = Command::new("apt-get");
            let options = options.iter().flat_map(|option| ["-o", option]);
            run(command.args(options).args(args).current_dir(place));
        };
        apt(&["update"]);
        apt(&["download", "nvidia-cuda-toolkit", "libnvvm4"]);
        for file in std::fs::read_dir(place).expect("directory").flatten().map(|file| file.path()) {
            if file.extension().is_some_and(|e| e == "deb") {
                run(Command::new("dpkg").arg("-x").arg(&file).arg(place));
                std::fs::remove_file(file).expect("removed");
            }
        }
        // The link in its place is absolute.
        let bin = place.join("usr/lib/nvidia-cuda-toolkit/bin");
        std::fs::remove_file(bin.join("nvcc.profile")).expect("nvcc.profile");
        let profile =
            "NVVMIR_LIBRARY_DIR = $(_HERE_)/../libdevice\nPATH += $(_HERE_):$(_HERE_)/../../../bin:\n";
        std::fs::write(bin.join("nvcc.profile"), profile).expect("written");
    })
}

struct Toolkit {
    version: &'static str,
    nvcc: PathBuf,
    options: Vec<String>,
    libraries: PathBuf,
    cuobjdump: PathBuf,
}

impl Toolkit {
    fn cuda_13(dir: &Path) -> Self {
        let top = wheels(dir, "cuda-13.5", &CUDA_13).join("nvidia/cu13");
        Self {
            version: "13.5",
            nvcc: top.join("bin/nvcc"),
            options: Vec::new(),
            libraries: top.join("lib"),
            cuobjdump: top.join("bin/cuobjdump"),
        }
    }

    fn of_debian(dir: &Path) -> Vec<Self> {
        let Some(mirror) = debian_mirror() else {
            println!("left out: CUDA 11.8 and 12.4, because apt has no source for Debian; set FATBIN_DEBIAN");
            return Vec::new();
        };
        let of = |(release, version, headers): (&str, &'static str, [&str; 2])| {
            let root = debian(dir, &mirror, release);
            let headers = wheels(dir, &format!("headers-{version}"), &headers).join("nvidia");
            let include = |package: &str| format!("-I{}/{package}/include", text(&headers));
            // Newer compilers of the host than these know are fine for what is built here.
            let options = ["-ccbin=/usr/bin/g++".to_owned(), "-allow-unsupported-compiler".to_owned()];
            Self {
                version,
                nvcc: root.join("usr/lib/nvidia-cuda-toolkit/bin/nvcc"),
                options: options.into_iter().chain([include("cuda_runtime"), include("cuda_nvcc")]).collect(),
                libraries: root.join("usr/lib/x86_64-linux-gnu"),
                cuobjdump: root.join("usr/bin/cuobjdump"),
            }
        };
        DEBIAN.into_iter().map(of).collect()
    }

    /// Compiles one of the sources of this project.
    fn build(&self, dir: &Path, source: &str, name: &str, options: &[&str]) -> PathBuf {
        let out = dir.join(name);
        let source = common::data_dir().join("../../../test-kernels").join(source);
        let mut nvcc = Command::new(&self.nvcc);
        nvcc.args(&self.options).args(options).arg(source).arg("-o").arg(&out).current_dir(dir);
        run(nvcc.env("LD_LIBRARY_PATH", &self.libraries));
        out
    }
}

/// Extracted files: extension, bytes and name.
type Extracted = Vec<(String, Vec<u8>, String)>;

fn read_all(dir: &Path) -> Extracted {
    let mut out = Extracted::new();
    for path in std::fs::read_dir(dir).expect("directory").map(|file| file.expect("entry").path()) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
        let extension = path.extension().and_then(|e| e.to_str()).expect("extension").to_owned();
        let mut bytes = std::fs::read(&path).expect("readable");
        if extension == "ptx" {
            // cuobjdump drops the NUL at the end and may add a newline.
            let end = bytes.iter().rposition(|b| !matches!(b, 0 | b'\n')).map_or(0, |last| last + 1);
            bytes.truncate(end);
        }
        out.push((extension, bytes, name));
    }
    out.sort();
    out
}

/// Extracts with both tools and compares machine code and PTX, and the names of the files if `names` says so. Gives what
/// we extracted, all kinds.
fn compare(dir: &Path, file: &Path, cuobjdump: &Path, names: bool) -> Extracted {
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    for place in [&ours, &theirs] {
        let _ = std::fs::remove_dir_all(place);
        std::fs::create_dir_all(place).expect("directory");
    }
    fatbin(&["extract", text(file), "-d", text(&ours)]);
    let words = ["-all", "-xelf", "all", "-xptx", "all"];
    run(Command::new(cuobjdump).args(words).arg(file).current_dir(&theirs));
    let all = read_all(&ours);
    let ours: Vec<_> =
        all.iter().filter(|(extension, ..)| matches!(extension.as_str(), "cubin" | "ptx")).collect();
    let theirs = read_all(&theirs);
    let list = |images: &[&(String, Vec<u8>, String)]| -> Vec<String> {
        images.iter().map(|(_, bytes, name)| format!("{name}: {} bytes", bytes.len())).collect()
    };
    let theirs: Vec<_> = theirs.iter().collect();
    let both = || format!("{}: {:#?} {:#?}", file.display(), list(&ours), list(&theirs));
    assert!(!ours.is_empty() && ours.len() == theirs.len(), "{}", both());
    for (mine, other) in ours.iter().zip(&theirs) {
        assert!(mine.0 == other.0 && mine.1 == other.1, "{}", both());
        assert!(!names || mine.2 == other.2, "{}", both());
    }
    all
}

/// Registers and shared memory as the tool tells them, and as we read them, of every kernel of the cubin.
fn compare_resources(dir: &Path, cuobjdump: &Path, image: &[u8]) -> usize {
    let path = dir.join("one.cubin");
    std::fs::write(&path, image).expect("written");
    let output = run(Command::new(cuobjdump).arg("-res-usage").arg(&path));
    let listing = String::from_utf8(output.stdout).expect("UTF-8");
    let mut theirs = BTreeMap::new();
    let mut lines = listing.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.trim().strip_prefix("Function ") {
            let figures = lines.next().expect("figures");
            let figure = |name: &str| -> u64 {
                let word =
                    figures.split_whitespace().find_map(|word| word.strip_prefix(name)).expect("figure");
                word.parse().expect("number")
            };
            theirs.insert(name.trim_end_matches(':').to_owned(), (figure("REG:"), figure("SHARED:")));
        }
    }
    let cubin = Cubin::parse(image).expect("cubin");
    for kernel in &cubin.kernels {
        let ours = (kernel.registers.expect("registers").into(), kernel.shared_size);
        assert_eq!(Some(&ours), theirs.get(kernel.name), "{}: {listing}", kernel.name);
        if kernel.name.contains("scale") {
            assert_eq!(kernel.barriers, Some(1), "{}", kernel.name);
        }
    }
    cubin.kernels.len()
}

fn count(extracted: &Extracted, wanted: &str) -> usize {
    extracted.iter().filter(|(extension, ..)| extension == wanted).count()
}

#[test]
fn compilers_of_three_cuda_versions() {
    let Some(dir) = directory() else { return };
    let cuda_13 = Toolkit::cuda_13(&dir);
    let newest = cuda_13.cuobjdump.clone();
    let mut table =
        String::from("| nvcc | built with | ELF | PTX | other | codecs | |\n|---|---|--:|--:|--:|---|---|\n");
    let toolkits: Vec<_> = Toolkit::of_debian(&dir).into_iter().chain([cuda_13]).collect();
    for toolkit in &toolkits {
        let work = dir.join(format!("work-{}", toolkit.version));
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(&work).expect("directory");
        let library = ["-shared", "-cudart=none", "-Xcompiler=-fPIC"];
        let archs =
            ["-gencode=arch=compute_75,code=[sm_75,compute_75]", "-gencode=arch=compute_90,code=sm_90"];
        let lto = "-gencode=arch=compute_80,code=lto_80";
        let library = |more: &[&'static str]| [&library[..], &archs, more].concat();
        let mut variants = vec![
            ("-shared", library(&[])),
            ("-Xfatbin -compress-all", library(&["-Xfatbin=-compress-all"])),
            ("-Xfatbin -compress=false", library(&["-Xfatbin=-compress=false"])),
            ("-G", library(&["-G"])),
            ("-rdc=true", library(&["-rdc=true", "-cudadevrt=none"])),
            ("-rdc=true -dlink", [&["-rdc=true", "-dlink", "-cudadevrt=none"], &archs[..]].concat()),
            ("-dc", [&["-dc"], &archs[..]].concat()),
            ("-dc code=lto_80", vec!["-dc", archs[0], lto]),
            ("-fatbin", [&["-fatbin"], &archs[..]].concat()),
        ];
        if toolkit.version == "13.5" {
            variants.push(("--concat", library(&["--concat", "--compress-mode=size"])));
            for mode in ["speed", "balance", "size", "none"] {
                let option: &'static str = match mode {
                    "speed" => "--compress-mode=speed",
                    "balance" => "--compress-mode=balance",
                    "size" => "--compress-mode=size",
                    _ => "--compress-mode=none",
                };
                variants.push((option, library(&[option])));
            }
        }
        for (number, (words, options)) in variants.iter().enumerate() {
            let file = toolkit.build(&work, "toolkits.cu", &format!("v{number}.bin"), options);
            let report = json(&["inspect", "--json", text(&file)]);
            let containers = report[0]["containers"].as_array().expect("array").iter();
            let entries: Vec<_> = containers.flat_map(|c| c["entries"].as_array().expect("array")).collect();
            // Entries with a name of their own get it from the tool, without a number, which makes doubles.
            let names = entries.iter().all(|entry| entry["name"].is_null());
            let extracted = compare(&work, &file, &toolkit.cuobjdump, names);
            compare(&work, &file, &newest, names);
            let mut kernels = 0;
            for (extension, bytes, _) in &extracted {
                // The tool gives no figures for relocatable code.
                if extension == "cubin" && !words.contains("dc") {
                    kernels += compare_resources(&work, &newest, bytes);
                }
            }
            assert!(kernels > 0 || words.contains("dc"), "{words}");
            fatbin(&["verify", text(&file)]);
            // What is left over is still a file that both tools read.
            let stripped = work.join(format!("s{number}.bin"));
            fatbin(&["strip", text(&file), "--keep", "sm_75+ptx", "-o", text(&stripped)]);
            let left = compare(&work, &stripped, &newest, names).len();
            assert!(left < extracted.len() || *words == "--concat", "{words}");
            fatbin(&["verify", text(&stripped)]);
            let codecs: BTreeSet<_> =
                entries.iter().map(|e| format!("{} {}", e["kind"], e["codec"]).replace('"', "")).collect();
            let codecs: Vec<_> = codecs.into_iter().collect();
            let (elf, ptx) = (count(&extracted, "cubin"), count(&extracted, "ptx"));
            writeln!(
                table,
                "| {} | {words} | {elf} | {ptx} | {} | {} | identical |",
                toolkit.version,
                extracted.len() - elf - ptx,
                codecs.join(", ")
            )
            .expect("string");
        }
        std::fs::remove_dir_all(&work).expect("removed");
    }
    std::fs::write(dir.join("toolkits.md"), &table).expect("written");
    println!("{table}");
}

#[test]
fn tile_ir_of_nvcc() {
    let Some(dir) = directory() else { return };
    let cuda_13 = Toolkit::cuda_13(&dir);
    let work = dir.join("work-tile");
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&work).expect("directory");
    let words = ["-std=c++20", "--enable-tile"];
    let archs = [
        "-gencode=arch=compute_90,code=[sm_90,compute_90]",
        "-gencode=arch=compute_100,code=[sm_100,compute_100]",
    ];
    let bytecode = |arch: &str| {
        let file = cuda_13.build(&work, "tile.cu", "one.tilebc", &[&words[..], &["--tilebc", arch]].concat());
        std::fs::read(file).expect("readable")
    };
    let bytecode = [("sm_90", bytecode("-arch=sm_90")), ("sm_100", bytecode("-arch=sm_100"))];
    for mode in ["speed", "balance", "size", "none"] {
        let mode = format!("--compress-mode={mode}");
        let options = [&words[..], &archs, &["-shared", "-cudart=none", "-Xcompiler=-fPIC", &mode]].concat();
        let file = cuda_13.build(&work, "tile.cu", "tile.so", &options);
        let report = json(&["inspect", "--json", "--kernels", text(&file)]);
        let containers = report[0]["containers"].as_array().expect("array");
        let is_tile =
            |c: &&serde_json::Value| c["wrapper_sections"] == serde_json::json!([".nvFatBinSegmentAlt"]);
        let [tile] = containers.iter().filter(is_tile).collect::<Vec<_>>()[..] else {
            panic!("one container for tile code: {report:#}")
        };
        let entries = tile["entries"].as_array().expect("array");
        let listed: Vec<_> = entries.iter().map(|e| [&e["kind"], &e["arch"], &e["version"]]).collect();
        let expected = [
            ["ELF", "sm_90", "1.8"],
            ["Tile IR", "sm_90", "13.5"],
            ["ELF", "sm_100", "1.8"],
            ["Tile IR", "sm_100", "13.5"],
        ];
        assert_eq!(listed, expected, "{tile:#}");
        for entry in entries.iter().filter(|e| e["kind"] == "ELF") {
            let kernel = &entry["kernels"][0];
            assert_eq!(
                kernel["params"],
                serde_json::json!([{"offset": 0, "size": 8}, {"offset": 8, "size": 8}])
            );
            assert!(kernel["name"].as_str().expect("name").contains("doubled"), "{kernel}");
        }
        fatbin(&["verify", text(&file)]);
        // The architecture in the names differs: machine code of tile kernels says `a` in its ELF header alone.
        let extracted = compare(&work, &file, &cuda_13.cuobjdump, false);
        for (number, (arch, bytes)) in bytecode.iter().enumerate() {
            let name = format!("tile.{}.{arch}.tileir", number + 1);
            let (_, image, _) = extracted.iter().find(|(.., found)| *found == name).expect("Tile IR");
            let padding = image.strip_prefix(bytes.as_slice()).expect("the bytecode that nvcc made");
            assert!(padding.len() < 8 && padding.iter().all(|b| *b == 0));
        }
        let stripped = work.join("stripped.so");
        fatbin(&["strip", text(&file), "--for", "sm_90", "-o", text(&stripped)]);
        let data = FileData::open(&stripped).expect("readable");
        let fatbins = Fatbins::parse(&data).expect("scan");
        let kinds: Vec<_> =
            fatbins.containers().flat_map(|l| l.entries().map(|e| e.kind()).collect::<Vec<_>>()).collect();
        assert_eq!(kinds, [Kind::Elf; 2], "ordinary and tile code");
    }
    // The bytecode alone is a file too.
    let report = json(&["inspect", "--json", text(&work.join("one.tilebc"))]);
    assert_eq!((&report[0]["format"], &report[0]["image"]["version"]), (&"tile-ir".into(), &"13.5".into()));
    std::fs::remove_dir_all(&work).expect("removed");
}

#[test]
fn libraries_that_make_containers() {
    let Some(dir) = directory() else { return };
    let cuda_13 = Toolkit::cuda_13(&dir);
    let mut libraries = Vec::new();
    for (package, versions) in NVFATBIN {
        for version in versions {
            let top = wheels(&dir, &format!("nvfatbin-{version}"), &[&format!("{package}=={version}")]);
            for place in ["nvidia/nvfatbin/lib/libnvfatbin.so.12", "nvidia/cu13/lib/libnvfatbin.so.13"] {
                libraries.extend(Some(top.join(place)).filter(|library| library.exists()));
            }
        }
    }
    assert_eq!(libraries.len(), 11);
    let script = common::data_dir().join("../producers.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(env!("CARGO_BIN_EXE_fatbin")).arg(&cuda_13.nvcc).args(&libraries);
    print!("{}", String::from_utf8_lossy(&run(&mut command).stdout));
}
