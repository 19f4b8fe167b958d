//! The window of a session, and the allocation of its ranges.
//!
//! Only the worker allocates in it: lanes' blocks, pinned and managed memory. The file is as large as the session's limit from the
//! start and sparse; freed ranges give their pages back by a hole.
//!
//! With the CPU backend the worker maps the file twice: here for the lanes, and at the address that the program knows (by the engine's region).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use transport::{Placement, Reservation, WindowFile};

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
    /// The program has it too.
    shared: AtomicBool,
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
        Ok(Self {
            mapped,
            base,
            ranges: Mutex::new(RangeAllocator::new(len, PAGE)),
            shared: AtomicBool::new(true),
        })
    }

    /// Says whether the program has the window too. In a session without shared memory it holds the worker's side of staging areas and nothing else.
    #[must_use]
    pub fn shared(self, shared: bool) -> Self {
        self.set_shared(shared);
        self
    }

    /// As [`Window::shared`], before the program is told anything.
    pub fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::Relaxed);
    }

    /// Whether the program sees what is allocated here.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// The memory, for lanes.
    pub fn mapped(&self) -> &Arc<transport::Window> {
        &self.mapped
    }

    pub fn file(&self) -> &WindowFile {
        self.mapped.file()
    }

    /// Bytes of the window.
    pub fn len(&self) -> u64 {
        self.mapped.len()
    }

    /// Never: a window has at least a page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Takes `len` bytes; returns their address. Pages that were never used or were freed are zero.
    pub fn alloc(&self, len: u64) -> Option<u64> {
        let align = if len >= LARGE { LARGE } else { PAGE };
        Some(self.base + self.ranges().alloc(len, align)?)
    }

    /// Gives a range back and its pages to the system; `false` if none starts there.
    pub fn free(&self, address: u64) -> bool {
        let Some(offset) = address.checked_sub(self.base) else { return false };
        let mut ranges = self.ranges();
        let Some((start, len)) = ranges.find(offset) else { return false };
        if start != offset {
            return false;
        }
        // Under the lock: the range must not be handed out before the hole is there.
        if let Err(error) = self.mapped.punch_hole(start, len) {
            tracing::warn!(%error, len, "freed window memory is not given back to the system");
        }
        ranges.free(offset).is_some()
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
        rustix::fs::fstat(window.file()).unwrap().st_blocks
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
