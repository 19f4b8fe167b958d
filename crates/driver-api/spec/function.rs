//! Functions: kernels in a context. A CUkernel is accepted where a CUfunction is.

/// An attribute of a function.
#[op(since = 2020)]
#[local]
fn cuFuncGetAttribute(pi: *mut c_int, attrib: CUfunction_attribute, hfunc: CUfunction);

/// Sets an attribute of a function.
#[op(0x0500, since = 9000)]
#[sync]
#[custom]
#[host_custom]
fn cuFuncSetAttribute(hfunc: CUfunction, attrib: CUfunction_attribute, value: c_int);

/// Sets the preferred cache configuration of a function: a hint.
#[op(0x0501, since = 3000)]
#[sync]
#[custom]
#[host_custom]
fn cuFuncSetCacheConfig(hfunc: CUfunction, config: CUfunc_cache);

/// Sets the size of the shared memory banks: a hint.
#[op(since = 4020)]
#[local]
fn cuFuncSetSharedMemConfig(hfunc: CUfunction, config: CUsharedconfig);

/// The module that a function belongs to.
#[op(since = 11000)]
#[local]
fn cuFuncGetModule(hmod: *mut CUmodule, hfunc: CUfunction);

/// The name of a function.
#[op(since = 12030)]
#[local]
fn cuFuncGetName(name: *mut *const c_char, hfunc: CUfunction);

/// Offset and size of a function's parameter.
#[op(since = 12040)]
#[local]
fn cuFuncGetParamInfo(func: CUfunction, paramIndex: usize, paramOffset: *mut usize, paramSize: *mut usize);

/// Number of a function's parameters.
#[op(since = 13020)]
#[local]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuFuncGetParamCount(func: CUfunction, paramCount: *mut usize);

/// Whether a function is loaded.
#[op(since = 12040)]
#[local]
fn cuFuncIsLoaded(state: *mut CUfunctionLoadingState, function: CUfunction);

/// Loads a function now.
#[op(since = 12040)]
#[local]
fn cuFuncLoad(function: CUfunction);
