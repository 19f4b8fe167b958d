//! Where a lane's block lies in the window and what is where in it.
//!
//! One header page with the shared words, then request ring, reply ring and staging area. Every word that one side writes has 128 bytes to itself, because
//! processors fetch cache lines in pairs.

use crate::wire::{Reader, WireError, Writer};

/// Bytes of the header page; also the alignment of the block and of its parts.
pub const PAGE_LEN: u64 = 4096;

/// Byte offsets in the header page of the shared u64 words.
pub mod words {
    /// Bytes ever written to the request ring; the program writes it.
    pub const REQUEST_TAIL: u64 = 0x000;
    /// Bytes ever taken from the request ring; the worker writes it.
    pub const REQUEST_HEAD: u64 = 0x080;
    /// Bytes ever written to the reply ring; the worker writes it.
    pub const REPLY_TAIL: u64 = 0x100;
    /// Bytes ever taken from the reply ring; the program writes it.
    pub const REPLY_HEAD: u64 = 0x180;
    /// What the program waits for, 0 while it is awake.
    pub const GUEST_PARKED: u64 = 0x200;
    /// What the worker waits for, 0 while it is awake.
    pub const HOST_PARKED: u64 = 0x280;
    /// Number of the last request that was carried out; the worker writes it. A staged copy may still be under way, see [`SLOTS`].
    pub const COMPLETED: u64 = 0x300;
    /// First error of a posted request, 0 for none; the worker sets it, the program takes it.
    pub const LATCHED: u64 = 0x380;
    /// For each slot of the staging area the number of the last request that is done with it; the worker writes them.
    pub const SLOTS: u64 = 0x400;
}

/// Parts that the staging area is used in, so that one is filled while another is emptied; small enough that what one side writes is still in a cache when
/// the other reads it.
pub const SLOTS: u64 = 32;

/// Bytes of a slot of a staging area.
pub const fn slot_len(staging_len: u64) -> u64 {
    (staging_len / SLOTS) & !(PAGE_LEN - 1)
}

/// The slot that an offset in a staging area lies in.
pub const fn slot_at(staging_len: u64, offset: u64) -> Option<u64> {
    match slot_len(staging_len) {
        0 => None,
        len if offset / len < SLOTS => Some(offset / len),
        _ => None,
    }
}

/// Place and sizes of a lane's block, as the worker tells them in [`crate::handshake::LaneWelcome`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LanePlacement {
    /// Offset of the header page in the window; a multiple of [`PAGE_LEN`].
    pub offset: u64,
    /// Bytes of the request ring: a power of two, at least [`PAGE_LEN`].
    pub request_ring_len: u32,
    /// Bytes of the reply ring: a power of two, at least [`PAGE_LEN`].
    pub reply_ring_len: u32,
    /// Bytes of the staging area: a multiple of [`PAGE_LEN`], may be 0.
    pub staging_len: u32,
}

impl LanePlacement {
    /// Window bytes that the block takes.
    pub const fn block_len(&self) -> u64 {
        PAGE_LEN + self.request_ring_len as u64 + self.reply_ring_len as u64 + self.staging_len as u64
    }

    /// Window offset of the request ring.
    pub const fn request_ring(&self) -> u64 {
        self.offset + PAGE_LEN
    }

    /// Window offset of the reply ring.
    pub const fn reply_ring(&self) -> u64 {
        self.request_ring() + self.request_ring_len as u64
    }

    /// Window offset of the staging area.
    pub const fn staging(&self) -> u64 {
        self.reply_ring() + self.reply_ring_len as u64
    }

    /// Whether sizes and alignment are as documented and the block lies in a window of `window_len` bytes.
    pub const fn is_valid(&self, window_len: u64) -> bool {
        ring_is_valid(self.request_ring_len)
            && ring_is_valid(self.reply_ring_len)
            && (self.staging_len as u64).is_multiple_of(PAGE_LEN)
            && self.offset.is_multiple_of(PAGE_LEN)
            && self.offset <= window_len
            && self.block_len() <= window_len - self.offset
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        w.u64(self.offset);
        w.u32(self.request_ring_len);
        w.u32(self.reply_ring_len);
        w.u32(self.staging_len);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<LanePlacement, WireError> {
        Ok(LanePlacement {
            offset: r.u64()?,
            request_ring_len: r.u32()?,
            reply_ring_len: r.u32()?,
            staging_len: r.u32()?,
        })
    }
}

pub(crate) const fn ring_is_valid(len: u32) -> bool {
    len.is_power_of_two() && len as u64 >= PAGE_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: LanePlacement =
        LanePlacement { offset: 8192, request_ring_len: 8192, reply_ring_len: 4096, staging_len: 4096 };

    #[test]
    fn parts_follow_each_other() {
        assert_eq!(GOOD.request_ring(), 12288);
        assert_eq!(GOOD.reply_ring(), 20480);
        assert_eq!(GOOD.staging(), 24576);
        assert_eq!(GOOD.offset + GOOD.block_len(), 28672);
    }

    #[test]
    fn validity() {
        assert!(GOOD.is_valid(28672));
        assert!(!GOOD.is_valid(28671));
        assert!(!GOOD.is_valid(0));
        assert!(!LanePlacement { offset: 100, ..GOOD }.is_valid(1 << 40));
        assert!(!LanePlacement { offset: !4095, ..GOOD }.is_valid(1 << 40));
        assert!(!LanePlacement { request_ring_len: 12288, ..GOOD }.is_valid(1 << 40));
        assert!(!LanePlacement { request_ring_len: 2048, ..GOOD }.is_valid(1 << 40));
        assert!(!LanePlacement { reply_ring_len: 0, ..GOOD }.is_valid(1 << 40));
        assert!(!LanePlacement { staging_len: 8, ..GOOD }.is_valid(1 << 40));
        assert!(LanePlacement { staging_len: 0, ..GOOD }.is_valid(1 << 40));
    }
}
