//! Finds wrappers and containers in files: host ELF files with or without sections, objects, archives, bare containers.

use object::LittleEndian as LE;
use object::elf::{
    DT_RELA, DT_RELASZ, ET_REL, FileHeader64, PT_LOAD, ProgramHeader64, R_X86_64_64, R_X86_64_RELATIVE,
    Rela64,
};
use object::pod;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rela, SectionHeader, SectionTable, Sym};
use object::{SectionIndex, SymbolIndex};

use crate::archive;
use crate::bytes::{array, u32_at};
use crate::container::Container;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageKind;
use crate::raw;
use crate::wrapper::Wrapper;

type Header = FileHeader64<LE>;

const CONTAINER_SECTIONS: [&str; 2] = [".nv_fatbin", "__nv_relfatbin"];
const WRAPPER_SECTIONS: [&str; 2] = [".nvFatBinSegment", ".nvFatBinSegmentAlt"];
/// Problems kept; a hostile file could have one for every 8 bytes.
const MAX_PROBLEMS: usize = 100;
/// Fatbin sections looked at; a linked file has one of each name.
const MAX_SECTIONS: usize = 1024;
/// Loadable segments looked at; linkers make a handful.
const MAX_SEGMENTS: usize = 256;
/// Entries that a search of any file may read.
const MIN_ENTRIES_READ: usize = 1 << 16;
/// Offset of the container pointer in a wrapper.
const WRAPPER_POINTER: u64 = 8;

/// What was found in one file (or one member of an archive). Offsets count from the start of that file.
#[derive(Debug, Clone, Default)]
pub struct Scan<'a> {
    /// Containers, in the order of the file.
    pub containers: Vec<FoundContainer<'a>>,
    /// Wrappers, in the order of the file.
    pub wrappers: Vec<FoundWrapper>,
    /// Sections for device code, in the order of the file; none if the file has no section table.
    pub sections: Vec<FoundSection>,
    /// Defects that did not stop the scan; the first 100.
    pub problems: Vec<Error>,
}

/// A section for device code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundSection {
    /// Name.
    pub name: &'static str,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes that are there.
    pub size: u64,
}

/// A container in a file.
#[derive(Debug, Clone, Copy)]
pub struct FoundContainer<'a> {
    /// Offset in the file.
    pub offset: u64,
    /// Section it lies in, if the file has sections.
    pub section: Option<&'static str>,
    /// The container; [`Container::is_truncated`] may be true.
    pub container: Container<'a>,
}

/// A wrapper in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundWrapper {
    /// Offset in the file.
    pub offset: u64,
    /// Section it lies in, if the file has sections.
    pub section: Option<&'static str>,
    /// The wrapper as stored, with relocations applied to its container address where the file is linked.
    pub wrapper: Wrapper,
    /// Its container's place in [`Scan::containers`].
    pub container: Option<usize>,
}

/// One file, or one member of an archive.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// Name of the archive member.
    pub member: Option<&'a str>,
    /// Offset of the member in the archive.
    pub offset: u64,
    /// What it holds.
    pub scan: Scan<'a>,
}

/// Scans a file of any kind: archives member by member, ELF files and (with the feature `files`) Windows files by their
/// sections, everything else for magics.
///
/// # Errors
/// If an ELF file is not 64-bit little-endian, or an archive is damaged. Damage inside of what was found is in
/// [`Scan::problems`] instead.
pub fn scan_file(data: &[u8]) -> Result<Vec<Part<'_>>> {
    match ImageKind::of(data) {
        ImageKind::Archive => archive::members(data)
            .map(|member| {
                let member = member?;
                let scan = match ImageKind::of(member.data) {
                    ImageKind::Elf => scan_elf(member.data).map_err(|e| e.moved(member.offset))?,
                    ImageKind::Container => scan_raw(member.data),
                    _ => Scan::default(),
                };
                Ok(Part { member: Some(member.name), offset: member.offset, scan })
            })
            .collect(),
        ImageKind::Elf => Ok(vec![Part { member: None, offset: 0, scan: scan_elf(data)? }]),
        #[cfg(feature = "files")]
        ImageKind::Pe => Ok(vec![Part { member: None, offset: 0, scan: crate::pe::scan_pe(data) }]),
        _ => Ok(vec![Part { member: None, offset: 0, scan: scan_raw(data) }]),
    }
}

/// Scans bytes of unknown structure for both magics, in steps of 8.
#[must_use]
pub fn scan_raw(data: &[u8]) -> Scan<'_> {
    let mut scan = Scan::default();
    scan.find_containers(data, 0, None);
    scan.find_wrappers(data, 0, None, |_, _| None);
    scan
}

