//! The window of a session, and the allocation of its ranges.
//!
//! Only the worker allocates in it: lanes' blocks, pinned and managed memory. Its memory is one of
//! * a memfd, as large as the session's limit from the start and sparse; freed ranges give their pages back by a hole;
//! * for programs in a virtual machine with a memory broker, memory of the machine, which comes in parts ([`super::guest_memory`]).
//!
//! With the CPU backend the worker maps a memfd twice: here for the lanes, and at the address that the program knows (by the engine's region).

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::status::{CuResult, Status};
use transport::{Placement, Reservation, WindowFile};

use super::guest_memory::{Parts, Run, Scattered, Source};
use super::range_alloc::RangeAllocator;

/// Granularity of allocations in bytes.
pub const PAGE: u64 = 4096;
/// Ranges of at least this length are aligned to it, so that they can be backed by huge pages.
const LARGE: u64 = 2 << 20;

/// The shared memory and what is used of it.
pub struct Window {
    mapped: Arc<transport::Window>,
    base: u64,
    ranges: Mutex<RangeAllocator>,
    sharing: Sharing,
}

/// How the program comes by the same memory.
enum Sharing {
    /// By the memfd; or it does not have it: then the session has stream lanes, and the window holds the worker's side of staging areas and nothing else.
    File { shared: AtomicBool },
    /// It is the program's, given in parts.
    Parts(Parts),
}

/// Memory that the program lends for a copy: it is in use until this is dropped.
pub struct Lent {
    window: Arc<Window>,
    region: u64,
    pub memory: Scattered,
}

/// Pages of the program's own in the window.
#[derive(Debug)]
pub struct Adopted {
    /// Their address.
    pub base: u64,
    /// The machine's files.
    pub files: Arc<[OwnedFd]>,
    /// Where they are in those.
    pub runs: Vec<Run>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Sharing::Parts(parts) = &self.window.sharing {
            parts.source().take_back(self.region);
        }
    }
}

impl Window {
    /// Makes a window of `len` bytes (a multiple of 4096). `base` is the address at which program and worker see it.
    ///
    /// # Errors
    /// No descriptors or no address space are left.
    pub fn create(base: u64, len: u64) -> Result<Self, transport::Error> {
        Self::map(base, len, Placement::Anywhere)
    }

    /// As [`Window::create`], mapped once, in a reservation at the address that the program knows too.
    ///
    /// # Errors
    /// As [`Window::create`].
    pub fn create_over(reservation: &Reservation, base: u64, len: u64) -> Result<Self, transport::Error> {
        Self::map(base, len, Placement::Over(reservation, base))
    }

    fn map(base: u64, len: u64, placement: Placement<'_>) -> Result<Self, transport::Error> {
        let file = WindowFile::create(len)?;
        let mapped = Arc::new(transport::Window::map(file, placement, false)?);
        let ranges = Mutex::new(RangeAllocator::new(len, PAGE));
        Ok(Self { mapped, base, ranges, sharing: Sharing::File { shared: AtomicBool::new(true) } })
    }

    /// A window of at most `len` bytes whose memory comes from `source` when it is needed. Nothing is mapped at `base` yet.
    ///
    /// # Errors
    /// `base` and `len` are no range of addresses.
    pub fn from_source(
        base: u64,
        len: u64,
        source: impl FnOnce(Arc<transport::Window>) -> Box<dyn Source>,
    ) -> Result<Self, transport::Error> {
        let mapped = Arc::new(transport::Window::in_pieces(base, len)?);
        let parts = Parts::new(len, source(Arc::clone(&mapped)));
        Ok(Self {
            mapped,
            base,
            ranges: Mutex::new(RangeAllocator::new(0, PAGE)),
            sharing: Sharing::Parts(parts),
        })
    }

    /// The same, for a session without shared memory.
    #[must_use]
    pub fn private(self) -> Self {
        self.set_shared(false);
        self
    }

    /// Whether the program gets the memfd, before the program is told anything.
    pub fn set_shared(&self, shared: bool) {
        if let Sharing::File { shared: current } = &self.sharing {
            current.store(shared, Ordering::Relaxed);
        }
    }

    /// Whether the program sees what is allocated here.
    pub fn is_shared(&self) -> bool {
        match &self.sharing {
            Sharing::File { shared } => shared.load(Ordering::Relaxed),
            Sharing::Parts(_) => true,
        }
    }

    /// The memory, for lanes.
    pub fn mapped(&self) -> &Arc<transport::Window> {
        &self.mapped
    }

