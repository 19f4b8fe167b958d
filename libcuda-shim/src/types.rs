//! The driver's C types, under the driver's names.
//!
//! Enumerations are plain integers: any value may come from the program. The sizes are compared with NVIDIA's header in
//! `generated/abi_check.rs`.
#![allow(non_camel_case_types, non_snake_case)]

use core::ffi::{c_char, c_int, c_uchar, c_uint, c_void};

mod graph;

pub use graph::*;

/// Address in device memory, or of anything that the device can reach.
pub type CUdeviceptr = u64;
/// Ordinal of a device.
pub type CUdevice = c_int;
pub type cuuint64_t = u64;
pub type cuuint32_t = u32;
/// Texture and surface objects are the driver's own numbers: kernels use them.
pub type CUtexObject = u64;
/// As [`CUtexObject`].
pub type CUsurfObject = u64;
/// Memory without an address; an id.
pub type CUmemGenericAllocationHandle = u64;
/// A place in the driver's log.
pub type CUlogIterator = c_uint;

macro_rules! handles {
    ($($name:ident = $object:ident;)*) => { $(
        #[doc = concat!("The object behind a `", stringify!($name), "`; never looked into.")]
        #[repr(C)]
        pub struct $object {
            opaque: [u8; 0],
        }
        #[doc = concat!("`", stringify!($name), "`: an id in the clothes of a pointer.")]
        pub type $name = *mut $object;
    )* };
}

handles! {
    CUarray = CUarray_st;
    CUasyncCallbackHandle = CUasyncCallbackEntry_st;
    CUcontext = CUctx_st;
    CUdevResourceDesc = CUdevResourceDesc_st;
    CUevent = CUevent_st;
    CUexternalMemory = CUextMemory_st;
    CUexternalSemaphore = CUextSemaphore_st;
    CUfunction = CUfunc_st;
    CUgraph = CUgraph_st;
    CUgraphExec = CUgraphExec_st;
    CUgraphNode = CUgraphNode_st;
    CUgreenCtx = CUgreenCtx_st;
    CUkernel = CUkern_st;
    CUlibrary = CUlib_st;
    CUlinkState = CUlinkState_st;
    CUlogsCallbackHandle = CUlogsCallbackEntry_st;
    CUmemoryPool = CUmemPoolHandle_st;
    CUmipmappedArray = CUmipmappedArray_st;
    CUmodule = CUmod_st;
    CUstream = CUstream_st;
    CUuserObject = CUuserObject_st;
    CUsurfref = CUsurfref_st;
    CUtexref = CUtexref_st;
}

/// The legacy default stream.
pub const CU_STREAM_LEGACY: CUstream = core::ptr::without_provenance_mut(1);
/// The calling thread's default stream.
pub const CU_STREAM_PER_THREAD: CUstream = core::ptr::without_provenance_mut(2);

macro_rules! enumerations {
    ($($name:ident)*) => { $(
        #[doc = concat!("`", stringify!($name), "`: any value may come.")]
        pub type $name = c_uint;
    )* };
}

enumerations! {
    CUaddress_mode
    CUarray_format
    CUatomicOperation
    CUdevResourceType
    CUdevice_P2PAttribute
    CUdevice_attribute
    CUdriverProcAddressQueryResult
    CUexecAffinityType
    CUfilter_mode
    CUflushGPUDirectRDMAWritesScope
    CUflushGPUDirectRDMAWritesTarget
    CUfunc_cache
    CUfunctionLoadingState
    CUfunction_attribute
    CUgraphExecUpdateResult
    CUgraphInstantiateResult
    CUgraphMem_attribute
    CUgraphNodeType
    CUjitInputType
    CUjit_option
    CUlaunchAttributeID
    CUlibraryOption
    CUlimit
    CUmemAccess_flags
    CUmemAllocationGranularity_flags
    CUmemAllocationHandleType
    CUmemAllocationType
    CUmemLocationType
    CUmemPool_attribute
    CUmem_advise
    CUmem_range_attribute
    CUmemcpySrcAccessOrder
    CUmemorytype
    CUmoduleLoadingMode
    CUoutput_mode
    CUpointer_attribute
    CUresult
    CUsharedconfig
    CUstreamAttrID
    CUstreamCaptureMode
    CUstreamCaptureStatus
    CUtensorMapDataType
    CUtensorMapFloatOOBfill
    CUtensorMapIm2ColWideMode
    CUtensorMapInterleave
    CUtensorMapL2promotion
    CUtensorMapSwizzle
}

