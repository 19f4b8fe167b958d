//! The device address space of a worker process: one aligned 4 TiB range of host addresses.
//!
//! ```text
//! base                                 base + 1.5 TiB                 base + 2 TiB              base + 4 TiB
//! | device heap: cuMemAlloc and others | arenas: shared/local/params | window: shared memfds |
//! ```
//! Everything that is not handed out stays `PROT_NONE`, and allocations are separated by such space, so that an access that runs
//! over faults and is reported by [`fault`](crate::fault).
//!
//! Thread safety: every method may be called from any thread. The bookkeeping is under one mutex that is never held while device
//! memory is touched. Copies *pin* the allocation they work on: an allocation freed in the meantime disappears at once from the
//! bookkeeping (new copies fail), but its pages and addresses are given back only when the last pin is gone. Kernels do not pin: the
//! owner of the region must order frees behind the kernels that use the memory, and where the program does not, the kernel faults.
//!
//! Freed allocations up to [`CACHE_ENTRY_MAX`] are kept mapped for reuse (up to [`CACHE_TOTAL_MAX`]); a kernel that uses one after its
//! free is therefore not always caught, as on a GPU. All memory belongs to one program: reuse leaks nothing.
#![allow(unsafe_code)] // Reserves and maps memory, copies between addresses.

mod copy;
mod space;

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::abi::{REGION_MARGIN, REGION_SHIFT};
pub use copy::guarded_copy;
pub(crate) use space::SpaceAllocator;

/// Bytes of the whole region.
pub const REGION_LEN: u64 = 1 << REGION_SHIFT;
/// Least unmapped space at both ends of the region; see [`REGION_MARGIN`].
const MARGIN: u64 = REGION_MARGIN;
/// Offset and length of the device heap in the region's lower half.
pub const HEAP_OFFSET: u64 = MARGIN;
/// See [`HEAP_OFFSET`].
pub const HEAP_LEN: u64 = (3 << (REGION_SHIFT - 3)) - MARGIN;
/// Offset and length of the arenas (shared memory, local memory, parameters) in the region's lower half.
pub const ARENA_OFFSET: u64 = HEAP_OFFSET + HEAP_LEN;
/// See [`ARENA_OFFSET`].
pub const ARENA_LEN: u64 = WINDOW_OFFSET - ARENA_OFFSET;
/// Offset and length of the window: the region's upper half, as the protocol has it for program and worker alike.
pub const WINDOW_OFFSET: u64 = REGION_LEN / 2;
/// See [`WINDOW_OFFSET`].
pub const WINDOW_LEN: u64 = REGION_LEN / 2 - MARGIN;

/// Page size of the host.
pub const PAGE_LEN: u64 = 4096;
/// Allocations of at least this length are aligned to it and may use huge pages.
pub const HUGE_LEN: u64 = 2 << 20;
/// Largest freed allocation that is kept mapped for reuse.
pub const CACHE_ENTRY_MAX: u64 = 32 << 20;
/// Most memory kept in freed allocations.
pub const CACHE_TOTAL_MAX: u64 = 256 << 20;
/// The engine's arenas together may take as much as the memory limit, or this if the limit is smaller.
const ARENA_LIMIT_MIN: u64 = 1 << 30;
/// Least unmapped space behind an allocation.
const GUARD_MIN: u64 = 64 << 10;
/// Most unmapped space behind an allocation.
const GUARD_MAX: u64 = 1 << 30;
/// Most separate mappings (live or cached) made for allocations; Linux allows 65530 per process, and each needs two.
const MAPPINGS_MAX: usize = 24_000;
/// Live mappings beyond which small allocations share mappings, without inaccessible space between them.
const GUARDED_MAX: usize = 8_000;
/// Largest allocation that shares a mapping, its granularity there, and the size of such a mapping.
const SHARED_MAX: u64 = 1 << 20;
const SHARED_ALIGN: u64 = 512;
const SHARED_CHUNK: u64 = 32 << 20;
/// Tags that `reserve_any` tries: leaves the low addresses, the usual place of the program (21) and that of libraries (31) alone, and
/// room for margins between them.
const TAGS: [u64; 13] = [8, 10, 12, 14, 16, 18, 20, 23, 25, 27, 29, 6, 4];

