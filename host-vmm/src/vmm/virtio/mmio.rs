//! virtio-mmio, version 2 (virtio 1.2, section 4.2): the registers through which a driver sets a device up.
//!
//! Every access is the guest's: order, width, offset and value are arbitrary. What the specification forbids is ignored.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_queue::{Queue, QueueT as _};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Activation, F_VERSION_1, Interrupt, VirtioDevice};
use crate::vmm::bus::BusDevice;
use crate::vmm::error::{Error, Result};
use crate::vmm::memory::Memory;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"HVMM");

/// Register offsets.
pub mod reg {
    pub const MAGIC: u64 = 0x00;
    pub const VERSION: u64 = 0x04;
    pub const DEVICE_ID: u64 = 0x08;
    pub const VENDOR_ID: u64 = 0x0C;
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub const QUEUE_SEL: u64 = 0x30;
    pub const QUEUE_NUM_MAX: u64 = 0x34;
    pub const QUEUE_NUM: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACK: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESC_LOW: u64 = 0x80;
    pub const QUEUE_DESC_HIGH: u64 = 0x84;
    pub const QUEUE_DRIVER_LOW: u64 = 0x90;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x94;
    pub const QUEUE_DEVICE_LOW: u64 = 0xA0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0xA4;
    pub const SHM_LEN_LOW: u64 = 0xB0;
    pub const SHM_BASE_HIGH: u64 = 0xBC;
    pub const CONFIG_GENERATION: u64 = 0xFC;
    pub const CONFIG: u64 = 0x100;
}

/// Bits of the status register.
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 0x40;
    pub const FAILED: u32 = 0x80;
    /// What a driver may set.
    pub const DRIVERS: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
}

/// A device's registers.
pub struct MmioTransport {
    device: Arc<Mutex<dyn VirtioDevice>>,
    memory: Arc<Memory>,
    interrupt: Interrupt,
    kicks: Vec<EventFd>,
    queues: Vec<Queue>,
    offered: u64,
    accepted: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    status: u32,
    interrupts_directly: bool,
}

