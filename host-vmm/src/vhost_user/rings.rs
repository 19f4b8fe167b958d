//! The two rings that carry packets: the guest's transmit ring is emptied into the switch, what the switch has fills its receive ring.
//!
//! Everything read here is the guest's and may change while it is read: a header is copied once, its bytes once. A ring that does not make
//! sense is left alone until the device is started again.

use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};
use zerocopy::IntoBytes as _;

use super::chain::{BadChain, Buffers, Direction};
use super::header::{HEADER_BYTES, Header, op};
use super::switch::{MAX_PACKET, Switch, WINDOW};
use crate::vmm::memory::Memory;

/// Packets of one turn in each direction, before the guest is told and others have their turn.
const BATCH: usize = 64;

/// What a turn leaves to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The guest is to be told about the transmit ring.
    pub notify_transmit: bool,
    /// The guest is to be told about the receive ring.
    pub notify_receive: bool,
    /// There is more to do now.
    pub more: bool,
}

/// Why a ring is left alone.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("its index jumps")]
    Index,
    #[error(transparent)]
    Ring(#[from] virtio_queue::Error),
}

/// How a pass over a ring ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// The ring is empty, or there is nothing to put into it; the guest will say when that changes.
    Idle,
    /// As many packets as one turn takes.
    Batch,
    /// The switch takes no more before the guest has taken some.
    Blocked,
}

/// See the module.
pub struct Rings {
    pub switch: Switch,
    buffers: Buffers,
    /// A packet's bytes: of the guest at most a window, to the guest at most [`MAX_PACKET`].
    data: Vec<u8>,
    /// Where the transmit ring was left.
    next_transmit: u16,
    broken: [bool; 2],
    /// Chains that were no packets.
    malformed: u64,
}

/// Index in `broken`.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

impl Rings {
    pub fn new(switch: Switch) -> Self {
        Self {
            switch,
            buffers: Buffers::default(),
            data: vec![0; WINDOW as usize],
            next_transmit: 0,
            broken: [false; 2],
            malformed: 0,
        }
    }

    /// One turn of both directions.
    pub fn turn(&mut self, receive: &mut Queue, transmit: &mut Queue, memory: &Memory) -> Turn {
        if transmit.next_avail() != self.next_transmit {
            // Not where it was left: the guest has started anew. After a mere pause of the machine the ring goes on where it was.
            self.switch.reset();
            self.broken = [false; 2];
        }
        let (mut sent, mut filled) = (0, 0);
        let taken = self.guarded(TRANSMIT, |rings| rings.take(transmit, memory, &mut sent));
        let given = self.guarded(RECEIVE, |rings| rings.give(receive, memory, &mut filled));
        self.next_transmit = transmit.next_avail();
        Turn {
            notify_transmit: sent > 0 && transmit.needs_notification(memory).unwrap_or(true),
            notify_receive: filled > 0 && receive.needs_notification(memory).unwrap_or(true),
            more: taken == Pass::Batch
                || given == Pass::Batch
                || (taken == Pass::Blocked && self.switch.accepts()),
        }
    }

    fn guarded(&mut self, ring: usize, pass: impl FnOnce(&mut Self) -> Result<Pass, Broken>) -> Pass {
        if self.broken[ring] {
            return Pass::Idle;
        }
        pass(self).unwrap_or_else(|broken| {
            tracing::warn!("vsock: ring {ring} of the guest is not used any more: {broken}");
            self.broken[ring] = true;
            Pass::Idle
        })
    }

    /// Packets of the guest into the switch.
    fn take(&mut self, ring: &mut Queue, memory: &Memory, count: &mut usize) -> Result<Pass, Broken> {
        ring.disable_notification(memory)?;
        let mut told = false;
        loop {
            let before = *count;
            while self.switch.accepts() && *count < BATCH {
                let Some(chain) = ring.pop_descriptor_chain(memory) else { break };
                let head = chain.head_index();
                let collected = self.buffers.collect(chain, Direction::FromGuest);
                let outcome = collected.and_then(|()| self.packet(memory));
                self.complain(outcome);
                ring.add_used(memory, head, 0)?;
                *count += 1;
            }
            if *count >= BATCH {
                return Ok(Pass::Batch);
            }
            if !self.switch.accepts() {
                return Ok(Pass::Blocked);
            }
            if !ring.enable_notification(memory)? {
                return Ok(Pass::Idle);
            }
            // Packets came in between: they are there now. A ring that says so again and has none lies.
            if *count != before {
                told = false;
            } else if std::mem::replace(&mut told, true) {
                return Err(Broken::Index);
            }
            ring.disable_notification(memory)?;
        }
    }

    /// The packet in the buffers.
    fn packet(&mut self, memory: &Memory) -> Result<(), BadChain> {
        let mut header = Header::default();
        self.buffers.read(memory, 0, header.as_mut_bytes())?;
        if header.op.get() != op::RW {
            self.switch.packet(&header, Some(&[]));
            return Ok(());
        }
        let len = header.len.get() as usize;
        let (data, outcome) = match self.data.get_mut(..len) {
            Some(data) => {
                let outcome = self.buffers.read(memory, HEADER_BYTES, data);
                (outcome.is_ok().then_some(&*data), outcome)
            }
            None => (None, Err(BadChain::Large(len))),
        };
        self.switch.packet(&header, data);
        outcome
    }

    /// Packets of the switch into the guest's buffers.
    fn give(&mut self, ring: &mut Queue, memory: &Memory, count: &mut usize) -> Result<Pass, Broken> {
        ring.disable_notification(memory)?;
        let mut told = false;
        while self.switch.has_output() {
            if *count >= BATCH {
                return Ok(Pass::Batch);
            }
            let Some(chain) = ring.pop_descriptor_chain(memory) else {
                if !ring.enable_notification(memory)? {
                    return Ok(Pass::Idle);
                }
                if std::mem::replace(&mut told, true) {
                    return Err(Broken::Index);
                }
                continue;
            };
            told = false;
            let head = chain.head_index();
            let used = match self.buffers.collect(chain, Direction::ToGuest).and_then(|()| self.fill(memory))
            {
                Ok(Some(used)) => used,
                Ok(None) => {
                    // Nothing to send after all.
                    ring.go_to_previous_position();
                    continue;
                }
                Err(bad) => {
                    self.complain(Err(bad));
                    0
                }
            };
            ring.add_used(memory, head, used)?;
            *count += 1;
        }
        Ok(Pass::Idle)
    }

    /// Puts the next packet into the buffers; its length, or None if there is no packet.
    fn fill(&mut self, memory: &Memory) -> Result<Option<u32>, BadChain> {
        let len = self.buffers.len();
        let room = usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(HEADER_BYTES).min(MAX_PACKET);
        if room == 0 {
            return Err(BadChain::Short { offset: 0, wanted: HEADER_BYTES + 1, len });
        }
        let Some(header) = self.switch.next(&mut self.data[..room]) else { return Ok(None) };
        let data = &self.data[..header.len.get() as usize];
        self.buffers.write(memory, 0, header.as_bytes())?;
        self.buffers.write(memory, HEADER_BYTES, data)?;
        Ok(Some((HEADER_BYTES + data.len()) as u32))
    }

    /// Counts chains that were no packets.
    fn complain(&mut self, outcome: Result<(), BadChain>) {
        let Err(bad) = outcome else { return };
        self.malformed += 1;
        if self.malformed.is_power_of_two() {
            tracing::warn!("vsock: {} malformed packets of the guest, the last: {bad}", self.malformed);
        }
    }
}
