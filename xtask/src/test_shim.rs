//! The library in foreign programs: what it exports, says and survives, and what bad device code does to it.
//!
//! Each test is a function in one of the modules below; it gets a [`Rig`] and returns an error that says what was wrong. Programs are the samples
//! and the probes of `manifest::PROBES`.

mod images;
mod library;
mod lifetime;
pub mod rig;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::progress::Progress;
use crate::test::{Counts, Outcome};
use crate::test_matrix::report;
use rig::Rig;

/// A test's result: perhaps with something that is worth printing.
type Tested = Result<Option<String>>;

type Test = fn(&Rig) -> Tested;

const TESTS: &[(&str, Test)] = &[
    ("soname, dependencies, exports", library::exports),
    ("silent unless asked", library::silent),
    ("trace: arguments and results", library::trace),
    ("trace to a file", library::trace_to_file),
    ("unhandled calls are logged once", library::unhandled),
    ("by LD_LIBRARY_PATH and LD_PRELOAD", library::ways_in),
    ("closed standard streams", library::closed_streams),
    ("no daemon", library::no_daemon),
    ("CUDA_VISIBLE_DEVICES", library::visible_devices),
    ("launch blocking, eager loading", library::settings),
    ("threads of long copies", library::copy_threads),
    ("damaged images", images::damaged),
    ("damaged file: what and where", images::damaged_file),
    ("machine code only", images::machine_code_only),
    ("unsupported instruction", images::unsupported),
    ("fork: child uses CUDA", lifetime::fork_use),
    ("fork: child does not", lifetime::fork_idle),
    ("fork: child outlives its parent", lifetime::fork_outlive),
    ("close and reopen", lifetime::reopen),
    ("threads that end", lifetime::threads),
    ("exit in a thread", lifetime::exit_thread),
    ("killed in an endless kernel", lifetime::killed_program),
    ("daemon killed", lifetime::killed_daemon),
    ("worker killed", lifetime::killed_worker),
    ("warm workers", lifetime::warm_worker),
    ("runs leave nothing behind", lifetime::leftovers),
];

/// Runs the tests one after another and prints their table. `runs`: how often the last one runs its program.
///
/// # Errors
/// Programs that the tests need are missing.
pub fn run(host: &Path, runs: u32) -> Result<Counts> {
    let rig = Rig::new(host, runs)?;
    let progress = Progress::new("library", TESTS.len());
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for (position, (name, test)) in TESTS.iter().enumerate() {
        progress.step(position, name);
        let begin = Instant::now();
        let outcome = match test(&rig) {
            Ok(note) => {
                notes.extend(note.map(|note| format!("{name}: {note}")));
                Outcome::Pass(begin.elapsed())
            }
            Err(error) => Outcome::Fail(format!("{error:#}\n")),
        };
        rows.push(((*name).to_string(), vec![outcome]));
    }
    progress.finish(&format!("{} tests run", TESTS.len()));
    let counts = report("library", &["cpu"], &rows);
    notes.iter().for_each(|note| println!("{note}"));
    Ok(counts)
}
