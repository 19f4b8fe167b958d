//! Bodies: u64 words and padded bytes. The generated code of both sides is made of these calls.
//!
//! The encoding is canonical (padding is zero, a narrow integer's upper half is zero), so that equal requests have equal bytes.

use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

/// The length word that stands for a null pointer.
pub const NULL: u64 = u64::MAX;

/// `len` rounded up to a multiple of 8, the space that `len` bytes take in a body.
#[inline]
pub const fn padded_len(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// Appends words and blobs to a buffer that is reused from call to call.
pub struct Writer<'a> {
    buf: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Empties `buf` (its capacity stays) and writes to it.
    #[inline]
    pub fn new(buf: &'a mut Vec<u8>) -> Writer<'a> {
        buf.clear();
        Writer { buf }
    }

    /// One word.
    #[inline]
    pub fn u64(&mut self, value: u64) {
        self.buf.extend_from_slice(&value.to_le_bytes());
    }

    /// One word, upper half zero.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.u64(u64::from(value));
    }

    /// One word: the 32 bits in the lower half, upper half zero (no sign extension).
    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.u32(value as u32);
    }

    /// One word, 0 or 1.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.u64(u64::from(value));
    }

    /// Presence of an out-pointer: one word, 0 for NULL.
    #[inline]
    pub fn present(&mut self, present: bool) {
        self.bool(present);
    }

    /// Bytes without a length word, zero-padded to 8: for what both sides know the size of (outs in replies).
    #[inline]
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        self.buf.resize(padded_len(self.buf.len()), 0);
    }

    /// A length word and the bytes padded to 8, or [`NULL`].
    #[inline]
    pub fn bytes(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.u64(NULL),
            Some(bytes) => {
                self.u64(bytes.len() as u64);
                self.fixed(bytes);
            }
        }
    }

    /// A C string as a data block that includes its NUL, or [`NULL`].
    #[inline]
    pub fn cstr(&mut self, text: Option<&CStr>) {
        self.bytes(text.map(CStr::to_bytes_with_nul));
    }

    /// Bytes written so far; a multiple of 8.
    #[inline]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing was written yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }
}

/// Reads words and blobs of a body; every read is bounds-checked.
#[derive(Clone)]
pub struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `body`.
    #[inline]
    pub fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { body, at: 0 }
    }

    /// Byte offset of the next read.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let left = self.body.len() - self.at;
        if len > left {
            return Err(WireError::Truncated { at: self.at, needed: len, left });
        }
        let bytes = &self.body[self.at..self.at + len];
        self.at += len;
        Ok(bytes)
    }

    /// One word.
    ///
    /// # Errors
    /// The body ends before.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, WireError> {
        match self.body[self.at..].first_chunk::<8>() {
            Some(word) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*word))
            }
            None => Err(WireError::Truncated { at: self.at, needed: 8, left: self.body.len() - self.at }),
        }
    }

    /// One word whose upper half must be zero.
    ///
    /// # Errors
    /// The body ends before, or the value does not fit.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, WireError> {
        let at = self.at;
        let value = self.u64()?;
        u32::try_from(value).map_err(|_| WireError::Range { at, value })
    }

    /// One word with the 32 bits in its lower half; the upper half must be zero.
    ///
    /// # Errors
    /// As [`Reader::u32`].
    #[inline]
    pub fn i32(&mut self) -> Result<i32, WireError> {
        Ok(self.u32()? as i32)
    }

    /// One word that must be 0 or 1.
    ///
    /// # Errors
    /// The body ends before, or another value.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, WireError> {
        let at = self.at;
        match self.u64()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(WireError::Range { at, value }),
        }
    }

    /// Presence of an out-pointer.
    ///
    /// # Errors
    /// As [`Reader::bool`].
    #[inline]
    pub fn present(&mut self) -> Result<bool, WireError> {
        self.bool()
    }

    /// `len` bytes and their padding, without a length word.
    ///
    /// # Errors
    /// The body ends before, or the padding is not zero.
    #[inline]
    pub fn fixed(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let at = self.at;
        // A `len` near usize::MAX must not wrap to a small padded length.
        let padded = len.checked_next_multiple_of(8).unwrap_or(usize::MAX);
        let (bytes, padding) = self.take(padded)?.split_at(len);
        if padding.iter().any(|&byte| byte != 0) {
            return Err(WireError::Padding { at: at + len });
        }
        Ok(bytes)
    }

    /// A data block of at most `max` bytes, or None for a null pointer.
    ///
    /// # Errors
    /// The body ends before, the length exceeds `max`, or the padding is not zero.
    #[inline]
    pub fn bytes(&mut self, max: usize) -> Result<Option<&'a [u8]>, WireError> {
        let at = self.at;
        let len = self.u64()?;
        if len == NULL {
            return Ok(None);
        }
        match usize::try_from(len) {
            Ok(len) if len <= max => self.fixed(len).map(Some),
            _ => Err(WireError::Length { at, len, max }),
        }
    }

    /// A data block of exactly `len` bytes (an in-struct), or None for a null pointer.
    ///
    /// # Errors
    /// As [`Reader::bytes`], or a shorter block.
    #[inline]
    pub fn exact(&mut self, len: usize) -> Result<Option<&'a [u8]>, WireError> {
        let at = self.at;
        match self.bytes(len)? {
            Some(bytes) if bytes.len() != len => {
                Err(WireError::Length { at, len: bytes.len() as u64, max: len })
            }
            other => Ok(other),
        }
    }

    /// A C string of at most `max` bytes including its NUL, or None for a null pointer.
    ///
    /// # Errors
    /// As [`Reader::bytes`], or the only NUL is not the last byte.
    #[inline]
    pub fn cstr(&mut self, max: usize) -> Result<Option<&'a CStr>, WireError> {
        let at = self.at;
        match self.bytes(max)? {
            None => Ok(None),
            Some(bytes) => {
                CStr::from_bytes_with_nul(bytes).map(Some).map_err(|_| WireError::Terminator { at })
            }
        }
    }

    /// Ends the reading: everything must have been read.
    ///
    /// # Errors
    /// Bytes are left over.
    #[inline]
    pub fn finish(self) -> Result<(), WireError> {
        match self.body.len() - self.at {
            0 => Ok(()),
            left => Err(WireError::Trailing { at: self.at, left }),
        }
    }
}

