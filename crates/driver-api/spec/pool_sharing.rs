//! Pools by location, and pools that programs share.

/// The default pool of a location.
#[op(0x0820, since = 13000)]
#[sync]
#[custom]
fn cuMemGetDefaultMemPool(
    #[out] pool_out: *mut CUmemoryPool,
    #[input] location: *mut CUmemLocation,
    type_: CUmemAllocationType,
);

/// The current pool of a location.
#[op(0x0821, since = 13000)]
#[sync]
#[custom]
fn cuMemGetMemPool(
    #[out] pool: *mut CUmemoryPool,
    #[input] location: *mut CUmemLocation,
    type_: CUmemAllocationType,
);

/// Sets the current pool of a location.
#[op(0x0822, since = 13000)]
#[sync]
fn cuMemSetMemPool(#[input] location: *mut CUmemLocation, type_: CUmemAllocationType, pool: CUmemoryPool);

/// A handle of a pool for other programs: a file descriptor, or a fabric handle.
#[op(since = 11020)]
#[via(pool_export)]
fn cuMemPoolExportToShareableHandle(
    handle_out: *mut c_void,
    pool: CUmemoryPool,
    handleType: CUmemAllocationHandleType,
    flags: c_ulonglong,
);

/// A pool of another program, by such a handle.
#[op(since = 11020)]
#[via(pool_import)]
fn cuMemPoolImportFromShareableHandle(
    pool_out: *mut CUmemoryPool,
    handle: *mut c_void,
    handleType: CUmemAllocationHandleType,
    flags: c_ulonglong,
);

/// As `cuMemPoolExportToShareableHandle`; `shared` as in `memory_export`.
#[op(0x0823)]
#[sync]
#[internal]
fn pool_export(pool: CUmemoryPool, handle_type: u32, flags: u64, #[out] shared: *mut [u8; 64]);

/// As `cuMemPoolImportFromShareableHandle`.
#[op(0x0824)]
#[sync]
#[internal]
fn pool_import(
    #[out] pool: *mut CUmemoryPool,
    #[input] shared: *const [u8; 64],
    handle_type: u32,
    flags: u64,
);

/// What another program needs to find an allocation in an imported pool.
#[op(0x0825, since = 11020)]
#[sync]
fn cuMemPoolExportPointer(#[out] shareData_out: *mut CUmemPoolPtrExportData, ptr: CUdeviceptr);

/// An allocation of another program in an imported pool.
#[op(0x0826, since = 11020)]
#[sync]
#[host_custom]
fn cuMemPoolImportPointer(
    #[out] ptr_out: *mut CUdeviceptr,
    pool: CUmemoryPool,
    #[input] shareData: *mut CUmemPoolPtrExportData,
);
