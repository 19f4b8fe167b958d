//! Machine code: ELF files for `EM_CUDA`, their kernels and the layout of kernel parameters.
//!
//! Two conventions exist, told apart by `EI_ABIVERSION`: 7 (up to CUDA 12) and 8 (CUDA 13).

use std::collections::HashMap;

use object::LittleEndian as LE;
use object::elf::{EM_CUDA, ET_REL, FileHeader64, SHT_SYMTAB, STT_FUNC, SectionHeader64, Sym64};
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym};

use crate::bytes::{array, u32_at};
use crate::entry::{Arch, Variant};
use crate::error::{Error, ErrorKind, Result, bad};
use crate::nv_info::{self, Attribute};

type Header = FileHeader64<LE>;

/// A cubin: machine code for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cubin<'a> {
    /// `EI_ABIVERSION`: 7 or 8.
    pub abi: u8,
    /// Architecture. The variant is known only if the file has a `.nv.compat` section that says so; trust the flags
    /// of the fatbin entry more.
    pub arch: Arch,
    /// Architecture of the PTX it was compiled from; ABI 7 only.
    pub virtual_sm: Option<u32>,
    /// `e_flags` as stored.
    pub e_flags: u32,
    /// True for code that still has to be linked (`-rdc=true`).
    pub relocatable: bool,
    /// CUDA version of the toolkit, as major * 10 + minor: 118, 124, 135.
    pub toolkit: Option<u32>,
    /// Kernels, in the order of the symbol table.
    pub kernels: Vec<Kernel<'a>>,
}

/// A kernel in a [`Cubin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel<'a> {
    /// Name, mangled.
    pub name: &'a str,
    /// Parameters, in order.
    pub params: Vec<Param>,
    /// Bytes of the parameter buffer, without padding at its end.
    pub param_size: u32,
    /// Offset of the parameters in constant bank 0.
    pub param_base: Option<u32>,
    /// Registers per thread.
    pub registers: Option<u32>,
    /// Limit of registers that the kernel was compiled with.
    pub max_registers: Option<u32>,
    /// Launch bounds: most threads per block, in each dimension.
    pub max_threads: Option<[u32; 3]>,
    /// Threads per block that a launch must have.
    pub required_threads: Option<[u32; 3]>,
    /// Bytes of static shared memory per block.
    pub shared_size: u64,
    /// Bytes of local memory per thread for the kernel's own frame.
    pub frame_size: Option<u32>,
    /// Bytes of stack per thread that the call tree needs, [`STACK_UNKNOWN`] if it recurses.
    pub min_stack: Option<u32>,
    /// Bytes of constant memory of its own: bank 0 with the parameters, and tables that the compiler made.
    pub constant_size: u64,
    /// Barriers that it uses (`bar.sync`). Files of CUDA 13 say it of kernels alone that use some.
    pub barriers: Option<u32>,
    /// Bytes of machine code.
    pub code_size: u64,
}

/// What compilers say of the stack of a call tree that recurses: it has no size known to them.
pub const STACK_UNKNOWN: u32 = u32::MAX;

impl Kernel<'_> {
    /// Bytes of stack per thread for the kernel and all that it calls; none if the file does not say, or the compiler did not know.
    pub fn stack_size(&self) -> Option<u32> {
        if self.min_stack == Some(STACK_UNKNOWN) { None } else { self.min_stack.max(self.frame_size) }
    }
}

/// A kernel parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Position in the argument list.
    pub ordinal: u16,
    /// Offset in the parameter buffer.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
}

const ABI_CUDA12: u8 = 7;
const ABI_CUDA13: u8 = 8;
const SHT_NV_INFO: u32 = 0x7000_0000;
/// Bit of `st_other` that kernels have and device functions lack.
const STO_KERNEL: u8 = 0x10;
/// Where the section flags of `.text.<kernel>` count the barriers, up to CUDA 12.
const SHF_BARRIERS_SHIFT: u32 = 20;
const SHF_BARRIERS_MASK: u64 = 0x7f;
/// Kernels that are believed; a symbol takes fewer bytes than what is kept of a kernel.
pub(crate) const MAX_KERNELS: usize = 1 << 20;

