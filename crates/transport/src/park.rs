//! Sleeping until a shared counter has reached a value, and waking who sleeps.
//!
//! Everything that a side of a lane waits for is a counter of the other side that only grows: the tail of a ring (data), its head (room), the number of the last
//! completed request. A side that wants to sleep writes what it waits for into its *parked word*, looks once more, and blocks on the doorbell. A side that has
//! advanced a counter looks at the other's parked word and rings if the counter has got there.
//!
//! Between the write and the look there is a sequentially consistent fence on both sides. So either the waiter's last look sees the counter, or the
//! waker's look sees the parked word (or both): a wake-up cannot be lost. The waker clears the word before it rings, so that a burst of
//! frames costs one ring. The clearing may fail because the waiter has changed the word meanwhile; then the waiter has looked at the counter
//! after this waker's fence. The doorbell may ring without need (bytes left over from earlier): every wait looks again.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering, fence};

/// Which counter is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Counter {
    /// The tail of the ring that the waiter reads.
    Data = 1,
    /// The head of the ring that the waiter writes.
    Room = 2,
    /// The number of the last completed request.
    Completed = 3,
}

/// A parked word: the counter in the upper two bits, the value in the others; 0 for "awake".
const VALUE_BITS: u32 = 62;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;

fn parked_word(counter: Counter, value: u64) -> u64 {
    (counter as u64) << VALUE_BITS | value & VALUE_MASK
}

/// Says what this side waits for. To be followed by a look at the counter, and a sleep if it is not there yet; then by a store of 0.
pub fn declare(parked: &AtomicU64, counter: Counter, value: u64) {
    parked.store(parked_word(counter, value), Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// What ended a sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// The doorbell rang, or the sleep was interrupted.
    Rung,
    /// The other side is gone.
    HungUp,
}

/// How a sleeper is woken.
pub trait Bell {
    /// What can go wrong.
    type Error;

    /// Wakes the other side if it sleeps, or lets its next sleep end at once. Does not block.
    ///
    /// # Errors
    /// The bell is broken, for instance because the other side is gone.
    fn ring(&self) -> Result<(), Self::Error>;

    /// Sleeps until the other side rings or is gone; takes the pending rings.
    ///
    /// # Errors
    /// The bell is broken.
    fn sleep(&self) -> Result<Wake, Self::Error>;
}

/// To be called after `counter` was advanced to `value`: wakes the other side if it waits for that.
///
/// # Errors
/// Those of [`Bell::ring`].
#[inline]
pub fn notify<B: Bell>(parked: &AtomicU64, counter: Counter, value: u64, bell: &B) -> Result<(), B::Error> {
    fence(Ordering::SeqCst);
    let word = parked.load(Ordering::Relaxed);
    if word >> VALUE_BITS == counter as u64
        && word & VALUE_MASK <= value
        && parked.compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        bell.ring()?;
    }
    Ok(())
}

/// Waits: spins for a while, then sleeps.
pub struct Waiter {
    spin: Spin,
}

/// Who waits for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// A program for its worker, on the same machine.
    ForWorker,
    /// A worker for its program, on the same machine.
    ForProgram,
    /// A program in a virtual machine for the worker on the host.
    ForHost,
    /// A worker for the program in a virtual machine.
    ForGuest,
}

impl Waiter {
    /// A waiter that spins only if the other side can run meanwhile.
    pub fn new(waits: Waits) -> Waiter {
        Waiter { spin: Spin::new(waits) }
    }

    /// Spins until `ready` gives a value, for `limit` at most: None after that, or at once where the other side could not run meanwhile.
    pub fn spin<T>(&self, limit: Duration, ready: impl FnMut() -> Option<T>) -> Option<T> {
        self.spin.at_most(limit, ready)
    }

    /// Waits until `ready` gives a value. `value` is what `counter` must reach for that.
    ///
    /// Returns None if the other side is gone and `ready` still gives nothing.
    ///
    /// # Errors
    /// Those of `ready` and of [`Bell::sleep`].
    pub fn wait<T, B: Bell, E: From<B::Error>>(
        &mut self,
        parked: &AtomicU64,
        counter: Counter,
        value: u64,
        bell: &B,
        mut ready: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        if let Some(result) = self.spin.until(&mut ready)? {
            return Ok(Some(result));
        }
        let slept = self.spin.sleep_begins();
        let result = loop {
            declare(parked, counter, value);
            if let Some(result) = ready()? {
                break Some(result);
            }
            if bell.sleep()? == Wake::HungUp {
                // The other side may have died between publishing and ringing.
                break ready()?;
            }
        };
        parked.store(0, Ordering::Relaxed);
        self.spin.sleep_ended(slept);
        Ok(result)
    }
}

#[cfg(not(loom))]
use spin::Spin;

#[cfg(not(loom))]
mod spin {
    use std::convert::Infallible;
    use std::hint;
    use std::time::{Duration, Instant};

    use super::Waits;

    /// How long spins are.
    struct Lengths {
        longest: Duration,
        /// Never less, so that a peer that answers at once is always caught.
        shortest: Duration,
        /// A sleep no longer than this is a sign that the spin was too short: the longest one would have seen the end. What a wake-up takes is in it.
        brief: Duration,
    }

