//! Memory of a stock QEMU guest whose memory backend is a file: `-object memory-backend-file,id=m0,size=..,mem-path=FILE,share=on -M q35,memory-backend=m0`.

use std::fs::File;
use std::str::FromStr;
use std::sync::Arc;

use crate::vmm::memory::{GuestRam, RamRegion};

const FOUR_GIB: u64 = 1 << 32;

/// Where a machine type has its memory: how much below 4 GiB, the rest from there on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Layout {
    /// `-M q35`
    #[default]
    Q35,
    /// `-M pc`
    Pc,
}

impl Layout {
    /// All memory is low if it is less than the first number; else as much as the second one is.
    fn low(self) -> (u64, u64) {
        match self {
            Self::Q35 => (0xb000_0000, 0x8000_0000),
            Self::Pc => (0xe000_0000, 0xc000_0000),
        }
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "q35" => Ok(Self::Q35),
            "pc" => Ok(Self::Pc),
            _ => Err(format!("'{text}' is no layout of memory; those are q35 and pc")),
        }
    }
}

/// Where a machine has the `len_bytes` of its memory backend.
pub fn ram(layout: Layout, file: File, len_bytes: u64) -> GuestRam {
    let file = Arc::new(file);
    let (limit, split) = layout.low();
    let low = if len_bytes < limit { len_bytes } else { split };
    let mut regions = vec![RamRegion { gpa: 0, len_bytes: low, file: Arc::clone(&file), offset_bytes: 0 }];
    if len_bytes > low {
        regions.push(RamRegion { gpa: FOUR_GIB, len_bytes: len_bytes - low, file, offset_bytes: low });
    }
    GuestRam { regions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hole_is_where_qemu_has_it() {
        let places = |layout, len| {
            let ram = ram(layout, tempfile::tempfile().unwrap(), len);
            ram.regions.iter().map(|r| (r.gpa, r.len_bytes, r.offset_bytes)).collect::<Vec<_>>()
        };
        assert_eq!(places(Layout::Q35, 512 << 20), [(0, 512 << 20, 0)]);
        assert_eq!(places(Layout::Q35, 0xb000_0000 - 4096), [(0, 0xb000_0000 - 4096, 0)]);
        assert_eq!(places(Layout::Q35, 4 << 30), [(0, 2 << 30, 0), (4 << 30, 2 << 30, 2 << 30)]);
        assert_eq!(places(Layout::Pc, 3 << 30), [(0, 3 << 30, 0)]);
        assert_eq!(places(Layout::Pc, 4 << 30), [(0, 3 << 30, 0), (4 << 30, 1 << 30, 3 << 30)]);
    }
}
