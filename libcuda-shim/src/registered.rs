//! Ranges of the program's own memory that it has registered with `cuMemHostRegister`.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use protocol::status::{CuResult, Status};

/// Start of each range, with its length in bytes and the flags.
#[derive(Default)]
pub struct Registered {
    ranges: RwLock<BTreeMap<usize, (usize, u32)>>,
}

impl Registered {
    /// HOST_MEMORY_ALREADY_REGISTERED when the range touches another, INVALID_VALUE when it wraps around.
    pub fn insert(&self, start: usize, len: usize, flags: u32) -> CuResult {
        let end = start.checked_add(len).ok_or(Status::INVALID_VALUE)?;
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if ranges.range(..end).next_back().is_some_and(|(other, (len, _))| other + len > start) {
            return Err(Status::HOST_MEMORY_ALREADY_REGISTERED);
        }
        ranges.insert(start, (len, flags));
        Ok(())
    }

    /// INVALID_VALUE for an address inside a range, HOST_MEMORY_NOT_REGISTERED for one outside of all.
    pub fn remove(&self, start: usize) -> CuResult {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if ranges.remove(&start).is_some() {
            return Ok(());
        }
        let inside = ranges.range(..start).next_back().is_some_and(|(other, (len, _))| start - other < *len);
        Err(if inside { Status::INVALID_VALUE } else { Status::HOST_MEMORY_NOT_REGISTERED })
    }

    /// Start and length of the range that an address lies in.
    pub fn range(&self, address: usize) -> Option<(usize, usize)> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (start, (len, _)) = ranges.range(..=address).next_back()?;
        (address - start < *len).then_some((*start, *len))
    }

    /// Flags of the range that an address lies in.
    pub fn flags(&self, address: usize) -> Option<u32> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (start, (len, flags)) = ranges.range(..=address).next_back()?;
        (address - start < *len).then_some(*flags)
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
        assert_eq!(registered.range(1099), Some((1000, 100)));
        registered.remove(1000).unwrap();
        assert_eq!(registered.flags(1000), None);
    }
}
