//! Ranges of the program's own memory that it has registered with `cuMemHostRegister`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use guest_device::Pinned;
use protocol::status::{CuResult, Status};

use crate::reach::{self, Reached};

/// What is known of a range.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Bytes.
    len: usize,
    flags: u32,
    /// Where the device reaches it; `None` while nobody has asked, or if it cannot.
    reached: Option<Reached>,
    /// The device cannot be made to reach it.
    refused: bool,
}

/// The ranges, by their starts.
#[derive(Default)]
pub struct Registered {
    ranges: RwLock<BTreeMap<usize, Entry>>,
    /// Ranges that the device reaches: programs without any pay a load per copy.
    reached: AtomicUsize,
    /// What is pinned for ranges, by their starts. Held while one is made reachable or ceases to be; before `ranges`.
    pinned: Mutex<HashMap<usize, Pinned>>,
}

impl Registered {
    /// HOST_MEMORY_ALREADY_REGISTERED when the range touches another, INVALID_VALUE when it wraps around.
    pub fn insert(&self, start: usize, len: usize, flags: u32) -> CuResult {
        let end = start.checked_add(len).ok_or(Status::INVALID_VALUE)?;
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if ranges.range(..end).next_back().is_some_and(|(other, entry)| other + entry.len > start) {
            return Err(Status::HOST_MEMORY_ALREADY_REGISTERED);
        }
        ranges.insert(start, Entry { len, flags, reached: None, refused: false });
        Ok(())
    }

    /// INVALID_VALUE for an address inside a range, HOST_MEMORY_NOT_REGISTERED for one outside of all.
    pub fn remove(&self, start: usize) -> CuResult {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.ranges.write().unwrap_or_else(PoisonError::into_inner).remove(&start);
        let Some(entry) = removed else {
            let inside = self.find(start).is_some();
            return Err(if inside { Status::INVALID_VALUE } else { Status::HOST_MEMORY_NOT_REGISTERED });
        };
        let Some(reached) = entry.reached else { return Ok(()) };
        self.reached.fetch_sub(1, Ordering::Release);
        reach::part(start..start + entry.len, reached, pinned.remove(&start))
    }

    /// The range that an address lies in.
    fn find(&self, address: usize) -> Option<(usize, Entry)> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (start, entry) = ranges.range(..=address).next_back()?;
        (address - start < entry.len).then_some((*start, *entry))
    }

    /// The range that an address lies in.
    pub fn range(&self, address: usize) -> Option<Range<usize>> {
        self.find(address).map(|(start, entry)| start..start + entry.len)
    }

    /// Flags of the range that an address lies in.
    pub fn flags(&self, address: usize) -> Option<u32> {
        self.find(address).map(|(_, entry)| entry.flags)
    }

    /// Where the device reaches a registered address, from now on if it does not yet.
    ///
    /// # Errors
    /// INVALID_VALUE for an address that is not registered; those of [`reach::reach`].
    pub fn device_address(&self, address: usize) -> Result<u64, Status> {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, entry) = self.find(address).ok_or(Status::INVALID_VALUE)?;
        let reached = match entry.reached {
            Some(reached) => reached,
            None if entry.refused => return Err(Status::NOT_SUPPORTED),
            None => {
                let reached = reach::reach(start..start + entry.len, entry.flags);
                let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
                if let Some(entry) = ranges.get_mut(&start) {
                    entry.reached = reached.as_ref().ok().map(|(reached, _)| *reached);
                    entry.refused = reached.is_err();
                }
                let (reached, kept) = reached?;
                pinned.extend(kept.map(|kept| (start, kept)));
                self.reached.fetch_add(1, Ordering::Release);
                reached
            }
        };
        Ok(if reached.aliased { address as u64 } else { reached.window + (address - start) as u64 })
    }

    /// Where in the window a registered address is, if the device reaches it.
    #[inline]
    pub fn place(&self, address: usize) -> Option<u64> {
        if self.reached.load(Ordering::Acquire) == 0 {
            return None;
        }
        let (start, entry) = self.find(address)?;
        Some(entry.reached?.window + (address - start) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap() {
        let registered = Registered::default();
        registered.insert(1000, 100, 1).unwrap();
        for (start, len) in [(1000, 1), (950, 51), (1099, 10), (900, 1000)] {
            assert_eq!(registered.insert(start, len, 0), Err(Status::HOST_MEMORY_ALREADY_REGISTERED));
        }
        registered.insert(1100, 10, 2).unwrap();
        registered.insert(900, 100, 3).unwrap();
        assert_eq!(registered.flags(999), Some(3));
        assert_eq!(registered.flags(1000), Some(1));
        assert_eq!(registered.flags(1110), None);
        assert_eq!(registered.insert(usize::MAX, 2, 0), Err(Status::INVALID_VALUE));
        assert_eq!(registered.remove(1001), Err(Status::INVALID_VALUE));
        assert_eq!(registered.remove(1110), Err(Status::HOST_MEMORY_NOT_REGISTERED));
        assert_eq!(registered.range(1099), Some(1000..1100));
        registered.remove(1000).unwrap();
        assert_eq!(registered.flags(1000), None);
    }
}
