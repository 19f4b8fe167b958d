//! `cargo xtask bench --profile`: where the time of driver calls goes, from both sides of one run.
//!
//! The program's side writes what `CUDA_SHIM_PROFILE` asks for, the host's side is the JSON of `host-vmm run --stats`; operations carry the same names in both.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::Args;
use super::items::{self, Item, Start};
use crate::gpu::{self, Setup};
use crate::manifest::BENCHMARKS;
use crate::nvcc::Variant;
use crate::process::{self, tail};
use crate::workspace;

/// Rows of a table; what comes after them takes no time worth a line.
const ROWS: usize = 25;
/// For the benchmark of calls on the CPU, which is slower with a clock in each of them.
const LIMIT: Duration = Duration::from_secs(120);

/// A line of the program's side.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Call { call: String, count: u64, total_ns: u64, wait_ns: u64 },
    Operation { operation: String, posted: bool, count: u64, encode_ns: u64, wait_ns: u64 },
}

/// An exported call. Times are sums in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Call {
    count: u64,
    total_ns: u64,
    wait_ns: u64,
}

/// An operation on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Operation {
    posted: bool,
    count: u64,
    encode_ns: u64,
    wait_ns: u64,
    /// The host's time; also for operations that are pieces of a longer exchange.
    execute_ns: u64,
}

/// What one program did.
#[derive(Debug, Default, Serialize)]
struct Profile {
    calls: BTreeMap<String, Call>,
    operations: BTreeMap<String, Operation>,
}

/// The last line on standard error of `host-vmm run --stats --json`, as far as it matters here.
#[derive(Deserialize)]
struct Closing {
    stats: Stats,
}

#[derive(Deserialize)]
struct Stats {
    calls: BTreeMap<String, Host>,
}

#[derive(Deserialize)]
struct Host {
    nanos: u64,
}

impl Profile {
    fn read(guest: &str, host: &str) -> Result<Self> {
        let mut profile = Self::default();
        for line in guest.lines() {
            match serde_json::from_str(line).with_context(|| format!("profile line '{line}'"))? {
                Line::Call { call, count, total_ns, wait_ns } => {
                    let sums = profile.calls.entry(call).or_default();
                    sums.count += count;
                    sums.total_ns += total_ns;
                    sums.wait_ns += wait_ns;
                }
                Line::Operation { operation, posted, count, encode_ns, wait_ns } => {
                    let sums = profile.operations.entry(operation).or_default();
                    sums.posted = posted;
                    sums.count += count;
                    sums.encode_ns += encode_ns;
                    sums.wait_ns += wait_ns;
                }
            }
        }
        let closing: Closing = serde_json::from_str(host).context("closing line of host-vmm")?;
        for (name, host) in closing.stats.calls {
            if let Some(sums) = profile.operations.get_mut(&name) {
                sums.execute_ns = host.nanos;
            }
        }
        Ok(profile)
    }

    fn print(&self) {
        let mean = |sum: u64, count: u64| format!("{:.2}", sum as f64 / 1e3 / count.max(1) as f64);
        let sum = |nanos: u64| format!("{:.3}", nanos as f64 / 1e6);
        let mut table = new_table(&["driver call", "calls", "sum ms", "mean us", "in the guest", "waiting"]);
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_by_key(|(_, call)| std::cmp::Reverse(call.total_ns));
        for (name, call) in calls.iter().take(ROWS) {
            let own = call.total_ns.saturating_sub(call.wait_ns);
            add_row(
                &mut table,
                name,
                [
                    call.count.to_string(),
                    sum(call.total_ns),
                    mean(call.total_ns, call.count),
                    mean(own, call.count),
                    mean(call.wait_ns, call.count),
                ],
            );
        }
        println!("{table}");
        let header = ["operation", "count", "sum ms", "marshal us", "wait us", "execute us", "on the way us"];
        let mut table = new_table(&header);
        let mut operations: Vec<_> = self.operations.iter().collect();
        operations.sort_by_key(|(_, operation)| {
            std::cmp::Reverse(operation.encode_ns + operation.wait_ns.max(operation.execute_ns))
        });
        for (name, operation) in operations.iter().take(ROWS) {
            let count = operation.count;
            // Who posts waits for room alone, while the host is busy with what came before.
            let way = if operation.posted {
                String::new()
            } else {
                mean(operation.wait_ns.saturating_sub(operation.execute_ns), count)
            };
            add_row(
                &mut table,
                name,
                [
                    count.to_string(),
                    sum(operation.encode_ns + operation.wait_ns),
                    mean(operation.encode_ns, count),
                    mean(operation.wait_ns, count),
                    mean(operation.execute_ns, count),
                    way,
                ],
            );
        }
        println!("{table}");
    }
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header);
    table
}

