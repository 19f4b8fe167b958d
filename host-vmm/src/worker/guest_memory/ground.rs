//! Addresses of the window, and what is mapped there.
#![allow(unsafe_code)] // Maps memory at given addresses.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ptx_cpu::region::{PAGE_LEN, WINDOW_OFFSET};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use transport::Reservation;

/// Where a run of bytes lies in the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which of the machine's files.
    pub file: usize,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Run {
    const WORDS: usize = 3;
    /// Bytes of an encoded run.
    pub const LEN: usize = Self::WORDS * 8;

    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        for (word, value) in bytes.chunks_exact_mut(8).zip([self.file as u64, self.offset, self.len]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let word =
            |i: usize| bytes[i * 8..].first_chunk().map_or(0, |word: &[u8; 8]| u64::from_le_bytes(*word));
        Self { file: usize::try_from(word(0)).unwrap_or(usize::MAX), offset: word(1), len: word(2) }
    }
}

/// Why runs were not mapped.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct MapError {
    source: io::Error,
    /// Some of them are mapped and cannot be unmapped.
    pub stuck: bool,
}

/// Who owns the addresses.
pub enum Ground {
    /// The CPU backend's engine.
    Engine(Arc<ptx_cpu::region::Region>),
    /// Nobody but this value: they are reserved.
    Reserved(Reservation),
}

impl Ground {
    /// Maps runs of `files` one after the other from `address` on. All or nothing, unless the error says that something is [stuck](MapError::stuck).
    ///
    /// # Errors
    /// A run is not of whole pages of a file, or the kernel refuses.
    pub fn map(&self, address: u64, files: &[OwnedFd], runs: &[Run]) -> Result<(), MapError> {
        let mut at = address;
        for (done, run) in runs.iter().enumerate() {
            if let Err(source) = self.map_one(at, files, run) {
                let stuck = !self.unmap(address, &runs[..done]);
                return Err(MapError { source, stuck });
            }
            at += run.len;
        }
        Ok(())
    }

    fn map_one(&self, at: u64, files: &[OwnedFd], run: &Run) -> io::Result<()> {
        let file = files.get(run.file).ok_or_else(|| io::Error::other("no such file of the machine"))?;
        match self {
            Self::Engine(region) => region
                .map_guest(file.as_fd(), run.offset, at - region.base() - WINDOW_OFFSET, run.len)
                .map(drop)
                .map_err(io::Error::other),
            Self::Reserved(reserved) => {
                let inside = at >= reserved.start()
                    && run.len <= reserved.len()
                    && at - reserved.start() <= reserved.len() - run.len;
                if !inside || run.len == 0 || !(at | run.len | run.offset).is_multiple_of(PAGE_LEN) {
                    return Err(io::Error::other("not whole pages of the window"));
                }
                let (place, prot) = (pointer(at), ProtFlags::READ | ProtFlags::WRITE);
                // SAFETY: the range lies in the reservation, which this value owns; what is mapped there is named by `Parts`, which gives out each place once.
                unsafe {
                    mmap(place, run.len as usize, prot, MapFlags::SHARED | MapFlags::FIXED, file, run.offset)
                }?;
                Ok(())
            }
        }
    }

    /// Takes away what [`Ground::map`] has mapped; the addresses stay reserved. False if the kernel refuses (a process has a limited number of mappings, which
    /// it checks before it looks at what is replaced): the memory must then count as used for as long as this process lives.
    #[must_use]
    pub fn unmap(&self, address: u64, runs: &[Run]) -> bool {
        let mut all = true;
        let mut at = address;
        for run in runs {
            let done: io::Result<()> = match self {
                Self::Engine(region) => region.unmap_shared(at).map_err(io::Error::other),
                Self::Reserved(_) => {
                    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
                    // SAFETY: mapped by `map` above, and no longer used: the caller's word.
                    unsafe { mmap_anonymous(pointer(at), run.len as usize, ProtFlags::empty(), flags) }
                        .map(drop)
                        .map_err(Into::into)
                }
            };
            if let Err(error) = done {
                if all {
                    tracing::error!(%error, address = at, len = run.len, "memory of the guest stays mapped");
                }
                all = false;
            }
            at += run.len;
        }
        all
    }
}

