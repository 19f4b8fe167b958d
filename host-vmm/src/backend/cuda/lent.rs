//! Copies between the device and memory that the program lends: by way of the lane's staging area, which is registered with the driver, and which nobody else uses
//! while the program waits for this call. Threads move bytes between the area and the lent memory while the device reads or writes other parts of the area.
//!
//! The machine's files are mapped here as a whole at the first such copy, and stay so: touching pages that are mapped already is several times as fast as anything else. This is the
//! memory of all programs of the machine, so nothing of a program may reach it:
//! * it lies where neither the session's region nor the driver has addresses ([`super::space::Space::set_aside`]), and no address is passed to the driver that is not the session's
//!   own memory ([`super::memory`]);
//! * the device does not reach it, as it is not registered; where the device reaches all memory of a process (CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS), it is not mapped;
//! * the worker has the descriptors of the files in any case: who takes it over gains nothing by the mapping.
#![allow(unsafe_code)] // Calls the driver; the staging area is named by its address.

use std::io;
use std::sync::Arc;

use protocol::status::{CuResult, Status};
use transport::movers::{self, Moving};

use super::CudaBackend;
use super::staging::Rows;
use crate::session::Call;
use crate::worker::guest_memory::{Direction, Scattered, Whole};

/// The staging area is used in this many parts: while the device is at one and threads at the next, there is one to spare on either side.
const PARTS: usize = 4;
/// Chunks of a part: enough for every thread to have one.
const PER_PART: usize = 4;

/// `CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS`.
const PAGEABLE_MEMORY_ACCESS: u32 = 88;

/// A copy in chunks, each of which has a place in the staging area.
struct Plan<'p> {
    device: u64,
    staging: u64,
    /// Bytes of a chunk; the last one may be shorter.
    chunk: u64,
    chunks: usize,
    len: u64,
    stream: u64,
    call: &'p Call<'p>,
}

impl Plan<'_> {
    fn chunk_len(&self, chunk: usize) -> u64 {
        self.chunk.min(self.len - chunk as u64 * self.chunk)
    }

    fn place_of(&self, chunk: usize) -> u64 {
        self.staging + (chunk % (PARTS * PER_PART)) as u64 * self.chunk
    }

    /// The chunks of a part, of which the block has more than the area.
    fn part(&self, part: usize) -> std::ops::Range<usize> {
        let start = part * PER_PART;
        start.min(self.chunks)..(start + PER_PART).min(self.chunks)
    }

    fn parts(&self) -> usize {
        self.chunks.div_ceil(PER_PART)
    }
}

/// Of the machine's files: they are gone, or shorter than the machine's memory.
fn lost(error: io::Error) -> Status {
    tracing::warn!(%error, "memory that was lent");
    Status::INVALID_VALUE
}

impl CudaBackend {
    /// Lets copies of lent memory go by way of the mapped files, if they may be mapped.
    pub fn map_whole(&self, lent: &mut Scattered) {
        let whole = self.whole.get_or_init(|| {
            if self.reaches_pageable_memory() {
                tracing::debug!("a device reaches pageable memory: the machine's files are not mapped");
                return None;
            }
            let whole = Whole::map(lent.files(), |len| self.space.set_aside(len, Whole::ALIGN));
            Some(Arc::new(whole))
        });
        if let Some(whole) = whole {
            lent.use_whole(Arc::clone(whole));
        }
    }

    /// Whether kernels reach what is merely mapped in this process, with some device; also if the driver does not say.
    fn reaches_pageable_memory(&self) -> bool {
        let reaches = |device: i32| {
            let mut reaches = 1;
            // SAFETY: the output is a variable of the right type.
            let known =
                unsafe { self.raw().cuDeviceGetAttribute(&mut reaches, PAGEABLE_MEMORY_ACCESS, device) };
            known.is_err() || reaches != 0
        };
        self.count().map_or(true, |count| (0..count).any(reaches))
    }

