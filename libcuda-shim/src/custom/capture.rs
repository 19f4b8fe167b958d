#![allow(unsafe_code)]
//! Stream capture. Unsafe because results are written through the caller's pointers.
//!
//! The host captures, in its driver. Here only the questions are answered that need no host because nothing is capturing.

use core::ffi::c_uint;
use std::cell::RefCell;

use protocol::status::{CuResult, Status};

use crate::custom::context::require_init;
use crate::generated::wire;
use crate::pointer::out;
use crate::process::process;
use crate::thread;
use crate::types::*;

/// `CU_STREAM_CAPTURE_STATUS_NONE`, `_ACTIVE`.
const NOT_CAPTURING: CUstreamCaptureStatus = 0;
const CAPTURING: CUstreamCaptureStatus = 1;
/// `CU_STREAM_CAPTURE_MODE_GLOBAL`
const GLOBAL: c_uint = 0;

/// `capture_info` flags.
const WANT_DEPENDENCIES: u32 = 1;
const WANT_EDGES: u32 = 2;

/// More dependencies than any request has room for.
const MAX_DEPENDENCIES: usize = 1 << 20;

/// What a stream captures.
pub struct Captured {
    /// The graph.
    pub graph: u64,
    /// What the next node depends on.
    pub dependencies: Vec<u8>,
    /// Data of the edges to it, if there is any that is not 0.
    pub edges: Option<Vec<u8>>,
}

/// What a stream captures; none if it does not capture.
///
/// # Errors
/// STREAM_CAPTURE_INVALIDATED, those of the driver.
pub fn captured(stream: u64) -> Result<Option<Captured>, Status> {
    let mut status = NOT_CAPTURING;
    wire::cuStreamIsCapturing(stream, Some(&mut status))?;
    match status {
        NOT_CAPTURING => return Ok(None),
        CAPTURING => {}
        _ => return Err(Status::STREAM_CAPTURE_INVALIDATED),
    }
    let (mut graph, mut dependencies, mut edges) = (0, Vec::new(), Vec::new());
    let mut ask = |api, flags| {
        let (status, graph) = (Some(&mut status), Some(&mut graph));
        wire::capture_info(api, stream, flags, status, None, graph, Some(&mut dependencies), Some(&mut edges))
    };
    match ask(3, WANT_DEPENDENCIES | WANT_EDGES) {
        // A driver before 12.3 knows no data of edges.
        Err(Status::NOT_SUPPORTED) => ask(2, WANT_DEPENDENCIES)?,
        result => result?,
    }
    let edges = edges.iter().any(|byte| *byte != 0).then_some(edges);
    Ok(Some(Captured { graph, dependencies, edges }))
}

/// What a call returns that has failed with `status`. A fill in the legacy stream is refused while a stream is capturing that would have to wait for it,
/// and a driver looks at that before it looks at the address.
#[cold]
pub fn instead(name: &str, status: Status) -> Status {
    let fills = || name.starts_with("cuMemset") && !name.contains("Async") && !name.ends_with("_ptds");
    if status != Status::INVALID_VALUE || !process().captures.active() || !fills() {
        return status;
    }
    match wire::cuStreamIsCapturing(CU_STREAM_LEGACY as u64, Some(&mut { NOT_CAPTURING })) {
        Err(Status::STREAM_CAPTURE_IMPLICIT) => Status::STREAM_CAPTURE_IMPLICIT,
        _ => status,
    }
}

pub unsafe fn cuStreamBeginCapture(stream: CUstream) -> CuResult {
    // SAFETY: no pointers.
    unsafe { cuStreamBeginCapture_v2(stream, GLOBAL) }
}

pub unsafe fn cuStreamBeginCapture_v2(stream: CUstream, mode: CUstreamCaptureMode) -> CuResult {
    require_init()?;
    wire::cuStreamBeginCapture_v2(stream as u64, mode)?;
    process().captures.begun(stream as u64);
    Ok(())
}

pub unsafe fn cuStreamBeginCaptureToGraph(
    stream: CUstream,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    edges: *const CUgraphEdgeData,
    count: usize,
    mode: CUstreamCaptureMode,
) -> CuResult {
    require_init()?;
    if count > MAX_DEPENDENCIES {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: both are NULL or arrays of `count` elements of 8 bytes.
    let (dependencies, edges) = unsafe {
        (
            crate::marshal::data_in(dependencies.cast(), count * 8),
            crate::marshal::data_in(edges.cast(), count * 8),
        )
    };
    wire::cuStreamBeginCaptureToGraph(stream as u64, graph as u64, dependencies, edges, count as u64, mode)?;
    process().captures.begun(stream as u64);
    Ok(())
}

pub unsafe fn cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) -> CuResult {
    require_init()?;
    let mut made = (!graph.is_null()).then_some(0);
    let result = wire::cuStreamEndCapture(stream as u64, made.as_mut());
    // What fails may have ended the capture all the same (an invalidated one) or not (the wrong thread).
    let mut status = NOT_CAPTURING;
    if result.is_err() && wire::cuStreamIsCapturing(stream as u64, Some(&mut status)).is_err() {
        status = NOT_CAPTURING;
    }
    if status == NOT_CAPTURING {
        process().captures.ended(stream as u64);
    }
    if result.is_err() {
        made = (!graph.is_null()).then_some(0);
    }
    // SAFETY: NULL, or the caller's own variable.
    unsafe { crate::marshal::put(graph.cast(), made) };
    result
}

