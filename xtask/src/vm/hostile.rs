//! Hostile programs in a guest, and ends without warning.
//!
//! | machine | its vsock device is | what happens |
//! |---|---|---|
//! | 1 | the daemon's | raw attacks on the device node and on both ports; programs are killed at random moments; at last QEMU is killed while a program copies |
//! | 2 | a process of its own | the daemon is killed while a program runs, and started again: the program gets an error at once, the next one works |
//!
//! The guest's program is `guest-kmod/selftest` in another mode (`hostile.rs` there). It says where it is in lines that begin with `@ `; what is to be true on
//! this side at such a moment is looked at here.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::{NamedTempFile, TempDir};

use super::Outcome;
use super::helpers::Helpers;
use super::kernel::Kernel;
use super::machine::Machine;
use super::qemu::Qemu;
use super::{stage, tcg};
use crate::debian::Release;
use crate::manifest::{self, PROBES, Sample};
use crate::nvcc::{self, Variant};
use crate::test_shim::rig::{self, Running, eventually};
use crate::toolkit::{Choice, Toolkit};
use crate::{kmod, process, workspace};

/// What to run, and with what.
pub struct Options<'a> {
    pub release: Release,
    /// Programs that are killed.
    pub kills: u64,
    pub host: Option<&'a Path>,
    /// For one machine.
    pub limit: Duration,
    pub verbose: bool,
}

/// In the guest.
const PROGRAM: &str = "/bin/hostile";
/// Folder of the CUDA programs.
const FOLDER: &str = "/samples";
const MEMORY: &str = "1G";
/// How soon an end must be noticed.
const SOON: Duration = Duration::from_secs(2);
/// Begins what the guest's program says to this side.
const MARK: &str = "@ ";

