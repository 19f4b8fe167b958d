//! One view of any file that may hold device code.

use crate::container::Container;
use crate::cubin;
use crate::entry::Entry;
use crate::error::Result;
use crate::image::ImageKind;
use crate::ptx;
use crate::scan::{FoundContainer, FoundWrapper, Part, scan_file};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A host program, library or object.
    Elf,
    /// A Windows program or library.
    Pe,
    /// An `ar` archive.
    Archive,
    /// A bare container.
    Container,
    /// Machine code for a device.
    Cubin,
    /// PTX text.
    Ptx,
    /// LTO-IR.
    LtoIr,
    /// Tile IR bytecode.
    TileIr,
    /// Anything else; it was scanned for magics.
    Other,
}

impl Format {
    /// What `data` is, by its first bytes; PTX by its whole header, because any text starts like it.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        match ImageKind::of(data) {
            ImageKind::Elf if cubin::is_cubin(data) => Self::Cubin,
            ImageKind::Elf => Self::Elf,
            ImageKind::Pe => Self::Pe,
            ImageKind::Archive => Self::Archive,
            ImageKind::Container => Self::Container,
            ImageKind::Ptx if ptx::scan(data).is_ok() => Self::Ptx,
            ImageKind::LtoIr => Self::LtoIr,
            ImageKind::TileIr => Self::TileIr,
            _ => Self::Other,
        }
    }

    /// Short name, for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Elf => "elf",
            Self::Pe => "pe",
            Self::Archive => "archive",
            Self::Container => "container",
            Self::Cubin => "cubin",
            Self::Ptx => "ptx",
            Self::LtoIr => "lto-ir",
            Self::TileIr => "tile-ir",
            Self::Other => "other",
        }
    }

    /// True for a file that is one image itself, outside of any container.
    #[must_use]
    pub const fn is_image(self) -> bool {
        matches!(self, Self::Cubin | Self::Ptx | Self::LtoIr | Self::TileIr)
    }
}

/// All device code of a file. Borrows the file; images are decompressed when asked for.
#[derive(Debug, Clone)]
pub struct Fatbins<'a> {
    data: &'a [u8],
    format: Format,
    parts: Vec<Part<'a>>,
    /// Of each part: number of a container and number of a wrapper that points to it, sorted.
    wrappers: Vec<Vec<(usize, usize)>>,
}

/// A container of a file, with where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Located<'f, 'a> {
    /// Number of the container in the file.
    pub number: usize,
    /// The file, or the member of an archive, that holds it.
    pub part: &'f Part<'a>,
    /// The container with its offset in the part.
    pub found: &'f FoundContainer<'a>,
    /// Number of the container in its part.
    pub index: usize,
    /// Numbers of container and wrapper, for all wrappers that point here.
    wrappers: &'f [(usize, usize)],
}

impl<'f, 'a> Located<'f, 'a> {
    /// Offset in the file.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.part.offset.saturating_add(self.found.offset)
    }

    /// The container.
    #[must_use]
    pub const fn container(&self) -> Container<'a> {
        self.found.container
    }

    /// The entries up to the first damaged one.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        self.found.container.entries().map_while(Result::ok)
    }

    /// The wrappers that point here, in the order of the file.
    pub fn found_wrappers(&self) -> impl Iterator<Item = &'f FoundWrapper> + use<'f, 'a> {
        let all = &self.part.scan.wrappers;
        self.wrappers.iter().filter_map(|&(_, wrapper)| all.get(wrapper))
    }

    /// Versions of the wrappers that point here.
    pub fn wrappers(&self) -> impl Iterator<Item = u32> + use<'f, 'a> {
        self.found_wrappers().map(|found| found.wrapper.version.number())
    }
}

impl<'a> Fatbins<'a> {
    /// Looks through a file.
    ///
    /// # Errors
    /// As [`scan_file`]: for files whose outer structure cannot be read. Defects inside are in
    /// [`Scan::problems`](crate::Scan::problems) of the parts.
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        let format = Format::of(data);
        let parts = if format.is_image() { Vec::new() } else { scan_file(data)? };
        let wrappers = parts.iter().map(wrappers_by_container).collect();
        Ok(Self { data, format, parts, wrappers })
    }

    /// What the file is.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The image that the file itself is, if it is one.
    #[must_use]
    pub const fn image(&self) -> Option<&'a [u8]> {
        if self.format.is_image() { Some(self.data) } else { None }
    }

    /// The file, or the members of an archive.
    #[must_use]
    pub fn parts(&self) -> &[Part<'a>] {
        &self.parts
    }

    /// All containers, in the order of the file.
    pub fn containers(&self) -> impl Iterator<Item = Located<'_, 'a>> {
        let all = self.parts.iter().zip(&self.wrappers).flat_map(|(part, pairs)| {
            part.scan.containers.iter().enumerate().map(move |(index, found)| {
                let start = pairs.partition_point(|(container, _)| *container < index);
                let end = pairs.partition_point(|(container, _)| *container <= index);
                (part, index, found, pairs.get(start..end).unwrap_or_default())
            })
        });
        all.enumerate().map(|(number, (part, index, found, wrappers))| Located {
            number,
            part,
            found,
            index,
            wrappers,
        })
    }

    /// True if there is no device code in the file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.format.is_image() && self.parts.iter().all(|part| part.scan.containers.is_empty())
    }
}

/// Numbers of container and wrapper, sorted: looking through all wrappers for each container would take forever in a
/// file that is made of them.
fn wrappers_by_container(part: &Part<'_>) -> Vec<(usize, usize)> {
    let wrappers = part.scan.wrappers.iter().enumerate();
    let mut pairs: Vec<_> =
        wrappers.filter_map(|(number, found)| found.container.map(|container| (container, number))).collect();
    pairs.sort_unstable();
    pairs
}
