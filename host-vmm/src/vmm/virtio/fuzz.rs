//! A guest that does anything at all with a device's registers and rings.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtio_queue::QueueT as _;
use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::block::Block;
use super::mmio::{MmioTransport, reg, status};
use super::{Activation, DeviceError, F_VERSION_1, Interrupt, QueueDevice, VirtioDevice};
use crate::fuzz::Bytes;
use crate::vmm::bus::BusDevice as _;
use crate::vmm::memory::{GuestRam, MIN_BYTES, Memory};
use crate::vmm::stop::Stop;

const DISK_BYTES: u64 = 16 << 10;
/// Operations of one input; more would only be slow.
const MOST_OPERATIONS: usize = 512;
/// Requests of one input that are worked off.
const MOST_ROUNDS: usize = 64;

/// Registers that drivers write.
const WRITTEN: [u64; 17] = [
    reg::STATUS,
    reg::DRIVER_FEATURES_SEL,
    reg::DRIVER_FEATURES,
    reg::QUEUE_SEL,
    reg::QUEUE_NUM,
    reg::QUEUE_READY,
    reg::QUEUE_NOTIFY,
    reg::INTERRUPT_ACK,
    reg::QUEUE_DESC_LOW,
    reg::QUEUE_DESC_HIGH,
    reg::QUEUE_DRIVER_LOW,
    reg::QUEUE_DRIVER_HIGH,
    reg::QUEUE_DEVICE_LOW,
    reg::QUEUE_DEVICE_HIGH,
    reg::DEVICE_FEATURES_SEL,
    reg::CONFIG,
    reg::MAGIC,
];

/// A disk that checks what the transport promises to devices.
struct Checked {
    disk: Block,
    active: bool,
    activations: usize,
}

impl VirtioDevice for Checked {
    fn device_id(&self) -> u32 {
        self.disk.device_id()
    }
    fn features(&self) -> u64 {
        self.disk.features()
    }
    fn queue_sizes(&self) -> &'static [u16] {
        self.disk.queue_sizes()
    }
    fn config(&self) -> Vec<u8> {
        self.disk.config()
    }
    fn activate(&mut self, activation: Activation, kicks: &[EventFd]) -> Result<(), DeviceError> {
        assert!(!self.active, "activated twice without a reset");
        assert_eq!(
            activation.features & !(self.features() | F_VERSION_1),
            0,
            "features that were not offered"
        );
        assert_ne!(activation.features & F_VERSION_1, 0);
        for queue in activation.queues.iter().filter(|queue| queue.ready()) {
            assert!(queue.is_valid(&*activation.memory), "a queue outside of memory");
        }
        assert_eq!((activation.queues.len(), kicks.len()), (1, 1));
        (self.active, self.activations) = (true, self.activations + 1);
        self.disk.activate(activation, kicks)
    }
    fn reset(&mut self) {
        self.active = false;
        self.disk.reset();
    }
}

/// Register accesses, memory writes and doorbells: see [`Input`] for the form. Nothing panics, hangs or leaves the guest's memory.
pub fn fuzz_virtio_mmio(data: &[u8]) {
    virtio_mmio(data);
}

/// Returns how often the device was started and how many requests it answered.
pub(super) fn virtio_mmio(data: &[u8]) -> (usize, usize) {
    let memory = Arc::new(GuestRam::new(MIN_BYTES).and_then(|ram| ram.map()).expect("guest memory"));
    let file: OwnedFd = memfd_create("disk", MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&file, DISK_BYTES).expect("size");
    let disk = Block::new(file.into(), false).expect("disk");
    let device = Arc::new(Mutex::new(Checked { disk, active: false, activations: 0 }));
    let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).expect("eventfd"));
    let mut transport =
        MmioTransport::new(device.clone(), Arc::clone(&memory), interrupt).expect("transport");
    let stop = Stop::new().expect("eventfd");
    let (mut input, mut rounds, mut answered) = (Input(Bytes(data)), 0, 0);
    for _ in 0..MOST_OPERATIONS {
        let Some(operation) = input.0.byte() else { break };
        let done = match operation {
            0..=199 => input.value().map(|value| {
                let register = WRITTEN[usize::from(operation) % WRITTEN.len()];
                transport.write(register, &value.to_le_bytes());
            }),
            200..=219 => input.value().map(|offset| {
                transport.read(u64::from(offset), &mut vec![0xFF; usize::from(operation - 200)]);
            }),
            220..=239 => input.value().map(|offset| {
                transport.write(u64::from(offset), &vec![0; usize::from(operation - 220)]);
            }),
            240..=247 if rounds < MOST_ROUNDS => {
                rounds += 1;
                let before = used_index(&memory);
                device.lock().expect("lock").disk.process(usize::from(operation - 240), &stop);
                answered += usize::from(used_index(&memory).wrapping_sub(before));
                Some(())
            }
            240..=247 => Some(()),
            248..=255 => input.0.memory_write().map(|(address, bytes)| {
                memory.write_slice(&bytes, GuestAddress(address)).expect("in memory");
            }),
        };
        if done.is_none() {
            break;
        }
        check(&mut transport, device.lock().expect("lock").active);
    }
    let activations = device.lock().expect("lock").activations;
    (activations, answered)
}

/// Index of the used ring where the corpus has it.
fn used_index(memory: &Memory) -> u16 {
    memory.read_obj(GuestAddress(0x3002)).unwrap_or(0)
}

fn check(transport: &mut MmioTransport, active: bool) {
    let mut word = [0; 4];
    transport.read(reg::STATUS, &mut word);
    let now = u32::from_le_bytes(word);
    assert_eq!(now & !(status::DRIVERS | status::NEEDS_RESET), 0, "status {now:#x}");
    if active {
        assert_ne!(now & status::DRIVER_OK, 0, "active with status {now:#x}");
    }
    if now & status::DRIVER_OK != 0 {
        assert_ne!(now & status::FEATURES_OK, 0, "running without agreed features");
    }
}

/// Bytes of an input: an operation byte (0 to 199 writes a register, 200 to 219 reads, 220 to 239 writes with an odd width, 240 to
/// 247 works a queue off, the rest writes memory) and its operands. A value is a byte below 128 as it is, a single bit, a page's
/// address, or four bytes.
struct Input<'a>(Bytes<'a>);

impl Input<'_> {
    fn value(&mut self) -> Option<u32> {
        self.0.value(128, 16, 0x1000)
    }
}
