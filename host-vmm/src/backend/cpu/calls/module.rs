//! Calls about modules, libraries, kernels and occupancy.
#![allow(non_snake_case)] // The driver's names.

use core::ffi::CStr;

use protocol::status::{CuResult, Status};

use super::{put, put_global};
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::occupancy;
use crate::generated::driver::{FunctionCalls, LibraryCalls, ModuleCalls, OccupancyCalls};
use crate::session::Call;

impl ModuleCalls for CpuBackend {
    fn cuModuleUnload(&self, call: &mut Call<'_>, hmod: u64) -> CuResult {
        self.module_unload(call, hmod)
    }

    fn cuModuleGetFunction(
        &self,
        call: &mut Call<'_>,
        hfunc: Option<&mut u64>,
        hmod: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        let hfunc = hfunc.ok_or(Status::INVALID_VALUE)?;
        *hfunc = self.module_function(call, hmod, name)?;
        Ok(())
    }

    fn cuModuleGetGlobal_v2(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        bytes: Option<&mut u64>,
        hmod: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        put_global(self.module_global(call, hmod, name)?, dptr, bytes)
    }

    fn cuModuleGetFunctionCount(&self, _: &mut Call<'_>, count: Option<&mut u32>, mod_: u64) -> CuResult {
        put(count, self.module_functions(mod_)?.len() as u32)
    }

    fn cuModuleEnumerateFunctions(
        &self,
        _: &mut Call<'_>,
        functions: Option<&mut [u8]>,
        numFunctions: u32,
        mod_: u64,
    ) -> CuResult {
        self.functions_out(functions, numFunctions, &self.module_functions(mod_)?)
    }
}

impl LibraryCalls for CpuBackend {
    fn cuLibraryUnload(&self, _: &mut Call<'_>, library: u64) -> CuResult {
        self.library_unload(library)
    }

    fn cuLibraryGetKernel(
        &self,
        _: &mut Call<'_>,
        pKernel: Option<&mut u64>,
        library: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        let kernel = pKernel.ok_or(Status::INVALID_VALUE)?;
        *kernel = self.library_kernel(library, name)?;
        Ok(())
    }

    fn cuLibraryGetModule(&self, call: &mut Call<'_>, pMod: Option<&mut u64>, library: u64) -> CuResult {
        let module = pMod.ok_or(Status::INVALID_VALUE)?;
        *module = self.library_get_module(call, library)?;
        Ok(())
    }

    fn cuLibraryGetGlobal(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        bytes: Option<&mut u64>,
        library: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        put_global(self.library_global(call, library, name, false)?, dptr, bytes)
    }

    fn cuLibraryGetManaged(
        &self,
        call: &mut Call<'_>,
        dptr: Option<&mut u64>,
        bytes: Option<&mut u64>,
        library: u64,
        name: Option<&CStr>,
    ) -> CuResult {
        put_global(self.library_global(call, library, name, true)?, dptr, bytes)
    }

    fn cuLibraryGetKernelCount(&self, _: &mut Call<'_>, count: Option<&mut u32>, lib: u64) -> CuResult {
        put(count, self.library_kernels(lib)?.len() as u32)
    }

    fn cuLibraryEnumerateKernels(
        &self,
        _: &mut Call<'_>,
        kernels: Option<&mut [u8]>,
        numKernels: u32,
        lib: u64,
    ) -> CuResult {
        self.functions_out(kernels, numKernels, &self.library_kernels(lib)?)
    }

    fn cuKernelGetFunction(&self, call: &mut Call<'_>, pFunc: Option<&mut u64>, kernel: u64) -> CuResult {
        let function = pFunc.ok_or(Status::INVALID_VALUE)?;
        *function = self.kernel_get_function(call, kernel)?;
        Ok(())
    }
}

impl FunctionCalls for CpuBackend {
    fn cuFuncSetAttribute(&self, call: &mut Call<'_>, hfunc: u64, attrib: u32, value: i32) -> CuResult {
        self.function_set(call, hfunc, attrib, value)
    }

    fn cuFuncSetCacheConfig(&self, call: &mut Call<'_>, hfunc: u64, config: u32) -> CuResult {
        let live = self.live(call)?;
        self.function(&live, hfunc)?;
        // None, shared, L1, equal.
        if config > 3 { Err(Status::INVALID_VALUE) } else { Ok(()) }
    }
}

impl OccupancyCalls for CpuBackend {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        &self,
        call: &mut Call<'_>,
        numBlocks: Option<&mut i32>,
        func: u64,
        blockSize: i32,
        dynamicSMemSize: u64,
    ) -> CuResult {
        let live = self.live(call)?;
        let (_, function) = self.function(&live, func)?;
        let size = u32::try_from(blockSize).ok().filter(|size| *size > 0).ok_or(Status::INVALID_VALUE)?;
        let shape = self.device_of(&live).shape();
        let blocks = occupancy::blocks_per_multiprocessor(&shape, &function.need()?, size, dynamicSMemSize);
        put(numBlocks, blocks as i32)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        &self,
        call: &mut Call<'_>,
        numBlocks: Option<&mut i32>,
        func: u64,
        blockSize: i32,
        dynamicSMemSize: u64,
        flags: u32,
    ) -> CuResult {
        // CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE
        if flags & !1 != 0 {
            return Err(Status::INVALID_VALUE);
        }
        self.cuOccupancyMaxActiveBlocksPerMultiprocessor(call, numBlocks, func, blockSize, dynamicSMemSize)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        &self,
        call: &mut Call<'_>,
        dynamicSmemSize: Option<&mut u64>,
        func: u64,
        numBlocks: i32,
        blockSize: i32,
    ) -> CuResult {
        let live = self.live(call)?;
        let (_, function) = self.function(&live, func)?;
        if numBlocks <= 0 || blockSize <= 0 {
            return Err(Status::INVALID_VALUE);
        }
        let shape = self.device_of(&live).shape();
        put(dynamicSmemSize, occupancy::available_shared(&shape, &function.need()?, numBlocks as u32))
    }
}
