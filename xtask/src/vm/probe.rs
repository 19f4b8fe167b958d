//! The program that the tests run in virtual machines; compiled on its own, static. Not part of xtask.
//!
//! `probe hello ARGS`: says what it sees, passes its input on, ends with code 42.
//! `probe signal`: kills itself.
//! `probe cases FILE`: runs command lines of a file (name and words, separated by tabs) and says what became of each.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

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
    let text = std::fs::read_to_string(file).expect("cases");
    for line in text.lines() {
        let mut words = line.split('\t');
        let (Some(name), Some(program)) = (words.next(), words.next()) else { continue };
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("case");
        child.stdin.take().expect("stdin").write_all(b"typed in\n").expect("stdin");
        let output = child.wait_with_output().expect("case");
        let mut report = String::new();
        for (mark, bytes) in [("O", &output.stdout), ("E", &output.stderr)] {
            for line in String::from_utf8_lossy(bytes).lines() {
                // Long lines only slow the console down.
                let short: String = line.chars().take(160).collect();
                let same = if line.starts_with("bulk ") { format!("bulk {}", line.len()) } else { short };
                report += &format!("@@ {name} {mark} {same}\n");
            }
        }
        let code = output.status.code().unwrap_or(-1);
        report += &format!("@@ {name} X {code} {}\n", started.elapsed().as_millis());
        // One write per case, or the outer kernel's messages come in between.
        std::io::stdout().write_all(report.as_bytes()).expect("console");
    }
}
