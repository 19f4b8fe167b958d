//! What a driver call costs a program, through the whole stack on this machine.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::Args;
use crate::workspace;

/// Nanoseconds of one operation.
#[derive(Clone, Copy, Deserialize, Serialize)]
struct Figure {
    min: f64,
    median: f64,
    p99: f64,
}

#[derive(Deserialize, Serialize)]
struct Copies {
    bytes: u64,
    memcpy_ns: Figure,
    pageable_in_ns: Figure,
    pageable_out_ns: Figure,
    pinned_in_ns: Figure,
    pinned_out_ns: Figure,
}

/// What `libcuda-shim/examples/call_bench.rs` prints.
#[derive(Deserialize, Serialize)]
struct Run {
    first_context_us: f64,
    local_call_ns: Figure,
    sync_round_trip_ns: Figure,
    posted_launch_ns: Figure,
    launch_and_sync_ns: Figure,
    malloc_free_1mib_ns: Figure,
    copies: Vec<Copies>,
}

/// Targets on this lane (2026): microseconds at most, or percent of memcpy at least.
const ROUND_TRIP_US: f64 = 15.0;
const LAUNCH_US: f64 = 1.0;
const COPY_PERCENT: f64 = 70.0;

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.runs == 0 {
        bail!("--runs must be at least 1");
    }
    let host = workspace::build_host()?;
    let program = build_program()?;
    let runs = (0..args.runs)
        .map(|number| {
            eprintln!("run {} of {}", number + 1, args.runs);
            let output = Command::new(&host)
                .args(["run", "--quiet", "--backend", args.backend.as_deref().unwrap_or("cpu"), "--"])
                .arg(&program)
                .output()
                .with_context(|| format!("cannot run {}", host.display()))?;
            if !output.status.success() {
                bail!("the benchmark failed:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
            }
            serde_json::from_slice(&output.stdout)
                .context("the benchmark printed something else than its JSON")
        })
        .collect::<Result<Vec<Run>>>()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&runs)?);
    } else {
        print_calls(&runs);
        print_copies(&runs);
    }
    Ok(ExitCode::SUCCESS)
}

pub fn build_program() -> Result<std::path::PathBuf> {
    let status = workspace::cargo()
        .args(["build", "--release", "-p", "libcuda-shim", "--example", "call_bench"])
        .status()
        .context("cannot run cargo build")?;
    if !status.success() {
        bail!("cargo build of the benchmark failed ({status})");
    }
    Ok(workspace::target_dir()?.join("release/examples/call_bench"))
}

/// Median of the runs' medians, and the best of all.
fn over(runs: &[Run], of: impl Fn(&Run) -> Figure) -> (f64, f64) {
    let best = runs.iter().map(|run| of(run).min).fold(f64::INFINITY, f64::min);
    (median(runs.iter().map(|run| of(run).median).collect()), best)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header);
    table
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn print_calls(runs: &[Run]) {
    let mut table = table(&["call", "median us", "best us", "target us"]);
    let mut row = |name: &str, (median, best): (f64, f64), target: Option<f64>| {
        table.add_row([
            Cell::new(name),
            number(format!("{:.3}", median / 1e3)),
            number(format!("{:.3}", best / 1e3)),
            number(target.map_or(String::new(), |target| format!("<= {target}"))),
        ]);
    };
    row("local call (cuCtxGetCurrent)", over(runs, |run| run.local_call_ns), None);
    row(
        "synchronous round trip (cuMemGetInfo)",
        over(runs, |run| run.sync_round_trip_ns),
        Some(ROUND_TRIP_US),
    );
    row("posted launch, caller's time", over(runs, |run| run.posted_launch_ns), Some(LAUNCH_US));
    row("launch and synchronise", over(runs, |run| run.launch_and_sync_ns), None);
    row("allocate and free 1 MiB", over(runs, |run| run.malloc_free_1mib_ns), None);
    let first = runs.iter().map(|run| run.first_context_us * 1e3);
    let best = first.clone().fold(f64::INFINITY, f64::min);
    row("cuInit to the first context", (median(first.collect()), best), None);
    println!("{table}");
}

/// A direction of a copy, as a column.
type Direction = fn(&Copies) -> Figure;

fn print_copies(runs: &[Run]) {
    let directions: [(&str, Direction); 4] = [
        ("pageable in", |copies| copies.pageable_in_ns),
        ("pageable out", |copies| copies.pageable_out_ns),
        ("pinned in", |copies| copies.pinned_in_ns),
        ("pinned out", |copies| copies.pinned_out_ns),
    ];
    let mut header = vec!["bytes", "memcpy GB/s"];
    header.extend(directions.iter().map(|(name, _)| *name));
    let mut table = table(&header);
    for index in 0..runs[0].copies.len() {
        let bytes = runs[0].copies[index].bytes;
        let memcpy = median(runs.iter().map(|run| run.copies[index].memcpy_ns.median).collect());
        let mut cells = vec![number(bytes.to_string()), number(format!("{:.1}", bytes as f64 / memcpy))];
        for (_, of) in directions {
            // The ratio within each run: both sides of it met the same machine.
            let ratios = runs
                .iter()
                .map(|run| run.copies[index].memcpy_ns.median / of(&run.copies[index]).median * 100.0);
            cells.push(number(format!("{:.0} %", median(ratios.collect()))));
        }
        table.add_row(cells);
    }
    println!("{table}");
    println!(
        "copies: percent of memcpy in the same run, median of {} runs; target at 64 MiB >= {COPY_PERCENT} %",
        runs.len()
    );
}
