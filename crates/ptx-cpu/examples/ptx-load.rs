//! Loads PTX files and compiles all their kernels: says what is not supported, and how long it took.
use std::sync::Arc;
use std::time::Instant;

use ptx_cpu::program::{Options, Program, RegionMemory};
use ptx_cpu::region::{Region, RegionConfig};

fn main() {
    let region = Arc::new(Region::reserve_any(RegionConfig::default()).expect("region"));
    for path in std::env::args().skip(1) {
        let text = std::fs::read(&path).expect("readable file");
        let begin = Instant::now();
        let module = match ptx::parse(&text) {
            Ok(module) => module,
            Err(e) => {
                println!("{path}: parse: {e}");
                continue;
            }
        };
        let parsed = begin.elapsed();
        let program = match Program::load(module, Arc::new(RegionMemory(region.clone())), Options::default())
        {
            Ok(program) => program,
            Err(e) => {
                println!("{path}: load: {e}");
                continue;
            }
        };
        let loaded = begin.elapsed();
        let mut kernels = 0;
        let mut suspending = 0;
        for name in program.kernel_names() {
            match program.kernel(name) {
                Ok(kernel) => {
                    kernels += 1;
                    suspending += u32::from(kernel.suspends);
                }
                Err(e) => println!("{path}: compile: {e}"),
            }
        }
        println!(
            "{path}: {} bytes, parsed in {parsed:.1?}, loaded in {:.1?}, {kernels} kernels ({suspending} suspend) compiled in {:.1?}",
            text.len(),
            loaded - parsed,
            begin.elapsed() - loaded
        );
    }
}
