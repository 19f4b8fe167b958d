//! What the tests of the library run programs with: private daemons, programs that are talked to, a look at what is left behind.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::manifest::{self, PROBES};
use crate::nvcc::{self, Variant};
use crate::process::{self, Finished, tail};

/// Time for what takes a fraction of a second on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Settings of the person who runs the tests would change what is tested.
const SETTINGS: [&str; 8] = [
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "CUDA_SHIM_CONNECT",
    "CUDA_SHIM_LOG",
    "CUDA_VISIBLE_DEVICES",
    "HOST_VMM_LOG",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
];

/// The built programs.
pub struct Rig {
    pub host: PathBuf,
    pub shim: PathBuf,
    pub runs: u32,
}

/// A folder for one test. Its path is in the environment of all processes of the test, so that they can be told from others.
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("library-test-").tempdir();
        Ok(Self { dir: dir.context("cannot make a temporary directory")? })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Fails if processes of the test are still there after `limit`, or if they left files.
    pub fn expect_clean(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            ensure!(begin.elapsed() < limit, "left behind after {limit:?}: {left:?}");
            thread::sleep(Duration::from_millis(5));
        }
        let files: Vec<_> = fs::read_dir(self.path())?.flatten().map(|entry| entry.file_name()).collect();
        ensure!(files.is_empty(), "files left behind: {files:?}");
        Ok(())
    }

    fn processes(&self) -> Vec<Process> {
        let marker = self.path().to_string_lossy().into_owned();
        let mut all = processes();
        all.retain(|process| {
            let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&marker)
        });
        all
    }
}

/// A process from /proc.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    parent: i32,
    name: String,
}

/// Whether a process has not ended. Orphans may wait long for being collected.
pub fn is_alive(pid: i32) -> bool {
    processes().iter().any(|process| process.pid == pid)
}

/// All processes that have not ended.
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (head, rest) = stat.rsplit_once(')')?;
            let mut fields = rest.split_whitespace();
            let state = fields.next()?;
            let parent = fields.next()?.parse().ok()?;
            let name = head.split_once('(')?.1.to_owned();
            (state != "Z").then_some(Process { pid, parent, name })
        })
        .collect()
}

impl Rig {
    pub fn new(host: &Path, runs: u32) -> Result<Self> {
        let host = host.canonicalize().with_context(|| format!("host program {}", host.display()))?;
        let shim = host.with_file_name("libcuda.so");
        ensure!(shim.is_file(), "no {}", shim.display());
        Ok(Self { host, shim, runs })
    }

    /// A sample or a probe.
    pub fn program(&self, name: &str, variant: Variant) -> Result<PathBuf> {
        let probe = PROBES.iter().find(|probe| probe.name == name);
        let sample = probe.or_else(|| manifest::find(name)).with_context(|| format!("no program {name}"))?;
        Ok(nvcc::program(sample, variant))
    }

    fn clean(command: &mut Command, scratch: &Scratch) {
        for name in SETTINGS {
            command.env_remove(name);
        }
        command.env("TMPDIR", scratch.path());
    }

    /// `host-vmm run -q OPTIONS -- PROGRAM`; arguments for the program can be added.
    pub fn run(&self, scratch: &Scratch, options: &[&str], program: &Path) -> Command {
        let mut command = Command::new(&self.host);
        command.args(["run", "-q", "--backend", "cpu"]).args(options).arg("--").arg(program);
        Self::clean(&mut command, scratch);
        command
    }

    /// `host-vmm run -q -- shim_probe TASK`, for both variants of the probe; each must print PASS.
    pub fn pass(&self, task: &str, times: u32) -> Result<()> {
        for variant in Variant::ALL {
            for _ in 0..times {
                let scratch = Scratch::new()?;
                let program = self.program("shim_probe", variant)?;
                let finished = finish(self.run(&scratch, &[], &program).arg(task))?;
                expect_output(&finished, 0, "PASS\n")
                    .with_context(|| format!("{task}, {}", variant.name()))?;
                scratch.expect_clean(Duration::from_secs(2))?;
            }
        }
        Ok(())
    }
}

/// Runs a command to its end; a limit means that it hangs.
pub fn finish(command: &mut Command) -> Result<Finished> {
    let finished = process::run_limited(command, LIMIT)?;
    if finished.status.is_none() {
        bail!(
            "{command:?} hangs\n{}{}",
            String::from_utf8_lossy(&finished.stdout),
            String::from_utf8_lossy(&finished.stderr)
        );
    }
    Ok(finished)
}

pub fn stdout(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.stdout).into_owned()
}

pub fn stderr(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.stderr).into_owned()
}

/// Fails unless exit code and standard output are these.
pub fn expect_output(finished: &Finished, code: i32, output: &str) -> Result<()> {
    let (out, err) = (stdout(finished), stderr(finished));
    let status = finished.status.and_then(|status| status.code());
    ensure!(
        status == Some(code) && out == output,
        "{:?} instead of exit code {code}; expected output:\n{}output:\n{}standard error:\n{}",
        finished.status,
        tail(output, 10, "  "),
        tail(&out, 20, "  "),
        tail(&err, 20, "  ")
    );
    Ok(())
}

