//! virtio devices: what a device is, and where it is found.

pub mod block;
pub(crate) mod fuzz;
pub mod mmio;
pub mod rng;
#[cfg(test)]
mod tests;
mod thread;
pub mod vsock;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use super::layout;
use super::memory::Memory;
pub use thread::{DeviceThread, QueueDevice};

/// The version-1 interface, which everything here requires.
pub const F_VERSION_1: u64 = 1 << 32;
/// Devices that have an interrupt of their own.
pub const MAX_DEVICES: usize = (layout::GSI_END - layout::VIRTIO_GSI) as usize;

/// Where a device's registers are, and its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Guest-physical address of the registers.
    pub base: u64,
    /// Interrupt number at the IOAPIC.
    pub gsi: u32,
}

impl Place {
    /// The place of device number `index`.
    pub fn of(index: usize) -> Self {
        let index = index.min(MAX_DEVICES) as u32;
        Self {
            base: layout::VIRTIO_MMIO + u64::from(index) * layout::VIRTIO_MMIO_STRIDE,
            gsi: layout::VIRTIO_GSI + index,
        }
    }
}

/// A device cannot do what the driver asks for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DeviceError(pub String);

/// A device's way to interrupt the guest.
#[derive(Clone, Debug)]
pub struct Interrupt {
    status: Arc<AtomicU32>,
    line: Arc<EventFd>,
}

impl Interrupt {
    /// The device has used buffers.
    const USED: u32 = 1;
    /// The configuration has changed.
    const CONFIG: u32 = 2;

    /// Raises `line`.
    pub fn new(line: EventFd) -> Self {
        Self { status: Arc::default(), line: Arc::new(line) }
    }

    /// The line itself, for a device that raises it without us.
    pub fn line(&self) -> &EventFd {
        &self.line
    }

    /// Tells the driver that buffers were used.
    pub fn signal_used(&self) {
        self.signal(Self::USED);
    }

    fn signal_config(&self) {
        self.signal(Self::CONFIG);
    }

    fn signal(&self, cause: u32) {
        self.status.fetch_or(cause, Ordering::SeqCst);
        // Fails only if the counter is full, and then the interrupt is pending anyway.
        let _ = self.line.write(1);
    }
}

/// What a driver has agreed on with a device.
#[derive(Debug)]
pub struct Activation {
    /// The guest's RAM.
    pub memory: Arc<Memory>,
    /// Features that both sides have.
    pub features: u64,
    /// All queues; those that the driver set up are `ready`, and lie in memory.
    pub queues: Vec<Queue>,
    /// The way to interrupt the guest.
    pub interrupt: Interrupt,
}

/// A virtio device behind a transport. All calls come from processors' threads, under the device's lock.
pub trait VirtioDevice: Send {
    /// The device type's number.
    fn device_id(&self) -> u32;
    /// Features that it offers, without [`F_VERSION_1`].
    fn features(&self) -> u64;
    /// Largest size of each queue.
    fn queue_sizes(&self) -> &'static [u16];
    /// Its configuration; bytes beyond the end read as zero.
    fn config(&self) -> Vec<u8>;
    /// Whether interrupts are raised by others than [`Interrupt`], so that any may mean used buffers.
    fn interrupts_directly(&self) -> bool {
        false
    }
    /// Starts. `kicks` are the doorbells of the queues.
    ///
    /// # Errors
    /// It cannot work with what the driver has set up; the driver is told to reset it.
    fn activate(&mut self, activation: Activation, kicks: &[EventFd]) -> Result<(), DeviceError>;
    /// Stops, whether started or not, and forgets what the driver set up.
    fn reset(&mut self);
}
