//! Copies and fills in stream order.
#![allow(unsafe_code)] // Device memory is named by its address.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::status::{CuResult, Status};
use ptx_cpu::region::{Region, RegionError};
use transport::movers;

use super::CpuBackend;
use super::context::Live;
use super::memory::{Rows, copy_rows};
use super::stream::Target;
use crate::session::Call;
use crate::worker::guest_memory::Direction;

/// Copies and fills up to this many bytes are short: the lane's thread does them itself when their stream is idle.
const SHORT: u64 = 256 << 10;

/// Bytes that one thread moves at a time.
const CHUNK: u64 = 1 << 20;

/// What to fill with.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    U8(u8),
    U16(u16),
    U32(u32),
}

impl Value {
    fn size(self) -> u64 {
        match self {
            Self::U8(_) => 1,
            Self::U16(_) => 2,
            Self::U32(_) => 4,
        }
    }

    fn fill(self, region: &Region, dst: u64, count: u64) -> Result<(), RegionError> {
        match self {
            Self::U8(value) => region.fill8(dst, value, count),
            Self::U16(value) => region.fill16(dst, value, count),
            Self::U32(value) => region.fill32(dst, value, count),
        }
    }
}

/// A rectangle to fill: elements per row, rows, bytes from row to row.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    pub dst: u64,
    pub pitch: u64,
    pub width: u64,
    pub height: u64,
}

impl CpuBackend {
    /// Checks both rectangles of a copy.
    fn check_rows(&self, dst: u64, src: u64, rows: &Rows) -> CuResult<u64> {
        let dst_span = Rows::span(rows.width, rows.height, rows.dst_pitch).ok_or(Status::INVALID_VALUE)?;
        let src_span = Rows::span(rows.width, rows.height, rows.src_pitch).ok_or(Status::INVALID_VALUE)?;
        self.memory.check(dst, dst_span)?;
        self.memory.check(src, src_span)?;
        Ok(rows.width * rows.height)
    }

    /// A copy within the region, not waited for.
    pub(super) fn copy_rows(&self, call: &Call<'_>, dst: u64, src: u64, rows: Rows, stream: u64) -> CuResult {
        let target = self.target(call, stream)?;
        let bytes = self.check_rows(dst, src, &rows)?;
        if bytes == 0 {
            return Ok(());
        }
        call.session.counters.bytes_within.fetch_add(bytes, Ordering::Relaxed);
        self.queue(&target, bytes, move |region| copy_rows(region, dst, src, &rows))
    }

    /// A piece of a copy from or to the lane's staging area; it has been carried out when this returns.
    pub(super) fn stage(&self, call: &mut Call<'_>, dst: u64, src: u64, rows: Rows, stream: u64) -> CuResult {
        let target = self.target(call, stream)?;
        if self.check_rows(dst, src, &rows)? > 0 {
            let work = self.region_work(&target.live, move |region| copy_rows(region, dst, src, &rows));
            let ticket = self.submit_short(&target, Vec::new(), Some(work))?;
            self.scheduler.wait(ticket);
        }
        self.after_wait(call, &target.live)
    }

    /// A copy to the lane's staging area that the program sees arrive; it has been carried out when this returns.
    pub(super) fn stage_watched(
        &self,
        call: &mut Call<'_>,
        dst: u64,
        src: u64,
        len: u64,
        stream: u64,
    ) -> CuResult {
        let target = self.target(call, stream)?;
        self.memory.check(dst, len)?;
        self.memory.check(src, len)?;
        if !(dst | src | len).is_multiple_of(4) {
            return Err(Status::INVALID_VALUE);
        }
        if len > 0 {
            let work = self.region_work(&target.live, move |region| region.copy_words(dst, src, len));
            let ticket = self.submit_short(&target, Vec::new(), Some(work))?;
            self.scheduler.wait(ticket);
        }
        self.after_wait(call, &target.live)
    }