/// Fails unless the regular expression matches somewhere in the text (`^` and `$`: of lines).
pub fn expect_match(text: &str, pattern: &str) -> Result<()> {
    let regex = regex::RegexBuilder::new(pattern).multi_line(true).build()?;
    ensure!(regex.is_match(text), "nothing matches {pattern} in:\n{}", tail(text, 30, "  "));
    Ok(())
}

/// Waits until `done`, at most `limit`.
pub fn eventually(limit: Duration, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !done() {
        ensure!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// `host-vmm serve` with a folder that has the shim under its soname.
pub struct Daemon {
    running: Running,
    address: String,
    library_dir: PathBuf,
    scratch: Scratch,
}

impl Daemon {
    /// Without warm workers: tests count workers, and each of them is to be a program's.
    pub fn start(rig: &Rig) -> Result<Self> {
        Self::start_warm(rig, 0)
    }

    pub fn start_warm(rig: &Rig, warm_workers: u32) -> Result<Self> {
        let scratch = Scratch::new()?;
        let library_dir = scratch.file("lib");
        fs::create_dir(&library_dir)?;
        symlink(&rig.shim, library_dir.join("libcuda.so.1"))?;
        let socket = scratch.file("socket");
        let address = format!("unix:{}", socket.display());
        let mut command = Command::new(&rig.host);
        command.args(["serve", "--backend", "cpu", "--listen", &address]);
        command.args(["--warm-workers", &warm_workers.to_string()]);
        Rig::clean(&mut command, &scratch);
        let running = Running::start(&mut command)?;
        eventually(LIMIT, "the daemon listens", || socket.exists())?;
        Ok(Self { running, address, library_dir, scratch })
    }

    /// A program whose libcuda is the shim, connected to this daemon.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        Rig::clean(&mut command, &self.scratch);
        command.env("LD_LIBRARY_PATH", &self.library_dir).env("CUDA_SHIM_CONNECT", &self.address);
        command
    }

    /// What the daemon and its workers have logged.
    pub fn log(&self) -> String {
        self.running.stderr()
    }

    pub fn kill(&self) {
        self.running.kill();
    }

    pub fn workers(&self) -> Vec<i32> {
        let daemon = self.running.pid();
        processes().iter().filter(|process| process.parent == daemon).map(|process| process.pid).collect()
    }

    /// Workers that wait for a program.
    pub fn warm(&self) -> Vec<i32> {
        let daemon = self.running.pid();
        let warm = |process: &&Process| process.parent == daemon && process.name == "warm-worker";
        processes().iter().filter(warm).map(|process| process.pid).collect()
    }

    /// Numbers of its open descriptors and of its memory mappings.
    pub fn resources(&self) -> Result<(usize, usize)> {
        let process = PathBuf::from(format!("/proc/{}", self.running.pid()));
        let mappings = fs::read_to_string(process.join("maps"))?.lines().count();
        Ok((fs::read_dir(process.join("fd"))?.count(), mappings))
    }

    /// Fails unless the daemon has no worker after `limit`.
    pub fn expect_idle(&self, limit: Duration) -> Result<()> {
        eventually(limit, "all workers are gone", || self.workers().is_empty())
    }
}

/// A process that is watched, talked to and killed; it is killed at the latest when this is dropped.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: Arc<Mutex<String>>,
    /// Of standard error.
    reader: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let (send, lines) = mpsc::channel();
        let errors = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&errors);
        read_lines(child.stdout.take(), move |line| drop(send.send(line)));
        let reader = read_lines(child.stderr.take(), move |line| {
            let mut errors = shared.lock().unwrap_or_else(PoisonError::into_inner);
            errors.push_str(&line);
            errors.push('\n');
        });
        Ok(Self { child, lines, errors, reader })
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn kill(&self) {
        kill(self.pid());
    }

    pub fn stderr(&self) -> String {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the next line of output.
    pub fn line(&self, limit: Duration) -> Result<String> {
        self.lines
            .recv_timeout(limit)
            .with_context(|| format!("no output; standard error:\n{}", self.stderr()))
    }

    pub fn expect_line(&self, expected: &str) -> Result<()> {
        let line = self.line(LIMIT)?;
        ensure!(line == expected, "printed '{line}' instead of '{expected}'");
        Ok(())
    }

    /// Closes the program's input, waits for its end and returns its status, the rest of its output, and its standard error.
    pub fn end(mut self, limit: Duration) -> Result<(ExitStatus, Vec<String>, String)> {
        drop(self.child.stdin.take());
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                let lines = self.lines.iter().collect();
                // Ends with the program, unless another process holds it.
                if let Some(reader) = self.reader.take() {
                    let _ = reader.join();
                }
                return Ok((status, lines, self.stderr()));
            }
            ensure!(
                begin.elapsed() < limit,
                "still runs after {limit:?}; standard error:\n{}",
                self.stderr()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(
    stream: Option<impl Read + Send + 'static>,
    each: impl FnMut(String) + Send + 'static,
) -> Option<JoinHandle<()>> {
    let stream = stream?;
    Some(thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).for_each(each)))
}

/// SIGKILL. The process must be a child that has not been waited for, or one that is known to live.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}
