//! The pool's policy: when a worker is made, and for whom one will do. No processes and no clock here.

use std::time::{Duration, Instant};

use protocol::handshake::Capabilities;

use crate::config::{self, Config};
use crate::daemon::ipc::Ready;

/// Pause after a worker was handed out: the program's first calls go before the start of the next worker, which would take processors and the driver's locks from them.
const AFTER_HAND_OUT: Duration = Duration::from_millis(200);
/// Pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: a driver that does not start now may do so later.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A worker that has waited for this long was no failure when it ends.
const STEADY: Duration = Duration::from_secs(10);

/// How many workers wait for programs, and what follows when one is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Workers that wait. 0: every worker is made when its program connects.
    pub workers: u32,
    /// Whether others take the places of those that are handed out.
    pub refill: bool,
}

impl Settings {
    pub const OFF: Self = Self { workers: 0, refill: false };
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a worker now.
    Make,
    /// Nothing before this moment.
    At(Instant),
    /// Nothing until something happens.
    Rest,
}

/// The processes of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Getting ready.
    pub warming: usize,
    pub ready: usize,
    /// Killed, not yet gone: a driver may keep a process for long. They count, or such processes would pile up.
    pub ending: usize,
}

/// When workers are made.
#[derive(Debug)]
pub struct Plan {
    refill: bool,
    /// Workers that there should be.
    wanted: usize,
    /// Failures since the last success.
    failures: u32,
    not_before: Option<Instant>,
}

impl Plan {
    pub fn new(settings: Settings) -> Self {
        Self { refill: settings.refill, wanted: settings.workers as usize, failures: 0, not_before: None }
    }

    /// One after the other: drivers start no faster side by side, and one that hangs holds one process.
    pub fn next(&self, now: Instant, present: Present) -> Step {
        if present.warming > 0 || present.warming + present.ready + present.ending >= self.wanted {
            return Step::Rest;
        }
        match self.not_before {
            Some(moment) if moment > now => Step::At(moment),
            _ => Step::Make,
        }
    }

    /// A worker was handed out and was well.
    pub fn handed_out(&mut self, now: Instant) {
        self.failures = 0;
        self.not_before = Some(now + AFTER_HAND_OUT);
        if !self.refill {
            self.wanted = self.wanted.saturating_sub(1);
        }
    }

    /// A worker did not get ready, or was not well any more, or has ended after having waited for `ready`. Returns the pause before the next one.
    pub fn failed(&mut self, now: Instant, ready: Option<Duration>) -> Duration {
        if ready.is_some_and(|time| time >= STEADY) {
            self.failures = 0;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
        pause
    }

    /// Warm workers cannot be had here: no more are made.
    pub fn give_up(&mut self) {
        self.wanted = 0;
    }
}

/// What a program needs of its worker.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// With the limits of its owner.
    pub config: &'a Config,
    pub region_tag: u32,
    /// As negotiated.
    pub session: Capabilities,
    /// As in the hello.
    pub hello: Capabilities,
}

/// Why a warm worker will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The owner's limits are not the daemon's.
    Limits,
    /// The program's window is not one that the worker makes.
    Window,
    /// The program has a list of devices, or does not say; the driver has been started without.
    Devices,
    /// The program proposes another region than the worker has taken.
    Region,
}

