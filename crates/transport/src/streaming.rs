//! Copies whose destination is not to be kept in the cache.
//!
//! A part of a long copy is smaller than the size from which the C library's memcpy writes past the cache, so each line of the destination would first be
//! read from memory: a third more traffic. Here the copy as a whole is what counts, and its caller says that it is long.
#![allow(unsafe_code)] // Raw pointers and vector intrinsics.

use std::ptr;

/// Copies `len` bytes without bringing the destination into the cache.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap. The other side may change `from` meanwhile: the bytes are whatever was read.
#[cfg(target_arch = "x86_64")]
pub unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const LINE: usize = 64;
    let head = to.align_offset(LINE).min(len);
    // SAFETY: `head` is at most `len`.
    unsafe { ptr::copy_nonoverlapping(from, to, head) };
    let lines = (len - head) / LINE;
    // SAFETY: `head` bytes are within both.
    let (mut source, mut target) = unsafe { (from.add(head), to.add(head)) };
    for _ in 0..lines {
        // SAFETY: another whole line is left on both sides, and `target` is aligned to it; SSE2 is part of x86-64.
        unsafe {
            let a = _mm_loadu_si128(source.cast());
            let b = _mm_loadu_si128(source.add(16).cast());
            let c = _mm_loadu_si128(source.add(32).cast());
            let d = _mm_loadu_si128(source.add(48).cast());
            _mm_stream_si128(target.cast(), a);
            _mm_stream_si128(target.add(16).cast(), b);
            _mm_stream_si128(target.add(32).cast(), c);
            _mm_stream_si128(target.add(48).cast(), d);
            source = source.add(LINE);
            target = target.add(LINE);
        }
    }
    // SAFETY: what is left of both; the fence orders the stores above before whatever tells others of them.
    unsafe {
        ptr::copy_nonoverlapping(source, target, len - head - lines * LINE);
        _mm_sfence();
    }
}

/// As on x86-64, with an ordinary copy.
///
/// # Safety
/// As there.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's contract.
    unsafe { ptr::copy_nonoverlapping(from, to, len) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_is_copied_exactly() {
        let source: Vec<u8> = (0..600u32).map(|i| (i * 7 + 1) as u8).collect();
        for start in 0..70 {
            for len in [0, 1, 15, 63, 64, 65, 127, 128, 200, 400] {
                let mut target = vec![0xee; 600];
                // SAFETY: both have 600 bytes, of which at most 70 + 400 are used.
                unsafe { copy(source.as_ptr().add(start / 2), target.as_mut_ptr().add(start), len) };
                assert_eq!(target[start..start + len], source[start / 2..start / 2 + len]);
                assert!(target[..start].iter().chain(&target[start + len..]).all(|byte| *byte == 0xee));
            }
        }
    }
}
