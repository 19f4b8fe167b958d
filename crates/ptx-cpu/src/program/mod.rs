//! A loaded module: checked, laid out in memory, its kernels compiled when they are first used.
//!
//! Locks: each kernel has one, held while it is compiled; nothing else is locked.

#[doc(hidden)]
pub mod fuzz;
pub(crate) mod index;
mod memory;
mod unit;

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use ptx::Name;
use ptx::ast::{Directive, Module};
use ptx::layout::ParamLayout;
use thiserror::Error;

use crate::codegen::{Code, Compiler};
use crate::kernel::Kernel;
use crate::lower::Problem;
use index::{Allocations, Index};
pub use memory::RegionMemory;

/// What a variable's memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// `.global`
    Global,
    /// `.const`
    Constant,
    /// `.global` with `.attribute(.managed)`: also visible to the program.
    Managed,
}

/// The device memory that module variables live in: a part of the region.
pub trait GlobalMemory: Send + Sync {
    /// The region's base shifted right by [`REGION_SHIFT`](crate::abi::REGION_SHIFT).
    fn region_tag(&self) -> u64;

    /// Allocates zeroed memory in the region; `align` is a power of two.
    ///
    /// # Errors
    /// A sentence for the load error.
    fn allocate(&self, kind: MemoryKind, len: u64, align: u64) -> Result<u64, String>;

    /// Writes to memory that `allocate` returned.
    ///
    /// # Errors
    /// A sentence for the load error.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String>;

    /// Frees an allocation.
    fn free(&self, address: u64);
}

/// Parameters of loading.
pub struct Options {
    /// Addresses of the [helpers](crate::abi::helper_names).
    pub helpers: Vec<(&'static str, usize)>,
    /// Bytes of local memory per thread for kernels whose call depth is not known (recursion).
    pub recursion_local_len: u32,
}

impl Default for Options {
    fn default() -> Self {
        let helpers =
            crate::helpers::table().iter().map(|(name, address)| (*name, *address as usize)).collect();
        Self { helpers, recursion_local_len: 16 << 10 }
    }
}

/// Why a module cannot be loaded, or a kernel not compiled.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// Instructions or operands that are not supported: the first, and how many there are.
    #[error("{}", describe(problems))]
    Unsupported {
        /// In order of functions and lines.
        problems: Vec<ProblemAt>,
    },
    /// A variable that cannot be laid out or initialised.
    #[error("variable `{name}`: {why}")]
    Variable {
        /// Its name.
        name: Name,
        /// The reason.
        why: String,
    },
    /// No device memory for the module's variables.
    #[error("memory for the module's variables: {0}")]
    Memory(String),
    /// Only 64-bit addresses are supported.
    #[error("unsupported .address_size {0}")]
    AddressSize(u32),
    /// There is no kernel of this name.
    #[error("no kernel `{0}`")]
    NoKernel(String),
    /// The machine code of a kernel cannot be made.
    #[error("kernel `{kernel}`: {why}")]
    Compile {
        /// Its name.
        kernel: Name,
        /// The reason.
        why: String,
    },
}

/// A [`Problem`] and the function that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProblemAt {
    /// Kernel or device function.
    pub function: Name,
    /// Whether it is a kernel.
    pub is_entry: bool,
    /// Line of the PTX source, from 1.
    pub line: u32,
    /// Whole sentence.
    pub what: String,
}

/// Problems named in the text of an error.
const NAMED_PROBLEMS: usize = 8;

fn describe(problems: &[ProblemAt]) -> String {
    // Each kind once, with its first place.
    let mut kinds = HashSet::new();
    let seen: Vec<&ProblemAt> = problems.iter().filter(|p| kinds.insert(&*p.what)).collect();
    let mut text = String::new();
    for (i, p) in seen.iter().take(NAMED_PROBLEMS).enumerate() {
        let kind = if p.is_entry { "kernel" } else { "function" };
        let separator = if i > 0 { "; " } else { "" };
        text += &format!("{separator}{} ({kind} {}, line {})", p.what, p.function, p.line);
    }
    if seen.len() > NAMED_PROBLEMS {
        text += &format!("; {} more", seen.len() - NAMED_PROBLEMS);
    }
    text
}

