//! Programs that end without warning, and hosts that do. What the host's side (`xtask/src/vm/hostile.rs`) is to know is said in lines that begin with `@ `.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guest_device::Device;

use crate::system::Mapping;
use crate::{fill, hostile, verify, wait_for};

const PROBE: &str = "/samples/shim_probe";
const SAMPLE: &str = "/samples/vector_add";
/// What programs do when they are killed; the first the most.
const TASKS: [&str; 4] = ["loop-copy", "loop-copy", "loop-launch", "loop-call"];

/// `hostile programs KILLS` or `hostile daemon TASK..`.
pub fn main(arguments: &[String]) -> ExitCode {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["programs", kills] => kills.parse().context("a number of kills").and_then(programs),
        ["daemon", ref tasks @ ..] => tasks.iter().try_for_each(|task| daemon(task)),
        _ => Err(anyhow::anyhow!("hostile programs KILLS | hostile daemon TASK..")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("@ failed {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A program of this guest, and its output.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(task: &str) -> Result<Running> {
        let mut child = Command::new(PROBE)
            .arg(task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{PROBE} {task}"))?;
        let lines = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Running { child, lines })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn expect(&mut self, wanted: &str) -> Result<()> {
        let line = self.line()?;
        ensure!(line == wanted, "said '{line}', not '{wanted}'");
        Ok(())
    }

    fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

fn works() -> Result<()> {
    let output = Command::new(SAMPLE).output().context(SAMPLE)?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && text.contains("PASS"), "{SAMPLE}: {}: {text}", output.status);
    Ok(())
}

fn programs(kills: u64) -> Result<()> {
    let mut neighbour = Running::start("steady")?;
    neighbour.expect("working")?;
    let attacks = hostile::run()?;
    println!("@ attacks {attacks}");
    drop(neighbour.child.stdin.take());
    ensure!(neighbour.line()?.ends_with(" rounds"), "the neighbour has done nothing");
    neighbour.expect("PASS")?;
    neighbour.child.wait()?;

    let watcher = Device::open()?;
    wait_for("return of all pages", || Ok(watcher.status()?.user_bytes == 0))?;
    let (mut random, mut slowest, mut held) = (0x2545_f491_4f6c_dd1du64, Duration::ZERO, 0);
    for round in 0..kills {
        let mut victim = Running::start(TASKS[round as usize % TASKS.len()])?;
        victim.expect("spinning")?;
        for shift in [13, 7, 17] {
            random ^= if shift == 7 { random >> shift } else { random << shift };
        }
        std::thread::sleep(Duration::from_micros(random % 50_000));
        victim.kill()?;
        let begin = Instant::now();
        held += u64::from(watcher.status()?.user_bytes != 0);
        // Whatever is free now gets another use; the host may not write it any more.
        let mut memory = Mapping::new(48 << 20, false)?;
        fill(memory.words(), round);
        wait_for("return of all pages", || Ok(watcher.status()?.user_bytes == 0))
            .with_context(|| format!("kill {round}"))?;
        slowest = slowest.max(begin.elapsed());
        verify(memory.words(), round)
            .with_context(|| format!("kill {round}: memory was written after it was free"))?;
        if round % 50 == 49 {
            println!("{} programs killed", round + 1);
            works()?;
        }
    }
    works()?;
    wait_for("return of all pages", || Ok(watcher.status()?.user_bytes == 0))?;
    println!(
        "@ killed {kills} programs killed, {held} with pages in use afterwards, all back within {} ms",
        slowest.as_millis()
    );
    // The host looks, and ends this machine while a program copies.
    std::thread::sleep(Duration::from_secs(3));
    let mut last = Running::start("loop-copy")?;
    last.expect("spinning")?;
    println!("@ copies");
    last.child.wait()?;
    bail!("the program has ended before the machine")
}

/// The host kills its daemon while this runs, and starts another.
fn daemon(task: &str) -> Result<()> {
    let mut victim = Running::start(task)?;
    victim.expect("spinning")?;
    println!("@ runs {task}");
    let error = victim.line()?;
    println!("@ ended {error}");
    victim.child.wait()?;
    // Opening the device has the module look for its host at once.
    wait_for("another daemon", || Ok(Device::open().is_ok()))?;
    works()?;
    let watcher = Device::open()?;
    wait_for("return of all pages", || Ok(watcher.status()?.user_bytes == 0))?;
    println!("@ works");
    Ok(())
}
