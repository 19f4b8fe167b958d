//! The samples as the programs of a guest, and what its console says about them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::manifest::Sample;
use crate::nvcc::{self, Variant};
use crate::test::Outcome;
use crate::test_matrix;
use crate::vm::report::{self, Report};
use crate::vm::stage;

/// Where they are in the guest, below the folder of the variant.
const FOLDER: &str = "samples";
/// The guest's program.
pub const PROBE: &str = "/bin/probe";
const SHELL: &str = "/bin/sh";
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

    fn path(&self) -> PathBuf {
        nvcc::program(self.sample, self.variant)
    }

    /// What became of it.
    pub fn judge(&self, console: &str, limit: Duration) -> Result<Outcome> {
        match Report::of(console, &self.name()).finished() {
            Some(finished) => {
                let expected = test_matrix::expected(self.sample)?;
                test_matrix::judge(&finished, self.sample.exit_code, &expected, limit)
            }
            None => Ok(Outcome::Fail("the machine ended before this program did\n".into())),
        }
    }
}

/// Lays out a root in which `probe cases` runs these programs, with a shim beside them that they need libraries for.
pub fn stage(programs: &[Program], shim: &Path, limit: Duration, root: &Path) -> Result<()> {
    stage::build_probe(&root.join(PROBE.trim_start_matches('/')))?;
    // For system(3).
    let shell = fs::canonicalize(SHELL).context(SHELL)?;
    stage::copy(&shell, &root.join(SHELL.trim_start_matches('/')))?;
    let mut dynamic = vec![shim.to_path_buf(), shell];
    for program in programs {
        let folder = root.join(FOLDER).join(program.variant.name());
        for file in nvcc::files(program.sample, program.variant) {
            stage::copy(&file, &folder.join(file.file_name().context("a program's name")?))?;
        }
        dynamic.push(program.path());
    }
    for library in stage::copy_libraries(&dynamic, root)? {
        // The CUDA runtime, beside the programs of the variant that is linked with it.
        let name = library.file_name().context("a library's name")?;
        stage::copy(&library, &root.join(FOLDER).join(Variant::Shared.name()).join(name))?;
    }
    let names: Vec<(String, String)> =
        programs.iter().map(|program| (program.name(), format!("/{FOLDER}/{}", program.name()))).collect();
    let commands: Vec<_> = names
        .iter()
        .map(|(name, path)| report::Command { name, limit, words: vec![path.as_str()] })
        .collect();
    let cases = root.join(CASES.trim_start_matches('/'));
    fs::write(&cases, report::cases_file(&commands)).with_context(|| cases.display().to_string())
}
