//! Stream capture.
//!
//! As long as nothing is capturing in the process, questions about it are answered in the guest. While something is, every posted
//! operation is waited for, because what a capture forbids is reported by the call that does it.

/// First version of cuStreamBeginCapture_v2, with the global mode.
#[op(since = 10000, ptsz = 10000)]
#[via(cuStreamBeginCapture_v2)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamBeginCapture(#[stream] hStream: CUstream);

/// Begins to capture what is asked of a stream into a new graph.
#[op(0x0690, since = 10010, ptsz = 10010)]
#[sync]
#[custom]
fn cuStreamBeginCapture_v2(#[stream] hStream: CUstream, mode: CUstreamCaptureMode);

/// Begins to capture what is asked of a stream into an existing graph.
#[op(0x0691, since = 12030, ptsz = 12030)]
#[sync]
#[custom]
fn cuStreamBeginCaptureToGraph(
    #[stream] hStream: CUstream,
    hGraph: CUgraph,
    #[data_in(numDependencies * 8)] dependencies: *const CUgraphNode,
    #[data_in(numDependencies * 8)] dependencyData: *const CUgraphEdgeData,
    numDependencies: usize,
    mode: CUstreamCaptureMode,
);

/// Ends a capture and gives its graph.
#[op(0x0692, since = 10000, ptsz = 10000)]
#[sync]
#[custom]
fn cuStreamEndCapture(#[stream] hStream: CUstream, #[out] phGraph: *mut CUgraph);

/// Whether a stream is capturing.
#[op(0x0693, since = 10000, ptsz = 10000)]
#[sync]
#[custom]
fn cuStreamIsCapturing(#[stream] hStream: CUstream, #[out] captureStatus: *mut CUstreamCaptureStatus);

/// Capture state of a stream.
#[op(since = 10010, ptsz = 10010)]
#[via(capture_info)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamGetCaptureInfo(
    #[stream] hStream: CUstream,
    captureStatus_out: *mut CUstreamCaptureStatus,
    id_out: *mut cuuint64_t,
);

/// Capture state of a stream, with graph and dependencies.
#[op(since = 11030, ptsz = 11030)]
#[via(capture_info)]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamGetCaptureInfo_v2(
    #[stream] hStream: CUstream,
    captureStatus_out: *mut CUstreamCaptureStatus,
    id_out: *mut cuuint64_t,
    graph_out: *mut CUgraph,
    dependencies_out: *mut *const CUgraphNode,
    numDependencies_out: *mut usize,
);

/// Capture state of a stream, with graph, dependencies and edges.
#[op(since = 12030, ptsz = 12030)]
#[via(capture_info)]
fn cuStreamGetCaptureInfo_v3(
    #[stream] hStream: CUstream,
    captureStatus_out: *mut CUstreamCaptureStatus,
    id_out: *mut cuuint64_t,
    graph_out: *mut CUgraph,
    dependencies_out: *mut *const CUgraphNode,
    edgeData_out: *mut *const CUgraphEdgeData,
    numDependencies_out: *mut usize,
);

/// Changes the nodes that the next captured one depends on.
#[op(0x0694, since = 11030, ptsz = 11030)]
#[sync]
#[unchecked = "an older ABI name, not in the header any more"]
fn cuStreamUpdateCaptureDependencies(
    #[stream] hStream: CUstream,
    #[data_in(numDependencies * 8)] dependencies: *mut CUgraphNode,
    numDependencies: usize,
    flags: c_uint,
);

/// Changes the nodes that the next captured one depends on, with data of the edges.
#[op(0x0695, since = 12030, ptsz = 12030)]
#[sync]
fn cuStreamUpdateCaptureDependencies_v2(
    #[stream] hStream: CUstream,
    #[data_in(numDependencies * 8)] dependencies: *mut CUgraphNode,
    #[data_in(numDependencies * 8)] dependencyData: *const CUgraphEdgeData,
    numDependencies: usize,
    flags: c_uint,
);

/// Exchanges the calling thread's capture mode.
#[op(since = 10010)]
#[via(lane_capture_mode)]
fn cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode);

/// Capture state of a stream. `api` is the version of the call. `flags` bit 0: the dependencies are wanted, bit 1: with data of the edges.
#[op(0x0698)]
#[sync]
#[internal]
fn capture_info(
    api: u32,
    stream: u64,
    flags: u32,
    #[out] status: *mut u32,
    #[out] id: *mut u64,
    #[out] graph: *mut u64,
    #[data_out] dependencies: *mut u8,
    #[data_out] edges: *mut u8,
);

/// The capture mode of the lane's thread. Sent before the next operation when it has changed.
#[op(0x0699)]
#[posted]
#[internal]
fn lane_capture_mode(mode: u32);

/// As `callback_post`, for a stream that may be capturing: the function may be called any number of times.
#[op(0x069a)]
#[sync]
#[internal]
fn capture_callback(stream: u64, id: u64, kind: u32);
