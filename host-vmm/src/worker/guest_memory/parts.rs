//! Which parts of the window there are. Policy alone: [`Source`] does the work.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::status::{CuResult, Status};
use protocol::window::GRANULE_LEN;

use super::{Run, Scattered};
use crate::worker::range_alloc::RangeAllocator;

/// A part is at least this long: the block of a lane and some small allocations fit.
const USUAL_LEN: u64 = 8 << 20;
/// Free parts beyond this sum are given back: programs that allocate and free in turns should not pay for new memory each time.
const SPARE_LEN: u64 = 64 << 20;

/// Where parts come from.
pub trait Source: Send + Sync {
    /// Has memory mapped at the same place in program and worker. Waits for both.
    ///
    /// # Errors
    /// There is none to be had.
    fn map(&self, offset: u64, len: u64) -> CuResult;

    /// Gives it back. Nothing uses it any more.
    fn unmap(&self, offset: u64, len: u64);

    /// Maps memory of the program's own, which its broker has pinned as `region`, in the window. Where it lies in the machine's files. Waits for the daemon.
    ///
    /// # Errors
    /// As [`Source::lend`].
    fn adopt(&self, region: u64, offset: u64, len: u64) -> CuResult<Vec<Run>>;

    /// Gives that back. Nothing uses it any more.
    fn disown(&self, offset: u64);

    /// Finds memory of the program's own, which its broker has pinned as `region`. Waits for the daemon.
    ///
    /// # Errors
    /// INVALID_VALUE if the program has no such region of this length, or it is in use already; OUT_OF_MEMORY if it is in too many pieces.
    fn lend(&self, region: u64, len: u64) -> CuResult<Scattered>;

    /// Is done with it, before the program is told so.
    fn take_back(&self, region: u64);

    /// The machine's files, which regions lie in.
    fn files(&self) -> Arc<[OwnedFd]>;
}

#[derive(Clone, Copy)]
struct Part {
    len: u64,
    /// A lane has its block there: it stays.
    kept: bool,
}

/// The parts of a window.
pub struct Parts {
    source: Box<dyn Source>,
    table: Mutex<Table>,
}

struct Table {
    /// Places for parts, of all that the window may ever have.
    places: RangeAllocator,
    parts: BTreeMap<u64, Part>,
    /// Offsets of memory that is the program's own.
    adopted: BTreeSet<u64>,
}

