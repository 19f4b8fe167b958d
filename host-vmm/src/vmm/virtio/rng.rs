//! Entropy device: gives the guest random bytes of the host.

use rustix::rand::{GetRandomFlags, getrandom};
use virtio_queue::{Queue, QueueT as _};
use vmm_sys_util::eventfd::EventFd;

use super::{Activation, DeviceError, QueueDevice, VirtioDevice};
use crate::vmm::stop::Stop;
use std::io::Write as _;

const DEVICE_ID: u32 = 4;
const QUEUE_SIZES: &[u16] = &[64];
/// Bytes per request; a driver takes what it gets.
const MOST_BYTES: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Rng {
    active: Option<Activation>,
}

impl VirtioDevice for Rng {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn activate(&mut self, activation: Activation, _: &[EventFd]) -> Result<(), DeviceError> {
        self.active = Some(activation);
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
    }
}

impl QueueDevice for Rng {
    fn process(&mut self, index: usize, stop: &Stop) {
        let Some(Activation { memory, queues, interrupt, .. }) = &mut self.active else { return };
        let Some(queue) = queues.get_mut(index).filter(|queue: &&mut Queue| queue.ready()) else { return };
        let mut used = false;
        while !stop.is_requested() {
            let Some(chain) = queue.pop_descriptor_chain(&**memory) else { break };
            let head = chain.head_index();
            let written = chain.writer(&**memory).map_or(0, |mut writer| {
                let mut bytes = [0; MOST_BYTES];
                let len = writer.available_bytes().min(MOST_BYTES);
                let filled = getrandom(&mut bytes[..len], GetRandomFlags::empty()).unwrap_or(0);
                writer.write(&bytes[..filled]).unwrap_or(0)
            });
            if queue.add_used(&**memory, head, written as u32).is_err() {
                break;
            }
            used = true;
        }
        if used {
            interrupt.signal_used();
        }
    }
}
