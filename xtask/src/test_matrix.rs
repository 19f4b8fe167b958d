//! The sample matrix: every sample on every leg, compared with its expected output.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};

use crate::manifest::Sample;
use crate::nvcc::{self, Variant};
use crate::process::{self, Finished, tail};
use crate::progress::Progress;
use crate::test::{Counts, Leg, Outcome};
use crate::test_nested::{self, Nested};
use crate::{expect, workspace};

impl Leg {
    fn title(self) -> &'static str {
        match self {
            Self::CpuStatic => "cpu static",
            Self::CpuShared => "cpu shared",
            Self::Stream => "cpu stream",
            Self::Nested => "cuda nested",
            Self::GpuStatic => "gpu static",
            Self::GpuShared => "gpu shared",
        }
    }

    fn variant(self) -> Variant {
        match self {
            Self::CpuStatic | Self::Stream | Self::Nested | Self::GpuStatic => Variant::Static,
            Self::CpuShared | Self::GpuShared => Variant::Shared,
        }
    }

    fn backend(self) -> &'static str {
        match self {
            Self::CpuStatic | Self::CpuShared | Self::Stream => "cpu",
            Self::Nested | Self::GpuStatic | Self::GpuShared => "cuda",
        }
    }

    /// What the sample needs and this leg does not have: behind the nested one there is the CPU, too.
    pub fn lacks(self, sample: &Sample) -> Option<&'static str> {
        match self {
            Self::CpuStatic | Self::CpuShared | Self::Nested => sample.cpu_lacks,
            Self::Stream => sample.cpu_lacks.or(sample.stream_lacks),
            Self::GpuStatic | Self::GpuShared => None,
        }
    }

    /// Why this leg cannot run on this machine.
    fn missing(self) -> Option<&'static str> {
        match self {
            Self::CpuStatic | Self::CpuShared | Self::Stream | Self::Nested => None,
            Self::GpuStatic | Self::GpuShared => {
                (!Path::new("/dev/nvidiactl").exists()).then_some("no NVIDIA driver")
            }
        }
    }
}

