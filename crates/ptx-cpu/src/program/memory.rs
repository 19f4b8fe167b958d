//! Module variables in a [`Region`].

use std::sync::Arc;

use super::{GlobalMemory, MemoryKind};
use crate::region::Region;

/// Allocates every variable, managed ones included, as plain device memory of a region.
pub struct RegionMemory(pub Arc<Region>);

impl GlobalMemory for RegionMemory {
    fn region_tag(&self) -> u64 {
        self.0.tag()
    }

    fn allocate(&self, _kind: MemoryKind, len: u64, align: u64) -> Result<u64, String> {
        let address = self.0.alloc(len, align).map_err(|e| e.to_string())?;
        // Freed memory is used again as it is.
        if let Err(e) = self.0.fill8(address, 0, len) {
            self.free(address);
            return Err(e.to_string());
        }
        Ok(address)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.0.copy_in(address, bytes).map_err(|e| e.to_string())
    }

    fn free(&self, address: u64) {
        if let Err(e) = self.0.free(address) {
            tracing::warn!("a module's variables at {address:#x} were not freed: {e}");
        }
    }
}
