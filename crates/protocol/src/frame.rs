//! The 24-byte frame header that precedes every body, in rings and on sockets alike.

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::status::Status;

/// Bytes of an encoded [`FrameHeader`].
pub const HEADER_LEN: usize = 24;

/// Last word of every header. Catches a reader that lost its place in the stream; it is no protection against a hostile peer.
pub const MAGIC: u32 = u32::from_le_bytes(*b"cuFr");

/// What a frame is. An open enum: a value that this version does not know decodes, and the receiver decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// A request that gets no reply; its first error is latched in the lane.
    pub const POSTED: Kind = Kind(1);
    /// A request that gets exactly one [`Kind::REPLY`].
    pub const SYNC: Kind = Kind(2);
    /// The answer to a [`Kind::SYNC`] frame.
    pub const REPLY: Kind = Kind(3);
    /// Bytes of the staging area ([`crate::stream::Data`]); on stream lanes only, both ways.
    pub const DATA: Kind = Kind(4);
    /// Asks to be told when a slot of the staging area is free ([`crate::stream::Watch`]); on stream lanes only, from the program.
    pub const WATCH: Kind = Kind(5);
    /// What follows waits for a request of another lane ([`crate::stream::After`]); on stream lanes only, from the program.
    pub const AFTER: Kind = Kind(6);
    /// Number of the last complete request, the latched error and free slots ([`crate::stream::FreeSlots`]); on stream lanes only, from the worker.
    pub const PROGRESS: Kind = Kind(7);
    /// First frame of a connection, from the program ([`crate::handshake::Hello`]).
    pub const HELLO: Kind = Kind(16);
    /// The hello was accepted ([`crate::handshake::ControlWelcome`] or [`crate::handshake::LaneWelcome`]).
    pub const WELCOME: Kind = Kind(17);
    /// The hello was not accepted ([`crate::handshake::Refused`]).
    pub const REFUSED: Kind = Kind(18);
    /// The worker asks for memory in the window ([`crate::window::Grow`]); on control connections only.
    pub const WINDOW_GROW: Kind = Kind(19);
    /// The program's answer to [`Kind::WINDOW_GROW`] ([`crate::window::Grown`]).
    pub const WINDOW_GROWN: Kind = Kind(20);
    /// The worker has done with memory that it had asked for ([`crate::window::Shrink`]); on control connections only.
    pub const WINDOW_SHRINK: Kind = Kind(21);
    /// First kind that is free for use between the daemon and its workers; never sent to or accepted from a program.
    pub const FIRST_PRIVATE: Kind = Kind(192);

    /// The name, for kinds that this version knows.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Kind::POSTED => "posted",
            Kind::SYNC => "sync",
            Kind::REPLY => "reply",
            Kind::DATA => "data",
            Kind::WATCH => "watch",
            Kind::AFTER => "after",
            Kind::PROGRESS => "progress",
            Kind::HELLO => "hello",
            Kind::WELCOME => "welcome",
            Kind::REFUSED => "refused",
            Kind::WINDOW_GROW => "window grow",
            Kind::WINDOW_GROWN => "window grown",
            Kind::WINDOW_SHRINK => "window shrink",
            _ => return None,
        })
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "kind {}", self.0),
        }
    }
}

/// Bits of a frame that do not depend on its operation. Unknown bits are ignored by the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Flags(pub u8);

impl Flags {
    /// No bit set.
    pub const NONE: Flags = Flags(0);
    /// Reply: device output (printf, assert) waits to be fetched with `device_output`.
    pub const DEVICE_OUTPUT: Flags = Flags(1);
    /// Reply: code is loaded that can print.
    pub const MAY_PRINT: Flags = Flags(2);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of either.
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// A decoded frame header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Body bytes that follow; a multiple of 8.
    pub len: u32,
    /// Operation (requests and replies), 0 in a handshake.
    pub op: u16,
    /// What the frame is.
    pub kind: Kind,
    /// See [`Flags`].
    pub flags: Flags,
    /// Requests of a lane count up from 1; a reply repeats its request's number, a watch names one. The number in a progress frame. 0 in all others.
    pub seq: u64,
    /// Result of the operation in a reply, latched error in a progress frame, otherwise 0.
    pub status: Status,
}

