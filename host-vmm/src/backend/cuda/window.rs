//! Pinned and managed memory: ranges of the window, at the same address in the program, registered with the driver.
#![allow(unsafe_code)] // Calls the driver.

use protocol::status::{CuResult, Status};

use super::CudaBackend;
use super::buffer::pointer;
use super::memory::{Allocation, Hints, Kind};
use super::staging::REGISTER;
use crate::session::Call;

/// `CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED`.
const ALREADY_REGISTERED: Status = Status(712);

impl CudaBackend {
    /// The device of the thread's current context.
    ///
    /// # Errors
    /// INVALID_CONTEXT, and others of the driver.
    pub fn current_device(&self) -> CuResult<i32> {
        let mut device = 0;
        // SAFETY: the output is a variable of the right type.
        unsafe { self.raw().cuCtxGetDevice(&mut device) }?;
        Ok(device)
    }

    /// Allocates in the window.
    ///
    /// # Errors
    /// INVALID_VALUE for no bytes, OUT_OF_MEMORY, those of the driver.
    pub fn window_alloc(&self, call: &Call<'_>, kind: Kind, len: u64, flags: u32) -> CuResult<u64> {
        self.window_alloc_in(call.lane.context, kind, len, flags)
    }

    /// As [`CudaBackend::window_alloc`], for memory that goes with the context of this id; 0 for memory that stays.
    ///
    /// # Errors
    /// As there.
    pub fn window_alloc_in(&self, context: u64, kind: Kind, len: u64, flags: u32) -> CuResult<u64> {
        let device = self.current_device()?;
        if len == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let window = &self.session.window;
        let base = window.alloc(len).ok_or(Status::OUT_OF_MEMORY)?;
        if let Err(status) = self.window_register(base, len) {
            window.free(base);
            return Err(status);
        }
        let hints = Hints::default();
        self.memory.insert(Allocation { base, len, kind, flags, context, device, number: 0, hints });
        Ok(base)
    }

    /// Registers what has been allocated in the window with the driver, in the thread's context.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn window_register(&self, base: u64, len: u64) -> CuResult {
        // SAFETY: the range is allocated in the window, which is mapped for the life of the process. (What it gives is whole pages.)
        let register = || unsafe { self.raw().cuMemHostRegister_v2(pointer(base), len, REGISTER) };
        let result = register();
        if result != Err(ALREADY_REGISTERED) {
            return result;
        }
        // In a context that has gone.
        // SAFETY: nothing uses the range.
        unsafe { self.raw().cuMemHostUnregister(pointer(base)) }.and_then(|()| register())
    }

    /// Frees what begins at an address of the window, after the work that may use it.
    ///
    /// # Errors
    /// INVALID_VALUE if nothing of that kind begins there; those of the driver, after which it is freed all the same.
    pub fn window_free(&self, base: u64, kind: Kind) -> CuResult {
        if self.memory.find(base).is_none_or(|found| found.base != base || found.kind != kind) {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: takes nothing.
        let synchronized = unsafe { self.raw().cuCtxSynchronize() };
        // A library may be unloaded without a context; the driver has waited for its kernels then.
        if kind != Kind::Variables {
            synchronized?;
        }
        if self.memory.remove(base).is_none() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: registered when it was allocated; taken out of the table by this call alone.
        let result = unsafe { self.raw().cuMemHostUnregister(pointer(base)) };
        self.session.window.free(base);
        result
    }
}
