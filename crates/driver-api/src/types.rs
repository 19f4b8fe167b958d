//! The driver's type names and what each is on the wire.

/// What a named type of the driver API is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit integer: device pointers, `cuuint64_t`.
    Word,
    /// `size_t`.
    Size,
    /// Pointer to an opaque object; an id on the wire.
    Handle,
    /// Open enumeration, 32 bits, unsigned.
    Enum,
    /// `unsigned int`.
    Uint,
    /// `int` and ordinals.
    Int,
    /// `unsigned short`.
    Ushort,
    /// `unsigned char`.
    Uchar,
    /// `float`.
    Float,
    /// Structure or union of fixed size (bytes), without pointers or handles in it.
    Fixed(usize),
    /// The same with handles in it, and no other pointers: it travels as it is, and a backend puts its own handles in their places.
    Struct(usize),
    /// Function pointer: hand-written code only.
    Callback,
    /// Known only behind a pointer, in hand-written code.
    Opaque,
}

/// All names a prototype may use. `core` names are Rust's, the others live in the shim's `types` module.
const TYPES: &[(&str, Kind)] = &[
    // Rust's own names, for scalars and for internal operations.
    ("usize", Kind::Size),
    ("u64", Kind::Word),
    ("u32", Kind::Uint),
    ("i32", Kind::Int),
    ("u16", Kind::Ushort),
    ("u8", Kind::Uchar),
    ("f32", Kind::Float),
    ("c_uint", Kind::Uint),
    ("c_int", Kind::Int),
    ("c_ushort", Kind::Ushort),
    ("c_uchar", Kind::Uchar),
    ("c_ulonglong", Kind::Word),
    ("c_char", Kind::Opaque),
    ("c_void", Kind::Opaque),
    // Scalars of the driver.
    ("CUdeviceptr", Kind::Word),
    ("cuuint64_t", Kind::Word),
    ("cuuint32_t", Kind::Uint),
    ("CUlogIterator", Kind::Uint),
    // Objects that kernels name by number: the driver's own values.
    ("CUsurfObject", Kind::Word),
    ("CUtexObject", Kind::Word),
    ("CUdevice", Kind::Int),
    ("CUgraphConditionalHandle", Kind::Word),
    // Handles.
    ("CUarray", Kind::Handle),
    ("CUcontext", Kind::Handle),
    ("CUdevResourceDesc", Kind::Handle),
    ("CUevent", Kind::Handle),
    ("CUexternalMemory", Kind::Handle),
    ("CUexternalSemaphore", Kind::Handle),
    ("CUfunction", Kind::Handle),
    ("CUgraph", Kind::Handle),
    ("CUgraphExec", Kind::Handle),
    ("CUgraphNode", Kind::Handle),
    ("CUgreenCtx", Kind::Handle),
    ("CUkernel", Kind::Handle),
    ("CUlibrary", Kind::Handle),
    ("CUlinkState", Kind::Handle),
    ("CUmemGenericAllocationHandle", Kind::Handle),
    ("CUmemoryPool", Kind::Handle),
    ("CUmipmappedArray", Kind::Handle),
    ("CUmodule", Kind::Handle),
    ("CUstream", Kind::Handle),
    ("CUuserObject", Kind::Handle),
    ("CUsurfref", Kind::Handle),
    ("CUtexref", Kind::Handle),
    // Enumerations.
    ("CUaddress_mode", Kind::Enum),
    ("CUarray_format", Kind::Enum),
    ("CUatomicOperation", Kind::Enum),
    ("CUdevResourceType", Kind::Enum),
    ("CUdevice_P2PAttribute", Kind::Enum),
    ("CUdevice_attribute", Kind::Enum),
    ("CUdriverProcAddressQueryResult", Kind::Enum),
    ("CUexecAffinityType", Kind::Enum),
    ("CUfilter_mode", Kind::Enum),
    ("CUflushGPUDirectRDMAWritesScope", Kind::Enum),
    ("CUflushGPUDirectRDMAWritesTarget", Kind::Enum),
    ("CUfunc_cache", Kind::Enum),
    ("CUfunctionLoadingState", Kind::Enum),
    ("CUfunction_attribute", Kind::Enum),
    ("CUgraphExecUpdateResult", Kind::Enum),
    ("CUgraphInstantiateResult", Kind::Enum),
    ("CUgraphMem_attribute", Kind::Enum),
    ("CUgraphNodeType", Kind::Enum),
    ("CUjitInputType", Kind::Enum),
    ("CUkernelNodeAttrID", Kind::Enum),
    ("CUjit_option", Kind::Enum),
    ("CUlibraryOption", Kind::Enum),
    ("CUlimit", Kind::Enum),
    ("CUmemAccess_flags", Kind::Enum),
    ("CUmemAllocationGranularity_flags", Kind::Enum),
    ("CUmemAllocationHandleType", Kind::Enum),
    ("CUmemAllocationType", Kind::Enum),
    ("CUmemPool_attribute", Kind::Enum),
    ("CUmem_advise", Kind::Enum),
    ("CUmem_range_attribute", Kind::Enum),
    ("CUmoduleLoadingMode", Kind::Enum),
    ("CUoutput_mode", Kind::Enum),
    ("CUpointer_attribute", Kind::Enum),
    ("CUresult", Kind::Enum),
    ("CUsharedconfig", Kind::Enum),
    ("CUstreamAttrID", Kind::Enum),
    ("CUstreamCaptureMode", Kind::Enum),
    ("CUstreamCaptureStatus", Kind::Enum),
    ("CUtensorMapDataType", Kind::Enum),
    ("CUtensorMapFloatOOBfill", Kind::Enum),
    ("CUtensorMapIm2ColWideMode", Kind::Enum),
    ("CUtensorMapInterleave", Kind::Enum),
    ("CUtensorMapL2promotion", Kind::Enum),
    ("CUtensorMapSwizzle", Kind::Enum),
    // Structures that travel as bytes.
    ("CUDA_ARRAY3D_DESCRIPTOR", Kind::Fixed(40)),
    ("CUDA_ARRAY_DESCRIPTOR", Kind::Fixed(24)),
    ("CUDA_ARRAY_MEMORY_REQUIREMENTS", Kind::Fixed(32)),
    ("CUDA_ARRAY_SPARSE_PROPERTIES", Kind::Fixed(48)),
    ("CUDA_RESOURCE_VIEW_DESC", Kind::Fixed(112)),
    ("CUDA_TEXTURE_DESC", Kind::Fixed(104)),
    ("CUdevprop", Kind::Fixed(56)),
    ("CUDA_MEMSET_NODE_PARAMS", Kind::Struct(40)),
    ("CUkernelNodeAttrValue", Kind::Fixed(64)),
    ("CUexecAffinityParam", Kind::Fixed(8)),
    ("CUipcEventHandle", Kind::Fixed(64)),
    ("CUipcMemHandle", Kind::Fixed(64)),
    ("CUmemAccessDesc", Kind::Fixed(12)),
    ("CUmemAllocationProp", Kind::Fixed(32)),
    ("CUmemLocation", Kind::Fixed(8)),
    ("CUmemPoolProps", Kind::Fixed(88)),
    ("CUmemPoolPtrExportData", Kind::Fixed(64)),
    ("CUstreamAttrValue", Kind::Fixed(64)),
    ("CUuuid", Kind::Fixed(16)),
    // Structures with handles or device addresses in them, which a backend has to look at.
    ("CUDA_RESOURCE_DESC", Kind::Struct(144)),
    ("CUarrayMapInfo", Kind::Struct(96)),
    ("CUdevResource", Kind::Struct(144)),
    ("CUmemDecompressParams", Kind::Struct(64)),
    ("CUstreamBatchMemOpParams", Kind::Struct(48)),
    // Structures that hold host pointers or unions: only hand-written code looks inside.
    ("CUDA_BATCH_MEM_OP_NODE_PARAMS", Kind::Opaque),
    ("CUDA_EXT_SEM_SIGNAL_NODE_PARAMS", Kind::Opaque),
    ("CUDA_EXT_SEM_WAIT_NODE_PARAMS", Kind::Opaque),
    ("CUDA_GRAPH_INSTANTIATE_PARAMS", Kind::Opaque),
    ("CUDA_HOST_NODE_PARAMS", Kind::Opaque),
    ("CUDA_KERNEL_NODE_PARAMS", Kind::Opaque),
    ("CUDA_KERNEL_NODE_PARAMS_v1", Kind::Opaque),
    ("CUDA_MEMCPY2D", Kind::Opaque),
    ("CUDA_MEMCPY3D", Kind::Opaque),
    ("CUDA_LAUNCH_PARAMS", Kind::Opaque),
    ("CUDA_MEMCPY3D_BATCH_OP", Kind::Opaque),
    ("CUDA_MEMCPY3D_PEER", Kind::Opaque),
    ("CUDA_MEM_ALLOC_NODE_PARAMS", Kind::Opaque),
    ("CUctxCreateParams", Kind::Opaque),
    ("CUgraphEdgeData", Kind::Opaque),
    ("CUgraphExecUpdateResultInfo", Kind::Opaque),
    ("CUgraphNodeParams", Kind::Opaque),
    ("CUlaunchConfig", Kind::Opaque),
    ("CUmemcpyAttributes", Kind::Opaque),
    ("CUtensorMap", Kind::Opaque),
    // What hand-written code makes up.
    ("CUasyncCallbackHandle", Kind::Opaque),
    ("CUlogsCallbackHandle", Kind::Opaque),
    // Function pointers.
    ("CUasyncCallback", Kind::Callback),
    ("CUhostFn", Kind::Callback),
    ("CUlogsCallback", Kind::Callback),
    ("CUoccupancyB2DSize", Kind::Callback),
    ("CUstreamCallback", Kind::Callback),
];

