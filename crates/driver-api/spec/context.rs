//! Contexts. Which context is current, and what the guest created with it, is answered from the guest's
//! tables.

/// First version of cuCtxCreate_v2.
#[op(since = 2000)]
#[like(cuCtxCreate_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuCtxCreate(pctx: *mut CUcontext, flags: c_uint, dev: CUdevice);

/// Creates a context and makes it current.
#[op(0x0180, since = 3020)]
#[sync]
#[custom]
#[unchecked = "an older ABI name, not in the header any more"]
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
#[op(0x0181, since = 4000)]
#[sync]
#[custom]
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
#[op(0x0182, since = 2000)]
#[sync]
#[custom]
fn cuCtxSynchronize();

/// Waits for all work of a context.
#[op(since = 13000)]
#[via(cuCtxSynchronize)]
fn cuCtxSynchronize_v2(ctx: CUcontext);

/// Sets a limit of the current context.
#[op(0x0183, since = 3010)]
#[sync]
fn cuCtxSetLimit(limit: CUlimit, value: usize);

/// A limit of the current context.
#[op(0x0184, since = 3010)]
#[sync]
fn cuCtxGetLimit(#[out] pvalue: *mut usize, limit: CUlimit);

/// Preferred cache configuration of the current context.
#[op(0x0185, since = 3020)]
#[sync]
fn cuCtxGetCacheConfig(#[out] pconfig: *mut CUfunc_cache);

/// Sets the preferred cache configuration: a hint.
#[op(0x0186, since = 3020)]
#[sync]
fn cuCtxSetCacheConfig(config: CUfunc_cache);

/// Size of the shared memory banks.
#[op(0x0187, since = 4020)]
#[sync]
fn cuCtxGetSharedMemConfig(#[out] pConfig: *mut CUsharedconfig);

/// Sets the size of the shared memory banks: a hint.
#[op(0x0188, since = 4020)]
#[sync]
fn cuCtxSetSharedMemConfig(config: CUsharedconfig);

/// Least and greatest stream priority.
#[op(0x0189, since = 5050)]
#[sync]
fn cuCtxGetStreamPriorityRange(#[out] leastPriority: *mut c_int, #[out] greatestPriority: *mut c_int);

/// Resets persisting cache lines.
#[op(0x018a, since = 11000)]
#[sync]
fn cuCtxResetPersistingL2Cache();