/// Function of the program that is told of changes of a device; never called.
pub type CUasyncCallback =
    Option<unsafe extern "C" fn(info: *mut c_void, userData: *mut c_void, callback: CUasyncCallbackHandle)>;
/// Function of the program that gets log messages; never called.
pub type CUlogsCallback =
    Option<unsafe extern "C" fn(data: *mut c_void, logLevel: c_uint, message: *mut c_char, length: usize)>;
/// Function of the program that runs in stream order.
pub type CUhostFn = Option<unsafe extern "C" fn(userData: *mut c_void)>;
/// Dynamic shared memory (bytes) that a block of this size needs.
pub type CUoccupancyB2DSize = Option<unsafe extern "C" fn(blockSize: c_int) -> usize>;
/// Function of the program that runs in stream order and learns of errors.
pub type CUstreamCallback =
    Option<unsafe extern "C" fn(hStream: CUstream, status: CUresult, userData: *mut c_void)>;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUuuid {
    pub bytes: [c_char; 16],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUmemLocation {
    pub type_: CUmemLocationType,
    pub id: c_int,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUmemAccessDesc {
    pub location: CUmemLocation,
    pub flags: CUmemAccess_flags,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUmemPoolProps {
    pub allocType: CUmemAllocationType,
    pub handleTypes: CUmemAllocationHandleType,
    pub location: CUmemLocation,
    pub win32SecurityAttributes: *mut c_void,
    /// In newer versions `maxSize` and `usage`, then reserved.
    pub reserved: [c_uchar; 64],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUdevprop {
    pub maxThreadsPerBlock: c_int,
    pub maxThreadsDim: [c_int; 3],
    pub maxGridSize: [c_int; 3],
    pub sharedMemPerBlock: c_int,
    pub totalConstantMemory: c_int,
    pub SIMDWidth: c_int,
    pub memPitch: c_int,
    pub regsPerBlock: c_int,
    pub clockRate: c_int,
    pub textureAlign: c_int,
}

/// A union; its members are read at their offsets.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct CUlaunchAttributeValue {
    pub bytes: [u8; 64],
}

pub type CUstreamAttrValue = CUlaunchAttributeValue;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUlaunchAttribute {
    pub id: CUlaunchAttributeID,
    pub pad: [c_char; 4],
    pub value: CUlaunchAttributeValue,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUlaunchConfig {
    pub gridDimX: c_uint,
    pub gridDimY: c_uint,
    pub gridDimZ: c_uint,
    pub blockDimX: c_uint,
    pub blockDimY: c_uint,
    pub blockDimZ: c_uint,
    pub sharedMemBytes: c_uint,
    pub hStream: CUstream,
    pub attrs: *mut CUlaunchAttribute,
    pub numAttrs: c_uint,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUexecAffinityParam {
    pub type_: CUexecAffinityType,
    /// A union with one member.
    pub smCount: c_uint,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUctxCreateParams {
    pub execAffinityParams: *mut CUexecAffinityParam,
    pub numExecAffinityParams: c_int,
    /// `CUctxCigParam`
    pub cigParams: *mut c_void,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUgraphEdgeData {
    pub from_port: c_uchar,
    pub to_port: c_uchar,
    pub type_: c_uchar,
    pub reserved: [c_uchar; 5],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUmemcpyAttributes {
    pub srcAccessOrder: CUmemcpySrcAccessOrder,
    pub srcLocHint: CUmemLocation,
    pub dstLocHint: CUmemLocation,
    pub flags: c_uint,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_MEMCPY2D {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcMemoryType: CUmemorytype,
    pub srcHost: *const c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: CUarray,
    pub srcPitch: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstMemoryType: CUmemorytype,
    pub dstHost: *mut c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: CUarray,
    pub dstPitch: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_MEMCPY3D {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcZ: usize,
    pub srcLOD: usize,
    pub srcMemoryType: CUmemorytype,
    pub srcHost: *const c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: CUarray,
    pub reserved0: *mut c_void,
    pub srcPitch: usize,
    pub srcHeight: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstZ: usize,
    pub dstLOD: usize,
    pub dstMemoryType: CUmemorytype,
    pub dstHost: *mut c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: CUarray,
    pub reserved1: *mut c_void,
    pub dstPitch: usize,
    pub dstHeight: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
    pub Depth: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_MEMCPY3D_PEER {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcZ: usize,
    pub srcLOD: usize,
    pub srcMemoryType: CUmemorytype,
    pub srcHost: *const c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: CUarray,
    pub srcContext: CUcontext,
    pub srcPitch: usize,
    pub srcHeight: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstZ: usize,
    pub dstLOD: usize,
    pub dstMemoryType: CUmemorytype,
    pub dstHost: *mut c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: CUarray,
    pub dstContext: CUcontext,
    pub dstPitch: usize,
    pub dstHeight: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
    pub Depth: usize,
}

macro_rules! opaque {
    ($($name:ident: $align:literal, $len:literal;)*) => { $(
        #[doc = concat!("`", stringify!($name), "`: ", stringify!($len), " bytes that only the driver looks into.")]
        #[derive(Clone, Copy, Debug)]
        #[repr(C, align($align))]
        pub struct $name {
            pub bytes: [u8; $len],
        }
    )* };
}

opaque! {
    CUDA_ARRAY3D_DESCRIPTOR: 8, 40;
    CUDA_ARRAY_DESCRIPTOR: 8, 24;
    CUDA_ARRAY_MEMORY_REQUIREMENTS: 8, 32;
    CUDA_ARRAY_SPARSE_PROPERTIES: 8, 48;
    CUDA_RESOURCE_DESC: 8, 144;
    CUDA_RESOURCE_VIEW_DESC: 8, 112;
    CUDA_TEXTURE_DESC: 4, 104;
    CUarrayMapInfo: 8, 96;
    CUdevResource: 4, 144;
    CUipcEventHandle: 1, 64;
    CUipcMemHandle: 1, 64;
    CUmemDecompressParams: 8, 64;
    CUmemPoolPtrExportData: 1, 64;
    CUstreamBatchMemOpParams: 8, 48;
    CUtensorMap: 128, 128;
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUmemAllocationProp {
    pub type_: CUmemAllocationType,
    pub requestedHandleTypes: CUmemAllocationHandleType,
    pub location: CUmemLocation,
    pub win32HandleMetaData: *mut c_void,
    /// Compression, RDMA, usage.
    pub allocFlags: [u8; 8],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_LAUNCH_PARAMS {
    pub function: CUfunction,
    pub gridDimX: c_uint,
    pub gridDimY: c_uint,
    pub gridDimZ: c_uint,
    pub blockDimX: c_uint,
    pub blockDimY: c_uint,
    pub blockDimZ: c_uint,
    pub sharedMemBytes: c_uint,
    pub hStream: CUstream,
    pub kernelParams: *mut *mut c_void,
}

/// `CUmemcpy3DOperand`: `type_` 1 a pointer (address, row length, layer height, location), 2 an array (array, x, y, z).
/// Lengths and offsets are in elements.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUmemcpy3DOperand {
    pub type_: c_uint,
    pub op: [u64; 4],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_MEMCPY3D_BATCH_OP {
    pub src: CUmemcpy3DOperand,
    pub dst: CUmemcpy3DOperand,
    /// Width, height, depth in elements.
    pub extent: [usize; 3],
    pub srcAccessOrder: CUmemcpySrcAccessOrder,
    pub flags: c_uint,
}
