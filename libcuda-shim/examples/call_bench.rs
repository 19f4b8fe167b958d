#![allow(unsafe_code)]
//! Times driver calls as a program sees them: opens `libcuda.so.1` by name, like any program, and prints one JSON object.
//!
//! Run by `cargo xtask bench` under `host-vmm run`. On a machine with a GPU it measures NVIDIA's driver the same way when run without it.
//! Unsafe because it calls C functions through pointers.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::time::Instant;

/// An empty kernel with the parameters of a typical one: three pointers and a count.
const KERNEL: &CStr = c".version 6.4
.target sm_70
.address_size 64
.visible .entry empty(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
{
    ret;
}
";

struct Driver {
    library: *mut c_void,
}

impl Driver {
    fn open() -> Driver {
        // SAFETY: a plain dlopen by name.
        let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "libcuda.so.1 is not on the library path");
        Driver { library }
    }

    /// # Safety
    /// `F` is the type of the named function.
    unsafe fn get<F: Copy>(&self, name: &str) -> F {
        let name_c = CString::new(name).expect("no NUL in a name");
        // SAFETY: a live handle and a C string.
        let address = unsafe { libc::dlsym(self.library, name_c.as_ptr()) };
        assert!(!address.is_null(), "{name} is missing");
        // SAFETY: a function pointer of the caller's type, of pointer size.
        unsafe { std::mem::transmute_copy(&address) }
    }
}

fn check(result: u32, what: &str) {
    assert_eq!(result, 0, "{what} failed");
}

/// Minimum, median and 99th percentile, in nanoseconds.
fn summary(mut samples: Vec<f64>) -> String {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    format!(
        "{{\"min\": {:.1}, \"median\": {:.1}, \"p99\": {:.1}, \"samples\": {}}}",
        at(0.0),
        at(0.5),
        at(0.99),
        samples.len()
    )
}

/// Times `f` in batches of `batch`, giving nanoseconds for one.
fn time(batches: usize, batch: usize, mut f: impl FnMut(), mut between: impl FnMut()) -> Vec<f64> {
    let mut samples = Vec::with_capacity(batches);
    for _ in 0..batches {
        let begin = Instant::now();
        for _ in 0..batch {
            f();
        }
        samples.push(begin.elapsed().as_nanos() as f64 / batch as f64);
        between();
    }
    samples
}

