//! Synchronising what is known to be idle.
//!
//! A stream can get work only by a call of this process. So when a stream has been synchronised with success, and no call that could have queued anything has
//! returned in the process since, it is still idle, and to say so needs no round trip. (Programs synchronise a lot more often than they have to.)
//!
//! What is compared is the session's [`Stamp`]: it changes before any call returns that may have queued work, on whatever stream and thread. It is read before the
//! host is asked, so that what returns while it answers counts as later.

use protocol::ops;
use protocol::status::CuResult;

use crate::order::Stamp;
use crate::thread;

/// Stands for all streams of a context.
const CONTEXT: u64 = u64::MAX;

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

/// What a thread has seen to be idle: context, stream, and the stamp of then.
#[derive(Default)]
pub struct Idle {
    seen: [Option<(u64, u64, Stamp)>; REMEMBERED],
    next: usize,
}

impl Idle {
    fn knows(&self, context: u64, stream: u64, now: Stamp) -> bool {
        self.seen.iter().flatten().any(|(c, s, then)| (*c, *s, *then) == (context, stream, now))
    }

    fn note(&mut self, context: u64, stream: u64, stamp: Stamp) {
        let old = self
            .seen
            .iter()
            .position(|entry| matches!(entry, Some((c, s, _)) if (*c, *s) == (context, stream)));
        let place = old.unwrap_or_else(|| {
            self.next = (self.next + 1) % REMEMBERED;
            self.next
        });
        self.seen[place] = Some((context, stream, stamp));
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
            thread.idle.note(context, stream, stamp);
            Ok(())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_stream_at_the_same_stamp_is_known() {
        let mut idle = Idle::default();
        let stamp = |n| Stamp { posts: n, asked: 7 };
        idle.note(1, 2, stamp(3));
        assert!(idle.knows(1, 2, stamp(3)));
        for (context, stream, now) in [(2, 2, stamp(3)), (1, 3, stamp(3)), (1, 2, stamp(4))] {
            assert!(!idle.knows(context, stream, now));
        }
        assert!(!idle.knows(1, 2, Stamp { posts: 3, asked: 8 }));
        // A later look replaces the earlier one; many others push it out.
        idle.note(1, 2, stamp(4));
        assert!(idle.knows(1, 2, stamp(4)) && !idle.knows(1, 2, stamp(3)));
        for other in 0..REMEMBERED as u64 {
            idle.note(1, 10 + other, stamp(4));
        }
        assert!(!idle.knows(1, 2, stamp(4)));
        assert!(idle.knows(1, 10, stamp(4)));
    }
}