/// Errors of the [`Region`].
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The tag is 0 or beyond the user address space.
    #[error("region tag {0} is outside 1..=31")]
    BadTag(u64),
    /// Something is mapped in the range already.
    #[error("the addresses of region tag {0} are taken")]
    Taken(u64),
    /// Every tag is taken.
    #[error("no free range of addresses for a region")]
    NoFreeTag,
    /// The memory limit, the address space or the number of mappings is used up.
    #[error("out of device memory: {requested} bytes requested, {free} free")]
    OutOfMemory {
        /// Bytes asked for.
        requested: u64,
        /// Bytes left under the limit.
        free: u64,
    },
    /// A length of 0, an alignment that is not a power of two, an unaligned offset.
    #[error("invalid argument: {0}")]
    InvalidArgument(&'static str),
    /// The range is not inside one allocation nor inside the window.
    #[error("device range {address:#x}+{len:#x} is not inside one allocation")]
    InvalidRange {
        /// First byte.
        address: u64,
        /// Length in bytes.
        len: u64,
    },
    /// No allocation begins at this address.
    #[error("no allocation at {0:#x}")]
    NotAllocated(u64),
    /// The window's file may shrink under the mapping.
    #[error("the shared file is not sealed against shrinking")]
    NotSealed,
    /// The range disappeared during the copy (the file behind the window, or its backing store).
    #[error("device memory at {address:#x} became inaccessible during a copy")]
    Lost {
        /// Address of the failed access.
        address: u64,
    },
    /// A system call failed.
    #[error("{call}: {source}")]
    Os {
        /// Name of the system call.
        call: &'static str,
        /// The error.
        source: std::io::Error,
    },
}

/// Limits of a [`Region`].
#[derive(Clone, Copy, Debug)]
pub struct RegionConfig {
    /// Most bytes in allocations, counted in whole pages.
    pub memory_limit: u64,
}

impl Default for RegionConfig {
    fn default() -> Self {
        RegionConfig { memory_limit: 8 << 30 }
    }
}

#[derive(Debug)]
struct Allocation {
    /// As requested.
    len: u64,
    /// Copies in progress.
    pins: u32,
    /// Whether it lies in a mapping shared with others.
    shared: bool,
}

#[derive(Debug)]
struct State {
    heap: SpaceAllocator,
    arenas: SpaceAllocator,
    live: BTreeMap<u64, Allocation>,
    /// Freed while pinned; base to allocation.
    dying: BTreeMap<u64, Allocation>,
    /// Freed and still mapped: rounded length to bases.
    cache: BTreeMap<u64, Vec<u64>>,
    cached_bytes: u64,
    cached_count: usize,
    /// Free parts of shared mappings, which stay for good.
    shared: SpaceAllocator,
    /// Live and dying allocations in shared mappings, and the number of those mappings.
    shared_count: usize,
    shared_chunks: usize,
    used: u64,
    /// Bytes of arenas.
    arena_bytes: u64,
    /// Mapped pieces of the window: base to length.
    window: BTreeMap<u64, u64>,
}

/// The device address space.
#[derive(Debug)]
pub struct Region {
    base: u64,
    memory_limit: u64,
    state: Mutex<State>,
}

