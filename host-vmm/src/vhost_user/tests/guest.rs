//! A front end and a driver in this process: what QEMU and the guest's kernel do.

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::vhost_user::header::{HEADER_BYTES, Header};
use crate::vmm::memory::{GuestRam, MIN_BYTES, Memory, RamRegion};

pub const RECEIVE: usize = 0;
pub const TRANSMIT: usize = 1;
/// Entries of a ring.
const SIZE: u16 = 64;
/// The second region, where data lie; it begins in the middle of the file.
pub const HIGH: u64 = 1 << 32;
/// Room of one receive buffer, as Linux has it.
const BUFFER: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(20);

pub const F_NEXT: u16 = 1;
pub const F_WRITE: u16 = 2;
pub const F_INDIRECT: u16 = 4;

/// One ring: the tables of ring `i` are at `0x10000 * (i + 1)`, three pages.
struct Ring {
    base: u64,
    /// What was made available, and what was seen used.
    available: u16,
    used: u16,
    kick: EventFd,
    call: EventFd,
    /// Waits for `call`.
    calls: Epoll,
}

impl Ring {
    fn new(base: u64) -> Self {
        let call = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        let calls = Epoll::new().expect("epoll");
        let event = EpollEvent::new(EventSet::IN, 0);
        calls.ctl(ControlOperation::Add, call.as_raw_fd(), event).expect("epoll");
        Ring { base, available: 0, used: 0, kick: EventFd::new(EFD_NONBLOCK).expect("eventfd"), call, calls }
    }
}

pub struct Guest {
    pub front_end: Frontend,
    pub ram: GuestRam,
    memory: Memory,
    rings: [Ring; 2],
}

impl Guest {
    /// Two regions of one file, the higher one first in it.
    pub fn ram() -> GuestRam {
        let whole = GuestRam::new(2 * MIN_BYTES).expect("memory");
        let region = |gpa, offset_bytes| RamRegion {
            gpa,
            len_bytes: MIN_BYTES,
            file: Arc::clone(&whole.regions[0].file),
            offset_bytes,
        };
        GuestRam { regions: vec![region(0, MIN_BYTES), region(HIGH, 0)] }
    }

    /// Connects to the back end and starts the device.
    pub fn start(socket: &Path, ram: GuestRam) -> Guest {
        let mut front_end = Frontend::connect(socket, 3).expect("the back end");
        let features = front_end.get_features().expect("features");
        front_end.set_owner().expect("owner");
        front_end.set_features(features).expect("features");
        let protocol = front_end.get_protocol_features().expect("protocol features");
        assert!(protocol.contains(VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ));
        front_end.set_protocol_features(protocol).expect("protocol features");
        front_end.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        assert!(front_end.get_queue_num().expect("rings") >= 2);
        let memory = ram.map().expect("mapped");
        let rings = [Ring::new(0x10000), Ring::new(0x20000)];
        let mut guest = Guest { front_end, ram, memory, rings };
        guest.share_memory();
        guest.start_rings([0, 0]);
        guest
    }

    pub fn cid(&mut self) -> u64 {
        let (_, bytes) = self
            .front_end
            .get_config(0, 8, VhostUserConfigFlags::empty(), &[0; 8])
            .expect("the configuration");
        u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
    }

