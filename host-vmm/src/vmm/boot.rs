//! Loads a kernel: PVH for an ELF `vmlinux`, the 64-bit boot protocol for a bzImage.
//!
//! Sources of the formats: the Xen project's PVH document and `start_info.h`, Linux's `Documentation/arch/x86/boot.rst`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator as _, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::{BzImage, Elf, KernelLoader as _};
use vm_memory::{Bytes as _, GuestAddress};

use super::error::{Error, Result};
use super::layout;
use super::memory::{GuestRam, Memory};
use super::vcpu::CpuState;

/// Memory types of both maps.
const TYPE_RAM: u32 = 1;
const TYPE_RESERVED: u32 = 2;
/// A loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xFF;
/// bzImage: has a 64-bit entry point, 0x200 behind its start.
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;
/// bzImages before version 2.03 of the protocol have their initramfs below this.
const INITRD_END: u64 = 0x3800_0000;
/// Where no image says how far up its initramfs may be.
const INITRD_END_PVH: u64 = 1 << 31;

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// `vmlinux` or bzImage.
    pub kernel: &'a Path,
    /// Archives of the initramfs, one after the other.
    pub initramfs: &'a [u8],
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Address of ACPI's root pointer.
    pub rsdp: u64,
}

/// Whether a file is an ELF image rather than a bzImage.
///
/// # Errors
/// It is neither, or cannot be read.
pub fn is_elf(kernel: &Path) -> Result<bool> {
    let mut magic = [0; 4];
    let mut file = File::open(kernel).map_err(|source| Error::File { path: kernel.into(), source })?;
    file.read_exact(&mut magic).map_err(|source| Error::File { path: kernel.into(), source })?;
    Ok(magic == *b"\x7FELF")
}

/// Puts everything into memory; the state of the first processor.
///
/// # Errors
/// The kernel cannot be used, or something does not fit.
pub fn load(memory: &Memory, ram: &GuestRam, source: &Source<'_>) -> Result<CpuState> {
    write_command_line(memory, source.command_line)?;
    if is_elf(source.kernel)? { load_pvh(memory, ram, source) } else { load_bzimage(memory, ram, source) }
}

fn write_command_line(memory: &Memory, text: &str) -> Result<()> {
    if text.len() >= layout::COMMAND_LINE_MAX || text.contains('\0') {
        return Err(Error::DoesNotFit { what: "the kernel's command line" });
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    memory
        .write_slice(&bytes, GuestAddress(layout::COMMAND_LINE))
        .map_err(|_| Error::DoesNotFit { what: "the kernel's command line" })
}

/// Puts the initramfs at the end of low memory, above the kernel and below `end`; its address.
fn write_initramfs(memory: &Memory, ram: &GuestRam, bytes: &[u8], kernel_end: u64, end: u64) -> Result<u64> {
    const WHAT: &str = "the initramfs";
    let start = ram.low_end().min(end).checked_sub(bytes.len() as u64).map(|start| start & !0xFFF);
    let start = start.filter(|start| *start >= kernel_end).ok_or(Error::DoesNotFit { what: WHAT })?;
    memory.write_slice(bytes, GuestAddress(start)).map_err(|_| Error::DoesNotFit { what: WHAT })?;
    Ok(start)
}

/// Start, length and type of each range of the memory map.
fn memory_map(ram: &GuestRam) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, layout::LOW_MEMORY_END, TYPE_RAM),
        (layout::ACPI, layout::ACPI_END - layout::ACPI, TYPE_RESERVED),
    ];
    for region in &ram.regions {
        let start = region.gpa.max(layout::HIGH_MEMORY);
        map.push((start, region.gpa + region.len_bytes - start, TYPE_RAM));
    }
    map
}