/// The kind of a named type; `None` if the table does not know it.
pub fn kind_of(name: &str) -> Option<Kind> {
    TYPES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

/// The names of all handle types, sorted.
pub fn handle_names() -> Vec<&'static str> {
    let mut names: Vec<_> =
        TYPES.iter().filter(|(_, kind)| *kind == Kind::Handle).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names
}

/// True for names that are Rust's or `core::ffi`'s and not the driver's.
pub fn is_rust_name(name: &str) -> bool {
    name == "usize" || name.starts_with("c_") || matches!(name, "u64" | "u32" | "i32" | "u16" | "u8" | "f32")
}

/// A parameter's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// A type by name.
    Named(String),
    /// `[u8; N]`, in internal operations.
    Bytes(usize),
    /// `*mut T` (true) or `*const T`.
    Pointer(bool, Box<Type>),
}

impl Type {
    /// Prints the type; `rename` maps a name to the path under which it is in scope.
    pub fn print(&self, rename: &dyn Fn(&str) -> String) -> String {
        match self {
            Type::Named(name) => rename(name),
            Type::Bytes(len) => format!("[u8; {len}]"),
            Type::Pointer(true, inner) => format!("*mut {}", inner.print(rename)),
            Type::Pointer(false, inner) => format!("*const {}", inner.print(rename)),
        }
    }

