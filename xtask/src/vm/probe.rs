//! The program that the tests run in virtual machines; compiled on its own, static. Not part of xtask.
//!
//! `probe hello ARGS`: says what it sees, passes its input on, ends with code 42.
//! `probe signal`: kills itself.
//! `probe cases FILE`: runs command lines and says what became of each.
//!
//! A line of the file is a name, a time limit in seconds, the program and its arguments, separated by tabs. The report of a case is lines that begin with `@@ NAME`: `O` and
//! a line of standard output, `E` and a line of standard error, last `X`, the wait status (or `limit`), and milliseconds. xtask's `vm/report.rs` reads them.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer lines only slow the console down.
const LINE_CHARS: usize = 4096;
/// Between two looks whether a program has ended.
const PAUSE: Duration = Duration::from_millis(5);
/// Marks of standard output and standard error.
const OUTPUT: [char; 2] = ['O', 'E'];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("hello") => hello(&arguments[1..]),
        Some("signal") => std::process::abort(),
        Some("cases") => cases(&arguments[1]),
        _ => std::process::exit(2),
    }
}

fn hello(arguments: &[String]) {
    println!("arguments {arguments:?}");
    println!("variable {:?}", std::env::var("PROBE").ok());
    println!("processors {}", std::thread::available_parallelism().map_or(0, usize::from));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    println!("{}", memory.lines().next().unwrap_or_default());
    let mut input = String::new();
    let result = std::io::stdin().read_to_string(&mut input);
    println!("input {input:?} {}", if result.is_ok() { "" } else { "failed" });
    println!("root {:?}", std::fs::read_to_string("/marker").ok());
    eprintln!("on standard error");
    // More than one message of any channel.
    let line = "0123456789abcdef".repeat(64);
    for _ in 0..64 {
        println!("bulk {line}");
    }
    std::process::exit(42);
}

fn cases(file: &str) {
    let text = fs::read_to_string(file).expect("cases");
    // Firmware leaves an unfinished line on the console.
    println!();
    for line in text.lines() {
        let mut words = line.split('\t');
        let (Some(name), Some(limit), Some(program)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let limit = Duration::from_secs(limit.parse().expect("a time limit"));
        let started = Instant::now();
        let ended = run(Command::new(program).args(words), started + limit);
        let milliseconds = started.elapsed().as_millis();
        let mut report = String::new();
        for mark in OUTPUT {
            let bytes = fs::read(output_file(mark)).unwrap_or_default();
            for line in String::from_utf8_lossy(&bytes).lines() {
                let short: String = line.chars().take(LINE_CHARS).collect();
                let same = if line.starts_with("bulk ") { format!("bulk {}", line.len()) } else { short };
                report += &format!("@@ {name} {mark} {same}\n");
            }
        }
        let end = match ended {
            Ok(Some(status)) => status.into_raw().to_string(),
            Ok(None) => "limit".into(),
            Err(error) => {
                report += &format!("@@ {name} E {program}: {error}\n");
                ExitStatus::from_raw(127 << 8).into_raw().to_string()
            }
        };
        report += &format!("@@ {name} X {end} {milliseconds}\n");
        // One write per case, or the kernel's messages come in between.
        io::stdout().write_all(report.as_bytes()).expect("console");
    }
}

/// Runs a program in a process group of its own; `None` if the time limit ended it.
fn run(command: &mut Command, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let [stdout, stderr] = OUTPUT.map(|mark| File::create(output_file(mark)));
    let mut child = command.stdin(Stdio::piped()).stdout(stdout?).stderr(stderr?).process_group(0).spawn()?;
    // It fits into the pipe; a program that does not read it is no error.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(b"typed in\n"));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            break None;
        }
        std::thread::sleep(PAUSE);
    };
    // What it has left behind is not to disturb those that follow.
    kill_group(&child);
    child.wait()?;
    Ok(status)
}

/// Where output of the program that runs goes. A file, since what a program leaves behind could keep a pipe open; of this process, since one probe may run another.
fn output_file(mark: char) -> String {
    format!("/tmp/probe.{}.{mark}", std::process::id())
}

fn kill_group(child: &Child) {
    const SIGKILL: i32 = 9;
    // SAFETY: kill(2) of every libc has this prototype and takes numbers only.
    unsafe extern "C" {
        safe fn kill(pid: i32, signal: i32) -> i32;
    }
    if let Ok(pid) = i32::try_from(child.id()) {
        // Fails only if the whole group is gone already.
        kill(-pid, SIGKILL);
    }
}
