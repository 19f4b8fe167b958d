//! Processes and threads that come and go, by their own will or not.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::Tested;
use super::rig::{self, Daemon, LIMIT, Rig, Running, Scratch, eventually, expect_output, finish};
use crate::nvcc::Variant;

/// How soon the end of a process must be noticed.
const SOON: Duration = Duration::from_secs(2);

pub fn fork_use(rig: &Rig) -> Tested {
    rig.pass("fork-use", 5).map(|()| None)
}

pub fn fork_idle(rig: &Rig) -> Tested {
    rig.pass("fork-idle", 5).map(|()| None)
}

pub fn fork_outlive(rig: &Rig) -> Tested {
    let daemon = Daemon::start(rig)?;
    let program =
        Running::start(daemon.command(&rig.program("shim_probe", Variant::Static)?).arg("fork-outlive"))?;
    let line = program.line(LIMIT)?;
    let child: i32 = line.strip_prefix("child ").context("no child")?.parse()?;
    program.expect_line("PASS")?;
    // The child holds the pipes too, but not the session.
    let gone = daemon.expect_idle(SOON);
    let lives = rig::is_alive(child);
    rig::kill(child);
    ensure!(lives, "the child did not live");
    gone.map(|()| None)
}

pub fn reopen(rig: &Rig) -> Tested {
    rig.pass("reopen", 3).map(|()| None)
}

pub fn threads(rig: &Rig) -> Tested {
    rig.pass("threads", 3).map(|()| None)
}

pub fn exit_thread(rig: &Rig) -> Tested {
    for variant in Variant::ALL {
        for _ in 0..10 {
            let scratch = Scratch::new()?;
            let program = rig.program("shim_probe", variant)?;
            let finished = finish(rig.run(&scratch, &[], &program).arg("exit-thread"))?;
            expect_output(&finished, 21, "")?;
            ensure!(finished.stderr.is_empty(), "standard error:\n{}", rig::stderr(&finished));
            scratch.expect_clean(SOON)?;
        }
    }
    Ok(None)
}

/// A program is killed in the middle of an endless kernel, another one at the same daemon works on.
pub fn killed_program(rig: &Rig) -> Tested {
    let daemon = Daemon::start(rig)?;
    let program = rig.program("shim_probe", Variant::Static)?;
    let steady = Running::start(daemon.command(&program).arg("steady"))?;
    steady.expect_line("working")?;
    let mut slowest = Duration::ZERO;
    for task in ["spin-wait", "spin-copy", "spin-threads", "loop-launch", "loop-copy"] {
        let victim = Running::start(daemon.command(&program).arg(task))?;
        victim.expect_line("spinning")?;
        ensure!(daemon.workers().len() == 2, "{:?} workers", daemon.workers());
        victim.kill();
        let begin = Instant::now();
        eventually(SOON, "the worker is gone", || daemon.workers().len() == 1).context(task)?;
        slowest = slowest.max(begin.elapsed());
    }
    let (status, rest, _) = steady.end(LIMIT)?;
    ensure!(status.success() && rest.last().is_some_and(|line| line == "PASS"), "{status}: {rest:?}");
    daemon.expect_idle(SOON)?;
    Ok(Some(format!("worker gone within {} ms", slowest.as_millis())))
}

/// What a program may do when its host goes away.
const TASKS: [&str; 6] = ["spin-wait", "spin-copy", "spin-threads", "loop-launch", "loop-call", "loop-copy"];

/// The program must get an error and end by itself.
fn expect_error(program: Running, task: &str) -> Result<()> {
    let (status, lines, errors) = program.end(SOON).context(task.to_owned())?;
    ensure!(status.success(), "{task}: {status}\n{errors}");
    match lines.last() {
        Some(line) if line.starts_with("CUDA_ERROR_") => {}
        _ => bail!("{task}: printed {lines:?}"),
    }
    rig::expect_match(&errors, r"^\[cuda-shim [0-9:]+ error\] the host has ended the session")
        .context(task.to_owned())
}

pub fn killed_daemon(rig: &Rig) -> Tested {
    let program = rig.program("shim_probe", Variant::Static)?;
    for task in TASKS {
        let daemon = Daemon::start(rig)?;
        let victim = Running::start(daemon.command(&program).arg(task).env("CUDA_SHIM_LOG", "error"))?;
        victim.expect_line("spinning")?;
        let workers = daemon.workers();
        ensure!(workers.len() == 1, "{task}: workers {workers:?}");
        daemon.kill();
        expect_error(victim, task)?;
        eventually(SOON, "the worker is gone", || !workers.iter().any(|pid| rig::is_alive(*pid)))?;
    }
    Ok(None)
}

