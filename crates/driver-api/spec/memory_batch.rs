//! Operations on several ranges of memory at once.

/// Moves ranges of managed memory to locations: a hint.
#[op(0x07e0, since = 13000, ptsz = 13000)]
#[sync]
#[host_custom]
fn cuMemPrefetchBatchAsync(
    #[data_in(count * 8)] dptrs: *mut CUdeviceptr,
    #[data_in(count * 8)] sizes: *mut usize,
    count: usize,
    #[data_in(numPrefetchLocs * 8)] prefetchLocs: *mut CUmemLocation,
    #[data_in(numPrefetchLocs * 8)] prefetchLocIdxs: *mut usize,
    numPrefetchLocs: usize,
    flags: c_ulonglong,
    #[stream] hStream: CUstream,
);

/// Lets ranges of managed memory lose their contents.
#[op(0x07e1, since = 13000, ptsz = 13000)]
#[sync]
#[host_custom]
fn cuMemDiscardBatchAsync(
    #[data_in(count * 8)] dptrs: *mut CUdeviceptr,
    #[data_in(count * 8)] sizes: *mut usize,
    count: usize,
    flags: c_ulonglong,
    #[stream] hStream: CUstream,
);

/// Lets ranges of managed memory lose their contents, and moves them to locations.
#[op(0x07e2, since = 13000, ptsz = 13000)]
#[sync]
#[host_custom]
fn cuMemDiscardAndPrefetchBatchAsync(
    #[data_in(count * 8)] dptrs: *mut CUdeviceptr,
    #[data_in(count * 8)] sizes: *mut usize,
    count: usize,
    #[data_in(numPrefetchLocs * 8)] prefetchLocs: *mut CUmemLocation,
    #[data_in(numPrefetchLocs * 8)] prefetchLocIdxs: *mut usize,
    numPrefetchLocs: usize,
    flags: c_ulonglong,
    #[stream] hStream: CUstream,
);

/// Decompresses several buffers.
#[op(0x07e3, since = 12060, ptsz = 12060)]
#[sync]
fn cuMemBatchDecompressAsync(
    #[data_in(count * 64)] paramsArray: *mut CUmemDecompressParams,
    count: usize,
    flags: c_uint,
    #[out] errorIndex: *mut usize,
    #[stream] stream: CUstream,
);
