//! Launches.

/// Launches a kernel.
#[op(since = 4000, ptsz = 7000)]
#[via(launch)]
fn cuLaunchKernel(
    f: CUfunction,
    gridDimX: c_uint,
    gridDimY: c_uint,
    gridDimZ: c_uint,
    blockDimX: c_uint,
    blockDimY: c_uint,
    blockDimZ: c_uint,
    sharedMemBytes: c_uint,
    #[stream] hStream: CUstream,
    kernelParams: *mut *mut c_void,
    extra: *mut *mut c_void,
);

/// Launches a kernel, with attributes.
#[op(since = 11060, ptsz = 11060)]
#[via(launch)]
fn cuLaunchKernelEx(
    config: *const CUlaunchConfig,
    f: CUfunction,
    kernelParams: *mut *mut c_void,
    extra: *mut *mut c_void,
);

/// Launches a kernel whose blocks may all wait for each other.
#[op(since = 9000, ptsz = 9000)]
#[via(launch)]
fn cuLaunchCooperativeKernel(
    f: CUfunction,
    gridDimX: c_uint,
    gridDimY: c_uint,
    gridDimZ: c_uint,
    blockDimX: c_uint,
    blockDimY: c_uint,
    blockDimZ: c_uint,
    sharedMemBytes: c_uint,
    #[stream] hStream: CUstream,
    kernelParams: *mut *mut c_void,
);

/// Calls a function of the program, in stream order.
#[op(since = 10000, ptsz = 10000)]
#[via(callback_post, callback_next, callback_done)]
fn cuLaunchHostFunc(#[stream] hStream: CUstream, fn_: CUhostFn, userData: *mut c_void);

/// As cuLaunchHostFunc, with a mode of waiting.
#[op(since = 13010, ptsz = 13010)]
#[via(callback_post, callback_next, callback_done)]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuLaunchHostFunc_v2(#[stream] hStream: CUstream, fn_: CUhostFn, userData: *mut c_void, syncMode: c_uint);

/// Launches a cooperative kernel on several devices.
#[op(since = 9000)]
#[via(launch_multi_device)]
fn cuLaunchCooperativeKernelMultiDevice(
    launchParamsList: *mut CUDA_LAUNCH_PARAMS,
    numDevices: c_uint,
    flags: c_uint,
);

/// As `cuLaunchCooperativeKernelMultiDevice`: per device 48 bytes (function u64, grid 3 x u32, block 3 x u32, shared bytes u32, bytes of
/// the parameter buffer u32, stream u64), and the parameter buffers one behind the other, each padded to 8 bytes.
#[op(0x0870)]
#[sync]
#[internal]
fn launch_multi_device(count: u32, #[data_in(count * 48)] launches: *const u8, #[data_in] params: *const u8, flags: u32);
