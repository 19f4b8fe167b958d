//! What is allocated in the region: device memory in its lower half, pinned and managed memory in the window.
//!
//! The region and the window know addresses and lengths; this table adds whose an allocation is and of which kind. Its lock is taken
//! before those of region and window, never after.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::status::{CuResult, Status};
use ptx_cpu::region::{Region, RegionError};

use crate::worker::window::Window;

/// Kinds of allocations; each is freed by its own call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `cuMemAlloc`, `cuMemAllocPitch`
    Device,
    /// `cuMemAllocAsync` from the pool of this handle
    Pool(u64),
    /// `cuMemAllocManaged`
    Managed,
    /// `cuMemHostAlloc`, `cuMemAllocHost`
    Host,
    /// A variable of a module; freed with it.
    Global,
    /// The same, `__managed__`
    ManagedGlobal,
    /// In the place of memory that the program has registered.
    Registered,
}

/// One allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    pub base: u64,
    /// As asked for, in bytes.
    pub len: u64,
    pub kind: Kind,
    /// [`Live::id`](super::context::Live::id) of the context that it belongs to.
    pub owner: u64,
    /// Handle of that context.
    pub context: u64,
    pub device: u32,
    /// Flags of the allocating call.
    pub flags: u32,
    /// `CU_POINTER_ATTRIBUTE_BUFFER_ID`: unique in the process.
    pub id: u64,
}

/// Whose an allocation will be.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub id: u64,
    pub context: u64,
    pub device: u32,
}

/// All allocations of a session.
pub struct Memory {
    region: Arc<Region>,
    window: Arc<Window>,
    table: Mutex<BTreeMap<u64, Allocation>>,
    next_id: AtomicU64,
}

impl Memory {
    pub fn new(region: Arc<Region>, window: Arc<Window>) -> Self {
        Self { region, window, table: Mutex::default(), next_id: AtomicU64::new(1) }
    }

    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Allocates `len` bytes.
    ///
    /// # Errors
    /// `INVALID_VALUE` for length 0, `OUT_OF_MEMORY`, `NOT_SUPPORTED` for what the program must see where it shares no memory.
    pub fn alloc(&self, owner: Owner, kind: Kind, len: u64, flags: u32) -> CuResult<u64> {
        if len == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let base = match kind {
            Kind::Device | Kind::Pool(_) | Kind::Global => {
                self.region.alloc(len, 256).map_err(|error| status_of(&error))?
            }
            Kind::Managed | Kind::ManagedGlobal | Kind::Host | Kind::Registered => {
                if !self.window.is_shared() {
                    tracing::warn!("managed memory needs shared memory, which this session does not have");
                    return Err(Status::NOT_SUPPORTED);
                }
                self.window.alloc(len).ok_or(Status::OUT_OF_MEMORY)?
            }
        };
        self.enter(owner, kind, base, len, flags);
        Ok(base)
    }

    /// Takes a region of the program's own pages, which its broker has pinned, for an allocation of this kind.
    ///
    /// # Errors
    /// Those of [`Window::adopt`].
    pub fn adopt(&self, owner: Owner, kind: Kind, region: u64, len: u64, flags: u32) -> CuResult<u64> {
        let base = self.window.adopt(region, len)?.base;
        self.enter(owner, kind, base, len, flags);
        Ok(base)
    }

    fn enter(&self, owner: Owner, kind: Kind, base: u64, len: u64, flags: u32) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let allocation = Allocation {
            base,
            len,
            kind,
            owner: owner.id,
            context: owner.context,
            device: owner.device,
            flags,
            id,
        };
        self.table().insert(base, allocation);
    }

    /// Frees the allocation that starts at `base` if `may_free` agrees with its kind. Nothing may use it any more.
    ///
    /// # Errors
    /// `INVALID_VALUE` if none starts there, or one of another kind.
    pub fn free(&self, base: u64, may_free: impl FnOnce(Kind) -> bool) -> CuResult {
        let mut table = self.table();
        let allocation = *table.get(&base).ok_or(Status::INVALID_VALUE)?;
        if !may_free(allocation.kind) {
            return Err(Status::INVALID_VALUE);
        }
        table.remove(&base);
        drop(table);
        self.release(&allocation);
        Ok(())
    }

    /// Frees everything that belongs to a context.
    pub fn free_all(&self, owner: u64) {
        let mut freed = Vec::new();
        self.table().retain(|_, allocation| {
            if allocation.owner == owner {
                freed.push(*allocation);
            }
            allocation.owner != owner
        });
        for allocation in &freed {
            self.release(allocation);
        }
    }

    fn release(&self, allocation: &Allocation) {
        let freed = match allocation.kind {
            Kind::Device | Kind::Pool(_) | Kind::Global => self.region.free(allocation.base).is_ok(),
            Kind::Managed | Kind::ManagedGlobal | Kind::Host | Kind::Registered => {
                self.window.free(allocation.base)
            }
        };
        if !freed {
            tracing::error!(?allocation, "an allocation was not known where it was made");
        }
    }

    /// The allocation that holds `address`.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        let table = self.table();
        let (_, allocation) = table.range(..=address).next_back()?;
        (address - allocation.base < allocation.len).then_some(*allocation)
    }

    /// Do all `len` bytes from `address` lie in one allocation (or in the window, where lanes' staging areas are)?
    ///
    /// # Errors
    /// `INVALID_VALUE`.
    pub fn check(&self, address: u64, len: u64) -> CuResult {
        if len == 0 {
            return Ok(());
        }
        match self.region.pin(address, len) {
            Ok(_) => Ok(()),
            Err(_) => Err(Status::INVALID_VALUE),
        }
    }

    /// Free and total bytes of device memory.
    pub fn info(&self) -> (u64, u64) {
        self.region.memory_info()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, Allocation>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The CUresult for an error of the region.
pub fn status_of(error: &RegionError) -> Status {
    match error {
        RegionError::OutOfMemory { .. } | RegionError::Os { .. } => Status::OUT_OF_MEMORY,
        RegionError::Lost { .. } => Status::ILLEGAL_ADDRESS,
        _ => Status::INVALID_VALUE,
    }
}

/// A rectangle of bytes in both places of a copy, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub width: u64,
    pub height: u64,
    pub dst_pitch: u64,
    pub src_pitch: u64,
}