    /// The type's kind; `None` for pointers and unknown names.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Type::Named(name) => kind_of(name),
            Type::Bytes(len) => Some(Kind::Fixed(*len)),
            Type::Pointer(..) => None,
        }
    }

    /// What the type points to.
    pub fn pointee(&self) -> Option<&Type> {
        match self {
            Type::Pointer(_, inner) => Some(inner),
            _ => None,
        }
    }

    /// The innermost name.
    pub fn base_name(&self) -> Option<&str> {
        match self {
            Type::Named(name) => Some(name),
            Type::Bytes(_) => None,
            Type::Pointer(_, inner) => inner.base_name(),
        }
    }
}

/// How a scalar or a fixed block looks in Rust on both ends of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// One word: the Rust type is the name given.
    Scalar(&'static str),
    /// That many bytes, padded to 8.
    Fixed(usize),
}

impl Wire {
    /// The Rust type on both ends.
    pub fn rust(self) -> String {
        match self {
            Wire::Scalar(name) => name.to_owned(),
            Wire::Fixed(len) => format!("[u8; {len}]"),
        }
    }
}

impl Kind {
    /// The wire form; `None` for what cannot travel.
    pub fn wire(self) -> Option<Wire> {
        Some(match self {
            Kind::Word | Kind::Size | Kind::Handle => Wire::Scalar("u64"),
            Kind::Enum | Kind::Uint => Wire::Scalar("u32"),
            Kind::Int => Wire::Scalar("i32"),
            Kind::Ushort => Wire::Scalar("u16"),
            Kind::Uchar => Wire::Scalar("u8"),
            Kind::Float => Wire::Scalar("f32"),
            Kind::Fixed(len) | Kind::Struct(len) => Wire::Fixed(len),
            Kind::Callback | Kind::Opaque => return None,
        })
    }
}
