//! Where a box of bytes lies: one side of `copy_box`, `stage_box_in` and `stage_box_out`.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a box of bytes lies. `x` counts bytes, `y` rows, `z` slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What the box lies in.
    pub memory: Memory,
    pub x: u64,
    pub y: u64,
    pub z: u64,
}

/// What a box lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// An address in the region, bytes from row to row, rows from slice to slice.
    Linear { address: u64, pitch: u64, height: u64 },
    /// An array's handle; the level is always 0.
    Array { handle: u64, level: u64 },
}

impl Default for Memory {
    fn default() -> Self {
        Memory::Linear { address: 0, pitch: 0, height: 0 }
    }
}

const LINEAR: u64 = 0;
const ARRAY: u64 = 1;

/// Kind of memory, its three words (the last one 0 for an array), x, y, z, 0.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Words([U64; 8]);

impl Place {
    /// Bytes on the wire.
    pub const LEN: usize = 64;

    pub fn encode(&self) -> [u8; Self::LEN] {
        let (kind, a, b, c) = match self.memory {
            Memory::Linear { address, pitch, height } => (LINEAR, address, pitch, height),
            Memory::Array { handle, level } => (ARRAY, handle, level, 0),
        };
        let words = [kind, a, b, c, self.x, self.y, self.z, 0].map(U64::new);
        zerocopy::transmute!(Words(words))
    }

    /// `None` for a kind of memory that does not exist.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let Words(words) = zerocopy::transmute!(*bytes);
        let [kind, a, b, c, x, y, z, _] = words.map(U64::get);
        let memory = match kind {
            LINEAR => Memory::Linear { address: a, pitch: b, height: c },
            ARRAY => Memory::Array { handle: a, level: b },
            _ => return None,
        };
        Some(Self { memory, x, y, z })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_survive_the_wire(array: bool, words in prop::array::uniform6(any::<u64>())) {
            let [a, b, c, x, y, z] = words;
            let memory = if array {
                Memory::Array { handle: a, level: b }
            } else {
                Memory::Linear { address: a, pitch: b, height: c }
            };
            let place = Place { memory, x, y, z };
            prop_assert_eq!(Place::decode(&place.encode()), Some(place));
        }

        #[test]
        fn other_kinds_are_refused(bytes in prop::array::uniform32(any::<u8>()), kind in 2u64..) {
            let mut place = [0; Place::LEN];
            place[32..].copy_from_slice(&bytes);
            place[..8].copy_from_slice(&kind.to_le_bytes());
            prop_assert_eq!(Place::decode(&place), None);
        }
    }
}