impl Region {
    /// Reserves the addresses `[tag << 42, (tag + 1) << 42)`, and a margin on both sides, without using memory.
    pub fn reserve(tag: u64, config: RegionConfig) -> Result<Region, RegionError> {
        if !(1..32).contains(&tag) {
            return Err(RegionError::BadTag(tag));
        }
        let base = tag << REGION_SHIFT;
        // With the margins that must stay inaccessible on both sides.
        let (start, len) = (base - MARGIN, REGION_LEN + 2 * MARGIN);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: a fixed mapping that replaces nothing (NOREPLACE) and that no Rust object lies in.
        let at = unsafe { libc::mmap(start as *mut _, len as usize, libc::PROT_NONE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            let source = std::io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::EEXIST) => RegionError::Taken(tag),
                _ => RegionError::Os { call: "mmap", source },
            });
        }
        if at as u64 != start {
            // Kernels before 4.17 take the address as a mere wish.
            // SAFETY: unmaps what the call above has mapped.
            unsafe { libc::munmap(at, len as usize) };
            return Err(RegionError::Taken(tag));
        }
        // A core dump of a worker should hold the worker, not the program's device memory.
        // SAFETY: advice on our own mapping.
        unsafe { libc::madvise(at, len as usize, libc::MADV_DONTDUMP) };
        Ok(Region {
            base,
            memory_limit: config.memory_limit,
            state: Mutex::new(State {
                heap: SpaceAllocator::new(base + HEAP_OFFSET, HEAP_LEN),
                arenas: SpaceAllocator::new(base + ARENA_OFFSET, ARENA_LEN),
                live: BTreeMap::new(),
                dying: BTreeMap::new(),
                cache: BTreeMap::new(),
                cached_bytes: 0,
                cached_count: 0,
                shared: SpaceAllocator::new(0, 0),
                shared_count: 0,
                shared_chunks: 0,
                used: 0,
                arena_bytes: 0,
                window: BTreeMap::new(),
            }),
        })
    }

    /// Reserves the first free one of the usual tags.
    pub fn reserve_any(config: RegionConfig) -> Result<Region, RegionError> {
        for tag in TAGS {
            match Region::reserve(tag, config) {
                Err(RegionError::Taken(_)) => {}
                other => return other,
            }
        }
        Err(RegionError::NoFreeTag)
    }

    /// First address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// `address >> REGION_SHIFT` of every address inside.
    pub fn tag(&self) -> u64 {
        self.base >> REGION_SHIFT
    }

    /// Whether an address lies in the region (mapped or not).
    pub fn contains(&self, address: u64) -> bool {
        address >> REGION_SHIFT == self.tag()
    }

    /// (free, total) bytes under the memory limit, as `cuMemGetInfo` gives them.
    pub fn memory_info(&self) -> (u64, u64) {
        (self.memory_limit.saturating_sub(self.lock().used), self.memory_limit)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between statements that can panic (none but allocation failure).
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocates `len` bytes at a multiple of `align` (a page, unless there are very many allocations), readable and writable, with
    /// unmapped space behind. Zero when the pages are new; a reused allocation holds what the program left there.
    ///
    /// # Errors
    /// `InvalidArgument` for length 0 or a bad alignment, `OutOfMemory`.
    pub fn alloc(&self, len: u64, align: u64) -> Result<u64, RegionError> {
        if len == 0 || !align.is_power_of_two() || align > (1 << 30) {
            return Err(RegionError::InvalidArgument("allocation length or alignment"));
        }
        let mut state = self.lock();
        let free = self.memory_limit.saturating_sub(state.used);
        let out_of_memory = RegionError::OutOfMemory { requested: len, free };
        if len > free || len > HEAP_LEN / 2 {
            return Err(out_of_memory);
        }
        let rounded = round_up(len, PAGE_LEN);
        if rounded > free {
            return Err(out_of_memory);
        }
        let align = align.max(natural_align(rounded));
        if let Some(base) = state.take_cached(rounded, align) {
            state.used += rounded;
            state.live.insert(base, Allocation { len, pins: 0, shared: false });
            return Ok(base);
        }
        if state.mappings() >= GUARDED_MAX
            && len <= SHARED_MAX
            && let Some(base) = state.allocate_shared(len, align)
        {
            state.used += round_up(len, SHARED_ALIGN);
            state.live.insert(base, Allocation { len, pins: 0, shared: true });
            return Ok(base);
        }
        if state.used + state.cached_bytes + rounded > self.memory_limit
            || state.mappings() + state.cached_count >= MAPPINGS_MAX
        {
            self.drop_cache(&mut state);
        }
        if state.mappings() >= MAPPINGS_MAX {
            return Err(out_of_memory);
        }
        let Some(base) = state.heap.allocate(rounded + guard_len(rounded), align) else {
            return Err(out_of_memory);
        };
        if let Err(error) = map_private(base, rounded) {
            state.heap.release(base, rounded + guard_len(rounded));
            tracing::warn!(%error, len, "mapping device memory failed");
            return Err(out_of_memory);
        }
        state.used += rounded;
        state.live.insert(base, Allocation { len, pins: 0, shared: false });
        Ok(base)
    }

    /// Frees the allocation that begins at `base`.
    pub fn free(&self, base: u64) -> Result<(), RegionError> {
        let mut state = self.lock();
        let allocation = state.live.remove(&base).ok_or(RegionError::NotAllocated(base))?;
        if allocation.pins > 0 {
            state.dying.insert(base, allocation);
            return Ok(());
        }
        self.release(state, base, allocation);
        Ok(())
    }

    /// Gives back pages and addresses of an allocation that is in neither map any more.
    fn release(&self, mut state: MutexGuard<'_, State>, base: u64, allocation: Allocation) {
        if allocation.shared {
            let rounded = round_up(allocation.len, SHARED_ALIGN);
            state.used -= rounded;
            state.shared_count -= 1;
            state.shared.release(base, rounded);
            return;
        }
        let rounded = round_up(allocation.len, PAGE_LEN);
        if rounded <= CACHE_ENTRY_MAX && state.cached_bytes + rounded <= CACHE_TOTAL_MAX {
            state.used -= rounded;
            state.cached_bytes += rounded;
            state.cached_count += 1;
            state.cache.entry(rounded).or_default().push(base);
            return;
        }
        // Taking pages away costs time: not under the lock. The addresses are in no map, so nobody else can get at them.
        drop(state);
        let unmapped = unmap_private(base, rounded);
        let mut state = self.lock();
        state.used -= rounded;
        if unmapped {
            state.heap.release(base, rounded + guard_len(rounded));
        }
    }

    fn drop_cache(&self, state: &mut State) {
        for (rounded, bases) in std::mem::take(&mut state.cache) {
            for base in bases {
                if unmap_private(base, rounded) {
                    state.heap.release(base, rounded + guard_len(rounded));
                }
            }
        }
        state.cached_bytes = 0;
        state.cached_count = 0;
    }

    /// The allocation that holds `address`: (base, length), as `cuMemGetAddressRange` gives it. The window is not an allocation.
    pub fn range_of(&self, address: u64) -> Option<(u64, u64)> {
        let state = self.lock();
        let (&base, allocation) = state.live.range(..=address).next_back()?;
        (address - base < allocation.len).then_some((base, allocation.len))
    }

    /// Maps `len` bytes of a file at `file_offset` shared into the window, `offset` bytes behind the window's start. All page-aligned.
    /// The range must not overlap what is mapped, and must lie inside the file.
    ///
    /// # Errors
    /// `InvalidArgument`; `NotSealed` if the file is not sealed against shrinking (F_SEAL_SHRINK).
    pub fn map_shared(
        &self,
        fd: BorrowedFd<'_>,
        file_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<u64, RegionError> {
        // SAFETY: the descriptor is open for the call; F_GET_SEALS takes no pointer.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(RegionError::NotSealed);
        }
        self.map_guest(fd, file_offset, offset, len)
    }

    /// As [`map_shared`](Self::map_shared), for a file that its owner is trusted not to shrink: memory of a virtual machine, whose owner is the program that runs it.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn map_guest(
        &self,
        fd: BorrowedFd<'_>,
        file_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<u64, RegionError> {
        let end = offset.checked_add(len).filter(|&end| end <= WINDOW_LEN);
        let Some(end) = end else { return Err(RegionError::InvalidArgument("window range")) };
        if len == 0 || !(offset | len | file_offset).is_multiple_of(PAGE_LEN) {
            return Err(RegionError::InvalidArgument("window range is not made of pages"));
        }
        // SAFETY: stat is plain data, for which all zeros is valid; the call writes it.
        let file_len = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            if libc::fstat(fd.as_raw_fd(), &mut stat) != 0 {
                return Err(os("fstat"));
            }
            stat.st_size as u64
        };
        if file_offset.checked_add(len).is_none_or(|end| end > file_len) {
            return Err(RegionError::InvalidArgument("window range is beyond the file's end"));
        }
        let mut state = self.lock();
        let start = self.base + WINDOW_OFFSET + offset;
        let end = self.base + WINDOW_OFFSET + end;
        if state.window.range(..end).next_back().is_some_and(|(&other, &other_len)| other + other_len > start)
        {
            return Err(RegionError::InvalidArgument("window range is mapped already"));
        }
        // SAFETY: replaces PROT_NONE pages of our own reservation, checked to be free just above, under the lock.
        let at = unsafe {
            libc::mmap(
                start as *mut _,
                len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                fd.as_raw_fd(),
                file_offset as libc::off_t,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(os("mmap"));
        }
        state.window.insert(start, len);
        Ok(start)
    }

    /// Takes away a piece that [`map_shared`](Self::map_shared) has mapped, named by its address. Copies under way end with
    /// [`RegionError::Lost`], kernels fault.
    pub fn unmap_shared(&self, address: u64) -> Result<(), RegionError> {
        let mut state = self.lock();
        let len = state.window.remove(&address).ok_or(RegionError::NotAllocated(address))?;
        if unmap_private(address, len) {
            Ok(())
        } else {
            state.window.insert(address, len);
            Err(os("mmap"))
        }
    }

    /// Whether the range lies in the mapped window.
    pub fn window_contains(&self, address: u64, len: u64) -> bool {
        self.lock().window_contains(address, len)
    }

    /// Memory for the engine: with a limit of its own, mapped, unmapped space behind.
    pub(crate) fn arena(self: &Arc<Self>, len: u64) -> Result<Arena, RegionError> {
        let rounded = round_up(len.max(1), PAGE_LEN);
        let out_of_memory = RegionError::OutOfMemory { requested: len, free: 0 };
        if rounded > ARENA_LEN / 4 {
            return Err(out_of_memory);
        }
        let mut state = self.lock();
        if state.arena_bytes + rounded > self.memory_limit.max(ARENA_LIMIT_MIN) {
            return Err(out_of_memory);
        }
        let reserved = rounded + GUARD_MIN;
        let Some(base) = state.arenas.allocate(reserved, PAGE_LEN) else { return Err(out_of_memory) };
        if let Err(error) = map_private(base, rounded) {
            state.arenas.release(base, reserved);
            return Err(error);
        }
        state.arena_bytes += rounded;
        Ok(Arena { region: self.clone(), base, len: rounded })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our own reservation with all that was mapped into it; arenas hold an Arc of the region, pins a reference.
        unsafe { libc::munmap((self.base - MARGIN) as *mut _, (REGION_LEN + 2 * MARGIN) as usize) };
    }
}

