//! Copies between the program's pageable memory and the device: through the lane's staging area, which is registered with the driver, so that the
//! device reads and writes it by itself. An event per piece says when its part of the area may be used again.
#![allow(unsafe_code)] // Calls the driver.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use protocol::status::{CuResult, Status};

use super::CudaBackend;
use super::buffer::pointer;
use crate::session::Call;

/// `CU_MEMHOSTREGISTER_PORTABLE | DEVICEMAP`: for all contexts, and kernels reach it too.
pub const REGISTER: u32 = 3;
/// `CU_EVENT_DISABLE_TIMING`.
const EVENT_FLAGS: u32 = 2;
/// `CU_MEMORYTYPE_UNIFIED`.
const UNIFIED: u32 = 4;
/// Bytes of a CUDA_MEMCPY2D.
const COPY_2D_LEN: usize = 128;

#[derive(Default)]
struct Pool {
    /// Events that are not in use, by the id of their context.
    free: HashMap<u64, Vec<u64>>,
    /// The context of each event in use.
    used: HashMap<u64, u64>,
}

/// Events for pieces of copies. Each belongs to a context, and goes with it.
#[derive(Default)]
pub struct Events {
    pool: Mutex<Pool>,
}

impl Events {
    /// A context has gone.
    pub fn context_gone(&self, context: u64) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.free.remove(&context);
        pool.used.retain(|_, of| *of != context);
    }
}

/// `height` rows of `width` bytes from one address to another.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub dst: u64,
    pub dst_pitch: u64,
    pub src: u64,
    pub src_pitch: u64,
    pub width: u64,
    pub height: u64,
}

impl Rows {
    /// Bytes from the first to the last one with this pitch.
    ///
    /// # Errors
    /// INVALID_VALUE if that is no number.
    pub fn span(&self, pitch: u64) -> CuResult<u64> {
        let rows = self.height.saturating_sub(1).checked_mul(pitch);
        rows.and_then(|rows| rows.checked_add(self.width)).ok_or(Status::INVALID_VALUE)
    }
}

