//! Devices under a driver of our own, and under one that does not keep to the rules.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::block::Block;
use super::fuzz::{fuzz_virtio_mmio, virtio_mmio};
use super::mmio::{MmioTransport, reg, status};
use super::rng::Rng;
use super::{F_VERSION_1, Interrupt, QueueDevice};
use crate::vmm::bus::BusDevice as _;
use crate::vmm::memory::{GuestRam, Memory};
use crate::vmm::stop::Stop;

const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const WRITE: u16 = 2;

/// A well-behaved driver of one queue.
struct Driver<D> {
    device: Arc<Mutex<D>>,
    transport: MmioTransport,
    memory: Arc<Memory>,
    line: EventFd,
    requests: u16,
}

impl<D: QueueDevice + 'static> Driver<D> {
    fn new(device: D) -> Self {
        let memory = Arc::new(GuestRam::new(4 << 20).and_then(|ram| ram.map()).expect("guest memory"));
        let line = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        let device = Arc::new(Mutex::new(device));
        let interrupt = Interrupt::new(line.try_clone().expect("eventfd"));
        let transport =
            MmioTransport::new(device.clone(), Arc::clone(&memory), interrupt).expect("transport");
        Self { device, transport, memory, line, requests: 0 }
    }

    fn get(&mut self, register: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(register, &mut word);
        u32::from_le_bytes(word)
    }

    fn set(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    fn negotiate(&mut self, features: u64) -> u32 {
        self.set(reg::STATUS, status::ACKNOWLEDGE);
        self.set(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.set(reg::DRIVER_FEATURES_SEL, select);
            self.set(reg::DRIVER_FEATURES, half);
        }
        self.set(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        self.get(reg::STATUS)
    }

    fn set_queue(&mut self, size: u32, descriptors: u64) {
        self.set(reg::QUEUE_SEL, 0);
        self.set(reg::QUEUE_NUM, size);
        let parts = [
            (reg::QUEUE_DESC_LOW, descriptors),
            (reg::QUEUE_DRIVER_LOW, AVAILABLE),
            (reg::QUEUE_DEVICE_LOW, USED),
        ];
        for (register, address) in parts {
            self.set(register, address as u32);
            self.set(register + 4, (address >> 32) as u32);
        }
        self.set(reg::QUEUE_READY, 1);
    }

    fn start(mut self) -> Self {
        let agreed = self.negotiate(F_VERSION_1);
        assert_ne!(agreed & status::FEATURES_OK, 0);
        self.set_queue(16, DESCRIPTORS);
        self.set(reg::STATUS, agreed | status::DRIVER_OK);
        assert_eq!(self.get(reg::STATUS), agreed | status::DRIVER_OK);
        self
    }

    /// One request of parts (address, length, flags); the bytes that the device says it wrote.
    fn request(&mut self, parts: &[(u64, u32, u16)]) -> u32 {
        for (index, (address, len, flags)) in (0u16..).zip(parts) {
            let at = GuestAddress(DESCRIPTORS + 16 * u64::from(index));
            let more = u16::from(usize::from(index) + 1 < parts.len());
            self.memory.write_obj(*address, at).expect("in memory");
            self.memory.write_obj(*len, GuestAddress(at.0 + 8)).expect("in memory");
            self.memory.write_obj(flags | more, GuestAddress(at.0 + 12)).expect("in memory");
            self.memory.write_obj(index + 1, GuestAddress(at.0 + 14)).expect("in memory");
        }
        let slot = u64::from(self.requests % 16);
        self.memory.write_obj(0u16, GuestAddress(AVAILABLE + 4 + 2 * slot)).expect("in memory");
        self.requests += 1;
        self.memory.write_obj(self.requests, GuestAddress(AVAILABLE + 2)).expect("in memory");
        self.set(reg::QUEUE_NOTIFY, 0);
        assert!(self.transport.kicks()[0].read().is_ok(), "the doorbell rang");
        self.device.lock().expect("lock").process(0, &Stop::new().expect("eventfd"));
        assert!(self.line.read().is_ok(), "an interrupt came");
        assert_eq!(self.get(reg::INTERRUPT_STATUS), 1);
        self.set(reg::INTERRUPT_ACK, 1);
        assert_eq!(self.get(reg::INTERRUPT_STATUS), 0);
        let used: u16 = self.memory.read_obj(GuestAddress(USED + 2)).expect("in memory");
        assert_eq!(used, self.requests);
        self.memory.read_obj(GuestAddress(USED + 8 + 8 * slot)).expect("in memory")
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).expect("in memory");
        bytes
    }
}