impl State {
    /// Mappings in use, those that are being freed not counted.
    fn mappings(&self) -> usize {
        (self.live.len() + self.dying.len()).saturating_sub(self.shared_count) + self.shared_chunks
    }

    /// A piece of a shared mapping; a new one is made if need be.
    fn allocate_shared(&mut self, len: u64, align: u64) -> Option<u64> {
        let rounded = round_up(len, SHARED_ALIGN);
        // Page alignment is what separate mappings come with, not what the caller asked for.
        let align = if align == PAGE_LEN { SHARED_ALIGN } else { align };
        let base = match self.shared.allocate(rounded, align) {
            Some(base) => base,
            None => {
                let chunk = self.heap.allocate(SHARED_CHUNK + guard_len(SHARED_CHUNK), HUGE_LEN)?;
                if map_private(chunk, SHARED_CHUNK).is_err() {
                    self.heap.release(chunk, SHARED_CHUNK + guard_len(SHARED_CHUNK));
                    return None;
                }
                self.shared_chunks += 1;
                self.shared.release(chunk, SHARED_CHUNK);
                self.shared.allocate(rounded, align)?
            }
        };
        self.shared_count += 1;
        Some(base)
    }

    fn take_cached(&mut self, rounded: u64, align: u64) -> Option<u64> {
        let bases = self.cache.get_mut(&rounded)?;
        let index = bases.iter().rposition(|base| base % align == 0)?;
        let base = bases.swap_remove(index);
        if bases.is_empty() {
            self.cache.remove(&rounded);
        }
        self.cached_bytes -= rounded;
        self.cached_count -= 1;
        Some(base)
    }

