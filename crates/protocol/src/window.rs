//! How a window in a guest's memory comes by its memory. The frames go over the session's control connection, after the handshake.
//!
//! The worker alone decides what lies where in the window, as it does in one that is a memfd. But its memory must come from the guest, whose
//! broker module vouches for it ([`crate::broker`]):
//!
//! ```text
//! worker                              program
//!    | Grow { offset, len }              |
//!    |---------------------------------->|  allocates a window region of its broker, maps it at the offset
//!    | Grown { offset, region }          |
//!    |<----------------------------------|
//!    |  asks the daemon where that region is, maps it at the same offset
//!    |  ...                              |
//!    | Shrink { offset }                 |
//!    |---------------------------------->|  (the worker has unmapped it) unmaps it and gives the region up
//! ```
//! There is at most one [`Grow`] without an answer at a time.

use alloc::vec::Vec;

use crate::frame::{FrameHeader, Kind};
use crate::region::WINDOW_MAX_LEN;
use crate::status::Status;
use crate::wire::{Reader, WireError, Writer};

/// Offsets and lengths are multiples of this, so that huge pages can stay whole.
pub const GRANULE_LEN: u64 = 2 << 20;
/// The most body bytes of one of these frames.
pub const MAX_BODY: u32 = 24;

/// Whether `len` bytes at `offset` can be a part of a window.
const fn is_part(offset: u64, len: u64) -> bool {
    len != 0
        && offset.is_multiple_of(GRANULE_LEN)
        && len.is_multiple_of(GRANULE_LEN)
        && len <= WINDOW_MAX_LEN
        && offset <= WINDOW_MAX_LEN - len
}

/// Why a body is none of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowError {
    /// The body is malformed.
    Body(WireError),
    /// The place is no part of a window.
    Place {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

impl From<WireError> for WindowError {
    fn from(error: WireError) -> WindowError {
        WindowError::Body(error)
    }
}

impl core::fmt::Display for WindowError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            WindowError::Body(error) => write!(f, "window frame: {error}"),
            WindowError::Place { offset, len } => {
                write!(f, "window frame: {len:#x} bytes at {offset:#x} are no part of a window")
            }
        }
    }
}

impl core::error::Error for WindowError {}

/// Body of [`Kind::WINDOW_GROW`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grow {
    /// Where in the window, in bytes; a multiple of [`GRANULE_LEN`].
    pub offset: u64,
    /// Bytes; a multiple of [`GRANULE_LEN`].
    pub len: u64,
}

impl Grow {
    /// Writes the body to `buf` (emptied first) and returns the frame's header.
    pub fn encode(&self, buf: &mut Vec<u8>) -> FrameHeader {
        let mut w = Writer::new(buf);
        w.u64(self.offset);
        w.u64(self.len);
        FrameHeader::new(Kind::WINDOW_GROW, 0, 0, w.len() as u32)
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// It is malformed, or the place is no part of a window.
    pub fn decode(body: &[u8]) -> Result<Grow, WindowError> {
        let mut r = Reader::new(body);
        let grow = Grow { offset: r.u64()?, len: r.u64()? };
        r.finish()?;
        if is_part(grow.offset, grow.len) {
            Ok(grow)
        } else {
            Err(WindowError::Place { offset: grow.offset, len: grow.len })
        }
    }
}

/// Body of [`Kind::WINDOW_GROWN`]. The frame's status says whether there is memory; if not, why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grown {
    /// As in the [`Grow`].
    pub offset: u64,
    /// What the broker calls the memory.
    pub region: u64,
}

impl Grown {
    /// Writes the body to `buf` (emptied first) and returns the frame's header.
    pub fn encode(&self, status: Status, buf: &mut Vec<u8>) -> FrameHeader {
        let mut w = Writer::new(buf);
        w.u64(self.offset);
        w.u64(self.region);
        FrameHeader { status, ..FrameHeader::new(Kind::WINDOW_GROWN, 0, 0, w.len() as u32) }
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(body: &[u8]) -> Result<Grown, WindowError> {
        let mut r = Reader::new(body);
        let grown = Grown { offset: r.u64()?, region: r.u64()? };
        r.finish()?;
        Ok(grown)
    }
}

/// Body of [`Kind::WINDOW_SHRINK`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shrink {
    /// As in the [`Grow`] that asked for it.
    pub offset: u64,
}

impl Shrink {
    /// Writes the body to `buf` (emptied first) and returns the frame's header.
    pub fn encode(&self, buf: &mut Vec<u8>) -> FrameHeader {
        let mut w = Writer::new(buf);
        w.u64(self.offset);
        FrameHeader::new(Kind::WINDOW_SHRINK, 0, 0, w.len() as u32)
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(body: &[u8]) -> Result<Shrink, WindowError> {
        let mut r = Reader::new(body);
        let shrink = Shrink { offset: r.u64()? };
        r.finish()?;
        Ok(shrink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(offset in 0..WINDOW_MAX_LEN / GRANULE_LEN, len in 1..1024u64, region: u64, status: u32) {
            let mut body = Vec::new();
            let grow = Grow { offset: offset * GRANULE_LEN, len: len * GRANULE_LEN };
            let header = grow.encode(&mut body);
            prop_assert_eq!((header.kind, header.len as usize), (Kind::WINDOW_GROW, body.len()));
            prop_assert!(header.len <= MAX_BODY);
            let fits = grow.offset + grow.len <= WINDOW_MAX_LEN;
            prop_assert_eq!(Grow::decode(&body), if fits { Ok(grow) } else { Err(WindowError::Place { offset: grow.offset, len: grow.len }) });
            let grown = Grown { offset: grow.offset, region };
            prop_assert_eq!(grown.encode(Status(status), &mut body).status, Status(status));
            prop_assert!(body.len() <= MAX_BODY as usize);
            prop_assert_eq!(Grown::decode(&body), Ok(grown));
            prop_assert!(Grown::decode(&body[..8]).is_err());
            let shrink = Shrink { offset: grow.offset };
            shrink.encode(&mut body);
            prop_assert_eq!(Shrink::decode(&body), Ok(shrink));
        }
    }

    #[test]
    fn places_beyond_the_window_are_errors() {
        let decode = |offset: u64, len: u64| {
            let mut body = Vec::new();
            Grow { offset, len }.encode(&mut body);
            Grow::decode(&body).is_ok()
        };
        assert!(decode(0, GRANULE_LEN));
        assert!(decode(0, WINDOW_MAX_LEN));
        for (offset, len) in [
            (0, 0),
            (1, GRANULE_LEN),
            (0, GRANULE_LEN + 4096),
            (WINDOW_MAX_LEN, GRANULE_LEN),
            (GRANULE_LEN, WINDOW_MAX_LEN),
            (u64::MAX - GRANULE_LEN + 1, GRANULE_LEN),
            (GRANULE_LEN, u64::MAX - GRANULE_LEN + 1),
        ] {
            assert!(!decode(offset, len), "{offset:#x} {len:#x}");
        }
    }
}
