//! What can be wrong with a module's words, and with requests for regions.

use protocol::broker::{Code, HostMessage, MessageError};

/// Why a connection was dropped, or a region is not to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are no message.
    #[error("malformed message: {0:?}")]
    Message(MessageError),
    /// A message that may not come now.
    #[error("{0}")]
    Order(&'static str),
    /// The connection is not the guest's current one.
    #[error("the connection has been replaced")]
    Stale,
    /// The module does not read what it is told.
    #[error("more than {0} bytes of answers wait for the module")]
    Output(usize),
    /// No such region in this session.
    #[error("the session has no region {0:#x}")]
    Unknown(u64),
    /// The session has ended, or its module's connection is gone.
    #[error("the session has ended")]
    Ended,
    /// A place outside of the region.
    #[error("{len_bytes} bytes at offset {offset_bytes:#x} do not lie in a region of {region_bytes} bytes")]
    Range {
        /// First byte.
        offset_bytes: u64,
        /// How many.
        len_bytes: u64,
        /// Length of the region.
        region_bytes: u64,
    },
    /// The guest's memory could not be read or written.
    #[error("guest memory at {0:#x} cannot be accessed")]
    Access(u64),
}

/// A connection that was not taken: what to tell the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("connection from port {source_port} refused: {code:?}")]
pub struct Refusal {
    /// The reason.
    pub code: Code,
    /// Port that it came from.
    pub source_port: u32,
}

impl Refusal {
    /// The message to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = [0; HostMessage::MAX_LEN];
        let len = HostMessage::Refused(self.code).encode(&mut out).unwrap_or(0);
        out[..len].to_vec()
    }
}