    /// A copy between device memory and `len` bytes at an offset of lent memory; it has been carried out when this returns. `stream` is the driver's.
    ///
    /// # Errors
    /// INVALID_VALUE for what is not the session's memory, those of the driver.
    pub fn copy_lent(
        &self,
        call: &mut Call<'_>,
        (lent, offset): (&Scattered, u64),
        direction: Direction,
        device: u64,
        len: u64,
        stream: u64,
    ) -> CuResult {
        lent.check(offset, len)?;
        self.range(device, len)?;
        self.register_staging(call);
        let (staging, staging_len) = call.lane.staging;
        let chunk = (staging_len / (PARTS * PER_PART) as u64) & !(protocol::lane::PAGE_LEN - 1);
        if len == 0 || chunk == 0 {
            return if len == 0 { Ok(()) } else { Err(Status::OUT_OF_MEMORY) };
        }
        let chunks = usize::try_from(len.div_ceil(chunk)).map_err(|_| Status::INVALID_VALUE)?;
        let plan = Plan { device, staging, chunk, chunks, len, stream, call };
        let move_chunk = |chunk: usize| {
            let place = core::ptr::with_exposed_provenance_mut(plan.place_of(chunk) as usize);
            let at = offset + chunk as u64 * plan.chunk;
            // SAFETY: the place lies in the lane's staging area, which is mapped for the life of the process; no reference points into it. The program may write it
            // meanwhile, and spoils its own copy.
            unsafe { lent.copy(direction, at, place, plan.chunk_len(chunk)) }
        };
        let mut queued = Vec::with_capacity(plan.parts());
        let result = movers::run(chunks, movers::helpers(len, movers::processors()), &move_chunk, |moving| {
            match direction {
                Direction::Read => self.fill_device(&plan, moving, &mut queued),
                Direction::Write => self.drain_device(&plan, moving, &mut queued),
            }
        });
        // Whatever came of it: the device does not use the staging area any more.
        // SAFETY: takes a handle of the driver.
        let synchronized = unsafe { self.raw().cuStreamSynchronize(stream) };
        queued.into_iter().flatten().for_each(|event| _ = self.arrived(event));
        result.and(synchronized)
    }

    fn fill_device(&self, plan: &Plan<'_>, moving: &Moving<'_>, queued: &mut Vec<Option<u64>>) -> CuResult {
        moving.allow(plan.part(PARTS).start);
        for part in 0..plan.parts() {
            for chunk in plan.part(part) {
                moving.wait(chunk).map_err(lost)?;
                let at = plan.device + chunk as u64 * plan.chunk;
                self.copy_line(at, plan.place_of(chunk), plan.chunk_len(chunk), plan.stream)?;
            }
            queued.push(self.mark_or_wait(plan)?);
            // The device is at most a part behind when threads may go on with the places of the one before.
            if let Some(before) = part.checked_sub(1) {
                self.reached(queued, before)?;
                moving.allow(plan.part(before + PARTS).end);
            }
        }
        Ok(())
    }

    fn drain_device(&self, plan: &Plan<'_>, moving: &Moving<'_>, queued: &mut Vec<Option<u64>>) -> CuResult {
        let queue = |part: usize, queued: &mut Vec<Option<u64>>| -> CuResult {
            for chunk in plan.part(part) {
                let at = plan.device + chunk as u64 * plan.chunk;
                self.copy_line(plan.place_of(chunk), at, plan.chunk_len(chunk), plan.stream)?;
            }
            queued.push(self.mark_or_wait(plan)?);
            Ok(())
        };
        (0..PARTS.min(plan.parts())).try_for_each(|part| queue(part, queued))?;
        for part in 0..plan.parts() {
            self.reached(queued, part)?;
            moving.allow(plan.part(part).end);
            // While threads are at this part, the places of the one before are used again.
            if let Some(before) = part.checked_sub(1) {
                plan.part(before).try_for_each(|chunk| moving.wait(chunk)).map_err(lost)?;
                if before + PARTS < plan.parts() {
                    queue(before + PARTS, queued)?;
                }
            }
        }
        (0..plan.chunks).rev().try_for_each(|chunk| moving.wait(chunk)).map_err(lost)
    }

    fn copy_line(&self, dst: u64, src: u64, len: u64, stream: u64) -> CuResult {
        self.copy_rows(&Rows { dst, dst_pitch: len, src, src_pitch: len, width: len, height: 1 }, stream)
    }

    /// An event behind what has been queued; none if that is over already.
    fn mark_or_wait(&self, plan: &Plan<'_>) -> CuResult<Option<u64>> {
        match self.unobserved(|| self.mark(plan.call.lane.context, plan.stream)) {
            Ok(event) => Ok(Some(event)),
            // SAFETY: takes a handle of the driver.
            Err(_) => unsafe { self.raw().cuStreamSynchronize(plan.stream) }.map(|()| None),
        }
    }

    /// Waits until the device is done with a part, whose event is free then.
    fn reached(&self, queued: &mut [Option<u64>], part: usize) -> CuResult {
        let Some(event) = queued.get_mut(part).and_then(Option::take) else { return Ok(()) };
        // SAFETY: takes a handle of the driver.
        let result = self.unobserved(|| unsafe { self.raw().cuEventSynchronize(event) });
        self.arrived(event);
        result
    }
}
