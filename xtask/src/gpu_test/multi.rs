//! Several programs on one daemon: correct, as fast together as natively, kept apart, cleaned up after.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::tenant::{self, Holdings, Tenant};
use super::{Rows, Run};
use crate::gpu::{Daemon, Leg};
use crate::manifest::SAMPLES;
use crate::nvcc::Variant;
use crate::process;
use crate::test::Outcome;

/// Of the native throughput, what all programs together should reach.
const WANTED: f64 = 0.95;
/// Seconds of one measurement.
const MEASURED_S: u32 = 3;
/// A killed program's worker has to be gone after this.
const WORKER_GONE: Duration = Duration::from_secs(2);
/// Programs at the same time in the soak.
const SOAKERS: usize = 4;

/// Returns a row's cells.
type Test = fn(&Run<'_>) -> Result<Vec<Outcome>>;

const TESTS: &[(&str, Test)] = &[
    ("two", |run| together(run, 2, 10, 1)),
    ("sixteen", |run| together(run, 16, 1, MEASURED_S)),
    ("isolation", isolation),
    ("kill", kill),
    ("soak", soak),
];

pub fn names() -> Vec<&'static str> {
    TESTS.iter().map(|(name, _)| *name).collect()
}

pub fn run(run: &Run<'_>) -> Result<Rows> {
    let legs = run.setup.legs();
    let mut rows = Rows::new(legs.iter().map(|leg| leg.name().to_owned()).collect());
    for (name, test) in TESTS.iter().filter(|(name, _)| run.wants("multi", name)) {
        if !run.has_time() && *name != "soak" {
            rows.add(*name, vec![Outcome::Skip("out of time".to_owned()); legs.len()]);
            continue;
        }
        eprintln!("multi: {name}");
        let cells = test(run).unwrap_or_else(|error| {
            let mut cells = vec![Outcome::Skip("see the shim".to_owned()); legs.len() - 1];
            cells.push(Outcome::Fail(format!("{error:#}\n{}", run.daemon.log())));
            cells
        });
        rows.add(*name, cells);
    }
    Ok(rows)
}

/// A cell for the shim, and one in front of it where there is a native leg.
fn cells(run: &Run<'_>, native: Outcome, shim: Outcome) -> Vec<Outcome> {
    if run.setup.legs().contains(&Leg::Native) { vec![native, shim] } else { vec![shim] }
}

fn no_native() -> Outcome {
    Outcome::Skip("the shim's own".to_owned())
}

/// `count` programs at once, the legs in turns: all right, and as fast as natively.
///
/// Two programs that take turns on a device fall into one of two rhythms and stay there for a second or longer: their kernels miss each other (a round of 820 us on an H200), or wait for each
/// other (1075 us). Which one it is is chance, natively too, so that single measurements differ by 8 % (standard deviation): few programs need many `turns` of few `seconds`.
fn together(run: &Run<'_>, count: usize, turns: usize, seconds: u32) -> Result<Vec<Outcome>> {
    let legs = run.setup.legs();
    let (mut native, mut shim) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    // There and back, so that a drift of the machine counts on both sides.
    for leg in std::iter::repeat_n(legs.iter().chain(legs.iter().rev()), turns).flatten() {
        let rate = tenant::throughput(run.setup, run.daemon, *leg, count, seconds)?;
        match leg {
            Leg::Native => native.push(rate),
            Leg::Shim => shim.push(rate),
        }
    }
    let pass = Outcome::Pass(begin.elapsed());
    let (shim_mean, shim_error) = mean(&shim);
    if native.is_empty() {
        println!("{count} programs: {shim_mean:.1} rounds/s");
        return Ok(vec![pass]);
    }
    let (native_mean, native_error) = mean(&native);
    let ratio = shim_mean / native_mean;
    let error = ratio * (shim_error / shim_mean).hypot(native_error / native_mean);
    println!(
        "{count} programs: {native_mean:.1} rounds/s natively, {shim_mean:.1} through the shim, ratio {ratio:.3} (standard error {error:.3}): {native:.0?}, {shim:.0?}"
    );
    let judged = if ratio >= WANTED {
        pass.clone()
    } else {
        Outcome::Fail(format!("{ratio:.3} of the native throughput, wanted {WANTED}\n"))
    };
    Ok(vec![pass, judged])
}

/// The mean of at least two rates and its standard error.
fn mean(rates: &[f64]) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let squares = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

/// Programs that fault do not disturb one that works.
fn isolation(run: &Run<'_>) -> Result<Vec<Outcome>> {
    let begin = Instant::now();
    let native = match run.setup.legs().contains(&Leg::Native) {
        true => Some(tenant::fault(run.setup, run.daemon, Leg::Native)?),
        false => None,
    };
    let faults = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let first_wrong = Mutex::new(None);
    let rate = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let wrong = match tenant::fault(run.setup, run.daemon, Leg::Shim) {
                    Ok(line) if native.as_ref().is_none_or(|native| *native == line) => {
                        faults.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    Ok(line) => format!("a fault is reported as \"{line}\", natively as {native:?}"),
                    Err(error) => format!("{error:#}"),
                };
                *first_wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(wrong);
                return;
            }
        });
        let rate = tenant::throughput(run.setup, run.daemon, Leg::Shim, 2, MEASURED_S);
        done.store(true, Ordering::Relaxed);
        rate
    })?;
    if let Some(wrong) = first_wrong.into_inner().unwrap_or_else(PoisonError::into_inner) {
        bail!("{wrong}");
    }
    let faults = faults.into_inner();
    ensure!(faults > 0, "no program has faulted");
    println!("beside {faults} programs that fault: {rate:.1} rounds/s");
    Ok(cells(run, no_native(), Outcome::Pass(begin.elapsed())))
}