    fn window_contains(&self, address: u64, len: u64) -> bool {
        let Some(end) = address.checked_add(len) else { return false };
        let mut at = address;
        loop {
            let Some((&base, &piece_len)) = self.window.range(..=at).next_back() else { return false };
            if at - base >= piece_len {
                return false;
            }
            at = base + piece_len;
            if at >= end {
                return true;
            }
        }
    }
}

/// Memory of the engine inside the region; unmapped on drop.
#[derive(Debug)]
pub(crate) struct Arena {
    region: Arc<Region>,
    base: u64,
    len: u64,
}

impl Arena {
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let unmapped = unmap_private(self.base, self.len);
        let mut state = self.region.lock();
        state.arena_bytes -= self.len;
        if unmapped {
            state.arenas.release(self.base, self.len + GUARD_MIN);
        }
    }
}

fn os(call: &'static str) -> RegionError {
    RegionError::Os { call, source: std::io::Error::last_os_error() }
}

fn round_up(len: u64, to: u64) -> u64 {
    (len + to - 1) & !(to - 1)
}

/// Big enough that strided overruns hit it too.
fn guard_len(rounded: u64) -> u64 {
    round_up(rounded / 8, PAGE_LEN).clamp(GUARD_MIN, GUARD_MAX)
}

fn natural_align(rounded: u64) -> u64 {
    if rounded >= HUGE_LEN { HUGE_LEN } else { PAGE_LEN }
}

