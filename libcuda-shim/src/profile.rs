#![allow(unsafe_code)] // Registers an exit handler with the C library.
//! `CUDA_SHIM_PROFILE=FILE`: where the time of driver calls goes, on the program's side.
//!
//! Counted while the program runs, appended to the file when it exits by itself (not by a signal or `_exit`): one line of JSON per exported call and per operation on the wire that was used, whole
//! lines in one write, so that several processes may share a file. The host's side of the same operations is `host-vmm run --stats`.
//!
//! Off, this costs one branch per call. On, it reads the clock and takes a lock of all threads once per call and once per operation, which is in the figures; a forked child has counters of its own, which hang off its
//! [`Process`](crate::process::Process) like everything else.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use protocol::ops::{self, Class, OpInfo};

use crate::process::process;
use crate::types::CUresult;

static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

thread_local! {
    /// Time that this thread has spent waiting for the host. Has no destructor, so that exit handlers find it.
    static WAITED: Cell<u64> = const { Cell::new(0) };
}

/// Whether anything is counted.
#[inline]
pub fn on() -> bool {
    FILE.get_or_init(start).is_some()
}

#[cold]
fn start() -> Option<PathBuf> {
    let path = std::env::var_os("CUDA_SHIM_PROFILE").filter(|path| !path.is_empty())?;
    // SAFETY: the handler is a function of this library, which is never unloaded.
    let registered = unsafe { libc::atexit(write_out) };
    (registered == 0).then(|| path.into())
}

/// Sums of one call or operation.
#[derive(Clone, Copy, Default)]
struct Sums {
    count: u64,
    /// All of it (calls), or what encoding took (operations).
    nanos: u64,
    /// Of a call, included in that; of an operation, besides.
    waited: u64,
}

/// A table by name or by opcode.
struct Table<K>(Mutex<BTreeMap<K, Sums>>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<K: Ord + Copy> Table<K> {
    fn add(&self, key: K, nanos: u64, waited: u64) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = table.entry(key).or_default();
        sums.count += 1;
        sums.nanos = sums.nanos.saturating_add(nanos);
        sums.waited = sums.waited.saturating_add(waited);
    }

    fn rows(&self) -> Vec<(K, Sums)> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.iter().map(|(key, sums)| (*key, *sums)).collect()
    }
}

/// The counters of a process. The locks are leaves.
#[derive(Default)]
pub struct Profile {
    calls: Table<&'static str>,
    operations: Table<u16>,
}

fn profile() -> &'static Profile {
    process().profile.get_or_init(Profile::default)
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Runs an exported call.
#[cold]
pub fn call(info: &'static OpInfo, body: impl FnOnce() -> CUresult) -> CUresult {
    let before = WAITED.get();
    let since = Instant::now();
    let result = body();
    let total = nanos(since);
    profile().calls.add(info.name, total, WAITED.get().wrapping_sub(before));
    result
}

/// An operation that is being encoded, if anything is counted.
pub struct Encoding(Option<Instant>);

/// An operation that is being sent, and what its encoding took.
pub struct Sending(Option<(Instant, u64)>);

impl Encoding {
    #[inline]
    pub fn begin() -> Self {
        Self(on().then(Instant::now))
    }

    /// The request is complete.
    #[inline]
    pub fn done(self) -> Sending {
        Sending(self.0.map(|since| (Instant::now(), nanos(since))))
    }
}

impl Sending {
    /// Does something else meanwhile, which does not count as waiting.
    #[inline]
    pub fn beside(self, work: impl FnOnce()) -> Self {
        let Some((since, encoding)) = self.0 else {
            work();
            return self;
        };
        let begun = Instant::now();
        work();
        Self(Some((since + begun.elapsed(), encoding)))
    }

    /// The reply is there, or there is room for more that is posted.
    #[inline]
    pub fn done(self, op: u16) {
        if let Some((since, encoding)) = self.0 {
            let waited = nanos(since);
            WAITED.set(WAITED.get().wrapping_add(waited));
            profile().operations.add(op, encoding, waited);
        }
    }
}

/// Waits for the host otherwise than for a reply.
#[inline]
pub fn waiting<R>(wait: impl FnOnce() -> R) -> R {
    if !on() {
        return wait();
    }
    let since = Instant::now();
    let result = wait();
    WAITED.set(WAITED.get().wrapping_add(nanos(since)));
    result
}

/// The lines of a profile. Names are the driver's or our own: nothing in them needs an escape.
fn lines(profile: &Profile, pid: u32) -> String {
    let mut text = String::new();
    for (name, Sums { count, nanos, waited }) in profile.calls.rows() {
        let _ = writeln!(
            text,
            r#"{{"pid":{pid},"call":"{name}","count":{count},"total_ns":{nanos},"wait_ns":{waited}}}"#
        );
    }
    for (op, Sums { count, nanos, waited }) in profile.operations.rows() {
        let info = ops::by_opcode(op);
        let posted = info.is_some_and(|info| info.class == Class::Posted);
        let name = info.map_or("?", |info| info.name);
        let _ = writeln!(
            text,
            r#"{{"pid":{pid},"operation":"{name}","posted":{posted},"count":{count},"encode_ns":{nanos},"wait_ns":{waited}}}"#
        );
    }
    text
}

extern "C" fn write_out() {
    // Nothing may unwind into the C library.
    let _ = catch_unwind(|| {
        let (Some(Some(path)), Some(profile)) = (FILE.get(), process().profile.get()) else { return };
        let text = lines(profile, std::process::id());
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
            crate::log!(Error, "CUDA_SHIM_PROFILE: {}: {error}", path.display());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_that_was_used() {
        let profile = Profile::default();
        assert_eq!(lines(&profile, 7), "");
        profile.calls.add("cuMemAlloc_v2", 10, 4);
        profile.calls.add("cuMemAlloc_v2", 20, 5);
        profile.calls.add("cuCtxGetCurrent", 1, 0);
        profile.operations.add(ops::launch, 3, 2);
        profile.operations.add(ops::cuMemAlloc_v2, 1, u64::MAX);
        profile.operations.add(ops::cuMemAlloc_v2, 1, 5);
        let text = lines(&profile, 7);
        assert_eq!(
            text.lines().take(2).collect::<Vec<_>>(),
            [
                r#"{"pid":7,"call":"cuCtxGetCurrent","count":1,"total_ns":1,"wait_ns":0}"#,
                r#"{"pid":7,"call":"cuMemAlloc_v2","count":2,"total_ns":30,"wait_ns":9}"#,
            ]
        );
        let launch = r#"{"pid":7,"operation":"launch","posted":true,"count":1,"encode_ns":3,"wait_ns":2}"#;
        assert!(text.lines().any(|line| line == launch), "{text}");
        let alloc = format!(
            r#"{{"pid":7,"operation":"cuMemAlloc_v2","posted":false,"count":2,"encode_ns":2,"wait_ns":{}}}"#,
            u64::MAX
        );
        assert!(text.lines().any(|line| line == alloc), "{text}");
        assert_eq!(text.lines().count(), 4);
    }
}
