//! What a CPU device says about itself: plausible for its compute capability, and consistent.

use crate::config::{ComputeCapability, Config};

/// Attribute ids of `CUdevice_attribute` that code here refers to by name.
pub mod attribute {
    pub const MAX_THREADS_PER_BLOCK: i32 = 1;
    pub const MULTIPROCESSOR_COUNT: i32 = 16;
    pub const PCI_BUS_ID: i32 = 33;
    pub const PCI_DEVICE_ID: i32 = 34;
    pub const PCI_DOMAIN_ID: i32 = 50;
    pub const COMPUTE_CAPABILITY_MAJOR: i32 = 75;
    pub const COMPUTE_CAPABILITY_MINOR: i32 = 76;
}

/// Threads per block.
pub const MAX_THREADS_PER_BLOCK: u32 = 1024;
/// Largest block in x, y, z.
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Largest grid in x, y, z.
pub const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// Threads of a warp.
pub const WARP_SIZE: u32 = 32;
/// Shared memory of a block without opt-in, in bytes.
pub const SHARED_PER_BLOCK: u32 = 48 << 10;
/// Shared memory that the system takes of each block where compute capability is 8.0 or higher, in bytes.
const SHARED_RESERVED: u32 = 1 << 10;
/// Registers of a block and of a multiprocessor.
pub const REGISTERS: u32 = 65_536;
/// Bytes of constant memory.
const CONSTANT_BYTES: u32 = 65_536;
/// Row alignment of pitched allocations, in bytes.
pub const PITCH_ALIGNMENT: u64 = 512;
/// Largest pitch, in bytes.
pub const MAX_PITCH: u64 = i32::MAX as u64;

/// A device of the CPU backend.
#[derive(Clone, Debug)]
pub struct Device {
    pub index: u32,
    pub name: String,
    pub capability: ComputeCapability,
    /// Cores of the machine.
    pub multiprocessors: u32,
    pub memory_bytes: u64,
    pub uuid: [u8; 16],
    clock_khz: u32,
    l2_bytes: u32,
}

/// What differs between compute capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub threads_per_multiprocessor: u32,
    pub blocks_per_multiprocessor: u32,
    /// Bytes.
    pub shared_per_multiprocessor: u32,
    /// Bytes that a block can have with opt-in.
    pub shared_optin: u32,
    /// Bytes the system takes per block.
    pub shared_reserved: u32,
}

impl Shape {
    /// From the table "technical specifications per compute capability" of the CUDA programming guide.
    pub fn of(capability: ComputeCapability) -> Self {
        let (threads, blocks, shared_kib) = match (capability.major, capability.minor) {
            (7, _) => (1024, 16, 64),
            (8, 0) => (2048, 32, 164),
            (8, 7) => (1536, 16, 164),
            (8, 9) => (1536, 24, 100),
            (8, _) => (1536, 16, 100),
            (9 | 10, _) => (2048, 32, 228),
            _ => (1536, 24, 100),
        };
        let shared_reserved = if capability.major >= 8 { SHARED_RESERVED } else { 0 };
        Self {
            threads_per_multiprocessor: threads,
            blocks_per_multiprocessor: blocks,
            shared_per_multiprocessor: shared_kib << 10,
            shared_optin: (shared_kib << 10) - shared_reserved,
            shared_reserved,
        }
    }
}

impl Device {
    /// The devices that a configuration asks for.
    pub fn all(config: &Config) -> Vec<Self> {
        let cpu = Cpu::read();
        let host = host_id();
        (0..config.devices)
            .map(|index| {
                let mut uuid = [0; 16];
                let mut hasher = blake3::Hasher::new();
                hasher.update(b"host-vmm cpu device").update(&host).update(&index.to_le_bytes());
                uuid.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
                Self {
                    index,
                    name: format!(
                        "CPU ({}, {} core{})",
                        cpu.model,
                        cpu.cores,
                        if cpu.cores == 1 { "" } else { "s" }
                    ),
                    capability: config.compute_capability,
                    multiprocessors: cpu.cores,
                    memory_bytes: config.limits.memory_bytes,
                    uuid,
                    clock_khz: cpu.clock_khz,
                    l2_bytes: cpu.cache_bytes,
                }
            })
            .collect()
    }

    pub fn shape(&self) -> Shape {
        Shape::of(self.capability)
    }

    /// `domain:bus:device.0`, as `cuDeviceGetPCIBusId` prints it.
    pub fn pci_bus_id(&self) -> String {
        let get = |id| self.attribute(id);
        format!(
            "{:08x}:{:02x}:{:02x}.0",
            get(attribute::PCI_DOMAIN_ID),
            get(attribute::PCI_BUS_ID),
            get(attribute::PCI_DEVICE_ID)
        )
    }

