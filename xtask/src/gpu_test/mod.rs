//! `cargo xtask test --gpu`: the tests that need a GPU, each natively and through the shim.

mod matrix;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::gpu::{self, Daemon, Setup};
use crate::manifest::SAMPLES;
use crate::test::{Args, Counts};

/// The whole run; the parts are in the order of how much they tell.
const DEFAULT_LIMIT_S: u64 = 360;
const DEFAULT_JOBS: usize = 4;

/// What the parts share.
pub struct Run<'a> {
    pub setup: &'a Setup,
    pub daemon: &'a Daemon,
    /// Programs at the same time.
    pub jobs: usize,
    /// When everything should be over.
    pub deadline: Instant,
    only: &'a [String],
    /// Time limit of one sample or behaviour program.
    pub limit: Duration,
}

impl Run<'_> {
    /// Whether `--only` selects this test of this part, or all of the part.
    pub fn wants(&self, part: &str, test: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == part || name == test)
    }

    /// Whether there is time for something else.
    pub fn has_time(&self) -> bool {
        Instant::now() < self.deadline
    }
}

/// Parts by the name that `--only` knows, and how they run.
type Part = (&'static str, fn(&Run<'_>) -> Result<Counts>);
const PARTS: &[Part] = &[("matrix", matrix::run)];

pub fn run(args: &Args) -> Result<ExitCode> {
    let backend = args.backend.as_deref().unwrap_or("cuda");
    if let Some(reason) = gpu::missing(backend) {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let known = |name: &String| {
        PARTS.iter().any(|(part, _)| part == name) || matrix::names().any(|test| test == name)
    };
    if let Some(unknown) = args.only.iter().find(|name| !known(name)) {
        let parts: Vec<&str> = PARTS.iter().map(|(part, _)| *part).collect();
        bail!("nothing is called {unknown}; there are the parts {} and their tests", parts.join(", "));
    }
    let setup = Setup::new(&args.options, backend, args.toolkit, &SAMPLES.iter().collect::<Vec<_>>())?;
    let daemon = Daemon::start(&setup, &[])?;
    let run = Run {
        setup: &setup,
        daemon: &daemon,
        jobs: args.jobs.unwrap_or(DEFAULT_JOBS).max(1),
        deadline: Instant::now() + Duration::from_secs(args.options.limit.unwrap_or(DEFAULT_LIMIT_S)),
        only: &args.only,
        limit: Duration::from_secs(args.timeout),
    };
    println!("{}", if backend == "cpu" { "CPU backend".to_owned() } else { gpu::describe() });
    let mut counts = Counts::default();
    for (name, part) in PARTS {
        let begin = Instant::now();
        match part(&run) {
            Ok(some) if some == Counts::default() => continue,
            Ok(some) => counts.add(some),
            Err(error) => {
                println!("{name}: FAIL: {error:#}\n{}", daemon.log());
                counts.add(Counts { failed: 1, ..Counts::default() });
            }
        }
        println!("{name}: {:.0} s\n", begin.elapsed().as_secs_f64());
    }
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
