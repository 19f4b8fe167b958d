//! A guest that does anything at all with the rings of the vhost-user device, and host's ends that come and go.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};
use zerocopy::IntoBytes as _;

use super::Host;
use super::header::{HOST_CID, Header, STREAM};
use super::rings::Rings;
use super::switch::{Event, Limits, Switch, Watch};
use crate::fuzz::Bytes;
use crate::vmm::memory::{GuestRam, MIN_BYTES, Memory};

const CID: u32 = 3;
const FIRST: u16 = 5;
/// Entries of a ring.
const SIZE: u16 = 16;
/// Operations of one input; more would only be slow.
const MOST_OPERATIONS: usize = 512;
/// Where ring `i` is: descriptors, available and used ring, a page each.
const RINGS: [u64; 2] = [0x1_0000, 0x2_0000];
/// Small, so that they are reached.
const LIMITS: Limits = Limits { links: 6, windows_bytes: 512 << 10 };

/// The other ends, in the order in which the guest has connected.
#[derive(Default)]
struct Ends(Mutex<Vec<Option<OwnedFd>>>);

impl Ends {
    fn ends(&self) -> MutexGuard<'_, Vec<Option<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for Ends {
    fn memory(&self, _: GuestRam) {}

    fn connect(&self, _: u32, port: u32) -> Option<OwnedFd> {
        if port.is_multiple_of(5) {
            return None;
        }
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).ok()?;
        self.ends().push(Some(theirs));
        Some(ours)
    }

    fn gone(&self) {}
}

/// Checks that every connection is watched, once.
#[derive(Clone, Default)]
struct Watched(Arc<Mutex<HashMap<u16, bool>>>);

impl Watched {
    fn tokens(&self) -> Vec<u16> {
        let mut tokens: Vec<u16> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        tokens.sort_unstable();
        tokens
    }
}

impl Watch for Watched {
    fn watch(&self, _: BorrowedFd<'_>, token: u16, room: bool) -> io::Result<()> {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token, room);
        assert!(before.is_none(), "watched twice");
        Ok(())
    }

    fn unwatch(&self, _: BorrowedFd<'_>, token: u16) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
    }
}

/// What an input reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Connections that were opened.
    pub opened: usize,
    /// Bytes that came out at host's ends.
    pub to_host: usize,
    /// Packets in the guest's receive ring.
    pub to_guest: usize,
}

/// Descriptors, packets, indices, turns of the device, and bytes and closes of the host's ends: see [`Input`] for the form. Nothing panics, hangs or
/// leaves the guest's memory, and the tables stay consistent.
pub fn fuzz_vhost_user(data: &[u8]) {
    vhost_user(data);
}

