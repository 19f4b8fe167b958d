//! The hand-written rows of `spec/library.rs`: managed variables are the backend's own.

use std::ffi::CStr;

use protocol::status::CuResult;

use super::give_variable;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::scalar;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn cuLibraryUnload(cuda: &CudaBackend, _: &mut Call<'_>, library: u64) -> CuResult {
    let (raw, dying) = cuda.dying(Kind::CUlibrary, library)?;
    // SAFETY: takes a handle of the driver.
    let result = unsafe { cuda.raw().cuLibraryUnload(raw) };
    cuda.settle(&result, [dying]);
    if result.is_ok() {
        cuda.unloaded(library);
    }
    result
}

pub fn cuLibraryGetGlobal(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytes: Option<&mut u64>,
    library: u64,
    name: Option<&CStr>,
) -> CuResult {
    let raw = cuda.inward(Kind::CUlibrary, library)?;
    if let Some(variable) = cuda.variable(call, library, name)? {
        // In a context, like other variables.
        cuda.current_device()?;
        return give_variable(variable, dptr, bytes);
    }
    let name = name.map_or(core::ptr::null(), CStr::as_ptr);
    // SAFETY: the outputs are variables of the right types, or NULL; the text ends with NUL, or is NULL.
    unsafe { cuda.raw().cuLibraryGetGlobal(scalar(dptr), scalar(bytes), raw, name) }
}

pub fn cuLibraryGetManaged(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    dptr: Option<&mut u64>,
    bytes: Option<&mut u64>,
    library: u64,
    name: Option<&CStr>,
) -> CuResult {
    let raw = cuda.inward(Kind::CUlibrary, library)?;
    if let Some(variable) = cuda.variable(call, library, name)? {
        return give_variable(variable, dptr, bytes);
    }
    let name = name.map_or(core::ptr::null(), CStr::as_ptr);
    // SAFETY: as above.
    unsafe { cuda.raw().cuLibraryGetManaged(scalar(dptr), scalar(bytes), raw, name) }
}
