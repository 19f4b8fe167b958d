// Running generated code and keeping it alive is the purpose of this module.
#![allow(unsafe_code)]
//! Machine code for one kernel and the device functions it calls.
//!
//! Everything that a kernel can reach is compiled together, because the layout of `.shared` memory and the depth of `.local` memory
//! are properties of the kernel. Code never sees a host pointer in a register that PTX can name: thread and block state, frames and
//! argument areas are only accessed at constant offsets.

mod call;
mod cvt;
mod fault;
mod float;
mod func;
mod group;
mod half;
mod int;
mod mem;
mod park;
mod pred;
mod special;
mod value;
mod video;

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, ir as clif};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};

use crate::abi::{KernelFn, STACK_RESERVE};
use crate::ir::Func;
use crate::lower::Signature;

/// Names and addresses of the [helpers](crate::abi::helper_names).
pub type Helpers = Vec<(&'static str, usize)>;

/// A function that generated code may call: name and signature, one letter per parameter and `>` result.
/// `p` host pointer, `l` u64, `i` u32, `f` f32, `d` f64.
const HELPERS: &[(&str, &str)] = &[
    ("rt_fault", "ppil"),
    ("rt_exit", "p"),
    ("rt_vprintf", "ppll>i"),
    ("rt_malloc", "ppl>l"),
    ("rt_free", "ppl"),
    ("rt_assertfail", "ppllill"),
    ("rt_clock64", ">l"),
    ("rt_globaltimer", ">l"),
    ("rt_sin_f32", "f>f"),
    ("rt_cos_f32", "f>f"),
    ("rt_tanh_f32", "f>f"),
    ("rt_ex2_f32", "f>f"),
    ("rt_lg2_f32", "f>f"),
    ("rt_fma_f32", "fff>f"),
    ("rt_fma_f64", "ddd>d"),
    ("rt_fma_f32_mode", "fffi>f"),
    ("rt_add_f32_mode", "ffi>f"),
    ("rt_mul_f32_mode", "ffi>f"),
    ("rt_div_f32_mode", "ffi>f"),
    ("rt_sqrt_f32_mode", "fi>f"),
    ("rt_fma_f64_mode", "dddi>d"),
    ("rt_add_f64_mode", "ddi>d"),
    ("rt_mul_f64_mode", "ddi>d"),
    ("rt_div_f64_mode", "ddi>d"),
    ("rt_sqrt_f64_mode", "di>d"),
    ("rt_cvt_f64_f32_mode", "di>f"),
    ("rt_cvt_int_f32_mode", "lii>f"),
    ("rt_cvt_int_f64_mode", "lii>d"),
    ("rt_f32_to_f16", "fi>i"),
    ("rt_f32_to_bf16", "fi>i"),
    ("rt_f64_to_f16", "di>i"),
    ("rt_fma_f16", "iii>i"),
    ("rt_fma_bf16", "iii>i"),
];

/// The code generator for this machine.
#[derive(Clone)]
pub struct Compiler {
    isa: OwnedTargetIsa,
    fma: bool,
    helpers: Arc<Helpers>,
}

/// Everything that is compiled together for one kernel.
pub struct UnitIr<'a> {
    pub kernel: Func,
    /// Device functions by number of the program, without those that were inlined.
    pub functions: HashMap<u32, Func>,
    /// Functions that indirect calls may reach, and the number of their signature.
    pub indirect: Vec<(u32, u32)>,
    pub signatures: &'a [Signature],
    pub layout: Layout,
}

/// Sizes and addresses that generated code takes for granted.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub region_tag: u64,
    pub static_shared_len: u32,
    /// Offset of dynamic shared memory.
    pub dyn_shared: u32,
    pub local_len: u32,
    pub param_len: u32,
    /// Address and length of `.const`.
    pub const_range: (u64, u64),
    /// Number of functions of the program: bound of function ids.
    pub function_count: u32,
    /// Depth of calls is not known: check local memory at every call.
    pub recursive: bool,
}