/// Why a body was not accepted. `at` is the byte offset in the body of the word in question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireError {
    /// The body ends before the value does.
    Truncated { at: usize, needed: usize, left: usize },
    /// A narrow integer or bool has a value outside its range.
    Range { at: usize, value: u64 },
    /// A block is longer than allowed (or, for a fixed-size struct, not of its size).
    Length { at: usize, len: u64, max: usize },
    /// Padding bytes are not zero.
    Padding { at: usize },
    /// A C string without its NUL, or with one inside.
    Terminator { at: usize },
    /// Bytes after the last value.
    Trailing { at: usize, left: usize },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            WireError::Truncated { at, needed, left } => {
                write!(f, "body offset {at}: {needed} bytes needed, {left} left")
            }
            WireError::Range { at, value } => write!(f, "body offset {at}: value {value:#x} out of range"),
            WireError::Length { at, len, max } => {
                write!(f, "body offset {at}: block length {len} not allowed (limit {max})")
            }
            WireError::Padding { at } => write!(f, "body offset {at}: padding is not zero"),
            WireError::Terminator { at } => {
                write!(f, "body offset {at}: C string is not terminated by its only NUL")
            }
            WireError::Trailing { at, left } => {
                write!(f, "body offset {at}: {left} bytes after the last value")
            }
        }
    }
}

