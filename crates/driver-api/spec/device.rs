//! Devices. What a device says about itself does not change, so almost all of it is asked once.

/// Number of devices.
#[op(0x0140, since = 2000)]
#[cached]
fn cuDeviceGetCount(#[out] count: *mut c_int);

/// Handle of the device with an ordinal.
#[op(0x0141, since = 2000)]
#[cached]
fn cuDeviceGet(#[out] device: *mut CUdevice, ordinal: c_int);

/// Name of a device, NUL-terminated, cut to `len` bytes.
#[op(0x0142, since = 2000)]
#[cached]
fn cuDeviceGetName(#[data_out(len)] name: *mut c_char, len: c_int, dev: CUdevice);

/// UUID of a device.
#[op(0x0143, since = 9020)]
#[cached]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuDeviceGetUuid(#[out] uuid: *mut CUuuid, dev: CUdevice);

/// UUID of a device, or of its MIG instance.
#[op(0x0144, since = 11040)]
#[cached]
fn cuDeviceGetUuid_v2(#[out] uuid: *mut CUuuid, dev: CUdevice);

/// Bytes of memory on a device.
#[op(0x0145, since = 3020)]
#[cached]
fn cuDeviceTotalMem_v2(#[out] bytes: *mut usize, dev: CUdevice);

/// One attribute of a device. Unknown attributes are 0 with success: runtimes ask for newer ones and give up
/// on an error.
#[op(0x0146, since = 2000)]
#[cached]
#[custom]
#[host_custom]
fn cuDeviceGetAttribute(#[out] pi: *mut c_int, attrib: CUdevice_attribute, dev: CUdevice);

/// Deprecated set of properties.
#[op(0x0147, since = 2000)]
#[cached]
fn cuDeviceGetProperties(#[out] prop: *mut CUdevprop, dev: CUdevice);

/// Compute capability of a device.
#[op(0x0148, since = 2000)]
#[cached]
fn cuDeviceComputeCapability(#[out] major: *mut c_int, #[out] minor: *mut c_int, dev: CUdevice);

/// Device with a PCI bus id.
#[op(0x0149, since = 4010)]
#[cached]
fn cuDeviceGetByPCIBusId(#[out] dev: *mut CUdevice, #[cstr] pciBusId: *const c_char);

/// PCI bus id of a device, NUL-terminated, cut to `len` bytes.
#[op(0x014a, since = 4010)]
#[cached]
fn cuDeviceGetPCIBusId(#[data_out(len)] pciBusId: *mut c_char, len: c_int, dev: CUdevice);

/// Largest width of a linear 1-D texture.
#[op(0x014b, since = 11010)]
#[cached]
fn cuDeviceGetTexture1DLinearMaxWidth(
    #[out] maxWidthInElements: *mut usize,
    format: CUarray_format,
    numChannels: c_uint,
    dev: CUdevice,
);

/// Whether a type of execution affinity is supported.
#[op(0x014c, since = 11040)]
#[cached]
fn cuDeviceGetExecAffinitySupport(#[out] pi: *mut c_int, type_: CUexecAffinityType, dev: CUdevice);

/// Locally unique id and node mask of a device: what Windows knows devices by, and other systems do not have.
#[op(since = 10000)]
#[local]
fn cuDeviceGetLuid(luid: *mut c_char, deviceNodeMask: *mut c_uint, dev: CUdevice);
