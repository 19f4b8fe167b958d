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
