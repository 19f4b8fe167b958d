//! What kernels print, until the program fetches it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ptx_cpu::engine::{OutputSink, OutputStream};

/// Bytes that are kept; more of it is lost, oldest first, as in CUDA's printf buffer.
const MAX_BYTES: usize = 16 << 20;

#[derive(Default)]
struct State {
    pieces: VecDeque<(OutputStream, Vec<u8>)>,
    bytes: usize,
}

/// The output of a session.
#[derive(Default)]
pub struct Output {
    state: Mutex<State>,
    pending: AtomicBool,
    expected: AtomicBool,
}

impl Output {
    /// Code has been loaded that can print.
    pub fn expect(&self) {
        self.expected.store(true, Ordering::Release);
    }

    /// Has code been loaded that can print?
    pub fn is_expected(&self) -> bool {
        self.expected.load(Ordering::Acquire)
    }

    /// Is there anything to fetch?
    pub fn pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Takes at most `max` bytes of one stream, in the order in which they were printed; `None` when there are none.
    pub fn take(&self, max: usize) -> Option<(OutputStream, Vec<u8>)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, mut bytes) = state.pieces.pop_front()?;
        if bytes.len() > max {
            let rest = bytes.split_off(max);
            state.pieces.push_front((stream, rest));
        }
        state.bytes -= bytes.len();
        self.pending.store(!state.pieces.is_empty(), Ordering::Release);
        Some((stream, bytes))
    }
}

impl OutputSink for Output {
    fn write(&self, stream: OutputStream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += bytes.len();
        match state.pieces.back_mut() {
            Some((last, piece)) if *last == stream && piece.len() < 1 << 16 => piece.extend_from_slice(bytes),
            _ => state.pieces.push_back((stream, bytes.to_vec())),
        }
        while state.bytes > MAX_BYTES {
            let Some((_, oldest)) = state.pieces.pop_front() else { break };
            state.bytes -= oldest.len();
        }
        self.pending.store(!state.pieces.is_empty(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_comes_in_order_and_in_parts() {
        let output = Output::default();
        assert!(!output.pending());
        output.write(OutputStream::Stdout, b"abc");
        output.write(OutputStream::Stdout, b"def");
        output.write(OutputStream::Stderr, b"!");
        assert!(output.pending());
        assert_eq!(output.take(4), Some((OutputStream::Stdout, b"abcd".to_vec())));
        assert_eq!(output.take(4), Some((OutputStream::Stdout, b"ef".to_vec())));
        assert_eq!(output.take(4), Some((OutputStream::Stderr, b"!".to_vec())));
        assert_eq!(output.take(4), None);
        assert!(!output.pending());
    }

    #[test]
    fn output_is_bounded() {
        let output = Output::default();
        for _ in 0..40 {
            output.write(OutputStream::Stdout, &vec![0; 1 << 20]);
        }
        assert!(output.state.lock().unwrap().bytes <= MAX_BYTES);
    }
}