pub(super) fn vhost_user(data: &[u8]) -> Reached {
    let memory = GuestRam::new(MIN_BYTES).and_then(|ram| ram.map()).expect("guest memory");
    let (ends, watched) = (Arc::new(Ends::default()), Watched::default());
    let mut rings = Rings::new(Switch::new(CID, LIMITS, ends.clone(), Box::new(watched.clone()), FIRST));
    let [mut receive, mut transmit] = RINGS.map(queue);
    let (mut input, mut reached) = (Input(Bytes(data)), Reached::default());
    for _ in 0..MOST_OPERATIONS {
        let Some(operation) = input.0.byte() else { break };
        let done = match operation {
            0..=29 => input.0.memory_write().map(|(address, bytes)| write(&memory, address, &bytes)),
            30..=79 => input.descriptor().map(|(address, bytes)| write(&memory, address, &bytes)),
            80..=129 => input.packet().map(|(address, header)| write(&memory, address, header.as_bytes())),
            130..=169 => input.0.byte().map(|head| offer(&memory, usize::from(operation % 2), head)),
            170..=199 => {
                let before = used_index(&memory);
                rings.turn(&mut receive, &mut transmit, &memory);
                reached.to_guest += usize::from(used_index(&memory).wrapping_sub(before));
                Some(())
            }
            200..=209 => input.0.byte().map(|value| {
                with(&ends, value, |end| {
                    let bytes = vec![value; usize::from(value) * 64];
                    let _ = send(end, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                });
            }),
            210..=219 => input.0.byte().map(|value| {
                with(&ends, value, |end| {
                    let mut buffer = vec![0; 1 << 16];
                    reached.to_host +=
                        recv(end, &mut buffer[..], RecvFlags::DONTWAIT).map_or(0, |(_, len)| len);
                });
            }),
            220..=224 => input.0.byte().map(|value| {
                let mut ends = ends.ends();
                let count = ends.len().max(1);
                if let Some(end) = ends.get_mut(usize::from(value) % count) {
                    *end = None;
                }
            }),
            225..=244 => {
                for token in watched.tokens() {
                    rings.switch.event(token, Event { hung_up: operation >= 243 });
                }
                Some(())
            }
            245..=249 => {
                // The driver starts anew, as after a reboot.
                for ring in RINGS {
                    write(&memory, ring + 0x1000, &[0; 0x2000]);
                }
                [receive, transmit] = RINGS.map(queue);
                Some(())
            }
            250..=255 => input.0.byte().map(|low| transmit.set_event_idx(low % 2 == 0)),
        };
        if done.is_none() {
            break;
        }
        let links = rings.switch.check();
        assert_eq!(watched.tokens().len(), links);
    }
    reached.opened = ends.ends().len();
    reached
}

fn queue(base: u64) -> Queue {
    let mut queue = Queue::new(SIZE).expect("a power of two");
    queue.set_size(SIZE);
    for (address, set) in [
        (base, Queue::set_desc_table_address as fn(&mut Queue, Option<u32>, Option<u32>)),
        (base + 0x1000, Queue::set_avail_ring_address),
        (base + 0x2000, Queue::set_used_ring_address),
    ] {
        set(&mut queue, Some(address as u32), Some(0));
    }
    queue.set_ready(true);
    queue
}

fn with(ends: &Ends, which: u8, act: impl FnOnce(BorrowedFd<'_>)) {
    let ends = ends.ends();
    let count = ends.len().max(1);
    if let Some(Some(end)) = ends.get(usize::from(which) % count) {
        act(end.as_fd());
    }
}

fn write(memory: &Memory, address: u64, bytes: &[u8]) {
    memory.write_slice(bytes, GuestAddress(address)).expect("in memory");
}

/// Makes a chain available, as a driver does.
fn offer(memory: &Memory, ring: usize, head: u8) {
    let available = RINGS[ring] + 0x1000;
    let index: u16 = memory.read_obj(GuestAddress(available + 2)).expect("in memory");
    let slot = available + 4 + 2 * u64::from(index % SIZE);
    memory.write_obj(u16::from(head), GuestAddress(slot)).expect("in memory");
    memory.write_obj(index.wrapping_add(1), GuestAddress(available + 2)).expect("in memory");
}

/// Index of the receive ring's used part.
fn used_index(memory: &Memory) -> u16 {
    memory.read_obj(GuestAddress(RINGS[0] + 0x2002)).unwrap_or(0)
}

/// Bytes of an input: an operation byte and its operands. A value is a byte below 160 as it is, a power of two, a page's address, or four bytes.
struct Input<'a>(Bytes<'a>);

impl Input<'_> {
    fn value(&mut self) -> Option<u32> {
        self.0.value(160, 32, 0x1_0000)
    }

    /// Ring and index in one byte, address, length, flags and next.
    fn descriptor(&mut self) -> Option<(u64, [u8; 16])> {
        let place = self.0.byte()?;
        let (address, len, flags, next) = (self.value()?, self.value()?, self.0.byte()?, self.0.byte()?);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12] = flags;
        bytes[14] = next;
        Some((RINGS[usize::from(place / 16 % 2)] + 16 * u64::from(place % 16), bytes))
    }

    /// Page, operation, ports in one byte, length, flags and credit; the rest is as it has to be, unless the operation's high bits are set.
    fn packet(&mut self) -> Option<(u64, Header)> {
        let (page, op, ports) = (self.0.byte()?, self.0.byte()?, self.0.byte()?);
        let (len, flags, window, forwarded) = (self.value()?, self.0.byte()?, self.value()?, self.value()?);
        let header = Header {
            src_cid: (u64::from(CID) + u64::from(op >> 6 & 1)).into(),
            dst_cid: HOST_CID.into(),
            src_port: u32::from(ports % 16).into(),
            dst_port: u32::from(ports / 16).into(),
            len: len.into(),
            kind: (STREAM + u16::from(op >> 7)).into(),
            op: u16::from(op & 15).into(),
            flags: u32::from(flags).into(),
            buf_alloc: window.into(),
            fwd_cnt: forwarded.into(),
        };
        Some((0x4_0000 + 0x1000 * u64::from(page % 64), header))
    }
}
