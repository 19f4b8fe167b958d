//! A writer of containers for tests, and the golden files.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::PathBuf;

use fatbin::Flags;

pub mod mutate;

pub const PLAIN: u64 = Flags::BITS64.0 | Flags::LINUX.0;

/// An entry to be written. Fields that stay `None` get their right values.
#[derive(Clone)]
pub struct EntrySpec {
    pub kind: u16,
    pub version: u16,
    pub arch: u32,
    pub code: (u16, u16),
    pub flags: u64,
    pub name: Option<Vec<u8>>,
    pub options: Option<Vec<u8>>,
    /// Bytes as stored, before padding.
    pub stored: Vec<u8>,
    pub compressed_size: u32,
    pub uncompressed_size: u64,
    pub header_size: Option<u32>,
    pub payload_size: Option<u64>,
}

pub fn entry(kind: u16, arch: u32, stored: &[u8]) -> EntrySpec {
    EntrySpec {
        kind,
        version: 0x0101,
        arch,
        code: (8, 0),
        flags: PLAIN,
        name: None,
        options: None,
        stored: stored.to_vec(),
        compressed_size: 0,
        uncompressed_size: 0,
        header_size: None,
        payload_size: None,
    }
}

pub fn lz4(kind: u16, arch: u32, image: &[u8]) -> EntrySpec {
    let stored = lz4_flex::block::compress(image);
    EntrySpec {
        flags: PLAIN | Flags::LZ4.0,
        compressed_size: stored.len() as u32,
        uncompressed_size: image.len() as u64,
        ..entry(kind, arch, &stored)
    }
}

pub fn zstd(kind: u16, arch: u32, image: &[u8]) -> EntrySpec {
    let stored = ruzstd::encoding::compress_to_vec(image, ruzstd::encoding::CompressionLevel::Fastest);
    EntrySpec {
        flags: PLAIN | Flags::ZSTD.0,
        compressed_size: stored.len() as u32,
        uncompressed_size: image.len() as u64,
        ..entry(kind, arch, &stored)
    }
}

