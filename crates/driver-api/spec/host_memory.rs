//! Page-locked host memory. It lies in the window, at the same address in the program and in the worker.

/// First version of cuMemAllocHost_v2.
#[op(since = 2000)]
#[via(cuMemHostAlloc)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuMemAllocHost(pp: *mut *mut c_void, bytesize: c_uint);

/// Allocates page-locked host memory.
#[op(since = 3020)]
#[via(cuMemHostAlloc)]
fn cuMemAllocHost_v2(pp: *mut *mut c_void, bytesize: usize);

/// Allocates page-locked host memory with flags.
#[op(0x0360, since = 2020)]
#[sync]
#[custom]
#[host_custom]
fn cuMemHostAlloc(#[out] pp: *mut *mut c_void, bytesize: usize, Flags: c_uint);

/// Frees page-locked host memory.
#[op(0x0361, since = 2000)]
#[sync]
#[custom]
#[host_custom]
fn cuMemFreeHost(#[address] p: *mut c_void);

/// Device address of page-locked or registered host memory.
#[op(since = 3020)]
#[via(pointer_info, registered_map, registered_lend)]
fn cuMemHostGetDevicePointer_v2(pdptr: *mut CUdeviceptr, p: *mut c_void, Flags: c_uint);

/// Flags that page-locked host memory was allocated with.
#[op(since = 2030)]
#[via(pointer_info)]
fn cuMemHostGetFlags(pFlags: *mut c_uint, p: *mut c_void);

/// First version of cuMemHostRegister_v2.
#[op(since = 4000)]
#[like(cuMemHostRegister_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuMemHostRegister(p: *mut c_void, bytesize: usize, Flags: c_uint);

/// Registers host memory of the program.
#[op(since = 6050)]
#[via(registered_map, registered_lend)]
fn cuMemHostRegister_v2(p: *mut c_void, bytesize: usize, Flags: c_uint);

/// Ends a registration.
#[op(since = 4000)]
#[via(registered_release, registered_unmap)]
fn cuMemHostUnregister(p: *mut c_void);

/// Gives whole pages of the window to memory that the program has registered, which lies at `address` there and whose pages the program replaces by these: `len` bytes. `window`
/// is where they are in the window, `aliased` whether the device reaches them at `address` too.
#[op(0x0362)]
#[sync]
#[internal]
fn registered_map(address: u64, len: u64, flags: u32, #[out] window: *mut u64, #[out] aliased: *mut u32);

/// As `registered_map`, for pages that the program's memory broker has pinned where they are: `region` of `region_len` bytes, which begins at the page `address` in the program. `window` is where the
/// region is in the window.
#[op(0x0364)]
#[sync]
#[internal]
fn registered_lend(
    address: u64,
    region: u64,
    region_len: u64,
    flags: u32,
    #[out] window: *mut u64,
    #[out] aliased: *mut u32,
);

/// Ends the device's reach of what `registered_map` has given, when the work that may use it is done. It stays in the window until `registered_unmap`, while the program takes its bytes back.
#[op(0x0365)]
#[sync]
#[internal]
fn registered_release(window: u64);

/// Takes back what `registered_map` or `registered_lend` has given, which the program does not use any more.
#[op(0x0363)]
#[sync]
#[internal]
fn registered_unmap(window: u64);
