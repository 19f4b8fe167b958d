//! How many bytes go over a lane's socket, after its handshake: where memory is shared, doorbells and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one end of a lane. Relaxed: they are sums, for people.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that this end has sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that this end has received.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