/// Machine code with what must live as long.
pub struct Code {
    pub entry: KernelFn,
    pub frame_len: u32,
    module: Option<JITModule>,
    /// Targets of indirect calls; its address is in the code.
    _table: Box<[TableEntry]>,
}

/// An entry of the table of indirect calls, by function id.
#[repr(C)]
#[derive(Clone, Copy)]
struct TableEntry {
    code: *const u8,
    /// Number of the signature; `u32::MAX` where there is no function.
    signature: u32,
    reserved: u32,
}

// SAFETY: after construction the code and the table are only read and executed; the module is only touched by drop.
unsafe impl Send for Code {}
// SAFETY: as for Send.
unsafe impl Sync for Code {}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: the holder of a `Code` keeps it alive for as long as its entry may run (`CompiledKernel`'s contract).
            unsafe { module.free_memory() };
        }
    }
}

impl Compiler {
    /// # Errors
    /// If this machine has no code generator, or a helper is missing.
    pub fn new(helpers: Helpers) -> Result<Self, String> {
        for (name, _) in HELPERS {
            if !helpers.iter().any(|(n, _)| n == name) {
                return Err(format!("helper {name} is missing"));
            }
        }
        let mut flags = settings::builder();
        for (name, value) in [
            ("opt_level", "speed"),
            ("is_pic", "false"),
            ("use_colocated_libcalls", "false"),
            // Frames are limited below, so that no frame can step over a guard page unnoticed.
            ("enable_probestack", "false"),
            ("unwind_info", "false"),
            ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
            ("enable_heap_access_spectre_mitigation", "false"),
            ("enable_table_access_spectre_mitigation", "false"),
        ] {
            flags.set(name, value).map_err(|e| format!("code generator setting {name}: {e}"))?;
        }
        let isa = cranelift_native::builder()
            .map_err(|e| format!("no code generator for this machine: {e}"))?
            .finish(settings::Flags::new(flags))
            .map_err(|e| format!("no code generator for this machine: {e}"))?;
        let flag = |name: &str| isa.isa_flags().iter().any(|f| f.name == name && f.as_bool() == Some(true));
        let fma = cfg!(target_arch = "aarch64") || (flag("has_fma") && flag("has_avx"));
        Ok(Self { isa, fma, helpers: Arc::new(helpers) })
    }

    /// Compiles a kernel and its functions.
    ///
    /// # Errors
    /// What the code generator refuses, and frames that are too large.
    pub fn compile(&self, unit: &UnitIr<'_>) -> Result<Code, String> {
        let mut builder = JITBuilder::with_isa(self.isa.clone(), default_libcall_names());
        for (name, address) in self.helpers.iter() {
            builder.symbol(*name, *address as *const u8);
        }
        let mut module = JITModule::new(builder);
        let result = self.compile_into(unit, &mut module);
        match result {
            Ok((entry, frame_len, table)) => {
                Ok(Code { entry, frame_len, module: Some(module), _table: table })
            }
            Err(e) => {
                // SAFETY: no pointer into this module has left the function.
                unsafe { module.free_memory() };
                Err(e)
            }
        }
    }

