//! The ACPI tables: processors, interrupt controller, power-off and reset, and the virtio devices, which stock kernels find by their id
//! `LNRO0005`.

use acpi_tables::aml::{Device, Interrupt, Memory32Fixed, Name, Package, Path, ResourceTemplate, Scope};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink as _};
use vm_memory::{Bytes as _, GuestAddress};

use super::error::{Error, Result};
use super::legacy::SLEEP_TYPE_OFF;
use super::memory::Memory;
use super::{layout, virtio};

const OEM: [u8; 6] = *b"HSTVMM";
const TABLE: [u8; 8] = *b"HOSTVMM ";
const REVISION: u32 = 1;

/// MADT: the machine also has the two PICs of a PC.
const MADT_PCAT_COMPAT: u32 = 1;
/// Where the flags are in a MADT.
const MADT_FLAGS: usize = 40;
/// FADT's boot flags: there is no VGA, and no real-time clock.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;
/// FADT: latencies beyond these values mean that the processor states do not exist.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;
/// Where an FACS may begin.
const FACS_ALIGN: u64 = 64;

/// Writes the tables for `cpus` processors and `devices` virtio devices; returns the address of the root pointer.
///
/// # Errors
/// They do not fit into their place.
pub fn write(memory: &Memory, cpus: u32, devices: usize) -> Result<u64> {
    let mut area = Area { memory, next: layout::ACPI };
    // Tables refer to others by address, so the ones referred to are written first; the root pointer has the first place.
    let rsdp = area.reserve(Rsdp::len() as u64, 16)?;
    let facs = area.put(&bytes(&FACS::new()), FACS_ALIGN)?;
    let dsdt = area.put(dsdt(devices).as_slice(), 16)?;
    let fadt = area.put(&fadt(dsdt, facs), 16)?;
    let madt = area.put(&madt(cpus), 16)?;
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = area.put(&bytes(&xsdt), 16)?;
    area.write(rsdp, &bytes(&Rsdp::new(OEM, xsdt)))?;
    Ok(rsdp)
}

struct Area<'a> {
    memory: &'a Memory,
    next: u64,
}

impl Area<'_> {
    fn reserve(&mut self, len: u64, align: u64) -> Result<u64> {
        let at = self.next.next_multiple_of(align);
        self.next = at + len;
        if self.next > layout::ACPI_END {
            return Err(Error::DoesNotFit { what: "ACPI tables" });
        }
        Ok(at)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.memory
            .write_slice(bytes, GuestAddress(at))
            .map_err(|_| Error::DoesNotFit { what: "ACPI tables" })
    }

    fn put(&mut self, bytes: &[u8], align: u64) -> Result<u64> {
        let at = self.reserve(bytes.len() as u64, align)?;
        self.write(at, bytes)?;
        Ok(at)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn io(offset: u64, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, layout::ACPI_PM + offset)
}

fn fadt(dsdt: u64, facs: u64) -> Vec<u8> {
    let port = |offset: u64| ((layout::ACPI_PM + offset) as u32).into();
    let mut table = FADTBuilder::new(OEM, TABLE, REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton) // means that the fixed button is not there
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    // Both forms of an address: kernels warn when they differ.
    (table.dsdt, table.x_dsdt) = ((dsdt as u32).into(), dsdt.into());
    table.firmware_ctrl = (facs as u32).into();
    table.sci_int = layout::ACPI_SCI.into();
    (table.pm1a_evt_blk, table.pm1_evt_len) = (port(layout::ACPI_PM_EVENT), 4);
    (table.pm1a_cnt_blk, table.pm1_cnt_len) = (port(layout::ACPI_PM_CONTROL), 2);
    (table.pm_tmr_blk, table.pm_tmr_len) = (port(layout::ACPI_PM_TIMER), 4);
    table.x_pm1a_evt_blk = io(layout::ACPI_PM_EVENT, 32, AccessSize::WordAccess);
    table.x_pm1a_cnt_blk = io(layout::ACPI_PM_CONTROL, 16, AccessSize::WordAccess);
    table.x_pm_tmr_blk = io(layout::ACPI_PM_TIMER, 32, AccessSize::DwordAccess);
    (table.p_lvl2_lat, table.p_lvl3_lat) = (NO_C2.into(), NO_C3.into());
    table.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    table.reset_reg = GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, layout::I8042 + 4);
    table.reset_value = 0xFE;
    bytes(&table.finalize())
}

