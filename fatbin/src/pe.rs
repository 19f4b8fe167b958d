//! Windows programs and libraries. Their section names have eight letters: `.nv_fatb` holds containers, `.nvFatBi`
//! wrappers. Pointers in wrappers are absolute addresses for the preferred base of the file.

use goblin::pe::header::Header;

use crate::error::{Error, ErrorKind};
use crate::scan::{FoundSection, Scan, scan_raw};

const CONTAINERS: &str = ".nv_fatb";
const WRAPPERS: &str = ".nvFatBi";
const RELOCATABLE: &str = "__nv_rel";
/// Windows loads no file with more.
const MAX_SECTIONS: usize = 96;

/// Scans a Windows file: its fatbin sections, or all of it if its headers cannot be read.
pub(crate) fn scan_pe(data: &[u8]) -> Scan<'_> {
    let Some((base, sections)) = sections(data) else {
        // `MZ` alone makes no Windows file: no defect to report if nothing is found either.
        let mut scan = scan_raw(data);
        if !scan.containers.is_empty() {
            let kind = ErrorKind::Syntax { expected: "Windows headers; scanned the whole file instead" };
            scan.problem(Error::new("PE header", 0, kind));
        }
        return scan;
    };
    let mut scan = Scan::default();
    let named = |name| sections.iter().filter(move |section: &&Section<'_>| section.name == Some(name));
    for name in [CONTAINERS, RELOCATABLE] {
        for section in named(name) {
            scan.sections.push(section.found(name));
            scan.find_containers(section.content, section.offset, Some(name));
        }
    }
    scan.containers.sort_by_key(|found| found.offset);
    for section in named(WRAPPERS) {
        scan.sections.push(section.found(WRAPPERS));
        scan.find_wrappers(section.content, section.offset, Some(WRAPPERS), |_, stored| {
            if stored == 0 {
                return None;
            }
            let rva = stored.checked_sub(base);
            let offset = rva.and_then(|rva| sections.iter().find_map(|section| section.file_offset(rva)));
            Some((stored, offset))
        });
    }
    scan
}

struct Section<'a> {
    name: Option<&'static str>,
    /// Address relative to the base of the image.
    rva: u64,
    offset: u64,
    content: &'a [u8],
}

impl Section<'_> {
    fn found(&self, name: &'static str) -> FoundSection {
        FoundSection { name, offset: self.offset, size: self.content.len() as u64 }
    }

    fn file_offset(&self, rva: u64) -> Option<u64> {
        let within = rva.checked_sub(self.rva)?;
        if within < self.content.len() as u64 { self.offset.checked_add(within) } else { None }
    }
}

/// Preferred base and sections; `None` if the headers do not make sense.
fn sections(data: &[u8]) -> Option<(u64, Vec<Section<'_>>)> {
    let header = Header::parse(data).ok()?;
    let base = header.optional_header?.windows_fields.image_base;
    // Signature, file header, optional header, then the section table.
    let pe = usize::try_from(header.dos_header.pe_pointer).ok()?;
    let mut at = pe.checked_add(24)?.checked_add(header.coff_header.size_of_optional_header.into())?;
    let table = header.coff_header.sections(data, &mut at).ok()?;
    let mut out: Vec<Section<'_>> = Vec::new();
    for section in table.iter().take(MAX_SECTIONS) {
        let start = section.pointer_to_raw_data as usize;
        // The raw size is padded to the file alignment, the virtual size is exact; either may be the smaller one.
        let size = section.size_of_raw_data.min(section.virtual_size) as usize;
        let end = start.saturating_add(size).min(data.len());
        let Some(content) = data.get(start..end) else { continue };
        let name = [CONTAINERS, WRAPPERS, RELOCATABLE].into_iter().find(|n| n.as_bytes() == section.name);
        // A byte belongs to one section: hostile tables must not multiply the work.
        let overlaps = out.iter().any(|s| {
            name.is_some()
                && s.name.is_some()
                && (start as u64) < s.offset + s.content.len() as u64
                && s.offset < end as u64
        });
        if overlaps {
            continue;
        }
        out.push(Section { name, rva: section.virtual_address.into(), offset: start as u64, content });
    }
    Some((base, out))
}
