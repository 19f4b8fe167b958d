//! Memory that both sides see at the same address.
//!
//! The worker makes a [`WindowFile`] (a sealed memfd of fixed size) and passes its descriptor; each side maps it at the region's window address. In a virtual machine
//! a window is memory of the guest instead, which comes and goes in pieces ([`Window::in_pieces`]). The memory is
//! shared with a process that may write at any time, so there are no references to it, only raw pointers, copies and atomics.
#![allow(unsafe_code)] // Maps memory at given addresses and copies to and from it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::{PoisonError, RwLock};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, memfd_create,
};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::error::Error;
use crate::sync::AtomicU64;

/// The size is fixed for good: neither side can make the other fault by truncating.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
const PAGE: u64 = 4096;

/// The window's memfd: sealed, of fixed size, sparse.
#[derive(Debug)]
pub struct WindowFile {
    fd: OwnedFd,
    len: u64,
}

impl WindowFile {
    /// Makes a window of `len` bytes (a multiple of 4096, not 0). No memory is used until it is touched.
    ///
    /// # Errors
    /// The length, or a system call.
    pub fn create(len: u64) -> Result<WindowFile, Error> {
        if len == 0 || !len.is_multiple_of(PAGE) || i64::try_from(len).is_err() {
            return Err(Error::Window("length is not a positive multiple of 4096"));
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match memfd_create("cuda-window", flags | MemfdFlags::NOEXEC_SEAL) {
            // Kernels before 6.3 do not know the flag.
            Err(Errno::INVAL) => memfd_create("cuda-window", flags),
            other => other,
        }
        .map_err(|errno| Error::io("create the window's memfd", errno.into()))?;
        let file = File::from(fd);
        file.set_len(len).map_err(|error| Error::io(format!("size the window to {len} bytes"), error))?;
        let fd = OwnedFd::from(file);
        fcntl_add_seals(&fd, SEALS).map_err(|errno| Error::io("seal the window", errno.into()))?;
        Ok(WindowFile { fd, len })
    }

    /// Accepts a received descriptor if it is a window of exactly `len` bytes whose size can never change.
    ///
    /// # Errors
    /// [`Error::Window`] if it is not.
    pub fn verify(fd: OwnedFd, len: u64) -> Result<WindowFile, Error> {
        // Only memfds (and similar) have seals at all; with the size seals set, the size read afterwards is final.
        let seals = fcntl_get_seals(&fd).map_err(|_| Error::Window("the descriptor is no memfd"))?;
        if !seals.contains(SEALS) {
            return Err(Error::Window("its size is not sealed"));
        }
        let stat =
            rustix::fs::fstat(&fd).map_err(|errno| Error::io("examine the window's memfd", errno.into()))?;
        if u64::try_from(stat.st_size) != Ok(len) || len == 0 || !len.is_multiple_of(PAGE) {
            return Err(Error::Window("its size is not the announced one"));
        }
        Ok(WindowFile { fd, len })
    }

    /// Bytes of the window.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a window has at least a page.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl AsFd for WindowFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An address range that is reserved (PROT_NONE) so that nothing else is mapped there. Given back when dropped, with whatever was mapped into it.
#[derive(Debug)]
pub struct Reservation {
    start: usize,
    len: usize,
}

impl Reservation {
    /// Reserves `[start, start + len)`; both multiples of 4096.
    ///
    /// # Errors
    /// [`Error::RangeTaken`] if anything is mapped there; a system call.
    pub fn new(start: u64, len: u64) -> Result<Reservation, Error> {
        let (Ok(start_address), Ok(len_bytes)) = (usize::try_from(start), usize::try_from(len)) else {
            return Err(Error::RangeTaken { start, len });
        };
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        let address = ptr::without_provenance_mut(start_address);
        // SAFETY: NOREPLACE: no existing mapping is changed.
        let mapped = unsafe { mmap_anonymous(address, len_bytes, ProtFlags::empty(), flags) };
        finish_noreplace(mapped, start_address, len_bytes)?;
        Ok(Reservation { start: start_address, len: len_bytes })
    }

    /// Takes over a range that is reserved already.
    ///
    /// # Safety
    /// It is an inaccessible mapping of this process, both ends multiples of 4096, and the caller's alone.
    pub unsafe fn of(start: u64, len: u64) -> Reservation {
        Reservation { start: start as usize, len: len as usize }
    }

    /// First address.
    pub fn start(&self) -> u64 {
        self.start as u64
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Never: an empty range cannot be reserved.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Keeps the range for the life of the process.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `new`; `Placement::Over` obliges its users to keep the reservation while they use the memory.
        let result = unsafe { munmap(ptr::without_provenance_mut(self.start), self.len) };
        debug_assert!(result.is_ok(), "munmap of a reservation: {result:?}");
    }
}

/// Handles what MAP_FIXED_NOREPLACE may give: kernels before 4.17 take the address as a mere hint.
fn finish_noreplace(
    mapped: Result<*mut std::ffi::c_void, Errno>,
    start: usize,
    len: usize,
) -> Result<NonNull<u8>, Error> {
    let taken = || Error::RangeTaken { start: start as u64, len: len as u64 };
    match mapped {
        Ok(address) if address.addr() == start => NonNull::new(address.cast()).ok_or_else(taken),
        Ok(elsewhere) => {
            // SAFETY: the mapping was just made at an address that nobody else knows.
            let _ = unsafe { munmap(elsewhere, len) };
            Err(taken())
        }
        Err(Errno::EXIST) => Err(taken()),
        Err(errno) => Err(Error::io(format!("map {len:#x} bytes at {start:#x}"), errno.into())),
    }
}

/// How a window gets its address.
#[derive(Clone, Copy, Debug)]
pub enum Placement<'a> {
    /// Anywhere.
    Anywhere,
    /// At this address, where nothing is mapped.
    At(u64),
    /// At this address in a range that the caller has reserved.
    Over(&'a Reservation, u64),
}

/// A mapped window.
///
/// Dropping it takes the memory away: in a [`Placement::Over`] the range becomes reserved again, otherwise it is unmapped. Whoever uses pointers into it shares
/// an `Arc` of it.
#[derive(Debug)]
pub struct Window {
    base: NonNull<u8>,
    len: u64,
    backing: Backing,
}

/// Where a window's memory comes from.
#[derive(Debug)]
enum Backing {
    /// All of it from a memfd, mapped by the window.
    File { file: WindowFile, over_reservation: bool },
    /// Offset to length of what is mapped now, by somebody else.
    Pieces(RwLock<BTreeMap<u64, u64>>),
}

// SAFETY: the window owns a mapping (or stands for several) that any thread may use; every access goes through raw pointers, atomics or copies, whose rules are stated there.
unsafe impl Send for Window {}
// SAFETY: as above; `&Window` gives no plain reference to the memory.
unsafe impl Sync for Window {}

impl Window {
    /// Maps a window. With `dont_fork` a child of this process does not inherit the mapping.
    ///
    /// # Errors
    /// [`Error::RangeTaken`], [`Error::Bounds`] if it does not lie in the reservation, or a system call.
    pub fn map(file: WindowFile, placement: Placement<'_>, dont_fork: bool) -> Result<Window, Error> {
        let len = file.len;
        let Ok(len_bytes) = usize::try_from(len) else {
            return Err(Error::Window("larger than the address space"));
        };
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let shared = MapFlags::SHARED | MapFlags::NORESERVE;
        let to_pointer = |address: u64| ptr::without_provenance_mut::<std::ffi::c_void>(address as usize);
        let base = match placement {
            Placement::Anywhere => {
                // SAFETY: the kernel picks a free range.
                let mapped = unsafe { mmap(ptr::null_mut(), len_bytes, prot, shared, &file.fd, 0) };
                let mapped = mapped.map_err(|errno| Error::io("map the window", errno.into()))?;
                NonNull::new(mapped.cast()).ok_or(Error::Window("mapped at address 0"))?
            }
            Placement::At(address) => {
                let flags = shared | MapFlags::FIXED_NOREPLACE;
                // SAFETY: NOREPLACE: no existing mapping is changed.
                let mapped = unsafe { mmap(to_pointer(address), len_bytes, prot, flags, &file.fd, 0) };
                finish_noreplace(mapped, address as usize, len_bytes)?
            }
            Placement::Over(reservation, address) => {
                let offset = address.wrapping_sub(reservation.start());
                check_bounds(offset, len, reservation.len())?;
                // SAFETY: the range lies in the caller's reservation, which nothing else uses.
                let mapped = unsafe {
                    mmap(to_pointer(address), len_bytes, prot, shared | MapFlags::FIXED, &file.fd, 0)
                };
                let mapped = mapped
                    .map_err(|errno| Error::io(format!("map the window at {address:#x}"), errno.into()))?;
                NonNull::new(mapped.cast()).ok_or(Error::Window("mapped at address 0"))?
            }
        };
        let over_reservation = matches!(placement, Placement::Over(..));
        let window = Window { base, len, backing: Backing::File { file, over_reservation } };
        if dont_fork {
            // SAFETY: the range is the mapping just made; the advice does not change its contents.
            unsafe { madvise(base.as_ptr().cast(), len_bytes, Advice::LinuxDontFork) }
                .map_err(|errno| Error::io("keep the window from being inherited", errno.into()))?;
        }
        Ok(window)
    }

    /// A window of at most `len` bytes at `address` in which nothing is mapped yet: whoever owns these addresses maps pieces there, and says so with
    /// [`Window::add_piece`].
    ///
    /// # Errors
    /// [`Error::Window`] if that is no range of addresses.
    pub fn in_pieces(address: u64, len: u64) -> Result<Window, Error> {
        let end = address.checked_add(len).filter(|end| usize::try_from(*end).is_ok());
        let base = NonNull::new(ptr::with_exposed_provenance_mut(address as usize));
        match (base, end) {
            (Some(base), Some(_)) => Ok(Window { base, len, backing: Backing::Pieces(RwLock::default()) }),
            _ => Err(Error::Window("no range of addresses")),
        }
    }

    /// Says that `len` bytes at `offset` are mapped now.
    ///
    /// # Errors
    /// [`Error::Bounds`]; [`Error::RangeTaken`] if a piece is there; [`Error::Window`] if the window is not [made of pieces](Window::in_pieces).
    ///
    /// # Safety
    /// The range is mapped readable and writable, and stays so until [`Window::remove_piece`] is called for it.
    pub unsafe fn add_piece(&self, offset: u64, len: u64) -> Result<(), Error> {
        check_bounds(offset, len, self.len)?;
        let Backing::Pieces(pieces) = &self.backing else {
            return Err(Error::Window("it has its memory from a file"));
        };
        let mut pieces = pieces.write().unwrap_or_else(PoisonError::into_inner);
        let before = pieces.range(..offset + len).next_back();
        if len == 0 || before.is_some_and(|(at, piece)| at + piece > offset) {
            return Err(Error::RangeTaken { start: self.address() + offset, len });
        }
        pieces.insert(offset, len);
        Ok(())
    }

    /// Forgets the piece that was added at `offset`; returns its length. It may be unmapped then.
    ///
    /// # Safety
    /// Nothing uses that memory any more: no lane has its block there, and pointers into it have been given up.
    pub unsafe fn remove_piece(&self, offset: u64) -> Option<u64> {
        let Backing::Pieces(pieces) = &self.backing else { return None };
        pieces.write().unwrap_or_else(PoisonError::into_inner).remove(&offset)
    }

    /// Whether all `len` bytes at `offset`, which lie in the window, are mapped.
    fn is_mapped(&self, offset: u64, len: u64) -> bool {
        let Backing::Pieces(pieces) = &self.backing else { return true };
        let pieces = pieces.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = offset;
        loop {
            let Some((start, piece)) = pieces.range(..=at).next_back() else { return false };
            if at - start >= *piece {
                return len == 0;
            }
            at = start + piece;
            if at >= offset + len {
                return true;
            }
        }
    }

    /// First address.
    pub fn address(&self) -> u64 {
        self.base.as_ptr().addr() as u64
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a window has at least a page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The memfd, to be passed to the other side; none if the window is made of pieces.
    pub fn file(&self) -> Option<&WindowFile> {
        match &self.backing {
            Backing::File { file, .. } => Some(file),
            Backing::Pieces(_) => None,
        }
    }

    /// Whether it is memory of a virtual machine, whose host is the other side.
    pub fn is_of_machine(&self) -> bool {
        self.file().is_none()
    }

    /// Pointer to `len` bytes at `offset`. Valid while the window lives and the pieces there are not removed; the other side may change the bytes at any time, so make
    /// no reference of it.
    ///
    /// # Errors
    /// [`Error::Bounds`], also where no piece is.
    #[inline]
    pub fn pointer(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Error> {
        check_bounds(offset, len, self.len)?;
        if !self.is_mapped(offset, len) {
            return Err(Error::Bounds { offset, len, area_len: self.len });
        }
        // SAFETY: offset <= self.len, the length of the mapping at `base`.
        Ok(unsafe { self.base.add(offset as usize) })
    }

    /// The word at `offset`, which must be a multiple of 8.
    ///
    /// # Errors
    /// [`Error::Bounds`], also for an offset that is not aligned.
    pub fn word(&self, offset: u64) -> Result<&AtomicU64, Error> {
        if !offset.is_multiple_of(8) {
            return Err(Error::Bounds { offset, len: 8, area_len: self.len });
        }
        let pointer = self.pointer(offset, 8)?.cast::<AtomicU64>();
        // SAFETY: in bounds of the mapping, which outlives `&self`; aligned because the base is page-aligned and the offset a multiple of 8; atomics are
        // the only accesses to words of the window in this process.
        Ok(unsafe { pointer.as_ref() })
    }

    /// Copies `from` into the window.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    pub fn copy_in(&self, offset: u64, from: &[u8]) -> Result<(), Error> {
        let to = self.pointer(offset, from.len() as u64)?;
        // SAFETY: `from` is readable; `to` has that many bytes; a caller's slice never lies in the window (there are no references to it).
        unsafe { copy_shared(from.as_ptr(), to.as_ptr(), from.len()) };
        Ok(())
    }

    /// Copies out of the window.
    ///
    /// # Errors
    /// [`Error::Bounds`].
    pub fn copy_out(&self, offset: u64, to: &mut [u8]) -> Result<(), Error> {
        let from = self.pointer(offset, to.len() as u64)?;
        // SAFETY: `to` is writable and ours; `from` has that many bytes; a caller's slice never lies in the window.
        unsafe { copy_shared(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Gives the memory of a page range back to the system; it reads as zeros afterwards. Pieces keep theirs.
    ///
    /// # Errors
    /// [`Error::Bounds`], also for a range that is not of whole pages; a system call.
    pub fn punch_hole(&self, offset: u64, len: u64) -> Result<(), Error> {
        check_bounds(offset, len, self.len)?;
        if !offset.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(Error::Bounds { offset, len, area_len: self.len });
        }
        let Backing::File { file, .. } = &self.backing else { return Ok(()) };
        if len == 0 {
            return Ok(());
        }
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            match fallocate(&file.fd, mode, offset, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io("give window memory back", io::Error::from(errno))),
            }
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // Pieces belong to whoever has mapped them.
        let Backing::File { over_reservation, .. } = self.backing else { return };
        let (address, len) = (self.base.as_ptr().cast(), self.len as usize);
        let result = if over_reservation {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
            // SAFETY: replaces exactly our own mapping, which nothing uses any more (users hold the Arc).
            unsafe { mmap_anonymous(address, len, ProtFlags::empty(), flags) }.map(drop)
        } else {
            // SAFETY: unmaps exactly our own mapping, which nothing uses any more (users hold the Arc).
            unsafe { munmap(address, len) }
        };
        debug_assert!(result.is_ok(), "unmapping a window: {result:?}");
    }
}

#[inline]
pub(crate) fn check_bounds(offset: u64, len: u64, area_len: u64) -> Result<(), Error> {
    if len <= area_len && offset <= area_len - len {
        Ok(())
    } else {
        Err(Error::Bounds { offset, len, area_len })
    }
}

/// Copies between private and shared memory. Never inlined, so that the compiler cannot see that a "private copy" equals memory which
/// the other side can change, and read that again in its place.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[inline(never)]
pub(crate) unsafe fn copy_shared(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's contract.
    unsafe { ptr::copy_nonoverlapping(from, to, len) };
}
