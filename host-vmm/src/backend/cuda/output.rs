//! What kernels print: the driver writes it to the worker's standard streams, which lead to files in memory here.
//!
//! Looked at only when code has been loaded that can print, because every look costs system calls. The worker's own log has a descriptor
//! of its own by then.
#![allow(unsafe_code)] // Flushes the C library's streams.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, fallocate, memfd_create};

/// What device code refers to if it can print at any time: printf.
const PRINTER: &[u8] = b"vprintf";
/// What it refers to if it can say why it ends: assert.
const LAST_WORDS: &[u8] = b"__assertfail";

/// Granularity of what is given back to the system.
const PAGE: u64 = 4096;

/// One standard stream.
struct Stream {
    /// 1 or 2, as the program is told.
    number: u32,
    file: File,
    /// Bytes that the program has fetched.
    taken: u64,
}

impl Stream {
    fn new(number: u32, name: &str) -> std::io::Result<(Self, File)> {
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        // A second description: several threads append, and the reader has its own place.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let writer =
            rustix::fs::open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC, Mode::empty())?;
        Ok((Self { number, file, taken: 0 }, File::from(writer)))
    }

    fn waiting(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len()).saturating_sub(self.taken)
    }

    fn take(&mut self, max: usize) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.waiting()).unwrap_or(usize::MAX).min(max)];
        let len = self.file.read_at(&mut bytes, self.taken).unwrap_or(0);
        bytes.truncate(len);
        let before = self.taken / PAGE * PAGE;
        self.taken += len as u64;
        let free = self.taken / PAGE * PAGE - before;
        if free > 0 {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = fallocate(&self.file, mode, before, free);
        }
        bytes
    }
}

/// The output of a session's kernels.
pub struct Output {
    /// Code is loaded that can print.
    prints: AtomicBool,
    /// Code is loaded that can print or say why it ends.
    armed: AtomicBool,
    streams: Mutex<[Stream; 2]>,
}

impl Output {
    /// Leads standard output and standard error of this process here.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn capture() -> std::io::Result<Self> {
        let (output, writers) = Self::new()?;
        crate::logging::keep_stderr()?;
        rustix::stdio::dup2_stdout(writers[0].as_fd())?;
        rustix::stdio::dup2_stderr(writers[1].as_fd())?;
        Ok(output)
    }

    /// The output, and what to write it to.
    fn new() -> std::io::Result<(Self, [File; 2])> {
        let (out, out_writer) = Stream::new(1, "cuda-stdout")?;
        let (err, err_writer) = Stream::new(2, "cuda-stderr")?;
        let output = Self { prints: false.into(), armed: false.into(), streams: Mutex::new([out, err]) };
        Ok((output, [out_writer, err_writer]))
    }

    /// Looks whether code that is loaded can print.
    pub fn look_at(&self, image: &[u8]) {
        let refers_to = |name| memchr::memmem::find(image, name).is_some();
        if !self.may_print() && refers_to(PRINTER) {
            self.prints.store(true, Ordering::Relaxed);
            self.armed.store(true, Ordering::Relaxed);
        } else if !self.armed.load(Ordering::Relaxed) && refers_to(LAST_WORDS) {
            self.armed.store(true, Ordering::Relaxed);
        }
    }

    /// Is code loaded that can print other than its last words?
    pub fn may_print(&self) -> bool {
        self.prints.load(Ordering::Relaxed)
    }

    /// Is there anything to fetch?
    pub fn pending(&self) -> bool {
        if !self.armed.load(Ordering::Relaxed) {
            return false;
        }
        flush();
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|stream| stream.waiting() > 0)
    }

    /// Takes at most `max` bytes of one stream: its number, and the bytes; none if all have been fetched.
    pub fn take(&self, max: usize) -> (u32, Vec<u8>) {
        flush();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.iter_mut() {
            let bytes = stream.take(max);
            if !bytes.is_empty() {
                return (stream.number, bytes);
            }
        }
        (1, Vec::new())
    }
}

/// The driver prints through the C library, which keeps what it writes to a file until it is told.
fn flush() {
    // SAFETY: NULL means all streams; they are locked one by one.
    unsafe { libc::fflush(core::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn output_comes_in_order_and_in_parts() {
        let (output, [mut out, mut err]) = Output::new().unwrap();
        out.write_all(b"abcdef").unwrap();
        assert!(!output.pending(), "nothing is loaded that can print");
        output.look_at(b".extern .func __assertfail (");
        assert!(output.pending() && !output.may_print());
        output.look_at(b".extern .func (.param .b32 r) vprintf (");
        assert!(output.pending() && output.may_print());
        err.write_all(b"!").unwrap();
        assert_eq!(output.take(4), (1, b"abcd".to_vec()));
        assert_eq!(output.take(4), (1, b"ef".to_vec()));
        out.write_all(&[b'x'; 10_000]).unwrap();
        assert_eq!(output.take(20_000), (1, vec![b'x'; 10_000]));
        assert_eq!(output.take(4), (2, b"!".to_vec()));
        assert_eq!(output.take(4), (1, Vec::new()));
        assert!(!output.pending());
    }
}
