//! The driver of a virtio vsock device: sets it up through its registers and works on its queues in guest memory.
//!
//! Everything is on one thread. A queue's descriptor number N always has buffer number N.
#![allow(unsafe_code)] // An eventfd of vmm-sys-util can only be borrowed by its number.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use host_vmm::vmm::bus::BusDevice as _;
use host_vmm::vmm::layout;
use host_vmm::vmm::memory::{GuestRam, Memory};
use host_vmm::vmm::virtio::mmio::{MmioTransport, reg, status};
use host_vmm::vmm::virtio::vsock::Vsock;
use host_vmm::vmm::virtio::{F_VERSION_1, Interrupt};
use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::packet::{HEADER_BYTES, Header};

/// Entries of each queue.
const SIZE: u16 = 64;
/// The most payload of a packet that is sent; receive buffers are as large.
pub const PAYLOAD_BYTES: usize = 32 << 10;
const BUFFER_BYTES: u64 = 64 << 10;
/// RAM on both sides of the hole: a queue lies in each part.
const RAM_BYTES: u64 = layout::HOLE + (64 << 20);
const RECEIVE: Place = Place { index: 0, base: layout::HOLE_END };
const SEND: Place = Place { index: 1, base: 1 << 20 };

/// Where a queue is.
#[derive(Clone, Copy)]
struct Place {
    index: u32,
    base: u64,
}

impl Place {
    const DESCRIPTOR_WRITE: u16 = 2;

    fn available(self) -> u64 {
        self.base + 0x1000
    }

    fn used(self) -> u64 {
        self.base + 0x2000
    }

    fn buffer(self, slot: u16) -> GuestAddress {
        GuestAddress(self.base + 0x10_0000 + u64::from(slot) * BUFFER_BYTES)
    }
}

/// What a driver counts of a queue.
struct Ring {
    place: Place,
    flags: u16,
    available: u16,
    used: u16,
}

impl Ring {
    fn give(&mut self, memory: &Memory, slot: u16, len: usize) -> Result<()> {
        let descriptor = self.place.base + 16 * u64::from(slot);
        memory.write_obj(self.place.buffer(slot).0, GuestAddress(descriptor))?;
        memory.write_obj(len as u32, GuestAddress(descriptor + 8))?;
        memory.write_obj(self.flags, GuestAddress(descriptor + 12))?;
        let entry = self.place.available() + 4 + 2 * u64::from(self.available % SIZE);
        memory.write_obj(slot, GuestAddress(entry))?;
        self.available = self.available.wrapping_add(1);
        memory.store(self.available, GuestAddress(self.place.available() + 2), Ordering::Release)?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// A slot that the device is done with, and how many bytes it wrote.
    fn take(&mut self, memory: &Memory) -> Result<Option<(u16, usize)>> {
        let used: u16 = memory.load(GuestAddress(self.place.used() + 2), Ordering::Acquire)?;
        if used == self.used {
            return Ok(None);
        }
        let entry = self.place.used() + 4 + 8 * u64::from(self.used % SIZE);
        self.used = self.used.wrapping_add(1);
        let slot: u32 = memory.read_obj(GuestAddress(entry))?;
        let len: u32 = memory.read_obj(GuestAddress(entry + 4))?;
        let slot = u16::try_from(slot).ok().filter(|slot| *slot < SIZE).context("a used slot")?;
        Ok(Some((slot, len as usize)))
    }
}

/// See the module.
pub struct Driver {
    transport: MmioTransport,
    memory: Arc<Memory>,
    line: EventFd,
    receive: Ring,
    send: Ring,
    free: Vec<u16>,
}

impl Driver {
    /// Makes a guest's memory and vsock device, and starts the device.
    pub fn start(cid: u32) -> Result<Self> {
        let memory = Arc::new(GuestRam::new(RAM_BYTES)?.map()?);
        let device = Arc::new(Mutex::new(Vsock::new(Arc::clone(&memory), Some(cid))?));
        let line = EventFd::new(EFD_NONBLOCK).context("an eventfd")?;
        let interrupt = Interrupt::new(line.try_clone().context("an eventfd")?);
        let transport = MmioTransport::new(device, Arc::clone(&memory), interrupt)?;
        let ring = |place, flags| Ring { place, flags, available: 0, used: 0 };
        let mut driver = Self {
            transport,
            memory,
            line,
            receive: ring(RECEIVE, Place::DESCRIPTOR_WRITE),
            send: ring(SEND, 0),
            free: (0..SIZE).collect(),
        };
        driver.set_up(cid)?;
        for slot in 0..SIZE {
            driver.receive.give(&driver.memory, slot, HEADER_BYTES + PAYLOAD_BYTES)?;
        }
        driver.notify(RECEIVE);
        Ok(driver)
    }

