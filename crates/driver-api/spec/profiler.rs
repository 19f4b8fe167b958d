//! The profiler's switches. Nothing is profiled.

/// Deprecated.
#[op(since = 4000)]
#[local]
fn cuProfilerInitialize(
    #[cstr] configFile: *const c_char,
    #[cstr] outputFile: *const c_char,
    outputMode: CUoutput_mode,
);

/// Starts profiling.
#[op(since = 4000)]
#[local]
fn cuProfilerStart();

/// Stops profiling.
#[op(since = 4000)]
#[local]
fn cuProfilerStop();
