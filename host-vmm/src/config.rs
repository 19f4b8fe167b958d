//! What daemon and workers are told: limits and the shape of the device. Travels from daemon to worker as JSON.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Smallest window: a few lanes and a little pinned memory.
const MIN_WINDOW: u64 = 64 << 20;
const MIN_MEMORY: u64 = 16 << 20;
/// Device memory and window each lie in one half of the 4 TiB region, which also holds the engine's arenas.
pub const MAX_HALF: u64 = 1 << 40;

/// Bounds on what one program, or all of them, can take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Programs at the same time.
    pub sessions: u32,
    /// Connections that have not finished their handshake.
    pub handshakes: u32,
    /// Time for a handshake.
    pub handshake_ms: u64,
    /// Lanes of a session.
    pub lanes: u32,
    /// Handles of a session.
    pub handles: u32,
    /// Device memory of a session.
    pub memory_bytes: u64,
    /// Window of a session: lanes, pinned and managed memory.
    pub window_bytes: u64,
    /// One device image.
    pub image_bytes: u64,
    /// All images of a session.
    pub images_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let half = (machine_memory() / 2).clamp(MIN_WINDOW, MAX_HALF) & !((2 << 20) - 1);
        Self {
            sessions: 256,
            handshakes: 64,
            handshake_ms: 5_000,
            lanes: 1024,
            handles: 1 << 20,
            memory_bytes: half,
            window_bytes: half,
            image_bytes: 1 << 30,
            images_bytes: 4 << 30,
        }
    }
}

impl Limits {
    /// The limits as a program is told them.
    pub fn to_protocol(&self) -> protocol::handshake::Limits {
        protocol::handshake::Limits {
            window_len: self.window_bytes,
            device_memory_len: self.memory_bytes,
            pinned_memory_len: self.window_bytes,
            max_image_len: self.image_bytes,
            images_len: self.images_bytes,
            max_lanes: self.lanes,
            max_modules: self.handles,
            max_handles: self.handles,
            ..protocol::handshake::Limits::default()
        }
    }

    /// # Errors
    /// A size with which no session could work.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (MIN_MEMORY..=MAX_HALF).contains(&self.memory_bytes),
            "device memory must be between {MIN_MEMORY} and {MAX_HALF} bytes; try --memory 1G"
        );
        anyhow::ensure!(
            (MIN_WINDOW..=MAX_HALF).contains(&self.window_bytes),
            "the window must be between {MIN_WINDOW} and {MAX_HALF} bytes; try --window 1G"
        );
        anyhow::ensure!(
            self.window_bytes.is_multiple_of(4096),
            "the window must be a multiple of 4096 bytes"
        );
        anyhow::ensure!(self.sessions > 0 && self.lanes > 0, "at least one session and one lane are needed");
        Ok(())
    }
}

/// Physical memory of the machine in bytes; 8 GiB if the kernel does not say.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(8 << 30, |kib| kib << 10)
}

/// `major.minor`, e.g. 8.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ComputeCapability {
    pub major: u32,
    pub minor: u32,
}

impl ComputeCapability {
    /// The newest whose features the CPU backend has.
    pub const DEFAULT: Self = Self { major: 8, minor: 9 };
    /// The oldest that current toolkits compile for.
    const FLOOR: Self = Self { major: 7, minor: 5 };
    const CEILING: Self = Self { major: 12, minor: 1 };

    /// As in `sm_89`.
    pub fn sm(self) -> u32 {
        self.major * 10 + self.minor
    }
}

impl Default for ComputeCapability {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ComputeCapability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no compute capability; examples: 7.5, 8.9");
        let (major, minor) = text.split_once('.').ok_or_else(bad)?;
        let value =
            Self { major: major.parse().map_err(|_| bad())?, minor: minor.parse().map_err(|_| bad())? };
        if value.minor > 9 || value < Self::FLOOR || value > Self::CEILING {
            return Err(format!("compute capability {text} is outside {} to {}", Self::FLOOR, Self::CEILING));
        }
        Ok(value)
    }
}

/// What runs the driver calls of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// Kernels are compiled from their PTX.
    #[default]
    Cpu,
    /// The real driver: its library, or the one that the system has.
    Cuda(Cuda),
}

impl Backend {
    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}

/// The real driver, as the daemon has found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuda {
    pub libcuda: Option<PathBuf>,
    /// It is the shim, built for tests: another daemon runs the kernels, and no machine code.
    pub nested: bool,
}

/// Everything a worker needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub backend: Backend,
    pub limits: Limits,
    /// Devices of the CPU backend.
    pub devices: u32,
    pub compute_capability: ComputeCapability,
    /// Measure the time of each call.
    pub timing: bool,
    /// Log filter of the workers.
    pub log: Option<String>,
}

impl Config {
    /// Whether a worker that was made with this will do where `other` is asked for: what differs at most is the daemon's business.
    pub fn same_worker(&self, other: &Self) -> bool {
        let own = |config: &Self| {
            let limits = Limits { sessions: 0, handshakes: 0, handshake_ms: 0, ..config.limits.clone() };
            Self { limits, ..config.clone() }
        };
        own(self) == own(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_is_made_with() {
        let config = Config::default();
        let changed = |change: fn(&mut Limits)| {
            let mut other = config.clone();
            change(&mut other.limits);
            config.same_worker(&other)
        };
        assert!(changed(|_| ()));
        assert!(changed(|limits| (limits.sessions, limits.handshakes, limits.handshake_ms) = (1, 2, 3)));
        assert!(!changed(|limits| limits.memory_bytes += 1));
        assert!(!changed(|limits| limits.window_bytes += 4096));
        assert!(!changed(|limits| limits.lanes += 1));
        assert!(!changed(|limits| limits.handles += 1));
        assert!(!changed(|limits| limits.image_bytes += 1));
        assert!(!changed(|limits| limits.images_bytes += 1));
        assert!(!config.same_worker(&Config { timing: true, ..config.clone() }));
        assert!(!config.same_worker(&Config { devices: 7, ..config.clone() }));
    }

    #[test]
    fn capability_text() {
        assert_eq!("8.9".parse(), Ok(ComputeCapability { major: 8, minor: 9 }));
        assert_eq!(ComputeCapability { major: 12, minor: 0 }.sm(), 120);
        for bad in ["", "8", "8.x", "7.0", "8.10", "13.0"] {
            assert!(bad.parse::<ComputeCapability>().is_err(), "{bad}");
        }
    }

    #[test]
    fn default_limits_are_usable() {
        Limits::default().check().unwrap();
        assert!(Limits { window_bytes: 1, ..Limits::default() }.check().is_err());
    }
}