/// True if `image` starts with the header of a 64-bit ELF file for CUDA devices.
#[must_use]
pub fn is_cubin(image: &[u8]) -> bool {
    Header::parse(image).is_ok_and(|header| header.e_machine(LE) == EM_CUDA)
}

impl<'a> Cubin<'a> {
    /// Reads a cubin.
    ///
    /// # Errors
    /// If `image` is no 64-bit CUDA ELF file of a known ABI, its tables lie outside of it, or its `.nv.info`
    /// records contradict each other.
    pub fn parse(image: &'a [u8]) -> Result<Self> {
        let header = Header::parse(image).map_err(|_| bad("ELF header", 0, "a 64-bit ELF file"))?;
        let machine = header.e_machine(LE).0;
        if machine != EM_CUDA.0 {
            let kind = ErrorKind::Unsupported { what: "machine: no CUDA device", found: machine.into() };
            return Err(Error::new("ELF machine", 18, kind));
        }
        let abi = header.e_ident.abi_version;
        let e_flags = header.e_flags(LE).0;
        let (sm, virtual_sm) = match abi {
            ABI_CUDA12 => ((e_flags >> 16) & 0xff, Some(e_flags & 0xff)),
            ABI_CUDA13 => ((e_flags >> 8) & 0xff, None),
            _ => {
                let kind = ErrorKind::Unsupported { what: "cubin ABI", found: abi.into() };
                return Err(Error::new("ELF ABI version", 8, kind));
            }
        };
        let sections = header.sections(LE, image).map_err(|_| bad("ELF sections", 40, "a section table"))?;
        let mut reader = Reader::new(image, &sections)?;
        reader.read_sections(abi)?;
        let Reader { variant, toolkit, kernels, .. } = reader;
        Ok(Self {
            abi,
            arch: Arch { sm, variant },
            virtual_sm,
            e_flags,
            relocatable: header.e_type(LE) == ET_REL,
            toolkit,
            kernels,
        })
    }
}

struct Reader<'a, 's> {
    image: &'a [u8],
    sections: &'s SectionTable<'a, Header>,
    kernels: Vec<Kernel<'a>>,
    /// Number of a kernel by the number of its `.text` section, and by that of its symbol.
    by_text: HashMap<u32, usize>,
    by_symbol: HashMap<u32, usize>,
    toolkit: Option<u32>,
    variant: Variant,
    /// Bytes of records left to read: sections that do not overlap hold less than the file. Bounds the work.
    budget: usize,
}

impl<'a, 's> Reader<'a, 's> {
    fn new(image: &'a [u8], sections: &'s SectionTable<'a, Header>) -> Result<Self> {
        let mut reader = Self {
            image,
            sections,
            kernels: Vec::new(),
            by_text: HashMap::new(),
            by_symbol: HashMap::new(),
            toolkit: None,
            variant: Variant::Generic,
            budget: image.len(),
        };
        let table = sections.iter().find(|section| section.sh_type(LE) == SHT_SYMTAB);
        let table = table.map_or(0, |section| section.sh_offset(LE));
        let symbols = sections
            .symbols(LE, image, SHT_SYMTAB)
            .map_err(|_| bad("ELF symbols", table, "a symbol table"))?;
        for (index, symbol) in symbols.enumerate() {
            if !is_kernel(symbol) {
                continue;
            }
            let name = symbols.symbol_name(LE, symbol).ok().and_then(|name| std::str::from_utf8(name).ok());
            let at = table.saturating_add((index.0 * size_of::<Sym64<LE>>()) as u64);
            let name = name.ok_or_else(|| bad("kernel symbol", at, "a name"))?;
            let number = reader.kernels.len();
            if number == MAX_KERNELS {
                let kind = ErrorKind::TooMany { limit: MAX_KERNELS as u64 };
                return Err(Error::new("kernel symbol", at, kind));
            }
            let Ok(Some(text)) = symbols.symbol_section(LE, symbol, index) else { continue };
            reader.kernels.push(Kernel::new(name));
            reader.by_text.insert(text.0 as u32, number);
            reader.by_symbol.insert(index.0 as u32, number);
        }
        Ok(reader)
    }

