//! The header of vsock packets, as virtio has it.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// The host's context id.
pub const HOST_CID: u64 = 2;
/// The only kind of socket that there is here: a stream.
pub const STREAM: u16 = 1;

/// What a packet is.
pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flags of [`op::SHUTDOWN`]: what its sender will not do any more.
pub mod shutdown {
    pub const RECEIVE: u32 = 1;
    pub const SEND: u32 = 2;
    pub const BOTH: u32 = RECEIVE | SEND;
}

/// A packet's header.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    pub src_cid: U64,
    pub dst_cid: U64,
    pub src_port: U32,
    pub dst_port: U32,
    /// Bytes that follow the header.
    pub len: U32,
    /// The kind of socket.
    pub kind: U16,
    pub op: U16,
    pub flags: U32,
    /// Size of the sender's receive buffer.
    pub buf_alloc: U32,
    /// Bytes that have left that buffer so far, modulo 2^32.
    pub fwd_cnt: U32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_virtios() {
        let header = Header {
            src_cid: 3.into(),
            dst_cid: HOST_CID.into(),
            src_port: 0x1001.into(),
            dst_port: 0x2002.into(),
            len: 5.into(),
            kind: STREAM.into(),
            op: op::RW.into(),
            flags: 0x77.into(),
            buf_alloc: 0x4_0000.into(),
            fwd_cnt: 9.into(),
        };
        let mut wire = vec![3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 0, 0, 2, 0x20, 0, 0];
        wire.extend([5, 0, 0, 0, 1, 0, 5, 0, 0x77, 0, 0, 0, 0, 0, 4, 0, 9, 0, 0, 0]);
        assert_eq!(header.as_bytes(), wire);
        assert_eq!(HEADER_BYTES, 44);
    }
}
