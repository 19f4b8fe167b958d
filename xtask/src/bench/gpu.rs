//! `cargo xtask bench --gpu`: each item in rounds, natively and through the shim in turns, as a table of ratios.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::json;

use super::Args;
use super::figures::{Figure, Figures, Targets};
use super::items::{self, ITEMS, Item, Start};
use crate::gpu::{self, Daemon, Leg, Setup};
use crate::manifest::BENCHMARKS;
use crate::nvcc::Variant;
use crate::process::{self, tail};

/// All rounds of all items; a run on its own machine should not need more.
const DEFAULT_LIMIT_S: u64 = 300;
/// The daemon prepares the next worker in this time, as it would between two programs of a user. With two GPUs the driver's start takes more than a second.
const PAUSE: Duration = Duration::from_secs(2);

/// Items that did not run, or not to their end, and why.
type Skipped = Vec<(String, String)>;

pub fn run(args: &Args) -> Result<ExitCode> {
    let backend = args.backend.as_deref().unwrap_or("cuda");
    if let Some(reason) = gpu::missing(backend) {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let chosen = select(&args.only)?;
    let setup = Setup::new(&args.options, backend, args.toolkit, &BENCHMARKS.iter().collect::<Vec<_>>())?;
    let daemon = Daemon::start(&setup, &[])?;
    let deadline = Instant::now() + Duration::from_secs(args.options.limit.unwrap_or(DEFAULT_LIMIT_S));
    let mut figures = Figures::default();
    let mut skipped = Skipped::new();
    for item in chosen {
        measure(args.rounds, &setup, &daemon, item, deadline, &mut figures, &mut skipped)?;
    }
    report(args, &setup, &figures, &skipped)?;
    Ok(ExitCode::SUCCESS)
}

pub fn select(only: &[String]) -> Result<Vec<&'static Item>> {
    let chosen: Vec<&Item> = ITEMS
        .iter()
        .filter(|item| only.is_empty() || only.iter().any(|name| item.name.contains(name.as_str())))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ITEMS.iter().map(|item| item.name).collect();
        bail!("no such benchmark; there are: {}", names.join(", "));
    }
    Ok(chosen)
}

/// The command of an item on a leg.
pub fn command(setup: &Setup, daemon: &Daemon, item: &Item, leg: Leg) -> Result<Command> {
    let mut command = match item.start {
        Start::Program(name) => {
            let sample = BENCHMARKS.iter().find(|sample| sample.name == name).context("no such program")?;
            setup.command(&setup.program(sample, Variant::Static), leg, daemon)
        }
        Start::Script(file) => {
            let mut command = setup.command(&setup.python, leg, daemon);
            command.arg(items::script_path(file));
            command
        }
    };
    command.args(item.arguments);
    Ok(command)
}

fn measure(
    rounds: usize,
    setup: &Setup,
    daemon: &Daemon,
    item: &Item,
    deadline: Instant,
    figures: &mut Figures,
    skipped: &mut Skipped,
) -> Result<()> {
    let mut legs = setup.legs().to_vec();
    for round in 0..rounds {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            skipped.push((item.name.to_owned(), format!("out of time after {round} of {rounds} rounds")));
            return Ok(());
        }
        eprintln!("bench: {} {}/{rounds}", item.name, round + 1);
        for &leg in &legs {
            for _ in 0..item.repeat {
                if item.whole_process {
                    std::thread::sleep(PAUSE);
                }
                if let Some(reason) = run_once(setup, daemon, item, leg, figures)? {
                    let first = reason.lines().next().unwrap_or_default().to_owned();
                    eprint!("bench: {} on the {} leg: {reason}", item.name, leg.name());
                    skipped.push((
                        item.name.to_owned(),
                        format!("{} leg, round {}: {first}", leg.name(), round + 1),
                    ));
                    // Once more would cost as much time and say the same.
                    return Ok(());
                }
            }
        }
        legs.reverse();
    }
    Ok(())
}