/// A kernel with its machine code, which lives as long as this does. Derefs to the engine's [`Kernel`]; whoever launches a clone of that must
/// hold the `Arc<CompiledKernel>` until the launch is over.
pub struct CompiledKernel {
    kernel: Kernel,
    _code: Code,
}

impl Deref for CompiledKernel {
    type Target = Kernel;

    fn deref(&self) -> &Kernel {
        &self.kernel
    }
}

/// What is known of a kernel without compiling it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Name as in the PTX.
    pub name: Name,
    /// The parameter buffer.
    pub params: ParamLayout,
    /// `.maxntid`
    pub max_ntid: Option<[u32; 3]>,
    /// `.reqntid`
    pub req_ntid: Option<[u32; 3]>,
    number: u32,
}

impl KernelInfo {
    /// Largest number of threads per block that the directives allow.
    pub fn max_threads(&self) -> u32 {
        let product = |d: [u32; 3]| d.iter().fold(1u32, |p, n| p.saturating_mul((*n).max(1)));
        self.req_ntid.or(self.max_ntid).map_or(1024, product).min(1024)
    }
}

/// Most bytes of kernel parameters: beyond PTX's own limit of 32764.
const MAX_PARAM_LEN: u32 = 64 << 10;

type Slot = Mutex<Option<Result<Arc<CompiledKernel>, LoadError>>>;

/// A loaded module.
pub struct Program {
    index: Index,
    kernels: HashMap<Name, (KernelInfo, Slot)>,
    kernel_order: Vec<Name>,
    /// Functions whose address is taken: what an indirect call may reach.
    address_taken: Vec<u32>,
    globals: HashMap<Name, (u64, u64)>,
    compiler: Compiler,
    recursion_local_len: u32,
    memory: Arc<dyn GlobalMemory>,
    allocations: Allocations,
}

impl Program {
    /// Checks a (linked) module, and allocates and initialises its variables.
    ///
    /// # Errors
    /// Everything that a kernel could reach and that is not supported, named; memory; bad variables.
    pub fn load(module: Module, memory: Arc<dyn GlobalMemory>, options: Options) -> Result<Self, LoadError> {
        if module.address_size != 64 {
            return Err(LoadError::AddressSize(module.address_size));
        }
        let compiler =
            Compiler::new(options.helpers).map_err(|why| LoadError::Compile { kernel: "".into(), why })?;
        let mut allocations = Allocations::default();
        let loaded = Index::new(module, &*memory, &mut allocations).and_then(|index| {
            let address_taken = unit::check(&index)?;
            Ok((index, address_taken))
        });
        let (index, address_taken) = match loaded {
            Ok(loaded) => loaded,
            Err(e) => {
                allocations.0.iter().for_each(|a| memory.free(*a));
                return Err(e);
            }
        };
        let mut kernels = HashMap::new();
        let mut kernel_order = Vec::new();
        for number in 0..index.function_count() {
            let f = index.function(number);
            if f.is_entry && f.body.is_some() {
                let Some(info) = kernel_info(f, number) else {
                    allocations.0.iter().for_each(|a| memory.free(*a));
                    return Err(LoadError::Compile {
                        kernel: f.name.clone(),
                        why: "its parameters are too large".into(),
                    });
                };
                kernel_order.push(f.name.clone());
                kernels.insert(f.name.clone(), (info, Slot::default()));
            }
        }
        let globals =
            index.globals.iter().map(|(name, address, len)| (name.clone(), (*address, *len))).collect();
        Ok(Self {
            index,
            kernels,
            kernel_order,
            address_taken,
            globals,
            compiler,
            recursion_local_len: options.recursion_local_len,
            memory,
            allocations,
        })
    }

