//! The hand-written rows of `spec/device.rs`.

use protocol::status::CuResult;

use super::put;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::scalar;
use crate::session::Call;

/// `CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS` and `.._USES_HOST_PAGE_TABLES`: pageable memory is the program's, which the device does not see.
const PAGEABLE_MEMORY_ACCESS: u32 = 88;
const PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES: u32 = 100;

pub fn cuDeviceGetAttribute(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    pi: Option<&mut i32>,
    attrib: u32,
    dev: i32,
) -> CuResult {
    let mut value = 0;
    let present = pi.is_some();
    // SAFETY: the output is a variable of the right type, or NULL.
    unsafe { cuda.raw().cuDeviceGetAttribute(scalar(present.then_some(&mut value)), attrib, dev) }?;
    if matches!(attrib, PAGEABLE_MEMORY_ACCESS | PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES) {
        value = 0;
    }
    put(pi, value)
}
