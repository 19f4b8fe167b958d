//! Synchronising what is known to be idle.
//!
//! A stream can get work only by a call of this process. So when a stream has been synchronised with success, and no call that could have queued anything has
//! returned in the process since, it is still idle, and to say so needs no round trip. (Programs synchronise a lot more often than they have to.)
//!
//! What is compared is the session's [`Stamp`]: it changes before any call returns that may have queued work, on whatever stream and thread. It is read before the
//! host is asked, so that what returns while it answers counts as later.
//!
//! A stream that has got nothing since but copies of this thread's that nobody waited for is not idle, but *quiet*: there is nothing that another copy into the device
//! would have to wait for before it can return, as the driver's do once they have taken the bytes.

use protocol::ops;
use protocol::status::{CuResult, Status};

use crate::order::Stamp;
use crate::thread;

/// Stands for all streams of a context.
const CONTEXT: u64 = u64::MAX;

/// `CU_STREAM_PER_THREAD`: up to here the numbers of default streams.
const PER_THREAD: u64 = 2;

/// Streams that a thread remembers; enough for a loop over a few of them.
const REMEMBERED: usize = 8;

/// Synchronous operations that queue nothing: they do not change the stamp.
pub const QUERIES: &[u16] = &[
    ops::cuStreamSynchronize,
    ops::cuStreamQuery,
    ops::cuCtxSynchronize,
    ops::cuCtxSynchronize_v2,
    ops::cuEventQuery,
    ops::cuEventSynchronize,
    ops::cuEventElapsedTime,
    ops::callback_next,
    ops::device_output,
];

/// A stream as a thread has seen it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    context: u64,
    stream: u64,
    stamp: Stamp,
    /// Copies have been queued since: it is quiet, not idle.
    copies: bool,
}

/// What a thread has seen to be idle or quiet.
#[derive(Default)]
pub struct Idle {
    seen: [Option<Seen>; REMEMBERED],
    next: usize,
}

impl Idle {
    fn find(&self, context: u64, stream: u64, now: Stamp) -> Option<&Seen> {
        self.seen
            .iter()
            .flatten()
            .find(|seen| (seen.context, seen.stream, seen.stamp) == (context, stream, now))
    }

    fn knows(&self, context: u64, stream: u64, now: Stamp) -> bool {
        self.find(context, stream, now).is_some_and(|seen| !seen.copies)
    }

    /// Whether a stream is quiet. The default streams belong to the context, and are idle when all of it is.
    fn is_quiet(&self, context: u64, stream: u64, now: Stamp) -> bool {
        self.find(context, stream, now).is_some()
            || (stream <= PER_THREAD && self.knows(context, CONTEXT, now))
    }

    fn note(&mut self, context: u64, stream: u64, stamp: Stamp, copies: bool) {
        let old = self
            .seen
            .iter()
            .position(|entry| entry.is_some_and(|seen| (seen.context, seen.stream) == (context, stream)));
        let place = old.unwrap_or_else(|| {
            self.next = (self.next + 1) % REMEMBERED;
            self.next
        });
        self.seen[place] = Some(Seen { context, stream, stamp, copies });
    }
}

/// Answers for an idle stream of the current context; else asks the host.
pub fn stream(stream: u64, ask: impl FnOnce() -> CuResult) -> CuResult {
    unless_known(thread::current_context(), stream, ask)
}

/// Answers for an idle context; else asks the host.
pub fn context(context: u64, ask: impl FnOnce() -> CuResult) -> CuResult {
    unless_known(context, CONTEXT, ask)
}

fn unless_known(context: u64, stream: u64, ask: impl FnOnce() -> CuResult) -> CuResult {
    let mut known = false;
    let stamp = thread::with(|thread| {
        let stamp = thread.stamp();
        known = stamp.is_some_and(|stamp| thread.idle.knows(context, stream, stamp));
        let latched = if known { thread.take_latched() } else { None };
        match latched {
            // "This function may also return error codes from previous, asynchronous launches."
            Some(latched) => Err(latched),
            None => Ok(stamp),
        }
    })?;
    if known {
        return Ok(());
    }
    ask()?;
    if let Some(stamp) = stamp {
        thread::with(|thread| {
            thread.idle.note(context, stream, stamp, false);
            Ok(())
        })?;
    }
    Ok(())
}