impl Wish<'_> {
    /// Whether any worker that is made with this configuration will do.
    ///
    /// # Errors
    /// Why not.
    pub fn for_any(&self, config: &Config) -> Result<(), Misfit> {
        if !config.same_worker(self.config) {
            return Err(Misfit::Limits);
        }
        let window = self.session.contains(Capabilities::SHARED_MEMORY);
        if !window && !self.session.contains(Capabilities::STREAM_LANES) {
            return Err(Misfit::Window);
        }
        let says = Capabilities::ALL_DEVICES.union(Capabilities::FIRST_DEVICES);
        let from_hello = matches!(config.backend, config::Backend::Cuda(_));
        if from_hello && says.without(self.hello) == says {
            return Err(Misfit::Devices);
        }
        Ok(())
    }

    /// Whether this one will do.
    ///
    /// # Errors
    /// Why not.
    pub fn for_this(&self, config: &Config, ready: Ready) -> Result<(), Misfit> {
        self.for_any(config)?;
        if ready.region_tag != self.region_tag {
            return Err(Misfit::Region);
        }
        // The CPU backend chooses among its devices at any time.
        let chooses = matches!(config.backend, config::Backend::Cpu);
        if chooses || ready.devices == 1 || self.hello.contains(Capabilities::ALL_DEVICES) {
            Ok(())
        } else {
            Err(Misfit::Devices)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Backend, Cuda, Limits};

    const TWO: Settings = Settings { workers: 2, refill: true };

    fn present(warming: usize, ready: usize, ending: usize) -> Present {
        Present { warming, ready, ending }
    }

    #[test]
    fn places_are_filled_one_by_one() {
        let (plan, now) = (Plan::new(TWO), Instant::now());
        assert_eq!(plan.next(now, present(0, 0, 0)), Step::Make);
        assert_eq!(plan.next(now, present(1, 0, 0)), Step::Rest);
        assert_eq!(plan.next(now, present(0, 1, 0)), Step::Make);
        assert_eq!(plan.next(now, present(0, 2, 0)), Step::Rest);
        assert_eq!(plan.next(now, present(0, 1, 1)), Step::Rest, "one that does not end has its place");
        assert_eq!(Plan::new(Settings::OFF).next(now, present(0, 0, 0)), Step::Rest);
    }

    #[test]
    fn without_refill_there_are_no_more_than_the_first() {
        let mut plan = Plan::new(Settings { workers: 1, refill: false });
        let now = Instant::now();
        assert_eq!(plan.next(now, present(0, 0, 0)), Step::Make);
        plan.failed(now, None);
        assert_eq!(plan.next(now + LONGEST_PAUSE, present(0, 0, 0)), Step::Make, "a failure is no hand-out");
        plan.handed_out(now);
        assert_eq!(plan.next(now + LONGEST_PAUSE, present(0, 0, 0)), Step::Rest);
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut plan = Plan::new(TWO);
        let now = Instant::now();
        let pauses: Vec<_> = (0..12).map(|_| plan.failed(now, None).as_millis()).collect();
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[10..], [60_000, 60_000]);
        assert_eq!(plan.next(now, present(0, 0, 0)), Step::At(now + LONGEST_PAUSE));
        assert_eq!(plan.next(now + LONGEST_PAUSE, present(0, 0, 0)), Step::Make);
        for _ in 0..100 {
            assert_eq!(plan.failed(now, None), LONGEST_PAUSE);
        }
    }

    #[test]
    fn success_ends_the_pauses() {
        let mut plan = Plan::new(TWO);
        let now = Instant::now();
        for _ in 0..5 {
            plan.failed(now, None);
        }
        plan.handed_out(now);
        assert_eq!(
            plan.next(now, present(0, 0, 0)),
            Step::At(now + AFTER_HAND_OUT),
            "its program goes first"
        );
        assert_eq!(plan.next(now + AFTER_HAND_OUT, present(0, 0, 0)), Step::Make);
        for _ in 0..5 {
            plan.failed(now, None);
        }
        assert_eq!(plan.failed(now, Some(STEADY)), FIRST_PAUSE, "it was well for long");
        assert!(plan.failed(now, Some(Duration::from_secs(1))) > FIRST_PAUSE, "it gets ready and dies");
    }

    #[test]
    fn what_cannot_be_had_is_not_tried() {
        let mut plan = Plan::new(TWO);
        plan.give_up();
        plan.handed_out(Instant::now());
        assert_eq!(plan.next(Instant::now() + LONGEST_PAUSE, present(0, 0, 0)), Step::Rest);
    }

    proptest! {
        /// Whatever happens, in whatever order, with a clock that moves on: never more than the setting says, and a driver that fails is not asked more often than its pauses
        /// say.
        #[test]
        fn the_pool_is_bounded(workers in 0u32..4, refill: bool, events in proptest::collection::vec((0u8..5, 0u64..30_000), 0..200)) {
            let mut plan = Plan::new(Settings { workers, refill });
            let mut now = Instant::now();
            let mut here = Present::default();
            let (mut made, mut given, mut last_failure) = (0u32, 0, None::<(Instant, Duration)>);
            for (event, millis) in events {
                now += Duration::from_millis(millis);
                match event {
                    0 if here.warming > 0 => {
                        here.warming -= 1;
                        here.ready += 1;
                    }
                    1 if here.warming > 0 => {
                        here.warming -= 1;
                        here.ending += 1;
                        last_failure = Some((now, plan.failed(now, None)));
                    }
                    2 if here.ready > 0 => {
                        here.ready -= 1;
                        given += 1;
                        plan.handed_out(now);
                        last_failure = None;
                    }
                    3 if here.ready > 0 => {
                        here.ready -= 1;
                        last_failure = Some((now, plan.failed(now, Some(Duration::from_millis(millis)))));
                    }
                    4 if here.ending > 0 => here.ending -= 1,
                    _ => {}
                }
                match plan.next(now, here) {
                    Step::Make => {
                        if let Some((failure, pause)) = last_failure {
                            prop_assert!(now >= failure + pause);
                        }
                        here.warming += 1;
                        made += 1;
                    }
                    Step::At(moment) => prop_assert!(moment > now),
                    Step::Rest => {}
                }
                prop_assert!(here.warming <= 1);
                prop_assert!(here.warming + here.ready + here.ending <= workers as usize);
                prop_assert!(refill || given <= workers, "{given} of {made}");
            }
        }
    }

    fn cuda() -> Config {
        Config { backend: Backend::Cuda(Cuda { libcuda: None, nested: false }), ..Config::default() }
    }

    const SHARED: Capabilities = Capabilities::SHARED_MEMORY;
    const ALL: Capabilities = SHARED.union(Capabilities::ALL_DEVICES);
    const FIRST: Capabilities = SHARED.union(Capabilities::FIRST_DEVICES);

    fn fits(
        config: &Config,
        asked: &Config,
        tag: u32,
        hello: Capabilities,
        devices: u32,
    ) -> Result<(), Misfit> {
        let wish = Wish { config: asked, region_tag: tag, session: SHARED, hello };
        wish.for_this(config, Ready { region_tag: 9, devices })
    }

    #[test]
    fn limits_and_region_must_be_the_same() {
        let config = cuda();
        let limits = |memory_bytes, sessions| Config {
            limits: Limits { memory_bytes, sessions, ..config.limits.clone() },
            ..config.clone()
        };
        let memory = config.limits.memory_bytes;
        assert_eq!(fits(&config, &config, 9, ALL, 1), Ok(()));
        assert_eq!(fits(&config, &limits(memory, 3), 9, ALL, 1), Ok(()));
        assert_eq!(fits(&config, &limits(memory - 1, 3), 9, ALL, 1), Err(Misfit::Limits));
        assert_eq!(fits(&config, &config, 10, ALL, 1), Err(Misfit::Region));
    }

    #[test]
    fn a_started_driver_shows_all_devices() {
        let config = cuda();
        for devices in [1, 2] {
            assert_eq!(fits(&config, &config, 9, ALL, devices), Ok(()));
            assert_eq!(fits(&config, &config, 9, SHARED, devices), Err(Misfit::Devices), "it does not say");
        }
        assert_eq!(fits(&config, &config, 9, FIRST, 1), Ok(()));
        assert_eq!(fits(&config, &config, 9, FIRST, 2), Err(Misfit::Devices));
        let cpu = Config::default();
        for hello in [SHARED, ALL, FIRST] {
            assert_eq!(fits(&cpu, &cpu, 9, hello, 2), Ok(()));
        }
    }

    #[test]
    fn windows_of_other_kinds_are_not_made_in_advance() {
        let config = cuda();
        let with = |session| Wish { config: &config, region_tag: 9, session, hello: ALL }.for_any(&config);
        assert_eq!(with(SHARED), Ok(()));
        assert_eq!(with(Capabilities::STREAM_LANES), Ok(()));
        assert_eq!(with(Capabilities::RINGS), Err(Misfit::Window));
    }
}
