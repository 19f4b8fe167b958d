//! Guest RAM: one sealed memfd, mapped here and mappable by others (the daemon and its workers).
//!
//! The regions say which guest-physical range lies where in which file. They are the only source for GPA -> HVA: nobody computes it from
//! the size of the memory.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::error::{Error, Result};
use super::layout;

/// Guest memory as it is mapped in this process.
pub type Memory = GuestMemoryMmap<()>;

/// The smallest machine: below this no kernel starts.
pub const MIN_BYTES: u64 = 2 << 20;
/// The largest machine.
pub const MAX_BYTES: u64 = 8 << 40;
/// Sizes are multiples of this, so that huge pages stay whole.
pub const GRANULE_BYTES: u64 = 2 << 20;

/// A range of guest-physical addresses and where its bytes are.
#[derive(Clone, Debug)]
pub struct RamRegion {
    /// First guest-physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len_bytes: u64,
    /// The file that holds the bytes.
    pub file: Arc<File>,
    /// Where they begin in the file.
    pub offset_bytes: u64,
}

/// All RAM of a guest. Cloning clones the description, not the memory.
#[derive(Clone, Debug)]
pub struct GuestRam {
    /// Regions by ascending guest-physical address, none overlapping.
    pub regions: Vec<RamRegion>,
}

impl GuestRam {
    /// RAM of `len_bytes` in a memfd of exactly that size, which can neither grow nor shrink: nobody who has the descriptor can make
    /// an access of another one fault.
    ///
    /// # Errors
    /// The size is out of range, or the memfd cannot be made.
    pub fn new(len_bytes: u64) -> Result<Self> {
        if !(MIN_BYTES..=MAX_BYTES).contains(&len_bytes) || !len_bytes.is_multiple_of(GRANULE_BYTES) {
            return Err(Error::Memory(format!(
                "{len_bytes} bytes; a multiple of 2 MiB between 2 MiB and 8 TiB is needed"
            )));
        }
        let memfd: OwnedFd = memfd_create("guest-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(Error::os("cannot make guest memory"))?;
        ftruncate(&memfd, len_bytes).map_err(Error::os("cannot size guest memory"))?;
        fcntl_add_seals(memfd.as_fd(), SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(Error::os("cannot seal guest memory"))?;
        let file = Arc::new(File::from(memfd));
        let low = len_bytes.min(layout::HOLE);
        let mut regions =
            vec![RamRegion { gpa: 0, len_bytes: low, file: Arc::clone(&file), offset_bytes: 0 }];
        if len_bytes > low {
            let high = len_bytes - low;
            regions.push(RamRegion { gpa: layout::HOLE_END, len_bytes: high, file, offset_bytes: low });
        }
        Ok(Self { regions })
    }

    /// Maps all of it into this process.
    ///
    /// # Errors
    /// A mapping failed.
    pub fn map(&self) -> Result<Memory> {
        let mut ranges = Vec::with_capacity(self.regions.len());
        for region in &self.regions {
            let len = usize::try_from(region.len_bytes)
                .map_err(|_| Error::Memory("larger than the address space".into()))?;
            let offset = FileOffset::from_arc(Arc::clone(&region.file), region.offset_bytes);
            ranges.push((GuestAddress(region.gpa), len, Some(offset)));
        }
        Memory::from_ranges_with_files(ranges).map_err(|error| Error::Memory(error.to_string()))
    }

    /// End of the RAM below the hole.
    pub fn low_end(&self) -> u64 {
        self.regions
            .iter()
            .map(|region| region.gpa + region.len_bytes)
            .find(|end| *end <= layout::HOLE)
            .unwrap_or(0)
    }

    /// Bytes in all regions.
    pub fn len_bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.len_bytes).sum()
    }

    /// Where `len_bytes` bytes at `gpa` lie: the file and the offset, if they lie in one region.
    pub fn locate(&self, gpa: u64, len_bytes: u64) -> Option<(&Arc<File>, u64)> {
        self.regions.iter().find_map(|region| {
            let inside = gpa.checked_sub(region.gpa)?;
            let end = inside.checked_add(len_bytes)?;
            (end <= region.len_bytes).then_some((&region.file, region.offset_bytes + inside))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;
    use vm_memory::Bytes as _;

    #[test]
    fn small_memory_is_one_region() {
        let ram = GuestRam::new(64 << 20).expect("64 MiB");
        assert_eq!(ram.regions.len(), 1);
        assert_eq!((ram.low_end(), ram.len_bytes()), (64 << 20, 64 << 20));
    }

    #[test]
    fn the_hole_is_not_backed_and_high_memory_follows_in_the_file() {
        let ram = GuestRam::new(5 << 30).expect("5 GiB, sparse");
        let memory = ram.map().expect("mapping");
        assert_eq!(ram.regions.len(), 2);
        assert_eq!(ram.low_end(), layout::HOLE);
        let high = layout::HOLE_END + 0x1234;
        memory.write_slice(b"above", GuestAddress(high)).expect("high memory");
        let (file, offset) = ram.locate(high, 5).expect("located");
        assert_eq!(offset, layout::HOLE + 0x1234);
        let mut seen = [0; 5];
        file.read_exact_at(&mut seen, offset).expect("read");
        assert_eq!(&seen, b"above");
        assert!(memory.write_slice(b"x", GuestAddress(layout::HOLE)).is_err());
        assert!(ram.locate(layout::HOLE - 1, 2).is_none());
        assert!(ram.locate(u64::MAX, 2).is_none());
        assert!(ram.locate(layout::HOLE_END + (2 << 30), 1).is_none());
    }

    #[test]
    fn the_size_of_the_file_is_sealed() {
        let ram = GuestRam::new(4 << 20).expect("4 MiB");
        let file = &ram.regions[0].file;
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(8 << 20).is_err());
    }

    #[test]
    fn odd_sizes_are_refused() {
        for size in [0, 4096, (2 << 20) + 4096, !0x1F_FFFF] {
            assert!(GuestRam::new(size).is_err(), "{size:#x}");
        }
    }
}
