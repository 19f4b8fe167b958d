//! The hand-written rows of `spec/capture.rs`. Captures themselves are the driver's: a lane's thread is the driver's thread of that program thread.
#![allow(unsafe_code)] // Calls the driver.
#![allow(clippy::too_many_arguments)]

use protocol::status::{CuResult, Status};

use super::graph::give_words;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::buffer::scalar;
use crate::generated::cuda_raw::Kind;
use crate::session::Call;

/// `capture_info` flags.
const WANT_DEPENDENCIES: u32 = 1;
const WANT_EDGES: u32 = 2;

/// `CU_STREAM_CAPTURE_STATUS_ACTIVE`
const ACTIVE: u32 = 1;

pub fn capture_info(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    api: u32,
    stream: u64,
    flags: u32,
    status: Option<&mut u32>,
    id: Option<&mut u64>,
    graph: Option<&mut u64>,
    dependencies: Option<&mut Vec<u8>>,
    edges: Option<&mut Vec<u8>>,
) -> CuResult {
    let stream = cuda.inward(Kind::CUstream, stream)?;
    let (mut state, mut graph_raw) = (0u32, 0u64);
    let (mut nodes_at, mut edges_at, mut count) = (0u64, 0u64, 0u64);
    let state_out = scalar(status.is_some().then_some(&mut state));
    let nodes_out = scalar((flags & WANT_DEPENDENCIES != 0).then_some(&mut nodes_at));
    let edges_out = scalar((flags & WANT_EDGES != 0).then_some(&mut edges_at));
    // SAFETY: every output is NULL or a variable of the right type.
    unsafe {
        match api {
            1 => cuda.raw().cuStreamGetCaptureInfo(stream, state_out, scalar(id)),
            2 => cuda.raw().cuStreamGetCaptureInfo_v2(
                stream,
                state_out,
                scalar(id),
                &mut graph_raw,
                nodes_out,
                &mut count,
            ),
            _ => cuda.raw().cuStreamGetCaptureInfo_v3(
                stream,
                state_out,
                scalar(id),
                &mut graph_raw,
                nodes_out,
                edges_out,
                &mut count,
            ),
        }
    }?;
    if let Some(status) = status {
        *status = state;
    }
    if state != ACTIVE || api < 2 {
        return Ok(());
    }
    cuda.room()?;
    let graph_id = cuda.born(call, Kind::CUgraph, graph_raw, None)?;
    if let Some(graph) = graph {
        *graph = graph_id;
    }
    let room = call.max_body().saturating_sub(256) / 16;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > room {
        tracing::warn!(count, room, "a capture with more dependencies than a reply has room for");
        return Err(Status::NOT_SUPPORTED);
    }
    let list = |at: u64| -> &[u64] {
        let pointer = core::ptr::with_exposed_provenance::<u64>(at as usize);
        // SAFETY: the driver's list of that many handles (or edge data of 8 bytes each), valid until the stream captures more, which only this
        // call's own thread or one that the program has not ordered could do.
        if pointer.is_null() { &[] } else { unsafe { core::slice::from_raw_parts(pointer, count) } }
    };
    let mut ids = Vec::with_capacity(count);
    for node in list(nodes_at) {
        ids.push(cuda.born(call, Kind::CUgraphNode, *node, Some(graph_id))?);
    }
    give_words(dependencies, &ids);
    give_words(edges, list(edges_at));
    Ok(())
}

pub fn lane_capture_mode(cuda: &CudaBackend, _: &mut Call<'_>, mode: u32) -> CuResult {
    let mut mode = mode;
    // SAFETY: the argument is a variable of the right type; a bad value is the driver's to refuse.
    unsafe { cuda.raw().cuThreadExchangeStreamCaptureMode(&mut mode) }
}

/// The number of a function is all that the driver keeps of it, so that it may be called any number of times.
pub fn capture_callback(
    cuda: &CudaBackend,
    call: &mut Call<'_>,
    stream: u64,
    id: u64,
    kind: u32,
) -> CuResult {
    super::internal::callback_post(cuda, call, stream, id, kind)
}