impl Parts {
    /// None yet, of a window of `window_len` bytes.
    pub fn new(window_len: u64, source: Box<dyn Source>) -> Self {
        let table = Table {
            places: RangeAllocator::new(window_len, GRANULE_LEN),
            parts: BTreeMap::new(),
            adopted: BTreeSet::new(),
        };
        Self { source, table: Mutex::new(table) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocates from `ranges` as [`RangeAllocator::alloc`] does, getting memory for it if need be. `kept`: what is allocated stays mapped for good.
    pub fn alloc(&self, ranges: &Mutex<RangeAllocator>, len: u64, align: u64, kept: bool) -> Option<u64> {
        let take = || ranges.lock().unwrap_or_else(PoisonError::into_inner).alloc(len, align);
        let mut table = self.table();
        // Somebody else may have had the window grow meanwhile. What is added is taken at once, or another thread might be faster.
        let offset = match take() {
            Some(offset) => offset,
            None => {
                let part = self.grow(&mut table, len)?;
                let mut ranges = ranges.lock().unwrap_or_else(PoisonError::into_inner);
                ranges.add(part.start, part.end - part.start);
                ranges.alloc(len, align)?
            }
        };
        if kept {
            let end = offset.saturating_add(len.max(1));
            table
                .parts
                .iter_mut()
                .filter(|(at, part)| **at < end && offset < **at + part.len)
                .for_each(|(_, part)| part.kept = true);
        }
        Some(offset)
    }

    fn grow(&self, table: &mut Table, len: u64) -> Option<Range<u64>> {
        let exact = len.max(1).checked_next_multiple_of(GRANULE_LEN)?;
        // If the usual length is not to be had, what is needed may be.
        let mut tried = None;
        for len in [exact.max(USUAL_LEN), exact] {
            if tried == Some(len) {
                continue;
            }
            tried = Some(len);
            let Some(offset) = table.places.alloc(len, GRANULE_LEN) else { continue };
            match self.source.map(offset, len) {
                Ok(()) => {
                    table.parts.insert(offset, Part { len, kept: false });
                    return Some(offset..offset + len);
                }
                Err(status) => {
                    tracing::debug!(len, error = status.0, "no memory of the guest for the window");
                    table.places.free(offset);
                }
            }
        }
        None
    }

    /// Maps a region of the program's own pages; its offset in the window, and where it lies in the machine's files. Nothing is allocated there.
    ///
    /// # Errors
    /// OUT_OF_MEMORY if no addresses are left; those of [`Source::adopt`].
    pub fn adopt(&self, region: u64, len: u64) -> CuResult<(u64, Vec<Run>)> {
        let place = len.max(1).checked_next_multiple_of(GRANULE_LEN).ok_or(Status::INVALID_VALUE)?;
        let mut table = self.table();
        let offset = table.places.alloc(place, GRANULE_LEN).ok_or(Status::OUT_OF_MEMORY)?;
        match self.source.adopt(region, offset, len) {
            Ok(runs) => {
                table.adopted.insert(offset);
                Ok((offset, runs))
            }
            Err(status) => {
                table.places.free(offset);
                Err(status)
            }
        }
    }

    /// Gives back what was [adopted](Parts::adopt); false if nothing was at that offset. Nothing uses it any more.
    pub fn disown(&self, offset: u64) -> bool {
        let mut table = self.table();
        let known = table.adopted.remove(&offset);
        if known {
            self.source.disown(offset);
            table.places.free(offset);
        }
        known
    }

    /// Where memory comes from, for what is lent.
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// Gives parts back that `ranges`, in which something has been freed, does not need.
    pub fn trim(&self, ranges: &Mutex<RangeAllocator>) {
        let mut table = self.table();
        let mut spare = 0;
        let mut gone = Vec::new();
        {
            let mut ranges = ranges.lock().unwrap_or_else(PoisonError::into_inner);
            for (offset, part) in table.parts.iter().filter(|(_, part)| !part.kept) {
                if !ranges.is_free(*offset, part.len) {
                    continue;
                }
                spare += part.len;
                if spare > SPARE_LEN && ranges.remove(*offset, part.len) {
                    spare -= part.len;
                    gone.push((*offset, part.len));
                }
            }
        }
        for (offset, len) in gone {
            table.parts.remove(&offset);
            self.source.unmap(offset, len);
            table.places.free(offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory up to a limit, with what was asked for.
    #[derive(Default)]
    struct Fake {
        limit: u64,
        mapped: Mutex<BTreeMap<u64, u64>>,
    }

    struct Shared(Arc<Fake>);

    impl Source for Shared {
        fn map(&self, offset: u64, len: u64) -> CuResult {
            let mut mapped = self.0.mapped.lock().unwrap();
            if mapped.values().sum::<u64>() + len > self.0.limit {
                return Err(Status::OUT_OF_MEMORY);
            }
            assert!(mapped.insert(offset, len).is_none());
            Ok(())
        }

        fn unmap(&self, offset: u64, len: u64) {
            assert_eq!(self.0.mapped.lock().unwrap().remove(&offset), Some(len));
        }

        fn adopt(&self, region: u64, offset: u64, len: u64) -> CuResult<Vec<Run>> {
            if region == 0 {
                return Err(Status::INVALID_VALUE);
            }
            assert!(self.0.mapped.lock().unwrap().insert(offset, len).is_none());
            Ok(vec![Run { file: 0, offset: region, len }])
        }

        fn disown(&self, offset: u64) {
            assert!(self.0.mapped.lock().unwrap().remove(&offset).is_some());
        }

        fn lend(&self, _: u64, _: u64) -> CuResult<Scattered> {
            Err(Status::INVALID_VALUE)
        }

        fn take_back(&self, _: u64) {}

        fn files(&self) -> Arc<[OwnedFd]> {
            Arc::new([])
        }
    }

    fn parts(limit: u64) -> (Arc<Fake>, Parts, Mutex<RangeAllocator>) {
        let fake = Arc::new(Fake { limit, mapped: Mutex::default() });
        let parts = Parts::new(1 << 30, Box::new(Shared(Arc::clone(&fake))));
        (fake, parts, Mutex::new(RangeAllocator::new(0, 4096)))
    }

    fn mapped(fake: &Fake) -> u64 {
        fake.mapped.lock().unwrap().values().sum()
    }

    #[test]
    fn memory_comes_when_it_is_needed() {
        let (fake, parts, ranges) = parts(1 << 30);
        let first = parts.alloc(&ranges, 4096, 4096, false).unwrap();
        assert_eq!((first, mapped(&fake)), (0, USUAL_LEN));
        parts.alloc(&ranges, USUAL_LEN - 4096, 4096, false).unwrap();
        assert_eq!(mapped(&fake), USUAL_LEN);
        parts.alloc(&ranges, 100 << 20, GRANULE_LEN, false).unwrap();
        assert_eq!(mapped(&fake), USUAL_LEN + (100 << 20));
        assert_eq!(parts.alloc(&ranges, 1 << 30, 4096, false), None);
        assert_eq!(parts.alloc(&ranges, u64::MAX, 4096, false), None);
        // Neither left anything behind.
        assert_eq!(parts.alloc(&ranges, 900 << 20, 4096, false), Some(USUAL_LEN + (100 << 20)));
    }

    #[test]
    fn the_programs_own_pages_lie_beside_the_parts() {
        let (fake, parts, ranges) = parts(1 << 30);
        assert_eq!(parts.alloc(&ranges, 4096, 4096, false), Some(0));
        let (offset, runs) = parts.adopt(77, 5 * 4096).unwrap();
        assert_eq!((offset, runs), (USUAL_LEN, vec![Run { file: 0, offset: 77, len: 5 * 4096 }]));
        assert_eq!(parts.adopt(0, 4096), Err(Status::INVALID_VALUE));
        assert_eq!(parts.adopt(1, u64::MAX), Err(Status::INVALID_VALUE));
        assert_eq!(parts.adopt(1, 1 << 40), Err(Status::OUT_OF_MEMORY));
        // Nothing is allocated in them, whatever is free there.
        assert_eq!(parts.alloc(&ranges, USUAL_LEN, 4096, false), Some(USUAL_LEN + GRANULE_LEN));
        assert!(!parts.disown(0) && parts.disown(offset) && !parts.disown(offset));
        assert_eq!(mapped(&fake), 2 * USUAL_LEN);
        assert_eq!(parts.adopt(78, 4096).unwrap().0, offset);
    }

    #[test]
    fn less_than_usual_will_do() {
        let (fake, parts, ranges) = parts(5 << 20);
        assert_eq!(parts.alloc(&ranges, 3 << 20, 4096, false), Some(0));
        assert_eq!(mapped(&fake), 4 << 20);
        assert_eq!(parts.alloc(&ranges, 2 << 20, 4096, false), None);
        assert_eq!(parts.alloc(&ranges, 1 << 20, 4096, false), Some(3 << 20));
    }

    #[test]
    fn free_parts_go_back_but_some_stay() {
        let (fake, parts, ranges) = parts(1 << 30);
        let lane = parts.alloc(&ranges, 4096, 4096, true).unwrap();
        let large: Vec<u64> =
            (0..4).map(|_| parts.alloc(&ranges, 40 << 20, GRANULE_LEN, false).unwrap()).collect();
        let all = mapped(&fake);
        for offset in &large {
            ranges.lock().unwrap().free(*offset);
            parts.trim(&ranges);
        }
        assert!(all == USUAL_LEN + (160 << 20) && mapped(&fake) == USUAL_LEN + (40 << 20));
        // What is left is used first.
        parts.alloc(&ranges, 40 << 20, GRANULE_LEN, false).unwrap();
        assert_eq!(mapped(&fake), USUAL_LEN + (40 << 20));
        // A lane's part stays when the lane is gone.
        ranges.lock().unwrap().free(lane);
        parts.trim(&ranges);
        assert_eq!(mapped(&fake), USUAL_LEN + (40 << 20));
        assert!(fake.mapped.lock().unwrap().contains_key(&0));
    }
}
