//! Programs of named sections on both legs: the library programs and the transcripts of driver calls.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::sections::{self, Rule, Section};
use super::{Rows, Run};
use crate::gpu::{Leg, parallel};
use crate::manifest::{BEHAVIOUR, LIBRARIES, Sample};
use crate::nvcc::Variant;
use crate::process::{self, Finished, tail};
use crate::test::Outcome;
use crate::workspace;

/// What an item starts.
#[derive(Clone, Copy)]
enum Start {
    Program(&'static Sample),
    /// A script in `samples/libraries`, and those of its sections that belong to the item (none: all).
    Script(&'static str, &'static [&'static str]),
}

/// A program whose output consists of sections.
struct Item {
    name: &'static str,
    start: Start,
    /// Seconds on one leg.
    limit_s: u64,
}

/// PyTorch takes ten seconds to start: its sections are spread over a few processes that run side by side.
/// The longest are the first.
const SCRIPTS: &[Item] = &[
    script("torch-compile", "torch_checks.py", &["compiled", "compiled_graphs"], 200),
    script("cupy", "cupy_checks.py", &[], 200),
    script(
        "torch-data",
        "torch_checks.py",
        &["loader_inline", "loader_fork", "loader_spawn", "shared_tensors"],
        150,
    ),
    script("torch-training", "torch_checks.py", &["gpt_bf16", "cuda_graphs", "convolution_adam"], 120),
    script(
        "torch",
        "torch_checks.py",
        &[
            "device",
            "matmul",
            "elementwise",
            "recurrent",
            "transformer_half",
            "attention",
            "fft",
            "linear_algebra",
            "streams_memory",
            "device_assert",
        ],
        150,
    ),
    script("multi-gpu", "multi_gpu_checks.py", &[], 200),
    script("jax", "jax_checks.py", &[], 150),
    script("triton", "triton_checks.py", &[], 120),
    script("numba", "numba_checks.py", &[], 120),
];

const fn script(
    name: &'static str,
    file: &'static str,
    sections: &'static [&'static str],
    limit_s: u64,
) -> Item {
    Item { name, start: Start::Script(file, sections), limit_s }
}

fn programs(samples: &'static [Sample], limit_s: u64) -> impl Iterator<Item = Item> {
    samples.iter().map(move |sample| {
        let name = sample.name.rsplit('/').next().unwrap_or(sample.name);
        Item { name, start: Start::Program(sample), limit_s }
    })
}

fn library_items() -> Vec<Item> {
    SCRIPTS.iter().map(|item| Item { ..*item }).chain(programs(LIBRARIES, 120)).collect()
}

fn behaviour_items() -> Vec<Item> {
    programs(BEHAVIOUR, 120).collect()
}

pub fn library_names() -> Vec<&'static str> {
    library_items().iter().map(|item| item.name).collect()
}

pub fn behaviour_names() -> Vec<&'static str> {
    behaviour_items().iter().map(|item| item.name).collect()
}

pub fn libraries(run: &Run<'_>) -> Result<Rows> {
    compare(run, "libraries", &library_items(), Rule::Results)
}

pub fn behaviour(run: &Run<'_>) -> Result<Rows> {
    compare(run, "behaviour", &behaviour_items(), Rule::Transcript)
}

fn compare(run: &Run<'_>, part: &str, items: &[Item], rule: Rule) -> Result<Rows> {
    let chosen: Vec<&Item> = items.iter().filter(|item| run.wants(part, item.name)).collect();
    let folders = if chosen.iter().any(|item| matches!(item.start, Start::Program(_))) && part == "libraries"
    {
        library_folders(&run.setup.python)
    } else {
        OsString::new()
    };
    let legs = run.setup.legs();
    let tasks: Vec<(&Item, Leg)> =
        chosen.iter().flat_map(|item| legs.iter().map(move |leg| (*item, *leg))).collect();
    // Both legs of an item at the same time: nothing is measured here.
    let done = parallel::map(run.jobs * 2, &tasks, |_, (item, leg)| {
        if !run.has_time() {
            return Ok(None);
        }
        eprintln!("{part}: {} {}", item.name, leg.name());
        start(run, item, *leg, &folders).map(Some)
    });
    let mut rows = Rows::new(legs.iter().map(|leg| leg.name().to_owned()).collect());
    let mut done = done.into_iter();
    for item in chosen {
        let finished: Vec<Option<Finished>> = done.by_ref().take(legs.len()).collect::<Result<_>>()?;
        let Some(finished) = finished.into_iter().collect::<Option<Vec<_>>>() else {
            rows.add(item.name, vec![Outcome::Skip("out of time".to_owned()); legs.len()]);
            continue;
        };
        let before = rows.failed();
        judge(run, item, &finished, rule, &mut rows);
        if rows.failed() > before {
            for (leg, finished) in legs.iter().zip(&finished) {
                run.keep(item.name, leg.name(), finished);
            }
        }
    }
    Ok(rows)
}

