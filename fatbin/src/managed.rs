//! Managed variables (`__managed__`) of machine code, and the same code with them placed elsewhere.
//!
//! Their symbols have a bit in `st_other`; code, constant banks and initial values get at them by relocations, which the driver
//! applies when it loads the file. Who wants such a variable at an address of its own choice applies those relocations first:
//! then the driver has nothing to do with the variable.
//!
//! Source of the numbers: what `cuobjdump -elf` of CUDA 13.5 calls them in files that nvcc makes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use object::LittleEndian as LE;
use object::elf::{
    ET_REL, FileHeader64, Rel64, Rela64, SHT_NOBITS, SHT_REL, SHT_RELA, SHT_SYMTAB, SectionHeader64, Sym64,
};
use object::pod::slice_from_bytes;
use object::read::SectionIndex;
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym};

use crate::cubin::is_cubin;
use crate::error::{Error, ErrorKind, Result, bad};

type Header = FileHeader64<LE>;

/// Bit of `st_other`: `STO_CUDA_MANAGED`.
const STO_MANAGED: u8 = 0x04;
/// Offsets in `Elf64_Sym` and `Elf64_Shdr`.
const ST_OTHER: usize = 5;
const SH_SIZE: usize = 32;

/// 64 bits: the address.
const R_CUDA_64: u32 = 0x02;
/// 64 bits: the generic address, which for global memory is the address.
const R_CUDA_G64: u32 = 0x04;
/// The low and the high half of the address, in the second word of an instruction of 16 bytes.
const R_CUDA_ABS32_LO_32: u32 = 0x38;
const R_CUDA_ABS32_HI_32: u32 = 0x39;
/// Where that word is.
const IMMEDIATE: u64 = 4;

/// Variables that are believed.
const MAX_VARIABLES: usize = 1 << 16;

/// A managed variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedVariable<'a> {
    /// Name, as the driver finds it.
    pub name: &'a str,
    /// Bytes.
    pub size: u64,
    /// Where in the file its initial value is; none for zeros.
    pub value: Option<Range<usize>>,
}

/// The managed variables of a cubin.
#[derive(Debug)]
pub struct Managed<'a> {
    image: &'a [u8],
    sections: SectionTable<'a, Header>,
    section_table: usize,
    variables: Vec<ManagedVariable<'a>>,
    /// Number of a variable, and place of its entry in the file, by number of its symbol.
    symbols: HashMap<u32, (usize, usize)>,
    /// Where initial values begin in the file, and end.
    values: BTreeMap<usize, usize>,
    relocatable: bool,
}

/// A relocation, of either form.
struct Relocation {
    offset: u64,
    kind: u32,
    symbol: u32,
    /// None where it stands in the place itself.
    addend: Option<i64>,
}

impl<'a> Managed<'a> {
    /// Lists them.
    ///
    /// # Errors
    /// If `image` is no 64-bit CUDA ELF file, or its tables or the values of variables lie outside of it.
    pub fn parse(image: &'a [u8]) -> Result<Self> {
        if !is_cubin(image) {
            return Err(bad("ELF header", 0, "a 64-bit ELF file for CUDA devices"));
        }
        let header = Header::parse(image).map_err(|_| bad("ELF header", 0, "a 64-bit ELF file"))?;
        let sections = header.sections(LE, image).map_err(|_| bad("ELF sections", 40, "a section table"))?;
        let mut managed = Self {
            image,
            sections,
            section_table: usize::try_from(header.e_shoff(LE)).unwrap_or(usize::MAX),
            variables: Vec::new(),
            symbols: HashMap::new(),
            values: BTreeMap::new(),
            relocatable: header.e_type(LE) == ET_REL,
        };
        managed.read_symbols()?;
        Ok(managed)
    }

    /// The variables, in the order of the symbol table.
    #[must_use]
    pub fn variables(&self) -> &[ManagedVariable<'a>] {
        &self.variables
    }

    /// True for code that still has to be linked: [`Managed::place`] refuses it.
    #[must_use]
    pub fn is_relocatable(&self) -> bool {
        self.relocatable
    }

