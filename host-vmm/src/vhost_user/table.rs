//! The guest's memory as the front end describes it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use crate::vmm::memory::{GuestRam, Memory, RamRegion};

/// The regions of a table: where the files that the front end has sent hold the guest's memory.
///
/// # Errors
/// A region has no file, or is not all in its file: an access would be a fault.
pub fn guest_ram(memory: &Memory) -> io::Result<GuestRam> {
    let mut regions = Vec::with_capacity(memory.num_regions());
    for region in memory.iter() {
        let gpa = region.start_addr().0;
        let place = region
            .file_offset()
            .ok_or_else(|| io::Error::other(format!("the memory at {gpa:#x} is in no file")))?;
        let (len_bytes, offset_bytes) = (region.len(), place.start());
        let file = Arc::clone(place.arc());
        let meta = file.metadata()?;
        // Files of other kinds have no length that could be compared.
        if meta.is_file() && offset_bytes.checked_add(len_bytes).is_none_or(|end| end > meta.len()) {
            return Err(io::Error::other(format!(
                "{len_bytes:#x} bytes at {gpa:#x} are not all in their file of {:#x} bytes",
                meta.len()
            )));
        }
        regions.push(RamRegion { gpa, len_bytes, file, offset_bytes });
    }
    regions.sort_by_key(|region| region.gpa);
    Ok(GuestRam { regions })
}

/// The table that the owner knows. Front ends send one at each start of the device, mostly the same.
#[derive(Default)]
pub struct Told(Option<Vec<Place>>);

/// A region with the identity of its file.
#[derive(PartialEq, Eq)]
struct Place {
    gpa: u64,
    len_bytes: u64,
    offset_bytes: u64,
    file: (u64, u64),
}

impl Told {
    /// Whether `ram` differs from what was told last; it counts as told from now on.
    ///
    /// # Errors
    /// A file's identity cannot be read.
    pub fn is_new(&mut self, ram: &GuestRam) -> io::Result<bool> {
        let place = |region: &RamRegion| {
            let meta = region.file.metadata()?;
            Ok(Place {
                gpa: region.gpa,
                len_bytes: region.len_bytes,
                offset_bytes: region.offset_bytes,
                file: (meta.dev(), meta.ino()),
            })
        };
        let places = Some(ram.regions.iter().map(place).collect::<io::Result<Vec<Place>>>()?);
        let new = places != self.0;
        self.0 = places;
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::memory::MIN_BYTES;

    #[test]
    fn a_table_that_is_sent_again_is_not_news() {
        let ram = GuestRam::new(2 * MIN_BYTES).expect("memory");
        let again = guest_ram(&ram.map().expect("mapped")).expect("regions");
        assert_eq!(again.len_bytes(), 2 * MIN_BYTES);
        let mut told = Told::default();
        assert!(told.is_new(&ram).expect("files"));
        assert!(!told.is_new(&again).expect("files"));
        let other = GuestRam::new(2 * MIN_BYTES).expect("memory");
        assert!(told.is_new(&other).expect("files"));
        let mut moved = other.clone();
        moved.regions[0].gpa = 1 << 32;
        assert!(told.is_new(&moved).expect("files"));
    }

    #[test]
    fn memory_that_its_file_does_not_hold_is_refused() {
        let ram = GuestRam::new(MIN_BYTES).expect("memory");
        let file = tempfile::tempfile().expect("a file");
        file.set_len(MIN_BYTES).expect("size");
        let region = RamRegion { file: Arc::new(file), ..ram.regions[0].clone() };
        let memory = GuestRam { regions: vec![region.clone()] }.map().expect("mapped");
        assert!(guest_ram(&memory).is_ok());
        region.file.set_len(MIN_BYTES - 1).expect("size");
        assert!(guest_ram(&memory).is_err());
    }
}
