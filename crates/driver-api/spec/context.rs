//! Contexts. Which context is current, and what the guest created with it, is answered from the guest's
//! tables.

/// Retains the primary context of a device.
#[op(0x0180, since = 7000)]
#[sync]
#[custom]
#[host_custom]
fn cuDevicePrimaryCtxRetain(#[out] pctx: *mut CUcontext, dev: CUdevice);

/// First version of cuDevicePrimaryCtxRelease_v2.
#[op(since = 7000)]
#[like(cuDevicePrimaryCtxRelease_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuDevicePrimaryCtxRelease(dev: CUdevice);

/// Releases the primary context of a device.
#[op(0x0181, since = 11000)]
#[sync]
#[custom]
#[host_custom]
fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice);

/// First version of cuDevicePrimaryCtxSetFlags_v2.
#[op(since = 7000)]
#[like(cuDevicePrimaryCtxSetFlags_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuDevicePrimaryCtxSetFlags(dev: CUdevice, flags: c_uint);

/// Sets the flags of a primary context.
#[op(0x0182, since = 11000)]
#[sync]
#[custom]
#[host_custom]
fn cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: c_uint);

/// First version of cuDevicePrimaryCtxReset_v2.
#[op(since = 7000)]
#[like(cuDevicePrimaryCtxReset_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuDevicePrimaryCtxReset(dev: CUdevice);

/// Destroys what lives in a primary context.
#[op(0x0183, since = 11000)]
#[sync]
#[custom]
#[host_custom]
fn cuDevicePrimaryCtxReset_v2(dev: CUdevice);

/// Flags of a primary context, and whether it is active.
#[op(since = 7000)]
#[local]
fn cuDevicePrimaryCtxGetState(dev: CUdevice, flags: *mut c_uint, active: *mut c_int);

/// First version of cuCtxCreate_v2.
#[op(since = 2000)]
#[like(cuCtxCreate_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuCtxCreate(pctx: *mut CUcontext, flags: c_uint, dev: CUdevice);

/// Creates a context and makes it current.
#[op(0x0184, since = 3020)]
#[sync]
#[custom]
#[unchecked = "an older ABI name, not in the header any more"]
#[host_custom]
fn cuCtxCreate_v2(#[out] pctx: *mut CUcontext, flags: c_uint, dev: CUdevice);

/// As cuCtxCreate_v2, with execution affinity.
#[op(since = 11040)]
#[via(cuCtxCreate_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuCtxCreate_v3(
    pctx: *mut CUcontext,
    paramsArray: *mut CUexecAffinityParam,
    numParams: c_int,
    flags: c_uint,
    dev: CUdevice,
);

/// As cuCtxCreate_v2, with creation parameters.
#[op(since = 12050)]
#[via(cuCtxCreate_v2)]
fn cuCtxCreate_v4(
    pctx: *mut CUcontext,
    ctxCreateParams: *mut CUctxCreateParams,
    flags: c_uint,
    dev: CUdevice,
);

/// First version of cuCtxDestroy_v2.
#[op(since = 2000)]
#[like(cuCtxDestroy_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuCtxDestroy(ctx: CUcontext);

/// Destroys a context and all that lives in it.
#[op(0x0185, since = 4000)]
#[sync]
#[custom]
#[host_custom]
fn cuCtxDestroy_v2(ctx: CUcontext);

/// First version of cuCtxPushCurrent_v2.
#[op(since = 2000)]
#[like(cuCtxPushCurrent_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuCtxPushCurrent(ctx: CUcontext);

/// Makes a context current, above the one that was.
#[op(since = 4000)]
#[local]
fn cuCtxPushCurrent_v2(ctx: CUcontext);

/// First version of cuCtxPopCurrent_v2.
#[op(since = 2000)]
#[like(cuCtxPopCurrent_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuCtxPopCurrent(pctx: *mut CUcontext);

/// Makes the context below the current one current.
#[op(since = 4000)]
#[local]
fn cuCtxPopCurrent_v2(pctx: *mut CUcontext);

/// Replaces the current context.
#[op(since = 4000)]
#[local]
fn cuCtxSetCurrent(ctx: CUcontext);

/// The current context.
#[op(since = 4000)]
#[local]
fn cuCtxGetCurrent(pctx: *mut CUcontext);

/// Device of the current context.
#[op(since = 2000)]
#[local]
fn cuCtxGetDevice(device: *mut CUdevice);

/// Device of a context.
#[op(since = 13000)]
#[local]
fn cuCtxGetDevice_v2(device: *mut CUdevice, ctx: CUcontext);

/// Flags of the current context.
#[op(since = 7000)]
#[local]
fn cuCtxGetFlags(flags: *mut c_uint);

/// Sets the flags of the current context.
#[op(since = 12010)]
#[local]
fn cuCtxSetFlags(flags: c_uint);

/// Process-wide unique id of a context.
#[op(since = 12000)]
#[local]
fn cuCtxGetId(ctx: CUcontext, ctxId: *mut c_ulonglong);

/// API version that a context was created with.
#[op(since = 3020)]
#[local]
fn cuCtxGetApiVersion(ctx: CUcontext, version: *mut c_uint);

/// Waits for all work of the current context.
#[op(0x0186, since = 2000)]
#[sync]
#[custom]
#[host_custom]
fn cuCtxSynchronize();

/// Waits for all work of a context.
#[op(0x0187, since = 13000)]
#[sync]
#[custom]
#[host_custom]
fn cuCtxSynchronize_v2(ctx: CUcontext);

/// Sets a limit of the current context.
#[op(0x0188, since = 3010)]
#[sync]
fn cuCtxSetLimit(limit: CUlimit, value: usize);

/// A limit of the current context.
#[op(0x0189, since = 3010)]
#[sync]
fn cuCtxGetLimit(#[out] pvalue: *mut usize, limit: CUlimit);

/// Preferred cache configuration of the current context.
#[op(since = 3020)]
#[local]
fn cuCtxGetCacheConfig(pconfig: *mut CUfunc_cache);

/// Sets the preferred cache configuration: a hint.
#[op(since = 3020)]
#[local]
fn cuCtxSetCacheConfig(config: CUfunc_cache);

/// Size of the shared memory banks.
#[op(since = 4020)]
#[local]
fn cuCtxGetSharedMemConfig(pConfig: *mut CUsharedconfig);

/// Sets the size of the shared memory banks: a hint.
#[op(since = 4020)]
#[local]
fn cuCtxSetSharedMemConfig(config: CUsharedconfig);

/// Least and greatest stream priority.
#[op(0x018a, since = 5050)]
#[sync]
fn cuCtxGetStreamPriorityRange(#[out] leastPriority: *mut c_int, #[out] greatestPriority: *mut c_int);

/// Resets persisting cache lines.
#[op(0x018b, since = 11000)]
#[sync]
fn cuCtxResetPersistingL2Cache();

/// How much of its device a context may use.
#[op(0x0840, since = 11040)]
#[sync]
fn cuCtxGetExecAffinity(#[out] pExecAffinity: *mut CUexecAffinityParam, type_: CUexecAffinityType);

/// Records an event after all work of a context.
#[op(0x0841, since = 12050)]
#[sync]
fn cuCtxRecordEvent(hCtx: CUcontext, hEvent: CUevent);

/// All later work of a context waits for an event.
#[op(0x0842, since = 12050)]
#[sync]
fn cuCtxWaitEvent(hCtx: CUcontext, hEvent: CUevent);
