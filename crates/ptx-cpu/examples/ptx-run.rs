//! Runs a kernel of a PTX file some times and says how long the fastest run took.
//!
//! `ptx-run FILE KERNEL GRID BLOCK SHARED REPEAT THREADS PARAM...` with GRID and BLOCK as `x,y,z`, and parameters `buf:BYTES` (device
//! memory, filled with floats from 0 to 1), `u32:N`, `u64:N`, `f32:X`.
// Launches generated code.
#![allow(unsafe_code)]

use std::sync::Arc;

use ptx_cpu::engine::{CancelToken, Engine, EngineConfig, LaunchConfig, OutputSink, OutputStream};
use ptx_cpu::program::{Options, Program, RegionMemory};
use ptx_cpu::region::{Region, RegionConfig};

struct Print;

impl OutputSink for Print {
    fn write(&self, _stream: OutputStream, bytes: &[u8]) {
        print!("{}", String::from_utf8_lossy(bytes));
    }
}

fn triple(text: &str) -> [u32; 3] {
    let mut list = text.split(',').map(|n| n.parse().expect("number"));
    [(); 3].map(|()| list.next().unwrap_or(1))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, name, grid, block, shared, repeat, threads, rest @ ..] = &args[..] else {
        panic!("too few arguments")
    };
    ptx_cpu::fault::install().expect("signal handlers");
    let region = Arc::new(Region::reserve_any(RegionConfig::default()).expect("region"));
    let config = EngineConfig { threads: threads.parse().expect("threads"), ..EngineConfig::default() };
    let engine = Engine::new(region.clone(), config).expect("engine");
    let module = ptx::parse(&std::fs::read(file).expect("readable file")).expect("PTX");
    let program = Program::load(module, Arc::new(RegionMemory(region.clone())), Options::default())
        .expect("loadable module");
    let kernel = program.kernel(name).expect("kernel");
    let slots = &program.kernel_info(name).expect("kernel").params.slots;
    let mut params = Vec::new();
    let mut buffers = Vec::new();
    for (text, slot) in rest.iter().zip(slots) {
        params.resize(slot.offset as usize, 0);
        let (kind, value) = text.split_once(':').expect("kind:value");
        match kind {
            "buf" => {
                let len: usize = value.parse().expect("bytes");
                let address = region.alloc(len as u64, 256).expect("memory");
                let bytes: Vec<u8> =
                    (0..len / 4).flat_map(|i| ((i * 7919 % 1000) as f32 / 1000.0).to_le_bytes()).collect();
                region.copy_in(address, &bytes).expect("copy");
                buffers.push((address, len));
                params.extend(address.to_le_bytes());
            }
            "f32" => params.extend(value.parse::<f32>().expect("number").to_le_bytes()),
            "u32" => params.extend(value.parse::<u32>().expect("number").to_le_bytes()),
            _ => params.extend(value.parse::<u64>().expect("number").to_le_bytes()),
        }
    }
    let config = LaunchConfig {
        grid: triple(grid),
        block: triple(block),
        dynamic_shared_len: shared.parse().expect("bytes"),
        params: &params,
        cooperative: false,
    };
    let runs = (0..repeat.parse().expect("number")).map(|_| {
        // SAFETY: compiled to the contract; `kernel` keeps the code alive.
        unsafe { engine.launch(&kernel, &config, &CancelToken::new(), &Print) }.expect("launch")
    });
    let best = runs.min_by_key(|stats| stats.elapsed).expect("at least one run");
    println!(
        "{name}: {:.3?}, {} suspensions, frame {} bytes",
        best.elapsed, best.suspensions, kernel.frame_len
    );
    for (address, len) in buffers {
        let mut bytes = vec![0; len];
        region.copy_out(address, &mut bytes).expect("copy");
        let sum: f64 =
            bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).sum();
        println!("  sum {sum}");
    }
}
