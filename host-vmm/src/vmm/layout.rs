//! Where things are in the guest's physical address space and on its I/O ports.
//!
//! | guest-physical | what |
//! |---|---|
//! | 0 .. 640 KiB | RAM; the first pages hold what the boot protocols pass |
//! | 0xE0000 .. 1 MiB | ACPI tables |
//! | 1 MiB .. 3 GiB | RAM, kernel at 1 MiB or where it was linked, initramfs at the end |
//! | 3 GiB .. 4 GiB | the hole: virtio-mmio, IOAPIC, local APIC, KVM's own pages |
//! | 4 GiB .. | RAM beyond 3 GiB |

/// Most processors: what the MADT's 8-bit local APIC entries and the IOAPIC's destinations can name.
pub const MAX_CPUS: u32 = 254;

/// Global descriptor table for the 64-bit entry.
pub const GDT: u64 = 0x500;
/// PVH start information.
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH module list.
pub const PVH_MODULES: u64 = 0x6100;
/// PVH memory map.
pub const PVH_MEMORY_MAP: u64 = 0x6200;
/// Linux's `boot_params` ("zero page").
pub const ZERO_PAGE: u64 = 0x7000;
/// Page tables for the 64-bit entry: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// Kernel command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Longest kernel command line with its NUL.
pub const COMMAND_LINE_MAX: usize = 2048;
/// End of conventional memory.
pub const LOW_MEMORY_END: u64 = 0xA_0000;
/// ACPI tables, RSDP first (kernels search this area for it).
pub const ACPI: u64 = 0xE_0000;
/// End of the ACPI tables.
pub const ACPI_END: u64 = 0x10_0000;
/// Memory for the kernel begins here.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// RAM stops here and goes on at 4 GiB.
pub const HOLE: u64 = 0xC000_0000;
/// End of the hole.
pub const HOLE_END: u64 = 1 << 32;
/// First virtio-mmio register window.
pub const VIRTIO_MMIO: u64 = 0xD000_0000;
/// Distance of two virtio-mmio windows.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// First interrupt of the virtio-mmio devices (a pin of the IOAPIC that no PIC has).
pub const VIRTIO_GSI: u32 = 16;
/// Pins of KVM's IOAPIC end here.
pub const GSI_END: u32 = 24;
/// IOAPIC registers.
pub const IOAPIC: u32 = 0xFEC0_0000;
/// Local APIC registers.
pub const LOCAL_APIC: u32 = 0xFEE0_0000;
/// A page that KVM on Intel needs for real mode.
pub const KVM_IDENTITY_MAP: u64 = 0xFFFB_C000;
/// Three pages that KVM on Intel needs for a task state segment.
pub const KVM_TSS: usize = 0xFFFB_D000;

/// First serial port: the kernel's console.
pub const COM1: u64 = 0x3F8;
/// Second serial port: the program's output where there is no vsock.
pub const COM2: u64 = 0x2F8;
/// Interrupt of [`COM1`].
pub const COM1_GSI: u32 = 4;
/// Interrupt of [`COM2`].
pub const COM2_GSI: u32 = 3;
/// Keyboard controller: only its reset line is there.
pub const I8042: u64 = 0x60;
/// ACPI power management registers: event block, control block, timer.
pub const ACPI_PM: u64 = 0x600;
/// Offset of the event block (status, enable).
pub const ACPI_PM_EVENT: u64 = 0;
/// Offset of the control block.
pub const ACPI_PM_CONTROL: u64 = 4;
/// Offset of the timer.
pub const ACPI_PM_TIMER: u64 = 8;
/// Length of the power management registers.
pub const ACPI_PM_LEN: u64 = 12;
/// ACPI's interrupt.
pub const ACPI_SCI: u16 = 9;
