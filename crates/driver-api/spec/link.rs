//! The linker. Inputs are collected in the guest and linked by the host at the end.

/// First version of cuLinkCreate_v2.
#[op(since = 5050)]
#[like(cuLinkCreate_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuLinkCreate(
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
    stateOut: *mut CUlinkState,
);

/// Starts a link.
#[op(since = 6050)]
#[local]
fn cuLinkCreate_v2(
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
    stateOut: *mut CUlinkState,
);

/// First version of cuLinkAddData_v2.
#[op(since = 5050)]
#[like(cuLinkAddData_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuLinkAddData(
    state: CUlinkState,
    type_: CUjitInputType,
    data: *mut c_void,
    size: usize,
    #[cstr] name: *const c_char,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
);

/// Adds an input from memory.
#[op(since = 6050)]
#[via(image_query, image_chunk, image_commit)]
fn cuLinkAddData_v2(
    state: CUlinkState,
    type_: CUjitInputType,
    data: *mut c_void,
    size: usize,
    #[cstr] name: *const c_char,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
);

/// First version of cuLinkAddFile_v2.
#[op(since = 5050)]
#[like(cuLinkAddFile_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuLinkAddFile(
    state: CUlinkState,
    type_: CUjitInputType,
    #[cstr] path: *const c_char,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
);

/// Adds an input from a file.
#[op(since = 6050)]
#[via(image_query, image_chunk, image_commit)]
fn cuLinkAddFile_v2(
    state: CUlinkState,
    type_: CUjitInputType,
    #[cstr] path: *const c_char,
    numOptions: c_uint,
    options: *mut CUjit_option,
    optionValues: *mut *mut c_void,
);

/// Links the inputs to an image.
#[op(since = 5050)]
#[via(link_images)]
fn cuLinkComplete(state: CUlinkState, cubinOut: *mut *mut c_void, sizeOut: *mut usize);

/// Ends a link; its image goes.
#[op(since = 5050)]
#[local]
fn cuLinkDestroy(state: CUlinkState);
