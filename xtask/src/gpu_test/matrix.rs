//! Every sample on {native, shim} x {static, shared}.

use std::fs;

use anyhow::{Context as _, Result};

use super::{Rows, Run};
use crate::gpu::{Leg, parallel};
use crate::manifest::{SAMPLES, Sample};
use crate::nvcc::Variant;
use crate::process::{self, Finished};
use crate::test::Outcome;
use crate::test_matrix::judge;
use crate::workspace;

/// Why a cell is no failure of ours.
pub const FAILS_NATIVELY: &str = "fails as natively";

pub fn names() -> Vec<&'static str> {
    SAMPLES.iter().map(|sample| sample.name).collect()
}

pub fn run(run: &Run<'_>) -> Result<Rows> {
    let chosen: Vec<&Sample> = SAMPLES.iter().filter(|sample| run.wants("matrix", sample.name)).collect();
    let cells = parallel::map(run.jobs, &chosen, |_, sample| {
        eprintln!("matrix: {}", sample.name);
        row(run, sample).unwrap_or_else(|error| vec![Outcome::Fail(format!("{error:#}\n"))])
    });
    let legs = run.setup.legs().iter();
    let titles =
        legs.flat_map(|leg| Variant::ALL.map(|variant| format!("{} {}", leg.name(), variant.name())));
    let mut rows = Rows::new(titles.collect());
    for (sample, cells) in chosen.iter().zip(cells) {
        rows.add(sample.name, cells);
    }
    Ok(rows)
}

/// A sample's cells, in the order of the titles.
fn row(run: &Run<'_>, sample: &Sample) -> Result<Vec<Outcome>> {
    let expected = workspace::root().join("samples").join(sample.name).join("expected.txt");
    let expected =
        fs::read_to_string(&expected).with_context(|| format!("cannot read {}", expected.display()))?;
    let mut native: [Option<Finished>; 2] = [None, None];
    let mut cells = Vec::new();
    for &leg in run.setup.legs() {
        for (slot, variant) in native.iter_mut().zip(Variant::ALL) {
            if !run.has_time() {
                cells.push(Outcome::Skip("out of time".to_owned()));
                continue;
            }
            let mut command = run.setup.command(&run.setup.program(sample, variant), leg, run.daemon);
            let finished = process::run_limited(&mut command, run.limit)?;
            let outcome = judge(&finished, sample.exit_code, &expected, run.limit)?;
            if matches!(outcome, Outcome::Fail(_)) {
                run.keep(sample.name, &format!("{}-{}", leg.name(), variant.name()), &finished);
            }
            match (leg, outcome) {
                (Leg::Shim, Outcome::Fail(_))
                    if slot.as_ref().is_some_and(|native| same(native, &finished)) =>
                {
                    // What is expected does not hold on this device; that is the native cell's failure.
                    cells.push(Outcome::Skip(FAILS_NATIVELY.to_owned()));
                }
                (_, outcome) => cells.push(outcome),
            }
            if leg == Leg::Native {
                *slot = Some(finished);
            }
        }
    }
    Ok(cells)
}

/// Whether both ended alike and printed the same, line ends at the end apart.
pub fn same(one: &Finished, other: &Finished) -> bool {
    let code = |finished: &Finished| finished.status.map(|status| status.code());
    let text = |finished: &'_ Finished| finished.stdout.trim_ascii_end().to_vec();
    one.status.is_some() && code(one) == code(other) && text(one) == text(other)
}