    /// The value of a `CUdevice_attribute`. Ids that are unknown here are answered with 0: the CUDA runtime does not start when a
    /// device refuses one, and newer runtimes ask for ids that older drivers do not have.
    pub fn attribute(&self, id: i32) -> i32 {
        let shape = self.shape();
        let value: u32 = match id {
            attribute::MAX_THREADS_PER_BLOCK => MAX_THREADS_PER_BLOCK,
            2..=4 => MAX_BLOCK[id as usize - 2],
            5..=7 => MAX_GRID[id as usize - 5],
            8 => SHARED_PER_BLOCK,
            9 => CONSTANT_BYTES,
            10 => WARP_SIZE,
            11 => MAX_PITCH as u32,
            12 | 82 => REGISTERS,
            13 => self.clock_khz,
            // Texture and surface alignment.
            14 | 30 => PITCH_ALIGNMENT as u32,
            attribute::MULTIPROCESSOR_COUNT => self.multiprocessors,
            // Copies overlap with kernels, kernels with kernels; host memory can be mapped; addresses are unified.
            15 | 19 | 31 | 41 => 1,
            // Texture and surface sizes, as GPUs of these generations have them.
            21 | 22 | 56 => 131_072,
            23 | 57 => 65_536,
            24..=26 | 58..=60 => 16_384,
            27 | 28 | 42 | 45 | 46 | 49 | 52 | 53 | 55 | 61 | 63 | 64 | 66 | 67 | 73 | 74 | 77 => 32_768,
            29 | 43 | 62 | 65 => 2_048,
            54 | 68 => 2_046,
            47 | 48 => 8_192,
            44 => 1,
            51 => 32,
            69 => 268_435_456,
            70 => 131_072,
            71 => 65_000,
            72 => 2_097_120,
            attribute::PCI_BUS_ID => self.index + 1,
            attribute::PCI_DEVICE_ID | attribute::PCI_DOMAIN_ID => 0,
            // Memory clock and bus width of ordinary DDR4.
            36 => 1_600_000,
            37 => 128,
            38 => self.l2_bytes,
            39 => shape.threads_per_multiprocessor,
            // One copy engine per direction.
            40 => 2,
            attribute::COMPUTE_CAPABILITY_MAJOR => self.capability.major,
            attribute::COMPUTE_CAPABILITY_MINOR => self.capability.minor,
            // Stream priorities, L1 caches, managed memory.
            78..=80 | 83 => 1,
            81 => shape.shared_per_multiprocessor,
            85 => self.index,
            // The "device" is the CPU: its atomics are native, and managed memory may be used on both sides at once.
            86 | 89 => 1,
            87 => 2,
            // Compute preemption.
            90 => 1,
            97 => shape.shared_optin,
            106 => shape.blocks_per_multiprocessor,
            111 => shape.shared_reserved,
            // Stream-ordered allocation.
            115 => 1,
            // Memory synchronisation domains.
            126 => 1,
            // NUMA ids: none.
            131 | 134 => return -1,
            _ => 0,
        };
        i32::try_from(value).unwrap_or(i32::MAX)
    }
}

struct Cpu {
    model: String,
    cores: u32,
    clock_khz: u32,
    cache_bytes: u32,
}

impl Cpu {
    fn read() -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':').map(str::trim))
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        let clock_khz = field("cpu MHz")
            .and_then(|mhz| mhz.parse::<f64>().ok())
            .map_or(2_000_000, |mhz| (mhz * 1e3) as u32);
        let cache_bytes = field("cache size")
            .and_then(|size| size.strip_suffix("KB")?.trim().parse::<u32>().ok())
            .map_or(1 << 20, |kib| kib.saturating_mul(1024));
        Self { model: short_model(field("model name").unwrap_or("x86-64")), cores, clock_khz, cache_bytes }
    }
}

/// `AMD EPYC 7B13 64-Core Processor` is `AMD EPYC 7B13`; marks and frequencies go too.
fn short_model(full: &str) -> String {
    let clean = full.replace("(R)", "").replace("(TM)", "").replace("(tm)", "");
    let words = clean
        .split_whitespace()
        .take_while(|word| *word != "@")
        .filter(|word| !matches!(*word, "CPU" | "Processor") && !word.ends_with("-Core"));
    let name = words.collect::<Vec<_>>().join(" ");
    if name.is_empty() { "x86-64".to_owned() } else { name }
}

/// Something that stays the same on this machine, so that a device keeps its UUID.
fn host_id() -> Vec<u8> {
    std::fs::read("/etc/machine-id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn device(capability: &str) -> Device {
        let config = Config {
            limits: Limits::default(),
            devices: 2,
            compute_capability: capability.parse().unwrap(),
            ..Config::default()
        };
        Device::all(&config).remove(1)
    }

    #[test]
    fn every_attribute_has_an_answer() {
        let device = device("8.9");
        for id in -5..400 {
            device.attribute(id);
        }
        assert_eq!(device.attribute(75), 8);
        assert_eq!(device.attribute(76), 9);
        assert_eq!(device.attribute(143), 0);
    }

    #[test]
    fn sizes_agree_with_each_other() {
        for capability in ["7.5", "8.0", "8.6", "8.9", "9.0", "12.0"] {
            let device = device(capability);
            let get = |id| device.attribute(id);
            assert!(get(97) >= get(8), "opt-in shared memory exceeds the default");
            assert!(get(81) >= get(97) + get(111));
            assert!(get(39) >= get(1));
            assert!(get(106) >= 1);
        }
    }

    #[test]
    fn devices_differ_in_identity_alone() {
        let config = Config {
            limits: Limits::default(),
            devices: 2,
            compute_capability: ComputeCapability::DEFAULT,
            ..Config::default()
        };
        let devices = Device::all(&config);
        assert_ne!(devices[0].uuid, devices[1].uuid);
        assert_ne!(devices[0].pci_bus_id(), devices[1].pci_bus_id());
        assert_eq!(devices[1].pci_bus_id(), "00000000:02:00.0");
        assert_eq!(Device::all(&config)[0].uuid, devices[0].uuid);
    }

    #[test]
    fn models_are_shortened() {
        assert_eq!(short_model("AMD EPYC 7B13 64-Core Processor"), "AMD EPYC 7B13");
        assert_eq!(short_model("Intel(R) Xeon(R) CPU @ 2.20GHz"), "Intel Xeon");
        assert_eq!(short_model(""), "x86-64");
    }
}
