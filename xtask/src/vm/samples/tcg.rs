//! Samples in a guest of an interpreted processor; the daemon and the back end of the guest's vsock run on this machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::programs::{self, CASES, PROBE, Program};
use super::{Leg, Means, Ran};
use crate::vm::helpers::{self, Helpers};
use crate::vm::kernel::Kernel;
use crate::vm::machine::Machine;
use crate::vm::qemu::Qemu;
use crate::vm::tcg::damage;
use crate::{kmod, process};

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

/// Guest memory, in a file that the daemon can map; most of it is for the programs' files, which are in memory.
const MEMORY: &str = "1536M";
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

const MODULE: TcgLeg = TcgLeg {
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
pub fn run(
    leg: &TcgLeg,
    means: &Means<'_>,
    kernel: &Kernel,
    qemu: &Qemu,
    programs: &[Program],
) -> Result<Ran> {
    let options = means.options;
    let scratch =
        tempfile::Builder::new().prefix("vm-samples-").tempdir().context("a temporary directory")?;
    let at = scratch.path();
    programs::stage(programs, means.shim, options.limit, &at.join("root"))?;
    // Guest memory belongs into memory; the size is reserved nowhere.
    let ram = tempfile::Builder::new()
        .prefix("guest-ram-")
        .tempfile_in("/dev/shm")
        .context("a file in /dev/shm")?;
    let (shim, ram) = (means.shim.display().to_string(), ram.path().display().to_string());
    let mut arguments =
        vec!["--cpus", "2", "--memory", MEMORY, "--memory-file", ram.as_str(), "--shim", shim.as_str()];
    let module = if leg.module {
        kmod::build_core()?;
        Some(kmod::build(&options.release)?.path.display().to_string())
    } else {
        None
    };
    arguments.extend(module.iter().flat_map(|module| ["--module", module.as_str()]));

    let mut helpers = Helpers::default();
    let log = at.join("daemon.log");
    start_daemon(leg, means.host, &mut helpers, at, &log)?;
    if leg.back_end {
        helpers::start_back_end(&mut helpers, at)?;
    }
    let machine = Machine {
        host: means.host,
        kernel,
        scratch: at,
        arguments: &arguments,
        append: leg.append,
        vsock: Some(&at.join(VHOST)),
        program: &[PROBE, "cases", CASES],
        limit: options.machine_limit,
    };
    let ended = machine.run(qemu)?;
    // The daemon says what it has done when it ends.
    drop(helpers);
    let found = damage(&ended.console).map(|line| format!("  the kernel says: {line}\n"));
    let note = format!(
        "kernel {}, {} programs, {:.0} s in all",
        kernel.version,
        programs.len(),
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

fn start_daemon(leg: &TcgLeg, host: &Path, helpers: &mut Helpers, at: &Path, log: &Path) -> Result<()> {
    let place = |text: &str| text.replace("{dir}", &at.display().to_string());
    let mut daemon = Command::new(host);
    daemon.args(["serve", "--backend", "cpu", "--stats"]).args(leg.daemon.iter().map(|text| place(text)));
    daemon.env_remove("CUDA_SHIM_CONNECT");
    helpers.start(&mut daemon, log, Path::new(&place(leg.ready)))
}
