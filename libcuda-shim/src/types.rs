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
    CUcontext = CUctx_st;
    CUevent = CUevent_st;
    CUfunction = CUfunc_st;
    CUgraph = CUgraph_st;
    CUgraphExec = CUgraphExec_st;
    CUgraphNode = CUgraphNode_st;
    CUgreenCtx = CUgreenCtx_st;
    CUkernel = CUkern_st;
    CUlibrary = CUlib_st;
    CUlinkState = CUlinkState_st;
    CUmemoryPool = CUmemPoolHandle_st;
    CUmodule = CUmod_st;
    CUstream = CUstream_st;
    CUuserObject = CUuserObject_st;
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
    CUarray_format
    CUdevice_P2PAttribute
    CUdevice_attribute
    CUdriverProcAddressQueryResult
    CUexecAffinityType
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
}

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
