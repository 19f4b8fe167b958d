//! What an address is.

/// An attribute of an address.
#[op(since = 4000)]
#[via(pointer_info)]
fn cuPointerGetAttribute(data: *mut c_void, attribute: CUpointer_attribute, ptr: CUdeviceptr);

/// Several attributes of an address.
#[op(since = 7000)]
#[via(pointer_info)]
fn cuPointerGetAttributes(
    numAttributes: c_uint,
    attributes: *mut CUpointer_attribute,
    data: *mut *mut c_void,
    ptr: CUdeviceptr,
);

/// Sets an attribute of an address.
#[op(since = 6000)]
#[via(pointer_info)]
fn cuPointerSetAttribute(value: *const c_void, attribute: CUpointer_attribute, ptr: CUdeviceptr);