fn pad8(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

impl EntrySpec {
    pub fn bytes(&self) -> Vec<u8> {
        let mut tail = Vec::new();
        let (mut name_offset, mut name_len, mut options_offset) = (0, 0, 0);
        if let Some(options) = &self.options {
            options_offset = 0x40;
            tail.extend(0x48_u32.to_le_bytes());
            tail.extend((options.len() as u32).to_le_bytes());
            tail.extend(options);
            tail.push(0);
            pad8(&mut tail);
        }
        if let Some(name) = &self.name {
            name_offset = 0x40 + tail.len() as u32;
            name_len = name.len() as u32;
            tail.extend(name);
            tail.push(0);
            pad8(&mut tail);
        }
        let mut payload = self.stored.clone();
        pad8(&mut payload);
        let mut out = Vec::new();
        out.extend(self.kind.to_le_bytes());
        out.extend(self.version.to_le_bytes());
        out.extend(self.header_size.unwrap_or(0x40 + tail.len() as u32).to_le_bytes());
        out.extend(self.payload_size.unwrap_or(payload.len() as u64).to_le_bytes());
        out.extend(self.compressed_size.to_le_bytes());
        out.extend(u32::to_le_bytes(options_offset));
        out.extend(self.code.1.to_le_bytes());
        out.extend(self.code.0.to_le_bytes());
        out.extend(self.arch.to_le_bytes());
        out.extend(name_offset.to_le_bytes());
        out.extend(u32::to_le_bytes(name_len));
        out.extend(self.flags.to_le_bytes());
        out.extend(0_u64.to_le_bytes());
        out.extend(self.uncompressed_size.to_le_bytes());
        out.extend(tail);
        out.extend(payload);
        out
    }
}

/// A container of the entries.
pub fn container(entries: &[EntrySpec]) -> Vec<u8> {
    let body: Vec<u8> = entries.iter().flat_map(EntrySpec::bytes).collect();
    let mut out = header(body.len() as u64);
    out.extend(body);
    out
}

/// A container header that declares `size` bytes of content.
pub fn header(size: u64) -> Vec<u8> {
    let mut out = fatbin::raw::CONTAINER_MAGIC.to_le_bytes().to_vec();
    out.extend([1, 0, 16, 0]);
    out.extend(size.to_le_bytes());
    out
}

/// A group entry: images of one kind, stored as they are, with their SM numbers and option strings.
pub fn group(kind: u16, images: &[(u32, &str, &[u8])]) -> EntrySpec {
    let mut subs = Vec::new();
    let mut data = Vec::new();
    for (arch, options, image) in images {
        let mut sub = EntrySpec {
            options: (!options.is_empty()).then(|| options.as_bytes().to_vec()),
            header_size: Some(data.len() as u32),
            payload_size: Some(image.len() as u64),
            ..entry(kind, *arch, &[])
        };
        sub.code = (9, 5);
        subs.extend(sub.bytes());
        data.extend_from_slice(image);
    }
    // The table stands where the option descriptor of other kinds stands.
    let mut table = (images.len() as u32).to_le_bytes().to_vec();
    table.extend((subs.len() as u32 + 8).to_le_bytes());
    table.extend(subs);
    let mut group = entry(0x100, 0, &[]);
    group.code = (0, 1);
    group.header_size = Some(0x40 + table.len() as u32);
    let stored = lz4_flex::block::compress(&data);
    let mut padded = stored.clone();
    pad8(&mut padded);
    group.payload_size = Some(padded.len() as u64);
    group.flags |= Flags::LZ4.0;
    group.compressed_size = stored.len() as u32;
    group.uncompressed_size = data.len() as u64;
    // `bytes` pads the payload to 8; table and payload are both multiples of 8 here.
    table.extend(padded);
    group.stored = table;
    group
}

/// Sets `options_offset` of the entry at `offset` of `container`: what makes [`group`] a group.
pub fn set_options_offset(container: &mut [u8], offset: usize, value: u32) {
    container[offset + 0x14..offset + 0x18].copy_from_slice(&value.to_le_bytes());
}

pub fn data_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// A golden file.
pub fn golden(name: &str) -> Vec<u8> {
    std::fs::read(data_dir().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// All golden containers with their names.
pub fn golden_containers() -> Vec<(String, Vec<u8>)> {
    let mut out: Vec<_> = std::fs::read_dir(data_dir())
        .expect("golden data")
        .map(|file| file.expect("directory entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "fatbin"))
        .map(|path| {
            let name = path.file_name().expect("name").to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).expect("readable");
            (name, bytes)
        })
        .collect();
    out.sort();
    assert!(out.len() >= 10, "golden data is missing");
    out
}

/// A Windows library with `container` in `.nv_fatb` and a wrapper for it in `.nvFatBi`.
pub fn portable_executable(container: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x1_8000_0000;
    const PE: usize = 0x80;
    const OPTIONAL: usize = 0xf0;
    let fatbin_size = (container.len() as u32).next_multiple_of(0x200);
    let mut out = vec![0; 0x400];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &(PE as u32).to_le_bytes());
    put(PE, b"PE\0\0");
    // File header: x86-64, two sections, size of the optional header, DLL.
    put(PE + 4, &0x8664_u16.to_le_bytes());
    put(PE + 6, &2_u16.to_le_bytes());
    put(PE + 20, &(OPTIONAL as u16).to_le_bytes());
    put(PE + 22, &0x2022_u16.to_le_bytes());
    let optional = PE + 24;
    put(optional, &0x20b_u16.to_le_bytes());
    put(optional + 24, &BASE.to_le_bytes());
    put(optional + 32, &0x1000_u32.to_le_bytes());
    put(optional + 36, &0x200_u32.to_le_bytes());
    put(optional + 108, &16_u32.to_le_bytes());
    let sections = [
        (b".nv_fatb", container.len() as u32, 0x1000, fatbin_size, 0x400),
        (b".nvFatBi", 24, 0x10_0000, 0x200, 0x400 + fatbin_size),
    ];
    for (i, (name, virtual_size, rva, raw_size, offset)) in sections.into_iter().enumerate() {
        let at = optional + OPTIONAL + i * 40;
        put(at, name);
        for (field, value) in [virtual_size, rva, raw_size, offset].into_iter().enumerate() {
            put(at + 8 + field * 4, &value.to_le_bytes());
        }
    }
    out.extend(container);
    out.resize(0x400 + fatbin_size as usize, 0);
    out.extend(fatbin::raw::WRAPPER_MAGIC.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.extend((BASE + 0x1000).to_le_bytes());
    out.resize(out.len() + 8 + 0x200 - 24, 0);
    out
}

/// NVIDIA's tool: `$CUOBJDUMP`, `cuobjdump` on PATH, or that of the toolkit that `cargo xtask samples` sets up.
pub fn cuobjdump() -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = std::env::var_os("CUOBJDUMP").map(PathBuf::from).into_iter().collect();
    candidates.push("cuobjdump".into());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.nvcc/lib");
    for python in std::fs::read_dir(root).into_iter().flatten().flatten() {
        candidates.push(python.path().join("site-packages/nvidia/cu13/bin/cuobjdump"));
    }
    let works = |path: &PathBuf| {
        std::process::Command::new(path).arg("--version").output().is_ok_and(|o| o.status.success())
    };
    candidates.into_iter().find(works)
}
