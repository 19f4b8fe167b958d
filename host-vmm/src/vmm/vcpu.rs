//! One processor: its state at the start, and the loop around KVM_RUN.

use std::ffi::{c_int, c_void};

use kvm_bindings::{CpuId, Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use libc::siginfo_t;

use super::bus::Bus;
use super::cpuid;
use super::error::{Error, Result};
use super::layout;
use super::stop::{Stop, StopReason};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit of RFLAGS that is always set.
const RFLAGS: u64 = 2;

const MSR_IA32_MISC_ENABLE: u32 = 0x1A0;
const MSR_MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2FF;
/// Range registers on, memory is write-back.
const MTRR_ENABLE_WRITE_BACK: u64 = (1 << 11) | 6;

const APIC_LVT_LINT0: usize = 0x350;
const APIC_LVT_LINT1: usize = 0x360;
const APIC_MODE_NMI: u32 = 4 << 8;
const APIC_MODE_EXTINT: u32 = 7 << 8;

/// How a processor starts.
#[derive(Clone, Copy, Debug)]
pub enum CpuState {
    /// Waits for another processor to start it.
    WaitForStart,
    /// PVH: 32-bit protected mode, paging off, EBX = address of the start information.
    Pvh { entry: u64, start_info: u64 },
    /// Linux's 64-bit boot protocol: RSI = address of `boot_params`; page tables and descriptors lie where `layout` says.
    Linux64 { entry: u64, boot_params: u64 },
    /// 64-bit code with the page tables at `page_tables`, with ring 3 selectors or ring 0 ones. For small guest code.
    Flat64 { entry: u64, stack: u64, page_tables: u64, user: bool },
    /// 16-bit real mode at `entry` (below 64 KiB). For small guest code.
    Real { entry: u16 },
}

/// One processor, before or on its thread.
pub struct Vcpu {
    fd: VcpuFd,
    id: u32,
}

impl Vcpu {
    pub(super) fn new(
        fd: VcpuFd,
        id: u32,
        count: u32,
        supported: &CpuId,
        state: &CpuState,
        in_kernel_apic: bool,
    ) -> Result<Self> {
        let vcpu = Self { fd, id };
        let cpuid = cpuid::for_vcpu(supported, id, count);
        vcpu.fd.set_cpuid2(&cpuid).map_err(Error::kvm("cannot set CPU features"))?;
        if in_kernel_apic {
            vcpu.set_local_interrupts()?;
        }
        match state {
            CpuState::WaitForStart => {}
            CpuState::Pvh { .. } | CpuState::Linux64 { .. } => {
                vcpu.set_msrs()?;
                let fpu = kvm_fpu { fcw: 0x37F, mxcsr: 0x1F80, ..kvm_fpu::default() };
                vcpu.fd.set_fpu(&fpu).map_err(Error::kvm("cannot set floating-point state"))?;
                vcpu.set_registers(state)?;
            }
            CpuState::Flat64 { .. } | CpuState::Real { .. } => vcpu.set_registers(state)?,
        }
        Ok(vcpu)
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// What firmware would have set.
    fn set_msrs(&self) -> Result<()> {
        let entry = |index, data| kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
        let entries = [
            entry(MSR_IA32_MISC_ENABLE, MSR_MISC_ENABLE_FAST_STRING),
            entry(MSR_MTRR_DEF_TYPE, MTRR_ENABLE_WRITE_BACK),
        ];
        for one in entries {
            let msrs = Msrs::from_entries(&[one])
                .map_err(|error| Error::Machine(format!("cannot list registers: {error:?}")))?;
            // Not every KVM has every register; the guest then sees its reset value.
            if !matches!(self.fd.set_msrs(&msrs), Ok(1)) {
                tracing::debug!("KVM does not take model-specific register {:#x}", one.index);
            }
        }
        Ok(())
    }

    /// The wiring of a PC: the PIC at LINT0, the non-maskable interrupt at LINT1.
    fn set_local_interrupts(&self) -> Result<()> {
        let mut apic = self.fd.get_lapic().map_err(Error::kvm("cannot read the local APIC"))?;
        for (offset, value) in [(APIC_LVT_LINT0, APIC_MODE_EXTINT), (APIC_LVT_LINT1, APIC_MODE_NMI)] {
            for (byte, new) in apic.regs[offset..offset + 4].iter_mut().zip(value.to_le_bytes()) {
                *byte = new as _;
            }
        }
        self.fd.set_lapic(&apic).map_err(Error::kvm("cannot set the local APIC"))
    }

    fn set_registers(&self, state: &CpuState) -> Result<()> {
        let mut sregs = self.fd.get_sregs().map_err(Error::kvm("cannot read registers"))?;
        let mut regs = kvm_regs { rflags: RFLAGS, ..kvm_regs::default() };
        match *state {
            CpuState::WaitForStart => return Ok(()),
            CpuState::Pvh { entry, start_info } => {
                set_segments(&mut sregs, Segments { long: false, user: false });
                sregs.cr0 = CR0_PE | CR0_ET;
                (sregs.cr3, sregs.cr4, sregs.efer) = (0, 0, 0);
                (regs.rip, regs.rbx) = (entry, start_info);
            }
            CpuState::Linux64 { entry, boot_params } => {
                set_segments(&mut sregs, Segments { long: true, user: false });
                set_long_mode(&mut sregs, layout::PAGE_TABLES);
                (sregs.gdt.base, sregs.gdt.limit) = (layout::GDT, 4 * 8 - 1);
                (regs.rip, regs.rsi) = (entry, boot_params);
            }
            CpuState::Flat64 { entry, stack, page_tables, user } => {
                set_segments(&mut sregs, Segments { long: true, user });
                set_long_mode(&mut sregs, page_tables);
                (regs.rip, regs.rsp) = (entry, stack);
            }
            CpuState::Real { entry } => {
                (sregs.cs.base, sregs.cs.selector) = (0, 0);
                regs.rip = u64::from(entry);
            }
        }
        self.fd.set_sregs(&sregs).map_err(Error::kvm("cannot set system registers"))?;
        self.fd.set_regs(&regs).map_err(Error::kvm("cannot set registers"))
    }

    /// Runs until the machine's end.
    pub(super) fn run(mut self, ports: &Bus, mmio: &Bus, stop: &Stop) {
        while !stop.is_requested() {
            match self.fd.run() {
                Ok(VcpuExit::IoIn(port, data)) => ports.read(u64::from(port), data),
                Ok(VcpuExit::IoOut(port, data)) => ports.write(u64::from(port), data),
                Ok(VcpuExit::MmioRead(address, data)) => mmio.read(address, data),
                Ok(VcpuExit::MmioWrite(address, data)) => mmio.write(address, data),
                Ok(VcpuExit::Hlt) => stop.request(StopReason::Halted),
                Ok(VcpuExit::Shutdown) => stop.request(StopReason::Shutdown),
                Ok(VcpuExit::SystemEvent(kind, _)) => stop.request(system_event(kind)),
                Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_)) => {}
                Ok(VcpuExit::InternalError) => {
                    let reason = self.describe_internal_error();
                    stop.request(StopReason::Failed(reason));
                }
                Ok(exit) => {
                    let reason = format!("processor {}: unexpected exit {exit:?}", self.id);
                    stop.request(StopReason::Failed(reason));
                }
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(error) => {
                    stop.request(StopReason::Failed(format!("processor {}: KVM_RUN: {error}", self.id)));
                }
            }
        }
    }

    fn describe_internal_error(&mut self) -> String {
        let rip = self.fd.get_regs().map_or(0, |regs| regs.rip);
        format!("processor {} at {rip:#x}: KVM cannot emulate an instruction (internal error)", self.id)
    }
}

