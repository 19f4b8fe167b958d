//! `cargo xtask test --gpu`: the tests that need a GPU, each natively and through the shim.

mod checks;
pub mod matrix;
mod multi;
mod sections;
mod tenant;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::gpu::{self, Daemon, Setup, pack};
use crate::process::Finished;
use crate::test::{Args, Counts, Outcome};
use crate::test_matrix::report;

/// The whole run; the parts are in the order of how much they tell.
const DEFAULT_LIMIT_S: u64 = 540;
const DEFAULT_JOBS: usize = 4;
/// Of an output that is kept, its last bytes.
const KEPT_BYTES: usize = 1 << 18;

/// What the parts share.
pub struct Run<'a> {
    pub setup: &'a Setup,
    pub daemon: &'a Daemon,
    pub args: &'a Args,
    /// Programs at the same time.
    pub jobs: usize,
    /// When everything should be over.
    pub deadline: Instant,
    /// Time limit of one sample.
    pub limit: Duration,
}

impl Run<'_> {
    /// Whether `--only` selects this test of this part, a section of it, or all of the part.
    pub fn wants(&self, part: &str, test: &str) -> bool {
        let only = &self.args.only;
        only.is_empty() || only.iter().any(|name| name == part || test_of(name) == test)
    }

    /// The sections of a test that `--only` names; none: all of them.
    pub fn sections_of(&self, test: &str) -> Vec<String> {
        let sections = self.args.only.iter().filter_map(|name| name.split_once('/'));
        sections.filter(|(of, _)| *of == test).map(|(_, section)| section.to_owned()).collect()
    }

    /// Whether there is time for something else.
    pub fn has_time(&self) -> bool {
        Instant::now() < self.deadline
    }

    /// Writes what a program said into the folder of `--out`, if there is one.
    pub fn keep(&self, test: &str, leg: &str, finished: &Finished) {
        for (kind, bytes) in [("out", &finished.stdout), ("err", &finished.stderr)] {
            self.keep_text(&format!("{test}.{leg}.{kind}"), bytes);
        }
    }

    fn keep_text(&self, name: &str, bytes: &[u8]) {
        let Some(folder) = &self.args.out else { return };
        let kept = &bytes[bytes.len().saturating_sub(KEPT_BYTES)..];
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(name), kept));
        if let Err(error) = written {
            eprintln!("cannot write {name} into {}: {error}", folder.display());
        }
    }
}

/// `test` or `test/section`.
fn test_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(test, _)| test)
}

/// What a part found: a table of cells.
pub struct Rows {
    titles: Vec<String>,
    rows: Vec<(String, Vec<Outcome>)>,
}

impl Rows {
    pub fn new(titles: Vec<String>) -> Self {
        Self { titles, rows: Vec::new() }
    }

    pub fn add(&mut self, name: impl Into<String>, cells: Vec<Outcome>) {
        self.rows.push((name.into(), cells));
    }

    /// Rows with a failed cell.
    pub fn failed(&self) -> usize {
        let failed = |cells: &[Outcome]| cells.iter().any(|cell| matches!(cell, Outcome::Fail(_)));
        self.rows.iter().filter(|(_, cells)| failed(cells)).count()
    }
}

/// A part by the name that `--only` knows, with the names of its tests.
struct Part {
    name: &'static str,
    tests: fn() -> Vec<&'static str>,
    run: fn(&Run<'_>) -> Result<Rows>,
}

const PARTS: &[Part] = &[
    Part { name: "matrix", tests: matrix::names, run: matrix::run },
    Part { name: "behaviour", tests: checks::behaviour_names, run: checks::behaviour },
    Part { name: "libraries", tests: checks::library_names, run: checks::libraries },
    Part { name: "multi", tests: multi::names, run: multi::run },
];

pub fn run(args: &Args) -> Result<ExitCode> {
    let backend = args.backend.as_deref().unwrap_or("cuda");
    if let Some(reason) = gpu::missing(backend) {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let known =
        |name: &String| PARTS.iter().any(|part| part.name == name || (part.tests)().contains(&test_of(name)));
    if let Some(unknown) = args.only.iter().find(|name| !known(name)) {
        let parts: Vec<String> =
            PARTS.iter().map(|part| format!("{}: {}", part.name, (part.tests)().join(" "))).collect();
        bail!("nothing is called {unknown}; there are\n{}", parts.join("\n"));
    }
    let setup = Setup::new(&args.options, backend, args.toolkit, &pack::programs())?;
    let daemon = Daemon::start(&setup, &[])?;
    let run = Run {
        setup: &setup,
        daemon: &daemon,
        args,
        jobs: args.jobs.unwrap_or(DEFAULT_JOBS).max(1),
        deadline: Instant::now() + Duration::from_secs(args.options.limit.unwrap_or(DEFAULT_LIMIT_S)),
        limit: Duration::from_secs(args.timeout),
    };
    println!("{}", if backend == "cpu" { "CPU backend".to_owned() } else { gpu::describe() });
    let mut counts = Counts::default();
    let mut closing = Vec::new();
    for part in PARTS {
        if !args.only.is_empty() && !(part.tests)().iter().any(|test| run.wants(part.name, test)) {
            continue;
        }
        let begin = Instant::now();
        let rows = (part.run)(&run).unwrap_or_else(|error| {
            let details = format!("{error:#}\n{}", daemon.log());
            Rows {
                titles: vec!["outcome".to_owned()],
                rows: vec![(part.name.to_owned(), vec![Outcome::Fail(details)])],
            }
        });
        let titles: Vec<&str> = rows.titles.iter().map(String::as_str).collect();
        counts.add(report(part.name, &titles, &rows.rows));
        println!("{}: {:.0} s\n", part.name, begin.elapsed().as_secs_f64());
        for (name, cells) in &rows.rows {
            for (title, cell) in titles.iter().zip(cells) {
                match cell {
                    Outcome::Pass(_) => {}
                    Outcome::Skip(reason) => closing.push(format!("skipped: {name}, {title}: {reason}")),
                    Outcome::Fail(_) => closing.push(format!("FAIL: {name}, {title}")),
                }
            }
        }
    }
    if counts.failed > 0 {
        run.keep_text("daemon.log", &daemon.whole_log());
    }
    // Once more at the end, where they are seen.
    for line in closing {
        println!("{line}");
    }
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
