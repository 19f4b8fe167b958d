//! The path of every call: the guard at the C boundary, tracing, and the exchange with the host.

use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use protocol::Flags;
use protocol::ops::{self, OpInfo};
use protocol::status::{CuResult, Status};
use protocol::wire::{Reader, WireError, Writer};

use crate::custom::capture;
use crate::idle::QUERIES;
use crate::log::{self, Level};
use crate::process::process;
use crate::types::CUresult;
use crate::{output, profile, sticky, thread};

/// Arguments of a traced call, formatted as `name=value`.
#[derive(Default)]
pub struct Args {
    text: String,
}

impl Args {
    /// Adds an argument.
    pub fn arg(&mut self, name: &str, value: impl TraceArg) {
        if !self.text.is_empty() {
            self.text.push_str(", ");
        }
        let _ = write!(self.text, "{name}=");
        let _ = value.trace(&mut self.text);
    }
}

/// How an argument is printed: pointers in hexadecimal, numbers in decimal.
pub trait TraceArg {
    fn trace(self, out: &mut String) -> fmt::Result;
}

macro_rules! decimal {
    ($($ty:ty)*) => { $(
        impl TraceArg for $ty {
            fn trace(self, out: &mut String) -> fmt::Result {
                // Values that look like addresses are read more easily in hexadecimal.
                if i128::from(self as i64) > 0xffff_ffff { write!(out, "{self:#x}") } else { write!(out, "{self}") }
            }
        }
    )* };
}

decimal!(u8 u16 u32 u64 usize i32 i64);

impl TraceArg for f32 {
    fn trace(self, out: &mut String) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl<T> TraceArg for *const T {
    fn trace(self, out: &mut String) -> fmt::Result {
        if self.is_null() { out.write_str("NULL") } else { write!(out, "{:#x}", self.addr()) }
    }
}

impl<T> TraceArg for *mut T {
    fn trace(self, out: &mut String) -> fmt::Result {
        self.cast_const().trace(out)
    }
}

/// Any other argument (function pointers): only that it is there.
impl<T> TraceArg for Option<T> {
    fn trace(self, out: &mut String) -> fmt::Result {
        out.write_str(if self.is_some() { "<function>" } else { "NULL" })
    }
}

/// Runs the body of an exported function: nothing unwinds out of it, and it is traced on request.
#[inline]
pub fn entry(
    info: &'static OpInfo,
    args: impl FnOnce(&mut Args),
    body: impl FnOnce() -> CuResult,
) -> CUresult {
    if log::enabled(Level::Trace) {
        return traced(info.name, args, body);
    }
    if profile::on() {
        return profile::call(info, || guarded(info.name, body));
    }
    guarded(info.name, body)
}

/// As [`entry`], for a slot of a private table.
pub fn private_entry(name: &'static str, body: impl FnOnce() -> CuResult) -> CUresult {
    if log::enabled(Level::Trace) {
        return traced(name, |_| {}, body);
    }
    guarded(name, body)
}

#[inline]
fn guarded(name: &'static str, body: impl FnOnce() -> CuResult) -> CUresult {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(status)) => capture::instead(name, sticky::instead(name, status)).0,
        Err(_) => {
            crate::log!(Error, "{name}: internal error (panic); please report it");
            Status::UNKNOWN.0
        }
    }
}

#[cold]
fn traced(name: &'static str, args: impl FnOnce(&mut Args), body: impl FnOnce() -> CuResult) -> CUresult {
    let mut text = Args::default();
    args(&mut text);
    let started = Instant::now();
    let result = guarded(name, body);
    let elapsed = started.elapsed();
    crate::log!(Trace, "{name}({}) = {} [{:.1?}]", text.text, Status(result).name().unwrap_or("?"), elapsed);
    result
}

/// Answers a call that this library does not handle; says so once per name.
#[cold]
pub fn unhandled(name: &'static str, reason: &str) -> CUresult {
    static SAID: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    if log::enabled(Level::Warn) {
        let mut said = SAID.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !said.contains(&name) {
            said.push(name);
            crate::log!(Warn, "{name} is not supported ({reason}): CUDA_ERROR_NOT_SUPPORTED");
        }
    }
    Status::NOT_SUPPORTED.0
}