fn add_row<const N: usize>(table: &mut Table, name: &str, values: [String; N]) {
    let values = values.map(|value| Cell::new(value).set_alignment(CellAlignment::Right));
    table.add_row([Cell::new(name)].into_iter().chain(values));
}

/// Profiles the chosen programs, one run each.
pub fn run(args: &Args) -> Result<ExitCode> {
    if !args.gpu {
        let backend = args.backend.as_deref().unwrap_or("cpu");
        let mut command = host_command(&workspace::build_host()?, backend);
        command.arg("--").arg(super::calls::build_program()?);
        show(args, "calls", &profile(&mut command, LIMIT)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let backend = args.backend.as_deref().unwrap_or("cuda");
    if let Some(reason) = gpu::missing(backend) {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = super::gpu::select(&args.only)?;
    let setup = Setup::new(&args.options, backend, args.toolkit, &BENCHMARKS.iter().collect::<Vec<_>>())?;
    for item in chosen {
        let limit = Duration::from_secs(item.limit_s * 2);
        match profile(&mut item_command(&setup, item)?, limit) {
            Ok(profile) => show(args, item.name, &profile)?,
            // As without --profile: Python may lack a library.
            Err(error) => eprintln!("skipped: {}: {error:#}", item.name),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn host_command(host: &Path, backend: &str) -> Command {
    let mut command = Command::new(host);
    command.args(["run", "--stats", "--json", "--backend", backend]);
    command
}

fn item_command(setup: &Setup, item: &Item) -> Result<Command> {
    let mut command = host_command(&setup.host, &setup.backend);
    command.arg("--shim").arg(&setup.shim).arg("--");
    match item.start {
        Start::Program(name) => {
            let sample = BENCHMARKS.iter().find(|sample| sample.name == name).context("no such program")?;
            command.arg(setup.program(sample, Variant::Static));
        }
        Start::Script(file) => {
            command.arg(&setup.python).arg(items::script_path(file));
        }
    }
    command.args(item.arguments);
    if setup.backend == "cpu" {
        command.env("BENCH_SMALL", "1");
    }
    Ok(command)
}

fn profile(command: &mut Command, limit: Duration) -> Result<Profile> {
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let file = scratch.path().join("profile");
    command.env("CUDA_SHIM_PROFILE", &file).env_remove("CUDA_SHIM_LOG").env_remove("HOST_VMM_LOG");
    let finished = process::run_limited(command, limit)?;
    let stderr = String::from_utf8_lossy(&finished.stderr);
    match finished.status {
        Some(status) if status.success() => {}
        Some(status) => bail!("{status}\n{}", tail(&stderr, 15, "  ")),
        None => bail!("ended after {} s", limit.as_secs()),
    }
    let guest = std::fs::read_to_string(&file).context("the program wrote no profile")?;
    let profile = Profile::read(&guest, stderr.lines().last().unwrap_or_default())?;
    ensure!(!profile.calls.is_empty(), "the program made no driver calls");
    Ok(profile)
}

fn show(args: &Args, name: &str, profile: &Profile) -> Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "item": name, "profile": profile }))?);
    } else {
        println!("{name}: means per call; the clock is read in every one of them");
        profile.print();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_joined_by_name() -> Result<()> {
        let guest = r#"{"pid":1,"call":"cuMemAlloc_v2","count":2,"total_ns":30,"wait_ns":9}
{"pid":1,"operation":"cuMemAlloc_v2","posted":false,"count":2,"encode_ns":1,"wait_ns":8}
{"pid":2,"operation":"cuMemAlloc_v2","posted":false,"count":1,"encode_ns":1,"wait_ns":2}
{"pid":1,"operation":"launch","posted":true,"count":5,"encode_ns":3,"wait_ns":2}
"#;
        let host = r#"{"backend":"cpu","stats":{"calls":{"cuMemAlloc_v2":{"calls":3,"bytes":1,"nanos":4},"cuInit":{"calls":1,"bytes":1,"nanos":1}}}}"#;
        let profile = Profile::read(guest, host)?;
        assert_eq!(profile.calls["cuMemAlloc_v2"], Call { count: 2, total_ns: 30, wait_ns: 9 });
        let expected = Operation { posted: false, count: 3, encode_ns: 2, wait_ns: 10, execute_ns: 4 };
        assert_eq!(profile.operations["cuMemAlloc_v2"], expected);
        assert!(profile.operations["launch"].posted);
        assert_eq!(profile.operations.len(), 2);
        assert!(Profile::read("junk", host).is_err());
        assert!(Profile::read(guest, "host-vmm: error").is_err());
        Ok(())
    }
}
