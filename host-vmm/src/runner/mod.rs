//! `host-vmm run`: a private daemon, the shim in front of a program, and nothing left behind.
//!
//! The daemon runs on threads of this process; its workers notice the end of this process by the hang-up of their socket, however it
//! comes about.

mod shim;
pub(crate) mod signals;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde::Serialize;

use crate::cli::{ReportArgs, RunArgs};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::daemon::access::Access;
use crate::daemon::pool::Settings;
use crate::stats::Report;
use signals::Signals;
use transport::Address;

/// Exit codes when the program did not run, as `env`, `timeout` and shells have them.
pub const EXIT_NOT_STARTED: u8 = 125;
pub(crate) const EXIT_NOT_EXECUTABLE: u8 = 126;
pub(crate) const EXIT_NOT_FOUND: u8 = 127;

/// Runs the program and returns the exit code for it.
///
/// # Errors
/// Something before the program's start failed.
pub fn run(args: &RunArgs, config: &Config) -> anyhow::Result<u8> {
    let shim = shim::find(args.shim.as_deref())?;
    let signals = Signals::install(false).context("cannot install signal handlers")?;
    let dir = tempfile::Builder::new()
        .prefix("host-vmm-")
        .tempdir()
        .context("cannot make a temporary directory; check TMPDIR")?;
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::os::unix::fs::symlink(&shim, dir.path().join(name)).context("cannot link the shim")?;
    }
    let socket = dir.path().join("socket");
    let address = if args.stream { Address::UnixStream(socket) } else { Address::Unix(socket) };
    let config = Config { timing: args.report.stats, ..config.clone() };
    // Most programs have one process that uses the driver; a place that is filled again would be for nobody.
    let warm = Settings { workers: args.warm_workers, refill: false };
    let daemon = Daemon::start(std::slice::from_ref(&address), &config, Access::default(), warm)?;

    let (program, arguments) = args.program.split_first().context("no program given")?;
    let mut command = Command::new(program);
    command.args(arguments).env("CUDA_SHIM_CONNECT", address.to_string());
    if args.preload {
        command.env("LD_PRELOAD", prefixed(&dir.path().join("libcuda.so.1"), "LD_PRELOAD"));
    } else {
        command.env("LD_LIBRARY_PATH", prefixed(dir.path(), "LD_LIBRARY_PATH"));
    }
    let started = command.spawn();
    let code = match started {
        Ok(child) => exit_code(supervise(child, &signals)?),
        Err(error) => {
            eprintln!("host-vmm: error: cannot run {}: {error}", program.display());
            match error.kind() {
                std::io::ErrorKind::NotFound => EXIT_NOT_FOUND,
                std::io::ErrorKind::PermissionDenied => EXIT_NOT_EXECUTABLE,
                _ => EXIT_NOT_STARTED,
            }
        }
    };
    let report = daemon.stop();
    drop(dir);
    print_report(args.report, config.backend.name(), &report);
    Ok(code)
}

/// `first` and what the variable holds already, separated by a colon.
fn prefixed(first: &Path, variable: &str) -> OsString {
    let mut value = first.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os(variable).filter(|rest| !rest.is_empty()) {
        value.push(OsStr::new(":"));
        value.push(rest);
    }
    value
}

/// Waits for the program's end and passes signals on to it meanwhile.
fn supervise(mut child: Child, signals: &Signals) -> anyhow::Result<ExitStatus> {
    let pid =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the program has no process id")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the program")?;
    loop {
        let mut fds =
            [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the program"),
        }
        if let Some(status) = child.try_wait().context("cannot wait for the program")? {
            return Ok(status);
        }
        for signal in signals.take() {
            if let Some(signal) = Signal::from_named_raw(signal) {
                // The program has not been waited for, so the id is still its own.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Says on standard error what the program did.
pub(crate) fn print_report(args: ReportArgs, backend: &str, report: &Report) {
    #[derive(Serialize)]
    struct Closing<'a> {
        backend: &'a str,
        sessions: u64,
        kernels: usize,
        launches: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        stats: Option<&'a Report>,
    }
    let mut text = String::new();
    if args.json {
        let closing = Closing {
            backend,
            sessions: report.sessions,
            kernels: report.kernels.len(),
            launches: report.launches,
            stats: args.stats.then_some(report),
        };
        if args.stats || !args.quiet {
            text = serde_json::to_string(&closing).unwrap_or_default() + "\n";
        }
    } else {
        if args.stats {
            text += &report.table();
        }
        if !args.quiet {
            text += &format!("host-vmm: {}\n", report.summary(backend));
        }
    }
    // Standard error may be closed; the program's exit code matters more.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
