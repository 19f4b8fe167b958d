//! Device and managed memory.

/// Allocates device memory.
#[op(0x0310, since = 3020)]
#[sync]
#[custom]
#[host_custom]
fn cuMemAlloc_v2(#[out] dptr: *mut CUdeviceptr, bytesize: usize);

/// Allocates device memory for rows, with a pitch that the device likes.
#[op(0x0311, since = 3020)]
#[sync]
#[custom]
#[host_custom]
fn cuMemAllocPitch_v2(
    #[out] dptr: *mut CUdeviceptr,
    #[out] pPitch: *mut usize,
    WidthInBytes: usize,
    Height: usize,
    ElementSizeBytes: c_uint,
);

/// Frees device memory, after the work that uses it.
#[op(0x0312, since = 3020)]
#[sync]
#[custom]
#[host_custom]
fn cuMemFree_v2(dptr: CUdeviceptr);

/// Free and total bytes of the current context's device.
#[op(0x0313, since = 3020)]
#[sync]
#[host_custom]
fn cuMemGetInfo_v2(#[out] free: *mut usize, #[out] total: *mut usize);

/// Start and size of the allocation that an address lies in.
#[op(0x0314, since = 3020)]
#[sync]
#[custom]
#[host_custom]
fn cuMemGetAddressRange_v2(#[out] pbase: *mut CUdeviceptr, #[out] psize: *mut usize, dptr: CUdeviceptr);

/// Allocates memory that program and device both see.
#[op(0x0315, since = 6000)]
#[sync]
#[custom]
#[host_custom]
fn cuMemAllocManaged(#[out] dptr: *mut CUdeviceptr, bytesize: usize, flags: c_uint);

/// Moves managed memory to a device: a hint.
#[op(0x0316, since = 8000, ptsz = 8000)]
#[sync]
#[unchecked = "an older ABI name, not in the header any more"]
#[host_custom]
fn cuMemPrefetchAsync(devPtr: CUdeviceptr, count: usize, dstDevice: CUdevice, #[stream] hStream: CUstream);

/// Moves managed memory to a location: a hint.
#[op(0x0317, since = 12020, ptsz = 12020)]
#[sync]
#[host_custom]
fn cuMemPrefetchAsync_v2(
    devPtr: CUdeviceptr,
    count: usize,
    location: CUmemLocation,
    flags: c_uint,
    #[stream] hStream: CUstream,
);

/// Advises on the use of managed memory.
#[op(0x0318, since = 8000)]
#[sync]
#[unchecked = "an older ABI name, not in the header any more"]
#[host_custom]
fn cuMemAdvise(devPtr: CUdeviceptr, count: usize, advice: CUmem_advise, device: CUdevice);

/// Advises on the use of managed memory, by location.
#[op(0x0319, since = 12020)]
#[sync]
#[host_custom]
fn cuMemAdvise_v2(devPtr: CUdeviceptr, count: usize, advice: CUmem_advise, location: CUmemLocation);

/// An attribute of a range of managed memory.
#[op(0x031a, since = 8000)]
#[sync]
#[host_custom]
fn cuMemRangeGetAttribute(
    #[data_out(dataSize)] data: *mut c_void,
    dataSize: usize,
    attribute: CUmem_range_attribute,
    devPtr: CUdeviceptr,
    count: usize,
);

/// Several attributes of a range of managed memory.
#[op(since = 8000)]
#[via(cuMemRangeGetAttribute)]
fn cuMemRangeGetAttributes(
    data: *mut *mut c_void,
    dataSizes: *mut usize,
    attributes: *mut CUmem_range_attribute,
    numAttributes: usize,
    devPtr: CUdeviceptr,
    count: usize,
);

/// Allocates from the device's current pool, in stream order.
#[op(0x031b, since = 11020, ptsz = 11020)]
#[sync]
#[custom]
#[host_custom]
fn cuMemAllocAsync(#[out] dptr: *mut CUdeviceptr, bytesize: usize, #[stream] hStream: CUstream);

/// Frees in stream order.
#[op(0x031c, since = 11020, ptsz = 11020)]
#[posted]
#[custom]
#[host_custom]
fn cuMemFreeAsync(dptr: CUdeviceptr, #[stream] hStream: CUstream);
