//! Address ranges and memory, each for itself, and the mapping of one to the other.

/// Reserves a range of addresses.
#[op(0x0780, since = 10020)]
#[sync]
#[host_custom]
fn cuMemAddressReserve(
    #[out] ptr: *mut CUdeviceptr,
    size: usize,
    alignment: usize,
    addr: CUdeviceptr,
    flags: c_ulonglong,
);

/// Gives a range of addresses back.
#[op(0x0781, since = 10020)]
#[sync]
#[host_custom]
fn cuMemAddressFree(ptr: CUdeviceptr, size: usize);

/// Allocates memory without an address. Memory of the host is refused: the program would not see it.
#[op(0x0782, since = 10020)]
#[sync]
#[custom]
#[host_custom]
fn cuMemCreate(
    #[out] handle: *mut CUmemGenericAllocationHandle,
    size: usize,
    #[input] prop: *const CUmemAllocationProp,
    flags: c_ulonglong,
);

/// Gives memory back that has no address any more.
#[op(0x0783, since = 10020)]
#[sync]
#[host_custom]
fn cuMemRelease(handle: CUmemGenericAllocationHandle);

/// Maps memory to reserved addresses.
#[op(0x0784, since = 10020)]
#[sync]
#[host_custom]
fn cuMemMap(
    ptr: CUdeviceptr,
    size: usize,
    offset: usize,
    handle: CUmemGenericAllocationHandle,
    flags: c_ulonglong,
);

/// Ends a mapping.
#[op(0x0785, since = 10020)]
#[sync]
#[host_custom]
fn cuMemUnmap(ptr: CUdeviceptr, size: usize);

/// Sets who may access mapped addresses.
#[op(0x0786, since = 10020)]
#[sync]
#[host_custom]
fn cuMemSetAccess(
    ptr: CUdeviceptr,
    size: usize,
    #[data_in(count * 12)] desc: *const CUmemAccessDesc,
    count: usize,
);

/// Who may access a mapped address.
#[op(0x0787, since = 10020)]
#[sync]
fn cuMemGetAccess(
    #[out] flags: *mut c_ulonglong,
    #[input] location: *const CUmemLocation,
    ptr: CUdeviceptr,
);

/// The memory behind a mapped address, once more.
#[op(0x0788, since = 11000)]
#[sync]
#[host_custom]
fn cuMemRetainAllocationHandle(
    #[out] handle: *mut CUmemGenericAllocationHandle,
    #[address] addr: *mut c_void,
);

/// Alignment that sizes and addresses need.
#[op(0x0789, since = 10020)]
#[cached]
fn cuMemGetAllocationGranularity(
    #[out] granularity: *mut usize,
    #[input] prop: *const CUmemAllocationProp,
    option: CUmemAllocationGranularity_flags,
);

/// What memory was created with.
#[op(0x078a, since = 10020)]
#[sync]
fn cuMemGetAllocationPropertiesFromHandle(
    #[out] prop: *mut CUmemAllocationProp,
    handle: CUmemGenericAllocationHandle,
);

/// A handle of memory for other programs: a file descriptor, or a fabric handle.
#[op(since = 10020)]
#[via(memory_export)]
fn cuMemExportToShareableHandle(
    shareableHandle: *mut c_void,
    handle: CUmemGenericAllocationHandle,
    handleType: CUmemAllocationHandleType,
    flags: c_ulonglong,
);

/// Memory of another program, by such a handle.
#[op(since = 10020)]
#[via(memory_import)]
fn cuMemImportFromShareableHandle(
    handle: *mut CUmemGenericAllocationHandle,
    osHandle: *mut c_void,
    shHandleType: CUmemAllocationHandleType,
);

/// As `cuMemExportToShareableHandle`. A fabric handle is in `shared` as it is; for a file descriptor, which stays on the host, its
/// first 32 bytes are a ticket by which any session finds it.
#[op(0x078b)]
#[sync]
#[internal]
fn memory_export(
    handle: CUmemGenericAllocationHandle,
    handle_type: u32,
    flags: u64,
    #[out] shared: *mut [u8; 64],
);

/// As `cuMemImportFromShareableHandle`, by what `memory_export` gave.
#[op(0x078c)]
#[sync]
#[internal]
fn memory_import(
    #[out] handle: *mut CUmemGenericAllocationHandle,
    #[input] shared: *const [u8; 64],
    handle_type: u32,
);
