//! Names and texts of results.

/// The name of a result.
#[op(since = 6000)]
#[local]
fn cuGetErrorName(error: CUresult, pStr: *mut *const c_char);

/// The description of a result.
#[op(since = 6000)]
#[local]
fn cuGetErrorString(error: CUresult, pStr: *mut *const c_char);
