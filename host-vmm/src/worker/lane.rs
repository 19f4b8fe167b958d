//! A lane's thread: takes requests, carries them out, answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::frame::{Flags, FrameHeader, Kind};
use protocol::handshake::LaneWelcome;
use protocol::lane::{LanePlacement, slot_at};
use protocol::ops;
use protocol::{Reader, Status, Writer};
use transport::{Connection, HostLane};

use super::Worker;
use crate::generated::dispatch::dispatch;
use crate::session::{Call, Lane, Latch, Piece};

/// Serves a lane until the program closes it.
pub fn run(worker: &Worker, id: u64, connection: Connection) {
    let window = &worker.session.window;
    let limits = &worker.limits;
    let mut placement = LanePlacement {
        offset: 0,
        request_ring_len: limits.request_ring_len,
        reply_ring_len: limits.reply_ring_len,
        staging_len: limits.staging_len,
    };
    let Some(block) = window.alloc_lane(placement.block_len()) else {
        tracing::warn!("no room in the window for another lane; raise --window");
        return;
    };
    placement.offset = window.offset(block).unwrap_or(0);
    let welcome =
        LaneWelcome { version: worker.version, lane: u32::try_from(id).unwrap_or(u32::MAX), placement };
    let mapped = Arc::clone(window.mapped());
    let (max_body, timeout) = (limits.max_body_len, super::ANSWER_TIMEOUT);
    let host = match &worker.streams {
        None => HostLane::welcome(connection, mapped, &welcome, max_body, timeout),
        Some(lanes) => HostLane::welcome_stream(connection, mapped, lanes, &welcome, max_body, timeout),
    };
    match host {
        Ok(mut host) => {
            worker.session.counters.lane(Arc::clone(host.traffic()));
            let latch = Arc::new(Latch::new(host.signals()));
            let staging = (window.address(placement.staging()), u64::from(placement.staging_len));
            let mut lane = Lane::new(id, staging, Arc::clone(&latch));
            serve(worker, &mut host, &mut lane);
            // Nobody may touch the block any more before it is given back.
            latch.close();
            drop(host);
            worker.backend.lane_closed(&lane);
        }
        Err(error) => tracing::info!(lane = id, %error, "a lane ended in its handshake"),
    }
    window.free(block);
}

/// Copies that have not arrived are looked at up to this many: on one stream they arrive in order, and every look is a call of the driver.
const LOOKED_AT: usize = 4;

/// Declares the slots of those staged copies free that have arrived; returns whether there were any.
fn finish(worker: &Worker, lane: &mut Lane, host: &HostLane) -> bool {
    let before = lane.in_flight.len();
    let mut waiting = 0;
    lane.in_flight.retain(|piece| {
        let arrived = waiting < LOOKED_AT && worker.backend.finished(piece.token);
        waiting += usize::from(!arrived);
        if arrived {
            host.complete_slot(piece.slot, piece.seq);
        }
        !arrived
    });
    lane.in_flight.len() < before
}

/// How long a lane spins for the end of staged copies: longer than a transfer takes. What takes longer waits for a kernel.
const SPIN: Duration = Duration::from_micros(60);
/// How long it then sleeps between two looks, unless a request comes.
const PAUSE: Duration = Duration::from_micros(50);

/// The next request; staged copies that arrive meanwhile are declared so.
fn next_while_copying(
    worker: &Worker,
    host: &mut HostLane,
    lane: &mut Lane,
    body: &mut Vec<u8>,
) -> Result<Option<FrameHeader>, transport::Error> {
    let mut since = Instant::now();
    loop {
        // Requests go first: a program that posts many must not wait for as many looks.
        if let Some(header) = host.poll(body)? {
            return Ok(Some(header));
        }
        if finish(worker, lane, host) {
            if lane.in_flight.is_empty() {
                return host.next(body);
            }
            since = Instant::now();
        }
        if since.elapsed() > SPIN
            && let Some(header) = host.poll_for(body, PAUSE)?
        {
            return Ok(Some(header));
        }
    }
}

