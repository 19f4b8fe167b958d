#![allow(unsafe_code)]
//! Page-locked memory of a session without shared memory: ordinary memory of the program, in that part of its region which the worker leaves empty.
//!
//! Copies take it for pageable memory; kernels cannot reach it. It lies in the region so that an address is known as ours by itself, and so that a kernel that
//! uses it all the same faults and does not read something else. Unsafe because memory is mapped at given addresses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr;
use std::sync::{PoisonError, RwLock};

use protocol::status::Status;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Start of every allocation, as for large allocations of the host.
const ALIGN: u64 = 64 << 10;

/// What an allocation was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    pub base: u64,
    /// Bytes, as asked for.
    pub len: u64,
    pub flags: u32,
    pub context: u64,
    pub device: i32,
    /// Never used again.
    pub id: u64,
}

/// All of them.
pub struct Pinned {
    /// Where they may lie: reserved, and nothing else is mapped there.
    range: Range<u64>,
    /// Bytes that they may have together.
    limit: u64,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    allocations: BTreeMap<u64, Allocation>,
    bytes: u64,
    last_id: u64,
}

fn rounded(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(ALIGN)
}

impl Pinned {
    /// # Safety
    /// The range is reserved for the life of the process, and nothing but this value maps anything in it.
    pub unsafe fn new(range: Range<u64>, limit: u64) -> Pinned {
        Pinned { range, limit, table: RwLock::default() }
    }

    /// Whether an address lies where allocations do.
    #[inline]
    pub fn contains(&self, address: u64) -> bool {
        self.range.contains(&address)
    }

    /// OUT_OF_MEMORY beyond the limit, INVALID_VALUE for no bytes.
    pub fn alloc(&self, len: u64, flags: u32, context: u64, device: i32) -> Result<u64, Status> {
        if len == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let size = rounded(len).ok_or(Status::OUT_OF_MEMORY)?;
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if size > self.limit.saturating_sub(table.bytes) {
            return Err(Status::OUT_OF_MEMORY);
        }
        let base = self.gap(&table, size).ok_or(Status::OUT_OF_MEMORY)?;
        map(base, size, ProtFlags::READ | ProtFlags::WRITE)?;
        table.bytes += size;
        table.last_id += 1;
        // Numbers of the host's own allocations are small.
        let id = 1 << 63 | table.last_id;
        table.allocations.insert(base, Allocation { base, len, flags, context, device, id });
        Ok(base)
    }

    /// The first gap of `size` bytes after the last allocation, or else before.
    fn gap(&self, table: &Table, size: u64) -> Option<u64> {
        let end = |allocation: &Allocation| allocation.base + rounded(allocation.len).unwrap_or(0);
        let after = table.allocations.last_key_value().map_or(self.range.start, |(_, last)| end(last));
        if after <= self.range.end && self.range.end - after >= size {
            return Some(after);
        }
        let mut start = self.range.start;
        for allocation in table.allocations.values() {
            if allocation.base - start >= size {
                return Some(start);
            }
            start = end(allocation);
        }
        None
    }

    /// INVALID_VALUE if no allocation starts there.
    pub fn free(&self, base: u64) -> Result<(), Status> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let allocation = table.allocations.get(&base).ok_or(Status::INVALID_VALUE)?;
        let size = rounded(allocation.len).ok_or(Status::INVALID_VALUE)?;
        // Back to a mere reservation.
        map(base, size, ProtFlags::empty())?;
        table.allocations.remove(&base);
        table.bytes -= size;
        Ok(())
    }

    /// The allocation that an address lies in.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let (_, allocation) = table.allocations.range(..=address).next_back()?;
        (address - allocation.base < allocation.len).then_some(*allocation)
    }
}

fn map(start: u64, len: u64, prot: ProtFlags) -> Result<(), Status> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    let address = ptr::without_provenance_mut(start as usize);
    // SAFETY: the range lies in the one that `new` was promised, and holds either nothing or the allocation that is freed.
    unsafe { mmap_anonymous(address, len as usize, prot, flags) }.map(drop).map_err(|_| Status::OUT_OF_MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use transport::Reservation;

    #[test]
    fn allocations_are_apart_usable_and_bounded() {
        let start = 39 << 41;
        let Ok(reservation) = Reservation::new(start, 1 << 30) else { return };
        reservation.leak();
        // SAFETY: just reserved, for good.
        let pinned = unsafe { Pinned::new(start..start + (1 << 30), 1 << 20) };
        let first = pinned.alloc(100, 3, 7, 0).unwrap();
        let second = pinned.alloc(ALIGN + 1, 0, 7, 0).unwrap();
        assert_eq!(second, first + ALIGN);
        for (base, len) in [(first, 100), (second, ALIGN as usize + 1)] {
            let bytes = ptr::without_provenance_mut::<u8>(base as usize);
            // SAFETY: allocated above.
            unsafe {
                bytes.write_bytes(0x5a, len);
                assert_eq!(bytes.add(len - 1).read(), 0x5a);
            }
        }
        assert_eq!(pinned.find(first + 99).unwrap().flags, 3);
        assert_eq!(pinned.find(first + 100), None);
        assert_eq!(pinned.find(start - 1), None);
        assert_eq!(pinned.alloc(0, 0, 0, 0), Err(Status::INVALID_VALUE));
        assert_eq!(pinned.alloc(1 << 20, 0, 0, 0), Err(Status::OUT_OF_MEMORY));
        assert_eq!(pinned.alloc(u64::MAX, 0, 0, 0), Err(Status::OUT_OF_MEMORY));
        assert_eq!(pinned.free(first + 8), Err(Status::INVALID_VALUE));
        pinned.free(first).unwrap();
        assert_eq!(pinned.free(first), Err(Status::INVALID_VALUE));
        assert_eq!(pinned.find(first), None);
        // Freed memory counts no more, and comes back zeroed.
        pinned.free(second).unwrap();
        let whole = pinned.alloc(1 << 20, 0, 0, 0).unwrap();
        // SAFETY: allocated above.
        assert_eq!(unsafe { ptr::without_provenance::<u8>(whole as usize).read() }, 0);
    }

    #[test]
    fn a_gap_is_found_when_the_end_is_reached() {
        let start = 41 << 41;
        let Ok(reservation) = Reservation::new(start, 4 * ALIGN) else { return };
        reservation.leak();
        // SAFETY: just reserved, for good.
        let pinned = unsafe { Pinned::new(start..start + 4 * ALIGN, 1 << 30) };
        let all: Vec<u64> = (0..4).map(|_| pinned.alloc(1, 0, 0, 0).unwrap()).collect();
        assert_eq!(pinned.alloc(1, 0, 0, 0), Err(Status::OUT_OF_MEMORY));
        pinned.free(all[1]).unwrap();
        assert_eq!(pinned.alloc(ALIGN + 1, 0, 0, 0), Err(Status::OUT_OF_MEMORY));
        assert_eq!(pinned.alloc(5, 0, 0, 0), Ok(all[1]));
    }
}
