//! The hand-written rows of `spec/user_object.rs`.
#![allow(unsafe_code)] // Gives the driver a function to call.

use core::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::Status;
use protocol::status::CuResult;

use super::put;
use crate::backend::callback::Due;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::callback::callbacks;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// What the driver keeps of an object.
struct Object {
    /// Number of the program's destructor.
    id: u64,
    /// The object's handle, which ends with it.
    handle: AtomicU64,
}

/// Handles of objects that have ended. They are taken out of the table before another object can be entered at the same address.
static GONE: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// The `CUhostFn` of all objects. On a thread of the driver, which does not wait for the program's destructor.
extern "C" fn destroy(object: *mut c_void) {
    // SAFETY: made by `Arc::into_raw` in `user_object_create`; the driver calls this once.
    let object = unsafe { Arc::from_raw(object.cast::<Object>().cast_const()) };
    GONE.lock().unwrap_or_else(PoisonError::into_inner).push(object.handle.load(Ordering::Acquire));
    callbacks().notify(Due { id: object.id, status: Status::SUCCESS });
}

pub fn user_object_create(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    id: u64,
    initial_refcount: u32,
    flags: u32,
    object: Option<&mut u64>,
) -> CuResult {
    cuda.room()?;
    let kept = Arc::new(Object { id, handle: AtomicU64::new(0) });
    let data = Arc::into_raw(Arc::clone(&kept));
    let mut raw = 0u64;
    let function = destroy as extern "C" fn(*mut c_void);
    // SAFETY: the output is a variable of the right type; the function lives as long as the process and takes what it is given here.
    let made = unsafe {
        cuda.raw().cuUserObjectCreate(
            &mut raw,
            data.cast_mut().cast(),
            function as *mut c_void,
            initial_refcount,
            flags,
        )
    };
    if made.is_err() {
        // SAFETY: the driver has refused it, so that nobody else will.
        drop(unsafe { Arc::from_raw(data) });
        return made;
    }
    let gone = core::mem::take(&mut *GONE.lock().unwrap_or_else(PoisonError::into_inner));
    gone.into_iter().for_each(|handle| cuda.handles.remove(handle));
    // It cannot end before the program knows its handle.
    let handle = cuda.born(call, Kind::CUuserObject, raw, None)?;
    kept.handle.store(handle, Ordering::Release);
    put(object, handle)
}
