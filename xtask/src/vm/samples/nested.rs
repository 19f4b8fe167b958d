//! Samples in an inner machine of `host-vmm boot`, on the real KVM and vhost-vsock of an interpreted outer machine. The daemon is `boot`'s own.

use anyhow::Result;

use super::programs::{self, CASES, PROBE, Program};
use super::{Means, Ran};
use crate::vm::kernel::Kernel;
use crate::vm::machine::FAST;
use crate::vm::outer::Outer;
use crate::vm::qemu::Qemu;
use crate::vm::report::{self, Report};
use crate::vm::stage;

/// The outer machine has the programs twice, as files and in the inner machine's memory.
const OUTER_MEMORY: &str = "4G";
const INNER_MEMORY: &str = "1536M";
/// Name of the one command line of the outer machine.
const CASE: &str = "samples";

/// Runs the programs in one inner machine.
pub fn run(means: &Means<'_>, kernel: &Kernel, qemu: &Qemu, programs: &[Program]) -> Result<Ran> {
    let options = means.options;
    let outer = Outer::stage(means.host, kernel)?;
    programs::stage(programs, means.shim, options.limit, &outer.root().join("l2/samples"))?;
    stage::copy(means.shim, &outer.root().join("l2/libcuda.so.1"))?;
    let mut words = vec!["/usr/bin/host-vmm", "boot", "--backend", "cpu", "--modules", "/l2/modules"];
    words.extend(["--kernel", "/l2/vmlinux", "--root", "/l2/samples", "--shim", "/l2/libcuda.so.1"]);
    words.extend(["--memory", INNER_MEMORY, "--channel", "vsock", "--append", FAST]);
    words.extend(["--", PROBE, "cases", CASES]);
    let command = report::Command { name: CASE, limit: options.machine_limit, words };
    let ended = outer.run(qemu, &[command], OUTER_MEMORY, options.machine_limit)?;
    let inner = Report::of(&ended.console, CASE);
    let problem = ended.problem.or_else(|| {
        (inner.code() != Some(0)).then(|| {
            let code = inner.code().map_or_else(|| "no exit code".into(), |code| format!("exit code {code}"));
            format!("  host-vmm boot: {code}\n{}", inner.tail(40))
        })
    });
    let note = format!(
        "kernel {}, {} programs, inner machine {:.0} s, {:.0} s in all",
        kernel.version,
        programs.len(),
        inner.elapsed().as_secs_f64(),
        ended.elapsed.as_secs_f64()
    );
    Ok(Ran { reports: inner.text('O'), log: ended.console, note, problem })
}
