//! The crate's error.

use std::io;

use protocol::frame::{FrameError, Kind};
use protocol::handshake::{HandshakeError, Refused};
use protocol::lane::LanePlacement;
use protocol::wire::WireError;

use crate::ring::Corrupt;

/// What can go wrong on a connection, a window or a lane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was attempted.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The other side has closed the connection.
    #[error("the other side has closed the connection")]
    HungUp,
    /// The other side was silent or slow for too long.
    #[error("timed out while waiting to {0}")]
    Timeout(&'static str),
    /// Another process listens there.
    #[error("{0} is in use by another process")]
    InUse(std::path::PathBuf),
    /// Bytes that are no frame of this protocol.
    #[error("not a frame of this protocol")]
    Frame(#[from] FrameError),
    /// A malformed or unexpected handshake frame.
    #[error(transparent)]
    Handshake(HandshakeError),
    /// The other side declined the connection.
    #[error("connection refused by the daemon: {0}")]
    Refused(Box<Refused>),
    /// A frame came with another number of descriptors than it must have.
    #[error("frame with {got} descriptors, {expected} expected")]
    Descriptors {
        /// How many came (one more than the maximum stands for "too many").
        got: usize,
        /// How many the frame has.
        expected: usize,
    },
    /// A descriptor is not the window that was announced.
    #[error("not the announced window: {0}")]
    Window(&'static str),
    /// The address range is taken.
    #[error("address range {start:#x}..{:#x} is taken", start + len)]
    RangeTaken {
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
    },
    /// Offset and length do not lie in the window or staging area.
    #[error("{len} bytes at offset {offset} are outside an area of {area_len} bytes")]
    Bounds {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Bytes of the area.
        area_len: u64,
    },
    /// The lane's block does not fit in the window, or its sizes are not valid.
    #[error("lane placement {0:?} is not valid")]
    Placement(LanePlacement),
    /// A frame is larger than the limit, or not a multiple of 8 bytes. A fault of the caller; the lane stays usable.
    #[error("frame body of {len} bytes, limit {max} and a multiple of 8")]
    BodyLen {
        /// Bytes of the body.
        len: usize,
        /// The limit.
        max: u32,
    },
    /// The ring's contents make no sense. The lane is unusable from here on.
    #[error("corrupt ring")]
    Corrupt(#[from] Corrupt),
    /// A frame that does not belong here. The lane is unusable from here on.
    #[error("unexpected frame: {field} is {got}, {expected} expected")]
    Unexpected {
        /// Which field of the header.
        field: &'static str,
        /// Its value.
        got: u64,
        /// The value that it must have.
        expected: u64,
    },
    /// A frame of a kind that does not belong here. The lane is unusable from here on.
    #[error("unexpected frame of {0:?}")]
    UnexpectedKind(Kind),
    /// A data frame whose bytes do not fill it or do not lie in the staging area. The lane is unusable from here on.
    #[error("data frame of {len} bytes that does not fit itself or the staging area of {area_len} bytes")]
    Data {
        /// Bytes of the frame's body.
        len: u32,
        /// Bytes of the staging area.
        area_len: u64,
    },
    /// A frame whose body is malformed. The lane is unusable from here on.
    #[error("malformed frame of {0:?}: {1}")]
    Body(Kind, WireError),
    /// More watches than a program needs are unanswered. The lane is unusable from here on.
    #[error("more than {} unanswered watches", crate::stream::MAX_WATCHES)]
    Watches,
    /// The other side speaks no kind of lane that this connection can carry.
    #[error("no common kind of lane")]
    Lanes,
    /// The lane has failed before.
    #[error("the lane has failed before")]
    Dead,
}

impl Error {
    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Error {
        Error::Io { action: action.into(), source }
    }

    /// Whether the other side broke the protocol: the session must be closed and the event counted.
    pub fn is_violation(&self) -> bool {
        matches!(
            self,
            Error::Frame(_)
                | Error::Handshake(_)
                | Error::Descriptors { .. }
                | Error::Window(_)
                | Error::Placement(_)
                | Error::Corrupt(_)
                | Error::Unexpected { .. }
                | Error::UnexpectedKind(_)
                | Error::Data { .. }
                | Error::Body(..)
                | Error::Watches
                | Error::Lanes
        )
    }
}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Error {
        match error {
            HandshakeError::Refused(refused) => Error::Refused(refused),
            other => Error::Handshake(other),
        }
    }
}
