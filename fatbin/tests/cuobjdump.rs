//! Every image must come out byte for byte as NVIDIA's own tool extracts it.
//! Looked for: `$CUOBJDUMP`, `cuobjdump` on PATH, the toolkit that `cargo xtask samples` sets up. Without it the test says so.

mod common;

use std::path::Path;
use std::process::Command;

use fatbin::{Kind, scan_file};

/// Trailing NULs and newlines are the tool's affair: it drops one and adds another.
fn trimmed(text: &[u8]) -> Vec<u8> {
    let end = text.iter().rposition(|b| !matches!(b, 0 | b'\n')).map_or(0, |last| last + 1);
    text[..end].to_vec()
}

/// Machine code and PTX of a file, sorted.
type Images = (Vec<Vec<u8>>, Vec<Vec<u8>>);

fn theirs(tool: &Path, file: &Path) -> Images {
    let dir = std::env::temp_dir().join(format!("fatbin-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary folder");
    let output = Command::new(tool)
        .args(["-all", "-xelf", "all", "-xptx", "all"])
        .arg(file)
        .current_dir(&dir)
        .output()
        .expect("cuobjdump runs");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let (mut elf, mut ptx) = (Vec::new(), Vec::new());
    for extracted in std::fs::read_dir(&dir).expect("temporary folder") {
        let path = extracted.expect("directory entry").path();
        let bytes = std::fs::read(&path).expect("readable");
        match path.extension().and_then(|e| e.to_str()) {
            Some("cubin") => elf.push(bytes),
            Some("ptx") => ptx.push(trimmed(&bytes)),
            other => panic!("{other:?}"),
        }
    }
    std::fs::remove_dir_all(&dir).expect("temporary folder");
    elf.sort();
    ptx.sort();
    (elf, ptx)
}

fn ours(data: &[u8]) -> Images {
    let (mut elf, mut ptx) = (Vec::new(), Vec::new());
    for part in scan_file(data).expect("scan") {
        for found in part.scan.containers {
            for entry in found.container.read_entries().expect("entries") {
                let image = entry.data(1 << 28).expect("decodes").into_owned();
                match entry.kind() {
                    Kind::Elf => elf.push(image),
                    Kind::Ptx => ptx.push(trimmed(&image)),
                    _ => {}
                }
            }
        }
    }
    elf.sort();
    ptx.sort();
    (elf, ptx)
}

#[test]
fn images_are_those_that_cuobjdump_extracts() {
    let Some(tool) = common::cuobjdump() else {
        println!("skipped: no cuobjdump");
        return;
    };
    let mut compared = 0;
    for file in std::fs::read_dir(common::data_dir()).expect("golden data") {
        let path = file.expect("directory entry").path();
        let (elf, ptx) = ours(&std::fs::read(&path).expect("readable"));
        let expected = theirs(&tool, &path);
        assert_eq!((elf.len(), ptx.len()), (expected.0.len(), expected.1.len()), "{}", path.display());
        assert!(elf == expected.0, "{}: machine code differs", path.display());
        assert!(ptx == expected.1, "{}: PTX differs", path.display());
        compared += elf.len() + ptx.len();
    }
    assert!(compared >= 25, "{compared} images compared");
    println!("{compared} images compared");
}