fn load_pvh(memory: &Memory, ram: &GuestRam, source: &Source<'_>) -> Result<CpuState> {
    let failed = |reason: String| Error::Kernel { path: source.kernel.into(), reason };
    let mut file = File::open(source.kernel).map_err(|error| failed(error.to_string()))?;
    let high = Some(GuestAddress(layout::HIGH_MEMORY));
    let loaded = Elf::load(memory, None, &mut file, high).map_err(|error| failed(error.to_string()))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(failed("has no PVH entry point (CONFIG_PVH); a bzImage needs none".into()));
    };
    let mut start_info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: source.rsdp,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        ..hvm_start_info::default()
    };
    let map: Vec<_> = memory_map(ram)
        .into_iter()
        .map(|(addr, size, type_)| hvm_memmap_table_entry { addr, size, type_, reserved: 0 })
        .collect();
    start_info.memmap_entries = map.len() as u32;
    let mut modules = Vec::new();
    if !source.initramfs.is_empty() {
        let paddr = write_initramfs(memory, ram, source.initramfs, loaded.kernel_end, INITRD_END_PVH)?;
        let size = source.initramfs.len() as u64;
        modules.push(hvm_modlist_entry { paddr, size, ..hvm_modlist_entry::default() });
        start_info.nr_modules = 1;
        start_info.modlist_paddr = layout::PVH_MODULES;
    }
    let mut params = BootParams::new(&start_info, GuestAddress(layout::PVH_START_INFO));
    params.set_sections(&map, GuestAddress(layout::PVH_MEMORY_MAP));
    params.set_modules(&modules, GuestAddress(layout::PVH_MODULES));
    PvhBootConfigurator::write_bootparams(&params, memory).map_err(|error| failed(error.to_string()))?;
    Ok(CpuState::Pvh { entry: entry.0, start_info: layout::PVH_START_INFO })
}

fn load_bzimage(memory: &Memory, ram: &GuestRam, source: &Source<'_>) -> Result<CpuState> {
    let failed = |reason: String| Error::Kernel { path: source.kernel.into(), reason };
    let mut file = File::open(source.kernel).map_err(|error| failed(error.to_string()))?;
    let high = Some(GuestAddress(layout::HIGH_MEMORY));
    let loaded = BzImage::load(memory, None, &mut file, high)
        .map_err(|error| failed(format!("is neither ELF nor a bzImage that can be loaded: {error}")))?;
    let mut header = loaded.setup_header.ok_or_else(|| failed("has no setup header".into()))?;
    if header.version < 0x020C || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(failed("has no 64-bit entry point".into()));
    }
    header.type_of_loader = LOADER_UNDEFINED;
    header.cmd_line_ptr = layout::COMMAND_LINE as u32;
    if !source.initramfs.is_empty() {
        // The kernel decompresses itself into this much memory.
        let kernel_end = loaded.kernel_end.max(loaded.kernel_load.0 + u64::from(header.init_size));
        let end =
            if header.initrd_addr_max == 0 { INITRD_END } else { u64::from(header.initrd_addr_max) + 1 };
        let start = write_initramfs(memory, ram, source.initramfs, kernel_end, end)?;
        let too_large = |_| Error::DoesNotFit { what: "the initramfs" };
        header.ramdisk_image = u32::try_from(start).map_err(too_large)?;
        header.ramdisk_size = u32::try_from(source.initramfs.len()).map_err(too_large)?;
    }
    let params = zero_page(header, &memory_map(ram), source.rsdp);
    let params = BootParams::new(&params, GuestAddress(layout::ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, memory).map_err(|error| failed(error.to_string()))?;
    write_long_mode_tables(memory).map_err(|_| Error::DoesNotFit { what: "page tables" })?;
    Ok(CpuState::Linux64 { entry: loaded.kernel_load.0 + ENTRY_64, boot_params: layout::ZERO_PAGE })
}