/// Makes `[base, base + len)` of the reservation readable and writable and zero. The caller owns the range.
fn map_private(base: u64, len: u64) -> Result<(), RegionError> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the range was handed out by a SpaceAllocator over our own reservation, so it replaces nothing but PROT_NONE pages.
    let at =
        unsafe { libc::mmap(base as *mut _, len as usize, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(os("mmap"));
    }
    if len >= HUGE_LEN && base.is_multiple_of(HUGE_LEN) {
        // Fewer page faults at first touch; where huge pages are off, nothing is lost.
        // SAFETY: advice on the mapping just made.
        unsafe { libc::madvise(at, len as usize, libc::MADV_HUGEPAGE) };
    }
    Ok(())
}

/// Gives the pages back and makes the range inaccessible again. False if the kernel refuses (too many mappings): the range is then lost.
fn unmap_private(base: u64, len: u64) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the range is ours, and its owner has just removed it from the bookkeeping.
    let at = unsafe { libc::mmap(base as *mut _, len as usize, libc::PROT_NONE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        tracing::error!(error = %std::io::Error::last_os_error(), base, len, "giving device memory back failed");
        return false;
    }
    true
}

/// Tests run side by side in one process, and there are few tags: waits for one.
#[cfg(test)]
pub(crate) fn reserve_in_test(config: RegionConfig) -> Region {
    loop {
        match Region::reserve_any(config) {
            Err(RegionError::NoFreeTag) => std::thread::sleep(std::time::Duration::from_millis(5)),
            result => return result.unwrap(),
        }
    }
}

#[cfg(test)]
mod tests;
