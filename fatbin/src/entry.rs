//! One image of a container: its header, name, options and payload.

use std::borrow::Cow;
use std::fmt;

use crate::bytes::{array, truncated};
use crate::container::Container;
use crate::decompress::{self, Codec};
use crate::elf_len::elf_len;
use crate::error::{Error, ErrorKind, Result};
use crate::group::GroupImages;
use crate::raw::{self, EntryHeader, Flags, Kind};

/// Architecture of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arch {
    /// SM number: 75, 90, 100.
    pub sm: u32,
    /// Which devices beyond this number may run it.
    pub variant: Variant,
}

/// The suffix of an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// No suffix: also newer devices (machine code: of the same major number).
    Generic,
    /// `f`: this device and newer ones of its family.
    Family,
    /// `a`: this device alone.
    Specific,
}

impl Variant {
    /// `""`, `"f"` or `"a"`.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Generic => "",
            Self::Family => "f",
            Self::Specific => "a",
        }
    }
}

impl Arch {
    /// From the stored number and flags.
    #[must_use]
    pub const fn new(sm: u32, flags: Flags) -> Self {
        let variant = if flags.contains(Flags::ARCH_SPECIFIC) {
            Variant::Specific
        } else if flags.contains(Flags::FAMILY) {
            Variant::Family
        } else {
            Variant::Generic
        };
        Self { sm, variant }
    }

    /// Major compute capability.
    #[must_use]
    pub const fn major(self) -> u32 {
        self.sm / 10
    }

    /// Minor compute capability.
    #[must_use]
    pub const fn minor(self) -> u32 {
        self.sm % 10
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.sm, self.variant.suffix())
    }
}

/// Version of the code in an image: the PTX ISA version, or the cubin ABI of an ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeVersion {
    /// Major number.
    pub major: u16,
    /// Minor number.
    pub minor: u16,
}

impl fmt::Display for CodeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Where an image lies inside of a concatenated group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPart {
    /// Number of the image in its group, from 0.
    pub index: u32,
    /// Images in the group.
    pub count: u32,
    /// Offset of the image in the decompressed group.
    pub start: u64,
    /// Size of the image.
    pub size: u64,
}

/// One image. Small; borrows from the bytes of its container.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub(crate) header: EntryHeader,
    pub(crate) offset: usize,
    pub(crate) name: Option<&'a [u8]>,
    pub(crate) options: Option<&'a [u8]>,
    pub(crate) payload: &'a [u8],
    pub(crate) payload_offset: usize,
    pub(crate) codec: Codec,
    /// Stored and decompressed size of `payload`; they are the group's for an image in a group.
    pub(crate) compressed_size: u32,
    pub(crate) uncompressed_size: u64,
    pub(crate) obfuscated: bool,
    pub(crate) group: Option<GroupPart>,
}

impl<'a> Entry<'a> {
    /// The header as stored (in a group: the image's sub-header).
    #[must_use]
    pub const fn header(&self) -> &EntryHeader {
        &self.header
    }