/// Programs get workers that were there before them, one each.
pub fn warm_worker(rig: &Rig) -> Tested {
    let daemon = Daemon::start_warm(rig, 1)?;
    let program = rig.program("shim_probe", Variant::Static)?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut there = None;
        eventually(SOON, "another worker waits", || {
            there = daemon.warm().first().copied();
            there.is_some()
        })?;
        let there = there.context("no worker waits")?;
        ensure!(!seen.contains(&there), "worker {there} serves a second program");
        let steady = Running::start(daemon.command(&program).arg("steady"))?;
        steady.expect_line("working")?;
        ensure!(
            daemon.workers().contains(&there) && !daemon.warm().contains(&there),
            "worker {there} was not taken: {:?}",
            daemon.workers()
        );
        seen.push(there);
        let (status, rest, _) = steady.end(LIMIT)?;
        ensure!(status.success() && rest.last().is_some_and(|line| line == "PASS"), "{status}: {rest:?}");
        eventually(SOON, "its worker ends", || !daemon.workers().contains(&there))?;
    }
    eventually(SOON, "another worker waits", || !daemon.warm().is_empty())?;
    let left = daemon.workers();
    daemon.kill();
    eventually(SOON, "it ends with its daemon", || !left.iter().any(|pid| rig::is_alive(*pid)))?;
    Ok(None)
}

/// One program's worker dies; the daemon serves others.
pub fn killed_worker(rig: &Rig) -> Tested {
    let daemon = Daemon::start(rig)?;
    let program = rig.program("shim_probe", Variant::Static)?;
    for task in TASKS {
        let victim = Running::start(daemon.command(&program).arg(task).env("CUDA_SHIM_LOG", "error"))?;
        victim.expect_line("spinning")?;
        daemon.workers().into_iter().for_each(rig::kill);
        expect_error(victim, task)?;
        daemon.expect_idle(SOON)?;
    }
    let finished = finish(daemon.command(&program).arg("work"))?;
    expect_output(&finished, 0, "PASS\n")?;
    Ok(None)
}

/// Names in /dev/shm: programs of others come and go there too, so only ours count.
fn shared_memory() -> Vec<String> {
    let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| ["host-vmm", "cuda", "shim"].iter().any(|part| name.contains(part))).collect()
}

/// Sockets of this kernel whose address has `part` in it (those in the file system and abstract ones).
fn sockets(part: &str) -> usize {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table.lines().filter(|line| line.contains(part)).count()
}

pub fn leftovers(rig: &Rig) -> Tested {
    let scratch = Scratch::new()?;
    let before = shared_memory();
    let begin = Instant::now();
    for run in 0..rig.runs {
        let variant = Variant::ALL[run as usize % 2];
        let finished = finish(&mut rig.run(&scratch, &[], &rig.program("vector_add", variant)?))?;
        let expected = "vector_add: 1048576 elements, max error 0\nPASS\n";
        expect_output(&finished, 0, expected).with_context(|| format!("run {run}"))?;
    }
    let elapsed = begin.elapsed();
    // Memory files and mappings live as long as a process has them: no process, none of these.
    scratch.expect_clean(Duration::from_millis(500))?;
    let sockets = sockets(&scratch.path().to_string_lossy());
    ensure!(sockets == 0, "{sockets} sockets left behind");
    let after = shared_memory();
    ensure!(after == before, "shared memory before {before:?}, after {after:?}");

    // The same with one daemon: its descriptors and mappings must not grow with the number of programs. It lets go of a worker a moment after the worker is gone.
    let daemon = Daemon::start(rig)?;
    let program = rig.program("vector_add", Variant::Static)?;
    let mut early = None;
    for run in 0..rig.runs.div_ceil(2) {
        ensure!(
            finish(&mut daemon.command(&program))?.status.is_some_and(|status| status.success()),
            "run {run}"
        );
        if run == 4 {
            daemon.expect_idle(SOON)?;
            early = Some(daemon.resources()?);
        }
    }
    daemon.expect_idle(SOON)?;
    if let Some(early) = early {
        let grown = |late: (usize, usize)| late.0 > early.0 || late.1 > early.1 + 8;
        eventually(SOON, "as many descriptors and mappings as before", || {
            daemon.resources().is_ok_and(|late| !grown(late))
        })
        .with_context(|| format!("they grew from {early:?} to {:?}", daemon.resources().ok()))?;
    }
    Ok(Some(format!(
        "{} runs, {:.0} ms each",
        rig.runs,
        elapsed.as_secs_f64() * 1e3 / f64::from(rig.runs.max(1))
    )))
}
