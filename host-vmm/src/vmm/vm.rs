//! A whole machine: KVM, the PC's devices, virtio devices, a kernel.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::bus::Bus;
use super::error::{Error, Result};
use super::legacy::{AcpiPm, KeyboardController, SerialPort};
use super::machine::{Interrupts, Machine};
use super::memory::GuestRam;
use super::stop::{Stop, StopReason};
use super::vcpu::CpuState;
use super::virtio::block::Block;
use super::virtio::mmio::{MmioTransport, reg};
use super::virtio::rng::Rng;
use super::virtio::vsock::Vsock;
use super::virtio::{DeviceThread, Interrupt, MAX_DEVICES, Place, QueueDevice, VirtioDevice};
use super::{acpi, boot, layout};

/// A disk image.
#[derive(Clone, Copy, Debug)]
pub struct Disk<'a> {
    /// Raw image, or a block device.
    pub path: &'a Path,
    /// Writes are refused.
    pub read_only: bool,
}

/// What a machine is made of.
pub struct VmConfig<'a> {
    /// `vmlinux` or bzImage.
    pub kernel: &'a Path,
    /// The initramfs, or nothing.
    pub initramfs: &'a [u8],
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Processors.
    pub cpus: u32,
    /// RAM.
    pub ram: GuestRam,
    /// First disk (`/dev/vda`).
    pub disk: Option<Disk<'a>>,
    /// Whether there is a vsock, and its CID if it is to be a certain one.
    pub vsock: Option<Option<u32>>,
    /// Output of the first serial port.
    pub console: Box<dyn Write + Send>,
    /// Output of the second serial port.
    pub second_serial: Box<dyn Write + Send>,
}

/// A machine that is ready to start.
pub struct Vm {
    machine: Machine,
    ports: Bus,
    mmio: Bus,
    devices: DeviceThread,
    cid: Option<u32>,
}

impl Vm {
    /// Puts the machine together and loads the kernel.
    ///
    /// # Errors
    /// KVM, a device, a file or the kernel is not usable.
    pub fn new(config: VmConfig<'_>) -> Result<Self> {
        if config.cpus == 0 || config.cpus > layout::MAX_CPUS {
            return Err(Error::Cpus(config.cpus));
        }
        let machine = Machine::new(config.ram, Interrupts::InKernel)?;
        let devices = DeviceThread::new(machine.stop().clone())?;
        let mut vm = Self { machine, ports: Bus::default(), mmio: Bus::default(), devices, cid: None };
        vm.add_legacy(config.console, config.second_serial)?;
        let count = vm.add_virtio(config.disk, config.vsock)?;
        let rsdp = acpi::write(vm.machine.memory(), config.cpus, count)?;
        let source = boot::Source {
            kernel: config.kernel,
            initramfs: config.initramfs,
            command_line: config.command_line,
            rsdp,
        };
        let first = boot::load(vm.machine.memory(), vm.machine.ram(), &source)?;
        for index in 0..config.cpus {
            let state = if index == 0 { first } else { CpuState::WaitForStart };
            vm.machine.add_vcpu(state, config.cpus)?;
        }
        Ok(vm)
    }

    fn add_legacy(&mut self, console: Box<dyn Write + Send>, second: Box<dyn Write + Send>) -> Result<()> {
        let ports = [(layout::COM1, layout::COM1_GSI, console), (layout::COM2, layout::COM2_GSI, second)];
        for (base, gsi, output) in ports {
            let line = self.line(gsi)?;
            self.ports.insert(base, 8, Arc::new(Mutex::new(SerialPort::new(line, output))))?;
        }
        let stop = self.machine.stop();
        let keyboard = KeyboardController::new(stop.clone());
        self.ports.insert(layout::I8042, 5, Arc::new(Mutex::new(keyboard)))?;
        let pm = AcpiPm::new(stop.clone());
        self.ports.insert(layout::ACPI_PM, layout::ACPI_PM_LEN, Arc::new(Mutex::new(pm)))
    }

    fn line(&self, gsi: u32) -> Result<EventFd> {
        let line = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::os("cannot make an eventfd"))?;
        self.machine.connect_interrupt(&line, gsi)?;
        Ok(line)
    }

    fn add_virtio(&mut self, disk: Option<Disk<'_>>, vsock: Option<Option<u32>>) -> Result<usize> {
        let mut count = 0;
        if let Some(cid) = vsock {
            let device = Vsock::new(Arc::new(self.machine.memory().clone()), cid)?;
            self.cid = Some(device.cid());
            self.add_device(&mut count, Arc::new(Mutex::new(device)))?;
        }
        if let Some(disk) = disk {
            let device = Block::open(disk.path, disk.read_only)?;
            self.add_emulated(&mut count, Arc::new(Mutex::new(device)))?;
        }
        self.add_emulated(&mut count, Arc::new(Mutex::new(Rng::default())))?;
        Ok(count)
    }

    /// Adds a device whose queues are served by its own means; the doorbells of its queues.
    fn add_device(
        &mut self,
        count: &mut usize,
        device: Arc<Mutex<dyn VirtioDevice>>,
    ) -> Result<Vec<EventFd>> {
        if *count == MAX_DEVICES {
            return Err(Error::Device { device: "virtio", reason: "no interrupt is left".into() });
        }
        let place = Place::of(*count);
        *count += 1;
        let interrupt = Interrupt::new(self.line(place.gsi)?);
        let memory = Arc::new(self.machine.memory().clone());
        let transport = MmioTransport::new(device, memory, interrupt)?;
        let mut kicks = Vec::new();
        for (index, kick) in (0..).zip(transport.kicks()) {
            self.machine.connect_doorbell(kick, place.base + reg::QUEUE_NOTIFY, index)?;
            kicks.push(kick.try_clone().map_err(Error::os("cannot share an eventfd"))?);
        }
        self.mmio.insert(place.base, layout::VIRTIO_MMIO_STRIDE, Arc::new(Mutex::new(transport)))?;
        Ok(kicks)
    }

    /// Adds a device whose queues are served on the device thread.
    fn add_emulated<D: QueueDevice + 'static>(
        &mut self,
        count: &mut usize,
        device: Arc<Mutex<D>>,
    ) -> Result<()> {
        let kicks = self.add_device(count, device.clone())?;
        self.devices.add(device, kicks);
        Ok(())
    }

    /// The CID of its vsock.
    pub fn cid(&self) -> Option<u32> {
        self.cid
    }

    /// Where its RAM is: the daemon maps guest memory from this.
    pub fn ram(&self) -> &GuestRam {
        self.machine.ram()
    }

    /// The way to end it.
    pub fn stop(&self) -> Stop {
        self.machine.stop().clone()
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn run(self) -> Result<StopReason> {
        let devices = self.devices.start()?;
        let running = self.machine.start(Arc::new(self.ports), Arc::new(self.mmio))?;
        let reason = running.wait();
        let _ = devices.join();
        Ok(reason)
    }
}
