//! `host-vmm boot` itself, on real KVM and a real /dev/vhost-vsock: in the [`outer`](super::outer) machine it starts inner machines (L2), one per case.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Outcome;
use super::kernel::Kernel;
use super::machine::FAST;
use super::outer::{DISK, MARKER, Outer};
use super::qemu::Qemu;
use super::report::{self, Report};
use crate::debian::Release;
use crate::workspace;

/// What to run, and with what.
pub struct Options<'a> {
    pub release: Release,
    pub only: Option<&'a str>,
    pub host: Option<&'a Path>,
    pub limit: Duration,
    pub verbose: bool,
}

/// Lines that the probe prints as bulk.
const BULK_LINES: usize = 64;

/// An inner machine.
struct Case {
    name: &'static str,
    arguments: &'static [&'static str],
    program: &'static [&'static str],
    check: fn(&Report) -> Vec<String>,
}

/// Where things are in the outer machine.
const CASES: [Case; 4] = [
    Case {
        name: "vmlinux-vsock",
        arguments: &[
            "--kernel",
            "/l2/vmlinux",
            "--root",
            "/l2/root",
            "--memory",
            "256M",
            "--channel",
            "vsock",
            "--env",
            "PROBE=a=b",
        ],
        program: &["/bin/probe", "hello", "one", "two words"],
        check: |report| {
            let mut problems = check_hello(report, "typed in\\n", 1, 256);
            problems.extend(lacks(report, r#"arguments ["one", "two words"]"#));
            problems.extend(lacks(report, r#"variable Some("a=b")"#));
            problems
        },
    },
    Case {
        name: "bzimage-serial-2cpus",
        arguments: &[
            "--kernel",
            "/l2/vmlinuz",
            "--root",
            "/l2/root",
            "--memory",
            "512M",
            "--channel",
            "serial",
            "--cpus",
            "2",
        ],
        program: &["/bin/probe", "hello"],
        check: |report| check_hello(report, "", 2, 512),
    },
    Case {
        name: "disk-above-4g",
        arguments: &["--kernel", "/l2/vmlinux", "--root", DISK, "--memory", "4G", "--read-only"],
        program: &["/bin/probe", "hello"],
        check: |report| check_hello(report, "typed in\\n", 1, 4096),
    },
    Case {
        name: "signal",
        arguments: &["--kernel", "/l2/vmlinux", "--root", "/l2/root", "--memory", "256M"],
        program: &["/bin/probe", "signal"],
        check: |report| check_code(report, 128 + 6).into_iter().collect(),
    },
];

/// Runs the cases.
///
/// # Errors
/// Something on this machine failed before the outer machine ran.
pub fn run(options: &Options<'_>) -> Result<Vec<(String, Outcome)>> {
    if Command::new("apt-get").arg("--version").output().is_err() {
        return Ok(vec![(
            "nested".into(),
            Outcome::Skipped("no apt-get to fetch kernels and QEMU with".into()),
        )]);
    }
    let host = match options.host {
        Some(path) => path.to_path_buf(),
        None => workspace::build_host()?,
    };
    let kernel = Kernel::of(&options.release)?;
    let qemu = Qemu::get()?;
    let outer = Outer::stage(&host, &kernel)?;
    let mut results = Vec::new();
    let wanted = |case: &&Case| options.only.is_none_or(|text| case.name.contains(text));
    let (cases, skipped): (Vec<&Case>, Vec<&Case>) =
        CASES.iter().filter(wanted).partition(|case| outer.has_disk || !case.arguments.contains(&DISK));
    for case in skipped {
        results.push((label(case), Outcome::Skipped("no mkfs.ext4".into())));
    }
    let commands: Vec<_> = cases.iter().map(|case| case.command(options.limit)).collect();
    let ended = outer.run(&qemu, &commands, "2G", options.limit)?;
    if options.verbose {
        println!("{}", ended.console);
    }
    results.push((
        "nested/outer machine".into(),
        match ended.problem {
            None => Outcome::Passed(format!(
                "(kernel {}, {:.1} s in all)",
                kernel.version,
                ended.elapsed.as_secs_f64()
            )),
            Some(problem) => Outcome::Failed(problem),
        },
    ));
    for case in cases {
        results.push((label(case), case.judge(&Report::of(&ended.console, case.name))));
    }
    Ok(results)
}

fn label(case: &Case) -> String {
    format!("nested/{}", case.name)
}

impl Case {
    fn command(&self, limit: Duration) -> report::Command<'static> {
        let fixed = ["/usr/bin/host-vmm", "boot", "--modules", "/l2/modules", "--append", FAST];
        let words = fixed.iter().chain(self.arguments).chain(&["--"]).chain(self.program).copied().collect();
        report::Command { name: self.name, limit, words }
    }

    fn judge(&self, report: &Report) -> Outcome {
        if report.code().is_none() {
            return Outcome::Failed(format!("  it did not come to an end\n{}", report.tail(40)));
        }
        let problems = (self.check)(report);
        if problems.is_empty() {
            return Outcome::Passed(format!("({:.1} s)", report.elapsed().as_secs_f64()));
        }
        Outcome::Failed(format!("  {}\n{}", problems.join("\n  "), report.tail(40)))
    }
}

fn lacks(report: &Report, text: &str) -> Option<String> {
    (report.count('O', text) == 0).then(|| format!("standard output lacks: {text}"))
}

fn check_code(report: &Report, expected: i32) -> Option<String> {
    (report.code() != Some(expected)).then(|| format!("exit code {:?} instead of {expected}", report.code()))
}

/// What `probe hello` has to say with this input, in a machine of `cpus` and `mebibytes`.
fn check_hello(report: &Report, input: &str, cpus: u32, mebibytes: u64) -> Vec<String> {
    let mut problems: Vec<String> = check_code(report, 42).into_iter().collect();
    let lines =
        [format!("input \"{input}\""), format!("processors {cpus}"), format!("root Some({MARKER:?})")];
    problems.extend(lines.iter().filter_map(|line| lacks(report, line)));
    if report.count('E', "on standard error") == 0 {
        problems.push("standard error is not there".into());
    }
    let bulk = report.count('O', "bulk 1029");
    if bulk != BULK_LINES {
        problems.push(format!("{bulk} lines of bulk instead of {BULK_LINES}"));
    }
    let output = report.text('O');
    let total = output.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0);
    // The kernel keeps a part for itself.
    if !(mebibytes * 1024 * 3 / 4..=mebibytes * 1024).contains(&kibibytes) {
        problems.push(format!("{kibibytes} KiB of memory in a machine of {mebibytes} MiB"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(code: i32) -> String {
        let mut text = "[ 1.0] kernel\n@@ a O arguments [\"one\", \"two words\"]\n@@ b O other\n".to_owned();
        text += "@@ a O processors 1\n@@ a O input \"\" \n@@ a O root Some(\"of the root\")\n";
        text += "@@ a O MemTotal:         223768 kB\n@@ a E on standard error\n";
        text += &"@@ a O bulk 1029\n".repeat(64);
        text + &format!("@@ a X {} 5210\n", code << 8)
    }

    #[test]
    fn a_good_report_has_no_problems_and_a_bad_one_names_them() {
        let report = Report::of(&console(42), "a");
        assert_eq!(check_hello(&report, "", 1, 256), Vec::<String>::new());
        assert_eq!(check_hello(&report, "", 2, 256), ["standard output lacks: processors 2"]);
        assert_eq!(check_hello(&report, "", 1, 512).len(), 1);
        assert_eq!(check_hello(&Report::of(&console(125), "a"), "", 1, 256).len(), 1);
    }
}
