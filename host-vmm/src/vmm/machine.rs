//! The machine as KVM has it: memory slots, interrupt controllers, doorbells, and the threads of its processors.
#![allow(unsafe_code)] // Memory slots hand raw addresses to the kernel.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use super::bus::Bus;
use super::error::{Error, Result};
use super::layout;
use super::memory::{GuestRam, Memory};
use super::stop::{Stop, StopReason};
use super::vcpu::{self, CpuState, Vcpu};

/// Version of KVM's interface; there has been no other since 2007.
const KVM_API_VERSION: i32 = 12;

/// Which interrupt hardware a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// None: HLT ends the machine. For small guest code without an operating system.
    None,
    /// PICs, IOAPIC, local APICs and PIT, all in the kernel.
    InKernel,
}

/// A virtual machine without its devices.
pub struct Machine {
    vm: VmFd,
    cpuid: CpuId,
    ram: GuestRam,
    memory: Memory,
    stop: Stop,
    vcpus: Vec<Vcpu>,
    interrupts: Interrupts,
}

impl Machine {
    /// Makes a machine with `ram` and no processors.
    ///
    /// # Errors
    /// `/dev/kvm` cannot be used, or memory cannot be mapped.
    pub fn new(ram: GuestRam, interrupts: Interrupts) -> Result<Self> {
        let kvm =
            Kvm::new().map_err(|error| Error::NoKvm(std::io::Error::from_raw_os_error(error.errno())))?;
        if kvm.get_api_version() != KVM_API_VERSION {
            return Err(Error::Machine(format!("KVM has interface version {}", kvm.get_api_version())));
        }
        let vm = kvm.create_vm().map_err(Error::kvm("cannot make a machine"))?;
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(Error::kvm("cannot set the identity map"))?;
        vm.set_tss_address(layout::KVM_TSS).map_err(Error::kvm("cannot set the task state segment"))?;
        if interrupts == Interrupts::InKernel {
            vm.create_irq_chip().map_err(Error::kvm("cannot make interrupt controllers"))?;
            // Without the speaker's port in the kernel each poll of it would be an exit.
            let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
            vm.create_pit2(pit).map_err(Error::kvm("cannot make a timer"))?;
        }
        let memory = ram.map()?;
        let cpuid =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(Error::kvm("cannot read CPU features"))?;
        let machine = Self { vm, cpuid, ram, memory, stop: Stop::new()?, vcpus: Vec::new(), interrupts };
        machine.insert_memory()?;
        Ok(machine)
    }

    fn insert_memory(&self) -> Result<()> {
        for (slot, region) in (0..).zip(self.memory.iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: address and size are those of a live mapping, whose owner is `self.memory`. It lives as long as `self.vm` and
            // the processors: they are dropped together with it, and `Running` holds them together too. Slots do not overlap,
            // because the regions of a `GuestRam` do not.
            unsafe { self.vm.set_user_memory_region(region) }
                .map_err(Error::kvm("cannot add guest memory"))?;
        }
        Ok(())
    }

    /// The description of the guest's RAM, for those who map it elsewhere.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// The guest's RAM as it is mapped here.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The machine's end.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Raises interrupt `gsi` (edge) whenever `event` is written.
    ///
    /// # Errors
    /// KVM refused.
    pub fn connect_interrupt(&self, event: &EventFd, gsi: u32) -> Result<()> {
        self.vm.register_irqfd(event, gsi).map_err(Error::kvm("cannot connect an interrupt"))
    }

    /// Writes `event` whenever the guest writes the 32-bit `value` at `address`, without an exit.
    ///
    /// # Errors
    /// KVM refused.
    pub fn connect_doorbell(&self, event: &EventFd, address: u64, value: u32) -> Result<()> {
        self.vm
            .register_ioevent(event, &IoEventAddress::Mmio(address), value)
            .map_err(Error::kvm("cannot connect a doorbell"))
    }

    /// Adds the next of `count` processors.
    ///
    /// # Errors
    /// KVM refused, or there are too many.
    pub fn add_vcpu(&mut self, state: CpuState, count: u32) -> Result<()> {
        if count == 0 || count > layout::MAX_CPUS || self.vcpus.len() as u64 >= u64::from(count) {
            return Err(Error::Cpus(count));
        }
        let id = self.vcpus.len() as u32;
        let fd = self.vm.create_vcpu(u64::from(id)).map_err(Error::kvm("cannot make a processor"))?;
        let in_kernel = self.interrupts == Interrupts::InKernel;
        self.vcpus.push(Vcpu::new(fd, id, count, &self.cpuid, &state, in_kernel)?);
        Ok(())
    }

    /// Starts all processors.
    ///
    /// # Errors
    /// A thread cannot be started; those that were have been stopped.
    pub fn start(mut self, ports: Arc<Bus>, mmio: Arc<Bus>) -> Result<Running> {
        // A signal without effect makes KVM_RUN return.
        register_signal_handler(SIGRTMIN(), vcpu::on_kick)
            .map_err(|error| Error::Machine(format!("cannot install a signal handler: {error}")))?;
        let vcpus = std::mem::take(&mut self.vcpus);
        let mut running = Running { threads: Vec::with_capacity(vcpus.len()), machine: self };
        for vcpu in vcpus {
            let (ports, mmio, stop) = (Arc::clone(&ports), Arc::clone(&mmio), running.machine.stop.clone());
            let thread = std::thread::Builder::new()
                .name(format!("vcpu-{}", vcpu.id()))
                .spawn(move || vcpu.run(&ports, &mmio, &stop))
                .map_err(Error::os("cannot start a processor's thread"))?;
            running.threads.push(thread);
        }
        Ok(running)
    }
}

/// A machine whose processors run. Dropping it stops them.
pub struct Running {
    threads: Vec<JoinHandle<()>>,
    // Dropped after the threads have ended: their memory slots point into its memory.
    machine: Machine,
}

impl Running {
    /// The description of the guest's RAM.
    pub fn ram(&self) -> &GuestRam {
        &self.machine.ram
    }

    /// The machine's end.
    pub fn stop(&self) -> &Stop {
        &self.machine.stop
    }

    /// Waits until the machine has ended and its processors are gone.
    pub fn wait(mut self) -> StopReason {
        let mut fds = [rustix::event::PollFd::new(&self.machine.stop, rustix::event::PollFlags::IN)];
        // Interrupted or not: the reason says whether it is over.
        while !self.machine.stop.is_requested() {
            let _ = rustix::event::poll(&mut fds, None);
        }
        self.end();
        self.machine.stop.reason().unwrap_or(StopReason::Requested)
    }

    fn end(&mut self) {
        self.machine.stop.request(StopReason::Requested);
        for thread in self.threads.drain(..) {
            // A kick between the thread's look at `stop` and its KVM_RUN is lost: kick until it has gone.
            while !thread.is_finished() {
                let _ = thread.kill(SIGRTMIN());
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
