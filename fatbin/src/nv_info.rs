//! Records of the `.nv.info` sections: `u8 format`, `u8 attribute`, then by format 2 bytes of padding (1), a `u8` and
//! padding (2), a `u16` (3), or a `u16` length and that many bytes (4). Records start at multiples of 4.

use crate::bytes::{array, truncated};
use crate::error::{Error, ErrorKind, Result};

/// Attribute of `.nv.compat` that is 1 for an `a` variant.
pub(crate) const COMPAT_VARIANT: u8 = 9;

/// What a record says; only what this crate uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attribute {
    MaxThreads,
    ParamCbank,
    ReqNtid,
    FrameSize,
    MinStackSize,
    KparamInfo,
    CbankParamSize,
    MaxRegCount,
    RegCount,
    CudaApiVersion,
    KparamInfoV2,
    NumBarriers,
    Other,
}

impl Attribute {
    fn from_raw(raw: u8) -> Self {
        match raw {
            0x05 => Self::MaxThreads,
            0x0a => Self::ParamCbank,
            0x10 => Self::ReqNtid,
            0x11 => Self::FrameSize,
            0x12 => Self::MinStackSize,
            0x17 => Self::KparamInfo,
            0x19 => Self::CbankParamSize,
            0x1b => Self::MaxRegCount,
            0x2f => Self::RegCount,
            0x37 => Self::CudaApiVersion,
            0x45 => Self::KparamInfoV2,
            0x4c => Self::NumBarriers,
            _ => Self::Other,
        }
    }
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Offset in the section.
    pub offset: usize,
    pub attribute: Attribute,
    pub raw_attribute: u8,
    /// Value of formats 2 and 3, else 0.
    pub value: u16,
    /// Bytes of format 4, else none.
    pub payload: &'a [u8],
}

/// The records of a section. Ends after the first error.
pub(crate) fn records(data: &[u8]) -> Records<'_> {
    Records { data, pos: 0 }
}

pub(crate) struct Records<'a> {
    data: &'a [u8],
    pos: usize,
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Result<Record<'a>> {
        let offset = self.pos;
        let [format, raw_attribute, lo, hi] = array::<4>(self.data, offset)
            .ok_or_else(|| truncated(".nv.info record", offset, 4, self.data.len()))?;
        let word = u16::from_le_bytes([lo, hi]);
        let (value, len) = match format {
            1 => (0, 0),
            2 => (u16::from(lo), 0),
            3 => (word, 0),
            4 => (0, usize::from(word)),
            other => {
                let kind = ErrorKind::Unsupported { what: "record format", found: other.into() };
                return Err(Error::new(".nv.info record", offset as u64, kind));
            }
        };
        let start = offset + 4;
        let payload = self
            .data
            .get(start..start + len)
            .ok_or_else(|| truncated(".nv.info record", start, len as u64, self.data.len()))?;
        self.pos = start + len.next_multiple_of(4);
        Ok(Record { offset, attribute: Attribute::from_raw(raw_attribute), raw_attribute, value, payload })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pos >= self.data.len() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.pos = self.data.len();
        }
        Some(record)
    }
}
