//! Which device answers which address: one bus for I/O ports, one for memory-mapped registers.
//!
//! Built before the processors start and never changed afterwards, so that a look-up takes no lock. Each device has its own; a device
//! never calls into a bus.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{Error, Result};

/// Registers that a guest reads and writes. Offsets and lengths are the guest's: any combination can come, and an instruction with a
/// repeat prefix gives several elements at once.
pub trait BusDevice: Send {
    /// Fills `data`, which holds 0xFF in every byte before.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Takes `data`.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device on a bus, and on a thread of its own perhaps.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

struct Slot {
    base: u64,
    len: u64,
    device: SharedDevice,
}

/// Devices by address.
#[derive(Default)]
pub struct Bus {
    /// By ascending base, none overlapping.
    slots: Vec<Slot>,
}

impl Bus {
    /// Adds a device.
    ///
    /// # Errors
    /// The range is empty, wraps, or overlaps another one.
    pub fn insert(&mut self, base: u64, len: u64, device: SharedDevice) -> Result<()> {
        let overlap = |slot: &Slot| slot.base < base.saturating_add(len) && base < slot.base + slot.len;
        if len == 0 || base.checked_add(len).is_none() || self.slots.iter().any(overlap) {
            return Err(Error::Device {
                device: "bus",
                reason: format!("range {base:#x}+{len:#x} is taken"),
            });
        }
        let at = self.slots.partition_point(|slot| slot.base < base);
        self.slots.insert(at, Slot { base, len, device });
        Ok(())
    }

    fn find(&self, address: u64) -> Option<(&SharedDevice, u64)> {
        let after = self.slots.partition_point(|slot| slot.base <= address);
        let slot = self.slots.get(after.checked_sub(1)?)?;
        let offset = address - slot.base;
        (offset < slot.len).then_some((&slot.device, offset))
    }

    /// A guest's read; all ones where no device is.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xFF);
        if let Some((device, offset)) = self.find(address) {
            lock(device).read(offset, data);
        }
    }

    /// A guest's write; ignored where no device is.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address) {
            lock(device).write(offset, data);
        }
    }
}

/// Register state stays usable if a thread panicked: it belongs to this guest alone.
fn lock<T: ?Sized>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder(Vec<(u64, Vec<u8>)>);

    impl BusDevice for Recorder {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data[0] = offset as u8;
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            self.0.push((offset, data.to_vec()));
        }
    }

    #[test]
    fn addresses_reach_their_device_only() {
        let device = Arc::new(Mutex::new(Recorder::default()));
        let mut bus = Bus::default();
        bus.insert(0x100, 0x10, device.clone()).expect("free");
        bus.insert(0x80, 0x80, device.clone()).expect("free up to the other");
        assert!(bus.insert(0x10F, 1, device.clone()).is_err());
        assert!(bus.insert(0x70, 0x11, device.clone()).is_err());
        assert!(bus.insert(u64::MAX, 1, device.clone()).is_err());
        assert!(bus.insert(0x200, 0, device.clone()).is_err());
        let mut data = [0; 2];
        bus.read(0x10F, &mut data);
        assert_eq!(data, [0x0F, 0xFF]);
        bus.read(0x110, &mut data);
        assert_eq!(data, [0xFF, 0xFF]);
        bus.write(0x7F, &[1]);
        bus.write(0x81, &[2]);
        assert_eq!(device.lock().expect("lock").0, [(1, vec![2])]);
    }
}
