//! Filling of device memory. The forms without a stream run on the default stream; the caller learns of a
//! bad range at once.

/// Fills with bytes.
#[op(0x03a0, since = 3020, ptds = 7000)]
#[sync]
fn cuMemsetD8_v2(dstDevice: CUdeviceptr, uc: c_uchar, N: usize);

/// Fills with 16-bit values.
#[op(0x03a1, since = 3020, ptds = 7000)]
#[sync]
fn cuMemsetD16_v2(dstDevice: CUdeviceptr, us: c_ushort, N: usize);

/// Fills with 32-bit values.
#[op(0x03a2, since = 3020, ptds = 7000)]
#[sync]
fn cuMemsetD32_v2(dstDevice: CUdeviceptr, ui: c_uint, N: usize);

/// Fills rows with bytes.
#[op(0x03a3, since = 3020, ptds = 7000)]
#[sync]
fn cuMemsetD2D8_v2(dstDevice: CUdeviceptr, dstPitch: usize, uc: c_uchar, Width: usize, Height: usize);

/// Fills rows with 16-bit values.
#[op(0x03a4, since = 3020, ptds = 7000)]
#[sync]
fn cuMemsetD2D16_v2(dstDevice: CUdeviceptr, dstPitch: usize, us: c_ushort, Width: usize, Height: usize);

/// Fills rows with 32-bit values.
#[op(0x03a5, since = 3020, ptds = 7000)]
#[sync]
fn cuMemsetD2D32_v2(dstDevice: CUdeviceptr, dstPitch: usize, ui: c_uint, Width: usize, Height: usize);

/// Fills with bytes, in stream order.
#[op(0x03a6, since = 3020, ptsz = 7000)]
#[posted]
fn cuMemsetD8Async(dstDevice: CUdeviceptr, uc: c_uchar, N: usize, #[stream] hStream: CUstream);

/// Fills with 16-bit values, in stream order.
#[op(0x03a7, since = 3020, ptsz = 7000)]
#[posted]
fn cuMemsetD16Async(dstDevice: CUdeviceptr, us: c_ushort, N: usize, #[stream] hStream: CUstream);

/// Fills with 32-bit values, in stream order.
#[op(0x03a8, since = 3020, ptsz = 7000)]
#[posted]
fn cuMemsetD32Async(dstDevice: CUdeviceptr, ui: c_uint, N: usize, #[stream] hStream: CUstream);

/// Fills rows with bytes, in stream order.
#[op(0x03a9, since = 3020, ptsz = 7000)]
#[posted]
fn cuMemsetD2D8Async(
    dstDevice: CUdeviceptr,
    dstPitch: usize,
    uc: c_uchar,
    Width: usize,
    Height: usize,
    #[stream] hStream: CUstream,
);

/// Fills rows with 16-bit values, in stream order.
#[op(0x03aa, since = 3020, ptsz = 7000)]
#[posted]
fn cuMemsetD2D16Async(
    dstDevice: CUdeviceptr,
    dstPitch: usize,
    us: c_ushort,
    Width: usize,
    Height: usize,
    #[stream] hStream: CUstream,
);

/// Fills rows with 32-bit values, in stream order.
#[op(0x03ab, since = 3020, ptsz = 7000)]
#[posted]
fn cuMemsetD2D32Async(
    dstDevice: CUdeviceptr,
    dstPitch: usize,
    ui: c_uint,
    Width: usize,
    Height: usize,
    #[stream] hStream: CUstream,
);