    /// Offset of the entry in its container (in a group: of the image's sub-header).
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What the image is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.header.kind
    }

    /// Architecture it was made for.
    #[must_use]
    pub const fn arch(&self) -> Arch {
        Arch::new(self.header.arch, self.header.flags)
    }

    /// Flags.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        self.header.flags
    }

    /// PTX ISA version, cubin ABI, or version of the Tile IR bytecode (which has both numbers in the stored major one).
    #[must_use]
    pub const fn code_version(&self) -> CodeVersion {
        let EntryHeader { kind, code_major, code_minor, .. } = self.header;
        match kind {
            Kind::TileIr => CodeVersion { major: code_major >> 8, minor: code_major & 0xff },
            _ => CodeVersion { major: code_major, minor: code_minor },
        }
    }

    /// How the payload is stored.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// Name of the translation unit, if the toolkit recorded one. Any bytes are possible.
    #[must_use]
    pub const fn name_bytes(&self) -> Option<&'a [u8]> {
        self.name
    }

    /// Name of the translation unit, for people.
    #[must_use]
    pub fn name(&self) -> Option<Cow<'a, str>> {
        self.name.map(String::from_utf8_lossy)
    }

    /// Option bytes: a compiler's command line for PTX and LTO-IR; for machine code of sm_100 and newer a NUL and a copy of
    /// `.nv.compat`.
    #[must_use]
    pub const fn options_bytes(&self) -> Option<&'a [u8]> {
        self.options
    }

    /// The compiler options recorded for PTX and LTO-IR, for people. `None` for other kinds, whose option bytes are
    /// no text.
    #[must_use]
    pub fn options(&self) -> Option<Cow<'a, str>> {
        match self.header.kind {
            Kind::Ptx | Kind::Reloc | Kind::LtoIr => self.options.map(String::from_utf8_lossy),
            _ => None,
        }
    }

    /// Place in a concatenated group, if the image is in one.
    #[must_use]
    pub const fn group(&self) -> Option<GroupPart> {
        self.group
    }

    /// The payload as stored, with padding (in a group: of the whole group).
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Offset of the payload in the container.
    #[must_use]
    pub const fn payload_offset(&self) -> usize {
        self.payload_offset
    }

    /// True for LTO-IR that was scrambled after compression: [`Entry::data`] refuses it.
    #[must_use]
    pub const fn is_obfuscated(&self) -> bool {
        self.obfuscated
    }

    /// Bytes of the payload that carry data: without the padding after compressed data (in a group: of the whole group).
    #[must_use]
    pub const fn stored_size(&self) -> u64 {
        match self.codec {
            Codec::Stored => self.payload.len() as u64,
            Codec::Lz4 | Codec::Zstd => self.compressed_size as u64,
        }
    }

    /// Declared size of the image after decompression; with padding if it is not compressed.
    #[must_use]
    pub const fn image_size(&self) -> u64 {
        match self.group {
            Some(part) => part.size,
            None => self.decoded_size(),
        }
    }

    /// Bytes that [`Entry::data`] has to decode: more than the image's own for an image in a group.
    #[must_use]
    pub const fn decoded_size(&self) -> u64 {
        match self.codec {
            Codec::Stored => self.payload.len() as u64,
            Codec::Lz4 | Codec::Zstd => self.uncompressed_size,
        }
    }

    /// The image itself: decompressed, without padding; PTX without trailing NULs.
    ///
    /// Uncompressed LTO-IR and unknown kinds keep up to 7 bytes of padding, because nothing says where they end.
    /// An image in a group costs the decompression of the group.
    ///
    /// # Errors
    /// If it (in a group: the group) is larger than `limit_bytes`, does not decode to exactly the declared size, or
    /// is scrambled LTO-IR. Offsets count from the start of the container.
    pub fn data(&self, limit_bytes: usize) -> Result<Cow<'a, [u8]>> {
        if self.obfuscated {
            let kind = ErrorKind::Obfuscated { size: self.stored_size() };
            return Err(Error::new("payload", self.payload_offset as u64, kind));
        }
        let decoded = self.decode(limit_bytes).map_err(|e| e.moved(self.payload_offset as u64))?;
        let image = match self.group {
            Some(part) => slice_cow(decoded, part.start, part.size)
                .ok_or_else(|| out_of_group(self.offset, part, self.uncompressed_size))?,
            None => decoded,
        };
        Ok(self.trim(image))
    }

    fn decode(&self, limit: usize) -> Result<Cow<'a, [u8]>> {
        // The header was checked against the payload, so that the slice is always there.
        let stored = self.payload.get(..self.compressed_size as usize).unwrap_or(self.payload);
        match self.codec {
            Codec::Stored if self.payload.len() > limit => {
                let kind = ErrorKind::TooLarge { size: self.payload.len() as u64, limit: limit as u64 };
                Err(Error::new("payload", 0, kind))
            }
            Codec::Stored => Ok(Cow::Borrowed(self.payload)),
            Codec::Lz4 => decompress::lz4(stored, self.uncompressed_size, limit).map(Cow::Owned),
            Codec::Zstd => decompress::zstd(stored, self.uncompressed_size, limit).map(Cow::Owned),
        }
    }

    fn trim(&self, image: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        let len = match self.header.kind {
            Kind::Ptx | Kind::Reloc => image.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1),
            // Only padding may go; an ELF header that claims less than that is not believed.
            Kind::Elf if self.codec == Codec::Stored && self.group.is_none() => match elf_len(&image) {
                Ok(len) if image.len() - len < 8 => len,
                _ => image.len(),
            },
            _ => image.len(),
        };
        match image {
            Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(..len).unwrap_or(bytes)),
            Cow::Owned(mut bytes) => {
                bytes.truncate(len);
                Cow::Owned(bytes)
            }
        }
    }
}

