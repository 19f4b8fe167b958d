//! The frames that only stream lanes have, beside requests and replies.
//!
//! A stream lane is a connection that carries frames in both directions, for sides that share no memory. Each side has a staging area of its own, and data
//! frames keep the parts of it alike that are in use. `docs/wire-protocol.md` has the rules; the encodings are here.

use alloc::vec::Vec;

use crate::HEADER_LEN;
use crate::frame::{FrameHeader, Kind};
use crate::wire::{Reader, WireError, Writer};

/// Bytes of a [`Data`] frame's body before its bytes.
pub const DATA_PREFIX_LEN: usize = 16;
/// Bytes of the header and the prefix of a data frame.
pub const DATA_HEAD_LEN: usize = HEADER_LEN + DATA_PREFIX_LEN;

/// The start of a data frame ([`Kind::DATA`]): two words, followed by `len` bytes and padding up to a multiple of 8 that means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Data {
    /// Where the bytes belong in the receiver's staging area.
    pub offset: u64,
    /// How many they are.
    pub len: u64,
}

impl Data {
    /// Zeros after the bytes.
    pub const fn padding(&self) -> usize {
        (self.len.wrapping_neg() & 7) as usize
    }

    /// Header and prefix. `len` is at most `u32::MAX - 24`.
    pub fn encode(&self) -> [u8; DATA_HEAD_LEN] {
        let body = DATA_PREFIX_LEN as u64 + self.len + self.padding() as u64;
        let mut bytes = [0; DATA_HEAD_LEN];
        let (header, prefix) = bytes.split_at_mut(HEADER_LEN);
        header.copy_from_slice(&FrameHeader::new(Kind::DATA, 0, 0, body as u32).encode());
        prefix[..8].copy_from_slice(&self.offset.to_le_bytes());
        prefix[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// Decodes the prefix of a frame; None unless its bytes fill the frame and lie in a staging area of `staging_len` bytes.
    pub fn decode(frame: &FrameHeader, prefix: &[u8; DATA_PREFIX_LEN], staging_len: u64) -> Option<Data> {
        let (offset, len) = prefix.split_at(8);
        let word = |bytes: &[u8]| bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let data = Data { offset: word(offset), len: word(len) };
        let fits = data.len <= staging_len && data.offset <= staging_len - data.len;
        (fits && u64::from(frame.len) == (DATA_PREFIX_LEN + data.padding()) as u64 + data.len).then_some(data)
    }
}

/// In a [`Watch`]: no slot, but the request itself.
pub const NO_SLOT: u64 = u64::MAX;

/// A watch frame ([`Kind::WATCH`]); the header's number names the request. When the worker is done with that request's slot of the staging area (or, without a
/// slot, has carried the request out), it sends `len` bytes of its staging area at `offset` as a data frame, unless `len` is 0, and a progress frame after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    /// The slot ([`crate::lane::SLOTS`]), or [`NO_SLOT`].
    pub slot: u64,
    /// Start of the part of the staging area.
    pub offset: u64,
    /// Bytes of it.
    pub len: u64,
}

impl Watch {
    /// Writes the body to `buf` (emptied first) and returns the frame's header.
    pub fn encode(&self, seq: u64, buf: &mut Vec<u8>) -> FrameHeader {
        let mut w = Writer::new(buf);
        w.u64(self.slot);
        w.u64(self.offset);
        w.u64(self.len);
        FrameHeader::new(Kind::WATCH, 0, seq, w.len() as u32)
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(body: &[u8]) -> Result<Watch, WireError> {
        let mut r = Reader::new(body);
        let watch = Watch { slot: r.u64()?, offset: r.u64()?, len: r.u64()? };
        r.finish()?;
        Ok(watch)
    }
}

/// The body of a progress frame ([`Kind::PROGRESS`]): slots of the staging area, each with the number of the last request that is done with it. (The header has the
/// number of the last request that was carried out, and the latched error.)
pub struct FreeSlots;

impl FreeSlots {
    /// Writes the body to `buf` (emptied first).
    pub fn encode(slots: impl IntoIterator<Item = (u64, u64)>, buf: &mut Vec<u8>) {
        let mut w = Writer::new(buf);
        for (slot, seq) in slots {
            w.u64(slot);
            w.u64(seq);
        }
    }

