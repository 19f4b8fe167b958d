//! The samples as the programs of a guest, and what its console says about them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Means;
use crate::gpu::{Leg, Setup};
use crate::gpu_test::matrix;
use crate::manifest::Sample;
use crate::nvcc::Variant;
use crate::process;
use crate::test::Outcome;
use crate::test_matrix;
use crate::vm::report::{self, Report};
use crate::vm::stage;

/// Where they are in the guest, below the folder of the variant.
pub const FOLDER: &str = "samples";
/// The guest's program.
pub const PROBE: &str = "/bin/probe";
/// A shell, also for what a program passes to system(3).
pub const SHELL: &str = "/bin/sh";
/// What it reads.
pub const CASES: &str = "/cases";

/// One program of a guest.
#[derive(Clone, Copy)]
pub struct Program {
    pub sample: &'static Sample,
    pub variant: Variant,
}

impl Program {
    fn name(&self) -> String {
        format!("{}/{}", self.variant.name(), self.sample.name)
    }

    /// What became of it. On a GPU, as in `test --gpu`: what is expected may not hold on this device.
    pub fn judge(&self, setup: &Setup, console: &str, limit: Duration) -> Result<Outcome> {
        let Some(finished) = Report::of(console, &self.name()).finished() else {
            return Ok(Outcome::Fail("the machine ended before this program did\n".into()));
        };
        let expected = test_matrix::expected(self.sample)?;
        let outcome = test_matrix::judge(&finished, self.sample.exit_code, &expected, limit)?;
        if matches!(outcome, Outcome::Fail(_)) && setup.legs().contains(&Leg::Native) {
            let mut command = Setup::native(&setup.program(self.sample, self.variant));
            // Two that print nothing show a machine where nothing runs.
            let native = process::run_limited(&mut command, limit)?;
            if !native.stdout.is_empty() && matrix::same(&native, &finished) {
                return Ok(Outcome::Skip(matrix::FAILS_NATIVELY.to_owned()));
            }
        }
        Ok(outcome)
    }
}

/// Lays out a root in which `probe cases` runs these programs.
pub fn stage(programs: &[Program], means: &Means, root: &Path) -> Result<()> {
    stage_files(programs, means, root)?;
    let names: Vec<(String, String)> =
        programs.iter().map(|program| (program.name(), format!("/{FOLDER}/{}", program.name()))).collect();
    let commands: Vec<_> = names
        .iter()
        .map(|(name, path)| report::Command { name, limit: means.limit, words: vec![path.as_str()] })
        .collect();
    stage_cases(&commands, root)
}

/// Only the files: programs (each in the folder of its variant, below [`FOLDER`]), and libraries, also those that the shim needs.
pub fn stage_files(programs: &[Program], means: &Means, root: &Path) -> Result<()> {
    means.parts.probe(&root.join(PROBE.trim_start_matches('/')))?;
    let shell = fs::canonicalize(SHELL).context(SHELL)?;
    stage::copy(&shell, &root.join(SHELL.trim_start_matches('/')))?;
    let mut dynamic = vec![means.setup.shim.clone(), shell];
    for program in programs {
        let folder = root.join(FOLDER).join(program.variant.name());
        for file in means.setup.files(program.sample, program.variant) {
            stage::copy(&file, &folder.join(file.file_name().context("a program's name")?))?;
        }
        dynamic.push(means.setup.program(program.sample, program.variant));
    }
    for library in stage::copy_libraries(&dynamic, root)? {
        // The CUDA runtime, beside the programs of the variant that is linked with it.
        let name = library.file_name().context("a library's name")?;
        stage::copy(&library, &root.join(FOLDER).join(Variant::Shared.name()).join(name))?;
    }
    Ok(())
}

/// What `probe cases` runs.
pub fn stage_cases(commands: &[report::Command<'_>], root: &Path) -> Result<()> {
    let cases = root.join(CASES.trim_start_matches('/'));
    fs::write(&cases, report::cases_file(commands)).with_context(|| cases.display().to_string())
}
