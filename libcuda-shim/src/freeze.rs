#![allow(unsafe_code)]
//! Keeping the program from writing to some of its pages while others take their place.
//!
//! Where the calling thread is the only one, there is nothing to do but to hold signals off. Else the kernel makes writers wait (userfaultfd's write protection): threads that write to the
//! pages sleep until they are let go, and then write to what is there by that time. The kernel's own writes on a program's behalf (`read` into the buffer) wait too, which takes a privilege or
//! `vm.unprivileged_userfaultfd`; without that nothing is frozen, since such writes would fail instead of waiting.
//!
//! Unsafe because of system calls that the `rustix` crate has no function for, and because pages of the program are touched.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::mm::{UserfaultfdFlags, userfaultfd};

/// `UFFD_API`, and what is asked of it: write faults say that they are such.
const API: u64 = 0xaa;
const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1;
const REGISTER_MODE_WP: u64 = 1 << 1;
const WRITEPROTECT_MODE_WP: u64 = 1;

/// `struct uffdio_api`
#[repr(C)]
struct ApiRequest {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`
#[repr(C)]
struct RegisterRequest {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_writeprotect`
#[repr(C)]
struct WriteProtectRequest {
    start: u64,
    len: u64,
    mode: u64,
}

/// The request numbers of `linux/userfaultfd.h`: `_IOWR(0xaa, number, struct)`.
const fn request<T>(number: u64) -> u64 {
    const READ_WRITE: u64 = 3;
    READ_WRITE << 30 | (size_of::<T>() as u64) << 16 | API << 8 | number
}

/// No signal reaches this thread while this lives.
#[derive(Debug)]
pub struct SignalsHeld {
    before: libc::sigset_t,
}

impl SignalsHeld {
    pub fn new() -> SignalsHeld {
        // SAFETY: sets of signals are plain data, filled by the calls.
        unsafe {
            let (mut all, mut before) = (core::mem::zeroed(), core::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            SignalsHeld { before }
        }
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        // SAFETY: the set is what the thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, core::ptr::null_mut()) };
    }
}

/// Pages that the program does not write to while this lives, and signals that wait meanwhile.
#[derive(Debug)]
pub struct Frozen {
    // In this order: a signal handler may wait for the writers.
    /// Writers wait until this is closed; none where there are no others.
    _writers: Option<OwnedFd>,
    _signals: SignalsHeld,
}

impl Frozen {
    /// Freezes whole pages. The caller writes to none of them, nor lets others that it waits for.
    ///
    /// # Errors
    /// Why it cannot be done, to be read by people.
    pub fn new(start: usize, len: usize) -> Result<Frozen, String> {
        let signals = SignalsHeld::new();
        let writers = if is_alone() { None } else { Some(hold_writers(start, len)?) };
        Ok(Frozen { _writers: writers, _signals: signals })
    }
}

/// Whether the process has this thread alone. No other one can begin then, since no code runs but this.
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.take(2).count() == 1)
}

fn hold_writers(start: usize, len: usize) -> Result<OwnedFd, String> {
    let explained = |what: &str, error: std::io::Error| {
        format!(
            "{what}: {error} (the program has several threads, and to hold them takes CAP_SYS_PTRACE or the sysctl vm.unprivileged_userfaultfd=1)"
        )
    };
    // SAFETY: what the descriptor does to memory is said below.
    let fd = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK) }
        .map_err(|errno| explained("userfaultfd", errno.into()))?;
    let mut api = ApiRequest { api: API, features: FEATURE_PAGEFAULT_FLAG_WP, ioctls: 0 };
    call(&fd, request::<ApiRequest>(0x3f), &mut api).map_err(|error| explained("UFFDIO_API", error))?;
    // Pages that are not there could be written to in spite of it.
    // SAFETY: populating changes no contents.
    let populated =
        unsafe { libc::madvise(core::ptr::without_provenance_mut(start), len, libc::MADV_POPULATE_WRITE) };
    if populated != 0 {
        return Err(format!("MADV_POPULATE_WRITE: {}", std::io::Error::last_os_error()));
    }
    let (start, len) = (start as u64, len as u64);
    let mut register = RegisterRequest { start, len, mode: REGISTER_MODE_WP, ioctls: 0 };
    call(&fd, request::<RegisterRequest>(0), &mut register)
        .map_err(|error| explained("UFFDIO_REGISTER", error))?;
    let mut protect = WriteProtectRequest { start, len, mode: WRITEPROTECT_MODE_WP };
    call(&fd, request::<WriteProtectRequest>(6), &mut protect)
        .map_err(|error| explained("UFFDIO_WRITEPROTECT", error))?;
    Ok(fd)
}

fn call<T>(fd: &OwnedFd, number: u64, argument: &mut T) -> std::io::Result<()> {
    // SAFETY: the request's structure, of the length that is part of its number; it changes no memory but that.
    match unsafe { libc::ioctl(fd.as_raw_fd(), number, &raw mut *argument) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

    use super::*;

    #[test]
    fn numbers_are_those_of_the_header() {
        assert_eq!(request::<ApiRequest>(0x3f), 0xc018_aa3f);
        assert_eq!(request::<RegisterRequest>(0), 0xc020_aa00);
        assert_eq!(request::<WriteProtectRequest>(6), 0xc018_aa06);
    }

    /// Pages of this kind are frozen and replaced by private ones while a thread writes there.
    fn writers_wait(flags: MapFlags, file: Option<OwnedFd>) {
        const LEN: usize = 4 * 4096;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let anywhere = core::ptr::null_mut();
        let at = match &file {
            // SAFETY: a new mapping.
            Some(file) => unsafe { mmap(anywhere, LEN, prot, flags, file, 0) },
            // SAFETY: as above.
            None => unsafe { mmap_anonymous(anywhere, LEN, prot, flags) },
        }
        .unwrap();
        // SAFETY: page-aligned, zeroed, mapped until the end of the test; used as an atomic only.
        let word = unsafe { &*at.cast::<AtomicU64>() };
        word.store(1, Ordering::SeqCst);
        // The test harness has several threads.
        let frozen = match Frozen::new(at.addr(), LEN) {
            Ok(frozen) => frozen,
            Err(why) => {
                eprintln!("skipped: {why}");
                return;
            }
        };
        let seen = std::thread::scope(|scope| {
            let writer = scope.spawn(|| word.fetch_add(1, Ordering::SeqCst));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!writer.is_finished(), "a writer does not wait");
            assert_eq!(word.load(Ordering::SeqCst), 1, "readers do not wait");
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            // SAFETY: replaces the pages of this test by others.
            unsafe { mmap_anonymous(at, LEN, prot, flags) }.unwrap();
            word.store(70, Ordering::SeqCst);
            drop(frozen);
            writer.join().unwrap()
        });
        assert_eq!(seen, 70, "what the writer found");
        assert_eq!(word.load(Ordering::SeqCst), 71);
        // SAFETY: mapped above.
        unsafe { munmap(at, LEN) }.unwrap();
    }

    #[test]
    fn writers_to_private_memory_wait_and_then_write_to_what_is_there() {
        writers_wait(MapFlags::PRIVATE, None);
    }

    #[test]
    fn writers_to_shared_memory_wait_and_then_write_to_what_is_there() {
        let file = rustix::fs::memfd_create("freeze-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 4 * 4096).unwrap();
        writers_wait(MapFlags::SHARED, Some(file));
    }
}
