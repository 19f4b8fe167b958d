//! Runs PTX text on the CPU: region, program and engine of one test process.
// Tests hand device addresses to generated code.
#![allow(unsafe_code, dead_code)]

pub mod table;

use std::sync::{Arc, Mutex, OnceLock};

use ptx_cpu::engine::{
    CancelToken, Engine, EngineConfig, LaunchConfig, LaunchError, LaunchStats, OutputSink, OutputStream,
};
use ptx_cpu::program::{LoadError, Options, Program, RegionMemory};
use ptx_cpu::region::{Region, RegionConfig};

pub struct Machine {
    pub region: Arc<Region>,
    pub engine: Engine,
}

/// One machine per test process: the region is a place in the address space.
pub fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(|| {
        ptx_cpu::fault::install().unwrap();
        let region = Arc::new(Region::reserve_any(RegionConfig::default()).unwrap());
        let engine =
            Engine::new(region.clone(), EngineConfig { threads: 2, ..EngineConfig::default() }).unwrap();
        Machine { region, engine }
    })
}

#[derive(Default)]
pub struct Collect(Mutex<Vec<u8>>);

impl Collect {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl OutputSink for Collect {
    fn write(&self, _stream: OutputStream, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

pub fn load(ptx: &str) -> Result<Program, LoadError> {
    let module = ptx::parse(ptx.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{ptx}"));
    Program::load(module, Arc::new(RegionMemory(machine().region.clone())), Options::default())
}

pub struct Launch<'a> {
    pub kernel: &'a str,
    pub grid: u32,
    pub block: u32,
    pub shared: u32,
    pub cooperative: bool,
    pub params: Vec<u8>,
}

pub fn launch(program: &Program, l: &Launch<'_>) -> Result<(LaunchStats, String), LaunchError> {
    let kernel = program.kernel(l.kernel).unwrap_or_else(|e| panic!("{e}"));
    let config = LaunchConfig {
        grid: [l.grid, 1, 1],
        block: [l.block, 1, 1],
        dynamic_shared_len: l.shared,
        params: &l.params,
        cooperative: l.cooperative,
    };
    let output = Collect::default();
    // SAFETY: the kernel was compiled to the contract, and `kernel` keeps its code alive.
    let stats = unsafe { machine().engine.launch(&kernel, &config, &CancelToken::new(), &output) }?;
    Ok((stats, output.text()))
}

/// A device buffer of 64-bit words.
pub struct Buffer {
    pub address: u64,
    pub len: usize,
}

impl Buffer {
    pub fn new(words: &[u64]) -> Self {
        let region = &machine().region;
        let address = region.alloc((words.len() * 8).max(8) as u64, 256).unwrap();
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        region.copy_in(address, &bytes).unwrap();
        Self { address, len: words.len() }
    }

    pub fn zeroed(len: usize) -> Self {
        Self::new(&vec![0; len])
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len * 8];
        machine().region.copy_out(self.address, &mut bytes).unwrap();
        bytes
    }

    pub fn words(&self) -> Vec<u64> {
        self.bytes().chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
    }

    pub fn words32(&self) -> Vec<u32> {
        self.bytes().chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        machine().region.free(self.address).unwrap();
    }
}

pub const HEADER: &str = ".version 8.5\n.target sm_90\n.address_size 64\n";

/// Loads `body` behind the header and runs kernel `k` with these 64-bit parameters.
pub fn run(body: &str, grid: u32, block: u32, params: &[u64]) -> Result<(LaunchStats, String), LaunchError> {
    let program = load(&format!("{HEADER}{body}")).unwrap_or_else(|e| panic!("{e}"));
    let params = params.iter().flat_map(|p| p.to_le_bytes()).collect();
    launch(&program, &Launch { kernel: "k", grid, block, shared: 0, cooperative: false, params })
}
