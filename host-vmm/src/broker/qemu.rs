//! Memory of a stock QEMU guest whose memory backend is a file: `-object memory-backend-file,id=m0,size=..,mem-path=FILE,share=on -M q35,memory-backend=m0`.

use std::fs::File;
use std::sync::Arc;

use crate::vmm::memory::{GuestRam, RamRegion};

/// Below this there is memory only if all of it fits; else the part below [`SPLIT`] does.
const LOW_LIMIT: u64 = 0xb000_0000;
const SPLIT: u64 = 0x8000_0000;
const FOUR_GIB: u64 = 1 << 32;

/// Where a q35 machine has the `len_bytes` of its memory backend.
pub fn q35(file: File, len_bytes: u64) -> GuestRam {
    let file = Arc::new(file);
    let low = if len_bytes < LOW_LIMIT { len_bytes } else { SPLIT };
    let mut regions = vec![RamRegion { gpa: 0, len_bytes: low, file: Arc::clone(&file), offset_bytes: 0 }];
    if len_bytes > low {
        regions.push(RamRegion { gpa: FOUR_GIB, len_bytes: len_bytes - low, file, offset_bytes: low });
    }
    GuestRam { regions }
}

#[cfg(test)]
mod tests {
    use super::q35;

    #[test]
    fn the_hole_is_where_qemu_has_it() {
        let places = |len| {
            let ram = q35(tempfile::tempfile().unwrap(), len);
            ram.regions.iter().map(|r| (r.gpa, r.len_bytes, r.offset_bytes)).collect::<Vec<_>>()
        };
        assert_eq!(places(512 << 20), [(0, 512 << 20, 0)]);
        assert_eq!(places(0xb000_0000 - 4096), [(0, 0xb000_0000 - 4096, 0)]);
        assert_eq!(places(4 << 30), [(0, 2 << 30, 0), (4 << 30, 2 << 30, 2 << 30)]);
    }
}
