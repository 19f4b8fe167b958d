//! Modules. Images are chosen, hashed and kept in the guest; the host is asked at the first use.

/// Loads a module from a file.
#[op(since = 2000)]
#[via(image_query, image_chunk, image_commit, module_load)]
fn cuModuleLoad(module: *mut CUmodule, #[cstr] fname: *const c_char);

/// Loads a module from memory.
#[op(since = 2000)]
#[via(image_query, image_chunk, image_commit, module_load)]
fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void);

/// Loads a module from memory, with options for the compiler.
#[op(since = 2010)]
#[via(image_query, image_chunk, image_commit, module_load)]
fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    image: *const c_void,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
);

/// Loads a module from a fat binary.
#[op(since = 2000)]
#[via(image_query, image_chunk, image_commit, module_load)]
fn cuModuleLoadFatBinary(module: *mut CUmodule, fatCubin: *const c_void);

/// Unloads a module.
#[op(0x0480, since = 2000)]
#[sync]
#[custom]
#[host_custom]
fn cuModuleUnload(#[dies] hmod: CUmodule);

/// A kernel of a module, by name.
#[op(0x0481, since = 2000)]
#[sync]
#[custom]
fn cuModuleGetFunction(#[out] #[parent(hmod)] hfunc: *mut CUfunction, hmod: CUmodule, #[cstr] name: *const c_char);

/// Address and size of a variable of a module, by name.
#[op(0x0482, since = 3020)]
#[sync]
#[custom]
#[host_custom]
fn cuModuleGetGlobal_v2(
    #[out] dptr: *mut CUdeviceptr,
    #[out] bytes: *mut usize,
    hmod: CUmodule,
    #[cstr] name: *const c_char,
);

/// Number of kernels of a module.
#[op(0x0483, since = 12040)]
#[sync]
#[custom]
fn cuModuleGetFunctionCount(#[out] count: *mut c_uint, mod_: CUmodule);

/// Kernels of a module.
#[op(0x0484, since = 12040)]
#[sync]
#[custom]
fn cuModuleEnumerateFunctions(
    #[data_out(numFunctions * 8)] #[parent(mod_)] functions: *mut CUfunction,
    numFunctions: c_uint,
    mod_: CUmodule,
);
