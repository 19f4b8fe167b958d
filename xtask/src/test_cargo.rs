//! The workspace's own tests, through cargo-nextest where it is installed, else through `cargo test`.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use regex::Regex;

use crate::test::Counts;
use crate::workspace;

/// Runs them with their output passed through.
pub fn run() -> Result<Counts> {
    let nextest = workspace::cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let mut command = workspace::cargo();
    if nextest {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    } else {
        eprintln!("cargo-nextest is not installed: using cargo test");
        command.args(["test", "--workspace", "--no-fail-fast"]);
    }
    // The output goes through a pipe, which must not cost the colours.
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    run_one(&mut command)
}

/// Runs the models of ring and wake-ups, in every interleaving that loom finds. They have a build of their own.
pub fn run_models() -> Result<Counts> {
    let mut command = workspace::cargo();
    command.args(["test", "--release", "-p", "transport", "--test", "loom"]);
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace::target_dir()?.join("loom"));
    run_one(&mut command)
}

/// Runs the tests of what an optimising compiler may get wrong: code that a signal handler interrupts.
pub fn run_optimised() -> Result<Counts> {
    run_one(workspace::cargo().args(["test", "--release", "-p", "ptx-cpu", "--lib", "fault"]))
}

fn run_one(command: &mut Command) -> Result<Counts> {
    let (success, output) = run_through(command)?;
    let mut counts = count(&output);
    if !success && counts.failed == 0 {
        // It did not even compile, or a test binary crashed.
        counts.failed = 1;
    }
    Ok(counts)
}

/// Runs a command, copies its output as it comes and keeps it.
fn run_through(command: &mut Command) -> Result<(bool, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let out = thread::spawn(move || copy_lines(stdout, std::io::stdout()));
    let err = thread::spawn(move || copy_lines(stderr, std::io::stderr()));
    let status = child.wait().context("cannot wait for cargo")?;
    let mut text = out.join().unwrap_or_default();
    text.push_str(&err.join().unwrap_or_default());
    Ok((status.success(), text))
}

fn copy_lines(from: Option<impl Read>, mut to: impl Write) -> String {
    let mut kept = String::new();
    let Some(from) = from else {
        return kept;
    };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        // Nobody reads any more: still empty the pipe, so that the tests run to their end.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        kept.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    kept
}

/// Adds up the closing lines of nextest and of libtest.
fn count(output: &str) -> Counts {
    let mut counts = Counts::default();
    // The patterns are constants; if one did not compile, its counts would be missing and a test below would say so.
    let Ok(colours) = Regex::new("\x1b\\[[0-9;]*m") else {
        return counts;
    };
    let Ok(part) = Regex::new(r"(\d+) (passed|failed|skipped|ignored|timed out|exec failed)") else {
        return counts;
    };
    for line in output.lines() {
        let line = colours.replace_all(line, "");
        let summary = line.trim_start();
        let nextest =
            summary.starts_with("Summary [") && (line.contains("tests run:") || line.contains("test run:"));
        // Not indented: nextest repeats what a failed test printed, this line included, and has counted it already.
        let libtest = line.starts_with("test result:");
        if !nextest && !libtest {
            continue;
        }
        for found in part.captures_iter(&line) {
            let number: usize = found[1].parse().unwrap_or(0);
            match &found[2] {
                "passed" => counts.passed += number,
                "skipped" | "ignored" => counts.skipped += number,
                _ => counts.failed += number,
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_summaries_are_counted() {
        let text = "\x1b[32;1m     Summary\x1b[0m [   0.005s] 12 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 4 skipped\n";
        let expected = Counts { passed: 9, failed: 3, skipped: 4 };
        assert_eq!(count(text), expected);
        let text = "     Summary [   0.005s] 1 test run: 1 passed, 0 skipped\n";
        assert_eq!(count(text).passed, 1);
    }

    #[test]
    fn what_a_failed_test_printed_is_not_counted_again() {
        let text = "        FAIL [   0.179s] (1/2) some::test fails\n  stdout ───\n\n\
                    \x20   test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 17 filtered out; finished in 0.17s\n\
                    \x20    Summary [   0.2s] 2 tests run: 1 passed, 1 failed, 0 skipped\n";
        let expected = Counts { passed: 1, failed: 1, skipped: 0 };
        assert_eq!(count(text), expected);
    }

    #[test]
    fn libtest_summaries_are_added() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.0s\n\
                    noise: 7 passed\n\
                    test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.0s\n";
        let expected = Counts { passed: 4, failed: 2, skipped: 1 };
        assert_eq!(count(text), expected);
    }
}
