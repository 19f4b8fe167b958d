//! Access between devices.

/// Whether a device can access another's memory.
#[op(0x0580, since = 4000)]
#[cached]
fn cuDeviceCanAccessPeer(#[out] canAccessPeer: *mut c_int, dev: CUdevice, peerDev: CUdevice);

/// An attribute of the link between two devices.
#[op(0x0581, since = 8000)]
#[cached]
fn cuDeviceGetP2PAttribute(
    #[out] value: *mut c_int,
    attrib: CUdevice_P2PAttribute,
    srcDevice: CUdevice,
    dstDevice: CUdevice,
);

/// Enables access to another context's memory.
#[op(0x0582, since = 4000)]
#[sync]
fn cuCtxEnablePeerAccess(peerContext: CUcontext, Flags: c_uint);

/// Ends access to another context's memory.
#[op(0x0583, since = 4000)]
#[sync]
fn cuCtxDisablePeerAccess(peerContext: CUcontext);

/// Makes remote writes visible.
#[op(0x0584, since = 11030)]
#[sync]
fn cuFlushGPUDirectRDMAWrites(
    target: CUflushGPUDirectRDMAWritesTarget,
    scope: CUflushGPUDirectRDMAWritesScope,
);

/// Which atomic operations between device and host are native.
#[op(0x0850, since = 13000)]
#[cached]
fn cuDeviceGetHostAtomicCapabilities(
    #[data_out(count * 4)] capabilities: *mut c_uint,
    #[data_in(count * 4)] operations: *const CUatomicOperation,
    count: c_uint,
    dev: CUdevice,
);

/// Which atomic operations between two devices are native.
#[op(0x0851, since = 13000)]
#[cached]
fn cuDeviceGetP2PAtomicCapabilities(
    #[data_out(count * 4)] capabilities: *mut c_uint,
    #[data_in(count * 4)] operations: *const CUatomicOperation,
    count: c_uint,
    srcDevice: CUdevice,
    dstDevice: CUdevice,
);
