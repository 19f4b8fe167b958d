//! Samples on a real vhost-vsock, in the [`outer`](crate::vm::outer) machine: in an inner machine of `host-vmm boot`, whose own daemon serves them, or without one, under
//! host-vmm's vsock device and a driver in a process (`host-vmm/examples/vhost_guest`). Programs, daemon and kernels run on an interpreted processor.

use std::path::PathBuf;

use anyhow::Result;

use super::programs::{self, CASES, PROBE, Program};
use super::{Means, Ran};
use crate::vm::kernel::Kernel;
use crate::vm::machine::FAST;
use crate::vm::outer::Outer;
use crate::vm::report::{self, Report};
use crate::vm::stage;
use crate::{debian, workspace};

/// The outer machine has the programs twice, as files and in the inner machine's memory.
const OUTER_MEMORY: &str = "4G";
const INNER_MEMORY: &str = "1536M";
/// Name of the one command line of the outer machine.
const CASE: &str = "samples";
/// Where the shim is in the outer machine.
const SHIM: &str = "l2/shim/libcuda.so.1";
/// Where our module is there.
const MODULE: &str = "l2/cuda_broker.ko";

/// Runs the programs in one inner machine.
pub fn run(means: &Means, programs: &[Program]) -> Result<Ran> {
    let kernel = means.parts.kernel()?;
    let outer = Outer::stage(&means.setup.host, &kernel)?;
    programs::stage(programs, means, &outer.root().join("l2/samples"))?;
    stage::copy(&means.setup.shim, &outer.root().join(SHIM))?;
    stage::copy(&means.parts.module()?, &outer.root().join(MODULE))?;
    let (shim, module) = (format!("/{SHIM}"), format!("/{MODULE}"));
    let mut words = vec!["/usr/bin/host-vmm", "boot", "--backend", "cpu", "--modules", "/l2/modules"];
    words.extend(["--kernel", "/l2/vmlinux", "--root", "/l2/samples", "--shim", &shim, "--module", &module]);
    words.extend(["--memory", INNER_MEMORY, "--channel", "vsock", "--append", FAST]);
    words.extend(["--", PROBE, "cases", CASES]);
    finish(means, &kernel, programs, &outer, words)
}

/// Runs the programs in the outer machine, as those of a guest that is a process.
pub fn run_without_machine(means: &Means, programs: &[Program]) -> Result<Ran> {
    let kernel = means.parts.kernel()?;
    let outer = Outer::stage(&means.setup.host, &kernel)?;
    let root = outer.root();
    programs::stage(programs, means, &root)?;
    stage::copy(&means.setup.shim, &root.join(SHIM))?;
    let guest = build_guest()?;
    stage::copy(&guest, &root.join("usr/bin/vhost_guest"))?;
    stage::copy_libraries(&[guest], &root)?;
    // The daemon is in the process group of the case, which is ended with it.
    let script = format!(
        "host-vmm serve --backend cpu --listen vsock:17237 --allow-cid 42 & \
         LD_LIBRARY_PATH=/l2/shim exec vhost_guest 42 17237 -- {PROBE} cases {CASES}"
    );
    finish(means, &kernel, programs, &outer, vec!["/bin/sh", "-c", &script])
}

fn build_guest() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "-p", "host-vmm", "--example", "vhost_guest"]);
    debian::run(&mut cargo, "build of the guest that is a process")?;
    Ok(workspace::target_dir()?.join("release/examples/vhost_guest"))
}

/// Runs a command line in the outer machine that has `probe cases` run the programs.
fn finish(
    means: &Means,
    kernel: &Kernel,
    programs: &[Program],
    outer: &Outer<'_>,
    words: Vec<&str>,
) -> Result<Ran> {
    let limit = means.machine_limit;
    let command = report::Command { name: CASE, limit, words };
    let ended = outer.run(&means.parts.qemu()?, &[command], OUTER_MEMORY, limit)?;
    let inner = Report::of(&ended.console, CASE);
    let problem = ended.problem.or_else(|| {
        (inner.code() != Some(0)).then(|| {
            let code = inner.code().map_or_else(|| "no exit code".into(), |code| format!("exit code {code}"));
            format!("  its command line: {code}\n{}", inner.tail(40))
        })
    });
    let note = format!(
        "kernel {}, {} programs, {:.0} s for them, {:.0} s in all",
        kernel.version,
        programs.len(),
        inner.elapsed().as_secs_f64(),
        ended.elapsed.as_secs_f64()
    );
    Ok(Ran { reports: inner.text('O'), log: ended.console, note, problem })
}
