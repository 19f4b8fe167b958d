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
#[via(pointer_info)]
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
#[local]
fn cuMemHostRegister_v2(p: *mut c_void, bytesize: usize, Flags: c_uint);

/// Ends a registration.
#[op(since = 4000)]
#[local]
fn cuMemHostUnregister(p: *mut c_void);
