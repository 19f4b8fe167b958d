//! Child processes: a time limit for a whole process group, and output that is kept.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// What became of a child.
pub struct Finished {
    /// Exit status; `None` when the time limit ended it.
    pub status: Option<ExitStatus>,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
    /// Wall-clock time it took.
    pub elapsed: Duration,
}

/// Output beyond this is dropped: a runaway program must not fill the memory of the test runner.
const OUTPUT_LIMIT_BYTES: usize = 16 << 20;
/// Time between a polite end and a forced one.
const GRACE: Duration = Duration::from_secs(3);
/// Time for the end of the output after the end of the program.
const PIPE_GRACE: Duration = Duration::from_secs(1);

/// Runs `command` in a process group of its own and ends the group after `limit`.
pub fn run_limited(command: &mut Command, limit: Duration) -> Result<Finished> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let stdout = Collector::start(child.stdout.take());
    let stderr = Collector::start(child.stderr.take());
    let status = wait_limited(&mut child, started + limit)?;
    Ok(Finished { status, stdout: stdout.finish(), stderr: stderr.finish(), elapsed: started.elapsed() })
}

/// Reads a pipe on a thread of its own.
struct Collector {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Collector {
    fn start(stream: Option<impl Read + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = mpsc::channel::<()>();
        let shared = Arc::clone(&kept);
        thread::spawn(move || {
            // Dropped with the thread: that is the message.
            let _end = end;
            let Some(mut stream) = stream else { return };
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let mut kept = lock(&shared);
                let room = OUTPUT_LIMIT_BYTES.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..length.min(room)]);
            }
        });
        Self { kept, ended }
    }

    /// What was read. A process that left the group may keep the pipe open for ever: it is not waited for.
    fn finish(self) -> Vec<u8> {
        let _ = self.ended.recv_timeout(PIPE_GRACE);
        std::mem::take(&mut *lock(&self.kept))
    }
}

/// Bytes that were read stay good if the reader panicked.
fn lock(bytes: &Mutex<Vec<u8>>) -> std::sync::MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn wait_limited(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let signal_group = |signal| {
        if let Some(group) = group {
            // Fails only if the group is gone already.
            let _ = kill_process_group(group, signal);
        }
    };
    if let Some(status) = wait_until(child, deadline)? {
        // Whatever the program left running in its group would keep our pipes open.
        signal_group(Signal::KILL);
        return Ok(Some(status));
    }
    signal_group(Signal::TERM);
    wait_until(child, Instant::now() + GRACE)?;
    signal_group(Signal::KILL);
    child.wait().context("cannot wait for a child")?;
    Ok(None)
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    // Woken by the end itself, since the time that a program took may be what is asked for.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        match &ended {
            Some(ended) => {
                let left = Timespec::try_from(left).ok();
                // An interruption only means one more look.
                let _ = poll(&mut [PollFd::new(ended, PollFlags::IN)], left.as_ref());
            }
            None => thread::sleep(left.min(Duration::from_millis(5))),
        }
    }
}

/// The last `lines` lines of `text`, each with `indent` in front.
pub fn tail(text: &str, lines: usize, indent: &str) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("{indent}{line}\n")).collect()
}
