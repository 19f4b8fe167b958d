//! A block that is moved in chunks by several threads at once: one thread copies slower than memory, and than a device.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// Threads beside the one that waits. More than a few do not make memory faster.
const MOST_HELPERS: usize = 3;
/// A thread is worth starting for this many bytes.
const WORTH: u64 = 2 << 20;
/// What moves a chunk needs little.
const STACK: usize = 128 << 10;

/// Helpers for a block of `len` bytes on this machine.
pub fn helpers(len: u64) -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let processors = *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from));
    let worth = usize::try_from(len / WORTH).unwrap_or(usize::MAX);
    MOST_HELPERS.min(processors - 1).min(worth)
}

struct State {
    /// Chunks before this one may be moved.
    allowed: usize,
    /// The first chunk that nobody has begun with.
    next: usize,
    moved: Vec<bool>,
    failed: Option<io::ErrorKind>,
    over: bool,
}

/// A block that is being moved.
pub struct Moving<'m> {
    chunk: &'m (dyn Fn(usize) -> io::Result<()> + Sync),
    state: Mutex<State>,
    changed: Condvar,
}

impl Moving<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the chunks before `end` be moved.
    pub fn allow(&self, end: usize) {
        let mut state = self.state();
        state.allowed = state.allowed.max(end.min(state.moved.len()));
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until a chunk, which must be allowed, has been moved; meanwhile this thread moves chunks too.
    ///
    /// # Errors
    /// Moving some chunk has failed.
    pub fn wait(&self, chunk: usize) -> io::Result<()> {
        let mut state = self.state();
        loop {
            if let Some(kind) = state.failed {
                return Err(kind.into());
            }
            if state.moved.get(chunk).copied().unwrap_or(true) {
                return Ok(());
            }
            state = self.step(state);
        }
    }

    /// Moves the next chunk, or waits until something changes.
    fn step<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let chunk = state.next;
        if chunk >= state.allowed {
            return self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.next += 1;
        drop(state);
        let result = (self.chunk)(chunk);
        state = self.state();
        match result {
            Ok(()) => state.moved[chunk] = true,
            Err(error) => state.failed = Some(error.kind()),
        }
        self.changed.notify_all();
        state
    }

    fn help(&self) {
        let mut state = self.state();
        while !state.over && state.failed.is_none() && state.next < state.moved.len() {
            state = self.step(state);
        }
    }

    fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }
}

/// Moves `count` chunks with up to `helpers` threads beside this one. `lead` says which may be moved, and waits for them; when it returns, what has not been
/// begun is left, and nothing is in progress.
pub fn run<R>(
    count: usize,
    helpers: usize,
    chunk: &(dyn Fn(usize) -> io::Result<()> + Sync),
    lead: impl FnOnce(&Moving<'_>) -> R,
) -> R {
    /// Also when `lead` panics: the scope waits for its threads.
    struct End<'e, 'm>(&'e Moving<'m>);
    impl Drop for End<'_, '_> {
        fn drop(&mut self) {
            self.0.end();
        }
    }
    let state = State { allowed: 0, next: 0, moved: vec![false; count], failed: None, over: false };
    let moving = Moving { chunk, state: Mutex::new(state), changed: Condvar::new() };
    thread::scope(|scope| {
        let _end = End(&moving);
        for _ in 0..helpers {
            let builder = thread::Builder::new().name("mover".into()).stack_size(STACK);
            if let Err(error) = builder.spawn_scoped(scope, || moving.help()) {
                tracing::debug!(%error, "a thread less moves memory");
                break;
            }
        }
        lead(&moving)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_chunk_is_moved_once_and_none_too_early() {
        for helpers in [0, 1, 3] {
            let times: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            let limit = AtomicUsize::new(0);
            let chunk = |number: usize| {
                assert!(number < limit.load(Ordering::SeqCst));
                times[number].fetch_add(1, Ordering::SeqCst);
                Ok(())
            };
            run(times.len(), helpers, &chunk, |moving| {
                for end in (10..=times.len()).step_by(10) {
                    limit.store(end, Ordering::SeqCst);
                    moving.allow(end);
                    // In any order.
                    (end - 10..end).rev().for_each(|number| moving.wait(number).unwrap());
                }
            });
            assert!(times.iter().all(|times| times.load(Ordering::SeqCst) == 1));
        }
    }

    #[test]
    fn what_is_not_allowed_stays_when_the_leader_gives_up() {
        let moved = AtomicUsize::new(0);
        let chunk = |_| {
            moved.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        run(10, 2, &chunk, |moving| {
            moving.allow(3);
            moving.wait(2).unwrap();
        });
        assert_eq!(moved.load(Ordering::SeqCst), 3);
        // More than there are.
        run(1, 0, &chunk, |moving| {
            moving.allow(9);
            moving.wait(0).unwrap();
            moving.wait(5).unwrap();
        });
    }

    #[test]
    fn a_failure_ends_it_for_everybody() {
        for helpers in [0, 2] {
            let chunk = |number| if number == 4 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
            let failed = run(1000, helpers, &chunk, |moving| {
                moving.allow(5);
                (0..5).map(|number| moving.wait(number)).find_map(Result::err)
            });
            assert_eq!(failed.unwrap().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn helpers_do_not_outlive_a_panic() {
        let chunk = |_| {
            thread::sleep(Duration::from_millis(5));
            Ok(())
        };
        let result = std::panic::catch_unwind(|| {
            run(3, 2, &chunk, |moving| {
                moving.allow(1);
                panic!("on purpose");
            })
        });
        assert!(result.is_err());
    }

    #[test]
    fn short_blocks_are_not_worth_a_thread() {
        assert_eq!(helpers(0), 0);
        assert_eq!(helpers(WORTH - 1), 0);
        assert!(helpers(u64::MAX) <= MOST_HELPERS);
    }
}
