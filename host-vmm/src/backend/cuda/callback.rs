//! Functions of the program that streams call: the driver calls one of ours, which waits until the program has called its own.
#![allow(unsafe_code)] // Gives the driver functions to call.

use core::ffi::c_void;
use std::sync::{Arc, OnceLock};

use protocol::Status;
use protocol::status::CuResult;

use super::CudaBackend;
use super::buffer::pointer;
use crate::backend::callback::{Callbacks, Due};

/// Of the process: the driver hands a number back and nothing else.
pub fn callbacks() -> &'static Arc<Callbacks> {
    static CALLBACKS: OnceLock<Arc<Callbacks>> = OnceLock::new();
    CALLBACKS.get_or_init(Arc::default)
}

/// A `CUhostFn`. `id` is the number of the program's function.
extern "C" fn host_function(id: *mut c_void) {
    callbacks().call(Due { id: id.addr() as u64, status: Status::SUCCESS });
}

/// A `CUstreamCallback`.
extern "C" fn stream_callback(_stream: *mut c_void, status: u32, id: *mut c_void) {
    callbacks().call(Due { id: id.addr() as u64, status: Status(status) });
}

/// The `CUhostFn` of host nodes of graphs, whose argument is the number of the program's function.
pub fn host_function_address() -> u64 {
    (host_function as extern "C" fn(*mut c_void) as *const c_void).expose_provenance() as u64
}

impl CudaBackend {
    /// Queues a call of the program's function `id` as a host function.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn queue_host_function(&self, stream: u64, id: u64) -> CuResult {
        let function = host_function as extern "C" fn(*mut c_void);
        // SAFETY: the function lives as long as the process and takes any number.
        unsafe { self.raw().cuLaunchHostFunc(stream, function as *mut c_void, pointer(id)) }
    }

    /// Queues a call of the program's function `id` as a stream callback.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn queue_stream_callback(&self, stream: u64, id: u64) -> CuResult {
        let function = stream_callback as extern "C" fn(*mut c_void, u32, *mut c_void);
        // SAFETY: as above.
        unsafe { self.raw().cuStreamAddCallback(stream, function as *mut c_void, pointer(id), 0) }
    }
}