    fn read_symbols(&mut self) -> Result<()> {
        let Some(table) = self.sections.iter().find(|section| section.sh_type(LE) == SHT_SYMTAB) else {
            return Ok(());
        };
        let at = table.sh_offset(LE);
        let symbols = self
            .sections
            .symbols(LE, self.image, SHT_SYMTAB)
            .map_err(|_| bad("ELF symbols", at, "a symbol table"))?;
        for (index, symbol) in symbols.enumerate() {
            if symbol.st_other().0 & STO_MANAGED == 0 || symbol.st_size(LE) == 0 {
                continue;
            }
            // What is declared here and defined elsewhere is nothing to be placed.
            let Ok(Some(section)) = symbols.symbol_section(LE, symbol, index) else { continue };
            let entry = at.saturating_add((index.0 * size_of::<Sym64<LE>>()) as u64);
            if self.variables.len() == MAX_VARIABLES {
                let kind = ErrorKind::TooMany { limit: MAX_VARIABLES as u64 };
                return Err(Error::new("managed variable", entry, kind));
            }
            let name = symbols.symbol_name(LE, symbol).ok().and_then(|name| std::str::from_utf8(name).ok());
            let name = name.ok_or_else(|| bad("managed variable", entry, "a name"))?;
            let value = self.value(section, symbol, entry)?;
            if let Some(value) = &value {
                self.values.insert(value.start, value.end);
            }
            let size = symbol.st_size(LE);
            self.symbols.insert(index.0 as u32, (self.variables.len(), entry as usize));
            self.variables.push(ManagedVariable { name, size, value });
        }
        Ok(())
    }

    fn value(&self, section: SectionIndex, symbol: &Sym64<LE>, entry: u64) -> Result<Option<Range<usize>>> {
        let section = self.section(section, entry)?;
        if section.sh_type(LE) == SHT_NOBITS {
            return Ok(None);
        }
        self.inside(section, symbol.st_value(LE), symbol.st_size(LE), "managed variable").map(Some)
    }