impl CudaBackend {
    /// Queues a copy between addresses that have been checked. `stream` is the driver's.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn copy_rows(&self, rows: &Rows, stream: u64) -> CuResult {
        let Rows { dst, dst_pitch, src, src_pitch, width, height } = *rows;
        if height == 1 || (dst_pitch == width && src_pitch == width) {
            let len = width.checked_mul(height).ok_or(Status::INVALID_VALUE)?;
            // SAFETY: both addresses are the session's memory or its staging area, or the driver refuses them.
            return unsafe { self.raw().cuMemcpyAsync(dst, src, len, stream) };
        }
        // CUDA_MEMCPY2D: srcXInBytes, srcY, srcMemoryType, srcHost, srcDevice, srcArray, srcPitch, the same for dst, WidthInBytes, Height.
        let mut copy = [0u64; COPY_2D_LEN / 8];
        (copy[2], copy[4], copy[6]) = (UNIFIED.into(), src, src_pitch);
        (copy[9], copy[11], copy[13]) = (UNIFIED.into(), dst, dst_pitch);
        (copy[14], copy[15]) = (width, height);
        // SAFETY: the structure is as the driver expects it; the addresses are as above.
        let result = unsafe { self.raw().cuMemcpy2DAsync_v2(copy.as_ptr().cast(), stream) };
        // Pitches beyond the device's limit: row by row.
        if result != Err(Status::INVALID_VALUE) || dst_pitch < width || src_pitch < width {
            return result;
        }
        for row in 0..height {
            let (dst, src) = (dst + row * dst_pitch, src + row * src_pitch);
            // SAFETY: as above; the rows lie within the spans that have been checked.
            unsafe { self.raw().cuMemcpyAsync(dst, src, width, stream) }?;
        }
        Ok(())
    }

    /// One piece of a staged copy. `last`: the call is answered when the whole copy has arrived.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn stage(&self, call: &mut Call<'_>, rows: &Rows, stream: u64, last: bool) -> CuResult {
        self.staged(call, stream, last, || self.copy_rows(rows, stream))
    }

    /// As [`CudaBackend::stage`], for a piece that `copy` queues.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn staged(
        &self,
        call: &mut Call<'_>,
        stream: u64,
        last: bool,
        copy: impl FnOnce() -> CuResult,
    ) -> CuResult {
        self.register_staging(call);
        copy()?;
        if last {
            // SAFETY: takes a handle of the driver.
            let result = unsafe { self.raw().cuStreamSynchronize(stream) };
            self.flushed(call);
            return result;
        }
        match self.unobserved(|| self.mark(call.lane.context, stream)) {
            Ok(event) => {
                call.in_flight = Some(event);
                Ok(())
            }
            // Without an event the copy has to be waited for here.
            // SAFETY: takes a handle of the driver.
            Err(_) => unsafe { self.raw().cuStreamSynchronize(stream) },
        }
    }

    /// Makes calls of the worker's own that a stream capture of the program does not forbid, and that do not end it.
    pub(super) fn unobserved<R>(&self, calls: impl FnOnce() -> R) -> R {
        /// `CU_STREAM_CAPTURE_MODE_RELAXED`
        const RELAXED: u32 = 2;
        let mut mode = RELAXED;
        // SAFETY: the value is a variable of the right type, exchanged with that of this thread.
        let exchanged = unsafe { self.raw().cuThreadExchangeStreamCaptureMode(&mut mode) };
        let result = calls();
        if exchanged.is_ok() {
            // SAFETY: as above.
            let _ = unsafe { self.raw().cuThreadExchangeStreamCaptureMode(&mut mode) };
        }
        result
    }

    /// Records an event behind what has been queued.
    pub(super) fn mark(&self, context: u64, stream: u64) -> CuResult<u64> {
        let free = {
            let mut pool = self.events.pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.free.get_mut(&context).and_then(Vec::pop)
        };
        let mut event = free.unwrap_or(0);
        if event == 0 {
            // SAFETY: the output is a variable of the right type.
            unsafe { self.raw().cuEventCreate(&mut event, EVENT_FLAGS) }?;
        }
        // SAFETY: takes handles of the driver.
        if let Err(status) = unsafe { self.raw().cuEventRecord(event, stream) } {
            // Of another context than the stream: not to be used again.
            // SAFETY: as above.
            let _ = unsafe { self.raw().cuEventDestroy_v2(event) };
            return Err(status);
        }
        self.events.pool.lock().unwrap_or_else(PoisonError::into_inner).used.insert(event, context);
        Ok(event)
    }

    /// Whether the piece that an event marks has arrived; then the event is free again.
    pub fn arrived(&self, event: u64) -> bool {
        let mut pool = self.events.pool.lock().unwrap_or_else(PoisonError::into_inner);
        // Its context has gone, and the event with it.
        let Some(context) = pool.used.get(&event).copied() else { return true };
        drop(pool);
        // SAFETY: takes a handle of the driver.
        if self.unobserved(|| unsafe { self.raw().cuEventQuery(event) }) == Err(Status::NOT_READY) {
            return false;
        }
        pool = self.events.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.used.remove(&event).is_some() {
            pool.free.entry(context).or_default().push(event);
        }
        true
    }

    /// Makes the lane's staging area known to the driver, once for each life of the contexts.
    pub(super) fn register_staging(&self, call: &mut Call<'_>) {
        let epoch = self.epoch();
        if call.lane.staging_epoch == epoch {
            return;
        }
        let (address, len) = call.lane.staging;
        // SAFETY: the staging area is mapped for the life of the process and belongs to this lane.
        let result =
            self.unobserved(|| unsafe { self.raw().cuMemHostRegister_v2(pointer(address), len, REGISTER) });
        // Without a context the copy fails as well; the next one may have one.
        if !matches!(result, Err(Status::INVALID_CONTEXT | Status::CONTEXT_IS_DESTROYED)) {
            call.lane.staging_epoch = epoch;
        }
        // It works without, only slower: no log for what a program without a context causes.
        if let Err(status) = result {
            tracing::debug!(lane = call.lane.id, error = status.0, "the staging area is not registered");
        }
    }

    /// Ends the registration when the lane ends: its part of the window is used again.
    pub fn unregister_staging(&self, address: u64) {
        // SAFETY: nothing uses the staging area of a lane that has ended; what is not registered is refused.
        let _ = unsafe { self.raw().cuMemHostUnregister(pointer(address)) };
    }
}
