//! A block that is moved in chunks by several threads at once: one thread copies slower than memory, and than a device.
//!
//! Chunks are begun in their order. There are some for every few microseconds, so threads take them from a counter and look out for more for a while before they sleep.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::{hint, thread};

/// Threads beside the one that waits. More than a few do not make memory faster.
const MOST_HELPERS: usize = 3;
/// A thread is worth starting for this many bytes: it takes some 50 us, in which the others move a quarter of them.
const WORTH: u64 = 2 << 20;
/// What moves a chunk needs little, but a handler of the program's signals may run there.
const STACK: usize = 256 << 10;
/// Looks for work before a helper gives way to others, and how often it does that before it sleeps: some 50 us.
const LOOKS: u32 = 500;
const YIELDS: u32 = 50;

/// Helpers for a block of `len` bytes where so many processors can be had.
pub fn helpers(len: u64, processors: usize) -> usize {
    let worth = usize::try_from(len / WORTH).unwrap_or(usize::MAX);
    MOST_HELPERS.min(processors.saturating_sub(1)).min(worth)
}

/// Processors that this process may use.
pub fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// A block that is being moved.
pub struct Moving<'m> {
    chunk: &'m (dyn Fn(usize) -> io::Result<()> + Sync),
    /// Chunks before this one may be moved.
    allowed: AtomicUsize,
    /// The first chunk that nobody has begun with.
    next: AtomicUsize,
    moved: Box<[AtomicBool]>,
    failed: OnceLock<io::ErrorKind>,
    over: AtomicBool,
    /// Helpers that sleep, or are about to.
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Moving<'_> {
    /// Lets the chunks before `end` be moved.
    pub fn allow(&self, end: usize) {
        self.allowed.fetch_max(end.min(self.moved.len()), Ordering::SeqCst);
        self.wake();
    }

    /// Waits until a chunk, which must be allowed, has been moved; meanwhile this thread moves chunks too.
    ///
    /// # Errors
    /// Moving some chunk has failed.
    pub fn wait(&self, chunk: usize) -> io::Result<()> {
        let mut looks = 0u32;
        loop {
            if let Some(kind) = self.failed.get() {
                return Err((*kind).into());
            }
            if self.moved.get(chunk).is_none_or(|moved| moved.load(Ordering::Acquire)) {
                return Ok(());
            }
            if self.step() {
                looks = 0;
            } else if looks < LOOKS {
                // A helper is at it.
                looks += 1;
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }

    /// Moves the next chunk, if there is one.
    fn step(&self) -> bool {
        let begin = |next| (next < self.allowed.load(Ordering::SeqCst)).then_some(next + 1);
        let Ok(chunk) = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin) else {
            return false;
        };
        match (self.chunk)(chunk) {
            // Release: who sees that it has been moved sees its bytes.
            Ok(()) => self.moved[chunk].store(true, Ordering::Release),
            Err(error) => _ = self.failed.set(error.kind()),
        }
        true
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
            || self.failed.get().is_some()
            || self.next.load(Ordering::Relaxed) >= self.moved.len()
    }

    fn help(&self) {
        let mut looks = 0;
        while !self.is_over() {
            if self.step() {
                looks = 0;
                continue;
            }
            looks += 1;
            if looks < LOOKS {
                hint::spin_loop();
            } else if looks < LOOKS + YIELDS {
                thread::yield_now();
            } else {
                self.sleep();
                looks = 0;
            }
        }
    }

    /// Until there is something to do. Either this sees what `wake` has been called for, or the waker sees a sleeper: each writes before it reads.
    fn sleep(&self) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !self.is_over() && self.next.load(Ordering::Relaxed) >= self.allowed.load(Ordering::SeqCst) {
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
    }

    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Who has looked in vain is asleep when this gets the lock.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.wake();
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
    let moving = Moving {
        chunk,
        allowed: AtomicUsize::new(0),
        next: AtomicUsize::new(0),
        moved: (0..count).map(|_| AtomicBool::new(false)).collect(),
        failed: OnceLock::new(),
        over: AtomicBool::new(false),
        sleepers: AtomicUsize::new(0),
        lock: Mutex::new(()),
        changed: Condvar::new(),
    };
    thread::scope(|scope| {
        let _end = End(&moving);
        for _ in 0..helpers {
            let builder = thread::Builder::new().name("mover".into()).stack_size(STACK);
            // A limit on threads: with fewer, then.
            if builder.spawn_scoped(scope, || moving.help()).is_err() {
                break;
            }
        }
        lead(&moving)
    })
}

#[cfg(test)]
mod tests {
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
    fn helpers_that_sleep_are_woken() {
        // They have nothing to do for far longer than they look out for it.
        let moved = AtomicUsize::new(0);
        let threads = Mutex::new(std::collections::HashSet::new());
        let chunk = |_| {
            threads.lock().unwrap().insert(thread::current().id());
            thread::sleep(Duration::from_millis(2));
            moved.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        run(40, 2, &chunk, |moving| {
            for end in [20, 40] {
                thread::sleep(Duration::from_millis(50));
                moving.allow(end);
                (0..end).for_each(|number| moving.wait(number).unwrap());
            }
        });
        assert_eq!(moved.load(Ordering::SeqCst), 40);
        assert_eq!(threads.lock().unwrap().len(), 3, "everybody has moved something");
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
        assert_eq!(helpers(0, 64), 0);
        assert_eq!(helpers(WORTH - 1, 64), 0);
        assert_eq!(helpers(WORTH, 64), 1);
        assert_eq!(helpers(u64::MAX, 64), MOST_HELPERS);
        // Nor a thread without a processor.
        assert_eq!((helpers(u64::MAX, 0), helpers(u64::MAX, 1), helpers(u64::MAX, 2)), (0, 0, 1));
    }
}
