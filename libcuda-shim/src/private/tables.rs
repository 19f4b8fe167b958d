#![allow(unsafe_code)]
//! The tables themselves. Unsafe because their functions are called by foreign code and write through its pointers.

use core::ffi::{c_int, c_void};
use core::ptr;

use protocol::status::Status;

use crate::generated::wire;
use crate::local_storage::Destructor;
use crate::process::process;
use crate::thread;
use crate::types::{CUcontext, CUdevice, CUmodule, CUresult, CUstream};
use crate::{call, custom};

/// A table of `N` slots as foreign code reads it.
#[repr(transparent)]
struct Table<const N: usize>([*const c_void; N]);

// SAFETY: the slots are addresses of functions and constants, never written after the program is linked.
unsafe impl<const N: usize> Sync for Table<N> {}

impl<const N: usize> Table<N> {
    const fn address(&'static self) -> *const c_void {
        self.0.as_ptr().cast()
    }
}

/// Slot 0 of most tables: the table's size in bytes.
const fn size_slot(slots: usize) -> *const c_void {
    ptr::without_provenance(slots * 8)
}

/// Looks a table up by its 16-byte id in memory order.
pub fn find(id: &[u8; 16]) -> Option<*const c_void> {
    Some(match u128::from_be_bytes(*id) {
        0x6bd5fb6c_5bf4e74a_8987d939_12fd9df9 => RUNTIME_INTERFACE.address(),
        0xa094798c_2e742e74_93f20800_200c0a66 => CALLBACK_HOOKS.address(),
        0x42d85a81_23f6cb47_8298f6e7_8a3aecdc => TOOLS_THREAD.address(),
        0x21318c60_97143248_8ca641ff_7324c8f2 => TOOLS_CONTEXT.address(),
        0xc693336e_1121df11_a8c368f3_55d89593 => LOCAL_STORAGE.address(),
        0x263e8860_7cd26143_92f6bbd5_006dfa7e => CONTEXT_CHECKS.address(),
        0x6e163fbe_b958444d_835ce182_aff1991e => MODULE_FUNCTIONS.address(),
        0x1734dc26_800d4745_8726c0f1_e7dd8bca => DEVICE_TABLES.address(),
        #[cfg(feature = "cudart-handshake")]
        0xd4082055_bde6704b_8d34ba12_3c66e1f2 => integrity::TABLE.address(),
        _ => return None,
    })
}

/// A slot without a known use: `TABLE` is the first word of the table's id.
extern "C" fn unused<const TABLE: u32, const SLOT: u32>() -> CUresult {
    crate::log!(Warn, "private table {TABLE:08x}, slot {SLOT}: called, but not known to this library");
    Status::NOT_SUPPORTED.0
}

macro_rules! unused {
    ($table:literal, $slot:literal) => {
        unused::<$table, $slot> as *const c_void
    };
}

/// Runs the body of a slot: no panic leaves it.
fn guarded(name: &'static str, body: impl FnOnce() -> Result<(), Status>) -> CUresult {
    call::private_entry(name, body)
}

// CUDART_INTERFACE

static RUNTIME_INTERFACE: Table<13> = Table([
    size_slot(13),
    runtime_load_module as *const c_void,
    runtime_primary_context as *const c_void,
    unused!(0x6bd5fb6c, 3),
    unused!(0x6bd5fb6c, 4),
    unused!(0x6bd5fb6c, 5),
    runtime_load_module_with as *const c_void,
    runtime_before_unload as *const c_void,
    runtime_load_container as *const c_void,
    unused!(0x6bd5fb6c, 9),
    unused!(0x6bd5fb6c, 10),
    unused!(0x6bd5fb6c, 11),
    runtime_load_compilers as *const c_void,
]);

/// `(CUmodule *, wrapper *)`
unsafe extern "C" fn runtime_load_module(module: *mut CUmodule, wrapper: *const c_void) -> CUresult {
    guarded("CUDART_INTERFACE[1]", || {
        // SAFETY: the runtime passes a valid out-pointer and one of its registered wrappers.
        unsafe { custom::module::load(module.as_mut(), wrapper, &mut crate::module::Options::default()) }
    })
}

/// `(CUcontext *, CUdevice)`: the handle that `cuDevicePrimaryCtxRetain` returns later, without retaining it.
unsafe extern "C" fn runtime_primary_context(context: *mut CUcontext, device: CUdevice) -> CUresult {
    guarded("CUDART_INTERFACE[2]", || {
        let handle = custom::device::primary_context(device)?;
        // SAFETY: the runtime passes a pointer to its own variable, or NULL.
        *unsafe { context.as_mut() }.ok_or(Status::INVALID_VALUE)? = handle as CUcontext;
        Ok(())
    })
}