    /// A copy between the region and memory that the program lends (number, length, offset in it); it has been carried out when this returns.
    pub(super) fn lent(
        &self,
        call: &mut Call<'_>,
        (number, lent_len, offset): (u64, u64, u64),
        direction: Direction,
        address: u64,
        len: u64,
        stream: u64,
    ) -> CuResult {
        let lent = call.session.window.lend(number, lent_len)?;
        lent.memory.check(offset, len)?;
        let target = self.target(call, stream)?;
        self.memory.check(address, len)?;
        if len > 0 {
            let work = self.region_work(&target.live, move |region| {
                let pin = region.pin(address, len)?;
                let memory = pin.as_ptr().expose_provenance();
                let move_chunk = |chunk: usize| {
                    let at = chunk as u64 * CHUNK;
                    let place = core::ptr::with_exposed_provenance_mut(memory + at as usize);
                    // SAFETY: device memory is pinned, and the copy bears that window memory goes; no reference points into either.
                    unsafe { lent.memory.copy(direction, offset + at, place, CHUNK.min(len - at)) }
                };
                let chunks = len.div_ceil(CHUNK) as usize;
                let moved =
                    movers::run(chunks, movers::helpers(len, movers::processors()), &move_chunk, |moving| {
                        moving.allow(chunks);
                        (0..chunks).try_for_each(|chunk| moving.wait(chunk))
                    });
                moved.map_err(|error| {
                    tracing::warn!(%error, "memory that was lent");
                    RegionError::InvalidRange { address, len }
                })
            });
            let ticket = self.submit_short(&target, Vec::new(), Some(work))?;
            self.scheduler.wait(ticket);
        }
        self.after_wait(call, &target.live)
    }

    /// A fill, not waited for.
    pub(super) fn fill(&self, call: &Call<'_>, area: Area, value: Value, stream: u64) -> CuResult {
        let target = self.target(call, stream)?;
        let width = area.width.checked_mul(value.size()).ok_or(Status::INVALID_VALUE)?;
        let span = Rows::span(width, area.height, area.pitch).ok_or(Status::INVALID_VALUE)?;
        let aligned = area.dst.is_multiple_of(value.size())
            && (area.height <= 1 || area.pitch.is_multiple_of(value.size()));
        if !aligned {
            return Err(Status::INVALID_VALUE);
        }
        self.memory.check(area.dst, span)?;
        if span == 0 {
            return Ok(());
        }
        self.queue(&target, width * area.height, move |region| {
            if area.height == 1 || area.pitch == width {
                return value.fill(region, area.dst, area.width * area.height);
            }
            (0..area.height).try_for_each(|row| value.fill(region, area.dst + row * area.pitch, area.width))
        })
    }

    /// A fill of one row, not waited for.
    pub(super) fn fill_row(
        &self,
        call: &Call<'_>,
        dst: u64,
        count: u64,
        value: Value,
        stream: u64,
    ) -> CuResult {
        self.fill(call, Area { dst, pitch: 0, width: count, height: 1 }, value, stream)
    }

    /// Queues work on the region: short work runs at once on this thread if nothing is before it.
    fn queue(
        &self,
        target: &Target,
        bytes: u64,
        work: impl FnOnce(&Region) -> Result<(), RegionError> + Send + 'static,
    ) -> CuResult {
        let work = self.region_work(&target.live, work);
        if bytes <= SHORT {
            self.submit_short(target, Vec::new(), Some(work)).map(drop)
        } else {
            self.submit(target, Vec::new(), work).map(drop)
        }
    }

    /// Work that fails the context if memory is gone by the time it runs: the program freed what a copy in flight uses.
    fn region_work(
        &self,
        live: &Arc<Live>,
        work: impl FnOnce(&Region) -> Result<(), RegionError> + Send + 'static,
    ) -> super::sched::Work {
        let region = Arc::clone(self.memory.region());
        let live = Arc::clone(live);
        Box::new(move |skip| {
            if skip {
                return;
            }
            if let Err(error) = work(&region) {
                tracing::warn!(%error, "a copy failed");
                live.fail(Status::ILLEGAL_ADDRESS);
            }
        })
    }
}