/// Scans an ELF file: its fatbin sections; all of it if it has no section table; and if it is linked and has no such
/// section, all of it for containers in other data.
///
/// # Errors
/// If it is no 64-bit little-endian ELF file.
pub fn scan_elf(data: &[u8]) -> Result<Scan<'_>> {
    let header = Header::parse(data).map_err(|_| {
        let kind = ErrorKind::Syntax { expected: "a 64-bit ELF file" };
        Error::new("ELF header", 0, kind)
    })?;
    if header.is_big_endian() {
        let kind = ErrorKind::Unsupported { what: "byte order", found: header.e_ident.data.0.into() };
        return Err(Error::new("ELF byte order", 5, kind));
    }
    let mut scan = Scan::default();
    let sections = match header.sections(LE, data) {
        Ok(sections) => sections,
        Err(_) => {
            let kind = ErrorKind::Syntax { expected: "a section table; scanned the whole file instead" };
            scan.problem(Error::new("ELF section table", header.e_shoff(LE), kind));
            SectionTable::default()
        }
    };
    let image = Linked::new(header, data);
    if sections.is_empty() {
        scan.find_containers(data, 0, None);
        scan.find_wrappers(data, 0, None, |offset, stored| image.container_of(offset, stored));
        return Ok(scan);
    }
    for Named { name, offset, content, .. } in named(&sections, data, &CONTAINER_SECTIONS, &mut scan) {
        scan.sections.push(FoundSection { name, offset, size: content.len() as u64 });
        scan.find_containers(content, offset, Some(name));
    }
    // Relocation sections that do not overlap hold less than the file.
    let mut budget = data.len() / size_of::<Rela64<LE>>();
    for Named { index, name, offset, content } in named(&sections, data, &WRAPPER_SECTIONS, &mut scan) {
        scan.sections.push(FoundSection { name, offset, size: content.len() as u64 });
        if header.e_type(LE) == ET_REL {
            let targets = object_relocations(&sections, data, index, &mut budget);
            scan.find_wrappers(content, offset, Some(name), |at, _| {
                let place = at.checked_sub(offset)?;
                Some((0, Some(lookup(&targets, place)?)))
            });
        } else {
            scan.find_wrappers(content, offset, Some(name), |at, stored| image.container_of(at, stored));
        }
    }
    if scan.containers.is_empty() && scan.sections.is_empty() && header.e_type(LE) != ET_REL {
        scan.find_embedded(data);
    }
    Ok(scan)
}

/// A section by name.
struct Named<'a> {
    index: SectionIndex,
    name: &'static str,
    /// Offset in the file.
    offset: u64,
    content: &'a [u8],
}

/// Sections with one of the names, in the order of the file and without overlap, so that no byte is scanned twice.
fn named<'a>(
    sections: &SectionTable<'a, Header>,
    data: &'a [u8],
    names: &[&'static str],
    scan: &mut Scan<'a>,
) -> Vec<Named<'a>> {
    let mut found = Vec::new();
    for (index, section) in sections.enumerate() {
        let Ok(bytes) = sections.section_name(LE, section) else { continue };
        let Some(&name) = names.iter().find(|name| name.as_bytes() == bytes) else { continue };
        let offset = section.sh_offset(LE);
        if found.len() == MAX_SECTIONS {
            let kind = ErrorKind::TooLarge { size: found.len() as u64 + 1, limit: MAX_SECTIONS as u64 };
            scan.problem(Error::new("number of fatbin sections", offset, kind));
            break;
        }
        if let Ok(content) = section.data(LE, data) {
            found.push(Named { index, name, offset, content });
            continue;
        }
        // Cut off: what is there of it may still hold whole containers.
        let end = offset.saturating_add(section.sh_size(LE));
        let kind = ErrorKind::OutOfBounds { end, limit: data.len() as u64, container: "file" };
        scan.problem(Error::new("fatbin section", offset, kind));
        if let Some(content) = usize::try_from(offset).ok().and_then(|start| data.get(start..)) {
            found.push(Named { index, name, offset, content });
        }
    }
    found.sort_by_key(|section| section.offset);
    let mut end = 0;
    found.retain(|section| {
        let overlaps = section.offset < end;
        if overlaps {
            let kind = ErrorKind::BadValue { found: section.offset, rule: "overlaps another section" };
            scan.problem(Error::new("fatbin section", section.offset, kind));
        } else {
            end = section.offset + section.content.len() as u64;
        }
        !overlaps
    });
    found
}

