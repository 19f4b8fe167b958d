//! What a pointer given to `cuModuleLoadData` or `cuLibraryLoadData` points at.

use crate::bytes::array;
use crate::entry::CodeVersion;
use crate::raw;

/// Kind of an image, from its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageKind {
    /// A 24-byte wrapper.
    Wrapper,
    /// A container.
    Container,
    /// An ELF file: a cubin, or a host program.
    Elf,
    /// PTX text, ended by NUL where no length is known.
    Ptx,
    /// LTO-IR.
    LtoIr,
    /// Tile IR bytecode.
    TileIr,
    /// An `ar` archive.
    Archive,
    /// A Windows program or library (or anything else that starts with `MZ`).
    Pe,
    /// None of them.
    Unknown,
}

impl ImageKind {
    /// Classifies an image by its first bytes; four are enough, except for Tile IR and archives.
    ///
    /// PTX has no magic: anything that starts like text (PTX starts with a directive, a comment or white space) counts.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if let Some(magic) = bytes.first_chunk::<4>() {
            if *magic == raw::WRAPPER_MAGIC.to_le_bytes() {
                return Self::Wrapper;
            }
            if *magic == raw::CONTAINER_MAGIC.to_le_bytes() {
                return Self::Container;
            }
            if *magic == raw::ELF_MAGIC {
                return Self::Elf;
            }
            if *magic == raw::LTO_IR_MAGIC {
                return Self::LtoIr;
            }
        }
        if bytes.starts_with(&raw::TILE_IR_MAGIC) {
            return Self::TileIr;
        }
        if bytes.starts_with(&raw::ARCHIVE_MAGIC) {
            return Self::Archive;
        }
        match bytes {
            [b'M', b'Z', ..] => Self::Pe,
            [b'.' | b'/' | b' ' | b'\t' | b'\r' | b'\n', ..] => Self::Ptx,
            _ => Self::Unknown,
        }
    }
}

/// Version of Tile IR bytecode, from the two bytes after its magic and a NUL. `None` if it is no Tile IR.
#[must_use]
pub fn tile_ir_version(data: &[u8]) -> Option<CodeVersion> {
    let rest = data.strip_prefix(&raw::TILE_IR_MAGIC)?;
    match array::<3>(rest, 0)? {
        [0, major, minor] => Some(CodeVersion { major: major.into(), minor: minor.into() }),
        _ => None,
    }
}
