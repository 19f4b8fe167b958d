#![allow(unsafe_code)]
//! What kernels print. The host collects it; it is fetched when a reply says that there is some, and written through the program's own C
//! streams, so that it keeps its place among what the program prints itself. Unsafe because those are C streams.

use crate::generated::wire;

/// Bytes asked for at a time.
const CHUNK: u32 = 32 << 10;

unsafe extern "C" {
    static stdout: *mut libc::FILE;
    static stderr: *mut libc::FILE;
}

/// Fetches and writes all that there is.
#[cold]
pub fn fetch() {
    let (mut stream, mut text) = (0, Vec::new());
    loop {
        if wire::device_output(CHUNK, Some(&mut stream), Some(&mut text)).is_err() || text.is_empty() {
            return;
        }
        // SAFETY: the C library sets both before any code of the program runs; fwrite locks the stream itself.
        unsafe {
            let file = if stream == 2 { stderr } else { stdout };
            libc::fwrite(text.as_ptr().cast(), 1, text.len(), file);
        }
    }
}