/// A stream is being destroyed.
pub fn stream_ended(stream: u64) {
    if process().captures.active() {
        process().captures.ended(stream);
    }
}

pub unsafe fn cuStreamIsCapturing(stream: CUstream, status: *mut CUstreamCaptureStatus) -> CuResult {
    require_init()?;
    if process().captures.active() {
        let mut found = (!status.is_null()).then_some(NOT_CAPTURING);
        wire::cuStreamIsCapturing(stream as u64, found.as_mut())?;
        if found == Some(NOT_CAPTURING) {
            process().captures.ended(stream as u64);
        }
        // SAFETY: NULL, or the caller's own variable.
        unsafe { crate::marshal::put(status, found) };
        return Ok(());
    }
    thread::require_context()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    *unsafe { out(status) }? = NOT_CAPTURING;
    Ok(())
}

thread_local! {
    /// What the last cuStreamGetCaptureInfo of the thread has given out: valid until the next one.
    static GIVEN: RefCell<(Vec<u64>, Vec<u64>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// What the program wants to know; pointers that are NULL are not wanted, or not in that version of the call.
struct Outputs {
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    edges: *mut *const CUgraphEdgeData,
    count: *mut usize,
}

/// # Safety
/// The outputs are NULL or valid for writes.
unsafe fn info(api: u32, stream: CUstream, outputs: &Outputs) -> CuResult {
    require_init()?;
    if !process().captures.active() {
        // SAFETY: passed on as received.
        return unsafe { cuStreamIsCapturing(stream, outputs.status) };
    }
    let mut flags = 0;
    if !outputs.dependencies.is_null() {
        flags |= WANT_DEPENDENCIES;
    }
    if !outputs.edges.is_null() {
        flags |= WANT_EDGES;
    }
    let mut status = (!outputs.status.is_null()).then_some(NOT_CAPTURING);
    let mut id = (!outputs.id.is_null()).then_some(0);
    let mut graph = (!outputs.graph.is_null()).then_some(0);
    let (mut nodes, mut edges) = (Vec::new(), Vec::new());
    wire::capture_info(
        api,
        stream as u64,
        flags,
        status.as_mut(),
        id.as_mut(),
        graph.as_mut(),
        Some(&mut nodes),
        Some(&mut edges),
    )?;
    // SAFETY: by the caller's promise, here and below.
    unsafe { crate::marshal::put(outputs.status, status) };
    if status != Some(CAPTURING) {
        return Ok(());
    }
    let words =
        |bytes: &[u8]| bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    GIVEN.with_borrow_mut(|given| {
        *given = (words(&nodes), words(&edges));
        // SAFETY: as above; the lists stay until the thread asks again.
        unsafe {
            crate::marshal::put(outputs.id, id);
            crate::marshal::put(outputs.graph.cast(), graph);
            let pointers = (given.0.as_ptr().cast(), given.1.as_ptr().cast());
            crate::marshal::put(
                outputs.dependencies,
                (!outputs.dependencies.is_null()).then_some(pointers.0),
            );
            crate::marshal::put(outputs.edges, (!outputs.edges.is_null()).then_some(pointers.1));
            crate::marshal::put(outputs.count, (!outputs.count.is_null()).then_some(given.0.len()));
        }
    });
    Ok(())
}

pub unsafe fn cuStreamGetCaptureInfo(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
) -> CuResult {
    let outputs = Outputs {
        status,
        id,
        graph: core::ptr::null_mut(),
        dependencies: core::ptr::null_mut(),
        edges: core::ptr::null_mut(),
        count: core::ptr::null_mut(),
    };
    // SAFETY: passed on as received.
    unsafe { info(1, stream, &outputs) }
}

pub unsafe fn cuStreamGetCaptureInfo_v2(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    count: *mut usize,
) -> CuResult {
    let outputs = Outputs { status, id, graph, dependencies, edges: core::ptr::null_mut(), count };
    // SAFETY: passed on as received.
    unsafe { info(2, stream, &outputs) }
}

pub unsafe fn cuStreamGetCaptureInfo_v3(
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    edges: *mut *const CUgraphEdgeData,
    count: *mut usize,
) -> CuResult {
    let outputs = Outputs { status, id, graph, dependencies, edges, count };
    // SAFETY: passed on as received.
    unsafe { info(3, stream, &outputs) }
}

pub unsafe fn cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode) -> CuResult {
    require_init()?;
    // SAFETY: the caller passes a pointer to its own variable, or NULL.
    let mode = unsafe { out(mode) }?;
    // A driver takes any number, and gives it back the next time. The host learns of it with the thread's next operation.
    thread::with(|thread| {
        core::mem::swap(mode, &mut thread.capture_mode);
        Ok(())
    })
}
