//! Launches.
#![allow(unsafe_code)] // Calls the driver.

use core::ffi::{CStr, c_void};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use protocol::function::{FunctionInfo, Param};
use protocol::status::{CuResult, Status};

use super::CudaBackend;
use super::buffer::{Buffer, half, set_word, word};
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// `launch` flag.
const COOPERATIVE: u32 = 1;

/// Bytes of a `CUlaunchAttribute`: id, padding, value.
const ATTRIBUTE_LEN: usize = 72;
/// More than there are ids.
const MAX_ATTRIBUTES: usize = 64;
const ATTRIBUTE_COOPERATIVE: u32 = 2;
const ATTRIBUTE_CLUSTER_DIMENSION: u32 = 4;
const ATTRIBUTE_PROGRAMMATIC_EVENT: u32 = 7;
const ATTRIBUTE_LAUNCH_COMPLETION_EVENT: u32 = 12;
const ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE: u32 = 13;

/// Grid, block and dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
}

/// A launch without its attributes.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    /// Id of a function or kernel.
    pub function: u64,
    pub shape: Shape,
    /// Id of the stream.
    pub stream: u64,
    /// The parameter buffer.
    pub params: Option<&'a [u8]>,
}

/// `CUlaunchConfig`.
#[repr(C)]
struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: u64,
    attributes: *mut c_void,
    attribute_count: u32,
}

/// Parameter pointers that fit without an allocation.
const FEW_PARAMS: usize = 32;

/// Kernels remembered at a time; one that has been forgotten is looked up again.
const MAX_KNOWN: usize = 1 << 16;

/// Kernels that have been launched, with their parameters.
#[derive(Default)]
pub struct Launched {
    functions: RwLock<HashMap<u64, Arc<[Param]>>>,
}

