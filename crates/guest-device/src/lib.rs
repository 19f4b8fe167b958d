//! Client of the guest's memory broker, `/dev/cuda-broker` (`docs/guest-kmod.md`).
//!
//! A [`Device`] is one session. Its cookie goes into the program's hello to the daemon; memory is then named to the daemon as (region id, offset).
//! The session is the process's own: a forked child, or another process that was given the descriptor, gets EPERM.
#![allow(unsafe_code)] // ioctl, mmap and munmap: the kernel writes through the pointers that it is given.

pub mod abi;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::ioctl::{Opcode, Updater, ioctl};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// Where the device is.
pub const PATH: &str = "/dev/cuda-broker";

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no module, or it has no connection to a host (ENXIO), or it may not be used.
    #[error("cannot open {PATH}")]
    Open(#[source] io::Error),
    /// The module speaks another version.
    #[error("the broker has version {0}, not {version}", version = abi::VERSION)]
    Version(u32),
    /// The operation failed. EDQUOT: a limit; ENOSPC: a limit of the host; ECONNRESET: the host is gone and the session with it.
    #[error("broker: {0} failed")]
    Operation(&'static str, #[source] rustix::io::Errno),
}

impl Error {
    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Open(error) => error.raw_os_error(),
            Error::Version(_) => None,
            Error::Operation(_, errno) => Some(errno.raw_os_error()),
        }
    }
}

/// A session with the broker.
#[derive(Clone, Debug)]
pub struct Device {
    file: Arc<File>,
    info: abi::Info,
}

impl Device {
    /// Opens the device and waits until the host knows the session.
    ///
    /// # Errors
    /// [`Error::Open`] if there is no broker or no host, [`Error::Version`], [`Error::Operation`] if the host refuses the session.
    pub fn open() -> Result<Device, Error> {
        Device::open_at(Path::new(PATH))
    }

    /// As [`Device::open`], for a device node at another place.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_at(path: &Path) -> Result<Device, Error> {
        let file =
            OpenOptions::new().read(true).write(true).open(path).and_then(off_stdio).map_err(Error::Open)?;
        let mut info = abi::Info::default();
        // SAFETY: INFO writes one Info.
        unsafe { call::<{ abi::INFO }, _>(&file, "info", &mut info) }?;
        if info.version != abi::VERSION {
            return Err(Error::Version(info.version));
        }
        Ok(Device { file: Arc::new(file), info })
    }

    /// Secret by which the daemon knows the session. It is as good as the session's memory: show it to nobody but the daemon.
    pub fn cookie(&self) -> [u64; 2] {
        self.info.cookie
    }

    /// Limits.
    pub fn info(&self) -> &abi::Info {
        &self.info
    }

    /// Sums over the session's regions.
    ///
    /// # Errors
    /// The session's end.
    pub fn status(&self) -> Result<abi::Status, Error> {
        self.region_status(0)
    }

    /// A region, and sums over the session's.
    ///
    /// # Errors
    /// No such region (ENOENT), or the session's end.
    pub fn region_status(&self, region: u64) -> Result<abi::Status, Error> {
        let mut status = abi::Status { region, ..abi::Status::default() };
        // SAFETY: STATUS reads and writes one Status.
        unsafe { call::<{ abi::STATUS }, _>(&self.file, "status", &mut status) }?;
        Ok(status)
    }

    /// Allocates memory that the host can see, and maps it: at `at` if given (whatever is mapped there is replaced), else anywhere.
    ///
    /// # Errors
    /// A limit, no memory, or a refusal of the host.
    ///
    /// # Safety
    /// Nothing but the caller uses the `len_bytes` of address space at `at`.
    pub unsafe fn window_at(&self, at: Option<NonNull<u8>>, len_bytes: usize) -> Result<Window, Error> {
        let mut window = abi::Window { len: len_bytes as u64, ..abi::Window::default() };
        // SAFETY: ALLOC_WINDOW reads and writes one Window.
        unsafe { call::<{ abi::ALLOC_WINDOW }, _>(&self.file, "window", &mut window) }?;
        let region = RegionId { device: self.clone(), id: window.region };
        let place = at.map_or(std::ptr::null_mut(), |at| at.as_ptr().cast());
        let fixed = if at.is_some() { MapFlags::FIXED } else { MapFlags::empty() };
        // SAFETY: the mapping is anywhere, or where the caller says that nothing else is.
        let mapped = unsafe {
            mmap(
                place,
                len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | fixed,
                &*self.file,
                window.mmap_offset,
            )
        };
        let start = mapped.map_err(|errno| Error::Operation("mmap", errno))?;
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Window { start, len_bytes, region }),
            None => Err(Error::Operation("mmap", rustix::io::Errno::NOMEM)),
        }
    }

    /// As [`Device::window_at`], anywhere.
    ///
    /// # Errors
    /// As [`Device::window_at`].
    pub fn window(&self, len_bytes: usize) -> Result<Window, Error> {
        // SAFETY: no address is given.
        unsafe { self.window_at(None, len_bytes) }
    }

    /// Makes the pages around `len_bytes` at `address` visible to the host, until the result is dropped or released.
    ///
    /// # Errors
    /// Not mapped or not writable (EFAULT), a limit, or a refusal of the host.
    ///
    /// # Safety
    /// The host may write all bytes of these pages at the session's own requests: nothing in the program may rely on them not to change
    /// while such a request is under way.
    pub unsafe fn pin(&self, address: *mut u8, len_bytes: usize) -> Result<Pinned, Error> {
        let mut pin = abi::Pin {
            address: address.expose_provenance() as u64,
            len: len_bytes as u64,
            ..abi::Pin::default()
        };
        // SAFETY: PIN reads and writes one Pin.
        unsafe { call::<{ abi::PIN }, _>(&self.file, "pin", &mut pin) }?;
        let region = RegionId { device: self.clone(), id: pin.region };
        Ok(Pinned { region, offset_bytes: pin.offset, region_bytes: pin.region_len })
    }

    fn release(&self, region: u64, flags: u64) -> Result<(), Error> {
        let mut release = abi::Release { region, flags };
        // SAFETY: RELEASE reads one Release.
        unsafe { call::<{ abi::RELEASE }, _>(&self.file, "release", &mut release) }
    }
}