impl<'a> Scan<'a> {
    pub(crate) fn problem(&mut self, error: Error) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(error);
        }
    }

    /// Walks `region`, which lies at `base` of the file, in steps of 8.
    pub(crate) fn find_containers(&mut self, region: &'a [u8], base: u64, section: Option<&'static str>) {
        let mut pos = 0;
        while let Some(word) = u32_at(region, pos) {
            if word != raw::CONTAINER_MAGIC {
                pos += 8;
                continue;
            }
            let offset = base.saturating_add(pos as u64);
            let rest = region.get(pos..).unwrap_or_default();
            match Container::parse_truncated(rest) {
                Ok(container) => {
                    self.containers.push(FoundContainer { offset, section, container });
                    if container.is_truncated() {
                        let need = container.len() as u64;
                        let have = rest.len() as u64;
                        let kind = ErrorKind::Truncated { need, have };
                        self.problem(Error::new("container", offset, kind));
                    }
                    pos += end_of_content(&container);
                }
                Err(error) => {
                    self.problem(error.moved(offset));
                    pos += 8;
                }
            }
        }
    }

    /// Looks for containers among other data (cuFFT has them in `.data`). Only what is whole to its last entry counts:
    /// the magic alone may be there by chance, and is no defect.
    fn find_embedded(&mut self, data: &'a [u8]) {
        let mut pos = 0;
        // Every entry belongs to one container. Containers inside of each other, none of them whole, would be read
        // over and over again.
        let mut budget = MIN_ENTRIES_READ.saturating_add(2 * data.len() / raw::ENTRY_HEADER_LEN);
        while let Some(word) = u32_at(data, pos) {
            let rest = data.get(pos..).unwrap_or_default();
            let whole = (word == raw::CONTAINER_MAGIC).then(|| Container::parse(rest).ok()).flatten();
            let whole = whole.filter(|container| {
                let is_good = |entry: Result<Entry<'_>>| {
                    budget = budget.saturating_sub(1);
                    entry.is_ok() && budget > 0
                };
                !container.is_empty() && container.entries().all(is_good)
            });
            if budget == 0 {
                let kind = ErrorKind::Syntax { expected: "containers that do not lie inside of each other" };
                self.problem(Error::new("container", pos as u64, kind));
                return;
            }
            match whole {
                Some(container) => {
                    self.containers.push(FoundContainer { offset: pos as u64, section: None, container });
                    pos += container.len();
                }
                None => pos += 8,
            }
        }
    }

    /// Walks `region` for wrappers. `target(offset, stored)` gives the container address of the wrapper at `offset` of
    /// the file (its stored value being `stored`), and the file offset that stands for it.
    pub(crate) fn find_wrappers(
        &mut self,
        region: &'a [u8],
        base: u64,
        section: Option<&'static str>,
        target: impl Fn(u64, u64) -> Option<(u64, Option<u64>)>,
    ) {
        let mut pos = 0;
        while let Some(word) = u32_at(region, pos) {
            let offset = base.saturating_add(pos as u64);
            let bytes = array::<{ raw::WRAPPER_LEN }>(region, pos);
            if word != raw::WRAPPER_MAGIC {
                pos += 8;
                continue;
            }
            match bytes.as_ref().map(Wrapper::parse) {
                Some(Ok(mut wrapper)) => {
                    let mut container = None;
                    if let Some((address, file_offset)) =
                        target(offset.saturating_add(WRAPPER_POINTER), wrapper.container)
                    {
                        wrapper.container = address;
                        let place = file_offset
                            .map(|at| self.containers.binary_search_by_key(&at, |found| found.offset));
                        match place {
                            Some(Ok(index)) => container = Some(index),
                            _ => {
                                let rule = "is no container's address";
                                let kind = ErrorKind::BadValue { found: address, rule };
                                self.problem(Error::new("wrapper container", offset + WRAPPER_POINTER, kind));
                            }
                        }
                    }
                    self.wrappers.push(FoundWrapper { offset, section, wrapper, container });
                    pos += raw::WRAPPER_LEN;
                }
                Some(Err(error)) => {
                    self.problem(error.moved(offset));
                    pos += 8;
                }
                None => {
                    let have = (region.len() - pos) as u64;
                    let kind = ErrorKind::Truncated { need: raw::WRAPPER_LEN as u64, have };
                    self.problem(Error::new("wrapper", offset, kind));
                    return;
                }
            }
        }
    }
}

/// Where to go on after a container. A truncated one may have lied about its size: only entries that are whole are
/// believed, so that containers after it are found too.
fn end_of_content(container: &Container<'_>) -> usize {
    if !container.is_truncated() {
        return container.len();
    }
    let entries = container.entries().map_while(Result::ok);
    let end = entries.map(|entry| entry.payload_offset() + entry.payload().len()).max();
    end.unwrap_or(raw::CONTAINER_HEADER_LEN).next_multiple_of(8)
}