    fn read_sections(&mut self, abi: u8) -> Result<()> {
        for (index, section) in self.sections.enumerate() {
            let own = self.by_text.get(&(index.0 as u32)).copied();
            if let Some(kernel) = own.and_then(|k| self.kernels.get_mut(k)) {
                kernel.code_size = section.sh_size(LE);
                if abi == ABI_CUDA12 {
                    let count = (section.sh_flags(LE).0 >> SHF_BARRIERS_SHIFT) & SHF_BARRIERS_MASK;
                    kernel.barriers = Some(count as u32);
                }
            }
            let name = self.sections.section_name(LE, section).unwrap_or_default();
            let kernel = self.by_text.get(&section.sh_info(LE)).copied();
            match name {
                b".nv.info" if is_info(section) => self.read_global(section)?,
                b".nv.compat" => self.read_compat(section)?,
                // Copies of these sections for newer devices have another type.
                _ if name.starts_with(b".nv.info.") && is_info(section) => {
                    if let Some(kernel) = kernel {
                        self.read_kernel(section, kernel)?;
                    }
                }
                _ if name.starts_with(b".nv.shared.") => {
                    if let Some(kernel) = kernel.and_then(|k| self.kernels.get_mut(k)) {
                        kernel.shared_size = section.sh_size(LE);
                    }
                }
                _ if name.starts_with(b".nv.constant") => {
                    if let Some(kernel) = kernel.and_then(|k| self.kernels.get_mut(k)) {
                        kernel.constant_size = kernel.constant_size.saturating_add(section.sh_size(LE));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn data(&mut self, section: &SectionHeader64<LE>) -> Result<(&'a [u8], u64)> {
        let offset = section.sh_offset(LE);
        let out_of_bounds = || {
            let end = offset.saturating_add(section.sh_size(LE));
            let kind = ErrorKind::OutOfBounds { end, limit: self.image.len() as u64, container: "ELF file" };
            Error::new("ELF section", offset, kind)
        };
        let data = section.data(LE, self.image).map_err(|_| out_of_bounds())?;
        self.budget = self.budget.checked_sub(data.len()).ok_or_else(|| {
            let kind = ErrorKind::BadValue { found: offset, rule: "overlaps other sections" };
            Error::new("ELF section", offset, kind)
        })?;
        Ok((data, offset))
    }

    /// `.nv.info`: values of one symbol each.
    fn read_global(&mut self, section: &SectionHeader64<LE>) -> Result<()> {
        let (data, base) = self.data(section)?;
        for record in nv_info::records(data) {
            let record = record.map_err(|e| e.moved(base))?;
            let (Some(symbol), Some(value)) = (u32_at(record.payload, 0), u32_at(record.payload, 4)) else {
                continue;
            };
            let Some(kernel) = self.by_symbol.get(&symbol).and_then(|&k| self.kernels.get_mut(k)) else {
                continue;
            };
            match record.attribute {
                Attribute::RegCount => kernel.registers = Some(value),
                Attribute::FrameSize => kernel.frame_size = Some(value),
                Attribute::MinStackSize => kernel.min_stack = Some(value),
                _ => {}
            }
        }
        Ok(())
    }

    /// `.nv.compat`: the one known attribute tells the `a` variant.
    fn read_compat(&mut self, section: &SectionHeader64<LE>) -> Result<()> {
        let (data, base) = self.data(section)?;
        for record in nv_info::records(data) {
            let record = record.map_err(|e| e.moved(base))?;
            if record.raw_attribute == nv_info::COMPAT_VARIANT && record.value == 1 {
                self.variant = Variant::Specific;
            }
        }
        Ok(())
    }

    /// `.nv.info.<kernel>`.
    fn read_kernel(&mut self, section: &SectionHeader64<LE>, number: usize) -> Result<()> {
        let (data, base) = self.data(section)?;
        let Some(kernel) = self.kernels.get_mut(number) else { return Ok(()) };
        let mut declared_size = None;
        for record in nv_info::records(data) {
            let record = record.map_err(|e| e.moved(base))?;
            let payload = record.payload;
            let short = || {
                let kind = ErrorKind::BadValue { found: payload.len() as u64, rule: "is too short" };
                Error::new(".nv.info record length", base + record.offset as u64, kind)
            };
            match record.attribute {
                Attribute::KparamInfo => kernel.params.push(param_v1(payload).ok_or_else(short)?),
                Attribute::KparamInfoV2 => kernel.params.push(param_v2(payload).ok_or_else(short)?),
                Attribute::CbankParamSize => declared_size = Some(u32::from(record.value)),
                Attribute::ParamCbank => {
                    let [_, _, _, _, lo, hi] = array::<6>(payload, 0).ok_or_else(short)?;
                    kernel.param_base = Some(u16::from_le_bytes([lo, hi]).into());
                }
                Attribute::MaxThreads => kernel.max_threads = Some(threads(payload).ok_or_else(short)?),
                Attribute::ReqNtid => kernel.required_threads = Some(threads(payload).ok_or_else(short)?),
                Attribute::MaxRegCount => kernel.max_registers = Some(record.value.into()),
                Attribute::NumBarriers => kernel.barriers = Some(record.value.into()),
                Attribute::CudaApiVersion => self.toolkit = Some(u32_at(payload, 0).ok_or_else(short)?),
                _ => {}
            }
        }
        kernel.check_params(declared_size, base)
    }
}

impl<'a> Kernel<'a> {
    fn new(name: &'a str) -> Self {
        Self {
            name,
            params: Vec::new(),
            param_size: 0,
            param_base: None,
            registers: None,
            max_registers: None,
            max_threads: None,
            required_threads: None,
            shared_size: 0,
            frame_size: None,
            min_stack: None,
            constant_size: 0,
            barriers: None,
            code_size: 0,
        }
    }

    /// Sorts the parameters (stored last to first) and checks that none is missing, given twice, or outside of the
    /// buffer: a launch copies memory by these numbers.
    fn check_params(&mut self, declared_size: Option<u32>, offset: u64) -> Result<()> {
        self.params.sort_unstable_by_key(|p| p.ordinal);
        let mut end = 0;
        for (expected, param) in self.params.iter().enumerate() {
            if usize::from(param.ordinal) != expected {
                let rule = "is given twice, or one before it is missing";
                let kind = ErrorKind::BadValue { found: param.ordinal.into(), rule };
                return Err(Error::new("kernel parameter number", offset, kind));
            }
            if param.offset < end {
                let rule = "overlaps the parameter before it";
                let kind = ErrorKind::BadValue { found: param.offset.into(), rule };
                return Err(Error::new("kernel parameter offset", offset, kind));
            }
            end = param.offset + param.size;
        }
        self.param_size = declared_size.unwrap_or(end);
        if end > self.param_size {
            let kind = ErrorKind::OutOfBounds {
                end: end.into(),
                limit: self.param_size.into(),
                container: "parameter buffer",
            };
            return Err(Error::new("kernel parameter", offset, kind));
        }
        Ok(())
    }
}

fn is_kernel(symbol: &Sym64<LE>) -> bool {
    symbol.st_type() == STT_FUNC && symbol.st_other().0 & STO_KERNEL != 0
}

fn is_info(section: &SectionHeader64<LE>) -> bool {
    section.sh_type(LE).0 == SHT_NV_INFO
}

fn param_v1(payload: &[u8]) -> Option<Param> {
    let (ordinal, offset) = param_head(payload)?;
    Some(Param { ordinal, offset, size: u32_at(payload, 8)? >> 18 })
}

fn param_v2(payload: &[u8]) -> Option<Param> {
    let (ordinal, offset) = param_head(payload)?;
    Some(Param { ordinal, offset, size: u32_at(payload, 8)? & 0xffff })
}

fn param_head(payload: &[u8]) -> Option<(u16, u32)> {
    let word = u32_at(payload, 4)?;
    Some(((word & 0xffff) as u16, word >> 16))
}

fn threads(payload: &[u8]) -> Option<[u32; 3]> {
    Some([u32_at(payload, 0)?, u32_at(payload, 4)?, u32_at(payload, 8)?])
}