impl Rows {
    /// Bytes from the first to the last byte of a rectangle; `None` if it cannot be.
    pub fn span(width: u64, height: u64, pitch: u64) -> Option<u64> {
        if width == 0 || height == 0 {
            return Some(0);
        }
        if height > 1 && pitch < width {
            return None;
        }
        pitch.checked_mul(height - 1)?.checked_add(width)
    }

    /// One run of bytes, if the rows follow each other without gaps.
    fn contiguous(&self) -> Option<u64> {
        (self.height <= 1 || (self.dst_pitch == self.width && self.src_pitch == self.width))
            .then(|| self.width * self.height)
    }
}

/// Copies rows within the region.
///
/// # Errors
/// A row is not inside an allocation.
pub fn copy_rows(region: &Region, dst: u64, src: u64, rows: &Rows) -> Result<(), RegionError> {
    if rows.width == 0 || rows.height == 0 {
        return Ok(());
    }
    if let Some(len) = rows.contiguous() {
        return region.copy_within(dst, src, len);
    }
    for row in 0..rows.height {
        region.copy_within(dst + row * rows.dst_pitch, src + row * rows.src_pitch, rows.width)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ptx_cpu::region::RegionConfig;

    use super::*;

    const OWNER: Owner = Owner { id: 1, context: 100, device: 0 };

    fn memory() -> Memory {
        let region = Arc::new(Region::reserve_any(RegionConfig { memory_limit: 1 << 20 }).unwrap());
        let window = Arc::new(Window::create(region.base() + (1 << 41), 1 << 20).unwrap());
        Memory::new(region, window)
    }

    #[test]
    fn kinds_are_freed_by_their_own_calls() {
        let memory = memory();
        let device = memory.alloc(OWNER, Kind::Device, 1000, 0).unwrap();
        let host = memory.alloc(OWNER, Kind::Host, 1000, 4).unwrap();
        assert_eq!(memory.free(host, |kind| kind == Kind::Device), Err(Status::INVALID_VALUE));
        assert_eq!(memory.free(device + 8, |_| true), Err(Status::INVALID_VALUE));
        assert_eq!(memory.find(host + 999).map(|a| (a.base, a.flags)), Some((host, 4)));
        assert_eq!(memory.find(host + 1000), None);
        assert_eq!(memory.free(device, |kind| kind == Kind::Device), Ok(()));
        assert_eq!(memory.free(host, |kind| kind == Kind::Host), Ok(()));
        assert_eq!(memory.free(host, |_| true), Err(Status::INVALID_VALUE));
    }

    #[test]
    fn a_context_takes_its_memory_along() {
        let memory = memory();
        let (free, _) = memory.info();
        memory.alloc(OWNER, Kind::Device, 5000, 0).unwrap();
        memory.alloc(OWNER, Kind::Managed, 5000, 0).unwrap();
        let other = memory.alloc(Owner { id: 2, ..OWNER }, Kind::Device, 4096, 0).unwrap();
        memory.free_all(1);
        assert_eq!(memory.info().0, free - 4096);
        assert_eq!(memory.window.free_bytes(), memory.window.len());
        assert!(memory.find(other).is_some());
    }

    #[test]
    fn limits_and_sizes() {
        let memory = memory();
        assert_eq!(memory.alloc(OWNER, Kind::Device, 0, 0), Err(Status::INVALID_VALUE));
        assert_eq!(memory.alloc(OWNER, Kind::Device, 2 << 20, 0), Err(Status::OUT_OF_MEMORY));
        assert_eq!(memory.alloc(OWNER, Kind::Device, u64::MAX, 0), Err(Status::OUT_OF_MEMORY));
        assert_eq!(memory.alloc(OWNER, Kind::Host, 2 << 20, 0), Err(Status::OUT_OF_MEMORY));
    }

    #[test]
    fn rows_are_copied_and_gaps_are_not() {
        let memory = memory();
        let region = memory.region();
        let a = memory.alloc(OWNER, Kind::Device, 64, 0).unwrap();
        let b = memory.alloc(OWNER, Kind::Device, 64, 0).unwrap();
        region.copy_in(a, &(0..64).collect::<Vec<u8>>()).unwrap();
        region.fill8(b, 0xff, 64).unwrap();
        copy_rows(region, b, a, &Rows { width: 3, height: 2, dst_pitch: 5, src_pitch: 8 }).unwrap();
        let mut bytes = [0; 10];
        region.copy_out(b, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 2, 255, 255, 8, 9, 10, 255, 255]);
    }

    #[test]
    fn spans_of_hostile_rectangles() {
        assert_eq!(Rows::span(3, 2, 8), Some(11));
        assert_eq!(Rows::span(3, 2, 2), None);
        assert_eq!(Rows::span(3, 1, 0), Some(3));
        assert_eq!(Rows::span(u64::MAX, 2, u64::MAX), None);
        assert_eq!(Rows::span(0, u64::MAX, 0), Some(0));
    }
}