    /// Slots and numbers of a body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(body: &[u8], mut each: impl FnMut(u64, u64)) -> Result<(), WireError> {
        let mut r = Reader::new(body);
        while r.position() < body.len() {
            each(r.u64()?, r.u64()?);
        }
        r.finish()
    }
}

/// An after frame ([`Kind::AFTER`]): the worker takes nothing that follows on this lane before request `seq` of lane `lane` is complete (or that lane has ended).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct After {
    /// Number of the other lane, from its welcome.
    pub lane: u32,
    /// Number of a request of that lane.
    pub seq: u64,
}

impl After {
    /// Writes the body to `buf` (emptied first) and returns the frame's header.
    pub fn encode(&self, buf: &mut Vec<u8>) -> FrameHeader {
        let mut w = Writer::new(buf);
        w.u32(self.lane);
        w.u64(self.seq);
        FrameHeader::new(Kind::AFTER, 0, 0, w.len() as u32)
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(body: &[u8]) -> Result<After, WireError> {
        let mut r = Reader::new(body);
        let after = After { lane: r.u32()?, seq: r.u64()? };
        r.finish()?;
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(offset in 0u64..1 << 20, len in 0u64..1 << 20, lane: u32, seq: u64) {
            let data = Data { offset, len };
            let bytes = data.encode();
            let (header, prefix) = bytes.split_first_chunk().unwrap();
            let header = FrameHeader::decode(header, u32::MAX).unwrap();
            prop_assert_eq!(header.kind, Kind::DATA);
            prop_assert_eq!(Data::decode(&header, prefix.try_into().unwrap(), 1 << 21), Some(data));

            let mut body = Vec::new();
            let watch = Watch { slot: offset % 32, offset, len };
            prop_assert_eq!(watch.encode(seq, &mut body).seq, seq);
            prop_assert_eq!(Watch::decode(&body), Ok(watch));
            let slots = [(offset, seq), (len, 0)];
            FreeSlots::encode(slots, &mut body);
            let mut again = Vec::new();
            FreeSlots::decode(&body, |slot, seq| again.push((slot, seq))).unwrap();
            prop_assert_eq!(&again[..], &slots);
            prop_assert!(FreeSlots::decode(&body[..24], |_, _| ()).is_err());
            let after = After { lane, seq };
            prop_assert_eq!(after.encode(&mut body).len as usize, body.len());
            prop_assert_eq!(After::decode(&body), Ok(after));
        }
    }

    #[test]
    fn data_must_fit_the_frame_and_the_area() {
        let decode = |offset: u64, len: u64, body: u32| {
            let mut prefix = [0; DATA_PREFIX_LEN];
            prefix[..8].copy_from_slice(&offset.to_le_bytes());
            prefix[8..].copy_from_slice(&len.to_le_bytes());
            Data::decode(&FrameHeader::new(Kind::DATA, 0, 0, body), &prefix, 4096)
        };
        assert_eq!(decode(4000, 96, 112), Some(Data { offset: 4000, len: 96 }));
        assert_eq!(decode(4001, 95, 112), Some(Data { offset: 4001, len: 95 }));
        assert_eq!(decode(0, 0, 16), Some(Data { offset: 0, len: 0 }));
        for (offset, len, body) in [
            (4001, 96, 112),
            (0, 4097, 4120),
            (u64::MAX, 8, 24),
            (8, u64::MAX, 16),
            (u64::MAX, u64::MAX, 16),
            (0, 8, 16),
            (0, 8, 32),
            (0, 0, 0),
        ] {
            assert_eq!(decode(offset, len, body), None, "{offset} {len} {body}");
        }
    }

    #[test]
    fn short_and_long_bodies_are_errors() {
        for len in [0, 8, 32] {
            assert!(Watch::decode(&[0; 32][..len]).is_err());
            assert!(After::decode(&[0; 32][..len]).is_err());
        }
        assert!(After::decode(&[0xff; 16]).is_err());
    }
}