    /// With fewer processors the two sides get in each other's way.
    const PLENTY: usize = 4;
    /// A wake-up through the socket costs 5 to 15 us on both sides together, 50 on a virtual machine whose idle processors its host has to wake, and a round trip in which both sides
    /// sleep has two of them: to spin for longer does not pay. But a sleep of that length is about what the wake-ups themselves take: the answer would have been there had neither side slept.
    /// Below the cost of two wake-ups a pair of sides that have both stopped spinning would never start again: with 30 us here, round trips stayed at 60 to 190 us on such a machine
    /// for as long as a program ran, or at 2, as it happened.
    const FEW_PROCESSORS: Lengths = Lengths {
        longest: Duration::from_micros(40),
        shortest: Duration::from_micros(1),
        brief: Duration::from_micros(200),
    };
    /// A processor that idles takes longer to wake up, above all if it is one of a virtual machine: 20 us of the 300 in which a device takes 16 MiB, 150 were seen. NVIDIA's driver spins by itself for
    /// as long as its work takes.
    const FOR_WORKER: Lengths = Lengths {
        longest: Duration::from_millis(5),
        shortest: Duration::from_micros(20),
        brief: Duration::from_micros(5100),
    };
    /// A worker waits whenever its program computes.
    const FOR_PROGRAM: Lengths = Lengths {
        longest: Duration::from_micros(200),
        shortest: Duration::from_micros(5),
        brief: Duration::from_micros(300),
    };
    /// A wake-up goes through the host's network stack, an interrupt of the machine and the guest's stack: 50 us at best, half a millisecond on an interpreted processor, which is
    /// a tenth of the time in which a device takes 256 MiB.
    const FOR_HOST: Lengths = Lengths {
        longest: Duration::from_millis(10),
        shortest: Duration::from_micros(50),
        brief: Duration::from_micros(10_500),
    };
    /// The way back is as long.
    const FOR_GUEST: Lengths = Lengths {
        longest: Duration::from_millis(1),
        shortest: Duration::from_micros(5),
        brief: Duration::from_micros(1500),
    };
    /// After this, whoever else wants the processor gets it first.
    const POLITE: Duration = Duration::from_micros(40);
    /// Looks between two readings of the clock (about 20 ns each).
    const LOOKS: u32 = 16;

    /// A spin that gets longer while it succeeds (or would have) and shorter while it does not, as when the peer needs this processor to answer.
    pub(super) struct Spin {
        limit: Duration,
        lengths: Lengths,
        enabled: bool,
    }

    impl Spin {
        pub(super) fn new(waits: Waits) -> Spin {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let lengths = match waits {
                Waits::ForHost => FOR_HOST,
                Waits::ForGuest => FOR_GUEST,
                _ if processors < PLENTY => FEW_PROCESSORS,
                Waits::ForWorker => FOR_WORKER,
                Waits::ForProgram => FOR_PROGRAM,
            };
            // On one processor the other side cannot run while we spin, unless it is outside of this machine.
            Spin { limit: lengths.longest, enabled: processors > 1 || waits == Waits::ForHost, lengths }
        }

        pub(super) fn until<T, E>(
            &mut self,
            ready: &mut impl FnMut() -> Result<Option<T>, E>,
        ) -> Result<Option<T>, E> {
            if let Some(result) = ready()? {
                return Ok(Some(result));
            }
            let result = self.spin_for(self.limit, ready)?;
            if result.is_some() {
                self.limit = (self.limit * 2).min(self.lengths.longest);
            }
            Ok(result)
        }

        pub(super) fn at_most<T>(&self, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
            let limit = limit.min(self.lengths.longest);
            self.spin_for(limit, &mut || Ok::<_, Infallible>(ready())).unwrap_or(None)
        }

        fn spin_for<T, E>(
            &self,
            limit: Duration,
            ready: &mut impl FnMut() -> Result<Option<T>, E>,
        ) -> Result<Option<T>, E> {
            if !self.enabled {
                return Ok(None);
            }
            let start = Instant::now();
            loop {
                for _ in 0..LOOKS {
                    hint::spin_loop();
                    if let Some(result) = ready()? {
                        return Ok(Some(result));
                    }
                }
                let elapsed = start.elapsed();
                if elapsed >= limit {
                    return Ok(None);
                }
                if elapsed >= POLITE {
                    std::thread::yield_now();
                }
            }
        }

        pub(super) fn sleep_begins(&self) -> Instant {
            Instant::now()
        }

        pub(super) fn sleep_ended(&mut self, start: Instant) {
            let Lengths { longest, shortest, brief } = self.lengths;
            let limit = if start.elapsed() <= brief { self.limit * 2 } else { self.limit / 2 };
            self.limit = limit.clamp(shortest, longest);
        }
    }
}

#[cfg(loom)]
struct Spin;

/// Under loom a spin would only multiply the schedules: one look stands for it.
#[cfg(loom)]
impl Spin {
    fn new(_: Waits) -> Spin {
        Spin
    }

    fn until<T, E>(&mut self, ready: &mut impl FnMut() -> Result<Option<T>, E>) -> Result<Option<T>, E> {
        ready()
    }

    fn at_most<T>(&self, _: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        ready()
    }

    fn sleep_begins(&self) {}

    fn sleep_ended(&mut self, (): ()) {}
}