/// Runs an item on a leg and takes its figures. What it returns is why it did not come to its end.
fn run_once(
    setup: &Setup,
    daemon: &Daemon,
    item: &Item,
    leg: Leg,
    figures: &mut Figures,
) -> Result<Option<String>> {
    let finished =
        process::run_limited(&mut command(setup, daemon, item, leg)?, Duration::from_secs(item.limit_s))?;
    figures.add_output(item.name, leg, &String::from_utf8_lossy(&finished.stdout))?;
    let stderr = tail(&String::from_utf8_lossy(&finished.stderr), 15, "  ");
    match finished.status {
        Some(status) if status.success() => {
            if item.whole_process {
                let name = "first CUDA call, whole process";
                figures.add(item.name, leg, name, finished.elapsed.as_secs_f64() * 1e3, "ms", "lower");
            }
            Ok(None)
        }
        Some(status) => {
            let log = if leg == Leg::Shim { daemon.log() } else { String::new() };
            Ok(Some(format!("{status}\n{stderr}{log}")))
        }
        None => Ok(Some(format!("ended after {} s\n{stderr}", item.limit_s))),
    }
}

fn report(args: &Args, setup: &Setup, figures: &Figures, skipped: &Skipped) -> Result<()> {
    let device = if setup.backend == "cpu" { "CPU backend".to_owned() } else { gpu::describe() };
    if args.json {
        let rows: Vec<_> = figures
            .all
            .iter()
            .map(|figure| {
                let target = figure.target(items::target);
                json!({
                    "figure": figure,
                    "ratio": figure.ratio(),
                    "target": target.as_ref().map(|(text, _)| text),
                    "met": target.and_then(|(_, met)| met),
                })
            })
            .collect();
        let skipped: Vec<_> =
            skipped.iter().map(|(item, reason)| json!({ "item": item, "reason": reason })).collect();
        let all = json!({ "device": device, "rounds": args.rounds, "figures": rows, "skipped": skipped });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!(
        "{device}; {} rounds, medians; ratio = shim / native, with its extremes over the rounds",
        args.rounds
    );
    print_table(&figures.all, "shim", items::target);
    for (item, reason) in skipped {
        println!("skipped: {item}: {reason}");
    }
    Ok(())
}

/// Prints figures and how many have reached what is wanted; `shim` names the leg that is not native.
pub fn print_table(figures: &[Figure], shim: &str, targets: Targets) {
    println!("{}", table(figures, shim, targets));
    let met: Vec<bool> = figures.iter().filter_map(|figure| figure.target(targets)?.1).collect();
    println!("targets: {} of {} met", met.iter().filter(|met| **met).count(), met.len());
}

fn table(figures: &[Figure], shim: &str, targets: Targets) -> Table {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["figure", "unit", "native", shim, "ratio", "min..max", "target", "met"]);
    for figure in figures {
        let value = |leg| match (figure.median(leg), figure.error(leg)) {
            (Some(value), _) => number(value),
            (None, Some(error)) => error.to_owned(),
            (None, None) => "-".to_owned(),
        };
        let ratio = figure.ratio();
        let target = figure.target(targets);
        table.add_row([
            Cell::new(&figure.name),
            Cell::new(&figure.unit),
            right(value(Leg::Native)),
            right(value(Leg::Shim)),
            right(ratio.map_or(String::new(), |ratio| format!("{:.2}", ratio.median))),
            right(ratio.map_or(String::new(), |ratio| format!("{:.2}..{:.2}", ratio.min, ratio.max))),
            Cell::new(target.as_ref().map_or("", |(text, _)| text)),
            Cell::new(match target {
                Some((_, Some(true))) => "yes",
                Some((_, Some(false))) => "NO",
                Some((_, None)) => "?",
                None => "",
            }),
        ]);
    }
    table
}

/// Three significant digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