fn slice_cow(data: Cow<'_, [u8]>, start: u64, size: u64) -> Option<Cow<'_, [u8]>> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    Some(match data {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(start..end)?),
        Cow::Owned(bytes) => Cow::Owned(bytes.get(start..end)?.to_vec()),
    })
}

/// Error for a part that reaches outside of its group.
pub(crate) fn out_of_group(offset: usize, part: GroupPart, group_size: u64) -> Error {
    let end = part.start.saturating_add(part.size);
    let kind = ErrorKind::OutOfBounds { end, limit: group_size, container: "decompressed group" };
    Error::new("image in a group", offset as u64, kind)
}

/// What one entry header stands for.
pub(crate) enum ParsedEntry<'a> {
    Single(Entry<'a>),
    Group(GroupImages<'a>),
}

/// Reads the entry at `offset`; also gives where the next one starts.
pub(crate) fn parse_entry<'a>(container: &Container<'a>, offset: usize) -> Result<(ParsedEntry<'a>, usize)> {
    let bytes = container.bytes();
    let end = container.len();
    let header = read_header(bytes, offset, end)?;
    check_version(&header, offset)?;

    let header_size = header.header_size as usize;
    if header_size < raw::ENTRY_HEADER_LEN || !header_size.is_multiple_of(8) {
        let rule = "is not a multiple of 8 of at least 0x40";
        return Err(bad_value("entry header size", offset + 4, header.header_size.into(), rule));
    }
    if !header.payload_size.is_multiple_of(8) {
        let rule = "is not a multiple of 8";
        return Err(bad_value("entry payload size", offset + 8, header.payload_size, rule));
    }
    let payload_offset = inside(offset, header.header_size.into(), end, "entry header size", offset + 4)?;
    let next = inside(payload_offset, header.payload_size, end, "entry payload size", offset + 8)?;
    // What lies inside of the declared container may still be cut off.
    let head = bytes
        .get(offset..payload_offset)
        .ok_or_else(|| truncated("entry header", offset, header_size as u64, bytes.len()))?;
    let payload = bytes
        .get(payload_offset..next)
        .ok_or_else(|| truncated("entry payload", payload_offset, header.payload_size, bytes.len()))?;

    let codec = check_codec(&header, offset)?;
    let name = read_name(head, &header, head.len(), offset)?;
    let options =
        if header.kind == Kind::Group { None } else { read_options(head, &header, head.len(), offset)? };
    let entry = Entry {
        offset,
        name,
        options,
        payload,
        payload_offset,
        codec,
        compressed_size: header.compressed_size,
        uncompressed_size: header.uncompressed_size,
        obfuscated: header.flags.contains(Flags::OBFUSCATED),
        group: None,
        header,
    };
    if header.kind == Kind::Group {
        return Ok((ParsedEntry::Group(GroupImages::parse(&entry, head)?), next));
    }
    Ok((ParsedEntry::Single(entry), next))
}

pub(crate) fn read_header(bytes: &[u8], offset: usize, end: usize) -> Result<EntryHeader> {
    let len = raw::ENTRY_HEADER_LEN;
    inside(offset, len as u64, end, "entry header", offset)?;
    let head = array::<{ raw::ENTRY_HEADER_LEN }>(bytes, offset)
        .ok_or_else(|| truncated("entry header", offset, len as u64, bytes.len()))?;
    Ok(EntryHeader::from_bytes(&head))
}

