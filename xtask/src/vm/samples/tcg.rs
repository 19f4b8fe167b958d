//! Samples in a guest of an interpreted processor; the daemon and the back end of the guest's vsock run on this machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::programs::{self, CASES, PROBE, Program};
use super::{Leg, Means, Ran};
use crate::process;
use crate::vm::helpers::{self, Helpers};
use crate::vm::machine::Machine;
use crate::vm::tcg::damage;

/// What sets one such leg apart. In texts, `{dir}` is a directory of this run.
pub struct TcgLeg {
    /// What the daemon is told.
    daemon: &'static [&'static str],
    /// The socket that it makes when it is ready.
    ready: &'static str,
    /// The guest's vsock is behind a back end of its own, not the daemon.
    back_end: bool,
    /// The guest loads our module.
    module: bool,
    /// Kernel parameters.
    append: &'static str,
}

/// Guest memory; most of it is for the programs' files, which are in memory.
pub const MEMORY_MIB: u64 = 1536;
/// In `{dir}`: where the back end of the vsock listens.
const VHOST: &str = "vhost";
/// The kernel's warnings are to be seen.
const SHOW_WARNINGS: &str = "loglevel=5";

const FOREIGN: TcgLeg = TcgLeg {
    daemon: &["--listen", "unix-stream:{dir}/vsock_17237"],
    ready: "{dir}/vsock_17237",
    back_end: true,
    module: false,
    append: SHOW_WARNINGS,
};

pub const MODULE: TcgLeg = TcgLeg {
    daemon: &["--guest", "vhost-user={dir}/vhost,cid=3"],
    ready: "{dir}/vhost",
    back_end: false,
    module: true,
    append: SHOW_WARNINGS,
};

const STREAM: TcgLeg = TcgLeg { module: false, ..MODULE };

/// The leg of this name, if it is one of this kind.
pub fn leg(leg: Leg) -> Option<&'static TcgLeg> {
    match leg {
        Leg::TcgForeign => Some(&FOREIGN),
        Leg::TcgStream => Some(&STREAM),
        Leg::TcgModule => Some(&MODULE),
        Leg::Unix | Leg::Vhost | Leg::Nested => None,
    }
}

/// Runs the programs in one machine.
pub fn run(leg: &TcgLeg, means: &Means, programs: &[Program]) -> Result<Ran> {
    let scratch =
        tempfile::Builder::new().prefix("vm-samples-").tempdir().context("a temporary directory")?;
    programs::stage(programs, means, &scratch.path().join("root"))?;
    run_staged(leg, means, scratch.path(), MEMORY_MIB, programs.len())
}

/// Has `probe cases` run what `root` in the directory `at` says, in one machine.
pub fn run_staged(leg: &TcgLeg, means: &Means, at: &Path, memory_mib: u64, programs: usize) -> Result<Ran> {
    let (kernel, qemu) = (means.parts.kernel()?, means.parts.qemu()?);
    let (shim, memory) = (means.setup.shim.display().to_string(), format!("{memory_mib}M"));
    // Guest memory is a memfd of QEMU, which passes it on: no file system has to have room for it.
    let mut arguments = vec!["--cpus", "2", "--memory", &memory, "--shim", shim.as_str()];
    let module = if leg.module { Some(means.parts.module()?.display().to_string()) } else { None };
    arguments.extend(module.iter().flat_map(|module| ["--module", module.as_str()]));

    let mut helpers = Helpers::default();
    let log = at.join("daemon.log");
    start_daemon(leg, means, &mut helpers, at, &log)?;
    if leg.back_end {
        helpers::start_back_end(&mut helpers, at)?;
    }
    let machine = Machine {
        host: &means.setup.host,
        kernel: &kernel,
        scratch: at,
        arguments: &arguments,
        append: leg.append,
        vsock: Some(&at.join(VHOST)),
        program: &[PROBE, "cases", CASES],
        limit: means.machine_limit,
    };
    let ended = machine.run(&qemu)?;
    // The daemon says what it has done when it ends.
    drop(helpers);
    let found = damage(&ended.console).map(|line| format!("  the kernel says: {line}\n"));
    let note = format!(
        "kernel {}, {programs} programs, {:.0} s in all",
        kernel.version,
        ended.elapsed.as_secs_f64()
    );
    let daemon = fs::read_to_string(&log).unwrap_or_default();
    let (note, crossed) = with_traffic(note, &daemon, leg.module);
    Ok(Ran {
        problem: ended.problem.or(found).or(crossed),
        note,
        log: format!("{}{}", ended.console, process::tail(&daemon, usize::MAX, "daemon: ")),
        reports: ended.console,
    })
}

/// Shared memory is shared: no more than this crosses the vsock for it, whatever programs copy.
const SHARED_LIMIT: u64 = 1 << 20;

/// Adds what the daemon's statistics say of bytes; with the module, a problem if more of them went over sockets than may.
fn with_traffic(note: String, daemon: &str, module: bool) -> (String, Option<String>) {
    let numbers = |line: &str| -> Vec<u64> {
        line.split_whitespace().filter_map(|word| word.trim_end_matches(',').parse().ok()).collect()
    };
    let find = |prefix: &str| daemon.lines().find_map(|line| line.strip_prefix(prefix)).map(numbers);
    let (Some(copies), Some(sockets)) = (find("copies: "), find("over sockets: ")) else {
        return (note, Some("  the daemon's statistics are missing\n".into()));
    };
    let (copied, crossed) = (copies.iter().sum::<u64>(), sockets.iter().sum::<u64>());
    let note = format!("{note}; {} MiB copied, {} KiB over sockets", copied >> 20, crossed >> 10);
    let problem = (module && crossed > SHARED_LIMIT)
        .then(|| format!("  {crossed} bytes went over sockets, {sockets:?}\n"));
    (note, problem)
}

fn start_daemon(leg: &TcgLeg, means: &Means, helpers: &mut Helpers, at: &Path, log: &Path) -> Result<()> {
    let place = |text: &str| text.replace("{dir}", &at.display().to_string());
    let mut daemon = Command::new(&means.setup.host);
    daemon
        .args(["serve", "--backend", &means.setup.backend, "--stats"])
        .args(leg.daemon.iter().map(|text| place(text)));
    daemon.env_remove("CUDA_SHIM_CONNECT");
    helpers.start(&mut daemon, log, Path::new(&place(leg.ready)))
}
