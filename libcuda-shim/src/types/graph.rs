//! Types of graphs: parameters of nodes, of instantiation, of updates.

use core::ffi::{c_int, c_longlong, c_uint, c_void};

use super::*;

/// Number of a condition, as kernels know it.
pub type CUgraphConditionalHandle = cuuint64_t;
/// Attributes of kernel nodes are those of launches.
pub type CUkernelNodeAttrID = CUlaunchAttributeID;
pub type CUkernelNodeAttrValue = CUlaunchAttributeValue;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_KERNEL_NODE_PARAMS_v1 {
    pub func: CUfunction,
    pub gridDimX: c_uint,
    pub gridDimY: c_uint,
    pub gridDimZ: c_uint,
    pub blockDimX: c_uint,
    pub blockDimY: c_uint,
    pub blockDimZ: c_uint,
    pub sharedMemBytes: c_uint,
    pub kernelParams: *mut *mut c_void,
    pub extra: *mut *mut c_void,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_KERNEL_NODE_PARAMS {
    pub v1: CUDA_KERNEL_NODE_PARAMS_v1,
    /// Looked at if `func` is NULL.
    pub kern: CUkernel,
    pub ctx: CUcontext,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_MEMSET_NODE_PARAMS {
    pub dst: CUdeviceptr,
    pub pitch: usize,
    pub value: c_uint,
    pub elementSize: c_uint,
    pub width: usize,
    pub height: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_HOST_NODE_PARAMS {
    pub function: CUhostFn,
    pub userData: *mut c_void,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_MEM_ALLOC_NODE_PARAMS {
    pub poolProps: CUmemPoolProps,
    pub accessDescs: *const CUmemAccessDesc,
    pub accessDescCount: usize,
    pub bytesize: usize,
    pub dptr: CUdeviceptr,
}

/// A union; only the host looks inside.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct CUstreamBatchMemOpParams {
    pub bytes: [u8; 48],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_BATCH_MEM_OP_NODE_PARAMS {
    pub ctx: CUcontext,
    pub count: c_uint,
    pub paramArray: *mut CUstreamBatchMemOpParams,
    pub flags: c_uint,
}

/// `CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS` and `CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS` as bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct SemaphoreParams {
    pub bytes: [u8; 144],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_EXT_SEM_SIGNAL_NODE_PARAMS {
    /// `CUexternalSemaphore`s.
    pub extSemArray: *mut *mut c_void,
    pub paramsArray: *const SemaphoreParams,
    pub numExtSems: c_uint,
}

pub type CUDA_EXT_SEM_WAIT_NODE_PARAMS = CUDA_EXT_SEM_SIGNAL_NODE_PARAMS;

/// The union is read at the offsets of `protocol::graph::at`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUgraphNodeParams {
    pub type_: CUgraphNodeType,
    pub reserved0: [c_int; 3],
    pub union: [c_longlong; 29],
    pub reserved2: c_longlong,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUDA_GRAPH_INSTANTIATE_PARAMS {
    pub flags: cuuint64_t,
    pub hUploadStream: CUstream,
    pub hErrNode_out: CUgraphNode,
    pub result_out: CUgraphInstantiateResult,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CUgraphExecUpdateResultInfo {
    pub result: CUgraphExecUpdateResult,
    pub errorNode: CUgraphNode,
    pub errorFromNode: CUgraphNode,
}
