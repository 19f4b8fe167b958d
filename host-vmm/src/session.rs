//! What a backend sees of the session and of the lane that a call comes from.

use std::sync::{Arc, Mutex, PoisonError};

use protocol::Status;
use transport::HostSignals;

use crate::config::Config;
use crate::stats::Counters;
use crate::worker::registry::Registry;
use crate::worker::window::Window;

/// State of a worker that does not belong to the backend. Shared by all lanes.
pub struct Session {
    pub config: Config,
    pub window: Arc<Window>,
    pub registry: Arc<Registry>,
    pub counters: Arc<Counters>,
}

impl Session {
    pub fn new(config: Config, window: Arc<Window>) -> Self {
        let registry = Registry::new(config.limits.image_bytes, config.limits.images_bytes);
        Self { config, window, registry: Arc::new(registry), counters: Arc::default() }
    }
}

/// Where errors of a lane's posted calls go that show only when their stream gets to them. Empty once the lane has ended.
#[derive(Default)]
pub struct Latch(Mutex<Option<HostSignals>>);

impl Latch {
    pub fn new(signals: HostSignals) -> Self {
        Self(Mutex::new(Some(signals)))
    }

    /// Notes an error; the first one stays until the program takes it.
    pub fn set(&self, status: Status) {
        if let Some(signals) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            signals.latch(status);
        }
    }

    /// The lane has ended and its memory is about to be used again.
    pub fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// One piece of a staged copy that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The slot of the staging area that it uses.
    pub slot: u64,
    /// Number of its request.
    pub seq: u64,
    /// The backend's name for it.
    pub token: u64,
}

/// A lane's side of the calls that come through it.
pub struct Lane {
    /// Number of the lane in its session, from 1; never used again.
    pub id: u64,
    /// Handle of the current context of the program's thread, 0 for none.
    pub context: u64,
    /// Address and length of the staging area.
    pub staging: (u64, u64),
    pub latch: Arc<Latch>,
    /// Staged copies that are under way until the backend says that they are [finished](crate::backend::Backend::finished).
    pub in_flight: Vec<Piece>,
    /// The backend's note that it has made the staging area known to its device.
    pub staging_epoch: u64,
}

impl Lane {
    pub fn new(id: u64, staging: (u64, u64), latch: Arc<Latch>) -> Self {
        Self { id, context: 0, staging, latch, in_flight: Vec::new(), staging_epoch: 0 }
    }
}

/// One call in progress.
pub struct Call<'a> {
    pub session: &'a Session,
    pub lane: &'a mut Lane,
    /// Longest body of a reply, in bytes.
    pub max_body: usize,
    /// Set by calls that synchronise when the program has device output to fetch.
    pub device_output: bool,
    /// Set by a staged copy that is under way when the call returns: the backend's token for it.
    pub in_flight: Option<u64>,
}

impl Call<'_> {
    /// Longest body of a reply, in bytes: no output buffer needs to be larger.
    pub fn max_body(&self) -> usize {
        self.max_body
    }

    /// The address of `len` bytes of the staging area at `offset`.
    pub fn staging(&self, offset: u64, len: u64) -> Option<u64> {
        let (address, total) = self.lane.staging;
        (offset <= total && len <= total - offset).then(|| address + offset)
    }
}
