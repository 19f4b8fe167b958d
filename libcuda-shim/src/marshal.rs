#![allow(unsafe_code)]
//! What the generated exported functions do with the caller's pointers. Unsafe because C promises only that they are NULL or valid.
//!
//! Values are copied in and out: two pointers of a call may be equal, and nothing says that they are aligned.

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write as _};
use core::slice;

use protocol::status::Status;

use crate::call::TraceArg;
use crate::types::{CU_STREAM_PER_THREAD, CUstream};

/// Stores an output if the caller wants it.
///
/// # Safety
/// If there is a value, `place` is valid for writes of a `T`.
#[inline]
pub unsafe fn put<T>(place: *mut T, value: Option<T>) {
    if let Some(value) = value {
        // SAFETY: by the caller's promise.
        unsafe { place.write_unaligned(value) };
    }
}

/// Stores a text, up to its NUL, if the caller wants it.
///
/// # Safety
/// If there is a text, `place` is valid for writes of it with its NUL.
pub unsafe fn put_text(place: *mut c_char, text: Option<Vec<u8>>) {
    let Some(text) = text else { return };
    let len = text.iter().position(|byte| *byte == 0).map_or(text.len(), |nul| nul + 1);
    // SAFETY: by the caller's promise; the two do not overlap, since the text is ours.
    unsafe { place.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), len) };
}

/// Reads a structure; `None` for NULL.
///
/// # Safety
/// `place` is NULL or valid for reads of a `T`, and any bytes are a `T`.
#[inline]
pub unsafe fn input<T: Copy>(place: *const T) -> Option<T> {
    // SAFETY: not NULL, and by the caller's promise.
    (!place.is_null()).then(|| unsafe { place.read_unaligned() })
}

/// Borrows a C string; `None` for NULL.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and unchanged for the lifetime.
#[inline]
pub unsafe fn cstr<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not NULL, and by the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// A C string in a trace.
pub struct Text<'a>(Option<&'a CStr>);

/// Longest text that a trace shows whole, in bytes: names of template instances run to kilobytes.
const TRACED_TEXT: usize = 200;

/// A C string for a trace.
///
/// # Safety
/// As [`cstr`].
pub unsafe fn text<'a>(text: *const c_char) -> Text<'a> {
    // SAFETY: by the caller's promise.
    Text(unsafe { cstr(text) })
}

impl TraceArg for Text<'_> {
    fn trace(self, out: &mut String) -> fmt::Result {
        match self.0.map(CStr::to_bytes) {
            None => out.write_str("NULL"),
            Some(text) if text.len() > TRACED_TEXT => {
                write!(out, "\"{}...\"", text[..TRACED_TEXT].escape_ascii())
            }
            Some(text) => write!(out, "\"{}\"", text.escape_ascii()),
        }
    }
}

/// Bytes of `count` elements; INVALID_VALUE for what no allocation can have.
#[inline]
pub fn length(count: usize, unit: usize) -> Result<usize, Status> {
    let bytes = count.checked_mul(unit).ok_or(Status::INVALID_VALUE)?;
    if isize::try_from(bytes).is_err() { Err(Status::INVALID_VALUE) } else { Ok(bytes) }
}

/// Borrows bytes; `None` for NULL.
///
/// # Safety
/// `data` is NULL or valid for reads of `len` bytes (of at most `isize::MAX`), unchanged for the lifetime.
#[inline]
pub unsafe fn data_in<'a>(data: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: not NULL, and by the caller's promise.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data, len) })
}

/// Borrows bytes for writing; `None` for NULL.
///
/// # Safety
/// `data` is NULL or valid for reads and writes of `len` bytes (of at most `isize::MAX`), and nobody else uses them for the lifetime.
#[inline]
pub unsafe fn data_out<'a>(data: *mut u8, len: usize) -> Option<&'a mut [u8]> {
    // SAFETY: not NULL, and by the caller's promise.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts_mut(data, len) })
}

/// The stream that a per-thread twin means: NULL is the thread's default stream.
#[inline]
pub fn per_thread(stream: CUstream) -> CUstream {
    if stream.is_null() { CU_STREAM_PER_THREAD } else { stream }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_overflow_are_refused() {
        assert_eq!(length(3, 12), Ok(36));
        assert_eq!(length(usize::MAX, 8), Err(Status::INVALID_VALUE));
        assert_eq!(length(-1i64 as usize, 1), Err(Status::INVALID_VALUE));
    }

    #[test]
    fn nothing_is_written_behind_the_nul_of_a_text() {
        let mut buffer = [b'.'; 8];
        // SAFETY: the buffer has room for 4 bytes.
        unsafe { put_text(buffer.as_mut_ptr().cast(), Some(b"H20\0\0\0\0\0\0\0\0\0".to_vec())) };
        assert_eq!(&buffer, b"H20\0....");
        // SAFETY: nothing is written.
        unsafe { put_text(core::ptr::null_mut(), None) };
    }

    #[test]
    fn texts_are_quoted_and_cut() {
        let show = |text: Option<&CStr>| {
            let mut out = String::new();
            Text(text).trace(&mut out).unwrap();
            out
        };
        assert_eq!(show(None), "NULL");
        assert_eq!(show(Some(c"a\"b\n")), r#""a\"b\n""#);
        let long = std::ffi::CString::new(vec![b'x'; TRACED_TEXT + 1]).unwrap();
        assert_eq!(show(Some(&long)).len(), TRACED_TEXT + 5);
    }

    #[test]
    fn outputs_need_no_alignment_and_may_be_absent() {
        let mut bytes = [0u8; 12];
        // SAFETY: 8 bytes at offset 1 of 12.
        unsafe { put(bytes.as_mut_ptr().add(1).cast::<u64>(), Some(u64::MAX)) };
        assert_eq!(bytes, [0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0]);
        // SAFETY: nothing is written.
        unsafe { put(core::ptr::null_mut::<u64>(), None) };
    }
}