fn disk(read_only: bool) -> (fs::File, Driver<Block>) {
    let mut file = tempfile::tempfile().expect("file");
    for sector in 0..8u8 {
        file.write_all(&[sector; 512]).expect("written");
    }
    let device = Block::new(file.try_clone().expect("file"), read_only).expect("disk");
    (file, Driver::new(device).start())
}

/// One request to a disk with `len` bytes of data at 0x5000; its status.
fn block_request(driver: &mut Driver<Block>, kind: u32, sector: u64, len: u32, flags: u16) -> u8 {
    driver.memory.write_obj(u64::from(kind), GuestAddress(0x4000)).expect("in memory");
    driver.memory.write_obj(sector, GuestAddress(0x4008)).expect("in memory");
    driver.memory.write_obj(0xEEu8, GuestAddress(0x6FFF)).expect("in memory");
    driver.request(&[(0x4000, 16, 0), (0x5000, len, flags), (0x6FFF, 1, WRITE)]);
    driver.bytes(0x6FFF, 1)[0]
}

#[test]
fn a_driver_finds_the_device_and_its_size() {
    let (_, mut driver) = disk(false);
    assert_eq!(driver.get(reg::MAGIC), u32::from_le_bytes(*b"virt"));
    assert_eq!((driver.get(reg::VERSION), driver.get(reg::DEVICE_ID)), (2, 2));
    assert_eq!(driver.get(reg::CONFIG), 8);
    assert_eq!(driver.get(reg::QUEUE_NUM_MAX), 256);
    assert_eq!(driver.get(reg::SHM_LEN_LOW), u32::MAX);
    driver.set(reg::QUEUE_SEL, 1);
    assert_eq!(driver.get(reg::QUEUE_NUM_MAX), 0);
}

#[test]
fn sectors_are_read_and_written() {
    let (mut file, mut driver) = disk(false);
    assert_eq!(block_request(&mut driver, 0, 3, 1024, WRITE), 0);
    assert_eq!(driver.bytes(0x5000, 1024), [vec![3; 512], vec![4; 512]].concat());
    driver.memory.write_slice(&[0x77; 512], GuestAddress(0x5000)).expect("in memory");
    assert_eq!(block_request(&mut driver, 1, 7, 512, 0), 0);
    let mut sector = [0; 512];
    file.seek(SeekFrom::Start(7 * 512)).expect("seek");
    file.read_exact(&mut sector).expect("read");
    assert_eq!(sector, [0x77; 512]);
}

#[test]
fn requests_outside_of_the_disk_fail_and_change_nothing() {
    let (file, mut driver) = disk(false);
    for (kind, sector, len) in [(0, 8, 512), (0, 7, 1024), (1, u64::MAX, 512), (1, 8, 512), (0, 0, 511)] {
        let flags = if kind == 0 { WRITE } else { 0 };
        assert_eq!(block_request(&mut driver, kind, sector, len, flags), 1, "{kind} {sector} {len}");
    }
    assert_eq!(block_request(&mut driver, 99, 0, 512, 0), 2);
    assert_eq!(file.metadata().expect("metadata").len(), 8 * 512);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let (mut file, mut driver) = disk(true);
    assert_eq!(block_request(&mut driver, 1, 0, 512, 0), 1);
    let mut sector = [0xFF; 512];
    file.rewind().expect("seek");
    file.read_exact(&mut sector).expect("read");
    assert_eq!(sector, [0; 512]);
}

