//! What the commands read: every file on its own, several at a time.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use fatbin::files::{FileData, Source, sources};
use rayon::prelude::*;

use super::output::{Progress, printable};
use super::{EXIT_NO, EXIT_NOTHING};

/// Remembers what becomes the exit status.
#[derive(Debug, Default)]
pub struct Outcome {
    damaged: AtomicBool,
    no: AtomicBool,
    nothing: AtomicBool,
    /// What is shown of long work.
    pub progress: Progress,
}

impl Outcome {
    /// Tells of a damaged or unreadable file.
    pub fn problem(&self, file: &str, problem: impl std::fmt::Display) {
        eprintln!("fatbin: {}: {problem}", printable(file));
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// Tells of all problems of a file, and what to do about them.
    pub fn problems(&self, file: &str, problems: &[String]) {
        for problem in problems {
            self.problem(file, problem);
        }
        if !problems.is_empty() {
            eprintln!(
                "fatbin: {}: damaged or cut off; copy it or build it again, and compare its size",
                printable(file)
            );
        }
    }

    /// The answer to the question of the command is no.
    pub fn answer_no(&self) {
        self.no.store(true, Ordering::Relaxed);
    }

    /// Tells that a file holds no device code.
    pub fn nothing(&self, file: &str) {
        eprintln!(
            "fatbin: {}: holds no device code; if the program uses CUDA, look into the libraries that it loads (ldd)",
            printable(file)
        );
        self.nothing.store(true, Ordering::Relaxed);
    }

    /// The exit status.
    pub fn code(&self) -> ExitCode {
        if self.damaged.load(Ordering::Relaxed) || self.no.load(Ordering::Relaxed) {
            ExitCode::from(EXIT_NO)
        } else if self.nothing.load(Ordering::Relaxed) {
            ExitCode::from(EXIT_NOTHING)
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// Does `work` for each file that `paths` name, in parallel; results keep the order. Files that cannot be read are
/// told of. `None` from `work` leaves a file out. If a directory or zip file gave nothing at all, that is told.
pub fn each<T: Send>(
    paths: &[PathBuf],
    outcome: &Outcome,
    work: impl Fn(&Source, &str, &FileData) -> Option<T> + Sync,
) -> Vec<T> {
    let sources = sources(paths);
    outcome.progress.add(sources.len());
    let results: Vec<Option<T>> = sources
        .par_iter()
        .map(|source| {
            let result = match source {
                Ok(source) => {
                    let name = source.name();
                    match source.open() {
                        Ok(data) => work(source, &name, &data),
                        Err(error) => {
                            unreadable(outcome, &name, &error);
                            None
                        }
                    }
                }
                Err(failed) => {
                    unreadable(outcome, &failed.path.display().to_string(), &failed.error);
                    None
                }
            };
            outcome.progress.step();
            result
        })
        .collect();
    outcome.progress.finish();
    let found: Vec<T> = results.into_iter().flatten().collect();
    let searched = sources.iter().all(|s| s.as_ref().is_ok_and(|s| !s.is_explicit()));
    if found.is_empty() && searched {
        for path in paths {
            outcome.nothing(&path.display().to_string());
        }
    }
    found
}

fn unreadable(outcome: &Outcome, name: &str, error: &std::io::Error) {
    outcome.problem(name, format_args!("cannot read the file: {error}; check the path and its permissions"));
}
