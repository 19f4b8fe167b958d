//! Rows of the table whose host side is written by hand: one file per spec file, one function per row, with the parameters of the
//! trait's method.
#![allow(unsafe_code)] // Calls the driver.
#![allow(non_snake_case)] // The driver's names.
#![allow(clippy::too_many_arguments)] // The driver's prototypes.

use protocol::status::{CuResult, Status};

pub mod array;
pub mod capture;
pub mod context;
pub mod device;
pub mod event;
pub mod function;
pub mod graph;
pub mod graph_node;
pub mod host_memory;
pub mod init;
pub mod internal;
pub mod ipc;
pub mod launch;
pub mod library;
pub mod logs;
pub mod memcpy_box;
pub mod memory;
pub mod memory_batch;
pub mod module;
pub mod pool;
pub mod pool_sharing;
pub mod resource;
pub mod stream;
pub mod tensor_map;
pub mod texref;
pub mod texture;
pub mod user_object;
pub mod vmm;

/// Writes through an out-pointer that must not be NULL.
pub fn put<T>(out: Option<&mut T>, value: T) -> CuResult {
    *out.ok_or(Status::INVALID_VALUE)? = value;
    Ok(())
}

/// Address and size of a variable, for a program that wants both, one or none of them.
fn give_variable(variable: (u64, u64), dptr: Option<&mut u64>, bytes: Option<&mut u64>) -> CuResult {
    if let Some(dptr) = dptr {
        *dptr = variable.0;
    }
    if let Some(bytes) = bytes {
        *bytes = variable.1;
    }
    Ok(())
}

/// Bytes of what another program has allocated, from an address on.
fn mapped_len(cuda: &crate::backend::cuda::CudaBackend, address: u64) -> u64 {
    let (mut base, mut len) = (0, 0);
    // SAFETY: the outputs are variables of the right types.
    let known = unsafe { cuda.raw().cuMemGetAddressRange_v2(&mut base, &mut len, address) };
    if known.is_ok() { base.saturating_add(len).saturating_sub(address) } else { 1 }
}