    pub fn share_memory(&self) {
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).expect("a file"))
            .collect();
        self.front_end.set_mem_table(&regions).expect("memory");
    }

    /// Starts both rings, at these indices.
    pub fn start_rings(&mut self, bases: [u16; 2]) {
        let at = |address| self.memory.get_host_address(GuestAddress(address)).expect("mapped") as u64;
        for (index, ring) in self.rings.iter().enumerate() {
            let config = VringConfigData {
                queue_max_size: SIZE,
                queue_size: SIZE,
                flags: 0,
                desc_table_addr: at(ring.base),
                used_ring_addr: at(ring.base + 0x2000),
                avail_ring_addr: at(ring.base + 0x1000),
                log_addr: None,
            };
            self.front_end.set_vring_num(index, SIZE).expect("size");
            self.front_end.set_vring_base(index, bases[index]).expect("base");
            self.front_end.set_vring_addr(index, &config).expect("addresses");
            self.front_end.set_vring_call(index, &ring.call).expect("call");
            self.front_end.set_vring_kick(index, &ring.kick).expect("kick");
            self.front_end.set_vring_enable(index, true).expect("enabled");
        }
    }

    /// Stops both rings; their indices.
    pub fn stop_rings(&mut self) -> [u16; 2] {
        [RECEIVE, TRANSMIT].map(|index| self.front_end.get_vring_base(index).expect("base") as u16)
    }

    /// What a driver does that begins anew.
    pub fn clear_rings(&mut self) {
        for ring in &mut self.rings {
            self.memory.write_slice(&[0; 0x3000], GuestAddress(ring.base)).expect("memory");
            (ring.available, ring.used) = (0, 0);
        }
    }

    fn descriptor(&self, table: u64, index: u16, (address, len): (u64, u32), flags: u16) {
        let mut bytes = Vec::new();
        bytes.extend(address.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend((index + 1).to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(table + 16 * u64::from(index))).expect("memory");
    }

    /// Makes the chain that begins with descriptor `head` available.
    fn offer(&mut self, ring: usize, head: u16) {
        let ring = &mut self.rings[ring];
        let slot = ring.base + 0x1004 + 2 * u64::from(ring.available % SIZE);
        self.memory.write_obj(head, GuestAddress(slot)).expect("memory");
        ring.available = ring.available.wrapping_add(1);
        self.memory
            .store(ring.available, GuestAddress(ring.base + 0x1002), std::sync::atomic::Ordering::Release)
            .expect("memory");
    }

    pub fn kick(&self, ring: usize) {
        self.rings[ring].kick.write(1).expect("an eventfd");
    }

    /// The next used entry of a ring (its descriptor and length), waiting for the interrupt.
    fn used(&mut self, ring: usize) -> (u16, u32) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = self.rings[ring].used;
            if self.used_index(ring) != found {
                let ring = &mut self.rings[ring];
                let slot = ring.base + 0x2004 + 8 * u64::from(found % SIZE);
                let entry: [u32; 2] =
                    [slot, slot + 4].map(|at| self.memory.read_obj(GuestAddress(at)).expect("memory"));
                ring.used = found.wrapping_add(1);
                return (entry[0] as u16, entry[1]);
            }
            // The used index that the next interrupt is wanted for.
            let event = self.rings[ring].base + 0x1004 + 2 * u64::from(SIZE);
            self.memory.write_obj(found, GuestAddress(event)).expect("memory");
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            if self.used_index(ring) != found {
                continue;
            }
            assert!(Instant::now() < deadline, "no interrupt of ring {ring}");
            let mut events = [EpollEvent::default()];
            let _ = self.rings[ring].calls.wait(LIMIT.as_millis() as i32, &mut events);
            let _ = self.rings[ring].call.read();
        }
    }

    /// What of a ring was looked at.
    pub fn seen(&self, ring: usize) -> u16 {
        self.rings[ring].used
    }

    pub fn used_index(&self, ring: usize) -> u16 {
        let at = GuestAddress(self.rings[ring].base + 0x2002);
        self.memory.load(at, std::sync::atomic::Ordering::Acquire).expect("memory")
    }

    /// Sends a packet whose data are in as many descriptors as `pieces` says, and waits until the device has taken it.
    pub fn send(&mut self, header: Header, data: &[u8], pieces: &[usize]) {
        self.send_from(header, data, pieces, false);
    }

    /// As [`Guest::send`], through an indirect table.
    pub fn send_indirect(&mut self, header: Header, data: &[u8], pieces: &[usize]) {
        self.send_from(header, data, pieces, true);
    }

    fn send_from(&mut self, header: Header, data: &[u8], pieces: &[usize], indirect: bool) {
        assert_eq!(pieces.iter().sum::<usize>(), data.len());
        let header = Header { len: (data.len() as u32).into(), ..header };
        let header_at = 0x3_0000;
        self.memory.write_slice(header.as_bytes(), GuestAddress(header_at)).expect("memory");
        let mut buffers = vec![(header_at, HEADER_BYTES as u32)];
        // Pieces lie apart, in both regions.
        let (mut rest, mut at) = (data, 0x4_0000);
        for (index, len) in pieces.iter().enumerate() {
            let (now, later) = rest.split_at(*len);
            let address = if index % 2 == 0 { HIGH + at } else { at };
            self.memory.write_slice(now, GuestAddress(address)).expect("memory");
            buffers.push((address, now.len() as u32));
            (rest, at) = (later, at + now.len() as u64 + 64);
        }
        let table = if indirect { 0x3_1000 } else { self.rings[TRANSMIT].base };
        for (index, buffer) in buffers.iter().enumerate() {
            let flags = if index + 1 < buffers.len() { F_NEXT } else { 0 };
            self.descriptor(table, index as u16, *buffer, flags);
        }
        if indirect {
            self.descriptor(self.rings[TRANSMIT].base, 0, (table, 16 * buffers.len() as u32), F_INDIRECT);
        }
        self.offer(TRANSMIT, 0);
        self.kick(TRANSMIT);
        assert_eq!(self.used(TRANSMIT).0, 0);
    }

    /// Sends one packet `count` times, each at the moment at which the device has taken the one before.
    pub fn flood(&mut self, header: Header, count: u32) {
        let at = 0x3_0000;
        self.memory.write_slice(header.as_bytes(), GuestAddress(at)).expect("memory");
        self.descriptor(self.rings[TRANSMIT].base, 0, (at, HEADER_BYTES as u32), 0);
        for sent in 0..count {
            self.offer(TRANSMIT, 0);
            self.kick(TRANSMIT);
            let deadline = Instant::now() + LIMIT;
            while self.used_index(TRANSMIT) != self.rings[TRANSMIT].available {
                assert!(Instant::now() < deadline, "packet {sent} is not taken");
            }
        }
        self.rings[TRANSMIT].used = self.rings[TRANSMIT].available;
    }

    /// Offers a chain of these descriptors as they are, and waits until it comes back.
    pub fn send_raw(&mut self, descriptors: &[(u64, u32, u16)], head: u16) {
        let table = self.rings[TRANSMIT].base;
        for (index, (address, len, flags)) in descriptors.iter().enumerate() {
            self.descriptor(table, index as u16, (*address, *len), *flags);
        }
        self.offer(TRANSMIT, head);
        self.kick(TRANSMIT);
        self.used(TRANSMIT);
    }

    /// A chain whose only descriptor is its own successor.
    pub fn send_endless(&mut self, address: u64, len: u32) {
        let table = self.rings[TRANSMIT].base;
        self.descriptor(table, 0, (address, len), F_NEXT);
        self.memory.write_obj(0u16, GuestAddress(table + 14)).expect("memory");
        self.offer(TRANSMIT, 0);
        self.kick(TRANSMIT);
        self.used(TRANSMIT);
    }

    pub fn write(&self, address: u64, header: Header) {
        self.memory.write_slice(header.as_bytes(), GuestAddress(address)).expect("memory");
    }

    /// Jumps with the available index.
    pub fn break_ring(&mut self, ring: usize) {
        let at = GuestAddress(self.rings[ring].base + 0x1002);
        self.memory.write_obj(self.rings[ring].available.wrapping_add(SIZE + 1), at).expect("memory");
        self.kick(ring);
    }

    /// Gives the device `count` receive buffers.
    pub fn give_buffers(&mut self, count: u16) {
        for index in 0..count {
            let address = HIGH + 0x10_0000 + BUFFER * u64::from(index);
            self.descriptor(self.rings[RECEIVE].base, index, (address, BUFFER as u32), F_WRITE);
            self.offer(RECEIVE, index);
        }
        self.kick(RECEIVE);
    }

    /// Waits for a packet, and gives its buffer back.
    pub fn receive(&mut self) -> (Header, Vec<u8>) {
        let (index, len) = self.used(RECEIVE);
        let mut bytes = vec![0; len as usize];
        let address = HIGH + 0x10_0000 + BUFFER * u64::from(index);
        self.memory.read_slice(&mut bytes, GuestAddress(address)).expect("memory");
        let (header, data) = Header::read_from_prefix(&bytes).expect("a header");
        assert_eq!(header.len.get() as usize, data.len());
        let data = data.to_vec();
        self.offer(RECEIVE, index);
        self.kick(RECEIVE);
        (header, data)
    }
}
