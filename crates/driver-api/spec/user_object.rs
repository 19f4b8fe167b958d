//! User objects: things of the program that live as long as the graphs that hold them.

/// Makes an object with a function of the program that is called when nothing holds it any more.
#[op(since = 11030)]
#[via(user_object_create, callback_next, callback_done)]
fn cuUserObjectCreate(
    object_out: *mut CUuserObject,
    ptr: *mut c_void,
    destroy: CUhostFn,
    initialRefcount: c_uint,
    flags: c_uint,
);

/// Adds references.
#[op(0x06a0, since = 11030)]
#[sync]
fn cuUserObjectRetain(object: CUuserObject, count: c_uint);

/// Gives references back.
#[op(0x06a1, since = 11030)]
#[sync]
fn cuUserObjectRelease(object: CUuserObject, count: c_uint);

/// Makes a graph hold an object.
#[op(0x06a2, since = 11030)]
#[sync]
fn cuGraphRetainUserObject(graph: CUgraph, object: CUuserObject, count: c_uint, flags: c_uint);

/// Makes a graph let go of an object.
#[op(0x06a3, since = 11030)]
#[sync]
fn cuGraphReleaseUserObject(graph: CUgraph, object: CUuserObject, count: c_uint);

/// Makes an object whose destruction is the function `id`, due as those of `callback_post` are; nothing waits for its return.
#[op(0x06a8)]
#[sync]
#[internal]
fn user_object_create(id: u64, initial_refcount: u32, flags: u32, #[out] object: *mut u64);