/// Runs the matrix, prints its table and the details of failures.
pub fn run(host: &Path, samples: &[&'static Sample], legs: &[Leg], limit: Duration) -> Result<Counts> {
    let nested = if legs.contains(&Leg::Nested) { Some(Nested::start(host)?) } else { None };
    let progress = Progress::new("matrix", samples.len());
    let mut rows = Vec::new();
    for (position, sample) in samples.iter().enumerate() {
        progress.step(position, sample.name);
        let mut cells = Vec::new();
        for &leg in legs {
            cells.push(match leg.missing().or(leg.lacks(sample)) {
                Some(reason) => Outcome::Skip(reason.to_string()),
                None => run_cell(host, sample, leg, nested.as_ref(), limit)?,
            });
        }
        rows.push((sample.name.to_string(), cells));
    }
    progress.finish(&format!("{} samples run", samples.len()));
    let titles: Vec<&str> = legs.iter().map(|leg| leg.title()).collect();
    Ok(report("sample", &titles, &rows))
}

/// What a sample has to print.
pub fn expected(sample: &Sample) -> Result<String> {
    let path = workspace::root().join("samples").join(sample.name).join("expected.txt");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Runs one sample on one leg.
pub fn run_cell(
    host: &Path,
    sample: &Sample,
    leg: Leg,
    nested: Option<&Nested>,
    limit: Duration,
) -> Result<Outcome> {
    let mut command = Command::new(host);
    command.args(["run", "--backend", leg.backend()]);
    if let (Leg::Nested, Some(nested)) = (leg, nested) {
        if let Some(reason) = test_nested::unable(sample.name) {
            return Ok(Outcome::Skip(reason.to_owned()));
        }
        nested.apply(&mut command);
    }
    if leg == Leg::Stream {
        command.arg("--stream");
    }
    command.arg("--").arg(nvcc::program(sample, leg.variant()));
    let finished = process::run_limited(&mut command, limit)?;
    judge(&finished, sample.exit_code, &expected(sample)?, limit)
}

/// Compares what a program did with what it should have done.
pub fn judge(finished: &Finished, exit_code: i32, expected: &str, limit: Duration) -> Result<Outcome> {
    let stdout = String::from_utf8_lossy(&finished.stdout);
    let stderr = String::from_utf8_lossy(&finished.stderr);
    let mut complaint = String::new();
    match finished.status {
        None => complaint.push_str(&format!("ended after {} s\n", limit.as_secs())),
        Some(status) if status.code() != Some(exit_code) => {
            complaint.push_str(&format!("{status}, expected exit code {exit_code}\n"));
        }
        Some(_) => {}
    }
    if let Some(diff) = expect::compare(expected, &stdout)? {
        complaint.push_str("output (- expected, + actual):\n");
        complaint.push_str(&diff);
    }
    if complaint.is_empty() {
        return Ok(Outcome::Pass(finished.elapsed));
    }
    if !stderr.trim().is_empty() {
        complaint.push_str("end of stderr:\n");
        complaint.push_str(&tail(&stderr, 12, "  "));
    }
    Ok(Outcome::Fail(complaint))
}

/// Prints a table of outcomes and the details of those that failed.
pub fn report(subject: &str, titles: &[&str], rows: &[(String, Vec<Outcome>)]) -> Counts {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    let mut header = vec![subject];
    header.extend(titles);
    table.set_header(header);
    for (name, cells) in rows {
        let mut row = vec![name.clone()];
        row.extend(cells.iter().map(|cell| match cell {
            Outcome::Pass(elapsed) => format!("pass {:.2} s", elapsed.as_secs_f64()),
            Outcome::Fail(_) => "FAIL".to_string(),
            Outcome::Skip(reason) => format!("skipped: {reason}"),
        }));
        table.add_row(row);
    }
    println!("{table}");
    for (name, cells) in rows {
        for (title, cell) in titles.iter().zip(cells) {
            if let Outcome::Fail(details) = cell {
                println!("\n{name}, {title}: FAIL");
                print!("{}", tail(details, usize::MAX, "  "));
            }
        }
    }
    Counts::of(rows.iter().flat_map(|(_, cells)| cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Finished> {
        process::run_limited(Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn output_and_exit_code_decide() -> Result<()> {
        let limit = Duration::from_secs(20);
        let good = shell("echo one; echo two", limit)?;
        assert!(matches!(judge(&good, 0, "one\ntwo\n", limit)?, Outcome::Pass(_)));
        let Outcome::Fail(details) = judge(&good, 0, "one\nthree\n", limit)? else {
            panic!("a wrong line passed");
        };
        assert!(details.contains("- three") && details.contains("+ two"), "{details}");
        let bad = shell("echo one; echo why >&2; exit 3", limit)?;
        let Outcome::Fail(details) = judge(&bad, 0, "one\n", limit)? else {
            panic!("a wrong exit code passed");
        };
        assert!(details.contains("exit status: 3") && details.contains("why"), "{details}");
        Ok(())
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() -> Result<()> {
        let limit = Duration::from_millis(300);
        let hung = shell("sleep 1000 & echo $!; wait", limit)?;
        assert!(hung.status.is_none());
        let pid = String::from_utf8_lossy(&hung.stdout).trim().to_string();
        let child = Path::new("/proc").join(&pid).join("status");
        let gone = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            // Ended but not yet collected by its new parent counts as gone.
            !fs::read_to_string(&child).is_ok_and(|status| !status.contains("State:\tZ"))
        });
        assert!(!pid.is_empty() && gone, "process {pid} was left behind");
        Ok(())
    }

    #[test]
    fn a_process_that_escapes_does_not_hold_the_runner_up() -> Result<()> {
        let limit = Duration::from_secs(20);
        let escaped = shell("setsid sleep 4 & echo done", limit)?;
        assert!(escaped.status.is_some_and(|status| status.success()));
        assert_eq!(escaped.stdout, b"done\n");
        Ok(())
    }
}
