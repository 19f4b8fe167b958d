#![allow(unsafe_code)] // Views of plain bytes as bytes.
//! Memory for what the real driver reads and writes: the blocks of a request lie at any address, the driver wants its own alignment.

use core::ffi::c_void;

/// `CU_STREAM_LEGACY`: the value of `default_stream` for programs without per-thread default streams.
pub const LEGACY: u64 = 1;
/// `CU_STREAM_PER_THREAD`.
pub const PER_THREAD: u64 = 2;

/// The largest alignment of a structure of the driver API (tensor maps).
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A block that the driver reads or writes, or NULL.
pub struct Buffer {
    lines: Option<Vec<Line>>,
    len: usize,
}

impl Buffer {
    /// A copy of the block.
    pub fn new(bytes: Option<&[u8]>) -> Self {
        let len = bytes.map_or(0, <[u8]>::len);
        // One byte more than nothing: an empty block is not NULL.
        let lines = bytes.map(|_| vec![Line([0; 64]); len.div_ceil(64).max(1)]);
        let mut buffer = Self { lines, len };
        if let Some(bytes) = bytes {
            buffer.bytes_mut().copy_from_slice(bytes);
        }
        buffer
    }

    /// A zeroed block.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: Some(vec![Line([0; 64]); len.div_ceil(64).max(1)]), len }
    }

    pub fn is_null(&self) -> bool {
        self.lines.is_none()
    }

    /// The contents; nothing for NULL.
    pub fn bytes(&self) -> &[u8] {
        let lines = self.lines.as_deref().unwrap_or_default();
        // SAFETY: lines are arrays of bytes without padding (64 bytes, 64-byte aligned), of which there are at least `len`.
        unsafe { core::slice::from_raw_parts(lines.as_ptr().cast(), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let lines = self.lines.as_deref_mut().unwrap_or_default();
        // SAFETY: as in `bytes`; borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), self.len) }
    }

    pub fn as_ptr<T>(&self) -> *const T {
        self.lines.as_ref().map_or(core::ptr::null(), |lines| lines.as_ptr().cast())
    }

    pub fn as_mut_ptr<T>(&mut self) -> *mut T {
        self.lines.as_mut().map_or(core::ptr::null_mut(), |lines| lines.as_mut_ptr().cast())
    }

    /// Does something with the whole block, unless it is NULL.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn each<E>(&mut self, f: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<(), E> {
        if self.is_null() { Ok(()) } else { f(self.bytes_mut()) }
    }

    /// Does something with each element of `len` bytes.
    ///
    /// # Errors
    /// The first one of `f`.
    pub fn each_of<E>(&mut self, len: usize, mut f: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<(), E> {
        self.bytes_mut().chunks_exact_mut(len).try_for_each(&mut f)
    }

    /// Copies the contents to where the reply takes them from.
    pub fn give(&self, to: Option<&mut [u8]>) {
        if let Some(to) = to
            && to.len() == self.len
        {
            to.copy_from_slice(self.bytes());
        }
    }
}

/// A number as the pointer that it is to the driver.
pub fn pointer(address: u64) -> *mut c_void {
    core::ptr::with_exposed_provenance_mut(address as usize)
}

/// An output of one value, or NULL.
pub fn scalar<T>(value: Option<&mut T>) -> *mut T {
    value.map_or(core::ptr::null_mut(), |value| value)
}

/// An output of one value, or NULL if the program has given none.
pub fn out<T>(present: bool, value: &mut T) -> *mut T {
    if present { value } else { core::ptr::null_mut() }
}

/// The u64 at `offset` of a structure.
pub fn word(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

/// The u32 at `offset` of a structure.
pub fn half(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

/// Replaces the u64 at `offset` of a structure.
pub fn set_word(bytes: &mut [u8], offset: usize, value: u64) {
    if let Some(place) = bytes.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_bytes_and_null_stays_null() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut buffer = Buffer::new(Some(&bytes));
        assert_eq!(buffer.as_ptr::<u8>().addr() % 64, 0);
        assert_eq!(buffer.bytes(), bytes);
        assert_eq!(word(buffer.bytes(), 8), u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15]));
        set_word(buffer.bytes_mut(), 0, 1);
        let mut back = vec![0; 100];
        buffer.give(Some(&mut back));
        assert_eq!(half(&back, 0), 1);
        assert!(Buffer::new(None).as_ptr::<u8>().is_null());
        assert!(!Buffer::new(Some(&[])).as_ptr::<u8>().is_null());
    }
}
