//! Calls of early CUDA versions.

/// Adds a reference to the current context.
#[op(since = 2000)]
#[local]
fn cuCtxAttach(pctx: *mut CUcontext, flags: c_uint);

/// Takes a reference back, and destroys the context with the last one.
#[op(since = 2000)]
#[via(cuCtxDestroy_v2)]
fn cuCtxDetach(ctx: CUcontext);

/// Bytes of a device's memory, as many as 32 bits can say.
#[op(since = 2000)]
#[via(cuDeviceTotalMem_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuDeviceTotalMem(bytes: *mut c_uint, dev: CUdevice);

/// Block of the next `cuLaunch` of a function.
#[op(since = 2000)]
#[local]
fn cuFuncSetBlockShape(hfunc: CUfunction, x: c_int, y: c_int, z: c_int);

/// Dynamic shared memory of the next `cuLaunch` of a function.
#[op(since = 2000)]
#[local]
fn cuFuncSetSharedSize(hfunc: CUfunction, bytes: c_uint);

/// Size of the parameters of the next `cuLaunch` of a function.
#[op(since = 2000)]
#[local]
fn cuParamSetSize(hfunc: CUfunction, numbytes: c_uint);

/// An integer parameter.
#[op(since = 2000)]
#[local]
fn cuParamSeti(hfunc: CUfunction, offset: c_int, value: c_uint);

/// A floating-point parameter.
#[op(since = 2000)]
#[local]
fn cuParamSetf(hfunc: CUfunction, offset: c_int, value: f32);

/// Any parameter.
#[op(since = 2000)]
#[local]
fn cuParamSetv(hfunc: CUfunction, offset: c_int, ptr: *mut c_void, numbytes: c_uint);

/// A texture reference as a parameter: functions find theirs by name, so that nothing is to be done.
#[op(since = 2000)]
#[local]
fn cuParamSetTexRef(hfunc: CUfunction, texunit: c_int, hTexRef: CUtexref);

/// Launches one block.
#[op(since = 2000)]
#[via(launch)]
fn cuLaunch(f: CUfunction);

/// Launches a grid.
#[op(since = 2000)]
#[via(launch)]
fn cuLaunchGrid(f: CUfunction, grid_width: c_int, grid_height: c_int);

/// Launches a grid in a stream.
#[op(since = 2000)]
#[via(launch)]
fn cuLaunchGridAsync(f: CUfunction, grid_width: c_int, grid_height: c_int, hStream: CUstream);
