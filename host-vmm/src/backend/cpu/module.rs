//! Modules, libraries, functions and kernels.
//!
//! A library is a linked module without a context; in each context that uses it, it becomes a [`Module`]. A [`Function`] belongs to a
//! module, a [`LibraryKernel`] stands for the function of its name in whatever context is current.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use protocol::Writer;
use protocol::function::{FunctionInfo, Param};
use protocol::status::{CuResult, Status};
use ptx_cpu::program::{CompiledKernel, GlobalMemory, KernelInfo, MemoryKind, Options, Program};

use super::context::Live;
use super::device::{SHARED_PER_BLOCK, Shape};
use super::image::{self, FORM_PTX, LoadFailure};
use super::memory::{Kind, Memory, Owner};
use super::occupancy::Need;
use super::{CpuBackend, Object};
use crate::session::Call;

/// Registers per thread that kernels report; the CPU has no such limit.
const REGISTERS_PER_THREAD: u32 = 32;

/// `CUfunction_attribute` values that are handled by name.
mod attribute {
    pub const MAX_DYNAMIC_SHARED: u32 = 8;
    pub const SHARED_CARVEOUT: u32 = 9;
    pub const NON_PORTABLE_CLUSTER: u32 = 14;
    pub const CLUSTER_POLICY: u32 = 15;
    pub const COUNT: usize = 16;
}

/// A module in a context.
pub struct Module {
    pub live: Arc<Live>,
    pub program: Arc<Program>,
    /// Handles of functions that were asked for, by name.
    functions: Mutex<HashMap<String, u64>>,
    /// Architecture that the PTX was written for, as in `compute_75`.
    virtual_architecture: u32,
    /// Architecture of the device, for which it was compiled.
    real_architecture: u32,
}

/// A kernel of a module.
pub struct Function {
    pub module: Arc<Module>,
    pub info: KernelInfo,
    compiled: OnceLock<Arc<CompiledKernel>>,
    /// Set with the first launch, which tells the statistics the kernel's name.
    pub counted: AtomicBool,
    max_dynamic_shared: AtomicI32,
    carveout: AtomicI32,
}

/// A module without a context.
pub struct Library {
    linked: ptx::Module,
    /// Kernel names in order.
    kernels: Vec<String>,
    state: Mutex<LibraryState>,
}

#[derive(Default)]
struct LibraryState {
    /// Modules by the contents that they are in ([`Live::id`]).
    modules: HashMap<u64, u64>,
    handles: HashMap<String, u64>,
}

/// A kernel of a library.
pub struct LibraryKernel {
    library: Arc<Library>,
    name: String,
}

/// Allocates module variables for a context.
struct ContextMemory {
    memory: Arc<Memory>,
    owner: Owner,
}

impl GlobalMemory for ContextMemory {
    fn region_tag(&self) -> u64 {
        self.memory.region().tag()
    }

    fn allocate(&self, kind: MemoryKind, len: u64, align: u64) -> Result<u64, String> {
        let managed = kind == MemoryKind::Managed;
        // CU_MEM_ATTACH_GLOBAL; both kinds of memory begin at a page, which is more than any variable asks for.
        let (kind, flags) = if managed { (Kind::ManagedGlobal, 1) } else { (Kind::Global, 0) };
        if align > 4096 {
            return Err(format!("alignment {align} is not supported"));
        }
        let failed = |status: Status| format!("{len} bytes: {status:?}");
        let address = self.memory.alloc(self.owner, kind, len.max(1), flags).map_err(failed)?;
        // Memory that was used before is not zero.
        if let Err(error) = self.memory.region().fill8(address, 0, len) {
            self.free(address);
            return Err(error.to_string());
        }
        Ok(address)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.memory.region().copy_in(address, bytes).map_err(|error| error.to_string())
    }

    fn free(&self, address: u64) {
        // When a context ends, its memory can have gone before its modules.
        let _ = self.memory.free(address, |kind| matches!(kind, Kind::Global | Kind::ManagedGlobal));
    }
}

impl Function {
    fn new(module: Arc<Module>, info: KernelInfo) -> Self {
        Self {
            module,
            info,
            compiled: OnceLock::new(),
            counted: AtomicBool::new(false),
            max_dynamic_shared: AtomicI32::new(-1),
            carveout: AtomicI32::new(-1),
        }
    }

