//! Structures and constants of the format, exactly as stored. All numbers are little-endian.
//!
//! The layouts come from the header `fatbinary_section.h` that ships with the CUDA toolkit and from files made by
//! toolkits 11.8 to 13.5.

use std::fmt;

use crate::bytes::Fields;

/// Magic of a [`Wrapper`] (`b1 43 62 46`).
pub const WRAPPER_MAGIC: u32 = 0x4662_43b1;
/// Size of a [`Wrapper`].
pub const WRAPPER_LEN: usize = 24;
/// Magic of a [`ContainerHeader`] (`50 ed 55 ba`).
pub const CONTAINER_MAGIC: u32 = 0xba55_ed50;
/// Size of a [`ContainerHeader`].
pub const CONTAINER_HEADER_LEN: usize = 16;
/// The one container version.
pub const CONTAINER_VERSION: u16 = 1;
/// Size of the fixed part of an [`EntryHeader`].
pub const ENTRY_HEADER_LEN: usize = 0x40;
/// The one entry version.
pub const ENTRY_VERSION: u16 = 0x0101;
/// First bytes of an ELF file.
pub const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// First bytes of LTO-IR.
pub const LTO_IR_MAGIC: [u8; 4] = [0xed, 0x43, 0x4e, 0x7f];
/// First bytes of Tile IR.
pub const TILE_IR_MAGIC: [u8; 7] = *b"\x7fTileIR";
/// First bytes of an `ar` archive.
pub const ARCHIVE_MAGIC: [u8; 8] = *b"!<arch>\n";

/// What a program registers: 24 bytes in `.nvFatBinSegment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrapper {
    /// [`WRAPPER_MAGIC`].
    pub magic: u32,
    /// 1 = plain, 2 = linked.
    pub version: u32,
    /// Address of a container.
    pub container: u64,
    /// Version 2: address of a NULL-terminated array of container addresses.
    pub list: u64,
}

impl Wrapper {
    /// Splits the bytes; checks nothing.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; WRAPPER_LEN]) -> Self {
        let mut f = Fields::new(bytes);
        Self { magic: f.u32(), version: f.u32(), container: f.u64(), list: f.u64() }
    }
}

/// Header of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerHeader {
    /// [`CONTAINER_MAGIC`].
    pub magic: u32,
    /// [`CONTAINER_VERSION`].
    pub version: u16,
    /// Bytes of this header.
    pub header_size: u16,
    /// Bytes after this header.
    pub size: u64,
}

impl ContainerHeader {
    /// Splits the bytes; checks nothing.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; CONTAINER_HEADER_LEN]) -> Self {
        let mut f = Fields::new(bytes);
        Self { magic: f.u32(), version: f.u16(), header_size: f.u16(), size: f.u64() }
    }
}

/// Fixed part of an entry header; also the sub-header of an image in a concatenated group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHeader {
    /// What the payload is.
    pub kind: Kind,
    /// [`ENTRY_VERSION`].
    pub version: u16,
    /// Bytes from the entry to its payload. In a group: offset of the image in the decompressed data.
    pub header_size: u32,
    /// Bytes of the payload including padding. In a group: exact size of the image.
    pub payload_size: u64,
    /// Exact stored bytes if compressed, else 0.
    pub compressed_size: u32,
    /// Offset of the option descriptor from the entry, 0 = none; of the table in a [`Kind::Group`].
    pub options_offset: u32,
    /// PTX: minor ISA version. ELF: minor cubin ABI.
    pub code_minor: u16,
    /// PTX: major ISA version. ELF: major cubin ABI.
    pub code_major: u16,
    /// SM number in decimal: 75, 90, 100.
    pub arch: u32,
    /// Offset of the name from the entry, 0 = none.
    pub name_offset: u32,
    /// Bytes of the name without its NUL.
    pub name_len: u32,
    /// Flags.
    pub flags: Flags,
    /// Key of scrambled LTO-IR, else 0.
    pub key: u64,
    /// Exact decompressed size, 0 if not compressed.
    pub uncompressed_size: u64,
}

impl EntryHeader {
    /// Splits the bytes; checks nothing.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; ENTRY_HEADER_LEN]) -> Self {
        let mut f = Fields::new(bytes);
        Self {
            kind: Kind::from_raw(f.u16()),
            version: f.u16(),
            header_size: f.u32(),
            payload_size: f.u64(),
            compressed_size: f.u32(),
            options_offset: f.u32(),
            code_minor: f.u16(),
            code_major: f.u16(),
            arch: f.u32(),
            name_offset: f.u32(),
            name_len: f.u32(),
            flags: Flags(f.u64()),
            key: f.u64(),
            uncompressed_size: f.u64(),
        }
    }
}