    fn set_up(&mut self, cid: u32) -> Result<()> {
        ensure!(self.get(reg::DEVICE_ID) == 19, "the device is no vsock");
        ensure!(self.get(reg::CONFIG) == cid, "the device has another CID");
        self.set(reg::STATUS, status::ACKNOWLEDGE);
        self.set(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for (select, half) in [(0, F_VERSION_1 as u32), (1, (F_VERSION_1 >> 32) as u32)] {
            self.set(reg::DRIVER_FEATURES_SEL, select);
            self.set(reg::DRIVER_FEATURES, half);
        }
        self.set(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        for place in [RECEIVE, SEND] {
            self.set(reg::QUEUE_SEL, place.index);
            self.set(reg::QUEUE_NUM, u32::from(SIZE));
            for (register, address) in [
                (reg::QUEUE_DESC_LOW, place.base),
                (reg::QUEUE_DRIVER_LOW, place.available()),
                (reg::QUEUE_DEVICE_LOW, place.used()),
            ] {
                self.set(register, address as u32);
                self.set(register + 4, (address >> 32) as u32);
            }
            self.set(reg::QUEUE_READY, 1);
        }
        let wanted = self.get(reg::STATUS) | status::DRIVER_OK;
        self.set(reg::STATUS, wanted);
        let have = self.get(reg::STATUS);
        ensure!(have == wanted, "the device's status is {have:#x} instead of {wanted:#x}");
        Ok(())
    }

    fn get(&mut self, register: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(register, &mut word);
        u32::from_le_bytes(word)
    }

    fn set(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    fn notify(&mut self, place: Place) {
        self.set(reg::QUEUE_NOTIFY, place.index);
    }

    /// Readable when the device has interrupted.
    pub fn interrupt(&self) -> BorrowedFd<'_> {
        // SAFETY: the eventfd is open as long as `self`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.line.as_raw_fd()) }
    }

    /// Forgets an interrupt.
    pub fn acknowledge(&mut self) {
        let _ = self.line.read();
    }

    /// Whether a packet can be sent now.
    pub fn can_send(&mut self) -> Result<bool> {
        while let Some((slot, _)) = self.send.take(&self.memory)? {
            self.free.push(slot);
        }
        Ok(!self.free.is_empty())
    }

    /// Sends a packet; [`Self::can_send`] has said that it can be.
    pub fn send(&mut self, header: &Header, payload: &[u8]) -> Result<()> {
        let slot = self.free.pop().context("no free slot")?;
        let at = SEND.buffer(slot);
        self.memory.write_slice(&header.encode(), at)?;
        self.memory.write_slice(payload, GuestAddress(at.0 + HEADER_BYTES as u64))?;
        self.send.give(&self.memory, slot, HEADER_BYTES + payload.len())?;
        self.notify(SEND);
        Ok(())
    }

    /// The next packet that has come.
    pub fn receive(&mut self) -> Result<Option<(Header, Vec<u8>)>> {
        let Some((slot, len)) = self.receive.take(&self.memory)? else { return Ok(None) };
        ensure!((HEADER_BYTES..=HEADER_BYTES + PAYLOAD_BYTES).contains(&len), "a packet of {len} bytes");
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, RECEIVE.buffer(slot))?;
        self.receive.give(&self.memory, slot, HEADER_BYTES + PAYLOAD_BYTES)?;
        self.notify(RECEIVE);
        let payload = bytes.split_off(HEADER_BYTES);
        let header = Header::decode(&bytes)?;
        ensure!(header.len as usize == payload.len(), "a packet with a wrong length");
        Ok(Some((header, payload)))
    }
}