/// The stamp at which a stream of the current context is quiet; none if it may not be.
///
/// # Errors
/// Of what was posted before.
pub fn quiet(stream: u64) -> Result<Option<Stamp>, Status> {
    let context = thread::current_context();
    thread::with(|thread| {
        let stamp = thread.stamp().filter(|stamp| thread.idle.is_quiet(context, stream, *stamp));
        match stamp.and_then(|_| thread.take_latched()) {
            Some(latched) => Err(latched),
            None => Ok(stamp),
        }
    })
}

/// A stream that was quiet at a stamp has got a copy that was posted, and announced: it still is, if no other call has returned.
pub fn copied(stream: u64, before: Stamp) -> CuResult {
    note_if(stream, Stamp { posts: before.posts + 1, ..before }, true)
}

/// A stream has been synchronised by an answered request, which may itself have queued work and counts as such. After several, of which each counts, nothing is known.
pub fn synchronised(stream: u64, before: Option<Stamp>) -> CuResult {
    let Some(before) = before else { return Ok(()) };
    note_if(stream, Stamp { asked: before.asked + 1, ..before }, false)
}

/// A stream has been seen to be idle, without a request that could have queued work.
pub fn seen(stream: u64, before: Option<Stamp>) -> CuResult {
    before.map_or(Ok(()), |before| note_if(stream, before, false))
}

fn note_if(stream: u64, expected: Stamp, copies: bool) -> CuResult {
    let context = thread::current_context();
    thread::with(|thread| {
        if thread.stamp() == Some(expected) {
            thread.idle.note(context, stream, expected, copies);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(posts: u64) -> Stamp {
        Stamp { posts, asked: 7 }
    }

    #[test]
    fn only_the_same_stream_at_the_same_stamp_is_known() {
        let mut idle = Idle::default();
        idle.note(1, 2, stamp(3), false);
        assert!(idle.knows(1, 2, stamp(3)));
        for (context, stream, now) in [(2, 2, stamp(3)), (1, 3, stamp(3)), (1, 2, stamp(4))] {
            assert!(!idle.knows(context, stream, now));
        }
        assert!(!idle.knows(1, 2, Stamp { posts: 3, asked: 8 }));
        // A later look replaces the earlier one; many others push it out.
        idle.note(1, 2, stamp(4), false);
        assert!(idle.knows(1, 2, stamp(4)) && !idle.knows(1, 2, stamp(3)));
        for other in 0..REMEMBERED as u64 {
            idle.note(1, 10 + other, stamp(4), false);
        }
        assert!(!idle.knows(1, 2, stamp(4)));
        assert!(idle.knows(1, 10, stamp(4)));
    }

    #[test]
    fn a_stream_with_copies_is_quiet_and_not_idle() {
        let mut idle = Idle::default();
        idle.note(1, 20, stamp(3), false);
        assert!(idle.is_quiet(1, 20, stamp(3)));
        idle.note(1, 20, stamp(4), true);
        assert!(idle.is_quiet(1, 20, stamp(4)) && !idle.knows(1, 20, stamp(4)));
        assert!(!idle.is_quiet(1, 20, stamp(3)) && !idle.is_quiet(1, 20, stamp(5)));
        // An idle context has idle default streams; of others it is not known that they are its own.
        idle.note(1, CONTEXT, stamp(5), false);
        assert!((0..=PER_THREAD).all(|stream| idle.is_quiet(1, stream, stamp(5))));
        assert!(!idle.is_quiet(1, 20, stamp(5)) && !idle.is_quiet(2, 0, stamp(5)));
    }
}
