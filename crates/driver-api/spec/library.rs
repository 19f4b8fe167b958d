//! Libraries: modules that belong to no context.

/// Loads a library from memory.
#[op(since = 12000)]
#[via(image_query, image_chunk, image_commit, library_load)]
fn cuLibraryLoadData(
    library: *mut CUlibrary,
    code: *const c_void,
    jitOptions: *mut CUjit_option,
    jitOptionsValues: *mut *mut c_void,
    numJitOptions: c_uint,
    libraryOptions: *mut CUlibraryOption,
    libraryOptionValues: *mut *mut c_void,
    numLibraryOptions: c_uint,
);

/// Loads a library from a file.
#[op(since = 12000)]
#[via(image_query, image_chunk, image_commit, library_load)]
fn cuLibraryLoadFromFile(
    library: *mut CUlibrary,
    #[cstr] fileName: *const c_char,
    jitOptions: *mut CUjit_option,
    jitOptionsValues: *mut *mut c_void,
    numJitOptions: c_uint,
    libraryOptions: *mut CUlibraryOption,
    libraryOptionValues: *mut *mut c_void,
    numLibraryOptions: c_uint,
);

/// Unloads a library.
#[op(0x04c0, since = 12000)]
#[sync]
#[custom]
#[host_custom]
fn cuLibraryUnload(#[dies] library: CUlibrary);

/// A kernel of a library, by name.
#[op(0x04c1, since = 12000)]
#[sync]
#[custom]
fn cuLibraryGetKernel(#[out] #[parent(library)] pKernel: *mut CUkernel, library: CUlibrary, #[cstr] name: *const c_char);

/// The library's module in the current context.
#[op(0x04c2, since = 12000)]
#[sync]
#[custom]
fn cuLibraryGetModule(#[out] #[parent(library)] pMod: *mut CUmodule, library: CUlibrary);

/// Address and size of a variable in the current context, by name.
#[op(0x04c3, since = 12000)]
#[sync]
#[custom]
#[host_custom]
fn cuLibraryGetGlobal(
    #[out] dptr: *mut CUdeviceptr,
    #[out] bytes: *mut usize,
    library: CUlibrary,
    #[cstr] name: *const c_char,
);

/// Address and size of a managed variable, by name.
#[op(0x04c4, since = 12000)]
#[sync]
#[custom]
#[host_custom]
fn cuLibraryGetManaged(
    #[out] dptr: *mut CUdeviceptr,
    #[out] bytes: *mut usize,
    library: CUlibrary,
    #[cstr] name: *const c_char,
);

/// Number of kernels of a library.
#[op(0x04c5, since = 12040)]
#[sync]
#[custom]
fn cuLibraryGetKernelCount(#[out] count: *mut c_uint, lib: CUlibrary);

/// Kernels of a library.
#[op(0x04c6, since = 12040)]
#[sync]
#[custom]
fn cuLibraryEnumerateKernels(
    #[data_out(numKernels * 8)] #[parent(lib)] kernels: *mut CUkernel,
    numKernels: c_uint,
    lib: CUlibrary,
);

/// The kernel's function in the current context.
#[op(0x04c7, since = 12000)]
#[sync]
#[custom]
fn cuKernelGetFunction(#[out] #[parent(kernel)] pFunc: *mut CUfunction, kernel: CUkernel);

/// The library that a kernel belongs to.
#[op(since = 12050)]
#[local]
fn cuKernelGetLibrary(pLib: *mut CUlibrary, kernel: CUkernel);

/// The name of a kernel.
#[op(since = 12030)]
#[local]
fn cuKernelGetName(name: *mut *const c_char, hfunc: CUkernel);

/// Offset and size of a kernel's parameter.
#[op(since = 12040)]
#[local]
fn cuKernelGetParamInfo(
    kernel: CUkernel,
    paramIndex: usize,
    paramOffset: *mut usize,
    paramSize: *mut usize,
);

/// Number of a kernel's parameters.
#[op(since = 13020)]
#[local]
#[unchecked = "newer than the header level that cudarc is built for"]
fn cuKernelGetParamCount(kernel: CUkernel, paramCount: *mut usize);

/// An attribute of a kernel on a device.
#[op(since = 12000)]
#[local]
fn cuKernelGetAttribute(pi: *mut c_int, attrib: CUfunction_attribute, kernel: CUkernel, dev: CUdevice);

/// Sets an attribute of a kernel on a device.
#[op(since = 12000)]
#[via(cuFuncSetAttribute)]
fn cuKernelSetAttribute(attrib: CUfunction_attribute, val: c_int, kernel: CUkernel, dev: CUdevice);

/// Sets the preferred cache configuration of a kernel: a hint.
#[op(since = 12000)]
#[via(cuFuncSetCacheConfig)]
fn cuKernelSetCacheConfig(kernel: CUkernel, config: CUfunc_cache, dev: CUdevice);
