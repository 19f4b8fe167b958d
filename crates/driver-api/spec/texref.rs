//! Texture and surface references: the older way, by variables of a module.

/// A texture reference of a module, by name.
#[op(0x0740, since = 2000)]
#[sync]
fn cuModuleGetTexRef(
    #[out] #[parent(hmod)] pTexRef: *mut CUtexref,
    hmod: CUmodule,
    #[cstr] name: *const c_char,
);

/// A surface reference of a module, by name.
#[op(0x0741, since = 3000)]
#[sync]
fn cuModuleGetSurfRef(
    #[out] #[parent(hmod)] pSurfRef: *mut CUsurfref,
    hmod: CUmodule,
    #[cstr] name: *const c_char,
);

/// Creates a texture reference that no module has.
#[op(0x0742, since = 2000)]
#[sync]
fn cuTexRefCreate(#[out] pTexRef: *mut CUtexref);

/// Destroys a texture reference that was created.
#[op(0x0743, since = 2000)]
#[sync]
fn cuTexRefDestroy(#[dies] hTexRef: CUtexref);

/// Binds an array.
#[op(0x0744, since = 2000)]
#[sync]
fn cuTexRefSetArray(hTexRef: CUtexref, hArray: CUarray, Flags: c_uint);

/// Binds an array with mipmap levels.
#[op(0x0745, since = 5000)]
#[sync]
fn cuTexRefSetMipmappedArray(hTexRef: CUtexref, hMipmappedArray: CUmipmappedArray, Flags: c_uint);

/// Binds linear memory.
#[op(0x0746, since = 3020)]
#[sync]
fn cuTexRefSetAddress_v2(
    #[out] ByteOffset: *mut usize,
    hTexRef: CUtexref,
    dptr: CUdeviceptr,
    bytes: usize,
);

/// First version of cuTexRefSetAddress2D_v3 with addresses of 64 bits.
#[op(since = 3020)]
#[like(cuTexRefSetAddress2D_v3)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuTexRefSetAddress2D_v2(
    hTexRef: CUtexref,
    desc: *const CUDA_ARRAY_DESCRIPTOR,
    dptr: CUdeviceptr,
    Pitch: usize,
);

/// Binds rows of linear memory.
#[op(0x0747, since = 4010)]
#[sync]
fn cuTexRefSetAddress2D_v3(
    hTexRef: CUtexref,
    #[input] desc: *const CUDA_ARRAY_DESCRIPTOR,
    dptr: CUdeviceptr,
    Pitch: usize,
);

/// Sets the format of what is bound.
#[op(0x0748, since = 2000)]
#[sync]
fn cuTexRefSetFormat(hTexRef: CUtexref, fmt: CUarray_format, NumPackedComponents: c_int);

/// Sets what happens outside of a dimension.
#[op(0x0749, since = 2000)]
#[sync]
fn cuTexRefSetAddressMode(hTexRef: CUtexref, dim: c_int, am: CUaddress_mode);

/// Sets the filter.
#[op(0x074a, since = 2000)]
#[sync]
fn cuTexRefSetFilterMode(hTexRef: CUtexref, fm: CUfilter_mode);

/// Sets the filter between mipmap levels.
#[op(0x074b, since = 5000)]
#[sync]
fn cuTexRefSetMipmapFilterMode(hTexRef: CUtexref, fm: CUfilter_mode);

/// Sets an offset to the mipmap level.
#[op(0x074c, since = 5000)]
#[sync]
fn cuTexRefSetMipmapLevelBias(hTexRef: CUtexref, bias: f32);

/// Sets the range of mipmap levels.
#[op(0x074d, since = 5000)]
#[sync]
fn cuTexRefSetMipmapLevelClamp(hTexRef: CUtexref, minMipmapLevelClamp: f32, maxMipmapLevelClamp: f32);

/// Sets the limit of anisotropic filtering.
#[op(0x074e, since = 5000)]
#[sync]
fn cuTexRefSetMaxAnisotropy(hTexRef: CUtexref, maxAniso: c_uint);

/// Sets the four components of the border colour.
#[op(since = 8000)]
#[via(texref_set_border_color)]
fn cuTexRefSetBorderColor(hTexRef: CUtexref, pBorderColor: *mut f32);

/// As `cuTexRefSetBorderColor`.
#[op(0x074f)]
#[sync]
#[internal]
fn texref_set_border_color(texref: CUtexref, red: f32, green: f32, blue: f32, alpha: f32);

/// Sets flags.
#[op(0x0750, since = 2000)]
#[sync]
fn cuTexRefSetFlags(hTexRef: CUtexref, Flags: c_uint);

/// Bound address.
#[op(0x0751, since = 3020)]
#[sync]
fn cuTexRefGetAddress_v2(#[out] pdptr: *mut CUdeviceptr, hTexRef: CUtexref);

/// Bound array.
#[op(0x0752, since = 2000)]
#[sync]
fn cuTexRefGetArray(#[out] phArray: *mut CUarray, hTexRef: CUtexref);

/// Bound array with mipmap levels.
#[op(0x0753, since = 5000)]
#[sync]
fn cuTexRefGetMipmappedArray(#[out] phMipmappedArray: *mut CUmipmappedArray, hTexRef: CUtexref);

/// What happens outside of a dimension.
#[op(0x0754, since = 2000)]
#[sync]
fn cuTexRefGetAddressMode(#[out] pam: *mut CUaddress_mode, hTexRef: CUtexref, dim: c_int);

/// The filter.
#[op(0x0755, since = 2000)]
#[sync]
fn cuTexRefGetFilterMode(#[out] pfm: *mut CUfilter_mode, hTexRef: CUtexref);

/// Format of what is bound.
#[op(0x0756, since = 2000)]
#[sync]
fn cuTexRefGetFormat(
    #[out] pFormat: *mut CUarray_format,
    #[out] pNumChannels: *mut c_int,
    hTexRef: CUtexref,
);

/// The filter between mipmap levels.
#[op(0x0757, since = 5000)]
#[sync]
fn cuTexRefGetMipmapFilterMode(#[out] pfm: *mut CUfilter_mode, hTexRef: CUtexref);

/// The offset to the mipmap level.
#[op(0x0758, since = 5000)]
#[sync]
fn cuTexRefGetMipmapLevelBias(#[out] pbias: *mut f32, hTexRef: CUtexref);

/// The range of mipmap levels.
#[op(0x0759, since = 5000)]
#[sync]
fn cuTexRefGetMipmapLevelClamp(
    #[out] pminMipmapLevelClamp: *mut f32,
    #[out] pmaxMipmapLevelClamp: *mut f32,
    hTexRef: CUtexref,
);

/// The limit of anisotropic filtering.
#[op(0x075a, since = 5000)]
#[sync]
fn cuTexRefGetMaxAnisotropy(#[out] pmaxAniso: *mut c_int, hTexRef: CUtexref);

/// The four components of the border colour.
#[op(since = 8000)]
#[via(texref_get_border_color)]
fn cuTexRefGetBorderColor(pBorderColor: *mut f32, hTexRef: CUtexref);

/// As `cuTexRefGetBorderColor`.
#[op(0x075b)]
#[sync]
#[internal]
fn texref_get_border_color(
    texref: CUtexref,
    #[out] red: *mut f32,
    #[out] green: *mut f32,
    #[out] blue: *mut f32,
    #[out] alpha: *mut f32,
);

/// The flags.
#[op(0x075c, since = 2000)]
#[sync]
fn cuTexRefGetFlags(#[out] pFlags: *mut c_uint, hTexRef: CUtexref);

/// Binds an array to a surface reference.
#[op(0x075d, since = 3000)]
#[sync]
fn cuSurfRefSetArray(hSurfRef: CUsurfref, hArray: CUarray, Flags: c_uint);

/// The array of a surface reference.
#[op(0x075e, since = 3000)]
#[sync]
fn cuSurfRefGetArray(#[out] phArray: *mut CUarray, hSurfRef: CUsurfref);
