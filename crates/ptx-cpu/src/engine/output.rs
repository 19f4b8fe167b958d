//! What kernels print: a bounded buffer per launch, emptied into the caller's sink by the launching thread.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Where a piece of output belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// `printf`
    Stdout,
    /// Failed assertions.
    Stderr,
}

/// Receives the output of kernels, on the thread that called [`launch`](super::Engine::launch).
pub trait OutputSink {
    /// One or more whole `printf`s.
    fn write(&self, stream: OutputStream, bytes: &[u8]);
}

impl<F: Fn(OutputStream, &[u8])> OutputSink for F {
    fn write(&self, stream: OutputStream, bytes: &[u8]) {
        self(stream, bytes);
    }
}

#[derive(Debug)]
struct Pieces {
    queue: VecDeque<(OutputStream, Vec<u8>)>,
    len: usize,
    dropped: u64,
}

/// What a piece costs beside its bytes: many short ones must not cost unlimited memory.
const PIECE_OVERHEAD: usize = 32;

/// First in, first out; when full, the oldest pieces give way, as in CUDA's printf buffer.
#[derive(Debug)]
pub(crate) struct OutputBuffer {
    limit: usize,
    pieces: Mutex<Pieces>,
}

impl OutputBuffer {
    pub(crate) fn new(limit: usize) -> Self {
        OutputBuffer { limit, pieces: Mutex::new(Pieces { queue: VecDeque::new(), len: 0, dropped: 0 }) }
    }

    /// Adds a piece. True if the buffer was empty: somebody may have to be told.
    pub(crate) fn push(&self, stream: OutputStream, bytes: Vec<u8>) -> bool {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = pieces.queue.is_empty();
        pieces.len += bytes.len() + PIECE_OVERHEAD;
        pieces.queue.push_back((stream, bytes));
        while pieces.len > self.limit {
            let Some((_, oldest)) = pieces.queue.pop_front() else { break };
            pieces.len -= oldest.len() + PIECE_OVERHEAD;
            pieces.dropped += 1;
        }
        was_empty
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).queue.is_empty()
    }

    /// Pieces that were lost so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).dropped
    }

    /// Hands everything over, neighbours of one stream together.
    pub(crate) fn drain(&self, sink: &dyn OutputSink) {
        let queue = {
            let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
            pieces.len = 0;
            std::mem::take(&mut pieces.queue)
        };
        let mut joined: Option<(OutputStream, Vec<u8>)> = None;
        for (stream, bytes) in queue {
            match &mut joined {
                Some((current, joined)) if *current == stream => joined.extend_from_slice(&bytes),
                _ => {
                    if let Some((stream, bytes)) = joined.replace((stream, bytes)) {
                        sink.write(stream, &bytes);
                    }
                }
            }
        }
        if let Some((stream, bytes)) = joined {
            sink.write(stream, &bytes);
        }
    }
}