impl CudaBackend {
    /// A launch with cluster dimensions (0: none) and perhaps cooperative.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn launch_plain(
        &self,
        call: &Call<'_>,
        launch: &Launch<'_>,
        flags: u32,
        cluster: [u32; 3],
    ) -> CuResult {
        if flags & COOPERATIVE == 0 && cluster == [0; 3] {
            return self.launch_simple(call, launch);
        }
        let mut attributes = Vec::with_capacity(2 * ATTRIBUTE_LEN);
        if flags & COOPERATIVE != 0 {
            attribute(&mut attributes, ATTRIBUTE_COOPERATIVE, [1, 0]);
        }
        if cluster != [0; 3] {
            let [x, y, z] = cluster.map(u64::from);
            attribute(&mut attributes, ATTRIBUTE_CLUSTER_DIMENSION, [x | y << 32, z]);
        }
        self.launch_with(call, launch, &attributes)
    }

    fn launch_simple(&self, call: &Call<'_>, launch: &Launch<'_>) -> CuResult {
        let function = self.inward(Kind::CUfunction, launch.function)?;
        let stream = self.inward(Kind::CUstream, launch.stream)?;
        let Shape { grid, block, shared_bytes } = launch.shape;
        self.with_params(call, launch, |params| {
            // SAFETY: there is a pointer for each parameter of the kernel, to as many bytes as it has.
            unsafe {
                self.raw().cuLaunchKernel(
                    function,
                    grid[0],
                    grid[1],
                    grid[2],
                    block[0],
                    block[1],
                    block[2],
                    shared_bytes,
                    stream,
                    params,
                    core::ptr::null_mut(),
                )
            }
        })
    }

    /// A launch with attributes as they come over the wire.
    ///
    /// # Errors
    /// INVALID_VALUE for a block of attributes that is none; those of the driver.
    pub fn launch_with(&self, call: &Call<'_>, launch: &Launch<'_>, attributes: &[u8]) -> CuResult {
        let function = self.inward(Kind::CUfunction, launch.function)?;
        let mut attributes = self.attributes(attributes)?;
        let config = self.config(launch.shape, launch.stream, &mut attributes)?;
        self.with_params(call, launch, |params| {
            // SAFETY: the configuration and its attributes are the driver's structures; the parameters are as in `launch_simple`.
            unsafe {
                self.raw().cuLaunchKernelEx(
                    (&raw const config).cast(),
                    function,
                    params,
                    core::ptr::null_mut(),
                )
            }
        })
    }

    /// Clusters that fit on the device, and the largest one of the kernel.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn clusters(&self, function: u64, shape: Shape, cluster: [u32; 3]) -> CuResult<(i32, i32)> {
        let function = self.inward(Kind::CUfunction, function)?;
        let mut attributes = Vec::new();
        let mut shape = shape;
        if cluster != [0; 3] {
            let [x, y, z] = cluster.map(u64::from);
            attribute(&mut attributes, ATTRIBUTE_CLUSTER_DIMENSION, [x | y << 32, z]);
            // The grid must be made of whole clusters.
            shape.grid = cluster;
        }
        let mut attributes = Buffer::new(Some(&attributes));
        let config = self.config(shape, 0, &mut attributes)?;
        let (mut active, mut largest) = (0, 0);
        let config = (&raw const config).cast();
        // SAFETY: the outputs are variables of the right types; the configuration is as in `launch_with`.
        unsafe {
            self.raw().cuOccupancyMaxPotentialClusterSize(&mut largest, function, config)?;
            if cluster != [0; 3] {
                self.raw().cuOccupancyMaxActiveClusters(&mut active, function, config)?;
            }
        }
        Ok((active, largest))
    }

    /// The driver's attributes: ids become handles.
    fn attributes(&self, bytes: &[u8]) -> CuResult<Buffer> {
        if !bytes.len().is_multiple_of(ATTRIBUTE_LEN) || bytes.len() > MAX_ATTRIBUTES * ATTRIBUTE_LEN {
            return Err(Status::INVALID_VALUE);
        }
        let mut attributes = Buffer::new(Some(bytes));
        attributes.each_of(ATTRIBUTE_LEN, |attribute| {
            match half(attribute, 0) {
                ATTRIBUTE_PROGRAMMATIC_EVENT | ATTRIBUTE_LAUNCH_COMPLETION_EVENT => {
                    let event = self.inward(Kind::CUevent, word(attribute, 8))?;
                    set_word(attribute, 8, event);
                }
                // The node's handle would come back in it, and device code uses it: nothing of that is forwarded.
                ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE if half(attribute, 8) != 0 => {
                    return Err(Status::NOT_SUPPORTED);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(attributes)
    }

    fn config(&self, shape: Shape, stream: u64, attributes: &mut Buffer) -> CuResult<Config> {
        Ok(Config {
            grid: shape.grid,
            block: shape.block,
            shared_bytes: shape.shared_bytes,
            stream: self.inward(Kind::CUstream, stream)?,
            attributes: attributes.as_mut_ptr(),
            attribute_count: (attributes.bytes().len() / ATTRIBUTE_LEN) as u32,
        })
    }

    /// Calls `f` with a pointer to each parameter, and counts the launch.
    ///
    /// By pointers and not the whole buffer by `extra`: it is what runtimes do, so what drivers are tested with.
    fn with_params(
        &self,
        call: &Call<'_>,
        launch: &Launch<'_>,
        f: impl FnOnce(*mut u64) -> CuResult,
    ) -> CuResult {
        let layout = self.layout(call, launch.function)?;
        let params = launch.params.unwrap_or_default();
        let (mut few, mut many) = ([0u64; FEW_PARAMS], Vec::new());
        let pointers = match few.get_mut(..layout.len()) {
            Some(pointers) => pointers,
            None => {
                many.resize(layout.len(), 0);
                &mut many[..]
            }
        };
        for (pointer, param) in pointers.iter_mut().zip(layout.iter()) {
            let (start, len) = (param.offset as usize, param.size as usize);
            let value = start.checked_add(len).and_then(|end| params.get(start..end));
            let Some(value) = value else {
                tracing::debug!(len = params.len(), ?layout, "a launch with too few bytes of parameters");
                return Err(Status::INVALID_VALUE);
            };
            *pointer = value.as_ptr().expose_provenance() as u64;
        }
        let pointers = if pointers.is_empty() { core::ptr::null_mut() } else { pointers.as_mut_ptr() };
        f(pointers).inspect_err(|status| {
            tracing::debug!(status = status.0, shape = ?launch.shape, len = params.len(), ?layout, "a launch that the driver refuses");
        })?;
        call.session.counters.launches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The parameters of a function or kernel, remembered from its first launch on.
    fn layout(&self, call: &Call<'_>, function: u64) -> CuResult<Arc<[Param]>> {
        if let Some(known) =
            self.launched.functions.read().unwrap_or_else(PoisonError::into_inner).get(&function)
        {
            return Ok(Arc::clone(known));
        }
        let layout: Arc<[Param]> = self.params(function)?.into();
        if let Ok(name) = self.function_name(function) {
            call.session.counters.kernel(&String::from_utf8_lossy(&name));
        }
        let mut functions = self.launched.functions.write().unwrap_or_else(PoisonError::into_inner);
        if functions.len() >= MAX_KNOWN {
            functions.clear();
        }
        functions.insert(function, Arc::clone(&layout));
        Ok(layout)
    }

    /// The function of a kernel in the current context, or else in the first device's: driver 580 does not tell the parameters of all kernels that are not
    /// loaded into one, and runtimes ask for kernels before they make a context current.
    fn loaded(&self, kernel: u64) -> Option<u64> {
        let (mut function, mut before) = (0, 0);
        // SAFETY: the outputs are variables for handles; the handles are the driver's. The thread's current context is put back.
        unsafe {
            self.raw().cuCtxGetCurrent(&mut before).ok()?;
            if before == 0 {
                let (_, primary) = self.primary(0).ok()?;
                self.raw().cuCtxSetCurrent(primary).ok()?;
            }
            let found = self.raw().cuKernelGetFunction(&mut function, kernel);
            if before == 0 {
                self.raw().cuCtxSetCurrent(0).ok()?;
            }
            found.ok()?;
        }
        Some(function)
    }

    /// Place and size of each parameter of a function or kernel.
    ///
    /// # Errors
    /// INVALID_HANDLE; UNKNOWN if the driver gives a place that no parameter can have.
    pub fn params(&self, function: u64) -> CuResult<Vec<Param>> {
        let mut raw = self.inward(Kind::CUfunction, function)?;
        let mut kernel = self.handles.kind(function) == Ok(Kind::CUkernel);
        if kernel && let Some(loaded) = self.loaded(raw) {
            (raw, kernel) = (loaded, false);
        }
        let mut params = Vec::new();
        for index in 0..FunctionInfo::MAX_PARAMS as u64 {
            let (mut offset, mut size) = (0u64, 0u64);
            // SAFETY: the outputs are variables of the right types.
            let known = unsafe {
                if kernel {
                    self.raw().cuKernelGetParamInfo(raw, index, &mut offset, &mut size)
                } else {
                    self.raw().cuFuncGetParamInfo(raw, index, &mut offset, &mut size)
                }
            };
            if known.is_err() {
                break;
            }
            let narrow = |value: u64| u32::try_from(value).map_err(|_| Status::UNKNOWN);
            params.push(Param { offset: narrow(offset)?, size: narrow(size)? });
        }
        Ok(params)
    }

    /// The name of a function or kernel.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn function_name(&self, function: u64) -> CuResult<Vec<u8>> {
        let raw = self.inward(Kind::CUfunction, function)?;
        let mut name = 0u64;
        // SAFETY: the output is a variable for a pointer.
        unsafe {
            if self.handles.kind(function) == Ok(Kind::CUkernel) {
                self.raw().cuKernelGetName(&mut name, raw)
            } else {
                self.raw().cuFuncGetName(&mut name, raw)
            }
        }?;
        let name: *const core::ffi::c_char = core::ptr::with_exposed_provenance(name as usize);
        if name.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: the driver's own NUL-terminated text, which lives as long as the function.
        Ok(unsafe { CStr::from_ptr(name) }.to_bytes().to_vec())
    }
}

/// Appends an attribute.
fn attribute(to: &mut Vec<u8>, id: u32, value: [u64; 2]) {
    let start = to.len();
    to.resize(start + ATTRIBUTE_LEN, 0);
    let attribute = &mut to[start..];
    set_word(attribute, 0, id.into());
    set_word(attribute, 8, value[0]);
    set_word(attribute, 16, value[1]);
}
