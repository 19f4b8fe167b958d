//! Start-up: initialisation, version, entry points.

/// Initialises the driver API; opens the session.
#[op(0x0100, since = 2000)]
#[sync]
#[custom]
#[host_custom]
fn cuInit(Flags: c_uint);

/// Newest CUDA version that is supported, as 1000 * major + 10 * minor.
#[op(since = 2020)]
#[local]
fn cuDriverGetVersion(#[out] driverVersion: *mut c_int);

/// Address of an entry point by base name and CUDA version.
#[op(since = 11030)]
#[local]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuGetProcAddress(
    #[cstr] symbol: *const c_char,
    pfn: *mut *mut c_void,
    cudaVersion: c_int,
    flags: cuuint64_t,
);

/// As cuGetProcAddress, with the reason for a miss.
#[op(since = 12000)]
#[local]
fn cuGetProcAddress_v2(
    #[cstr] symbol: *const c_char,
    pfn: *mut *mut c_void,
    cudaVersion: c_int,
    flags: cuuint64_t,
    symbolStatus: *mut CUdriverProcAddressQueryResult,
);

/// A private table by UUID.
#[op(since = 3000)]
#[local]
fn cuGetExportTable(ppExportTable: *mut *const c_void, pExportTableId: *const CUuuid);

/// Lazy or eager loading of modules.
#[op(since = 11070)]
#[local]
fn cuModuleGetLoadingMode(mode: *mut CUmoduleLoadingMode);