/// Which word of a request's body is an offset in the staging area, for operations that use it.
fn staging_word(op: u16) -> Option<usize> {
    match op {
        // After the hash, with its length word, and the offset in the image.
        ops::image_chunk => Some(6),
        // After the hash and the offset in the image.
        ops::image_read => Some(5),
        // After address and pitch.
        ops::stage_in | ops::stage_in_last | ops::stage_out | ops::stage_out_last => Some(2),
        // After the place, with its length word.
        ops::stage_box_in | ops::stage_box_in_last | ops::stage_box_out | ops::stage_box_out_last => Some(9),
        _ => None,
    }
}

/// The slot of the staging area that a request uses.
fn slot_of(op: u16, body: &[u8], staging_len: u64) -> Option<u64> {
    let start = staging_word(op)? * 8;
    let offset = body.get(start..)?.first_chunk().map(|word| u64::from_le_bytes(*word))?;
    slot_at(staging_len, offset)
}

fn serve(worker: &Worker, host: &mut HostLane, lane: &mut Lane) {
    let counters = &worker.session.counters;
    let timing = worker.session.config.timing;
    let max_body = worker.limits.max_body_len as usize;
    let mut body = Vec::new();
    let mut reply = Vec::new();
    loop {
        let next = if lane.in_flight.is_empty() {
            host.next(&mut body)
        } else {
            next_while_copying(worker, host, lane, &mut body)
        };
        let header = match next {
            Ok(Some(header)) => header,
            Ok(None) => return,
            Err(error) if error.is_violation() => worker.malformed(&format!("lane {}: {error}", lane.id)),
            Err(error) => {
                tracing::warn!(lane = lane.id, %error, "a lane failed");
                return;
            }
        };
        let begin = timing.then(Instant::now);
        let mut call =
            Call { session: &worker.session, lane, max_body, device_output: false, in_flight: None };
        let mut writer = Writer::new(&mut reply);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            dispatch(&*worker.backend, &mut call, header.op, &mut Reader::new(&body), &mut writer)
        }));
        let (device_output, in_flight) = (call.device_output, call.in_flight);
        let mut status = match outcome {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => {
                let name = protocol::ops::by_opcode(header.op).map_or("unknown operation", |info| info.name);
                worker.malformed(&format!("lane {}, {name} ({:#06x}): {error}", lane.id, header.op))
            }
            // The panic has been printed with its place. The program sees an error of the host, and goes on.
            Err(_) => Status::UNKNOWN,
        };
        if header.kind == Kind::POSTED && !status.is_success() {
            tracing::debug!(
                lane = lane.id,
                op = protocol::ops::by_opcode(header.op).map_or("?", |info| info.name),
                status = status.0,
                "a posted call failed"
            );
            host.latch(status);
        }
        // Also for answered requests: the program waits for the number before it reads or reuses their part of the staging area. Not
        // before the latch: who has waited sees the error.
        if let Some(slot) = slot_of(header.op, &body, lane.staging.1) {
            match in_flight {
                Some(token) => lane.in_flight.push(Piece { slot, seq: header.seq, token }),
                None => host.complete_slot(slot, header.seq),
            }
        }
        host.complete(header.seq);
        if header.kind == Kind::SYNC {
            if status.is_success() && reply.len() > max_body {
                tracing::warn!(op = header.op, len = reply.len(), "a reply is too long for its frame");
                status = Status::INVALID_VALUE;
            }
            let answer: &[u8] = if status.is_success() { &reply } else { &[] };
            // A call that fails because of a fault also tells of what the kernel said about it.
            let device_output = device_output || (!status.is_success() && worker.backend.output_pending());
            let mut flags = if device_output { Flags::DEVICE_OUTPUT } else { Flags::NONE };
            if worker.backend.may_print() {
                flags = flags.union(Flags::MAY_PRINT);
            }
            if let Err(error) = host.reply(&header, status, flags, answer) {
                if error.is_violation() {
                    worker.malformed(&format!("lane {}: {error}", lane.id));
                }
                tracing::debug!(lane = lane.id, %error, "a lane's reply cannot be sent");
                return;
            }
        }
        let nanos = begin.map_or(0, |begin| u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        counters.op(header.op, (body.len() + reply.len()) as u64, nanos);
    }
}
