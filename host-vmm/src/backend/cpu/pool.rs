//! Memory pools for stream-ordered allocation.
//!
//! The region reuses freed memory by itself, so a pool is bookkeeping: its attributes answer as a program expects.

use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::status::{CuResult, Status};

/// `CUmemPool_attribute` values.
mod attribute {
    pub const REUSE_FOLLOW_EVENT_DEPENDENCIES: u32 = 1;
    pub const REUSE_ALLOW_INTERNAL_DEPENDENCIES: u32 = 3;
    pub const RELEASE_THRESHOLD: u32 = 4;
    pub const RESERVED_MEM_CURRENT: u32 = 5;
    pub const RESERVED_MEM_HIGH: u32 = 6;
    pub const USED_MEM_CURRENT: u32 = 7;
    pub const USED_MEM_HIGH: u32 = 8;
}

/// A memory pool.
pub struct Pool {
    pub device: u32,
    /// The default pool of its device cannot be destroyed.
    pub default: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Attributes 1 to 3: whether memory may be reused in these ways.
    reuse: [u64; 3],
    release_threshold: u64,
    used: u64,
    used_high: u64,
}

impl Pool {
    pub fn new(device: u32, default: bool) -> Self {
        let state = State { reuse: [1; 3], release_threshold: 0, used: 0, used_high: 0 };
        Self { device, default, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an allocation.
    pub fn allocated(&self, len: u64) {
        let mut state = self.state();
        state.used += len;
        state.used_high = state.used_high.max(state.used);
    }

    /// Counts a free.
    pub fn freed(&self, len: u64) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(len);
    }

    /// # Errors
    /// `INVALID_VALUE` for an unknown attribute.
    pub fn attribute(&self, attribute: u32) -> CuResult<u64> {
        let state = self.state();
        Ok(match attribute {
            attribute::REUSE_FOLLOW_EVENT_DEPENDENCIES..=attribute::REUSE_ALLOW_INTERNAL_DEPENDENCIES => {
                state.reuse[attribute as usize - 1]
            }
            attribute::RELEASE_THRESHOLD => state.release_threshold,
            attribute::RESERVED_MEM_CURRENT | attribute::USED_MEM_CURRENT => state.used,
            attribute::RESERVED_MEM_HIGH | attribute::USED_MEM_HIGH => state.used_high,
            _ => return Err(Status::INVALID_VALUE),
        })
    }

    /// # Errors
    /// `INVALID_VALUE` for an attribute that cannot be set to this value: high-water marks can only be reset to 0.
    pub fn set_attribute(&self, attribute: u32, value: u64) -> CuResult {
        let mut state = self.state();
        match attribute {
            attribute::REUSE_FOLLOW_EVENT_DEPENDENCIES..=attribute::REUSE_ALLOW_INTERNAL_DEPENDENCIES => {
                state.reuse[attribute as usize - 1] = u64::from(value != 0);
            }
            attribute::RELEASE_THRESHOLD => state.release_threshold = value,
            attribute::RESERVED_MEM_HIGH | attribute::USED_MEM_HIGH if value == 0 => {
                state.used_high = state.used
            }
            _ => return Err(Status::INVALID_VALUE),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_counted() {
        let pool = Pool::new(0, true);
        pool.allocated(100);
        pool.freed(60);
        assert_eq!(pool.attribute(attribute::USED_MEM_CURRENT), Ok(40));
        assert_eq!(pool.attribute(attribute::USED_MEM_HIGH), Ok(100));
        assert_eq!(pool.set_attribute(attribute::USED_MEM_HIGH, 5), Err(Status::INVALID_VALUE));
        assert_eq!(pool.set_attribute(attribute::USED_MEM_HIGH, 0), Ok(()));
        assert_eq!(pool.attribute(attribute::USED_MEM_HIGH), Ok(40));
        assert_eq!(pool.attribute(99), Err(Status::INVALID_VALUE));
    }
}