#[test]
fn random_bytes_fill_what_the_driver_gives() {
    let mut driver = Driver::new(Rng::default()).start();
    assert_eq!(driver.request(&[(0x5000, 64, WRITE)]), 64);
    assert_ne!(driver.bytes(0x5000, 64), vec![0; 64]);
    assert_eq!(driver.bytes(0x5040, 64), vec![0; 64]);
    // More than a request may have: as much as there is.
    assert_eq!(driver.request(&[(0x1_0000, 1 << 20, WRITE)]), 4096);
}

#[test]
fn features_that_were_not_offered_are_not_agreed_on() {
    for features in [0, F_VERSION_1 | 1 << 60, 1] {
        let mut driver = Driver::new(Rng::default());
        assert_eq!(driver.negotiate(features) & status::FEATURES_OK, 0, "{features:#x}");
        // And without an agreement there is no start.
        driver.set(reg::STATUS, 0xF);
        assert_eq!(driver.get(reg::STATUS) & status::DRIVER_OK, 0);
    }
}

#[test]
fn a_queue_outside_of_memory_is_noticed_at_the_start() {
    let mut driver = Driver::new(Rng::default());
    let agreed = driver.negotiate(F_VERSION_1);
    driver.set_queue(16, 1 << 40);
    driver.set(reg::STATUS, agreed | status::DRIVER_OK);
    assert_ne!(driver.get(reg::STATUS) & status::NEEDS_RESET, 0);
    assert_eq!(driver.get(reg::INTERRUPT_STATUS), 2);
    driver.set(reg::STATUS, 0);
    assert_eq!((driver.get(reg::STATUS), driver.get(reg::INTERRUPT_STATUS)), (0, 0));
    // Now as it should be.
    let mut driver = driver.start();
    assert_eq!(driver.request(&[(0x5000, 8, WRITE)]), 8);
}

#[test]
fn a_running_queue_cannot_be_moved() {
    let mut driver = Driver::new(Rng::default()).start();
    driver.set_queue(8, 0x8000);
    driver.set(reg::QUEUE_READY, 0);
    assert_eq!(driver.get(reg::QUEUE_READY), 1);
    assert_eq!(driver.request(&[(0x5000, 8, WRITE)]), 8);
}

#[test]
fn accesses_of_odd_width_do_nothing() {
    let mut driver = Driver::new(Rng::default()).start();
    let before = driver.get(reg::STATUS);
    driver.transport.write(reg::STATUS, &[0]);
    driver.transport.write(reg::STATUS, &[0; 8]);
    driver.transport.write(reg::STATUS + 1, &[0; 4]);
    assert_eq!(driver.get(reg::STATUS), before);
    let mut bytes = [0xFF; 2];
    driver.transport.read(reg::MAGIC, &mut bytes);
    assert_eq!(bytes, [0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_sequence_of_accesses_panics_or_hangs(data in proptest::collection::vec(any::<u8>(), 0..1200)) {
        fuzz_virtio_mmio(&data);
    }
}

#[test]
fn the_corpus_and_mutations_of_it() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/virtio_mmio");
    let (mut started, mut answered) = (0, 0);
    for entry in fs::read_dir(directory).expect("corpus") {
        let data = fs::read(entry.expect("entry").path()).expect("readable");
        let outcome = virtio_mmio(&data);
        (started, answered) = (started + outcome.0, answered + outcome.1);
        for at in 0..data.len() {
            for change in [1, 97, 0x80] {
                let mut changed = data.clone();
                changed[at] = changed[at].wrapping_add(change);
                fuzz_virtio_mmio(&changed);
            }
        }
    }
    // Otherwise the corpus reaches nothing.
    assert!(started >= 3 && answered >= 3, "{started} starts, {answered} answers");
}
