//! First-fit allocation of address ranges, without touching the memory they stand for.

use std::collections::BTreeMap;

/// Free and used parts of `[0, len)`, or of what was added since. Offsets and lengths are bytes, multiples of the granule.
#[derive(Debug)]
pub struct RangeAllocator {
    granule: u64,
    /// offset -> length; neighbours are always merged
    free: BTreeMap<u64, u64>,
    /// offset -> length
    used: BTreeMap<u64, u64>,
    free_bytes: u64,
}

impl RangeAllocator {
    /// Everything in `[0, len)` is free. `granule` must be a power of two; `len` is rounded down to it.
    pub fn new(len: u64, granule: u64) -> Self {
        assert!(granule.is_power_of_two());
        let len = len & !(granule - 1);
        let free = if len > 0 { BTreeMap::from([(0, len)]) } else { BTreeMap::new() };
        Self { granule, free, used: BTreeMap::new(), free_bytes: len }
    }

    /// Takes the first free range of `len` bytes (rounded up to the granule; 0 is one granule) at a multiple of `align`.
    pub fn alloc(&mut self, len: u64, align: u64) -> Option<u64> {
        if !align.is_power_of_two() {
            return None;
        }
        let len = len.max(1).checked_add(self.granule - 1)? & !(self.granule - 1);
        let align = align.max(self.granule);
        let (at, start, hole) = self.free.iter().find_map(|(&at, &hole)| {
            let start = at.checked_add(align - 1)? & !(align - 1);
            (start.checked_add(len)? <= at + hole).then_some((at, start, hole))
        })?;
        self.free.remove(&at);
        if start > at {
            self.free.insert(at, start - at);
        }
        if start + len < at + hole {
            self.free.insert(start + len, at + hole - start - len);
        }
        self.used.insert(start, len);
        self.free_bytes -= len;
        Some(start)
    }

    /// Gives a range back; returns its length, or `None` if no allocation starts there.
    pub fn free(&mut self, start: u64) -> Option<u64> {
        let len = self.used.remove(&start)?;
        self.free_bytes += len;
        self.insert_free(start, len);
        Some(len)
    }

    fn insert_free(&mut self, start: u64, len: u64) {
        let (mut at, mut total) = (start, len);
        if let Some((&before, &before_len)) = self.free.range(..start).next_back()
            && before + before_len == start
        {
            self.free.remove(&before);
            at = before;
            total += before_len;
        }
        if let Some(after_len) = self.free.remove(&(start + len)) {
            total += after_len;
        }
        self.free.insert(at, total);
    }

    /// Adds a range that is neither free nor used. Offset and length are multiples of the granule.
    pub fn add(&mut self, start: u64, len: u64) {
        debug_assert!((start | len) & (self.granule - 1) == 0 && len > 0 && !self.overlaps(start, len));
        self.free_bytes += len;
        self.insert_free(start, len);
    }

    /// Whether all of a range is free.
    pub fn is_free(&self, start: u64, len: u64) -> bool {
        self.free.range(..=start).next_back().is_some_and(|(at, hole)| start + len <= at + hole)
    }

    /// Takes a range out, if all of it is free.
    pub fn remove(&mut self, start: u64, len: u64) -> bool {
        let Some((&at, &hole)) = self.free.range(..=start).next_back() else { return false };
        if !self.is_free(start, len) {
            return false;
        }
        self.free.remove(&at);
        if start > at {
            self.free.insert(at, start - at);
        }
        if start + len < at + hole {
            self.free.insert(start + len, at + hole - start - len);
        }
        self.free_bytes -= len;
        true
    }

    fn overlaps(&self, start: u64, len: u64) -> bool {
        let reaches = |ranges: &BTreeMap<u64, u64>| {
            ranges.range(..start + len).next_back().is_some_and(|(at, other)| at + other > start)
        };
        reaches(&self.free) || reaches(&self.used)
    }

