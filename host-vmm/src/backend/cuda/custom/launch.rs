//! The internal operation of `spec/launch.rs`.

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::{half, word};
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// Bytes of one launch in the request.
const LAUNCH_LEN: usize = 48;

/// CUDA_LAUNCH_PARAMS.
#[repr(C)]
struct LaunchParams {
    function: u64,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: u64,
    params: *mut *mut core::ffi::c_void,
}

/// Places of the parameters of a function in its buffer.
fn layout(cuda: &CudaBackend, function: u64) -> CuResult<Vec<(usize, usize)>> {
    let mut places = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the outputs are variables of the right types; the handle is the driver's.
        let known =
            unsafe { cuda.raw().cuFuncGetParamInfo(function, places.len() as u64, &mut offset, &mut size) };
        match known {
            Ok(()) => places.push((offset as usize, size as usize)),
            // Beyond the last one.
            Err(Status::INVALID_VALUE) => return Ok(places),
            Err(status) => return Err(status),
        }
    }
}

pub fn launch_multi_device(
    cuda: &CudaBackend,
    _: &mut Call<'_>,
    count: u32,
    launches: Option<&[u8]>,
    params: Option<&[u8]>,
    flags: u32,
) -> CuResult {
    let launches = launches.ok_or(Status::INVALID_VALUE)?;
    let mut rest = params.unwrap_or_default();
    // Pointers into the request, one list per device; they stay where they are until the driver has returned.
    let mut lists: Vec<Vec<*mut core::ffi::c_void>> = Vec::new();
    let mut all = Vec::new();
    for launch in launches.chunks_exact(LAUNCH_LEN) {
        let function = cuda.inward(Kind::CUfunction, word(launch, 0))?;
        let word_at = |index: usize| half(launch, 8 + 4 * index);
        let len = (word_at(7) as usize).next_multiple_of(8);
        let (buffer, behind) = rest.split_at_checked(len).ok_or(Status::INVALID_VALUE)?;
        rest = behind;
        let mut list = Vec::new();
        for (offset, size) in layout(cuda, function)? {
            let param =
                buffer.get(offset..).and_then(|param| param.get(..size)).ok_or(Status::INVALID_VALUE)?;
            list.push(param.as_ptr().cast_mut().cast());
        }
        lists.push(list);
        all.push(LaunchParams {
            function,
            grid: [word_at(0), word_at(1), word_at(2)],
            block: [word_at(3), word_at(4), word_at(5)],
            shared_bytes: word_at(6),
            stream: cuda.inward(Kind::CUstream, word(launch, 40))?,
            params: core::ptr::null_mut(),
        });
    }
    if all.len() != count as usize {
        return Err(Status::INVALID_VALUE);
    }
    for (launch, list) in all.iter_mut().zip(&mut lists) {
        launch.params = list.as_mut_ptr();
    }
    // SAFETY: `count` structures as the driver expects them, each with a pointer to every parameter, which the driver only reads.
    unsafe { cuda.raw().cuLaunchCooperativeKernelMultiDevice(all.as_mut_ptr().cast(), count, flags) }
}