/// Runs both machines.
///
/// # Errors
/// Something on this machine failed before a guest ran.
pub fn run(options: &Options<'_>) -> Result<Vec<(String, Outcome)>> {
    if Command::new("apt-get").arg("--version").output().is_err() {
        let reason = "no apt-get to fetch kernels and QEMU with";
        return Ok(vec![("hostile".into(), Outcome::Skipped(reason.into()))]);
    }
    let means = Means::get(options)?;
    let mut results = Vec::new();
    for (name, test) in [
        ("hostile/programs", programs as fn(&Means<'_>) -> Result<String>),
        ("hostile/daemon", killed_daemon),
    ] {
        let outcome = match test(&means) {
            Ok(note) => Outcome::Passed(note),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        results.push((name.to_owned(), outcome));
    }
    Ok(results)
}

/// What both machines need.
struct Means<'a> {
    options: &'a Options<'a>,
    host: PathBuf,
    shim: PathBuf,
    module: PathBuf,
    program: PathBuf,
    samples: [&'static Sample; 2],
    kernel: Kernel,
    qemu: Qemu,
}

impl<'a> Means<'a> {
    fn get(options: &'a Options<'a>) -> Result<Self> {
        let host = match options.host {
            Some(path) => path.to_path_buf(),
            None => workspace::build_host()?,
        };
        let shim = host.with_file_name("libcuda.so");
        ensure!(shim.is_file(), "no {}", shim.display());
        let probe = PROBES.iter().find(|probe| probe.name == "shim_probe").context("shim_probe")?;
        let samples = [probe, manifest::find("vector_add").context("vector_add")?];
        nvcc::build(&Toolkit::ensure(Choice::Auto)?, &samples)?;
        kmod::build_core()?;
        Ok(Self {
            module: kmod::build(&options.release)?.path,
            program: tcg::build_program()?,
            kernel: Kernel::of(&options.release)?,
            qemu: Qemu::get()?,
            options,
            host,
            shim,
            samples,
        })
    }

    /// Lays out the guest's files.
    fn stage(&self, root: &Path) -> Result<()> {
        let inside = |path: &str| root.join(path.trim_start_matches('/'));
        stage::copy(&self.program, &inside(PROGRAM))?;
        let mut dynamic = vec![self.shim.clone()];
        for sample in self.samples {
            for file in nvcc::files(sample, Variant::Static) {
                stage::copy(&file, &inside(FOLDER).join(file.file_name().context("a program's name")?))?;
            }
            dynamic.push(nvcc::program(sample, Variant::Static));
        }
        stage::copy_libraries(&dynamic, root).map(drop)
    }
}

/// A running guest with its console.
struct Guest {
    running: Running,
    deadline: Instant,
    console: String,
    verbose: bool,
    /// What it needs while it lives.
    _memory: NamedTempFile,
}

impl Guest {
    fn start(means: &Means<'_>, scratch: &Path, memory: NamedTempFile, arguments: &[&str]) -> Result<Self> {
        means.stage(&scratch.join("root"))?;
        let text = |path: &Path| path.display().to_string();
        let (file, shim, module) = (text(memory.path()), text(&means.shim), text(&means.module));
        let program = [&[PROGRAM], arguments].concat();
        let machine = Machine {
            host: &means.host,
            kernel: &means.kernel,
            scratch,
            arguments: &[
                "--cpus",
                "2",
                "--memory",
                MEMORY,
                "--memory-file",
                &file,
                "--shim",
                &shim,
                "--module",
                &module,
            ],
            append: "loglevel=5",
            vsock: Some(&scratch.join("vhost")),
            program: &program,
            limit: means.options.limit,
        };
        let running = Running::start(&mut machine.command(&means.qemu)?)?;
        let deadline = Instant::now() + means.options.limit;
        Ok(Self {
            running,
            deadline,
            console: String::new(),
            verbose: means.options.verbose,
            _memory: memory,
        })
    }

    /// Waits until the guest's program says a line that begins so; the rest of it.
    fn wait_for(&mut self, wanted: &str) -> Result<String> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let line = self.running.line(left).with_context(|| {
                format!("waited for '{wanted}'; the console:\n{}", process::tail(&self.console, 40, "  "))
            })?;
            let line = line.trim_end_matches('\r');
            if self.verbose {
                println!("guest: {line}");
            }
            self.console.push_str(line);
            self.console.push('\n');
            // The first words may follow an unfinished line of the firmware.
            let Some(said) = line.find(MARK).map(|at| &line[at + MARK.len()..]) else { continue };
            if let Some(why) = said.strip_prefix("failed ") {
                bail!("{why}\n{}", process::tail(&self.console, 40, "  "));
            }
            if let Some(rest) = said.strip_prefix(wanted) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// The kernel has found nothing wrong.
    fn expect_no_damage(&self) -> Result<()> {
        match tcg::damage(&self.console) {
            Some(line) => bail!("the kernel says: {line}\n{}", process::tail(&self.console, 60, "  ")),
            None => Ok(()),
        }
    }
}

/// A daemon whose workers are programs' alone.
struct Daemon {
    running: Running,
}

impl Daemon {
    fn start(means: &Means<'_>, guest: &str, ready: &Path) -> Result<Self> {
        let mut command = Command::new(&means.host);
        command.args(["serve", "--backend", "cpu", "--warm-workers", "0", "--guest", guest]);
        command.env_remove("CUDA_SHIM_CONNECT").env_remove("HOST_VMM_LOG").process_group(0);
        let running = Running::start(&mut command)?;
        eventually(rig::LIMIT, "the daemon listens", || ready.exists())?;
        Ok(Self { running })
    }

    fn workers(&self) -> Result<Vec<i32>> {
        let pid = self.running.pid();
        let path = format!("/proc/{pid}/task");
        let mut workers = Vec::new();
        // Each thread has children of its own.
        for thread in fs::read_dir(&path).context(path)?.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            workers.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        workers.retain(|pid| rig::is_alive(*pid));
        Ok(workers)
    }

    fn expect_workers(&self, count: usize) -> Result<()> {
        let same = || self.workers().is_ok_and(|workers| workers.len() == count);
        eventually(SOON, "the programs' workers", same)
            .with_context(|| format!("{count} workers are to be, {:?} are", self.workers()))
    }

    /// Its log says nothing of damage.
    fn expect_health(&self) -> Result<()> {
        let log = self.running.stderr();
        let bad = log.lines().find(|line| line.contains("panicked") || line.contains(" ERROR "));
        bad.map_or(Ok(()), |line| bail!("the daemon says: {line}\n{}", process::tail(&log, 20, "  ")))
    }
}

fn scratch() -> Result<(TempDir, NamedTempFile)> {
    let scratch =
        tempfile::Builder::new().prefix("vm-hostile-").tempdir().context("a temporary directory")?;
    // Guest memory belongs into memory; the size is reserved nowhere.
    let memory = tempfile::Builder::new().prefix("guest-ram-").tempfile_in("/dev/shm");
    Ok((scratch, memory.context("a file in /dev/shm")?))
}

/// Machine 1.
fn programs(means: &Means<'_>) -> Result<String> {
    let begin = Instant::now();
    let (scratch, memory) = scratch()?;
    let socket = scratch.path().join("vhost");
    let daemon = Daemon::start(means, &format!("vhost-user={},cid=3", socket.display()), &socket)?;
    let kills = means.options.kills.to_string();
    let mut guest = Guest::start(means, scratch.path(), memory, &["hostile", "programs", &kills])?;
    let attacks = guest.wait_for("attacks")?;
    // A neighbour has worked all the time and still does.
    daemon.expect_workers(1)?;
    let killed = guest.wait_for("killed")?;
    daemon.expect_workers(0)?;
    guest.wait_for("copies")?;
    daemon.expect_workers(1)?;
    daemon.expect_health()?;
    guest.expect_no_damage()?;
    let workers = daemon.workers()?;
    guest.running.kill();
    let dead = Instant::now();
    eventually(SOON, "the workers of a killed machine end", || {
        !workers.iter().any(|pid| rig::is_alive(*pid))
    })?;
    let ended = dead.elapsed();
    daemon.expect_health()?;
    Ok(format!(
        "({attacks}; {killed}; workers gone {} ms after their machine; {} s)",
        ended.as_millis(),
        begin.elapsed().as_secs()
    ))
}

/// Machine 2.
fn killed_daemon(means: &Means<'_>) -> Result<String> {
    const TASKS: [&str; 3] = ["loop-copy", "loop-launch", "spin-wait"];
    let begin = Instant::now();
    let (scratch, memory) = scratch()?;
    let at = scratch.path();
    let prefix = at.join("vsock");
    let mut device = Helpers::default();
    let socket = at.join("vhost");
    device.start(
        Command::new(tcg::build_example("vhost_user_vsock")?).arg(&socket).arg("3").arg(&prefix),
        &at.join("device.log"),
        &socket,
    )?;
    let spec = format!("sockets={},memory={},size={MEMORY}", prefix.display(), memory.path().display());
    let ready = at.join("vsock_17237");
    let mut daemon = Daemon::start(means, &spec, &ready)?;
    let mut guest = Guest::start(means, at, memory, &[&["hostile", "daemon"], &TASKS[..]].concat())?;
    let mut slowest = Duration::ZERO;
    for task in TASKS {
        guest.wait_for(&format!("runs {task}"))?;
        daemon.expect_workers(1)?;
        let workers = daemon.workers()?;
        daemon.running.kill();
        let dead = Instant::now();
        let error = guest.wait_for("ended")?;
        let elapsed = dead.elapsed();
        ensure!(elapsed <= SOON, "{task}: an error after {} ms", elapsed.as_millis());
        ensure!(error.starts_with("CUDA_ERROR_"), "{task}: ended with '{error}'");
        eventually(SOON, "the workers of a killed daemon end", || {
            !workers.iter().any(|pid| rig::is_alive(*pid))
        })?;
        slowest = slowest.max(elapsed);
        fs::remove_file(&ready).context("the dead daemon's socket")?;
        daemon = Daemon::start(means, &spec, &ready)?;
        guest.wait_for("works")?;
        daemon.expect_workers(0)?;
    }
    daemon.expect_health()?;
    guest.expect_no_damage()?;
    Ok(format!(
        "({} daemons killed, errors within {} ms; {} s)",
        TASKS.len(),
        slowest.as_millis(),
        begin.elapsed().as_secs()
    ))
}
