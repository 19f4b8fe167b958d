//! What a worker takes from itself before it looks at what the program sends.
//!
//! All of it is a second line: where it cannot be had, the session works without, and the log says so.

#![allow(unsafe_code)] // Closes descriptors by number.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::config::{Backend, Config};

/// When memory runs out, a worker goes before the daemon and before whatever else runs on the machine.
const OOM_SCORE_ADJ: &str = "500";

/// Memory beyond what the limits speak of: code, stacks of lanes and streams, queues, the compiler.
const OWN_MEMORY: u64 = 8 << 30;

/// Private memory of NVIDIA's driver in a process; what is on the device does not count.
const DRIVER_MEMORY: u64 = 64 << 30;

/// Closes what the worker has inherited beyond standard input, output and error: descriptors of the daemon's own parent, which are not the
/// program's business. To be called first, before anything is opened.
pub fn descriptors() {
    // SAFETY: takes numbers only. No object of this process owns a descriptor yet but those for the three streams.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    if result != 0 {
        // Linux before 5.9.
        tracing::warn!(error = %std::io::Error::last_os_error(), "inherited descriptors stay open");
    }
}

/// No core dumps (they would fill the host's disk at a program's wish), no privileges by executing files, first choice of the
/// out-of-memory killer.
pub fn process() {
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, no_core) {
        tracing::warn!(%error, "cannot forbid core dumps");
    }
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        tracing::warn!(%error, "cannot give up new privileges");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        tracing::debug!(%error, "cannot set the out-of-memory score");
    }
}

/// Bounds the process's private memory: what a program makes the worker allocate without a limit of its own ends the worker, not the
/// machine. The window is shared memory and has its own bound.
pub fn memory(config: &Config) {
    let limits = &config.limits;
    let device = match config.backend {
        // Device memory, and as much again for the engine's arenas.
        Backend::Cpu => limits.memory_bytes.saturating_mul(2),
        Backend::Cuda(_) => DRIVER_MEMORY,
    };
    // Images, and their parsed form.
    let bytes = device.saturating_add(limits.images_bytes.saturating_mul(2)).saturating_add(OWN_MEMORY);
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    if let Err(error) = setrlimit(Resource::Data, limit) {
        tracing::warn!(%error, bytes, "cannot bound the worker's memory");
    }
}