    /// The kernel of this name, compiled if it is not yet. Any thread may ask; the code is made once.
    ///
    /// # Errors
    /// [`LoadError::NoKernel`], or what prevents compilation.
    pub fn kernel(&self, name: &str) -> Result<Arc<CompiledKernel>, LoadError> {
        let (info, slot) = self.kernels.get(name).ok_or_else(|| LoadError::NoKernel(name.into()))?;
        // The slot is only written when its content is complete: a panic elsewhere leaves nothing half done.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(|| {
            // A defect of the code generator must not take the other kernels of the process with it.
            let compiled = std::panic::catch_unwind(AssertUnwindSafe(|| self.compile(info)));
            compiled.unwrap_or_else(|_| {
                Err(LoadError::Compile {
                    kernel: info.name.clone(),
                    why: "internal error of the code generator".into(),
                })
            })
        })
        .clone()
    }

    /// What is known of a kernel without compiling it.
    pub fn kernel_info(&self, name: &str) -> Option<&KernelInfo> {
        self.kernels.get(name).map(|(info, _)| info)
    }

    /// Kernel names in order of the source.
    pub fn kernel_names(&self) -> impl Iterator<Item = &Name> {
        self.kernel_order.iter()
    }

    /// Address and length of a `.global` or `.const` variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.globals.get(name).copied()
    }

    /// Names, addresses and lengths of variables.
    pub fn globals(&self) -> impl Iterator<Item = (&Name, u64, u64)> {
        self.index.globals.iter().map(|(name, address, len)| (name, *address, *len))
    }

    fn compile(&self, info: &KernelInfo) -> Result<Arc<CompiledKernel>, LoadError> {
        let error = |why| LoadError::Compile { kernel: info.name.clone(), why };
        let mut built = unit::build(&self.index, info.number, &self.address_taken, self.recursion_local_len)?;
        let layout = crate::codegen::Layout {
            region_tag: self.memory.region_tag(),
            static_shared_len: built.static_shared_len,
            dyn_shared: built.dyn_shared,
            local_len: built.local_len,
            param_len: info.params.size,
            const_range: self.index.const_range,
            function_count: self.index.function_count(),
            recursive: built.recursive,
        };
        let signatures = std::mem::take(&mut built.signatures);
        let suspends = built.kernel.parks();
        let code = self
            .compiler
            .compile(&crate::codegen::UnitIr {
                kernel: built.kernel,
                functions: built.functions,
                indirect: built.indirect,
                signatures: &signatures,
                layout,
            })
            .map_err(error)?;
        let kernel = Kernel {
            name: info.name.clone(),
            entry: code.entry,
            frame_len: code.frame_len,
            local_len: layout.local_len,
            static_shared_len: layout.static_shared_len,
            suspends,
        };
        Ok(Arc::new(CompiledKernel { kernel, _code: code }))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.allocations.0.iter().for_each(|a| self.memory.free(*a));
    }
}

fn kernel_info(f: &ptx::Function, number: u32) -> Option<KernelInfo> {
    let params = ptx::layout::params(&f.params).filter(|layout| layout.size <= MAX_PARAM_LEN)?;
    let mut info = KernelInfo { name: f.name.clone(), params, max_ntid: None, req_ntid: None, number };
    for directive in &f.directives {
        match directive {
            Directive::MaxNTid(d) => info.max_ntid = Some(*d),
            Directive::ReqNTid(d) => info.req_ntid = Some(*d),
            _ => {}
        }
    }
    Some(info)
}

fn located(function: &ptx::Function, problems: Vec<Problem>) -> Vec<ProblemAt> {
    problems
        .into_iter()
        .map(|p| ProblemAt {
            function: function.name.clone(),
            is_entry: function.is_entry,
            line: p.line,
            what: p.what,
        })
        .collect()
}