/// Moves a descriptor away from those of standard input, output and error, which the program may have closed and may open again.
fn off_stdio(file: File) -> io::Result<File> {
    if file.as_raw_fd() > 2 { Ok(file) } else { Ok(rustix::io::fcntl_dupfd_cloexec(&file, 3)?.into()) }
}

impl AsFd for Device {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// # Safety
/// `OP` reads and writes at most one `T`, for which all bytes that it may write are valid.
unsafe fn call<const OP: Opcode, T>(file: &File, what: &'static str, value: &mut T) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { ioctl(file, Updater::<OP, T>::new(value)) }.map_err(|errno| Error::Operation(what, errno))
}

/// A region; it is given up when this is dropped.
#[derive(Debug)]
struct RegionId {
    device: Device,
    id: u64,
}

impl RegionId {
    fn release_and_wait(self) -> Result<(), Error> {
        self.device.release(self.id, abi::WAIT)
        // Dropped afterwards: releasing it again is an error (unknown), or harmless if the host has not confirmed.
    }
}

impl Drop for RegionId {
    fn drop(&mut self) {
        // Fails only if the region or the session is gone already.
        let _ = self.device.release(self.id, 0);
    }
}

/// Memory that both sides see. Unmapped and given up when dropped.
#[derive(Debug)]
pub struct Window {
    start: NonNull<u8>,
    len_bytes: usize,
    region: RegionId,
}

// SAFETY: a window is memory without an owner thread; access goes through raw pointers.
unsafe impl Send for Window {}
// SAFETY: as above; the methods only return what does not change.
unsafe impl Sync for Window {}

impl Window {
    /// The first byte. The other side writes to this memory at any time.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// What the daemon knows it by.
    pub fn region(&self) -> u64 {
        self.region.id
    }

    /// Gives it up, and leaves its addresses reserved (not accessible) instead of free.
    ///
    /// # Safety
    /// Nothing uses the memory any more, and the addresses are the caller's to reserve.
    pub unsafe fn into_reservation(self) {
        let (start, len_bytes) = (self.start.as_ptr().cast(), self.len_bytes);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: replaces exactly this value's own mapping.
        let reserved = unsafe { mmap_anonymous(start, len_bytes, ProtFlags::empty(), flags) };
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: read once, and `this` is never dropped.
        let region = unsafe { std::ptr::read(&this.region) };
        // Where the kernel refuses (too many mappings), the memory stays mapped, which the module allows.
        let _ = reserved;
        drop(region);
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `window_at` and is this value's own; it fails for no valid range.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len_bytes) };
    }
}

/// Pinned memory of the program. Given up when dropped.
#[derive(Debug)]
pub struct Pinned {
    region: RegionId,
    offset_bytes: u64,
    region_bytes: u64,
}

impl Pinned {
    /// What the daemon knows it by.
    pub fn region(&self) -> u64 {
        self.region.id
    }

    /// Where the pinned address lies in the region.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Length of the region: whole pages.
    pub fn region_bytes(&self) -> u64 {
        self.region_bytes
    }

    /// Gives it up and waits until the host has confirmed that nothing uses it.
    ///
    /// # Errors
    /// ETIMEDOUT if the host takes too long: the pages stay pinned until it does confirm.
    pub fn release(self) -> Result<(), Error> {
        self.region.release_and_wait()
    }
}
