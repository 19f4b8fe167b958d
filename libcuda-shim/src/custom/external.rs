//! Memory and semaphores of graphics drivers: none can be imported, so whatever is to be destroyed is none.

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::types::*;

fn none_such(is_null: bool) -> CuResult {
    require_init()?;
    Err(if is_null { Status::INVALID_VALUE } else { Status::INVALID_HANDLE })
}

pub fn cuDestroyExternalMemory(memory: CUexternalMemory) -> CuResult {
    none_such(memory.is_null())
}

pub fn cuDestroyExternalSemaphore(semaphore: CUexternalSemaphore) -> CuResult {
    none_such(semaphore.is_null())
}