/// Sends an operation and waits for its reply.
pub fn sync(
    op: u16,
    encode: impl FnOnce(&mut Writer<'_>),
    decode: impl FnOnce(&mut Reader<'_>) -> Result<(), WireError>,
) -> CuResult {
    sync_beside(op, encode, decode, || ())
}

/// As [`sync`]; `beside` runs while the host carries the operation out, and does nothing that asks the host. It is not run if the operation cannot be sent.
///
/// The thread counts as in the call all the while: a signal handler of the program that calls the driver gets an error, and nothing comes between request and reply.
#[inline]
pub fn sync_beside(
    op: u16,
    encode: impl FnOnce(&mut Writer<'_>),
    decode: impl FnOnce(&mut Reader<'_>) -> Result<(), WireError>,
    beside: impl FnOnce(),
) -> CuResult {
    let (result, flags) = thread::with(|thread| {
        let lane = thread.lane()?;
        let (status, flags) = lane.call_beside(op, encode, beside)?;
        let latched = lane.take_latched();
        let queries = QUERIES.contains(&op);
        let result = match (status, latched) {
            // "This function may also return error codes from previous, asynchronous launches."
            (Status::SUCCESS, Some(earlier)) => Err(earlier),
            (Status::SUCCESS, None) => decode_reply(op, lane.reply(), decode),
            (status, _) => Err(status),
        };
        if !queries {
            thread.asked();
        }
        Ok((result, flags))
    })?;
    if flags.contains(Flags::DEVICE_OUTPUT) {
        output::fetch();
    }
    result
}

fn decode_reply(
    op: u16,
    reply: &[u8],
    decode: impl FnOnce(&mut Reader<'_>) -> Result<(), WireError>,
) -> CuResult {
    let mut reader = Reader::new(reply);
    decode(&mut reader).and_then(|()| reader.finish()).map_err(|error| {
        crate::log!(Error, "reply to operation {op:#06x}: {error}");
        Status::UNKNOWN
    })
}

/// Posted operations that are parts of a longer exchange.
const PARTS: [u16; 6] = [
    ops::stage_in,
    ops::stage_out,
    ops::stage_out_watched,
    ops::stage_box_in,
    ops::stage_box_out,
    ops::image_chunk,
];

/// Sends an operation without waiting for it; what goes wrong on the host is reported by a later call.
///
/// Parts of a longer exchange, which ends with a reply before its call returns, need not be announced to other threads.
///
/// While a stream is capturing they are waited for: what a capture forbids is reported by the call that does it. So they are after a fault, which every
/// call of its context reports.
#[inline]
pub fn posted(op: u16, encode: impl FnOnce(&mut Writer<'_>)) -> CuResult {
    if (process().captures.active() || sticky::any()) && !PARTS.contains(&op) {
        return sync(op, encode, |_| Ok(()));
    }
    thread::with(|thread| {
        let lane = thread.lane()?;
        lane.post(op, encode)?;
        let latched = lane.take_latched();
        if !PARTS.contains(&op) {
            thread.posted();
        }
        latched.map_or(Ok(()), Err)
    })
}

/// Waits until the host has taken up what this thread has posted; fails with the first error of it.
pub fn settle() -> CuResult {
    // Any question that is always answered.
    sync(ops::cuDeviceGetCount, |w| w.present(true), |r| r.i32().map(|_| ()))
}

/// As [`sync`], remembering a successful reply for the life of the process.
pub fn cached(
    op: u16,
    encode: impl FnOnce(&mut Writer<'_>),
    decode: impl FnOnce(&mut Reader<'_>) -> Result<(), WireError>,
) -> CuResult {
    let mut request = Vec::new();
    let mut key = op.to_le_bytes().to_vec();
    encode(&mut Writer::new(&mut request));
    key.extend_from_slice(&request);

    let cache = &process().cache;
    if let Some(reply) = cache.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(key.as_slice()) {
        return decode_reply(op, reply, decode);
    }
    let reply = thread::with(|thread| {
        let lane = thread.lane()?;
        let (status, _) = lane.call(op, |writer| writer.fixed(&request))?;
        if status == Status::SUCCESS { Ok(lane.reply().to_vec()) } else { Err(status) }
    })?;
    let result = decode_reply(op, &reply, decode);
    if result.is_ok() {
        let mut cache = cache.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        cache.insert(key.into_boxed_slice(), reply.into_boxed_slice());
    }
    result
}
