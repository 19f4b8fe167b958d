//! Headers of virtio vsock packets (virtio 1.2, section 5.10.6).

use anyhow::{Context as _, Result};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 44;
const STREAM: u16 = 1;

/// Operations.
pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// A header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub source_cid: u64,
    pub destination_cid: u64,
    pub source_port: u32,
    pub destination_port: u32,
    /// Of the payload.
    pub len: u32,
    pub op: u16,
    pub flags: u32,
    /// Bytes that the sender has room for in all.
    pub buffer: u32,
    /// Bytes that the sender has taken out of its buffer, ever.
    pub forwarded: u32,
}

impl Header {
    /// The bytes of it.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&self.source_cid.to_le_bytes());
        put(&self.destination_cid.to_le_bytes());
        put(&self.source_port.to_le_bytes());
        put(&self.destination_port.to_le_bytes());
        put(&self.len.to_le_bytes());
        put(&STREAM.to_le_bytes());
        put(&self.op.to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buffer.to_le_bytes());
        put(&self.forwarded.to_le_bytes());
        bytes
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.try_into().context("a packet's header is short")?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Ok(Self {
            source_cid: long(0),
            destination_cid: long(8),
            source_port: word(16),
            destination_port: word(20),
            len: word(24),
            op: u16::from_le_bytes([bytes[30], bytes[31]]),
            flags: word(32),
            buffer: word(36),
            forwarded: word(40),
        })
    }
}
