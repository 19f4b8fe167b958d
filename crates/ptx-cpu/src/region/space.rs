//! Address space bookkeeping: best fit over free ranges, both directions logarithmic.

use std::collections::{BTreeMap, BTreeSet};

/// Hands out disjoint sub-ranges of one range of addresses. Touches no memory.
#[derive(Debug)]
pub(crate) struct SpaceAllocator {
    by_start: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
}

impl SpaceAllocator {
    /// All of `[start, start + len)` is free.
    pub(crate) fn new(start: u64, len: u64) -> Self {
        let mut space = SpaceAllocator { by_start: BTreeMap::new(), by_len: BTreeSet::new() };
        space.insert(start, len);
        space
    }

    fn insert(&mut self, start: u64, len: u64) {
        if len != 0 {
            self.by_start.insert(start, len);
            self.by_len.insert((len, start));
        }
    }

    fn remove(&mut self, start: u64, len: u64) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }

    /// The start of `len` bytes, a multiple of `align` (a power of two), from the smallest free range that can hold them.
    pub(crate) fn allocate(&mut self, len: u64, align: u64) -> Option<u64> {
        if len == 0 || !align.is_power_of_two() {
            return None;
        }
        let (range_len, range_start, start) =
            self.by_len.range((len, 0)..).find_map(|&(range_len, range_start)| {
                let start = range_start.checked_add(align - 1)? & !(align - 1);
                let fits = start.checked_add(len)? <= range_start + range_len;
                fits.then_some((range_len, range_start, start))
            })?;
        self.remove(range_start, range_len);
        self.insert(range_start, start - range_start);
        self.insert(start + len, range_start + range_len - (start + len));
        Some(start)
    }

    /// Gives back a range got from [`allocate`](Self::allocate).
    pub(crate) fn release(&mut self, start: u64, len: u64) {
        let (mut start, mut len) = (start, len);
        if let Some((&before, &before_len)) = self.by_start.range(..start).next_back() {
            debug_assert!(before + before_len <= start, "released range is free already");
            if before + before_len == start {
                self.remove(before, before_len);
                start = before;
                len += before_len;
            }
        }
        if let Some(&after_len) = self.by_start.get(&(start + len)) {
            self.remove(start + len, after_len);
            len += after_len;
        }
        self.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everything_comes_back_as_one_range() {
        let mut space = SpaceAllocator::new(0x1000, 0x10000);
        let ranges: Vec<u64> = (0..16).map(|_| space.allocate(0x1000, 0x1000).unwrap()).collect();
        assert_eq!(space.allocate(1, 1), None);
        for start in ranges.iter().step_by(2).chain(ranges.iter().skip(1).step_by(2)) {
            space.release(*start, 0x1000);
        }
        assert_eq!(space.by_start.len(), 1);
        assert_eq!(space.allocate(0x10000, 0x1000), Some(0x1000));
    }

    proptest! {
        #[test]
        fn ranges_are_disjoint_aligned_and_inside(steps in proptest::collection::vec((1u64..5000, 0u32..12, any::<bool>()), 1..200)) {
            let (base, total) = (0x10_0000u64, 0x4_0000u64);
            let mut space = SpaceAllocator::new(base, total);
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (len, align, free) in steps {
                if free && !live.is_empty() {
                    let (start, len) = live.swap_remove(len as usize % live.len());
                    space.release(start, len);
                } else if let Some(start) = space.allocate(len, 1 << align) {
                    prop_assert_eq!(start % (1 << align), 0);
                    prop_assert!(start >= base && start + len <= base + total);
                    for &(other, other_len) in &live {
                        prop_assert!(start + len <= other || other + other_len <= start);
                    }
                    live.push((start, len));
                }
                let used: u64 = live.iter().map(|range| range.1).sum();
                let free: u64 = space.by_start.values().sum();
                prop_assert_eq!(used + free, total);
                prop_assert_eq!(space.by_start.len(), space.by_len.len());
            }
        }
    }
}
