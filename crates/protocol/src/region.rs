//! The session's region: 4 TiB of virtual addresses at the same place in the program and in its worker.
//!
//! `[tag << 42, (tag + 1) << 42)`. The lower half holds device memory and is mapped in the worker alone; the upper half is the *window*, one memfd mapped
//! in both.

use core::fmt;
use core::ops::Range;

/// log2 of the region's size.
pub const REGION_SHIFT: u32 = 42;
/// Bytes of a region (4 TiB).
pub const REGION_LEN: u64 = 1 << REGION_SHIFT;
/// Offset of the window in its region.
pub const WINDOW_OFFSET: u64 = 1 << 41;
/// The most bytes that a window can have.
pub const WINDOW_MAX_LEN: u64 = REGION_LEN - WINDOW_OFFSET;

/// Which region; the upper bits of each of its addresses. Valid tags are 1 to 31 (47-bit user addresses), see [`Region::new`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Region(u32);

/// Tags that a program proposes, in this order, until program and worker both have the range free.
///
/// A user address space of 47 bits has tags 0 to 31. On x86-64 Linux these are taken, or may be:
/// * 0: programs linked to a fixed address, their heap, Go's arenas at 0xc0_0000_0000, the kernel driver's low reservations;
/// * 0 to 4: AddressSanitizer's shadow (0x7fff8000 to 0x1000_7fff_8000); 1 to 5: the multi-mapped heaps of the JVM's ZGC;
/// * up to 8, and 12: ThreadSanitizer's shadow (to 0x2000_0000_0000) and meta shadow (0x3000_0000_0000);
/// * 21, 22 and, with `vm.mmap_rnd_bits = 32`, to 25: position-independent programs (from 0x5555_5555_4000) and their heap after them;
/// * 24: the sanitizers' allocator (0x6000_0000_0000 and up);
/// * 26 to 31: mmap area and stack, growing downwards from 0x7fff_ffff_f000 with up to 16 TiB of randomisation.
///
/// What remains is 9 to 11 and 14 to 20; the others follow for programs that took those.
pub const CANDIDATES: [u32; 14] = [9, 10, 11, 14, 15, 16, 17, 18, 19, 20, 7, 8, 6, 13];

impl Region {
    /// The region of a tag, if it is one that a 47-bit address space has (1 to 31).
    pub const fn new(tag: u32) -> Option<Region> {
        if tag >= 1 && tag < 32 { Some(Region(tag)) } else { None }
    }

    /// The regions of [`CANDIDATES`].
    pub fn candidates() -> impl Iterator<Item = Region> {
        CANDIDATES.into_iter().map(Region)
    }

    /// The tag: `address >> 42` of each address in the region.
    #[inline]
    pub const fn tag(self) -> u32 {
        self.0
    }

    /// First address.
    #[inline]
    pub const fn start(self) -> u64 {
        (self.0 as u64) << REGION_SHIFT
    }

    /// Address after the last one.
    #[inline]
    pub const fn end(self) -> u64 {
        self.start() + REGION_LEN
    }

    /// First address of the window.
    #[inline]
    pub const fn window_start(self) -> u64 {
        self.start() + WINDOW_OFFSET
    }

    /// The lower half: device memory.
    pub const fn device_range(self) -> Range<u64> {
        self.start()..self.window_start()
    }

    /// The upper half: the window (of which the first `window_len` bytes are backed).
    pub const fn window_range(self) -> Range<u64> {
        self.window_start()..self.end()
    }

    /// Whether the address lies in the region.
    #[inline]
    pub const fn contains(self, address: u64) -> bool {
        address >> REGION_SHIFT == self.0 as u64
    }

    /// Whether all `len` bytes from `address` lie in the region.
    #[inline]
    pub const fn contains_range(self, address: u64, len: u64) -> bool {
        self.contains(address) && len <= self.end() - address
    }

    /// Whether the address lies in the lower half.
    #[inline]
    pub const fn is_device(self, address: u64) -> bool {
        self.contains(address) && address & WINDOW_OFFSET == 0
    }

    /// Offset in the window, if the address lies in the upper half.
    #[inline]
    pub const fn window_offset(self, address: u64) -> Option<u64> {
        if self.contains(address) && address & WINDOW_OFFSET != 0 {
            Some(address - self.window_start())
        } else {
            None
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "region {} ({:#x})", self.0, self.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn predicates_agree_with_ranges(tag in 1u32..32, address in any::<u64>(), near in -5i64..5, len in any::<u64>()) {
            let region = Region::new(tag).unwrap();
            for address in [address, address & (REGION_LEN - 1) | region.start(), region.start().wrapping_add_signed(near),
                            region.window_start().wrapping_add_signed(near), region.end().wrapping_add_signed(near)] {
                let inside = (region.start()..region.end()).contains(&address);
                prop_assert_eq!(region.contains(address), inside);
                prop_assert_eq!(region.is_device(address), region.device_range().contains(&address));
                let offset = region.window_range().contains(&address).then(|| address - region.window_start());
                prop_assert_eq!(region.window_offset(address), offset);
                let fits = inside && u128::from(address) + u128::from(len) <= u128::from(region.end());
                prop_assert_eq!(region.contains_range(address, len), fits);
            }
        }
    }

    #[test]
    fn candidates_are_valid_and_distinct() {
        for (i, tag) in CANDIDATES.iter().enumerate() {
            assert!(Region::new(*tag).is_some());
            assert!(!CANDIDATES[..i].contains(tag));
        }
        assert_eq!(Region::new(0), None);
        assert_eq!(Region::new(32), None);
        assert_eq!(Region::new(31).unwrap().end(), 1 << 47);
    }
}