/// Value of `place` in pairs that are sorted by place.
fn lookup(pairs: &[(u64, u64)], place: u64) -> Option<u64> {
    let index = pairs.binary_search_by_key(&place, |(at, _)| *at).ok()?;
    pairs.get(index).map(|(_, value)| *value)
}

/// Addresses of a linked file.
struct Linked<'a> {
    data: &'a [u8],
    segments: Vec<&'a ProgramHeader64<LE>>,
    /// Address and addend of the relative relocations, sorted.
    relocations: Vec<(u64, u64)>,
}

impl<'a> Linked<'a> {
    fn new(header: &'a Header, data: &'a [u8]) -> Self {
        let headers = header.program_headers(LE, data).unwrap_or_default();
        let segments = headers.iter().filter(|s| s.p_type(LE) == PT_LOAD).take(MAX_SEGMENTS).collect();
        let mut image = Self { data, segments, relocations: Vec::new() };
        image.relocations = image.find_relocations(headers).unwrap_or_default();
        image
    }

    /// `DT_RELA`, which is there with and without a section table.
    fn find_relocations(&self, headers: &'a [ProgramHeader64<LE>]) -> Option<Vec<(u64, u64)>> {
        let dynamic = headers.iter().find_map(|s| s.dynamic(LE, self.data).ok().flatten())?;
        let value = |tag| dynamic.iter().find(|d| d.tag(LE) == tag).map(|d| d.val(LE));
        let start = usize::try_from(self.file_offset(value(DT_RELA)?)?).ok()?;
        let size = usize::try_from(value(DT_RELASZ)?).ok()?;
        let bytes = self.data.get(start..start.checked_add(size)?)?;
        let (relocations, _) =
            pod::slice_from_bytes::<Rela64<LE>>(bytes, size / size_of::<Rela64<LE>>()).ok()?;
        let relative = relocations.iter().filter(|r| r.r_type(LE, false) == R_X86_64_RELATIVE);
        let mut pairs: Vec<_> = relative.map(|r| (r.r_offset(LE), r.r_addend(LE) as u64)).collect();
        pairs.sort_unstable();
        Some(pairs)
    }

    fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|s| {
            let within = address.checked_sub(s.p_vaddr(LE))?;
            if within < s.p_filesz(LE) { s.p_offset(LE).checked_add(within) } else { None }
        })
    }

    fn address(&self, file_offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|s| {
            let within = file_offset.checked_sub(s.p_offset(LE))?;
            if within < s.p_filesz(LE) { s.p_vaddr(LE).checked_add(within) } else { None }
        })
    }

    /// Address of a container and its file offset, for the pointer at `offset` of the file whose bytes say `stored`.
    /// The relocation counts where there is one: not every linker leaves the value in the bytes.
    fn container_of(&self, offset: u64, stored: u64) -> Option<(u64, Option<u64>)> {
        let relocated = self.address(offset).and_then(|place| lookup(&self.relocations, place));
        let address = relocated.unwrap_or(stored);
        if address == 0 { None } else { Some((address, self.file_offset(address))) }
    }
}

/// Of a relocatable object: offset in section `target` and file offset that the pointer there gets, sorted. No more
/// than `budget` relocations are read.
fn object_relocations(
    sections: &SectionTable<'_, Header>,
    data: &[u8],
    target: SectionIndex,
    budget: &mut usize,
) -> Vec<(u64, u64)> {
    let mut pairs = Vec::new();
    let of_target = |s: &&_| SectionHeader::sh_info(*s, LE) as usize == target.0;
    // One relocation section per section is what linkers make.
    let Some(Ok(Some((relocations, link)))) = sections
        .iter()
        .filter(of_target)
        .map(|section| section.rela(LE, data))
        .find(|rela| matches!(rela, Ok(Some(_))))
    else {
        return pairs;
    };
    let Ok(symbols) = sections.symbol_table_by_index(LE, data, link) else { return pairs };
    let relocations = relocations.get(..*budget).unwrap_or(relocations);
    *budget -= relocations.len();
    for relocation in relocations.iter().filter(|r| r.r_type(LE, false) == R_X86_64_64) {
        let index = SymbolIndex(relocation.r_sym(LE, false) as usize);
        let Ok(symbol) = symbols.symbol(index) else { continue };
        let Ok(Some(of)) = symbols.symbol_section(LE, symbol, index) else { continue };
        let Ok(section) = sections.section(of) else { continue };
        let addend = relocation.r_addend(LE) as u64;
        let at = section.sh_offset(LE).wrapping_add(symbol.st_value(LE)).wrapping_add(addend);
        pairs.push((relocation.r_offset(LE), at));
    }
    pairs.sort_unstable();
    pairs
}
