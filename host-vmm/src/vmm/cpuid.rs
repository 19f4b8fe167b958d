//! The CPUID leaves that depend on the processor's number and on how many there are; everything else is as KVM supports it.
//!
//! Topology: one package, `count` cores with one thread each.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// A hypervisor is present.
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
/// The local APIC's timer has a deadline mode.
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
/// EBX[23:16] is valid.
const LEAF1_EDX_HTT: u32 = 1 << 28;

/// Levels of the topology leaves.
const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// The leaves of processor `id` of `count`.
pub(super) fn for_vcpu(supported: &CpuId, id: u32, count: u32) -> CpuId {
    let mut cpuid = supported.clone();
    // Bits of an APIC id that number the core.
    let core_bits = u32::BITS - count.saturating_sub(1).leading_zeros();
    for entry in cpuid.as_mut_slice() {
        adapt(entry, id, count, core_bits);
    }
    cpuid
}

fn adapt(entry: &mut kvm_cpuid_entry2, id: u32, count: u32, core_bits: u32) {
    match entry.function {
        0x1 => {
            entry.ebx = (entry.ebx & 0xFFFF) | (count.min(255) << 16) | (id << 24);
            entry.ecx |= LEAF1_ECX_HYPERVISOR | LEAF1_ECX_TSC_DEADLINE;
            entry.edx = if count > 1 { entry.edx | LEAF1_EDX_HTT } else { entry.edx & !LEAF1_EDX_HTT };
        }
        // Cores of the package; valid for the cache levels that exist only.
        0x4 if entry.eax & 0x1F != 0 => {
            let level = (entry.eax >> 5) & 7;
            let sharing = if level >= 3 { (1 << core_bits) - 1 } else { 0 };
            entry.eax = (entry.eax & 0x3FFF) | (sharing << 14) | (((1 << core_bits.min(6)) - 1) << 26);
        }
        0xB | 0x1F => {
            (entry.eax, entry.ebx, entry.ecx) = match entry.index {
                0 => (0, 1, LEVEL_SMT << 8),
                1 => (core_bits, count, (LEVEL_CORE << 8) | 1),
                index => (0, 0, index & 0xFF),
            };
            entry.edx = id;
        }
        0x8000_0008 => entry.ecx = (core_bits << 12) | (count - 1).min(255),
        0x8000_001E => (entry.eax, entry.ebx, entry.ecx) = (id, id & 0xFF, 0),
        // AMD's newer topology leaf: the others say it all.
        0x8000_0026 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, ebx: 0xFFFF_0800, ..kvm_cpuid_entry2::default() }
    }

    #[test]
    fn each_processor_sees_its_own_number() {
        let supported = CpuId::from_entries(&[leaf(1, 0), leaf(0xB, 0), leaf(0xB, 1), leaf(0x8000_0008, 0)])
            .expect("4 entries");
        let cpuid = for_vcpu(&supported, 2, 3);
        let entries = cpuid.as_slice();
        assert_eq!(entries[0].ebx, 0x0203_0800);
        assert_eq!((entries[1].eax, entries[1].ebx, entries[1].edx), (0, 1, 2));
        assert_eq!((entries[2].eax, entries[2].ebx, entries[2].ecx), (2, 3, 0x201));
        assert_eq!(entries[3].ecx, (2 << 12) | 2);
    }

    #[test]
    fn a_single_processor_needs_no_bits() {
        let supported = CpuId::from_entries(&[leaf(0xB, 1)]).expect("1 entry");
        assert_eq!(for_vcpu(&supported, 0, 1).as_slice()[0].eax, 0);
    }
}
