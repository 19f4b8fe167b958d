//! Tensor maps: descriptors that kernels copy parts of tensors by. An encoding is opaque; only the driver knows how to make it.

/// Encodes a tensor that is copied in boxes.
#[op(since = 12000)]
#[via(tensor_map_tiled)]
fn cuTensorMapEncodeTiled(
    tensorMap: *mut CUtensorMap,
    tensorDataType: CUtensorMapDataType,
    tensorRank: cuuint32_t,
    globalAddress: *mut c_void,
    globalDim: *const cuuint64_t,
    globalStrides: *const cuuint64_t,
    boxDim: *const cuuint32_t,
    elementStrides: *const cuuint32_t,
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    l2Promotion: CUtensorMapL2promotion,
    oobFill: CUtensorMapFloatOOBfill,
);

/// As `cuTensorMapEncodeTiled`; the arrays hold as many bytes as the rank demands.
#[op(0x0770)]
#[sync]
#[internal]
fn tensor_map_tiled(
    #[out] map: *mut [u8; 128],
    data_type: u32,
    rank: u32,
    address: u64,
    #[data_in] dims: *const u8,
    #[data_in] strides: *const u8,
    #[data_in] box_dims: *const u8,
    #[data_in] element_strides: *const u8,
    interleave: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
);

/// Encodes a tensor that is copied in columns of pixels.
#[op(since = 12000)]
#[via(tensor_map_im2col)]
fn cuTensorMapEncodeIm2col(
    tensorMap: *mut CUtensorMap,
    tensorDataType: CUtensorMapDataType,
    tensorRank: cuuint32_t,
    globalAddress: *mut c_void,
    globalDim: *const cuuint64_t,
    globalStrides: *const cuuint64_t,
    pixelBoxLowerCorner: *const c_int,
    pixelBoxUpperCorner: *const c_int,
    channelsPerPixel: cuuint32_t,
    pixelsPerColumn: cuuint32_t,
    elementStrides: *const cuuint32_t,
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    l2Promotion: CUtensorMapL2promotion,
    oobFill: CUtensorMapFloatOOBfill,
);

/// As `cuTensorMapEncodeIm2col`.
#[op(0x0771)]
#[sync]
#[internal]
fn tensor_map_im2col(
    #[out] map: *mut [u8; 128],
    data_type: u32,
    rank: u32,
    address: u64,
    #[data_in] dims: *const u8,
    #[data_in] strides: *const u8,
    #[data_in] lower_corner: *const u8,
    #[data_in] upper_corner: *const u8,
    channels_per_pixel: u32,
    pixels_per_column: u32,
    #[data_in] element_strides: *const u8,
    interleave: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
);

/// Encodes a tensor that is copied in columns of pixels along its width.
#[op(since = 12080)]
#[via(tensor_map_im2col_wide)]
fn cuTensorMapEncodeIm2colWide(
    tensorMap: *mut CUtensorMap,
    tensorDataType: CUtensorMapDataType,
    tensorRank: cuuint32_t,
    globalAddress: *mut c_void,
    globalDim: *const cuuint64_t,
    globalStrides: *const cuuint64_t,
    pixelBoxLowerCornerWidth: c_int,
    pixelBoxUpperCornerWidth: c_int,
    channelsPerPixel: cuuint32_t,
    pixelsPerColumn: cuuint32_t,
    elementStrides: *const cuuint32_t,
    interleave: CUtensorMapInterleave,
    mode: CUtensorMapIm2ColWideMode,
    swizzle: CUtensorMapSwizzle,
    l2Promotion: CUtensorMapL2promotion,
    oobFill: CUtensorMapFloatOOBfill,
);

/// As `cuTensorMapEncodeIm2colWide`.
#[op(0x0772)]
#[sync]
#[internal]
fn tensor_map_im2col_wide(
    #[out] map: *mut [u8; 128],
    data_type: u32,
    rank: u32,
    address: u64,
    #[data_in] dims: *const u8,
    #[data_in] strides: *const u8,
    lower_corner: i32,
    upper_corner: i32,
    channels_per_pixel: u32,
    pixels_per_column: u32,
    #[data_in] element_strides: *const u8,
    interleave: u32,
    mode: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
);

/// Puts another address into an encoded tensor map.
#[op(since = 12000)]
#[via(tensor_map_replace_address)]
fn cuTensorMapReplaceAddress(tensorMap: *mut CUtensorMap, globalAddress: *mut c_void);

/// As `cuTensorMapReplaceAddress`.
#[op(0x0773)]
#[sync]
#[internal]
fn tensor_map_replace_address(
    #[input] map: *const [u8; 128],
    address: u64,
    #[out] replaced: *mut [u8; 128],
);
