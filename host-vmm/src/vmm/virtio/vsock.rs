//! vsock, carried by the host's kernel: `/dev/vhost-vsock` works on the guest's queues itself and raises its interrupt itself.
//!
//! The kernel vouches for the guest's CID, which makes it the identity of whoever connects from this machine.

use std::sync::Arc;

use vhost::vhost_kern::vsock::Vsock as Vhost;
use vhost::vsock::VhostVsock as _;
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::{Queue, QueueT as _};
use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;

use super::{Activation, DeviceError, F_VERSION_1, VirtioDevice};
use crate::vmm::error::{Error, Result};
use crate::vmm::memory::Memory;

const DEVICE_ID: u32 = 19;
/// Receive, transmit, event. The kernel serves the first two; no event ever comes.
const QUEUE_SIZES: &[u16] = &[256, 256, 16];
const KERNEL_QUEUES: usize = 2;
/// What we pass on of the kernel's features: indirect descriptors, event index, seqpacket sockets.
const FEATURES: u64 = F_INDIRECT | F_EVENT_INDEX | F_SEQPACKET;
const F_SEQPACKET: u64 = 1 << 1;
const F_INDIRECT: u64 = 1 << 28;
const F_EVENT_INDEX: u64 = 1 << 29;
/// CIDs 0 to 2 are the hypervisor, the local machine and the host.
const FIRST_CID: u64 = 3;
/// CIDs that are tried before giving up.
const TRIES: u64 = 256;

/// See the module.
pub struct Vsock {
    kernel: Vhost<Arc<Memory>>,
    memory: Arc<Memory>,
    cid: u64,
    features: u64,
    running: bool,
}

impl Vsock {
    /// Opens `/dev/vhost-vsock` and takes `cid`, or a free one.
    ///
    /// # Errors
    /// There is no such device, or the CID is in use.
    pub fn new(memory: Arc<Memory>, cid: Option<u32>) -> Result<Self> {
        let failed = |what: &str, error: vhost::Error| Error::Device {
            device: "vsock",
            reason: format!("{what}: {error}"),
        };
        let kernel = Vhost::new(Arc::clone(&memory)).map_err(|error| {
            failed("cannot open /dev/vhost-vsock (is the vhost_vsock module loaded?)", error)
        })?;
        kernel.set_owner().map_err(|error| failed("cannot own it", error))?;
        let features = kernel.get_features().map_err(|error| failed("cannot read its features", error))?;
        if features & F_VERSION_1 == 0 {
            return Err(Error::Device {
                device: "vsock",
                reason: "the kernel has only the legacy interface".into(),
            });
        }
        let cid = match cid.map(u64::from) {
            Some(cid) => {
                kernel.set_guest_cid(cid).map_err(|error| failed("the CID is not free", error))?;
                cid
            }
            None => {
                // Different processes start at different places, so that they seldom meet.
                let first = FIRST_CID + u64::from(std::process::id()) % 0x1000_0000;
                (first..first + TRIES)
                    .find(|cid| kernel.set_guest_cid(*cid).is_ok())
                    .ok_or_else(|| Error::Device { device: "vsock", reason: "no free CID found".into() })?
            }
        };
        Ok(Self { kernel, memory, cid, features: features & FEATURES, running: false })
    }

    /// The guest's CID.
    pub fn cid(&self) -> u32 {
        // Only 32-bit ones are taken.
        self.cid as u32
    }

    fn start(&self, activation: &Activation, kicks: &[EventFd]) -> vhost::Result<()> {
        self.kernel.set_features(activation.features)?;
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo {
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
                mmap_offset: 0,
                mmap_handle: -1,
            })
            .collect();
        self.kernel.set_mem_table(&regions)?;
        for (index, (queue, kick)) in activation.queues.iter().zip(kicks).enumerate().take(KERNEL_QUEUES) {
            let config = VringConfigData {
                queue_max_size: queue.max_size(),
                queue_size: queue.size(),
                flags: 0,
                desc_table_addr: queue.desc_table(),
                used_ring_addr: queue.used_ring(),
                avail_ring_addr: queue.avail_ring(),
                log_addr: None,
            };
            self.kernel.set_vring_num(index, queue.size())?;
            self.kernel.set_vring_base(index, 0)?;
            self.kernel.set_vring_addr(index, &config)?;
            self.kernel.set_vring_call(index, activation.interrupt.line())?;
            self.kernel.set_vring_kick(index, kick)?;
        }
        self.kernel.start()
    }
}

/// Whether a queue's three parts each lie in one region: the kernel gets the address of their first byte in our address space.
fn lies_in_memory(queue: &Queue, memory: &Memory) -> bool {
    let size = usize::from(queue.size());
    [(queue.desc_table(), 16 * size), (queue.avail_ring(), 6 + 2 * size), (queue.used_ring(), 6 + 8 * size)]
        .into_iter()
        .all(|(address, len)| memory.get_slice(GuestAddress(address), len).is_ok())
}

impl VirtioDevice for Vsock {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn config(&self) -> Vec<u8> {
        self.cid.to_le_bytes().to_vec()
    }

    fn interrupts_directly(&self) -> bool {
        true
    }

    fn activate(
        &mut self,
        activation: Activation,
        kicks: &[EventFd],
    ) -> std::result::Result<(), DeviceError> {
        let good = |queue: &Queue| queue.ready() && lies_in_memory(queue, &self.memory);
        if !activation.queues.iter().take(KERNEL_QUEUES).all(good) {
            return Err(DeviceError("the queues are not set up".into()));
        }
        self.running = true;
        self.start(&activation, kicks).map_err(|error| {
            self.reset();
            DeviceError(format!("the kernel's vsock refused: {error}"))
        })
    }

    fn reset(&mut self) {
        if std::mem::take(&mut self.running)
            && let Err(error) = self.kernel.stop()
        {
            tracing::warn!("cannot stop the kernel's vsock: {error}");
        }
    }
}
