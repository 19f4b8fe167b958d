//! Bounds-checked little-endian reads.

use crate::error::{Error, ErrorKind, Result};

/// `N` bytes at `offset`, if they are there.
pub(crate) fn array<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    array(data, offset).map(u32::from_le_bytes)
}

/// `N` bytes at `offset`, or a truncation error that names `field`.
pub(crate) fn need<const N: usize>(data: &[u8], offset: usize, field: &'static str) -> Result<[u8; N]> {
    array(data, offset).ok_or_else(|| truncated(field, offset, N as u64, data.len()))
}

/// Error for a field of `need` bytes at `offset` of an input of `len` bytes.
pub(crate) fn truncated(field: &'static str, offset: usize, need: u64, len: usize) -> Error {
    let have = len.saturating_sub(offset) as u64;
    Error::new(field, offset as u64, ErrorKind::Truncated { need, have })
}

/// `value` rounded up to a multiple of 8, `None` on overflow.
pub(crate) fn pad8(value: u64) -> Option<u64> {
    Some(value.checked_add(7)? & !7)
}

/// Splits a fixed-size header into its little-endian fields, in order.
///
/// The header is an array, so that running out of bytes is a defect of this crate's constants and not of the
/// input; it reads zeros then.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(header: &'a [u8]) -> Self {
        Self { rest: header }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk::<N>() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => {
                debug_assert!(false, "header constant is too small");
                [0; N]
            }
        }
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