    /// The kernel's machine code, made now if it was not before.
    ///
    /// # Errors
    /// Code that cannot be compiled; the reason is in the log.
    pub fn compiled(&self) -> CuResult<&Arc<CompiledKernel>> {
        if let Some(compiled) = self.compiled.get() {
            return Ok(compiled);
        }
        let compiled = self.module.program.kernel(&self.info.name).map_err(|error| {
            tracing::warn!(%error, "a kernel cannot be compiled");
            LoadFailure::from(error).status
        })?;
        Ok(self.compiled.get_or_init(|| compiled))
    }

    /// Most dynamic shared memory that a launch may ask for, in bytes.
    pub fn max_dynamic_shared(&self) -> CuResult<u32> {
        let set = self.max_dynamic_shared.load(Ordering::Acquire);
        match u32::try_from(set) {
            Ok(set) => Ok(set),
            Err(_) => Ok(SHARED_PER_BLOCK.saturating_sub(self.compiled()?.static_shared_len)),
        }
    }

    /// What the kernel needs of a multiprocessor.
    pub fn need(&self) -> CuResult<Need> {
        Ok(Need {
            registers: REGISTERS_PER_THREAD,
            static_shared: self.compiled()?.static_shared_len,
            max_threads: self.info.max_threads(),
        })
    }

    fn set_attribute(&self, shape: &Shape, id: u32, value: i32) -> CuResult {
        match id {
            attribute::MAX_DYNAMIC_SHARED => {
                let most = shape.shared_optin.saturating_sub(self.compiled()?.static_shared_len);
                if u32::try_from(value).is_ok_and(|value| value <= most) {
                    self.max_dynamic_shared.store(value, Ordering::Release);
                    return Ok(());
                }
            }
            attribute::SHARED_CARVEOUT if (-1..=100).contains(&value) => {
                self.carveout.store(value, Ordering::Release);
                return Ok(());
            }
            attribute::NON_PORTABLE_CLUSTER | attribute::CLUSTER_POLICY if (0..=2).contains(&value) => {
                return Ok(());
            }
            _ => {}
        }
        Err(Status::INVALID_VALUE)
    }

    /// What the program is told of the function.
    fn describe(&self, handle: u64) -> CuResult<FunctionInfo> {
        let compiled = self.compiled()?;
        let mut attributes = vec![0; attribute::COUNT];
        let small = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        attributes[0] = small(self.info.max_threads());
        attributes[1] = small(compiled.static_shared_len);
        attributes[3] = small(compiled.local_len);
        attributes[4] = small(REGISTERS_PER_THREAD);
        // Not the version of the PTX language: CUB finds out with it which of its variants the program has.
        attributes[5] = small(self.module.virtual_architecture);
        attributes[6] = small(self.module.real_architecture);
        attributes[8] = small(self.max_dynamic_shared()?);
        attributes[9] = self.carveout.load(Ordering::Acquire);
        let params =
            self.info.params.slots.iter().map(|param| Param { offset: param.offset, size: param.size });
        let name = self.info.name.as_bytes();
        let name = name[..name.len().min(FunctionInfo::MAX_NAME_LEN)].to_vec();
        Ok(FunctionInfo { handle, name, attributes, params: params.collect() })
    }
}