pub(crate) fn check_version(header: &EntryHeader, offset: usize) -> Result<()> {
    if header.version != raw::ENTRY_VERSION {
        let kind = ErrorKind::Unsupported { what: "entry version", found: header.version.into() };
        return Err(Error::new("entry version", offset as u64 + 2, kind));
    }
    Ok(())
}

fn check_codec(header: &EntryHeader, offset: usize) -> Result<Codec> {
    let Some(codec) = Codec::from_flags(header.flags) else {
        let rule = "names two codecs";
        return Err(bad_value("entry flags", offset + 0x28, header.flags.0, rule));
    };
    if u64::from(header.compressed_size) > header.payload_size {
        let kind = ErrorKind::OutOfBounds {
            end: header.compressed_size.into(),
            limit: header.payload_size,
            container: "payload",
        };
        return Err(Error::new("entry compressed size", offset as u64 + 0x10, kind));
    }
    if codec != Codec::Stored && header.compressed_size == 0 {
        let rule = "but the flags say that the payload is compressed";
        return Err(bad_value("entry compressed size", offset + 0x10, 0, rule));
    }
    Ok(codec)
}

/// Reads the name; `head` is the entry from its first byte, `limit` where its header ends.
pub(crate) fn read_name<'a>(
    head: &'a [u8],
    header: &EntryHeader,
    limit: usize,
    offset: usize,
) -> Result<Option<&'a [u8]>> {
    if header.name_offset == 0 {
        return Ok(None);
    }
    let field = offset + 0x20;
    let range = part(header.name_offset, header.name_len.into(), limit, "entry name", field)?;
    Ok(head.get(range))
}

/// Reads the option string; see [`read_name`].
pub(crate) fn read_options<'a>(
    head: &'a [u8],
    header: &EntryHeader,
    limit: usize,
    offset: usize,
) -> Result<Option<&'a [u8]>> {
    if header.options_offset == 0 {
        return Ok(None);
    }
    let at = part(header.options_offset, 8, limit, "entry option descriptor", offset + 0x14)?.start;
    let (string_offset, string_len) = match array::<8>(head, at) {
        Some([a, b, c, d, e, f, g, h]) => {
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
        }
        None => return Err(truncated("entry option descriptor", offset + at, 8, offset + head.len())),
    };
    // CUDA 11.8 writes an all-zero descriptor for empty options.
    if string_offset == 0 && string_len == 0 {
        return Ok(None);
    }
    let range = part(string_offset, string_len.into(), limit, "entry options", offset + at)?;
    Ok(head.get(range))
}

/// A part of the variable header: it lies after the fixed part and inside of the header.
fn part(
    start: u32,
    len: u64,
    limit: usize,
    field: &'static str,
    at: usize,
) -> Result<std::ops::Range<usize>> {
    let start = start as usize;
    if start < raw::ENTRY_HEADER_LEN {
        let rule = "points into the fixed part of the header";
        return Err(bad_value(field, at, start as u64, rule));
    }
    let end = start as u64 + len;
    match usize::try_from(end) {
        Ok(end) if end <= limit => Ok(start..end),
        _ => {
            let kind = ErrorKind::OutOfBounds { end, limit: limit as u64, container: "entry header" };
            Err(Error::new(field, at as u64, kind))
        }
    }
}

/// `start + len`, if that is not beyond `end` of the container.
fn inside(start: usize, len: u64, end: usize, field: &'static str, at: usize) -> Result<usize> {
    let sum = (start as u64).saturating_add(len);
    match usize::try_from(sum) {
        Ok(sum) if sum <= end => Ok(sum),
        _ => {
            let kind = ErrorKind::OutOfBounds { end: sum, limit: end as u64, container: "container" };
            Err(Error::new(field, at as u64, kind))
        }
    }
}

fn bad_value(field: &'static str, offset: usize, found: u64, rule: &'static str) -> Error {
    Error::new(field, offset as u64, ErrorKind::BadValue { found, rule })
}