fn pointer(address: u64) -> *mut std::ffi::c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Reads the runs of a region that the daemon has written into a file; more than `max` are an error.
///
/// # Errors
/// The file cannot be read, or the runs are not `len` bytes together.
pub fn read_runs(file: OwnedFd, len: u64, max: usize) -> io::Result<Vec<Run>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    File::from(file).take((max as u64 + 1) * Run::LEN as u64).read_to_end(&mut bytes)?;
    if bytes.len() > max * Run::LEN {
        let text = format!("the region is in more than {max} pieces");
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
    }
    let runs: Vec<Run> = bytes.as_chunks::<{ Run::LEN }>().0.iter().map(Run::decode).collect();
    let sum = runs.iter().try_fold(0u64, |sum, run| sum.checked_add(run.len));
    if sum != Some(len) {
        return Err(io::Error::other(format!("the region has {sum:?} bytes, {len} were asked for")));
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::io::{Seek as _, Write as _};
    use std::os::unix::fs::FileExt as _;

    fn memory(len: u64) -> OwnedFd {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, len).unwrap();
        file
    }

    /// Scattered runs appear one after the other, in both directions.
    fn scattered(ground: &Ground, address: u64) {
        let files = [memory(1 << 20), memory(1 << 20)];
        let runs = [
            Run { file: 1, offset: 8192, len: 4096 },
            Run { file: 0, offset: 0, len: 8192 },
            Run { file: 1, offset: 0, len: 4096 },
        ];
        ground.map(address, &files, &runs).unwrap();
        for (i, run) in runs.iter().enumerate() {
            let at = address + runs[..i].iter().map(|run| run.len).sum::<u64>() + run.len - 1;
            let byte: *mut u8 = pointer(at).cast();
            // SAFETY: mapped just now.
            unsafe { byte.write_volatile(i as u8 + 1) };
            let mut seen = [0];
            let file = File::from(files[run.file].try_clone().unwrap());
            file.read_exact_at(&mut seen, run.offset + run.len - 1).unwrap();
            assert_eq!(seen, [i as u8 + 1]);
        }
        assert!(ground.unmap(address, &runs));
        // Again, and with a run that cannot be: nothing is left behind.
        let beyond = Run { file: 2, offset: 0, len: 4096 };
        assert!(ground.map(address, &files, &[runs[0], beyond]).is_err());
        assert!(ground.map(address, &files, &[runs[0], Run { offset: 1, ..runs[0] }]).is_err());
        ground.map(address, &files, &runs).unwrap();
        assert!(ground.unmap(address, &runs));
    }

    #[test]
    fn in_a_reservation() {
        let start = 37 << 41;
        let Ok(reserved) = Reservation::new(start, 1 << 30) else { return };
        let ground = Ground::Reserved(reserved);
        scattered(&ground, start + (1 << 20));
        let run = Run { file: 0, offset: 0, len: 4096 };
        for at in [start - 4096, start + (1 << 30), start + 1] {
            assert!(ground.map(at, &[memory(4096)], &[run]).is_err(), "{at:#x}");
        }
    }

    #[test]
    fn in_the_engines_region() {
        let config = ptx_cpu::region::RegionConfig { memory_limit: 1 << 20 };
        let region = Arc::new(ptx_cpu::region::Region::reserve_any(config).unwrap());
        let window = region.base() + WINDOW_OFFSET;
        scattered(&Ground::Engine(region), window + (4 << 20));
    }

    #[test]
    fn runs_are_read_back_and_must_add_up() {
        let runs = [Run { file: 1, offset: 1 << 40, len: 4096 }, Run { file: 0, offset: 0, len: 8192 }];
        let file = || {
            let mut file = File::from(memfd_create("runs", MemfdFlags::CLOEXEC).unwrap());
            runs.iter().for_each(|run| file.write_all(&run.encode()).unwrap());
            file.rewind().unwrap();
            OwnedFd::from(file)
        };
        assert_eq!(read_runs(file(), 12288, 2).unwrap(), runs);
        assert!(read_runs(file(), 8192, 2).is_err());
        assert!(read_runs(file(), 12288, 1).unwrap_err().to_string().contains("more than 1 pieces"));
    }
}