/// `(CUmodule *, wrapper *, 0, 0, 0)`
unsafe extern "C" fn runtime_load_module_with(
    module: *mut CUmodule,
    wrapper: *const c_void,
    _: *const c_void,
    _: *const c_void,
    _: u32,
) -> CUresult {
    // SAFETY: passed on as received.
    unsafe { runtime_load_module(module, wrapper) }
}

/// `(wrapper *)`: announces the unload of a module; nothing to do.
extern "C" fn runtime_before_unload(_: *const c_void) {}

/// `(container *, CUmodule *, 0, 0, 0)`
unsafe extern "C" fn runtime_load_container(container: *const c_void, module: *mut CUmodule) -> CUresult {
    // SAFETY: passed on as received; the loader tells wrappers and containers apart by their magic numbers.
    unsafe { runtime_load_module(module, container) }
}

extern "C" fn runtime_load_compilers() -> CUresult {
    0
}

// TOOLS_RUNTIME_CALLBACK_HOOKS: memory in which a tool would leave its callbacks; zeroed = no tool.

static CALLBACK_HOOKS: Table<7> = Table([
    size_slot(7),
    unused!(0xa094798c, 1),
    callback_hooks as *const c_void,
    unused!(0xa094798c, 3),
    unused!(0xa094798c, 4),
    unused!(0xa094798c, 5),
    callback_flags as *const c_void,
]);

const HOOK_WORDS: usize = 1024;
const FLAG_WORDS: usize = 14;

/// Zeroed words that a runtime reads (and a tool would write).
#[repr(transparent)]
struct Words<const N: usize>(core::cell::UnsafeCell<[u32; N]>);

// SAFETY: this library never touches the contents; sharing them is between the runtime and its tools.
unsafe impl<const N: usize> Sync for Words<N> {}

static HOOKS: Words<HOOK_WORDS> = Words(core::cell::UnsafeCell::new([0; HOOK_WORDS]));
static FLAGS: Words<FLAG_WORDS> = Words(core::cell::UnsafeCell::new([0; FLAG_WORDS]));

fn give_words<const N: usize>(
    words: &'static Words<N>,
    buffer: *mut *mut c_void,
    count: *mut usize,
) -> CUresult {
    if buffer.is_null() || count.is_null() {
        return Status::INVALID_VALUE.0;
    }
    // SAFETY: not NULL; the runtime passes pointers to its own variables.
    unsafe {
        *buffer = words.0.get().cast();
        *count = N;
    }
    0
}

extern "C" fn callback_hooks(buffer: *mut *mut c_void, count: *mut usize) -> CUresult {
    give_words(&HOOKS, buffer, count)
}

extern "C" fn callback_flags(buffer: *mut *mut c_void, count: *mut usize) -> CUresult {
    give_words(&FLAGS, buffer, count)
}

// TOOLS_TLS

static TOOLS_THREAD: Table<4> = Table([
    size_slot(4),
    unused!(0x42d85a81, 1),
    tools_current_context as *const c_void,
    unused!(0x42d85a81, 3),
]);

/// `(CUcontext *)`: the calling thread's current context.
unsafe extern "C" fn tools_current_context(context: *mut CUcontext) -> CUresult {
    guarded("TOOLS_TLS[2]", || {
        // SAFETY: the library passes a pointer to its own variable, or NULL.
        *unsafe { context.as_mut() }.ok_or(Status::INVALID_VALUE)? = thread::current_context() as CUcontext;
        Ok(())
    })
}

// Tools' view of a context; cuBLAS and cuFFT ask for its id.

const TOOLS_CONTEXT_SLOTS: usize = 95;

static TOOLS_CONTEXT: Table<TOOLS_CONTEXT_SLOTS> = {
    let mut slots = [unused!(0x21318c60, 0); TOOLS_CONTEXT_SLOTS];
    slots[0] = size_slot(TOOLS_CONTEXT_SLOTS);
    slots[4] = tools_context_id as *const c_void;
    slots[39] = tools_stream_id as *const c_void;
    slots[51] = tools_stream_object as *const c_void;
    Table(slots)
};

/// `(CUcontext, u64 *id)`
unsafe extern "C" fn tools_context_id(context: CUcontext, id: *mut u64) -> CUresult {
    guarded("tools context[4]", || {
        let context = or_current(context as u64)?;
        // SAFETY: the library passes a pointer to its own variable, or NULL.
        unsafe { custom::context::cuCtxGetId(context as CUcontext, id) }
    })
}

