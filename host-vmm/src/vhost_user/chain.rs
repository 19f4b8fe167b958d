//! The buffers of a descriptor chain: one packet of the guest, or room for one of ours, in whatever pieces the guest has them.
//!
//! Drivers of Linux put a header and its bytes into one descriptor, or into two, or (since 6.12, when a packet is larger than 32 KiB) into
//! many. virtio-vsock's own parser takes one descriptor of data, which is why it is not used.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};

use crate::vmm::memory::Memory;

/// Descriptors of one chain; Linux has at most one per fragment of a buffer (45) and one for the header.
const MAX_DESCRIPTORS: usize = 256;

/// Why a chain is not used.
#[derive(Debug, thiserror::Error)]
pub enum BadChain {
    #[error("more than {MAX_DESCRIPTORS} descriptors")]
    TooLong,
    #[error("a descriptor that the device may not {0}")]
    Direction(&'static str),
    #[error("{wanted} bytes at {offset} of {len}")]
    Short { offset: usize, wanted: usize, len: u64 },
    #[error("a packet of {0} bytes")]
    Large(usize),
    #[error("outside of the guest's memory: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// Who fills the buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    FromGuest,
    ToGuest,
}

/// The buffers of one chain after the other; keeps its allocation.
#[derive(Default)]
pub struct Buffers {
    pieces: Vec<(GuestAddress, u32)>,
    len: u64,
}

impl Buffers {
    /// Takes the buffers of `chain`, all of which must be for `direction`.
    ///
    /// # Errors
    /// They are too many, or for the other direction.
    pub fn collect(&mut self, chain: DescriptorChain<&Memory>, direction: Direction) -> Result<(), BadChain> {
        self.pieces.clear();
        self.len = 0;
        // The iterator itself ends after as many descriptors as the table has.
        for descriptor in chain {
            if descriptor.is_write_only() != (direction == Direction::ToGuest) {
                return Err(BadChain::Direction(match direction {
                    Direction::FromGuest => "read",
                    Direction::ToGuest => "write",
                }));
            }
            if self.pieces.len() == MAX_DESCRIPTORS {
                return Err(BadChain::TooLong);
            }
            self.pieces.push((descriptor.addr(), descriptor.len()));
            self.len += u64::from(descriptor.len());
        }
        Ok(())
    }

    /// Bytes of all buffers together.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Copies from the buffers, beginning at `offset`.
    ///
    /// # Errors
    /// They are shorter, or not in memory.
    pub fn read(&self, memory: &Memory, offset: usize, to: &mut [u8]) -> Result<(), BadChain> {
        let mut rest = &mut *to;
        self.each(offset, rest.len(), |address, len| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            rest = later;
            memory.read_slice(now, address)
        })
    }

    /// Copies into the buffers, beginning at `offset`.
    ///
    /// # Errors
    /// They are shorter, or not in memory.
    pub fn write(&self, memory: &Memory, offset: usize, from: &[u8]) -> Result<(), BadChain> {
        let mut rest = from;
        self.each(offset, from.len(), |address, len| {
            let (now, later) = rest.split_at(len);
            rest = later;
            memory.write_slice(now, address)
        })
    }

    /// Calls `copy` with the pieces of `wanted` bytes at `offset`.
    fn each(
        &self,
        offset: usize,
        wanted: usize,
        mut copy: impl FnMut(GuestAddress, usize) -> Result<(), GuestMemoryError>,
    ) -> Result<(), BadChain> {
        let (mut skip, mut left) = (offset, wanted);
        for (address, len) in &self.pieces {
            let len = *len as usize;
            if skip >= len {
                skip -= len;
                continue;
            }
            if left == 0 {
                break;
            }
            let now = left.min(len - skip);
            let start = address.0.checked_add(skip as u64).ok_or(GuestMemoryError::GuestAddressOverflow)?;
            copy(GuestAddress(start), now)?;
            (skip, left) = (0, left - now);
        }
        if left == 0 { Ok(()) } else { Err(BadChain::Short { offset, wanted, len: self.len }) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vmm::memory::{GuestRam, MIN_BYTES};

    fn buffers(pieces: &[(u64, u32)]) -> Buffers {
        Buffers {
            pieces: pieces.iter().map(|(address, len)| (GuestAddress(*address), *len)).collect(),
            len: pieces.iter().map(|(_, len)| u64::from(*len)).sum(),
        }
    }

    fn memory() -> Memory {
        GuestRam::new(MIN_BYTES).and_then(|ram| ram.map()).expect("guest memory")
    }

    #[test]
    fn addresses_outside_of_memory_are_errors() {
        let memory = memory();
        let mut bytes = [0; 16];
        for pieces in [[(MIN_BYTES - 8, 16)], [(MIN_BYTES, 16)], [(u64::MAX - 8, 16)], [(u64::MAX, 16)]] {
            let buffers = buffers(&pieces);
            assert!(matches!(buffers.read(&memory, 0, &mut bytes), Err(BadChain::Memory(_))), "{pieces:x?}");
            assert!(matches!(buffers.read(&memory, 12, &mut bytes[..4]), Err(BadChain::Memory(_))));
            assert!(buffers.write(&memory, 0, &bytes).is_err());
        }
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        let memory = memory();
        let buffers = buffers(&[(0x1000, 4), (0x2000, 0), (0x3000, 3)]);
        assert!(buffers.read(&memory, 0, &mut [0; 7]).is_ok());
        assert!(buffers.read(&memory, 7, &mut []).is_ok());
        assert!(matches!(buffers.read(&memory, 1, &mut [0; 7]), Err(BadChain::Short { len: 7, .. })));
        assert!(matches!(buffers.read(&memory, usize::MAX, &mut [0; 1]), Err(BadChain::Short { .. })));
    }

    proptest! {
        #[test]
        fn pieces_read_as_one_buffer(
            lens in proptest::collection::vec(0u32..40, 1..12),
            offset in 0usize..200,
            wanted in 0usize..200,
        ) {
            let memory = memory();
            let pieces: Vec<(u64, u32)> =
                lens.iter().enumerate().map(|(i, len)| (0x1000 * (i as u64 + 1), *len)).collect();
            let buffers = buffers(&pieces);
            let total: Vec<u8> = (0..buffers.len() as usize).map(|i| i as u8).collect();
            prop_assert!(buffers.write(&memory, 0, &total).is_ok());
            let mut found = vec![0; wanted];
            let outcome = buffers.read(&memory, offset, &mut found);
            match total.get(offset..offset + wanted) {
                Some(expected) => {
                    prop_assert!(outcome.is_ok());
                    prop_assert_eq!(&found[..], expected);
                }
                None => prop_assert_eq!(outcome.is_ok(), wanted == 0),
            }
        }
    }
}