fn system_event(kind: u32) -> StopReason {
    match kind {
        kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => StopReason::PowerOff,
        kvm_bindings::KVM_SYSTEM_EVENT_RESET => StopReason::Reset,
        _ => StopReason::Failed(format!("the guest crashed (system event {kind})")),
    }
}

/// Only there to interrupt KVM_RUN.
pub(super) extern "C" fn on_kick(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

#[derive(Clone, Copy)]
struct Segments {
    long: bool,
    user: bool,
}

/// Flat segments. The selectors of ring 0 are those of Linux's boot protocol, those of ring 3 are Linux's own: KVM on a machine without
/// hardware support knows only these to run natively.
fn set_segments(sregs: &mut kvm_sregs, kind: Segments) {
    let (code_selector, data_selector, dpl) = if kind.user { (0x33, 0x2B, 3) } else { (0x10, 0x18, 0) };
    let code = kvm_segment {
        limit: u32::MAX,
        selector: code_selector,
        type_: 11, // execute, read, accessed
        present: 1,
        dpl,
        db: u8::from(!kind.long),
        s: 1,
        l: u8::from(kind.long),
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment { selector: data_selector, type_: 3, db: 1, l: 0, ..code };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        limit: 0x67,
        selector: 0x20,
        type_: 11, // busy task state segment
        present: 1,
        ..kvm_segment::default()
    };
}

fn set_long_mode(sregs: &mut kvm_sregs, page_tables: u64) {
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = page_tables;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
}