impl Module {
    fn functions(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Library {
    fn state(&self) -> MutexGuard<'_, LibraryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name parameter as text; NULL is an error, and what is not UTF-8 is no name of anything.
pub fn name_of(name: Option<&CStr>) -> CuResult<&str> {
    name.ok_or(Status::INVALID_VALUE)?.to_str().map_err(|_| Status::NOT_FOUND)
}

/// Writes handles as the driver lays them out.
fn put_handles(out: Option<&mut [u8]>, handles: &[u64]) -> CuResult {
    let out = out.ok_or(Status::INVALID_VALUE)?;
    for (place, handle) in out.chunks_exact_mut(8).zip(handles) {
        place.copy_from_slice(&handle.to_le_bytes());
    }
    Ok(())
}

/// The images of a load as they come over the wire.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    pub count: u32,
    pub hashes: Option<&'a [u8]>,
    pub forms: Option<&'a [u8]>,
}

impl CpuBackend {
    fn link(&self, call: &Call<'_>, images: Images<'_>) -> Result<ptx::Module, LoadFailure> {
        let capability = call.session.config.compute_capability;
        let linked =
            image::link(&call.session.registry, images.count, images.hashes, images.forms, capability)?;
        let prints =
            |item: &ptx::Item| matches!(item, ptx::Item::Function(function) if &*function.name == "vprintf");
        if linked.items.iter().any(prints) {
            self.output.expect();
        }
        Ok(linked)
    }

    /// Makes a module of linked code in a context.
    fn instantiate(&self, live: &Arc<Live>, linked: ptx::Module) -> Result<u64, LoadFailure> {
        let memory = Arc::new(ContextMemory { memory: Arc::clone(&self.memory), owner: live.owner() });
        let virtual_architecture = linked.target.sm;
        let real_architecture = self.session.config.compute_capability.sm();
        let program = Arc::new(Program::load(linked, memory, Options::default())?);
        let module = Module {
            live: Arc::clone(live),
            program,
            functions: Mutex::default(),
            virtual_architecture,
            real_architecture,
        };
        self.handles.insert(Arc::new(module)).ok_or_else(|| LoadFailure {
            status: Status::OUT_OF_MEMORY,
            log: "the session's limit of handles is reached".into(),
        })
    }

    /// Answers a load: the wire operation succeeds, `result` says what came of it.
    pub(super) fn answer_load(
        &self,
        call: &Call<'_>,
        loaded: Result<u64, LoadFailure>,
        result: Option<&mut u32>,
        handle: Option<&mut u64>,
        error_log: Option<&mut Vec<u8>>,
    ) -> CuResult {
        let result = result.ok_or(Status::INVALID_VALUE)?;
        match loaded {
            Ok(loaded) => {
                *handle.ok_or(Status::INVALID_VALUE)? = loaded;
                *result = Status::SUCCESS.0;
            }
            Err(failure) => {
                tracing::warn!(status = ?failure.status, "load failed: {}", failure.start());
                *result = failure.status.0;
                if let Some(log) = error_log {
                    let room = call.max_body().saturating_sub(256);
                    let mut bytes = failure.log.into_bytes();
                    bytes.truncate(room);
                    *log = bytes;
                }
            }
        }
        Ok(())
    }

    pub(super) fn load_module(&self, call: &Call<'_>, images: Images<'_>) -> Result<u64, LoadFailure> {
        let no_context = |status| LoadFailure { status, log: "no usable context".into() };
        let live = self.live(call).map_err(no_context)?;
        self.instantiate(&live, self.link(call, images)?)
    }

    pub(super) fn load_library(&self, call: &Call<'_>, images: Images<'_>) -> Result<u64, LoadFailure> {
        let linked = self.link(call, images)?;
        let kernels = linked.items.iter().filter_map(|item| match item {
            ptx::Item::Function(function) if function.is_entry && function.body.is_some() => {
                Some(function.name.to_string())
            }
            _ => None,
        });
        let library = Arc::new(Library { kernels: kernels.collect(), linked, state: Mutex::default() });
        // With a context there is no need to wait with the errors of the code.
        if let Ok(live) = self.live(call) {
            let module = self.instantiate(&live, library.linked.clone())?;
            library.state().modules.insert(live.id, module);
        }
        self.handles.insert(library).ok_or_else(|| LoadFailure {
            status: Status::OUT_OF_MEMORY,
            log: "the session's limit of handles is reached".into(),
        })
    }

    /// Links images to a new one, which is PTX text again.
    pub(super) fn link_to_image(
        &self,
        call: &Call<'_>,
        images: Images<'_>,
    ) -> Result<([u8; 32], u32, u64), LoadFailure> {
        let linked = self.link(call, images)?;
        // A driver's linker compiles: errors of the code show here, not when the result is loaded.
        if let Ok(live) = self.live(call) {
            let memory = Arc::new(ContextMemory { memory: Arc::clone(&self.memory), owner: live.owner() });
            Program::load(linked.clone(), memory, Options::default())?;
        }
        let text = linked.to_string().into_bytes();
        let len = text.len() as u64;
        let hash = call.session.registry.insert(text);
        let hash =
            hash.map_err(|error| LoadFailure { status: Status::OUT_OF_MEMORY, log: error.to_string() })?;
        Ok((hash, FORM_PTX, len))
    }

    fn module(&self, handle: u64) -> CuResult<Arc<Module>> {
        self.handles.get::<Module>(handle).map_err(|_| Status::INVALID_HANDLE)
    }

    fn library(&self, handle: u64) -> CuResult<Arc<Library>> {
        self.handles.get::<Library>(handle).map_err(|_| Status::INVALID_HANDLE)
    }

    pub(super) fn module_unload(&self, call: &Call<'_>, handle: u64) -> CuResult {
        self.live(call)?;
        let module = self.handles.remove::<Module>(handle).map_err(|_| Status::INVALID_HANDLE)?;
        for (_, function) in module.functions().drain() {
            let _ = self.handles.remove::<Function>(function);
        }
        Ok(())
    }

    /// The handle of a kernel of a module; the same each time.
    fn function_in(&self, module: &Arc<Module>, name: &str) -> CuResult<u64> {
        let info = module.program.kernel_info(name).ok_or(Status::NOT_FOUND)?;
        let mut functions = module.functions();
        if let Some(handle) = functions.get(name) {
            return Ok(*handle);
        }
        let function = Arc::new(Function::new(Arc::clone(module), info.clone()));
        let handle = self.handles.insert(function).ok_or(Status::OUT_OF_MEMORY)?;
        functions.insert(name.to_owned(), handle);
        Ok(handle)
    }

    pub(super) fn module_function(&self, call: &Call<'_>, handle: u64, name: Option<&CStr>) -> CuResult<u64> {
        self.live(call)?;
        let module = self.module(handle)?;
        self.function_in(&module, name_of(name)?)
    }

    pub(super) fn module_functions(&self, handle: u64) -> CuResult<Vec<u64>> {
        let module = self.module(handle)?;
        module.program.kernel_names().map(|name| self.function_in(&module, name)).collect()
    }

    pub(super) fn module_global(
        &self,
        call: &Call<'_>,
        handle: u64,
        name: Option<&CStr>,
    ) -> CuResult<(u64, u64)> {
        self.live(call)?;
        let module = self.module(handle)?;
        module.program.global(name_of(name)?).ok_or(Status::NOT_FOUND)
    }

    pub(super) fn library_unload(&self, handle: u64) -> CuResult {
        let library = self.handles.remove::<Library>(handle).map_err(|_| Status::INVALID_HANDLE)?;
        let state = std::mem::take(&mut *library.state());
        for kernel in state.handles.values() {
            let _ = self.handles.remove::<LibraryKernel>(*kernel);
        }
        for module in state.modules.values() {
            if let Ok(module) = self.handles.remove::<Module>(*module) {
                for (_, function) in module.functions().drain() {
                    let _ = self.handles.remove::<Function>(function);
                }
            }
        }
        Ok(())
    }

    /// The current context's contents, or without one those of the first device's primary context: runtimes ask for managed variables
    /// and for a kernel's attributes before there is a context, and these need none by rights.
    fn live_or_primary(&self, call: &Call<'_>) -> CuResult<Arc<Live>> {
        match self.live(call) {
            Err(Status::INVALID_CONTEXT) => {
                let primary = &self.slot(0)?.primary;
                let retained = primary.retained();
                Ok(primary.activate(&self.scheduler, retained.flags))
            }
            other => other,
        }
    }

    /// The library's module in the current context.
    fn library_module(&self, live: &Arc<Live>, library: &Library) -> CuResult<u64> {
        // Held while loading, so that two threads do not load twice.
        let mut state = library.state();
        if let Some(handle) = state.modules.get(&live.id) {
            return Ok(*handle);
        }
        let module = self.instantiate(live, library.linked.clone()).map_err(|failure| {
            tracing::warn!(status = ?failure.status, "load failed: {}", failure.start());
            failure.status
        })?;
        state.modules.insert(live.id, module);
        Ok(module)
    }

    pub(super) fn library_get_module(&self, call: &Call<'_>, handle: u64) -> CuResult<u64> {
        let live = self.live(call)?;
        self.library_module(&live, &*self.library(handle)?)
    }

    pub(super) fn library_global(
        &self,
        call: &Call<'_>,
        handle: u64,
        name: Option<&CStr>,
        managed: bool,
    ) -> CuResult<(u64, u64)> {
        let live = if managed { self.live_or_primary(call)? } else { self.live(call)? };
        let library = self.library(handle)?;
        let name = name_of(name)?;
        let module = self.module(self.library_module(&live, &library)?)?;
        let global = module.program.global(name).ok_or(Status::NOT_FOUND)?;
        let kind = self.memory.find(global.0).map(|allocation| allocation.kind);
        if managed && kind != Some(Kind::ManagedGlobal) {
            return Err(Status::NOT_FOUND);
        }
        Ok(global)
    }

    pub(super) fn library_kernel(&self, handle: u64, name: Option<&CStr>) -> CuResult<u64> {
        let library = self.library(handle)?;
        self.kernel_in(&library, name_of(name)?)
    }

    fn kernel_in(&self, library: &Arc<Library>, name: &str) -> CuResult<u64> {
        if !library.kernels.iter().any(|kernel| kernel == name) {
            return Err(Status::NOT_FOUND);
        }
        let mut state = library.state();
        if let Some(handle) = state.handles.get(name) {
            return Ok(*handle);
        }
        let kernel = Arc::new(LibraryKernel { library: Arc::clone(library), name: name.to_owned() });
        let handle = self.handles.insert(kernel).ok_or(Status::OUT_OF_MEMORY)?;
        state.handles.insert(name.to_owned(), handle);
        Ok(handle)
    }

    pub(super) fn library_kernels(&self, handle: u64) -> CuResult<Vec<u64>> {
        let library = self.library(handle)?;
        library.kernels.iter().map(|name| self.kernel_in(&library, name)).collect()
    }

    /// The function handle that a kernel has in a context.
    fn kernel_function(&self, live: &Arc<Live>, kernel: &LibraryKernel) -> CuResult<u64> {
        let module = self.module(self.library_module(live, &kernel.library)?)?;
        self.function_in(&module, &kernel.name)
    }

    pub(super) fn kernel_get_function(&self, call: &Call<'_>, handle: u64) -> CuResult<u64> {
        let live = self.live(call)?;
        let kernel = self.handles.get::<LibraryKernel>(handle).map_err(|_| Status::INVALID_HANDLE)?;
        self.kernel_function(&live, &kernel)
    }

    /// The function of a handle that is a function's or, as in `cuLaunchKernel`, a kernel's.
    pub(super) fn function(&self, live: &Arc<Live>, handle: u64) -> CuResult<(u64, Arc<Function>)> {
        if let Ok(function) = self.handles.get::<Function>(handle) {
            return Ok((handle, function));
        }
        let kernel = self.handles.get::<LibraryKernel>(handle).map_err(|_| Status::INVALID_HANDLE)?;
        let function = self.kernel_function(live, &kernel)?;
        Ok((function, self.handles.get::<Function>(function).map_err(|_| Status::INVALID_HANDLE)?))
    }

    pub(super) fn function_describe(
        &self,
        call: &Call<'_>,
        handle: u64,
        out: Option<&mut Vec<u8>>,
    ) -> CuResult {
        let live = self.live_or_primary(call)?;
        let (own, function) = self.function(&live, handle)?;
        let info = function.describe(own)?;
        info.encode(&mut Writer::new(out.ok_or(Status::INVALID_VALUE)?));
        Ok(())
    }

    pub(super) fn function_set(&self, call: &Call<'_>, handle: u64, attribute: u32, value: i32) -> CuResult {
        let live = self.live(call)?;
        let (_, function) = self.function(&live, handle)?;
        function.set_attribute(&self.device_of(&live).shape(), attribute, value)
    }

    pub(super) fn functions_out(&self, out: Option<&mut [u8]>, count: u32, all: &[u64]) -> CuResult {
        if count == 0 {
            return Ok(());
        }
        put_handles(out, all)
    }
}

impl Object {
    /// The context contents that the object goes with.
    pub(super) fn owner(&self) -> Option<u64> {
        match self {
            Self::Stream(stream) => Some(stream.live.id),
            Self::Event(event) => Some(event.live.id),
            Self::Module(module) => Some(module.live.id),
            Self::Function(function) => Some(function.module.live.id),
            Self::Context(_) | Self::Pool(_) | Self::Library(_) | Self::LibraryKernel(_) => None,
        }
    }
}