/// Runs an item on a leg, with caches of its own so that both legs compile.
fn start(run: &Run<'_>, item: &Item, leg: Leg, folders: &OsString) -> Result<Finished> {
    let mut command = match item.start {
        Start::Program(sample) => {
            run.setup.command(&run.setup.program(sample, Variant::Static), leg, run.daemon)
        }
        Start::Script(file, _) => {
            let mut command = run.setup.command(&run.setup.python, leg, run.daemon);
            command.arg(workspace::root().join("samples/libraries").join(file));
            command
        }
    };
    let chosen = run.sections_of(item.name);
    match item.start {
        Start::Script(_, all) if chosen.is_empty() => command.args(all),
        _ => command.args(&chosen),
    };
    if matches!(item.start, Start::Program(_)) && !folders.is_empty() {
        command.env("CUDA_LIBRARY_DIRS", folders);
        let path =
            [(leg == Leg::Shim).then(|| run.daemon.library_dir().into_os_string()), Some(folders.clone())];
        let rest = std::env::var_os("LD_LIBRARY_PATH").filter(|rest| !rest.is_empty());
        let path: Vec<OsString> = path.into_iter().chain([rest]).flatten().collect();
        command.env("LD_LIBRARY_PATH", path.join(":".as_ref()));
    }
    let caches = run.daemon.scratch().join(format!("caches-{}-{}", item.name, leg.name()));
    for (variable, folder) in [
        ("CUDA_CACHE_PATH", "cuda"),
        ("CUPY_CACHE_DIR", "cupy"),
        ("NUMBA_CACHE_DIR", "numba"),
        ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
        ("TRITON_CACHE_DIR", "triton"),
    ] {
        command.env(variable, caches.join(folder));
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    let left = run.deadline.saturating_duration_since(Instant::now());
    process::run_limited(&mut command, left.min(Duration::from_secs(item.limit_s)))
}

fn judge(run: &Run<'_>, item: &Item, finished: &[Finished], rule: Rule, rows: &mut Rows) {
    let legs = run.setup.legs();
    let of = |leg: Leg| legs.iter().position(|have| *have == leg).and_then(|index| finished.get(index));
    let stdout = |leg| of(leg).map(|finished| String::from_utf8_lossy(&finished.stdout).into_owned());
    let (native, shim) = (stdout(Leg::Native), stdout(Leg::Shim));
    let has_native = native.is_some();
    let native = sections::parse(&native.unwrap_or_default());
    let shim = sections::parse(&shim.unwrap_or_default());
    let why = |leg| of(leg).map_or(String::new(), |finished| ending(finished, item.limit_s));
    if has_native && native.is_empty() {
        let reason = format!("fails natively: {}", last_line(&why(Leg::Native)));
        rows.add(item.name, vec![Outcome::Skip(reason); 2]);
        return;
    }
    if shim.is_empty() {
        let mut cells: Vec<Outcome> =
            of(Leg::Native).map(|native| Outcome::Pass(native.elapsed)).into_iter().collect();
        cells.push(Outcome::Fail(format!("{}{}", why(Leg::Shim), run.daemon.log())));
        rows.add(item.name, cells);
        return;
    }
    let find =
        |sections: &[Section], name: &str| sections.iter().find(|section| section.name == name).cloned();
    let mut explained = false;
    for section in if has_native { &native } else { &shim } {
        let (one, other) = (find(&native, &section.name), find(&shim, &section.name));
        let mut cells = sections::judge(one.as_ref(), other.as_ref(), has_native, rule);
        // What the program said goes with its first failure.
        if let Some(Outcome::Fail(details)) = cells.last_mut()
            && !explained
        {
            details.push_str(&why(Leg::Shim));
            explained = true;
        }
        rows.add(format!("{}/{}", item.name, section.name), cells);
    }
}

/// How a program ended and the last that it said on standard error.
fn ending(finished: &Finished, limit_s: u64) -> String {
    let status = match finished.status {
        Some(status) if status.success() => String::new(),
        Some(status) => format!("{status}\n"),
        None => format!("ended after {limit_s} s\n"),
    };
    format!("{status}{}", tail(&String::from_utf8_lossy(&finished.stderr), 15, "  "))
}

fn last_line(text: &str) -> String {
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("no output")
        .chars()
        .take(160)
        .collect()
}

/// The folders in which Python packages bring NVIDIA's libraries, for LD_LIBRARY_PATH.
fn library_folders(python: &Path) -> OsString {
    const LIST: &str = "import glob, os, sysconfig\n\
        print(':'.join(sorted(glob.glob(os.path.join(sysconfig.get_paths()['purelib'], 'nvidia', '*', 'lib')))))";
    let output = Command::new(python).args(["-c", LIST]).output().context("cannot run Python");
    let text =
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    // A caller may have its libraries elsewhere.
    match std::env::var_os("CUDA_LIBRARY_DIRS") {
        Some(dirs) => dirs,
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn every_section_of_the_scripts_is_run() -> Result<()> {
        let folder = workspace::root().join("samples/libraries");
        for item in SCRIPTS {
            let Start::Script(file, names) = item.start else { continue };
            let source = fs::read_to_string(folder.join(file)).with_context(|| file.to_owned())?;
            for name in names {
                assert!(source.contains(&format!("\ndef {name}():")), "{file} has no section {name}");
            }
        }
        let source = fs::read_to_string(folder.join("torch_checks.py"))?;
        let (_, list) = source.split_once("SECTIONS = [").context("no list of sections")?;
        let (list, _) = list.split_once(']').context("no end of the list")?;
        let all: BTreeSet<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let run: BTreeSet<&str> = SCRIPTS
            .iter()
            .filter_map(|item| match item.start {
                Start::Script("torch_checks.py", names) => Some(names),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        assert_eq!(all, run);
        Ok(())
    }
}