/// The header as it lies in memory: little-endian, no padding.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    len: U32,
    op: U16,
    kind: u8,
    flags: u8,
    seq: U64,
    status: U32,
    magic: U32,
}

const _: () = assert!(size_of::<Raw>() == HEADER_LEN);

impl FrameHeader {
    /// A header with status 0 and no flags.
    pub const fn new(kind: Kind, op: u16, seq: u64, len: u32) -> FrameHeader {
        FrameHeader { len, op, kind, flags: Flags::NONE, seq, status: Status::SUCCESS }
    }

    /// The bytes on the wire.
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        zerocopy::transmute!(Raw {
            len: U32::new(self.len),
            op: U16::new(self.op),
            kind: self.kind.0,
            flags: self.flags.0,
            seq: U64::new(self.seq),
            status: U32::new(self.status.0),
            magic: U32::new(MAGIC),
        })
    }

    /// Decodes and checks magic and length. Kind, operation, flags and status stay open: the receiver knows what it expects.
    ///
    /// # Errors
    /// A wrong magic, a length that is no multiple of 8, or one above `max_len`.
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_LEN], max_len: u32) -> Result<FrameHeader, FrameError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        if raw.magic.get() != MAGIC {
            return Err(FrameError::Magic(raw.magic.get()));
        }
        let len = raw.len.get();
        if !len.is_multiple_of(8) {
            return Err(FrameError::LenAlignment(len));
        }
        if len > max_len {
            return Err(FrameError::LenLimit { len, max: max_len });
        }
        Ok(FrameHeader {
            len,
            op: raw.op.get(),
            kind: Kind(raw.kind),
            flags: Flags(raw.flags),
            seq: raw.seq.get(),
            status: Status(raw.status.get()),
        })
    }
}

/// Why a header was not accepted; each variant carries the offending value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The last word is not [`MAGIC`].
    Magic(u32),
    /// `len` is not a multiple of 8.
    LenAlignment(u32),
    /// `len` exceeds what the receiver accepts.
    LenLimit { len: u32, max: u32 },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            FrameError::Magic(value) => write!(f, "frame magic is {value:#010x}, not {MAGIC:#010x}"),
            FrameError::LenAlignment(len) => write!(f, "frame length {len} is not a multiple of 8"),
            FrameError::LenLimit { len, max } => {
                write!(f, "frame length {len} exceeds the limit of {max} bytes")
            }
        }
    }
}

impl core::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = FrameHeader> {
        (0u32..=4096, any::<u16>(), any::<u8>(), any::<u8>(), any::<u64>(), any::<u32>()).prop_map(
            |(words, op, kind, flags, seq, status)| FrameHeader {
                len: words * 8,
                op,
                kind: Kind(kind),
                flags: Flags(flags),
                seq,
                status: Status(status),
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(header in any_header()) {
            prop_assert_eq!(FrameHeader::decode(&header.encode(), 32768), Ok(header));
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let header = FrameHeader {
            len: 0x0102_0308,
            op: 0x0a0b,
            kind: Kind::REPLY,
            flags: Flags::DEVICE_OUTPUT,
            seq: 0x1122_3344_5566_7788,
            status: Status(0xaabb_ccdd),
        };
        assert_eq!(
            header.encode(),
            [
                0x08, 0x03, 0x02, 0x01, 0x0b, 0x0a, 3, 1, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
                0xdd, 0xcc, 0xbb, 0xaa, b'c', b'u', b'F', b'r'
            ]
        );
    }

    #[test]
    fn bad_headers_name_the_value() {
        let good = FrameHeader::new(Kind::SYNC, 1, 1, 64).encode();
        assert_eq!(FrameHeader::decode(&good, 56), Err(FrameError::LenLimit { len: 64, max: 56 }));
        let mut odd = good;
        odd[0] = 65;
        assert_eq!(FrameHeader::decode(&odd, 4096), Err(FrameError::LenAlignment(65)));
        let mut magic = good;
        magic[20] = 0;
        let error = FrameHeader::decode(&magic, 4096).unwrap_err();
        assert!(std::format!("{error}").contains("0x72467500"), "{error}");
    }
}