fn madt(cpus: u32) -> Vec<u8> {
    let mut table = MADT::new(OEM, TABLE, REVISION, LocalInterruptController::Address(layout::LOCAL_APIC));
    for id in 0..cpus.min(layout::MAX_CPUS) as u8 {
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    // An id that no processor has.
    table.add_structure(IoApic::new(layout::MAX_CPUS as u8, layout::IOAPIC, 0));
    let mut bytes = bytes(&table);
    bytes[MADT_FLAGS..MADT_FLAGS + 4].copy_from_slice(&MADT_PCAT_COMPAT.to_le_bytes());
    fix_checksum(&mut bytes);
    bytes
}

fn fix_checksum(table: &mut [u8]) {
    const CHECKSUM: usize = 9;
    table[CHECKSUM] = 0;
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[CHECKSUM] = sum.wrapping_neg();
}

fn dsdt(devices: usize) -> Sdt {
    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, REVISION);
    let mut body = Vec::new();
    let off = [SLEEP_TYPE_OFF, SLEEP_TYPE_OFF, 0, 0];
    let states: Vec<&dyn Aml> = off.iter().map(|value| value as &dyn Aml).collect();
    Name::new("_S5_".into(), &Package::new(states)).to_aml_bytes(&mut body);
    for index in 0..devices {
        let place = virtio::Place::of(index);
        let id = Name::new("_HID".into(), &"LNRO0005");
        let unique = Name::new("_UID".into(), &(index as u32));
        let coherent = Name::new("_CCA".into(), &1u8);
        let registers = Memory32Fixed::new(true, place.base as u32, layout::VIRTIO_MMIO_STRIDE as u32);
        let interrupt = Interrupt::new(true, true, false, false, place.gsi);
        let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers, &interrupt]));
        let name = Path::new(&format!("VI{index:02}"));
        let device = Device::new(name, vec![&id, &unique, &coherent, &resources]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(&mut body);
    }
    table.vec(&body);
    table.update_checksum();
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::memory::GuestRam;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    fn read(memory: &Memory, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, GuestAddress(at)).expect("in memory");
        bytes
    }

    fn table(memory: &Memory, at: u64) -> Vec<u8> {
        let len = u32::from_le_bytes(read(memory, at + 4, 4).try_into().expect("4 bytes"));
        let bytes = read(memory, at, len as usize);
        assert_eq!(sum(&bytes), 0, "checksum of {}", String::from_utf8_lossy(&bytes[..4]));
        bytes
    }

    #[test]
    fn a_kernel_finds_every_table_with_a_good_checksum() {
        let memory = GuestRam::new(4 << 20).and_then(|ram| ram.map()).expect("memory");
        let rsdp = write(&memory, 3, 2).expect("fits");
        assert_eq!(rsdp, layout::ACPI);
        let root = read(&memory, rsdp, Rsdp::len());
        assert_eq!((&root[..8], sum(&root[..20]), sum(&root)), (&b"RSD PTR "[..], 0, 0));
        let address = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        let xsdt = table(&memory, address(&root[24..32]));
        let entries: Vec<_> = xsdt[36..].chunks(8).map(|entry| table(&memory, address(entry))).collect();
        assert_eq!(entries.iter().map(|entry| &entry[..4]).collect::<Vec<_>>(), [b"FACP", b"APIC"]);
        let dsdt = table(&memory, address(&entries[0][140..148]));
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(dsdt.windows(8).filter(|window| *window == b"LNRO0005").count(), 2);
        // Three local APICs of 8 bytes and one IOAPIC of 12 behind the header.
        assert_eq!(entries[1].len(), 44 + 3 * 8 + 12);
        let facs = u32::from_le_bytes(entries[0][36..40].try_into().expect("4 bytes"));
        assert_eq!(u64::from(facs) % FACS_ALIGN, 0);
    }

    #[test]
    fn the_largest_machine_fits() {
        let memory = GuestRam::new(4 << 20).and_then(|ram| ram.map()).expect("memory");
        write(&memory, layout::MAX_CPUS, virtio::MAX_DEVICES).expect("fits");
    }
}
