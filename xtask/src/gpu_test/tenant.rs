//! Programs that run side by side (samples/multi/tenant.cpp), and what the daemon holds for them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::gpu::{self, Daemon, Leg, Setup};
use crate::manifest::MULTI;
use crate::nvcc::Variant;

/// A running program; it is killed when it goes out of scope.
pub struct Tenant {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Tenant {
    /// Starts one; it is not set up yet.
    pub fn spawn(setup: &Setup, daemon: &Daemon, leg: Leg, arguments: &[&str]) -> Result<Self> {
        let mut command = setup.command(&setup.program(&MULTI[0], Variant::Static), leg, daemon);
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a tenant")?;
        let output = child.stdout.take().context("no output")?;
        Ok(Self { child, output: BufReader::new(output) })
    }

    /// The next line; the program ends itself if it hangs, and then there is none.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read a tenant's output")?;
        ensure!(!line.is_empty(), "a tenant ended without a word ({:?})", self.child.try_wait());
        Ok(line.trim_end().to_owned())
    }

    /// Waits until it is set up.
    pub fn ready(&mut self) -> Result<()> {
        let line = self.line()?;
        ensure!(line == "ready", "a tenant did not get ready: {line}");
        Ok(())
    }

    pub fn begin(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("no input")?;
        stdin.write_all(b"begin\n").context("cannot start a tenant's work")
    }

    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill a tenant")
    }

    /// Its end, which has to be a good one.
    pub fn end(mut self) -> Result<()> {
        let status = self.child.wait().context("cannot wait for a tenant")?;
        ensure!(status.success(), "a tenant ended: {status}");
        Ok(())
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rounds per second of all of `count` programs that work at the same time for `seconds`.
pub fn throughput(setup: &Setup, daemon: &Daemon, leg: Leg, count: usize, seconds: u32) -> Result<f64> {
    let seconds = seconds.to_string();
    let mut tenants = Vec::new();
    for seed in 0..count {
        tenants.push(Tenant::spawn(setup, daemon, leg, &["work", &seconds, &seed.to_string()])?);
    }
    for tenant in &mut tenants {
        tenant.ready()?;
    }
    for tenant in &mut tenants {
        tenant.begin()?;
    }
    let mut sum = 0.0;
    for mut tenant in tenants {
        let line = tenant.line()?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["rounds", rounds, "seconds", time] = words[..] else { bail!("a tenant says: {line}") };
        sum += rounds.parse::<f64>()? / time.parse::<f64>()?;
        tenant.end()?;
    }
    Ok(sum)
}

/// What a faulting program is told: the error, and what comes after it.
pub fn fault(setup: &Setup, daemon: &Daemon, leg: Leg) -> Result<String> {
    let mut tenant = Tenant::spawn(setup, daemon, leg, &["fault"])?;
    tenant.ready()?;
    tenant.begin()?;
    let line = tenant.line()?;
    tenant.end()?;
    Ok(line)
}

/// What a daemon has in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Its child processes, in order: workers in use and in reserve.
    pub workers: Vec<u32>,
    pub descriptors: usize,
    /// Resident memory in KiB.
    pub memory_kib: u64,
    /// Used memory of the device in MiB, with that of everybody else.
    pub device_mib: u64,
}

impl Holdings {
    pub fn of(daemon: &Daemon) -> Self {
        let pid = daemon.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Self {
            workers: children(pid),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            memory_kib: resident.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0),
            device_mib: gpu::used_memory().unwrap_or(0) >> 20,
        }
    }

    /// Waits until nothing changes any more: programs have ended, the reserve is full again.
    pub fn settled(daemon: &Daemon) -> Self {
        const QUIET: Duration = Duration::from_millis(1500);
        const LONGEST: Duration = Duration::from_secs(15);
        let begin = Instant::now();
        let mut workers = children(daemon.pid());
        let mut since = Instant::now();
        while since.elapsed() < QUIET && begin.elapsed() < LONGEST {
            std::thread::sleep(Duration::from_millis(50));
            let now = children(daemon.pid());
            if now != workers {
                workers = now;
                since = Instant::now();
            }
        }
        Self::of(daemon)
    }

    /// What is in use now and was not before, beyond what may vary.
    pub fn leaks_since(&self, before: &Self) -> Option<String> {
        let mut leaks = Vec::new();
        if self.workers.len() > before.workers.len() {
            leaks.push(format!("{} workers, before {}", self.workers.len(), before.workers.len()));
        }
        if self.descriptors > before.descriptors + 2 {
            leaks.push(format!("{} descriptors, before {}", self.descriptors, before.descriptors));
        }
        if self.memory_kib > before.memory_kib + (32 << 10) {
            leaks.push(format!("{} KiB of memory, before {}", self.memory_kib, before.memory_kib));
        }
        if self.device_mib > before.device_mib + 64 {
            leaks.push(format!("{} MiB of device memory, before {}", self.device_mib, before.device_mib));
        }
        (!leaks.is_empty()).then(|| leaks.join("; "))
    }
}

/// Processes whose parent is `pid`, the ended ones left out.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|child| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            // The name, in parentheses, may hold anything: state and parent follow the last one.
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            let (state, parent) = (fields.next(), fields.next());
            state != Some("Z") && parent.and_then(|parent| parent.parse().ok()) == Some(pid)
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn children_are_found_until_they_end() -> Result<()> {
        let mut child = Command::new("sleep").arg("60").spawn()?;
        let id = child.id();
        assert!(children(std::process::id()).contains(&id));
        child.kill()?;
        child.wait()?;
        assert!(!children(std::process::id()).contains(&id));
        Ok(())
    }

    #[test]
    fn only_growth_is_a_leak() {
        let before = Holdings { workers: vec![1, 2], descriptors: 20, memory_kib: 10_000, device_mib: 500 };
        assert_eq!(before.leaks_since(&before), None);
        let less = Holdings { workers: vec![7], descriptors: 10, memory_kib: 1, device_mib: 0 };
        assert_eq!(less.leaks_since(&before), None);
        for more in [
            Holdings { workers: vec![1, 2, 3], ..before.clone() },
            Holdings { descriptors: 23, ..before.clone() },
            Holdings { memory_kib: 50_000, ..before.clone() },
            Holdings { device_mib: 1000, ..before.clone() },
        ] {
            assert!(more.leaks_since(&before).is_some(), "{more:?}");
        }
    }
}