    /// The allocation that contains `offset`: its start and length.
    pub fn find(&self, offset: u64) -> Option<(u64, u64)> {
        let (&start, &len) = self.used.range(..=offset).next_back()?;
        (offset - start < len).then_some((start, len))
    }

    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    pub fn used_ranges(&self) -> usize {
        self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rounds_aligns_and_coalesces() {
        let mut ranges = RangeAllocator::new(0x10_0000, 0x1000);
        let a = ranges.alloc(1, 1).unwrap();
        let b = ranges.alloc(0x1001, 0x8000).unwrap();
        assert_eq!((a, b), (0, 0x8000));
        assert_eq!(ranges.alloc(0x7000, 1), Some(0x1000));
        assert_eq!(ranges.find(0x9fff), Some((0x8000, 0x2000)));
        assert_eq!(ranges.find(0xa000), None);
        for start in [0x1000, 0, 0x8000] {
            assert!(ranges.free(start).is_some());
        }
        assert_eq!(ranges.free(0x8000), None);
        assert_eq!(ranges.alloc(0x10_0000, 1), Some(0));
        assert_eq!(ranges.alloc(1, 1), None);
    }

    #[test]
    fn hostile_sizes_are_refused() {
        let mut ranges = RangeAllocator::new(0x10_0000, 0x1000);
        assert_eq!(ranges.alloc(u64::MAX, 1), None);
        assert_eq!(ranges.alloc(u64::MAX - 0xfff, 1), None);
        assert_eq!(ranges.alloc(1, 3), None);
        assert_eq!(ranges.alloc(1, 1 << 63), Some(0));
        assert_eq!(ranges.alloc(1, 1 << 63), None);
    }

    #[test]
    fn ranges_come_and_go() {
        let mut ranges = RangeAllocator::new(0, 0x1000);
        assert_eq!(ranges.alloc(1, 1), None);
        ranges.add(0x4000, 0x2000);
        ranges.add(0x6000, 0x2000);
        assert_eq!(ranges.free_bytes(), 0x4000);
        // Across both.
        assert_eq!(ranges.alloc(0x3000, 1), Some(0x4000));
        assert!(!ranges.remove(0x4000, 0x2000) && !ranges.remove(0x6000, 0x2000));
        assert!(!ranges.remove(0x8000, 0x1000) && !ranges.remove(0, 0x1000));
        assert!(ranges.remove(0x7000, 0x1000));
        assert_eq!(ranges.alloc(1, 1), None);
        ranges.free(0x4000).unwrap();
        assert!(ranges.remove(0x5000, 0x1000));
        assert_eq!(ranges.free_bytes(), 0x2000);
        assert_eq!(
            (ranges.alloc(1, 1), ranges.alloc(1, 1), ranges.alloc(1, 1)),
            (Some(0x4000), Some(0x6000), None)
        );
    }

    proptest! {
        #[test]
        fn never_overlaps_and_never_leaks(steps in proptest::collection::vec((any::<bool>(), 1u64..0x9000, 0u32..4), 1..200)) {
            let total = 0x4_0000;
            let mut ranges = RangeAllocator::new(total, 0x1000);
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (free, len, align) in steps {
                if free && !live.is_empty() {
                    let (start, _) = live.swap_remove(usize::try_from(len).unwrap() % live.len());
                    prop_assert!(ranges.free(start).is_some());
                } else if let Some(start) = ranges.alloc(len, 0x1000 << align) {
                    prop_assert_eq!(start % (0x1000 << align), 0);
                    prop_assert!(start + len <= total);
                    for &(other, other_len) in &live {
                        prop_assert!(start >= other + other_len || other >= start + len);
                    }
                    live.push((start, len));
                }
            }
            for (start, _) in live {
                prop_assert!(ranges.free(start).is_some());
            }
            prop_assert_eq!(ranges.alloc(total, 1), Some(0));
        }
    }
}