fn zero_page(header: setup_header, map: &[(u64, u64, u32)], rsdp: u64) -> boot_params {
    let mut params = boot_params { hdr: header, acpi_rsdp_addr: rsdp, ..boot_params::default() };
    let mut entries = params.e820_table;
    for (entry, (addr, size, type_)) in entries.iter_mut().zip(map) {
        *entry = boot_e820_entry { addr: *addr, size: *size, r#type: *type_ };
        params.e820_entries += 1;
    }
    params.e820_table = entries;
    params
}

/// Identity mapping of the first 4 GiB in 2 MiB pages, and flat descriptors for the selectors 0x10 and 0x18.
fn write_long_mode_tables(memory: &Memory) -> std::result::Result<(), vm_memory::GuestMemoryError> {
    const PRESENT_WRITE: u64 = 3;
    const LARGE: u64 = 0x80;
    const CODE_64: u64 = 0x00AF_9B00_0000_FFFF;
    const DATA: u64 = 0x00CF_9300_0000_FFFF;
    let table = |index: u64| layout::PAGE_TABLES + index * 0x1000;
    memory.write_obj(table(1) | PRESENT_WRITE, GuestAddress(table(0)))?;
    for gib in 0..4 {
        memory.write_obj(table(2 + gib) | PRESENT_WRITE, GuestAddress(table(1) + 8 * gib))?;
        for page in 0..512 {
            let entry = (gib << 30) | (page << 21) | PRESENT_WRITE | LARGE;
            memory.write_obj(entry, GuestAddress(table(2 + gib) + 8 * page))?;
        }
    }
    for (index, descriptor) in [0, 0, CODE_64, DATA].into_iter().enumerate() {
        memory.write_obj(descriptor, GuestAddress(layout::GDT + 8 * index as u64))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn machine(len_bytes: u64) -> (GuestRam, Memory) {
        let ram = GuestRam::new(len_bytes).expect("guest memory");
        let memory = ram.map().expect("mapping");
        (ram, memory)
    }

    #[test]
    fn the_map_leaves_out_the_hole_and_names_all_memory() {
        let ram = GuestRam::new(4 << 30).expect("sparse");
        let map = memory_map(&ram);
        let ends: Vec<_> = map.iter().map(|(start, len, _)| (*start, start + len)).collect();
        assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ends:x?}");
        assert_eq!(ends.last(), Some(&(layout::HOLE_END, layout::HOLE_END + (1 << 30))));
        assert!(ends.iter().all(|(start, end)| *end <= layout::HOLE || *start >= layout::HOLE_END));
    }

    #[test]
    fn an_initramfs_goes_to_the_end_of_low_memory_or_nowhere() {
        let (ram, memory) = machine(16 << 20);
        let at = write_initramfs(&memory, &ram, &[7; 5000], 8 << 20, u64::MAX).expect("fits");
        assert_eq!(at, (16 << 20) - 0x2000);
        assert!(write_initramfs(&memory, &ram, &[7; 5000], 16 << 20, u64::MAX).is_err());
        assert!(write_initramfs(&memory, &ram, &vec![7; 17 << 20], 0, u64::MAX).is_err());
        assert!(write_initramfs(&memory, &ram, &[7; 5000], 8 << 20, 4 << 20).is_err());
    }

    #[test]
    fn what_is_no_kernel_is_refused_with_its_name() {
        let (ram, memory) = machine(16 << 20);
        for content in [&b"\x7FELF"[..], &[0; 4096], b"MZ and nothing else"] {
            let mut file = tempfile::NamedTempFile::new().expect("file");
            file.write_all(content).expect("written");
            let source = Source { kernel: file.path(), initramfs: &[], command_line: "quiet", rsdp: 0 };
            let error = load(&memory, &ram, &source).expect_err("no kernel").to_string();
            assert!(error.contains(&file.path().display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_command_line_ends_in_memory_where_it_ends() {
        let (_, memory) = machine(4 << 20);
        write_command_line(&memory, "quiet").expect("short");
        let mut seen = [1; 6];
        memory.read_slice(&mut seen, GuestAddress(layout::COMMAND_LINE)).expect("in memory");
        assert_eq!(&seen, b"quiet\0");
        assert!(write_command_line(&memory, &"x".repeat(layout::COMMAND_LINE_MAX)).is_err());
        assert!(write_command_line(&memory, "a\0b").is_err());
    }
}