// Blocks of bytes about the device that cuBLAS reads before it chooses a kernel; it follows the pointers whatever the call returns. Observed (driver 580,
// cuBLASLt 13): slot 4 `(void **, void **)` gives two blocks, slot 13 `(void *, void *)` frees them.

const DEVICE_TABLES_SLOTS: usize = 17;

static DEVICE_TABLES: Table<DEVICE_TABLES_SLOTS> = {
    let mut slots = [unused!(0x1734dc26, 0); DEVICE_TABLES_SLOTS];
    slots[0] = size_slot(DEVICE_TABLES_SLOTS);
    slots[4] = device_tables_get as *const c_void;
    slots[13] = device_tables_free as *const c_void;
    Table(slots)
};

unsafe extern "C" fn device_tables_get(first: *mut *mut c_void, second: *mut *mut c_void) -> CUresult {
    guarded("device tables[4]", || {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        wire::device_tables(Some(&mut one), Some(&mut two))?;
        // SAFETY: the library passes pointers to its own variables, or NULL.
        let (first, second) = unsafe { (first.as_mut(), second.as_mut()) };
        let (first, second) = (first.ok_or(Status::INVALID_VALUE)?, second.ok_or(Status::INVALID_VALUE)?);
        *first = block(&one)?;
        *second = block(&two)?;
        Ok(())
    })
}

/// A block of the C library's allocator, as the driver's are, with a copy of the bytes.
fn block(bytes: &[u8]) -> Result<*mut c_void, Status> {
    // SAFETY: takes a number.
    let block = unsafe { libc::malloc(bytes.len().max(1)) };
    if block.is_null() {
        return Err(Status::OUT_OF_MEMORY);
    }
    // SAFETY: a fresh block of at least this length.
    unsafe { bytes.as_ptr().copy_to_nonoverlapping(block.cast(), bytes.len()) };
    Ok(block)
}

unsafe extern "C" fn device_tables_free(first: *mut c_void, second: *mut c_void) -> CUresult {
    // SAFETY: the library gives back what `device_tables_get` gave it.
    unsafe {
        libc::free(first);
        libc::free(second);
    }
    0
}

// A stream's identity, as cuBLAS asks for it (observed with driver 580, cuBLAS 13): slot 51 `(CUcontext, CUstream, void **object)` gives what stands behind a stream,
// NULL included, and slot 39 `(CUcontext, object, u64 *id)` its number. Handles of streams are never used twice here, so the handle is both.

/// `CU_STREAM_LEGACY`: what NULL stands for.
const LEGACY: usize = 1;

unsafe extern "C" fn tools_stream_object(_: CUcontext, stream: CUstream, object: *mut usize) -> CUresult {
    guarded("tools context[51]", || {
        // SAFETY: the library passes a pointer to its own variable, or NULL.
        *unsafe { object.as_mut() }.ok_or(Status::INVALID_VALUE)? = (stream as usize).max(LEGACY);
        Ok(())
    })
}

unsafe extern "C" fn tools_stream_id(_: CUcontext, object: usize, id: *mut u64) -> CUresult {
    guarded("tools context[39]", || {
        // SAFETY: the library passes a pointer to its own variable, or NULL.
        *unsafe { id.as_mut() }.ok_or(Status::INVALID_VALUE)? = object as u64;
        Ok(())
    })
}

// What cuFFT finds its kernels with. Observed (driver 580, cuFFT 12): slot 7, `(CUcontext, CUmodule, function, void *data)`, calls the function with
// `data` and each function of the module (cuFFT's stores it at `data`), and gives 1.

const MODULE_FUNCTIONS_SLOTS: usize = 99;

static MODULE_FUNCTIONS: Table<MODULE_FUNCTIONS_SLOTS> = {
    let mut slots = [unused!(0x6e163fbe, 0); MODULE_FUNCTIONS_SLOTS];
    slots[0] = size_slot(MODULE_FUNCTIONS_SLOTS);
    slots[7] = each_function as *const c_void;
    Table(slots)
};

type EachFunction = unsafe extern "C" fn(data: *mut c_void, function: *mut c_void);

