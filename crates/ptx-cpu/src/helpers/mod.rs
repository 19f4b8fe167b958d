//! The functions that generated code calls: see [`abi::helper_names`](crate::abi::helper_names) for the list and the signatures.
//!
//! Helpers with state ([`rt_vprintf`], [`rt_malloc`], [`rt_free`], [`rt_assertfail`]) follow the rules of [`fault`](crate::fault): they do
//! their work inside a [`HelperScope`], touch device memory by [`device`] only, and end the kernel from the outermost frame, when
//! nothing is left to drop.
#![allow(unsafe_code)] // Called from generated code with raw pointers.

mod device;
mod heap;
mod math;
mod printf;
mod small_float;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::abi::{Block, FaultKind, Thread};
use crate::engine::{LaunchContext, OutputStream};
use crate::fault::{self, Fault, HelperScope};
pub(crate) use heap::DeviceHeap;

/// Fuzz bodies.
#[doc(hidden)]
pub mod fuzz {
    /// The formats of `printf`.
    pub fn fuzz_printf(data: &[u8]) {
        super::printf::fuzz(data);
    }
}

/// Names and addresses of all helpers.
pub fn table() -> &'static [(&'static str, *const u8)] {
    struct Table<const N: usize>([(&'static str, *const u8); N]);
    // SAFETY: addresses of functions, never written through.
    unsafe impl<const N: usize> Send for Table<N> {}
    // SAFETY: as above.
    unsafe impl<const N: usize> Sync for Table<N> {}

    macro_rules! entries {
        ($($path:path),* $(,)?) => {
            [$((name_of(stringify!($path)), $path as *const () as *const u8)),*]
        };
    }
    const N: usize = 37;
    static TABLE: std::sync::LazyLock<Table<N>> = std::sync::LazyLock::new(|| {
        Table(entries![
            rt_fault,
            rt_exit,
            rt_vprintf,
            rt_malloc,
            rt_free,
            rt_assertfail,
            rt_clock64,
            rt_globaltimer,
            math::rt_sin_f32,
            math::rt_cos_f32,
            math::rt_tanh_f32,
            math::rt_ex2_f32,
            math::rt_lg2_f32,
            math::rt_ex2_f64,
            math::rt_lg2_f64,
            math::rt_fma_f32,
            math::rt_fma_f64,
            math::rt_fma_f32_mode,
            math::rt_add_f32_mode,
            math::rt_mul_f32_mode,
            math::rt_div_f32_mode,
            math::rt_sqrt_f32_mode,
            math::rt_fma_f64_mode,
            math::rt_add_f64_mode,
            math::rt_mul_f64_mode,
            math::rt_div_f64_mode,
            math::rt_sqrt_f64_mode,
            math::rt_cvt_f64_f32_mode,
            math::rt_cvt_int_f32_mode,
            math::rt_cvt_int_f64_mode,
            small_float::rt_f16_to_f32,
            small_float::rt_bf16_to_f32,
            small_float::rt_f32_to_f16,
            small_float::rt_f32_to_bf16,
            small_float::rt_f64_to_f16,
            small_float::rt_fma_f16,
            small_float::rt_fma_bf16,
        ])
    });
    &TABLE.0
}

/// The last part of a path.
fn name_of(path: &'static str) -> &'static str {
    path.rsplit("::").next().unwrap_or(path).trim()
}

/// What the engine gave to the block.
///
/// # Safety
/// `block` must be that of the running thread.
unsafe fn context<'a>(block: *const Block) -> &'a LaunchContext {
    // SAFETY: the engine sets the pointer to the context of a job that it holds while the block runs.
    unsafe { &*(*block).engine.cast::<LaunchContext>() }
}

/// # Safety
/// From generated code only, as are all helpers below; `thread` and `block` are what it was entered with.
pub unsafe extern "C" fn rt_fault(_thread: *mut Thread, _block: *const Block, kind: u32, address: u64) -> ! {
    let kind = match kind {
        1 => FaultKind::IllegalAddress,
        2 => FaultKind::MisalignedAddress,
        4 => FaultKind::Assert,
        5 => FaultKind::InvalidPc,
        6 => FaultKind::StackOverflow,
        7 => FaultKind::Deadlock,
        _ => FaultKind::Trap,
    };
    // SAFETY: called by generated code, whose frames need no dropping; this frame holds nothing.
    unsafe { fault::raise(kind, address) }
}

/// # Safety
/// See [`rt_fault`].
pub unsafe extern "C" fn rt_exit(_thread: *mut Thread) -> ! {
    // SAFETY: as in `rt_fault`.
    unsafe { fault::finish_thread() }
}

/// # Safety
/// See [`rt_fault`].
pub unsafe extern "C" fn rt_vprintf(
    _thread: *mut Thread,
    block: *const Block,
    format: u64,
    arguments: u64,
) -> i32 {
    // SAFETY: `block` is the running one; the scope and all that the inner function made are gone before `raise`.
    unsafe {
        let scope = HelperScope::begin();
        let context = context(block);
        let result = printf::print(context.region(), format, arguments).map(|(text, count)| {
            if !text.is_empty() {
                context.print(OutputStream::Stdout, text);
            }
            count
        });
        drop(scope);
        match result {
            Ok(count) => count,
            Err(Fault { kind, address, .. }) => fault::raise(kind, address),
        }
    }
}

/// # Safety
/// See [`rt_fault`].
pub unsafe extern "C" fn rt_malloc(_thread: *mut Thread, block: *const Block, len: u64) -> u64 {
    // SAFETY: `block` is the running one.
    unsafe {
        let _scope = HelperScope::begin();
        context(block).heap.malloc(len)
    }
}

/// # Safety
/// See [`rt_fault`].
pub unsafe extern "C" fn rt_free(_thread: *mut Thread, block: *const Block, address: u64) {
    // SAFETY: `block` is the running one; the scope is gone before `raise`.
    unsafe {
        let scope = HelperScope::begin();
        let known = context(block).heap.free(address);
        drop(scope);
        if !known {
            fault::raise(FaultKind::IllegalAddress, address);
        }
    }
}

/// # Safety
/// See [`rt_fault`].
pub unsafe extern "C" fn rt_assertfail(
    thread: *mut Thread,
    block: *const Block,
    message: u64,
    file: u64,
    line: u32,
    function: u64,
    _char_size: u64,
) -> ! {
    // SAFETY: `thread` and `block` are the running ones; the scope and the text are gone before `raise`.
    unsafe {
        let scope = HelperScope::begin();
        let context = context(block);
        let text = |address| {
            let bytes = device::read_c_string(context.region(), address, 4096);
            bytes.map_or_else(|_| "?".into(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let (file, function, message) = (text(file), text(function), text(message));
        let ([bx, by, bz], [tx, ty, tz]) = ((*block).ctaid, (*thread).tid);
        let text = format!(
            "{file}:{line}: {function}: block: [{bx},{by},{bz}], thread: [{tx},{ty},{tz}] Assertion `{message}` failed.\n"
        );
        drop((file, function, message));
        context.print(OutputStream::Stderr, text.into_bytes());
        drop(scope);
        fault::raise(FaultKind::Assert, 0)
    }
}

/// `%clock64`: the processor's time stamp counter.
pub extern "C" fn rt_clock64() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// `%globaltimer` in ns since 1970.
pub extern "C" fn rt_globaltimer() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_has_every_name_of_the_contract() {
        let names: Vec<&str> = super::table().iter().map(|entry| entry.0).collect();
        let contract = include_str!("../abi.rs");
        let documented = contract.lines().filter(|line| line.starts_with("/// | `rt_"));
        let mut count = 0;
        for line in documented {
            let cell = line.split('|').nth(1).unwrap();
            for name in cell.split('`').filter(|part| part.starts_with("rt_")) {
                assert!(names.contains(&name), "{name} is missing");
                count += 1;
            }
            if cell.contains("and `_f64`") {
                for name in cell.split('`').filter(|part| part.ends_with("_f32_mode")) {
                    assert!(names.contains(&name.replace("f32", "f64").as_str()), "{name} has no f64 form");
                    count += 1;
                }
            }
        }
        assert_eq!(count, names.len());
        assert!(super::table().iter().all(|entry| !entry.1.is_null()));
    }
}
