//! Calls that this backend leaves to a GPU: all of them are CUDA_ERROR_NOT_SUPPORTED, by the trait's defaults.

use crate::backend::cpu::CpuBackend;
use crate::generated::driver::{
    ArrayCalls, IpcCalls, LaunchCalls, LogsCalls, MemcpyBoxCalls, MemoryBatchCalls, PoolSharingCalls,
    ResourceCalls, StreamMemoryOpCalls, TensorMapCalls, TexrefCalls, TextureCalls, VmmCalls,
};

impl ArrayCalls for CpuBackend {}
impl IpcCalls for CpuBackend {}
impl LaunchCalls for CpuBackend {}
impl LogsCalls for CpuBackend {}
impl MemcpyBoxCalls for CpuBackend {}
impl MemoryBatchCalls for CpuBackend {}
impl PoolSharingCalls for CpuBackend {}
impl ResourceCalls for CpuBackend {}
impl StreamMemoryOpCalls for CpuBackend {}
impl TensorMapCalls for CpuBackend {}
impl TexrefCalls for CpuBackend {}
impl TextureCalls for CpuBackend {}
impl VmmCalls for CpuBackend {}