fn main() {
    type Init = unsafe extern "C" fn(c_uint) -> u32;
    type Retain = unsafe extern "C" fn(*mut *mut c_void, c_int) -> u32;
    type SetCurrent = unsafe extern "C" fn(*mut c_void) -> u32;
    type GetCurrent = unsafe extern "C" fn(*mut *mut c_void) -> u32;
    type LoadData = unsafe extern "C" fn(*mut *mut c_void, *const c_char) -> u32;
    type GetFunction = unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> u32;
    type Alloc = unsafe extern "C" fn(*mut u64, usize) -> u32;
    type HostAlloc = unsafe extern "C" fn(*mut *mut c_void, usize, c_uint) -> u32;
    type Free = unsafe extern "C" fn(u64) -> u32;
    type Synchronize = unsafe extern "C" fn() -> u32;
    type MemoryInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> u32;
    type In = unsafe extern "C" fn(u64, *const c_void, usize) -> u32;
    type Out = unsafe extern "C" fn(*mut c_void, u64, usize) -> u32;
    #[allow(clippy::type_complexity)]
    type Launch = unsafe extern "C" fn(
        *mut c_void,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        *mut c_void,
        *mut *mut c_void,
        *mut *mut c_void,
    ) -> u32;

    let driver = Driver::open();
    let started = Instant::now();
    // SAFETY: the types are those of cuda.h.
    unsafe {
        let init: Init = driver.get("cuInit");
        let retain: Retain = driver.get("cuDevicePrimaryCtxRetain");
        let set_current: SetCurrent = driver.get("cuCtxSetCurrent");
        let get_current: GetCurrent = driver.get("cuCtxGetCurrent");
        let load_data: LoadData = driver.get("cuModuleLoadData");
        let get_function: GetFunction = driver.get("cuModuleGetFunction");
        let alloc: Alloc = driver.get("cuMemAlloc_v2");
        let host_alloc: HostAlloc = driver.get("cuMemHostAlloc");
        let free: Free = driver.get("cuMemFree_v2");
        let synchronize: Synchronize = driver.get("cuCtxSynchronize");
        let memory_info: MemoryInfo = driver.get("cuMemGetInfo_v2");
        let copy_in: In = driver.get("cuMemcpyHtoD_v2");
        let copy_out: Out = driver.get("cuMemcpyDtoH_v2");
        let launch: Launch = driver.get("cuLaunchKernel");

        check(init(0), "cuInit");
        let (mut context, mut module, mut function) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        check(retain(&mut context, 0), "cuDevicePrimaryCtxRetain");
        check(set_current(context), "cuCtxSetCurrent");
        let first_context_us = started.elapsed().as_secs_f64() * 1e6;
        check(load_data(&mut module, KERNEL.as_ptr()), "cuModuleLoadData");
        check(get_function(&mut function, module, c"empty".as_ptr()), "cuModuleGetFunction");

        let (mut a, mut n) = (0u64, 0u32);
        let mut params =
            [(&raw mut a).cast::<c_void>(), (&raw mut a).cast(), (&raw mut a).cast(), (&raw mut n).cast()];
        let mut go = || {
            let stream = ptr::null_mut();
            check(
                launch(function, 1, 1, 1, 1, 1, 1, 0, stream, params.as_mut_ptr(), ptr::null_mut()),
                "cuLaunchKernel",
            );
        };
        go();
        check(synchronize(), "cuCtxSynchronize");

        let mut current = ptr::null_mut();
        let local = time(200, 10_000, || check(get_current(&mut current), "cuCtxGetCurrent"), || {});
        let (mut free_len, mut total_len) = (0, 0);
        let round_trip =
            time(20_000, 1, || check(memory_info(&mut free_len, &mut total_len), "cuMemGetInfo"), || {});
        let posted = time(200, 500, &mut go, || check(synchronize(), "cuCtxSynchronize"));
        let launch_sync = time(
            2000,
            1,
            || {
                go();
                check(synchronize(), "cuCtxSynchronize");
            },
            || {},
        );
        let malloc_free = time(
            2000,
            1,
            || {
                let mut memory = 0;
                check(alloc(&mut memory, 1 << 20), "cuMemAlloc");
                check(free(memory), "cuMemFree");
            },
            || {},
        );

        println!("{{");
        println!("  \"first_context_us\": {first_context_us:.1},");
        println!("  \"local_call_ns\": {},", summary(local));
        println!("  \"sync_round_trip_ns\": {},", summary(round_trip));
        println!("  \"posted_launch_ns\": {},", summary(posted));
        println!("  \"launch_and_sync_ns\": {},", summary(launch_sync));
        println!("  \"malloc_free_1mib_ns\": {},", summary(malloc_free));
        println!("  \"copies\": [");
        let sizes = [4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20];
        for (index, &len) in sizes.iter().enumerate() {
            let mut device = 0;
            check(alloc(&mut device, len), "cuMemAlloc");
            let mut pinned = ptr::null_mut();
            check(host_alloc(&mut pinned, len, 0), "cuMemHostAlloc");
            ptr::write_bytes(pinned.cast::<u8>(), 1, len);
            let mut pageable = vec![2u8; len];
            let mut other = vec![3u8; len];
            let repeats = (512 << 20) / len.max(8 << 20);
            // Interleaved, so that a disturbance of the machine meets all of them.
            let mut samples: [Vec<f64>; 5] = Default::default();
            for _ in 0..repeats.max(8) {
                let mut timed = |slot: usize, f: &mut dyn FnMut()| {
                    let begin = Instant::now();
                    f();
                    samples[slot].push(begin.elapsed().as_nanos() as f64);
                };
                timed(0, &mut || {
                    ptr::copy_nonoverlapping(
                        std::hint::black_box(pageable.as_ptr()),
                        other.as_mut_ptr(),
                        len,
                    );
                });
                timed(1, &mut || check(copy_in(device, pageable.as_ptr().cast(), len), "cuMemcpyHtoD"));
                timed(2, &mut || check(copy_out(pageable.as_mut_ptr().cast(), device, len), "cuMemcpyDtoH"));
                timed(3, &mut || check(copy_in(device, pinned, len), "cuMemcpyHtoD"));
                timed(4, &mut || check(copy_out(pinned, device, len), "cuMemcpyDtoH"));
            }
            let names = ["memcpy", "pageable_in", "pageable_out", "pinned_in", "pinned_out"];
            let fields: Vec<String> = names
                .iter()
                .zip(samples)
                .map(|(name, samples)| format!("\"{name}_ns\": {}", summary(samples)))
                .collect();
            let comma = if index + 1 < sizes.len() { "," } else { "" };
            println!("    {{\"bytes\": {len}, {}}}{comma}", fields.join(", "));
            check(free(device), "cuMemFree");
        }
        println!("  ]");
        println!("}}");
    }
}