impl core::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[derive(Clone, Debug)]
    enum Item {
        U64(u64),
        U32(u32),
        I32(i32),
        Bool(bool),
        Fixed(Vec<u8>),
        Bytes(Option<Vec<u8>>),
    }

    fn item() -> impl Strategy<Value = Item> {
        let blob = prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            any::<u64>().prop_map(Item::U64),
            any::<u32>().prop_map(Item::U32),
            any::<i32>().prop_map(Item::I32),
            any::<bool>().prop_map(Item::Bool),
            blob.clone().prop_map(Item::Fixed),
            prop::option::of(blob).prop_map(Item::Bytes),
        ]
    }

    fn encode(items: &[Item]) -> Vec<u8> {
        let mut buf = vec![1, 2, 3];
        let mut w = Writer::new(&mut buf);
        for item in items {
            match item {
                Item::U64(x) => w.u64(*x),
                Item::U32(x) => w.u32(*x),
                Item::I32(x) => w.i32(*x),
                Item::Bool(x) => w.bool(*x),
                Item::Fixed(x) => w.fixed(x),
                Item::Bytes(x) => w.bytes(x.as_deref()),
            }
        }
        buf
    }

    fn decode(items: &[Item], body: &[u8]) -> Result<(), WireError> {
        let mut r = Reader::new(body);
        for item in items {
            match item {
                Item::U64(x) => assert_eq!(r.u64()?, *x),
                Item::U32(x) => assert_eq!(r.u32()?, *x),
                Item::I32(x) => assert_eq!(r.i32()?, *x),
                Item::Bool(x) => assert_eq!(r.present()?, *x),
                Item::Fixed(x) => assert_eq!(r.fixed(x.len())?, x),
                Item::Bytes(x) => assert_eq!(r.bytes(40)?, x.as_deref()),
            }
        }
        r.finish()
    }

    proptest! {
        #[test]
        fn round_trip(items in prop::collection::vec(item(), 0..20)) {
            let body = encode(&items);
            prop_assert!(body.len().is_multiple_of(8));
            prop_assert_eq!(decode(&items, &body), Ok(()));
        }

        #[test]
        fn every_truncation_is_an_error(items in prop::collection::vec(item(), 1..10), cut in any::<prop::sample::Index>()) {
            let body = encode(&items);
            prop_assume!(!body.is_empty());
            prop_assert!(decode(&items, &body[..cut.index(body.len())]).is_err());
        }
    }

    #[test]
    fn narrow_values_are_checked() {
        let mut buf = Vec::new();
        Writer::new(&mut buf).u64(1 << 32);
        assert_eq!(Reader::new(&buf).u32(), Err(WireError::Range { at: 0, value: 1 << 32 }));
        assert_eq!(Reader::new(&buf).bool(), Err(WireError::Range { at: 0, value: 1 << 32 }));
        Writer::new(&mut buf).i32(-1);
        assert_eq!(Reader::new(&buf).i32(), Ok(-1));
        assert_eq!(Reader::new(&buf).u64(), Ok(0xffff_ffff));
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        for len in [33u64, u64::from(u32::MAX), u64::MAX - 1, u64::MAX - 7, 1 << 63] {
            let mut buf = Vec::new();
            let mut w = Writer::new(&mut buf);
            w.u64(len);
            w.u64(0);
            assert!(matches!(Reader::new(&buf).bytes(32), Err(WireError::Length { .. })));
            assert!(matches!(Reader::new(&buf).bytes(usize::MAX), Err(WireError::Truncated { .. })));
        }
        assert!(matches!(Reader::new(&[0; 8]).fixed(usize::MAX), Err(WireError::Truncated { .. })));
    }

    #[test]
    fn padding_struct_sizes_and_strings() {
        let mut buf = Vec::new();
        Writer::new(&mut buf).bytes(Some(b"abc"));
        assert_eq!(Reader::new(&buf).exact(3), Ok(Some(&b"abc"[..])));
        assert_eq!(Reader::new(&buf).exact(4), Err(WireError::Length { at: 0, len: 3, max: 4 }));
        buf[15] = 1;
        assert_eq!(Reader::new(&buf).bytes(8), Err(WireError::Padding { at: 11 }));

        Writer::new(&mut buf).cstr(Some(c"name"));
        assert_eq!(Reader::new(&buf).cstr(5), Ok(Some(c"name")));
        assert!(matches!(Reader::new(&buf).cstr(4), Err(WireError::Length { len: 5, .. })));
        Writer::new(&mut buf).bytes(Some(b"na\0me\0"));
        assert_eq!(Reader::new(&buf).cstr(16), Err(WireError::Terminator { at: 0 }));
        Writer::new(&mut buf).bytes(Some(b""));
        assert_eq!(Reader::new(&buf).cstr(16), Err(WireError::Terminator { at: 0 }));
        Writer::new(&mut buf).cstr(None);
        assert_eq!(Reader::new(&buf).cstr(16), Ok(None));
        assert_eq!(Reader::new(&[0; 16]).finish(), Err(WireError::Trailing { at: 0, left: 16 }));
    }
}
