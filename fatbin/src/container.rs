//! A container: a 16-byte header and entries back to back, without a terminator.

use crate::bytes::{need, truncated};
use crate::entry::{Entry, ParsedEntry, parse_entry};
use crate::error::{Error, ErrorKind, Result};
use crate::group::GroupImages;
use crate::raw::{self, ContainerHeader};

/// A container in memory. It borrows the bytes; entries are read when asked for.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// Header and as much of the content as is there.
    bytes: &'a [u8],
    header: ContainerHeader,
    declared_len: usize,
}

impl<'a> Container<'a> {
    /// Length in bytes of the container that starts with `header`, this header included.
    ///
    /// For readers that learn the size only from the header, as in the memory of a process.
    ///
    /// # Errors
    /// If magic, version, header size or size break the format, or the length does not fit in a `usize`.
    pub fn total_len(header: &[u8; raw::CONTAINER_HEADER_LEN]) -> Result<usize> {
        check_header(&ContainerHeader::from_bytes(header))
    }

    /// Reads the container at the start of `bytes`; bytes after its end are not looked at.
    ///
    /// # Errors
    /// If the header breaks the format, or `bytes` is shorter than the header says.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let container = Self::parse_truncated(bytes)?;
        if container.is_truncated() {
            let need = container.declared_len as u64;
            return Err(truncated("container", 0, need, bytes.len()));
        }
        Ok(container)
    }

    /// As [`Container::parse`], but accepts a container whose end is cut off: [`Container::is_truncated`] tells, and
    /// [`Container::entries`] ends with an error at the first entry that is not wholly there.
    ///
    /// # Errors
    /// If the header itself is not wholly there or breaks the format.
    pub fn parse_truncated(bytes: &'a [u8]) -> Result<Self> {
        let head = need::<{ raw::CONTAINER_HEADER_LEN }>(bytes, 0, "container header")?;
        let header = ContainerHeader::from_bytes(&head);
        let declared_len = check_header(&header)?;
        let bytes = bytes.get(..declared_len).unwrap_or(bytes);
        Ok(Self { bytes, header, declared_len })
    }

    /// The header as stored.
    #[must_use]
    pub const fn header(&self) -> &ContainerHeader {
        &self.header
    }

    /// Length in bytes that the header declares, header included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.declared_len
    }

    /// True if the container holds no entry at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.header.size == 0
    }

    /// True if fewer bytes are there than declared.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.bytes.len() < self.declared_len
    }

    /// The bytes of the container that are there, header included.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The entries in order; the images of a concatenated group each as an entry of their own. After the first error
    /// the iteration ends, because where the next entry would start is not known.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        Entries { container: *self, pos: self.header.header_size.into(), group: None }
    }

    /// All entries.
    ///
    /// # Errors
    /// The first error of [`Container::entries`].
    pub fn read_entries(&self) -> Result<Vec<Entry<'a>>> {
        self.entries().collect()
    }
}

fn check_header(header: &ContainerHeader) -> Result<usize> {
    let error = |field, offset, kind| Err(Error::new(field, offset, kind));
    if header.magic != raw::CONTAINER_MAGIC {
        return error("container magic", 0, ErrorKind::BadMagic { found: header.magic });
    }
    if header.version != raw::CONTAINER_VERSION {
        let found = header.version.into();
        return error("container version", 4, ErrorKind::Unsupported { what: "container version", found });
    }
    let header_size = usize::from(header.header_size);
    if header_size < raw::CONTAINER_HEADER_LEN || !header_size.is_multiple_of(8) {
        let rule = "is not a multiple of 8 of at least 16";
        return error("container header size", 6, ErrorKind::BadValue { found: header_size as u64, rule });
    }
    if !header.size.is_multiple_of(8) {
        let rule = "is not a multiple of 8";
        return error("container size", 8, ErrorKind::BadValue { found: header.size, rule });
    }
    // Half of the address space is the most that a slice can have.
    match usize::try_from(header.size).ok().and_then(|size| size.checked_add(header_size)) {
        Some(len) if isize::try_from(len).is_ok() => Ok(len),
        _ => error(
            "container size",
            8,
            ErrorKind::BadValue { found: header.size, rule: "is more than an address space holds" },
        ),
    }
}

/// Iterator of [`Container::entries`].
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    container: Container<'a>,
    /// Where the next entry starts; the declared length when all is read or after an error.
    pos: usize,
    group: Option<GroupImages<'a>>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(group) = &mut self.group {
                match group.next() {
                    Some(entry) => return Some(Ok(entry)),
                    None => self.group = None,
                }
            }
            if self.pos >= self.container.declared_len {
                return None;
            }
            match parse_entry(&self.container, self.pos) {
                Ok((parsed, next)) => {
                    self.pos = next;
                    match parsed {
                        ParsedEntry::Single(entry) => return Some(Ok(entry)),
                        ParsedEntry::Group(images) => self.group = Some(images),
                    }
                }
                Err(error) => {
                    self.pos = self.container.declared_len;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for Entries<'_> {}
