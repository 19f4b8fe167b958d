#![allow(unsafe_code)]
//! Long copies of pageable memory in a virtual machine: the program lends the memory to the host, which copies it where it is.
//!
//! The machine's broker pins the pages and tells the host where they are; nothing is copied in the guest. The copy goes in pieces: while the host is at one, the next one is
//! pinned and the one before is given up. Unsafe because the program's memory is named by its pointers.

use protocol::status::Status;

use crate::copy::{Rows, Side};
use crate::generated::wire;
use crate::process::process;

/// Shorter copies cost less through the staging area than pinning does (two messages of the broker, two system calls).
const SHORTEST: u64 = 1 << 20;
/// The first piece is shorter than the others: nothing is copied while it is pinned. But pinning is a message to the host and back, whatever the length: in a guest of an interpreted
/// processor 4 MiB took 0.6 ms at best, 32 MiB 1.5 ms. (256 MiB out of an H200 to such a guest: 13.7 GB/s with pieces of 32 MiB, 15.9 with 64, 13.2 with 128, 15.0 if the first has 8.)
const FIRST: u64 = 16 << 20;
/// No piece is longer, but for the last: two at a time are pinned, which counts against the machine's limits.
const LONGEST: u64 = 64 << 20;
/// Less than this is added to the piece before it.
const REST: u64 = 8 << 20;
/// Pieces end between two pages of the program, so that none is pinned twice.
const PAGE: u64 = 4096;

/// The pieces of a copy.
struct Pieces {
    /// Address of the next one in the program.
    next: u64,
    left: u64,
    longest: u64,
}

impl Pieces {
    fn new(host: u64, len: u64) -> Self {
        Self { next: host, left: len, longest: FIRST }
    }
}

impl Iterator for Pieces {
    /// Address and length.
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        if self.left < SHORTEST {
            return None;
        }
        let len = if self.left < self.longest + REST {
            self.left
        } else {
            self.longest - (self.next.wrapping_add(self.longest)) % PAGE
        };
        let piece = (self.next, len);
        self.next = self.next.wrapping_add(len);
        self.left -= len;
        self.longest = LONGEST;
        Some(piece)
    }
}

/// Carries out as much of a copy as can be done this way; how many bytes that is, from the start. Only lines are.
///
/// # Errors
/// Those of the copy itself.
///
/// # Safety
/// The [`Side::Host`] side is valid for all rows.
pub unsafe fn copy(rows: &Rows, stream: u64) -> Result<u64, Status> {
    let Some(broker) = process().session.get().and_then(|session| session.broker()) else { return Ok(0) };
    if rows.height != 1 {
        return Ok(0);
    }
    let (host, device, inward) = match (rows.dst, rows.src) {
        (Side::Region(dst), Side::Host(src)) => (src, dst, true),
        (Side::Host(dst), Side::Region(src)) => (dst, src, false),
        _ => return Ok(0),
    };
    let pin = |(host, len): (u64, u64)| {
        let at = core::ptr::with_exposed_provenance_mut(host as usize);
        // SAFETY: the program has given these bytes for the copy and leaves them alone until it is over. The host writes no others of these pages.
        match unsafe { broker.pin(at, len as usize) } {
            Ok(pinned) => Some((pinned, len)),
            // Read-only memory, a limit: the staging area takes it.
            Err(error) => {
                crate::log!(Debug, "{len} bytes are copied by way of the staging area: {error}");
                None
            }
        }
    };
    let mut pieces = Pieces::new(host as u64, rows.width);
    let mut piece = pieces.next().and_then(pin);
    let mut before = None;
    let mut done = 0;
    while let Some((pinned, len)) = piece.take() {
        let meanwhile = || {
            before = None;
            piece = pieces.next().and_then(pin);
        };
        let (device, region, region_len) =
            (device.wrapping_add(done), pinned.region(), pinned.region_bytes());
        let offset = pinned.offset_bytes();
        let copied = if inward {
            wire::lent_in(device, region, region_len, offset, len, stream, meanwhile)
        } else {
            wire::lent_out(device, region, region_len, offset, len, stream, meanwhile)
        };
        match copied {
            Ok(()) => done += len,
            // The host has no room to map it: other threads lend much, and memory without huge pages is in many pieces.
            Err(Status::OUT_OF_MEMORY) => break,
            Err(error) => return Err(error),
        }
        before = Some(pinned);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn lengths(host: u64, len: u64) -> Vec<u64> {
        Pieces::new(host, len).map(|(_, len)| len).collect()
    }

    #[test]
    fn lengths_of_pieces() {
        assert_eq!(lengths(0, 64 * MIB), [16, 48].map(|len| len * MIB));
        assert_eq!(lengths(0, 200 * MIB), [16, 64, 64, 56].map(|len| len * MIB));
        assert_eq!(lengths(100, 50 * MIB), [16 * MIB - 100, 34 * MIB + 100]);
        assert_eq!(lengths(0, 24 * MIB - 1), [24 * MIB - 1]);
        assert_eq!(lengths(0, 24 * MIB), [16 * MIB, 8 * MIB]);
        assert_eq!(lengths(7, MIB), [MIB]);
        assert!(lengths(7, MIB - 1).is_empty());
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole(host in 0..1u64 << 47, len in prop_oneof![0..2 * MIB, 0..300 * MIB]) {
            let mut at = host;
            for (start, len) in Pieces::new(host, len) {
                prop_assert_eq!(start, at);
                prop_assert!(start == host || start % PAGE == 0);
                prop_assert!((SHORTEST..LONGEST + REST).contains(&len));
                at += len;
            }
            prop_assert_eq!(at - host, if len < SHORTEST { 0 } else { len });
        }
    }
}