unsafe extern "C" fn each_function(
    _context: CUcontext,
    module: CUmodule,
    visit: Option<EachFunction>,
    data: *mut c_void,
) -> c_int {
    let status = guarded("module functions[7]", || {
        let visit = visit.ok_or(Status::INVALID_VALUE)?;
        let mut count = 0u32;
        wire::cuModuleGetFunctionCount(Some(&mut count), module as u64)?;
        let mut functions = vec![core::ptr::null_mut(); count as usize];
        // SAFETY: an array of the length that goes with it.
        unsafe { custom::module::cuModuleEnumerateFunctions(functions.as_mut_ptr(), count, module) }?;
        for function in functions {
            // SAFETY: the library's own function with its own data.
            unsafe { visit(data, function.cast()) };
        }
        Ok(())
    });
    c_int::from(status == 0)
}

// CONTEXT_LOCAL_STORAGE v0301: the one table without a size slot.

static LOCAL_STORAGE: Table<4> = Table([
    local_storage_put as *const c_void,
    local_storage_delete as *const c_void,
    local_storage_get as *const c_void,
    ptr::null(),
]);

fn or_current(context: u64) -> Result<u64, Status> {
    match context {
        0 => match thread::current_context() {
            0 => Err(Status::INVALID_CONTEXT),
            current => Ok(current),
        },
        given => Ok(given),
    }
}

extern "C" fn local_storage_put(
    context: CUcontext,
    key: usize,
    value: usize,
    destructor: Option<Destructor>,
) -> CUresult {
    guarded("CONTEXT_LOCAL_STORAGE[0]", || {
        process().local_storage.put(or_current(context as u64)?, key, value, destructor);
        Ok(())
    })
}

extern "C" fn local_storage_delete(context: CUcontext, key: usize) -> CUresult {
    guarded("CONTEXT_LOCAL_STORAGE[1]", || process().local_storage.delete(or_current(context as u64)?, key))
}

/// On the path of every runtime call: no tracing, no locks when the thread asks again for what it asked for last.
extern "C" fn local_storage_get(value: *mut usize, context: CUcontext, key: usize) -> CUresult {
    let found = or_current(context as u64).and_then(|context| thread::local_storage(context, key));
    match (found, value.is_null()) {
        (Ok(found), false) => {
            // SAFETY: not NULL; the runtime passes a pointer to its own variable.
            unsafe { *value = found };
            0
        }
        (Ok(_), true) => Status::INVALID_VALUE.0,
        (Err(status), _) => status.0,
    }
}

// CONTEXT_CHECKS

static CONTEXT_CHECKS: Table<4> = Table([
    size_slot(4),
    unused!(0x263e8860, 1),
    context_check as *const c_void,
    context_check_version as *const c_void,
]);

/// `(CUcontext, u32 *out, void **out2)`: nothing to object.
unsafe extern "C" fn context_check(_: CUcontext, out: *mut u32, _: *mut *mut c_void) -> CUresult {
    // SAFETY: the runtime passes a pointer to its own variable, or NULL.
    if let Some(out) = unsafe { out.as_mut() } {
        *out = 0;
    }
    0
}

extern "C" fn context_check_version() -> c_int {
    0
}

// INTEGRITY_CHECK

#[cfg(feature = "cudart-handshake")]
mod integrity {
    use super::*;
    use crate::private::handshake::{self, Device, Request};

    pub static TABLE: Table<3> = Table([size_slot(3), check as *const c_void, unused!(0xd4082055, 2)]);

    /// `(u32 version, u64 unix_seconds, u8 answer[16])`
    unsafe extern "C" fn check(version: u32, unix_seconds: u64, answer: *mut [u8; 16]) -> CUresult {
        guarded("INTEGRITY_CHECK[1]", || {
            let devices: Vec<Device> = (0..custom::device::count()?)
                .map(|device| {
                    Ok(Device {
                        uuid: custom::device::uuid(device)?,
                        pci_domain: custom::device::attribute(device, 50)?,
                        pci_bus: custom::device::attribute(device, 33)?,
                        pci_device: custom::device::attribute(device, 34)?,
                    })
                })
                .collect::<Result<_, Status>>()?;
            // SAFETY: pthread_self has no preconditions.
            let thread = unsafe { libc::pthread_self() } as u32;
            let computed = handshake::answer(&Request {
                driver_version: custom::init::driver_version()?,
                version,
                process_id: std::process::id(),
                thread,
                runtime_table: RUNTIME_INTERFACE.address() as u64,
                integrity_table: TABLE.address() as u64,
                integrity_function: check as *const c_void as u64,
                unix_seconds,
                devices: &devices,
            });
            // SAFETY: the runtime passes a buffer of 16 bytes, or NULL.
            *unsafe { answer.as_mut() }.ok_or(Status::INVALID_VALUE)? = computed;
            Ok(())
        })
    }
}
