//! The machine's files, each mapped as a whole: copies of what programs lend go there at the speed of memory.
//!
//! Only a process may do this that runs nothing of a program in these addresses: they hold the memory of all programs of the machine. The CUDA backend's worker is one where the
//! GPU does not reach pageable memory; the CPU backend's is not.
#![allow(unsafe_code)] // Maps files.

use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// A file's mapping.
struct Map {
    start: NonNull<u8>,
    len: u64,
}

/// See the module's documentation. What is mapped stays so for the life of the process.
pub struct Whole {
    /// In the order of the files. None: this one could not be mapped.
    maps: Vec<Option<Map>>,
}

// SAFETY: a mapping has no thread of its own; the pointers are only handed out.
unsafe impl Send for Whole {}
// SAFETY: as above; nothing is changed by `&Whole`.
unsafe impl Sync for Whole {}

impl Whole {
    /// Mappings begin at multiples of this: a page of any size can be mapped as one then.
    pub const ALIGN: u64 = 1 << 30;

    /// Maps what of each file there is now. `addresses` gives that many addresses, beginning at a multiple of [`Whole::ALIGN`], in which nothing else is or will be mapped; None leaves
    /// the choice to the kernel. A page takes no time or memory before it is used for the first time.
    pub fn map(files: &[OwnedFd], addresses: impl Fn(u64) -> Option<u64>) -> Self {
        let maps = files.iter().map(|file| match map(file, &addresses) {
            Ok(map) => Some(map),
            Err(error) => {
                tracing::debug!(%error, "a file of the machine is not mapped: copies read and write it");
                None
            }
        });
        Self { maps: maps.collect() }
    }

    /// Where `len` bytes at `offset` of a file are, if all of them are mapped. They are gone when the file has become shorter since.
    pub fn place(&self, file: usize, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let map = self.maps.get(file)?.as_ref()?;
        let inside = len <= map.len && offset <= map.len - len;
        // SAFETY: at most the end of the mapping.
        inside.then(|| unsafe { map.start.add(offset as usize) })
    }
}

fn map(file: &OwnedFd, addresses: impl Fn(u64) -> Option<u64>) -> rustix::io::Result<Map> {
    let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    let len = usize::try_from(size).map_err(|_| rustix::io::Errno::OVERFLOW)?;
    let (prot, mut flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
    let at = addresses(size.next_multiple_of(Whole::ALIGN));
    if at.is_some() {
        flags |= MapFlags::FIXED;
    }
    let at = std::ptr::with_exposed_provenance_mut(at.unwrap_or(0) as usize);
    // SAFETY: a new mapping, at an address of the kernel's choice, or at one where by the caller's word nothing else is.
    let start = unsafe { mmap(at, len, prot, flags, file, 0) }?;
    NonNull::new(start.cast()).map(|start| Map { start, len: size }).ok_or(rustix::io::Errno::NOMEM)
}