    fn compile_into(
        &self,
        unit: &UnitIr<'_>,
        module: &mut JITModule,
    ) -> Result<(KernelFn, u32, Box<[TableEntry]>), String> {
        let mut ids: HashMap<u32, FuncId> = HashMap::new();
        let mut numbers: Vec<u32> = unit.functions.keys().copied().collect();
        numbers.sort_unstable();
        for number in &numbers {
            let id = module
                .declare_function(&format!("f{number}"), Linkage::Local, &device_signature(&*self.isa))
                .map_err(|e| e.to_string())?;
            ids.insert(*number, id);
        }
        let mut helper_ids = HashMap::new();
        for (name, shape) in HELPERS {
            let id = module
                .declare_function(name, Linkage::Import, &helper_signature(&*self.isa, shape))
                .map_err(|e| e.to_string())?;
            helper_ids.insert(*name, id);
        }
        let mut table = vec![
            TableEntry { code: std::ptr::null(), signature: u32::MAX, reserved: 0 };
            if unit.indirect.is_empty() { 0 } else { unit.layout.function_count as usize }
        ]
        .into_boxed_slice();
        let cx = func::UnitCx {
            unit,
            ids: &ids,
            helper_ids: &helper_ids,
            fma: self.fma,
            strong_stores: !cfg!(target_arch = "x86_64"),
            table: table.as_ptr() as usize,
            table_len: table.len() as u32,
        };
        let mut builder_cx = FunctionBuilderContext::new();
        let mut context = module.make_context();
        let kernel = module
            .declare_function("kernel", Linkage::Local, &kernel_signature(&*self.isa))
            .map_err(|e| e.to_string())?;
        let mut frame_len = 0;
        let all =
            numbers.iter().map(|n| (ids[n], &unit.functions[n], false)).chain([(kernel, &unit.kernel, true)]);
        for (id, func, is_kernel) in all {
            context.func.signature =
                if is_kernel { kernel_signature(&*self.isa) } else { device_signature(&*self.isa) };
            context.func.name = clif::UserFuncName::user(0, id.as_u32());
            let builder = FunctionBuilder::new(&mut context.func, &mut builder_cx);
            let len = func::translate(&cx, func, is_kernel, builder, module)?;
            if is_kernel {
                frame_len = len;
            }
            module.define_function(id, &mut context).map_err(|e| describe(&func.name, e))?;
            check_frame(&context, &func.name)?;
            module.clear_context(&mut context);
        }
        module.finalize_definitions().map_err(|e| e.to_string())?;
        for (number, signature) in &unit.indirect {
            table[*number as usize] = TableEntry {
                code: module.get_finalized_function(ids[number]),
                signature: *signature,
                reserved: 0,
            };
        }
        let entry = module.get_finalized_function(kernel);
        // SAFETY: the function was compiled with `kernel_signature`, which is the C signature of `KernelFn`.
        let entry = unsafe { std::mem::transmute::<*const u8, KernelFn>(entry) };
        Ok((entry, frame_len, table))
    }
}

fn describe(name: &str, error: cranelift_module::ModuleError) -> String {
    match error {
        cranelift_module::ModuleError::Compilation(e) => {
            format!("code generation for `{name}` failed: {e:?}")
        }
        e => format!("code generation for `{name}` failed: {e}"),
    }
}

fn check_frame(context: &Context, name: &str) -> Result<(), String> {
    let code = context.compiled_code().ok_or("no code was generated")?;
    let frame = code.buffer.frame_layout().map_or(0, |l| u64::from(l.frame_to_fp_offset));
    if frame > STACK_RESERVE / 2 { Err(format!("`{name}` needs {frame} bytes of stack")) } else { Ok(()) }
}

fn kernel_signature(isa: &dyn TargetIsa) -> clif::Signature {
    helper_signature(isa, "pp>i")
}

/// Device functions: thread, block, argument area, offset of the free local memory.
fn device_signature(isa: &dyn TargetIsa) -> clif::Signature {
    helper_signature(isa, "pppl")
}

fn helper_signature(isa: &dyn TargetIsa, shape: &str) -> clif::Signature {
    let mut signature = clif::Signature::new(isa.default_call_conv());
    let mut result = false;
    for c in shape.chars() {
        let ty = match c {
            '>' => {
                result = true;
                continue;
            }
            'i' => clif::types::I32,
            'f' => clif::types::F32,
            'd' => clif::types::F64,
            _ => clif::types::I64,
        };
        let list = if result { &mut signature.returns } else { &mut signature.params };
        list.push(clif::AbiParam::new(ty));
    }
    signature
}