/// Kind of an entry. Kinds not known here are kept and listed, never selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// 0x01: PTX text.
    Ptx,
    /// 0x02: machine code in an ELF file (cubin), relocatable in `__nv_relfatbin`.
    Elf,
    /// 0x04: cubin of old toolkits.
    OldCubin,
    /// 0x08: LTO-IR for link-time optimisation.
    LtoIr,
    /// 0x10: alternate ELF (its use is not known).
    AltElf,
    /// 0x20: probably an index.
    Index,
    /// 0x40: PTX carried over from a relocatable object, meant for linking.
    Reloc,
    /// 0x80: Tile IR bytecode.
    TileIr,
    /// 0x100: several images compressed together.
    Group,
    /// Anything else.
    Unknown(u16),
}

impl Kind {
    /// From the stored number.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        match raw {
            0x01 => Self::Ptx,
            0x02 => Self::Elf,
            0x04 => Self::OldCubin,
            0x08 => Self::LtoIr,
            0x10 => Self::AltElf,
            0x20 => Self::Index,
            0x40 => Self::Reloc,
            0x80 => Self::TileIr,
            0x100 => Self::Group,
            other => Self::Unknown(other),
        }
    }

    /// The stored number.
    #[must_use]
    pub const fn to_raw(self) -> u16 {
        match self {
            Self::Ptx => 0x01,
            Self::Elf => 0x02,
            Self::OldCubin => 0x04,
            Self::LtoIr => 0x08,
            Self::AltElf => 0x10,
            Self::Index => 0x20,
            Self::Reloc => 0x40,
            Self::TileIr => 0x80,
            Self::Group => 0x100,
            Self::Unknown(other) => other,
        }
    }

    /// True for the kinds whose payload is PTX text.
    #[must_use]
    pub const fn is_ptx(self) -> bool {
        matches!(self, Self::Ptx | Self::Reloc)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ptx => "PTX",
            Self::Elf => "ELF",
            Self::OldCubin => "old cubin",
            Self::LtoIr => "LTO-IR",
            Self::AltElf => "alt ELF",
            Self::Index => "index",
            Self::Reloc => "reloc PTX",
            Self::TileIr => "Tile IR",
            Self::Group => "group",
            Self::Unknown(raw) => return write!(f, "kind {raw:#x}"),
        })
    }
}

/// Flags of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(pub u64);

impl Flags {
    /// 64-bit device code.
    pub const BITS64: Self = Self(0x1);
    /// Built with `-g`.
    pub const DEBUG: Self = Self(0x2);
    /// `-cuda` was given.
    pub const CUDA: Self = Self(0x4);
    /// OpenCL.
    pub const OPENCL: Self = Self(0x8);
    /// Host is Linux.
    pub const LINUX: Self = Self(0x10);
    /// Host is macOS.
    pub const MAC: Self = Self(0x20);
    /// Host is Windows.
    pub const WINDOWS: Self = Self(0x40);
    /// The payload is a raw LZ4 block.
    pub const LZ4: Self = Self(0x2000);
    /// The payload is one ZSTD frame.
    pub const ZSTD: Self = Self(0x8000);
    /// LTO-IR that was scrambled after compression.
    pub const OBFUSCATED: Self = Self(0x1_0000);
    /// Architecture-specific variant (`sm_90a`).
    pub const ARCH_SPECIFIC: Self = Self(0x10_0000);
    /// Family variant (`sm_100f`).
    pub const FAMILY: Self = Self(0x20_0000);
    /// The ELF file carries `.nv.compat` (sm_100 and newer).
    pub const COMPAT: Self = Self(0x100_0000);

    const NAMES: [(Self, &'static str); 13] = [
        (Self::BITS64, "64bit"),
        (Self::DEBUG, "debug"),
        (Self::CUDA, "cuda"),
        (Self::OPENCL, "opencl"),
        (Self::LINUX, "linux"),
        (Self::MAC, "mac"),
        (Self::WINDOWS, "windows"),
        (Self::LZ4, "lz4"),
        (Self::ZSTD, "zstd"),
        (Self::OBFUSCATED, "obfuscated"),
        (Self::ARCH_SPECIFIC, "arch-specific"),
        (Self::FAMILY, "family"),
        (Self::COMPAT, "compat"),
    ];

    /// True if all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` without the bits of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for Flags {
    /// Names of the bits, separated by spaces; unknown bits as one number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let mut space = "";
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                write!(f, "{space}{name}")?;
                space = " ";
                rest = rest.without(flag);
            }
        }
        if rest.0 != 0 {
            write!(f, "{space}{:#x}", rest.0)?;
        }
        Ok(())
    }
}