/// Starts a program that keeps the device busy and kills it after `pause`.
fn start_and_kill(run: &Run<'_>, daemon: &Daemon, pause: Duration) -> Result<()> {
    let mut tenant = Tenant::spawn(run.setup, daemon, Leg::Shim, &["hold"])?;
    tenant.ready()?;
    tenant.begin()?;
    tenant.line()?;
    std::thread::sleep(pause);
    tenant.kill()
}

/// A program is killed in the middle of copies and launches: its worker goes, with its memory, and nothing else.
fn kill(run: &Run<'_>) -> Result<Vec<Outcome>> {
    let begin = Instant::now();
    // A daemon of its own: nobody else comes and goes there.
    let mut daemon = Daemon::start(run.setup, &[])?;
    tenant::throughput(run.setup, &daemon, Leg::Shim, 1, 1)?;
    let before = Holdings::settled(&daemon);
    let mut slowest = Duration::ZERO;
    for pause in [0, 50, 300, 700] {
        let mut tenant = Tenant::spawn(run.setup, &daemon, Leg::Shim, &["hold"])?;
        tenant.ready()?;
        // The worker is one of these, whether it was made for the program or taken from the reserve.
        let during = Holdings::settled(&daemon);
        ensure!(!during.workers.is_empty(), "no worker");
        tenant.begin()?;
        tenant.line()?;
        std::thread::sleep(Duration::from_millis(pause));
        tenant.kill()?;
        let killed = Instant::now();
        let gone = || {
            let now = tenant::children(daemon.pid());
            during.workers.iter().any(|worker| !now.contains(worker))
        };
        while !gone() {
            ensure!(
                killed.elapsed() < WORKER_GONE,
                "the worker is there {WORKER_GONE:?} after the program was killed"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        slowest = slowest.max(killed.elapsed());
        ensure!(daemon.is_alive(), "the daemon has ended");
    }
    let after = Holdings::settled(&daemon);
    if let Some(leaks) = after.leaks_since(&before) {
        bail!("after programs were killed: {leaks}");
    }
    // As good as new.
    tenant::throughput(run.setup, &daemon, Leg::Shim, 2, 1)?;
    println!("killed programs: the slowest worker was gone after {} ms", slowest.as_millis());
    Ok(cells(run, no_native(), Outcome::Pass(begin.elapsed())))
}

/// A mixture of programs for some minutes, on a daemon of its own that should hold as much afterwards as before.
fn soak(run: &Run<'_>) -> Result<Vec<Outcome>> {
    let Some(minutes) = run.args.soak else {
        let skip = Outcome::Skip("asked for with --soak MINUTES".to_owned());
        return Ok(cells(run, skip.clone(), skip));
    };
    let begin = Instant::now();
    let mut daemon = Daemon::start(run.setup, &[])?;
    // Everything once: what is set up at first use is no leak.
    for kind in 0..KINDS {
        soak_one(run, &daemon, kind, 1)?;
    }
    let before = Holdings::settled(&daemon);
    println!("soak: before {before:?}");
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let programs = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for soaker in 0..SOAKERS {
            let (daemon, programs, failure) = (&daemon, &programs, &failure);
            scope.spawn(move || {
                // Each in an order of its own, the same in every run.
                let mut state = soaker as u32 + 1;
                while Instant::now() < end {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let kind = (state >> 16) as usize % KINDS;
                    let number = programs.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = soak_one(run, daemon, kind, number) {
                        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        failure.get_or_insert(error.context(format!("program {number} of kind {kind}")));
                        return;
                    }
                    if failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                        return;
                    }
                }
            });
        }
    });
    let programs = programs.into_inner();
    let after = Holdings::settled(&daemon);
    println!("soak: after {programs} programs {after:?}");
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error.context(daemon.log()));
    }
    ensure!(daemon.is_alive(), "the daemon has ended:\n{}", daemon.log());
    if let Some(leaks) = after.leaks_since(&before) {
        bail!("after {programs} programs: {leaks}");
    }
    Ok(cells(run, no_native(), Outcome::Pass(begin.elapsed())))
}

const KINDS: usize = 4;

fn soak_one(run: &Run<'_>, daemon: &Daemon, kind: usize, number: usize) -> Result<()> {
    match kind {
        0 => tenant::throughput(run.setup, daemon, Leg::Shim, 1 + number % 3, 1).map(drop),
        1 => tenant::fault(run.setup, daemon, Leg::Shim).map(drop),
        2 => start_and_kill(run, daemon, Duration::from_millis(number as u64 * 37 % 500)),
        _ => {
            let sample = &SAMPLES[number % SAMPLES.len()];
            let mut command =
                run.setup.command(&run.setup.program(sample, Variant::Static), Leg::Shim, daemon);
            let finished = process::run_limited(&mut command, run.limit)?;
            let code = finished.status.and_then(|status| status.code());
            ensure!(
                code == Some(sample.exit_code),
                "{}: {code:?}\n{}",
                sample.name,
                String::from_utf8_lossy(&finished.stdout)
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_mean_shrinks_with_its_number() {
        let (few, few_error) = mean(&[90.0, 110.0]);
        assert!((few - 100.0).abs() < 1e-9 && (few_error - 10.0).abs() < 1e-9, "{few} {few_error}");
        let (many, many_error) = mean(&[90.0, 110.0].repeat(50));
        assert!((many - 100.0).abs() < 1e-9 && (many_error - 1.0).abs() < 0.01, "{many} {many_error}");
    }
}