    fn section(&self, index: SectionIndex, at: u64) -> Result<&'a SectionHeader64<LE>> {
        self.sections.section(index).map_err(|_| bad("ELF section number", at, "the number of a section"))
    }

    /// The bytes of the file that are `len` bytes of a section.
    fn inside(
        &self,
        section: &SectionHeader64<LE>,
        offset: u64,
        len: u64,
        what: &'static str,
    ) -> Result<Range<usize>> {
        let base = section.sh_offset(LE);
        let out_of_bounds = |limit| {
            let end = base.saturating_add(offset).saturating_add(len);
            Error::new(what, base, ErrorKind::OutOfBounds { end, limit, container: "ELF section" })
        };
        let size = section.sh_size(LE);
        offset.checked_add(len).filter(|end| *end <= size).ok_or_else(|| out_of_bounds(size))?;
        let limit = self.image.len() as u64;
        let start = base.checked_add(offset);
        let start = start.filter(|start| start.checked_add(len).is_some_and(|end| end <= limit));
        let start = start.ok_or_else(|| out_of_bounds(limit))?;
        Ok(start as usize..(start + len) as usize)
    }

    /// The same code with each variable at the address of the same number: the variables of the file become ordinary ones that
    /// nothing uses. Initial values are then at [`ManagedVariable::value`] in the result.
    ///
    /// # Errors
    /// If there are not as many addresses as variables, the file still has to be linked, it refers to a variable in a way that is not known
    /// here, or a variable's initial value is the address of something else, which only the loader knows.
    pub fn place(&self, addresses: &[u64]) -> Result<Vec<u8>> {
        if addresses.len() != self.variables.len() {
            return Err(bad("addresses", 0, "an address for each managed variable"));
        }
        if self.relocatable {
            return Err(bad("ELF type", 16, "linked code"));
        }
        let mut out = self.image.to_vec();
        for (_, entry) in self.symbols.values() {
            if let Some(other) = entry.checked_add(ST_OTHER).and_then(|at| out.get_mut(at)) {
                *other &= !STO_MANAGED;
            }
        }
        let table = self.sections.iter().find(|section| section.sh_type(LE) == SHT_SYMTAB);
        let table = table.map_or(0, |section| section.sh_offset(LE));
        for (index, section) in self.sections.enumerate() {
            let form = section.sh_type(LE);
            if form == SHT_REL {
                let read = |entry: &Rel64<LE>| Relocation {
                    offset: entry.r_offset.get(LE),
                    kind: entry.r_type(LE).0,
                    symbol: entry.r_sym(LE),
                    addend: None,
                };
                self.relocate::<Rel64<LE>>(&mut out, table, index, section, addresses, read)?;
            } else if form == SHT_RELA {
                let read = |entry: &Rela64<LE>| Relocation {
                    offset: entry.r_offset.get(LE),
                    kind: entry.r_type(LE, false).0,
                    symbol: entry.r_sym(LE, false),
                    addend: Some(entry.r_addend.get(LE)),
                };
                self.relocate::<Rela64<LE>>(&mut out, table, index, section, addresses, read)?;
            }
        }
        Ok(out)
    }

    /// Applies the relocations of one section that name managed variables, and takes them out of it.
    fn relocate<E: object::pod::Pod>(
        &self,
        out: &mut [u8],
        symbol_table: u64,
        index: SectionIndex,
        section: &SectionHeader64<LE>,
        addresses: &[u64],
        read: impl Fn(&E) -> Relocation,
    ) -> Result<()> {
        let at = section.sh_offset(LE);
        let links_to = self.section(SectionIndex(section.sh_link(LE) as usize), at)?;
        if links_to.sh_offset(LE) != symbol_table {
            return Ok(());
        }
        let place = self.inside(section, 0, section.sh_size(LE), "ELF relocations")?;
        let bytes = self.image.get(place.clone()).unwrap_or_default();
        let count = bytes.len() / size_of::<E>();
        let (entries, _) = slice_from_bytes::<E>(bytes, count)
            .map_err(|()| bad("ELF relocations", at, "a table of relocations"))?;
        let target = self.section(SectionIndex(section.sh_info(LE) as usize), at)?;
        let mut kept = 0;
        for (number, entry) in entries.iter().enumerate() {
            let entry_at = at + (number * size_of::<E>()) as u64;
            let relocation = read(entry);
            if let Some((variable, _)) = self.symbols.get(&relocation.symbol) {
                let address = addresses.get(*variable).copied().unwrap_or_default();
                self.apply(out, target, &relocation, address, entry_at)?;
                continue;
            }
            self.refuse_in_values(target, &relocation, entry_at)?;
            let from = place.start + number * size_of::<E>();
            let to = place.start + kept * size_of::<E>();
            if to != from {
                out.copy_within(from..from + size_of::<E>(), to);
            }
            kept += 1;
        }
        if kept < count {
            let size = ((kept * size_of::<E>()) as u64).to_le_bytes();
            let field = self.section_table + index.0 * size_of::<SectionHeader64<LE>>() + SH_SIZE;
            if let Some(field) = out.get_mut(field..field + 8) {
                field.copy_from_slice(&size);
            }
        }
        Ok(())
    }

    fn apply(
        &self,
        out: &mut [u8],
        target: &SectionHeader64<LE>,
        relocation: &Relocation,
        address: u64,
        at: u64,
    ) -> Result<()> {
        let what = "relocation of a managed variable";
        let Relocation { offset, kind, addend, .. } = *relocation;
        match kind {
            R_CUDA_64 | R_CUDA_G64 => {
                let place = self.inside(target, offset, 8, what)?;
                let Some(place) = out.get_mut(place).and_then(|place| place.as_mut_array::<8>()) else {
                    return Ok(());
                };
                let addend = addend.unwrap_or(i64::from_le_bytes(*place));
                *place = address.wrapping_add_signed(addend).to_le_bytes();
            }
            R_CUDA_ABS32_LO_32 | R_CUDA_ABS32_HI_32 => {
                let place = offset.checked_add(IMMEDIATE).ok_or_else(|| bad(what, at, "a place"))?;
                let place = self.inside(target, place, 4, what)?;
                let Some(place) = out.get_mut(place).and_then(|place| place.as_mut_array::<4>()) else {
                    return Ok(());
                };
                if addend.is_none() && *place != [0; 4] {
                    // Half of an addend does not tell what to carry over.
                    return Err(bad(what, at, "no addend in an instruction"));
                }
                let value = address.wrapping_add_signed(addend.unwrap_or(0));
                let half = if kind == R_CUDA_ABS32_LO_32 { value } else { value >> 32 };
                *place = (half as u32).to_le_bytes();
            }
            _ => {
                let kind =
                    ErrorKind::Unsupported { what: "relocation of a managed variable", found: kind.into() };
                return Err(Error::new("relocation type", at, kind));
            }
        }
        Ok(())
    }

    /// A value that is the address of something else is not known before the file is loaded.
    fn refuse_in_values(&self, target: &SectionHeader64<LE>, relocation: &Relocation, at: u64) -> Result<()> {
        let Ok(place) = self.inside(target, relocation.offset, 1, "relocation") else { return Ok(()) };
        let before = self.values.range(..=place.start).next_back();
        if before.is_some_and(|(_, end)| place.start < *end) {
            let what = "managed variable that holds the address of another variable";
            return Err(Error::new(
                "relocation",
                at,
                ErrorKind::Unsupported { what, found: relocation.kind.into() },
            ));
        }
        Ok(())
    }
}