    /// What the program has to map, if it is a file.
    pub fn file_to_share(&self) -> Option<&WindowFile> {
        self.mapped.file().filter(|_| self.is_shared())
    }

    /// Bytes of the window.
    pub fn len(&self) -> u64 {
        self.mapped.len()
    }

    /// Never: a window has at least a page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Takes `len` bytes; returns their address. May wait for the program, where the memory is its machine's. Pages of a memfd that were never used or were
    /// freed are zero.
    pub fn alloc(&self, len: u64) -> Option<u64> {
        self.take(len, false)
    }

    /// As [`Window::alloc`], for the block of a lane: the program may look at it for as long as the session lives.
    pub fn alloc_lane(&self, len: u64) -> Option<u64> {
        self.take(len, true)
    }

    fn take(&self, len: u64, kept: bool) -> Option<u64> {
        let align = if len >= LARGE { LARGE } else { PAGE };
        let offset = match &self.sharing {
            Sharing::Parts(parts) if kept => parts.alloc(&self.ranges, len, align, kept)?,
            Sharing::Parts(parts) => {
                let free = self.ranges().alloc(len, align);
                free.or_else(|| parts.alloc(&self.ranges, len, align, kept))?
            }
            _ => self.ranges().alloc(len, align)?,
        };
        Some(self.base + offset)
    }

    /// A region of `len` bytes that the program lends.
    ///
    /// # Errors
    /// INVALID_VALUE if the program has no such region, or no machine whose memory could be lent; OUT_OF_MEMORY if it is in too many pieces.
    pub fn lend(self: &Arc<Self>, region: u64, len: u64) -> CuResult<Lent> {
        let Sharing::Parts(parts) = &self.sharing else { return Err(Status::INVALID_VALUE) };
        let memory = parts.source().lend(region, len)?;
        Ok(Lent { window: Arc::clone(self), region, memory })
    }

    /// Maps a region of the program's own pages, which its broker has pinned; to be [freed](Window::free) like an allocation.
    ///
    /// # Errors
    /// INVALID_VALUE if the program has no such region, or no machine whose memory could be mapped; OUT_OF_MEMORY if it is in too many pieces.
    pub fn adopt(&self, region: u64, len: u64) -> CuResult<Adopted> {
        let Sharing::Parts(parts) = &self.sharing else { return Err(Status::INVALID_VALUE) };
        let (offset, runs) = parts.adopt(region, len)?;
        Ok(Adopted { base: self.base + offset, files: parts.source().files(), runs })
    }

    /// Gives a range back and its pages to the system; `false` if none starts there.
    pub fn free(&self, address: u64) -> bool {
        let Some(offset) = address.checked_sub(self.base) else { return false };
        if let Sharing::Parts(parts) = &self.sharing
            && parts.disown(offset)
        {
            return true;
        }
        let mut ranges = self.ranges();
        let Some((start, len)) = ranges.find(offset) else { return false };
        if start != offset {
            return false;
        }
        // Under the lock: the range must not be handed out before the hole is there.
        if let Err(error) = self.mapped.punch_hole(start, len) {
            tracing::warn!(%error, len, "freed window memory is not given back to the system");
        }
        let freed = ranges.free(offset).is_some();
        drop(ranges);
        if let Sharing::Parts(parts) = &self.sharing {
            parts.trim(&self.ranges);
        }
        freed
    }

    /// The offset in the window of an address.
    pub fn offset(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.base).filter(|offset| *offset < self.len())
    }

    /// The address of an offset in the window.
    pub fn address(&self, offset: u64) -> u64 {
        self.base + offset
    }

    /// Bytes that are not allocated.
    pub fn free_bytes(&self) -> u64 {
        self.ranges().free_bytes()
    }

    fn ranges(&self) -> MutexGuard<'_, RangeAllocator> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(window: &Window) -> i64 {
        rustix::fs::fstat(window.file_to_share().unwrap()).unwrap().st_blocks
    }

    #[test]
    fn freed_pages_go_back() {
        let window = Window::create(1 << 41, 64 << 20).unwrap();
        assert_eq!(blocks(&window), 0);
        let address = window.alloc(3 << 20).unwrap();
        assert_eq!(address % LARGE, 0);
        window.mapped().copy_in(window.offset(address).unwrap(), &[7; 8192]).unwrap();
        assert!(blocks(&window) > 0);
        assert!(!window.free(address + 4096));
        assert!(window.free(address));
        assert!(!window.free(address));
        assert_eq!(blocks(&window), 0);
        assert_eq!(window.free_bytes(), 64 << 20);
        assert!(!window.free(1));
    }
}
