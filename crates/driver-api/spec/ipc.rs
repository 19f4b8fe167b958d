//! Memory and events of other programs, by handles that the driver makes.

/// A handle of device memory for other programs.
#[op(0x07b0, since = 4010)]
#[sync]
#[custom]
fn cuIpcGetMemHandle(#[out] pHandle: *mut CUipcMemHandle, dptr: CUdeviceptr);

/// First version of cuIpcOpenMemHandle_v2.
#[op(since = 4010)]
#[like(cuIpcOpenMemHandle_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuIpcOpenMemHandle(pdptr: *mut CUdeviceptr, handle: CUipcMemHandle, Flags: c_uint);

/// Maps device memory of another program.
#[op(0x07b1, since = 11000)]
#[sync]
#[host_custom]
fn cuIpcOpenMemHandle_v2(#[out] pdptr: *mut CUdeviceptr, handle: CUipcMemHandle, Flags: c_uint);

/// Ends such a mapping.
#[op(0x07b2, since = 4010)]
#[sync]
#[host_custom]
fn cuIpcCloseMemHandle(dptr: CUdeviceptr);

/// A handle of an event for other programs.
#[op(0x07b3, since = 4010)]
#[sync]
fn cuIpcGetEventHandle(#[out] pHandle: *mut CUipcEventHandle, event: CUevent);

/// An event of another program.
#[op(0x07b4, since = 4010)]
#[sync]
fn cuIpcOpenEventHandle(#[out] phEvent: *mut CUevent, handle: CUipcEventHandle);
