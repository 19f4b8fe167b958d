//! `host-vmm boot` itself, on real KVM and a real /dev/vhost-vsock.
//!
//! The outer machine (L1) is QEMU's, with an interpreted processor that has hardware virtualisation; it is started with what
//! `host-vmm qemu-args` prints. In it `host-vmm boot` starts the inner machines (L2), one per case.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Outcome;
use super::kernel::Kernel;
use super::qemu::Qemu;
use crate::debian::{self, Release};
use crate::{process, workspace};

/// What to run, and with what.
pub struct Options<'a> {
    pub release: Release,
    pub only: Option<&'a str>,
    pub host: Option<&'a Path>,
    pub limit: Duration,
    pub verbose: bool,
}

/// Kernel parameters that save time on an interpreted processor; without the watchdog, which takes a busy machine for a hung one.
const FAST: &str = "mitigations=off no_timer_check random.trust_cpu=1 tsc=reliable nowatchdog";
/// Ends the outer init's output, followed by the exit code.
const TRAILER: &str = "host-vmm: the program ended with exit code ";
/// Content of a file in each root.
const MARKER: &str = "of the root";
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
            let mut problems = report.check_hello("typed in\\n", 1, 256);
            problems.extend(report.lacks(r#"arguments ["one", "two words"]"#));
            problems.extend(report.lacks(r#"variable Some("a=b")"#));
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
        check: |report| report.check_hello("", 2, 512),
    },
    Case {
        name: "disk-above-4g",
        arguments: &["--kernel", "/l2/vmlinux", "--root", "/l2/root.img", "--memory", "4G", "--read-only"],
        program: &["/bin/probe", "hello"],
        check: |report| report.check_hello("typed in\\n", 1, 4096),
    },
    Case {
        name: "signal",
        arguments: &["--kernel", "/l2/vmlinux", "--root", "/l2/root", "--memory", "256M"],
        program: &["/bin/probe", "signal"],
        check: |report| report.check_code(128 + 6).into_iter().collect(),
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
        None => build_host()?,
    };
    let kernel = Kernel::of(&options.release)?;
    let qemu = Qemu::get()?;
    let scratch = tempfile::Builder::new().prefix("vm-nested-").tempdir().context("a temporary directory")?;
    let mut results = Vec::new();
    let has_disk = stage(scratch.path(), &host, &kernel)?;
    let wanted = |case: &&Case| options.only.is_none_or(|text| case.name.contains(text));
    let (cases, skipped): (Vec<&Case>, Vec<&Case>) =
        CASES.iter().filter(wanted).partition(|case| has_disk || !case.arguments.contains(&"/l2/root.img"));
    for case in skipped {
        results.push((label(case), Outcome::Skipped("no mkfs.ext4".into())));
    }
    write_cases(&scratch.path().join("root"), &cases)?;
    let command_line = outer_command_line(&host, &kernel, scratch.path())?;
    let finished = qemu.shell(&command_line, scratch.path(), options.limit)?;
    let console = String::from_utf8_lossy(&finished.stdout).replace('\r', "");
    if options.verbose {
        println!("{console}");
    }
    let end = console.lines().find_map(|line| line.strip_prefix(TRAILER));
    if end == Some("0") {
        results.push((
            "nested/outer machine".into(),
            Outcome::Passed(format!(
                "(kernel {}, {:.1} s in all)",
                kernel.version,
                finished.elapsed.as_secs_f64()
            )),
        ));
    } else {
        let how = match (&finished.status, end) {
            (None, _) => format!("ended after {} s", options.limit.as_secs()),
            (_, Some(code)) => format!("its program failed with exit code {code}"),
            (Some(status), None) => format!("ended early ({status})"),
        };
        let text = process::tail(&console, 40, "  ")
            + &process::tail(&String::from_utf8_lossy(&finished.stderr), 10, "  ");
        results.push(("nested/outer machine".into(), Outcome::Failed(format!("  {how}\n{text}"))));
    }
    for case in cases {
        let report = Report::of(&console, case.name);
        results.push((label(case), report.judge(case)));
    }
    Ok(results)
}

fn label(case: &Case) -> String {
    format!("nested/{}", case.name)
}

/// The development build will do: what counts is whether it works.
fn build_host() -> Result<PathBuf> {
    let status =
        workspace::cargo().args(["build", "-p", "host-vmm"]).status().context("cannot run cargo build")?;
    if !status.success() {
        bail!("cargo build of host-vmm failed ({status})");
    }
    Ok(workspace::target_dir()?.join("debug/host-vmm"))
}

/// Lays out the outer machine's root in `scratch/root`. Whether there is a disk image.
fn stage(scratch: &Path, host: &Path, kernel: &Kernel) -> Result<bool> {
    let root = scratch.join("root");
    for directory in ["usr/bin", "l2/root/bin", "l2/modules"] {
        fs::create_dir_all(root.join(directory))?;
    }
    // A read-only disk has to have them.
    for directory in ["dev", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join("l2/root").join(directory))?;
    }
    let probe = root.join("l2/root/bin/probe");
    build_probe(&probe)?;
    copy(&probe, &root.join("usr/bin/probe"))?;
    fs::write(root.join("l2/root/marker"), MARKER)?;
    copy(&kernel.vmlinux, &root.join("l2/vmlinux"))?;
    copy(&kernel.vmlinuz, &root.join("l2/vmlinuz"))?;
    copy_modules(&kernel.modules, &root.join("l2/modules"))?;
    let own = root.join("usr/bin/host-vmm");
    copy(host, &own)?;
    // Symbols would only fill the outer machine's memory.
    let _ = Command::new("strip").arg(&own).output();
    for library in libraries(host)? {
        let path = root.join(library.strip_prefix("/").unwrap_or(&library));
        fs::create_dir_all(path.parent().context("a library's directory")?)?;
        copy(&library, &path)?;
    }
    make_disk(&root)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// An image of the inner root; `false` where no tool can make one.
fn make_disk(root: &Path) -> Result<bool> {
    let image = root.join("l2/root.img");
    let file = fs::File::create(&image).context("a disk image")?;
    file.set_len(16 << 20).context("a disk image")?;
    let made =
        Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(root.join("l2/root")).arg(&image).output();
    match made {
        Ok(output) if output.status.success() => Ok(true),
        Ok(output) => bail!("mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr).trim_end()),
        Err(_) => {
            fs::remove_file(&image).context("a disk image")?;
            Ok(false)
        }
    }
}

fn build_probe(to: &Path) -> Result<()> {
    let source = workspace::root().join("xtask/src/vm/probe.rs");
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(workspace::root());
    command.args([
        "--edition",
        "2024",
        "-C",
        "opt-level=1",
        "-C",
        "strip=symbols",
        "-C",
        "target-feature=+crt-static",
    ]);
    debian::run(command.arg("-o").arg(to).arg(source), "build of the probe").map(drop)
}

/// Files of the libraries of a program, its dynamic linker included.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = debian::run(Command::new("ldd").arg(program), "ldd")?;
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

/// The modules that an inner machine could want: all would fill the outer machine's memory.
fn copy_modules(from: &Path, to: &Path) -> Result<()> {
    const FOLDERS: [&str; 5] =
        ["drivers/virtio", "net/vmw_vsock", "drivers/block", "fs/ext4", "drivers/char/hw_random"];
    copy(&from.join("modules.builtin"), &to.join("modules.builtin"))?;
    for folder in FOLDERS {
        let folder = from.join("kernel").join(folder);
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()) {
            copy_module(&path, to)?;
        }
    }
    Ok(())
}

/// Unpacked: there are no tools in the outer machine.
fn copy_module(from: &Path, to: &Path) -> Result<()> {
    let name = from.file_name().context("a module's name")?;
    if from.extension().is_none_or(|extension| extension != "xz") {
        return copy(from, &to.join(name));
    }
    let output = Command::new("xz").arg("-dc").arg(from).output().context("cannot run xz")?;
    let path = to.join(name).with_extension("");
    fs::write(&path, output.stdout).with_context(|| path.display().to_string())
}

/// The command lines that the probe runs in the outer machine.
fn write_cases(root: &Path, cases: &[&Case]) -> Result<()> {
    let mut text = String::new();
    for case in cases {
        let fixed = ["/usr/bin/host-vmm", "boot", "--modules", "/l2/modules", "--append", FAST];
        let words: Vec<&str> = [case.name]
            .iter()
            .chain(&fixed)
            .chain(case.arguments)
            .chain(&["--"])
            .chain(case.program)
            .copied()
            .collect();
        text += &words.join("\t");
        text.push('\n');
    }
    fs::write(root.join("cases"), text).context("cases")
}

/// The outer machine, as `host-vmm qemu-args` describes it.
fn outer_command_line(host: &Path, kernel: &Kernel, scratch: &Path) -> Result<String> {
    let mut command = Command::new(host);
    command.args(["qemu-args", "--tcg", "--no-vsock", "--memory", "2G", "--append", FAST]);
    command.args(["--module", "kvm-amd", "--module", "vhost_vsock"]);
    command.arg("--kernel").arg(&kernel.vmlinux).arg("--modules").arg(&kernel.modules);
    command.arg("--root").arg(scratch.join("root")).arg("--write-initrd").arg(scratch.join("initrd"));
    command.args(["--", "/usr/bin/probe", "cases", "/cases"]);
    debian::run(&mut command, "host-vmm qemu-args")
}

/// What the outer machine's console says about a case.
struct Report {
    lines: Vec<(char, String)>,
    code: Option<i32>,
    seconds: f64,
}

impl Report {
    fn of(console: &str, name: &str) -> Self {
        let prefix = format!("@@ {name} ");
        let mut report = Self { lines: Vec::new(), code: None, seconds: 0.0 };
        for line in console.lines().filter_map(|line| line.strip_prefix(&prefix)) {
            let Some((mark, text)) = line.split_at_checked(2) else { continue };
            if let Some((code, milliseconds)) = text.split_once(' ').filter(|_| mark == "X ") {
                report.code = code.parse().ok();
                report.seconds = milliseconds.parse::<f64>().unwrap_or(0.0) / 1000.0;
            } else {
                report.lines.push((mark.chars().next().unwrap_or(' '), text.to_owned()));
            }
        }
        report
    }

    fn judge(&self, case: &Case) -> Outcome {
        if self.code.is_none() {
            return Outcome::Failed("  it did not come to an end".into());
        }
        let problems = (case.check)(self);
        if problems.is_empty() {
            return Outcome::Passed(format!("({:.1} s)", self.seconds));
        }
        let lines: Vec<String> = self.lines.iter().map(|(mark, text)| format!("{mark} {text}")).collect();
        Outcome::Failed(format!(
            "  {}\n{}",
            problems.join("\n  "),
            process::tail(&lines.join("\n"), 40, "  | ")
        ))
    }

    fn has(&self, mark: char, text: &str) -> bool {
        self.lines.iter().any(|line| line.0 == mark && line.1.trim_end() == text.trim_end())
    }

    fn lacks(&self, text: &str) -> Option<String> {
        (!self.has('O', text)).then(|| format!("standard output lacks: {text}"))
    }

    fn check_code(&self, expected: i32) -> Option<String> {
        (self.code != Some(expected)).then(|| format!("exit code {:?} instead of {expected}", self.code))
    }

    /// What `probe hello` has to say with this input, in a machine of `cpus` and `mebibytes`.
    fn check_hello(&self, input: &str, cpus: u32, mebibytes: u64) -> Vec<String> {
        let mut problems: Vec<String> = self.check_code(42).into_iter().collect();
        let lines =
            [format!("input \"{input}\""), format!("processors {cpus}"), format!("root Some({MARKER:?})")];
        problems.extend(lines.iter().filter_map(|line| self.lacks(line)));
        if !self.has('E', "on standard error") {
            problems.push("standard error is not there".into());
        }
        let bulk = self.lines.iter().filter(|line| line.1 == "bulk 1029").count();
        if bulk != BULK_LINES {
            problems.push(format!("{bulk} lines of bulk instead of {BULK_LINES}"));
        }
        let total = self.lines.iter().find_map(|(_, text)| text.strip_prefix("MemTotal:"));
        let kibibytes =
            total.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0);
        // The kernel keeps a part for itself.
        if !(mebibytes * 1024 * 3 / 4..=mebibytes * 1024).contains(&kibibytes) {
            problems.push(format!("{kibibytes} KiB of memory in a machine of {mebibytes} MiB"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(code: i32) -> String {
        let mut text = "[ 1.0] kernel\n@@ a O arguments [\"one\", \"two words\"]\n@@ b O other\n".to_owned();
        text += "@@ a O processors 1\n@@ a O input \"\" \n@@ a O root Some(\"of the root\")\n";
        text += "@@ a O MemTotal:         223768 kB\n@@ a E on standard error\n";
        text += &"@@ a O bulk 1029\n".repeat(64);
        text + &format!("@@ a X {code} 5210\n")
    }

    #[test]
    fn a_good_report_has_no_problems_and_a_bad_one_names_them() {
        let report = Report::of(&console(42), "a");
        assert_eq!((report.code, report.seconds), (Some(42), 5.21));
        assert_eq!(report.check_hello("", 1, 256), Vec::<String>::new());
        assert_eq!(report.check_hello("", 2, 256), ["standard output lacks: processors 2"]);
        assert_eq!(report.check_hello("", 1, 512).len(), 1);
        assert_eq!(Report::of(&console(125), "a").check_hello("", 1, 256).len(), 1);
        assert_eq!(Report::of(&console(42), "c").code, None);
    }
}
