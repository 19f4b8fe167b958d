//! Pools of stream-ordered allocation.

/// Allocates from a pool, in stream order.
#[op(0x0340, since = 11020, ptsz = 11020)]
#[sync]
#[custom]
#[host_custom]
fn cuMemAllocFromPoolAsync(
    #[out] dptr: *mut CUdeviceptr,
    bytesize: usize,
    pool: CUmemoryPool,
    #[stream] hStream: CUstream,
);

/// The default pool of a device.
#[op(0x0341, since = 11020)]
#[sync]
fn cuDeviceGetDefaultMemPool(#[out] pool_out: *mut CUmemoryPool, dev: CUdevice);

/// The current pool of a device.
#[op(0x0342, since = 11020)]
#[sync]
fn cuDeviceGetMemPool(#[out] pool: *mut CUmemoryPool, dev: CUdevice);

/// Sets the current pool of a device.
#[op(0x0343, since = 11020)]
#[sync]
fn cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool);

/// Creates a pool. Memory of the host is refused: the program would not see it.
#[op(0x0344, since = 11020)]
#[sync]
#[custom]
fn cuMemPoolCreate(#[out] pool: *mut CUmemoryPool, #[input] poolProps: *const CUmemPoolProps);

/// Destroys a pool.
#[op(0x0345, since = 11020)]
#[sync]
fn cuMemPoolDestroy(#[dies] pool: CUmemoryPool);

/// Gives unused memory of a pool back.
#[op(0x0346, since = 11020)]
#[sync]
fn cuMemPoolTrimTo(pool: CUmemoryPool, minBytesToKeep: usize);

/// An attribute of a pool.
#[op(since = 11020)]
#[via(pool_get_attribute)]
fn cuMemPoolGetAttribute(pool: CUmemoryPool, attr: CUmemPool_attribute, value: *mut c_void);

/// Sets an attribute of a pool.
#[op(since = 11020)]
#[via(pool_set_attribute)]
fn cuMemPoolSetAttribute(pool: CUmemoryPool, attr: CUmemPool_attribute, value: *mut c_void);

/// Sets who may use a pool's memory.
#[op(0x0347, since = 11020)]
#[sync]
fn cuMemPoolSetAccess(pool: CUmemoryPool, #[data_in(count * 12)] map: *const CUmemAccessDesc, count: usize);

/// Who may use a pool's memory.
#[op(0x0348, since = 11020)]
#[sync]
fn cuMemPoolGetAccess(
    #[out] flags: *mut CUmemAccess_flags,
    memPool: CUmemoryPool,
    #[input] location: *mut CUmemLocation,
);
