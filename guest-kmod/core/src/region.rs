//! A region: memory that was, is or will be named to the host.

use crate::errno::{E2BIG, EINVAL, ENOMEM};
use crate::list::{Link, Linked};
use crate::memory::KVec;
use crate::wire::{Code, Extent, PAGE_SIZE, RegionKind};

/// Number of the list of a session's regions.
pub const OF_SESSION: usize = 0;
/// Number of the lists of regions with something to send, and of regions whose pages can be freed.
pub const IN_QUEUE: usize = 1;

/// What the host knows of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionState {
    /// Nothing: its pages are still being pinned or allocated.
    Building,
    /// Being sent, or sent and not answered.
    Adding,
    /// Named, accepted.
    Live,
    /// Refused by the host, which will never use it.
    Refused(Code),
    /// To be given back: the host has been told or will be (`remove_sent`, or the end of its session), and has not confirmed.
    Removing,
    /// The connection was lost when the host may have known it. Kept until the host says that nothing of earlier connections is in use.
    Orphan,
    /// Nobody but the module has it; waits for the C half to take its pages.
    Dead,
}

/// See the module's documentation.
pub struct Region {
    /// Its id: the serial number above [`crate::state::REGION_SLOT_BITS`] bits of its index in the table.
    pub id: u64,
    /// Index of its session.
    pub session: u32,
    /// Kind of memory.
    pub kind: RegionKind,
    /// Length in bytes.
    pub len: u64,
    /// See [`RegionState`].
    pub state: RegionState,
    /// Its extents, until they have all been sent.
    pub extents: KVec<Extent>,
    /// How many extents there are.
    pub extents_total: u32,
    /// How many were sent. If none, the host does not know the region.
    pub sent: u32,
    /// The removal of this very region has been sent.
    pub remove_sent: bool,
    /// What the C half knows the pages by; 0 while building.
    pub pages: usize,
    /// Milliseconds at which it began to be [`RegionState::Removing`] or [`RegionState::Orphan`].
    pub since_ms: u64,
    /// It was reported that the host takes long to confirm.
    pub reported: bool,
    /// In the list of its session.
    pub of_session: Link,
    /// In the queue of what is to be sent, or of what is dead.
    pub in_queue: Link,
}

impl Linked<OF_SESSION> for Region {
    fn link(&mut self) -> &mut Link {
        &mut self.of_session
    }
}

impl Linked<IN_QUEUE> for Region {
    fn link(&mut self) -> &mut Link {
        &mut self.in_queue
    }
}

/// Collects extents: neighbours become one, so that huge pages and runs of pages stay whole.
pub struct ExtentBuilder {
    done: KVec<Extent>,
    last: Extent,
}

impl ExtentBuilder {
    /// No extents.
    pub const fn new() -> ExtentBuilder {
        ExtentBuilder { done: KVec::new(), last: Extent { gpa: 0, len: 0 } }
    }

    /// Appends whole pages.
    ///
    /// # Errors
    /// Not whole pages, or no memory.
    pub fn push(&mut self, next: Extent) -> Result<(), i32> {
        if next.end().is_none() {
            return Err(EINVAL);
        }
        if self.last.end() == Some(next.gpa) {
            self.last.len = self.last.len.checked_add(next.len).ok_or(EINVAL)?;
            return Ok(());
        }
        if self.last.len != 0 {
            self.done.push(self.last).map_err(|_| ENOMEM)?;
        }
        self.last = next;
        Ok(())
    }

    /// The extents, and the sum of their lengths.
    ///
    /// # Errors
    /// None were pushed, no memory, or more than a region can have.
    pub fn finish(mut self) -> Result<(KVec<Extent>, u64), i32> {
        if self.last.len == 0 {
            return Err(EINVAL);
        }
        self.done.push(self.last).map_err(|_| ENOMEM)?;
        if self.done.len() > u32::MAX as usize {
            return Err(E2BIG);
        }
        let mut sum = 0u64;
        for extent in self.done.as_slice() {
            sum = sum.checked_add(extent.len).ok_or(EINVAL)?;
        }
        Ok((self.done, sum))
    }
}

impl Default for ExtentBuilder {
    fn default() -> Self {
        ExtentBuilder::new()
    }
}

/// The pages that a range of a program's memory lies in: address of the first, how many, and where in them the range begins.
///
/// # Errors
/// An empty range, one that wraps, or one of more than `limit` pages.
pub fn enclosing_pages(address: u64, len: u64, limit: u64) -> Result<(u64, u64, u64), i32> {
    let offset = address % PAGE_SIZE;
    let end = address.checked_add(len).ok_or(EINVAL)?;
    if len == 0 {
        return Err(EINVAL);
    }
    let pages = end.div_ceil(PAGE_SIZE) - address / PAGE_SIZE;
    if pages > limit {
        return Err(E2BIG);
    }
    Ok((address - offset, pages, offset))
}