impl MmioTransport {
    /// Registers of `device`, in the state after a reset.
    ///
    /// # Errors
    /// No eventfds for its queues.
    pub fn new(
        device: Arc<Mutex<dyn VirtioDevice>>,
        memory: Arc<Memory>,
        interrupt: Interrupt,
    ) -> Result<Self> {
        let (offered, sizes, interrupts_directly) = {
            let device = lock(&device);
            (device.features() | F_VERSION_1, device.queue_sizes(), device.interrupts_directly())
        };
        let mut queues = Vec::with_capacity(sizes.len());
        let mut kicks = Vec::with_capacity(sizes.len());
        for size in sizes {
            let invalid =
                |error: virtio_queue::Error| Error::Device { device: "queue", reason: error.to_string() };
            queues.push(Queue::new(*size).map_err(invalid)?);
            // Non-blocking: a full counter must not hold up the guest's processor.
            kicks
                .push(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::os("cannot make an eventfd"))?);
        }
        Ok(Self {
            device,
            memory,
            interrupt,
            kicks,
            queues,
            offered,
            accepted: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            status: 0,
            interrupts_directly,
        })
    }

    /// The queues' doorbells, in order.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(self.queue_sel as usize)
    }

    /// The selected queue, while it may be configured.
    fn queue_in_setup(&mut self) -> Option<&mut Queue> {
        const MASK: u32 = status::FEATURES_OK | status::DRIVER_OK | status::FAILED | status::NEEDS_RESET;
        if self.status & MASK != status::FEATURES_OK {
            return None;
        }
        self.queues.get_mut(self.queue_sel as usize)
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            reg::MAGIC => MAGIC,
            reg::VERSION => VERSION,
            reg::DEVICE_ID => lock(&self.device).device_id(),
            reg::VENDOR_ID => VENDOR,
            reg::DEVICE_FEATURES => half(self.offered, self.device_features_sel),
            reg::QUEUE_NUM_MAX => self.queue().map_or(0, |queue| u32::from(queue.max_size())),
            reg::QUEUE_READY => self.queue().map_or(0, |queue| u32::from(queue.ready())),
            reg::INTERRUPT_STATUS => {
                let direct = if self.interrupts_directly && self.status & status::DRIVER_OK != 0 {
                    Interrupt::USED
                } else {
                    0
                };
                self.interrupt.status.load(Ordering::SeqCst) | direct
            }
            reg::STATUS => self.status,
            // No shared memory: all ones is the length of a region that does not exist.
            reg::SHM_LEN_LOW..=reg::SHM_BASE_HIGH => u32::MAX,
            // The configurations here never change. (CONFIG_GENERATION and everything else)
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            reg::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            reg::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            reg::DRIVER_FEATURES => self.accept_features(value),
            reg::QUEUE_SEL => self.queue_sel = value,
            reg::QUEUE_NUM => {
                if let (Some(queue), Ok(size)) = (self.queue_in_setup(), u16::try_from(value)) {
                    queue.set_size(size);
                }
            }
            reg::QUEUE_READY => {
                if let Some(queue) = self.queue_in_setup() {
                    queue.set_ready(value == 1);
                }
            }
            reg::QUEUE_DESC_LOW => self.set_address(|queue| queue.set_desc_table_address(Some(value), None)),
            reg::QUEUE_DESC_HIGH => self.set_address(|queue| queue.set_desc_table_address(None, Some(value))),
            reg::QUEUE_DRIVER_LOW => {
                self.set_address(|queue| queue.set_avail_ring_address(Some(value), None))
            }
            reg::QUEUE_DRIVER_HIGH => {
                self.set_address(|queue| queue.set_avail_ring_address(None, Some(value)))
            }
            reg::QUEUE_DEVICE_LOW => self.set_address(|queue| queue.set_used_ring_address(Some(value), None)),
            reg::QUEUE_DEVICE_HIGH => {
                self.set_address(|queue| queue.set_used_ring_address(None, Some(value)))
            }
            reg::QUEUE_NOTIFY => {
                if let (true, Some(kick)) = (self.is_running(), self.kicks.get(value as usize)) {
                    // A full counter is a kick that has not been seen yet.
                    let _ = kick.write(1);
                }
            }
            reg::INTERRUPT_ACK => {
                self.interrupt.status.fetch_and(!value, Ordering::SeqCst);
            }
            reg::STATUS => self.set_status(value),
            _ => {}
        }
    }

    fn is_running(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK
    }

    fn set_address(&mut self, set: impl FnOnce(&mut Queue)) {
        if let Some(queue) = self.queue_in_setup().filter(|queue| !queue.ready()) {
            set(queue);
        }
    }

    fn accept_features(&mut self, value: u32) {
        if self.status & (status::DRIVER | status::FEATURES_OK) != status::DRIVER {
            return;
        }
        match self.driver_features_sel {
            0 => self.accepted = (self.accepted & !0xFFFF_FFFF) | u64::from(value),
            1 => self.accepted = (self.accepted & 0xFFFF_FFFF) | (u64::from(value) << 32),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        // Bits are only ever added by a driver; it cannot take back our demand for a reset.
        let mut new = self.status | (value & status::DRIVERS);
        let added = new & !self.status;
        if added & status::FEATURES_OK != 0 && !self.features_are_good() {
            new &= !status::FEATURES_OK;
        }
        if added & status::DRIVER_OK != 0 && new & status::FEATURES_OK == 0 {
            new &= !status::DRIVER_OK;
        }
        self.status = new;
        if new & added & status::DRIVER_OK != 0 && new & (status::FAILED | status::NEEDS_RESET) == 0 {
            self.activate();
        }
    }

    fn features_are_good(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & F_VERSION_1 != 0
    }

    fn activate(&mut self) {
        let bad = self.queues.iter().position(|queue| queue.ready() && !queue.is_valid(&*self.memory));
        let result = match bad {
            Some(index) => Err(super::DeviceError(format!("queue {index} is not in memory"))),
            None => {
                let activation = Activation {
                    memory: Arc::clone(&self.memory),
                    features: self.accepted,
                    queues: self.queues.iter().map(copy_of).collect(),
                    interrupt: self.interrupt.clone(),
                };
                lock(&self.device).activate(activation, &self.kicks)
            }
        };
        if let Err(error) = result {
            tracing::warn!("virtio device {}: {error}", lock(&self.device).device_id());
            self.status |= status::NEEDS_RESET;
            self.interrupt.signal_config();
        }
    }

    fn reset(&mut self) {
        lock(&self.device).reset();
        self.queues.iter_mut().for_each(Queue::reset);
        // A kick for the old queues means nothing to the new ones.
        for kick in &self.kicks {
            let _ = kick.read();
        }
        self.interrupt.status.store(0, Ordering::SeqCst);
        (self.status, self.accepted) = (0, 0);
        (self.device_features_sel, self.driver_features_sel, self.queue_sel) = (0, 0, 0);
    }
}

/// The device gets its own copy of what was agreed on.
fn copy_of(queue: &Queue) -> Queue {
    Queue::try_from(queue.state()).unwrap_or_else(|_| {
        // Not reachable: the state is that of a queue. A queue that is not ready is one that nobody uses.
        Queue::new(queue.max_size()).unwrap_or_default()
    })
}

fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn lock<T: ?Sized>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            let config = lock(&self.device).config();
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let mut rest = config.get(start..).unwrap_or_default().iter();
            data.fill_with(|| rest.next().copied().unwrap_or(0));
        } else if let (Ok(data), true) = (<&mut [u8; 4]>::try_from(&mut *data), offset.is_multiple_of(4)) {
            *data = self.read_register(offset).to_le_bytes();
        } else {
            data.fill(0);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // The configurations here are read-only.
        if let (Ok(value), true) =
            (<[u8; 4]>::try_from(data), offset < reg::CONFIG && offset.is_multiple_of(4))
        {
            self.write_register(offset, u32::from_le_bytes(value));
        }
    }
}
