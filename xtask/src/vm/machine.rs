//! A guest whose processor QEMU interprets, as `host-vmm qemu-args` describes it: one root, one program, its output on the console.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::kernel::Kernel;
use super::qemu::Qemu;
use crate::{debian, process};

/// Kernel parameters that save time on an interpreted processor; without the watchdog, which takes a busy machine for a hung one.
pub const FAST: &str = "mitigations=off no_timer_check random.trust_cpu=1 tsc=reliable nowatchdog";
/// Ends the init's output, followed by the exit code.
const TRAILER: &str = "host-vmm: the program ended with exit code ";

/// See the module.
pub struct Machine<'a> {
    pub host: &'a Path,
    pub kernel: &'a Kernel,
    /// Holds `root`, the program's files, and gets what QEMU needs.
    pub scratch: &'a Path,
    /// Further arguments of `qemu-args`.
    pub arguments: &'a [&'a str],
    /// Kernel parameters beside [`FAST`].
    pub append: &'a str,
    /// Where the back end of its vsock listens, if it has one.
    pub vsock: Option<&'a Path>,
    pub program: &'a [&'a str],
    pub limit: Duration,
}

/// What has become of it.
pub struct Ended {
    /// All that it printed.
    pub console: String,
    /// Why its end was none that it should have.
    pub problem: Option<String>,
    pub elapsed: Duration,
}

impl Machine<'_> {
    /// Runs it until its program has ended.
    ///
    /// # Errors
    /// Something on this machine failed before it ran.
    pub fn run(&self, qemu: &Qemu) -> Result<Ended> {
        let finished = qemu.shell(&self.command_line()?, self.scratch, self.limit)?;
        let console = String::from_utf8_lossy(&finished.stdout).replace('\r', "");
        let code = console.lines().find_map(|line| line.strip_prefix(TRAILER));
        let problem = match (&finished.status, code) {
            (_, Some("0")) => None,
            (None, _) => Some(format!("ended after {} s", self.limit.as_secs())),
            (_, Some(code)) => Some(format!("its program failed with exit code {code}")),
            (Some(status), None) => Some(format!("ended early ({status})")),
        };
        let problem = problem.map(|how| {
            let messages = String::from_utf8_lossy(&finished.stderr);
            format!("  {how}\n{}{}", process::tail(&console, 40, "  "), process::tail(&messages, 10, "  "))
        });
        Ok(Ended { console, problem, elapsed: finished.elapsed })
    }

    /// A command that is this machine: its standard output is the console, and killing it is killing the machine.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn command(&self, qemu: &Qemu) -> Result<Command> {
        qemu.command(&format!("exec {}", self.command_line()?), self.scratch)
    }

    fn command_line(&self) -> Result<String> {
        let mut command = Command::new(self.host);
        command.args(["qemu-args", "--tcg"]).args(self.arguments);
        match self.vsock {
            Some(socket) => command.arg("--vhost-user").arg(socket),
            None => command.arg("--no-vsock"),
        };
        command.args(["--append", &format!("{FAST} {}", self.append)]);
        command.arg("--kernel").arg(&self.kernel.vmlinux).arg("--modules").arg(&self.kernel.modules);
        command.arg("--root").arg(self.scratch.join("root"));
        command.arg("--write-initrd").arg(self.scratch.join("initrd"));
        command.arg("--").args(self.program);
        debian::run(&mut command, "host-vmm qemu-args")
    }
}
