//! Fuzz body of the compiler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{GlobalMemory, MemoryKind, Options, Program};

/// Gives out addresses without memory behind them.
struct Nowhere(AtomicU64);

const TAG: u64 = 3;

impl GlobalMemory for Nowhere {
    fn region_tag(&self) -> u64 {
        TAG
    }

    fn allocate(&self, _kind: MemoryKind, len: u64, align: u64) -> Result<u64, String> {
        if len > 1 << 40 {
            return Err("too large".into());
        }
        let step = (len + align) * 2;
        Ok((self.0.fetch_add(step, Ordering::Relaxed) + (TAG << 42)).next_multiple_of(align))
    }

    fn write(&self, _address: u64, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn free(&self, _address: u64) {}
}

/// Loads arbitrary PTX text and compiles every kernel in it; nothing is run. Returns how many kernels were compiled.
///
/// # Panics
/// If the compiler has an internal error: everything else must be accepted or refused in words.
pub fn fuzz_compile(data: &[u8]) -> usize {
    let Ok(module) = ptx::parse(data) else { return 0 };
    let Ok(program) = Program::load(module, Arc::new(Nowhere(AtomicU64::new(1 << 32))), Options::default())
    else {
        return 0;
    };
    let mut compiled = 0;
    for name in program.kernel_names() {
        match program.kernel(name) {
            Ok(_) => compiled += 1,
            Err(e) => {
                let text = e.to_string();
                assert!(!text.contains("internal error") && !text.contains("code generation"), "{text}");
            }
        }
    }
    compiled
}
