//! The hand-written rows of `spec/event.rs`.

use protocol::status::{CuResult, Status};

use crate::backend::cuda::CudaBackend;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

pub fn cuEventSynchronize(cuda: &CudaBackend, call: &mut Call<'_>, hEvent: u64) -> CuResult {
    let event = cuda.inward(Kind::CUevent, hEvent)?;
    // SAFETY: takes a handle of the driver.
    let result = unsafe { cuda.raw().cuEventSynchronize(event) };
    cuda.flushed(call);
    result
}

/// What cannot be entered is refused before the driver makes it.
pub fn event_create(cuda: &CudaBackend, call: &mut Call<'_>, event: u64, flags: u32) -> CuResult {
    cuda.room()?;
    cuda.handles.may_name(event).map_err(|_| Status::INVALID_VALUE)?;
    let mut raw = 0;
    // SAFETY: the event is the driver's to write.
    unsafe { cuda.raw().cuEventCreate(&mut raw, flags) }?;
    let entered = cuda.handles.enter_named(event, Kind::CUevent, raw, call.lane.context);
    entered.map_err(|_| {
        // Another lane was faster.
        // SAFETY: a handle of the driver that nobody else has.
        let _ = unsafe { cuda.raw().cuEventDestroy_v2(raw) };
        Status::INVALID_VALUE
    })
}
