//! LZ4 blocks and ZSTD frames, decoded to exactly the declared size.

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::error::{Error, ErrorKind, Result};
use crate::raw::Flags;

/// How a payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As is, padded with zeros.
    Stored,
    /// A raw LZ4 block.
    Lz4,
    /// One ZSTD frame.
    Zstd,
}

impl Codec {
    /// From the flags of an entry; `None` if they name two codecs.
    #[must_use]
    pub const fn from_flags(flags: Flags) -> Option<Self> {
        match (flags.contains(Flags::LZ4), flags.contains(Flags::ZSTD)) {
            (false, false) => Some(Self::Stored),
            (true, false) => Some(Self::Lz4),
            (false, true) => Some(Self::Zstd),
            (true, true) => None,
        }
    }

    /// Lower-case name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stored => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Bytes decoded between two checks of the size.
const STEP: usize = 1 << 20;
/// A frame may ask for a window larger than its content; more than this is not believed.
const SMALL_WINDOW: u64 = 1 << 20;
/// An LZ4 byte adds at most 255 bytes of output.
const LZ4_MAX_RATIO: u64 = 255;
/// A ZSTD block has at least 4 bytes (RLE) and at most 128 KiB of output.
const ZSTD_MAX_RATIO: u64 = (128 << 10) / 4;

/// Decodes `stored` to exactly `size` bytes. The offset of an error is 0: the caller knows where `stored` lies.
///
/// # Errors
/// [`ErrorKind::TooLarge`] if `size` exceeds `limit`, [`ErrorKind::Corrupt`], [`ErrorKind::SizeMismatch`].
pub(crate) fn lz4(stored: &[u8], size: u64, limit: usize) -> Result<Vec<u8>> {
    let len = checked_size(size, limit)?;
    check_ratio(stored, size, LZ4_MAX_RATIO)?;
    let mut out = vec![0; len];
    match lz4_flex::block::decompress_into(stored, &mut out) {
        Ok(written) if written == len => Ok(out),
        Ok(written) => Err(mismatch(size, written as u64)),
        Err(lz4_flex::block::DecompressError::OutputTooSmall { expected, .. }) => {
            Err(mismatch(size, expected as u64))
        }
        Err(_) => Err(corrupt("LZ4")),
    }
}

/// As [`lz4`], for one ZSTD frame that fills `stored`.
pub(crate) fn zstd(stored: &[u8], size: u64, limit: usize) -> Result<Vec<u8>> {
    let len = checked_size(size, limit)?;
    check_ratio(stored, size, ZSTD_MAX_RATIO)?;
    let mut source = stored;
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(size.max(SMALL_WINDOW));
    decoder.init(&mut source).map_err(|_| corrupt("ZSTD"))?;
    // A frame without a content size reports 0; then only the decoded bytes count.
    let content = decoder.content_size();
    if content != 0 && content != size {
        return Err(mismatch(size, content));
    }
    let mut out = Vec::new();
    while !decoder.is_finished() {
        decoder
            .decode_blocks(&mut source, BlockDecodingStrategy::UptoBytes(STEP))
            .map_err(|_| corrupt("ZSTD"))?;
        let total = out.len().saturating_add(decoder.can_collect());
        if total > len {
            return Err(mismatch(size, total as u64));
        }
        decoder.collect_to_writer(&mut out).map_err(|_| corrupt("ZSTD"))?;
    }
    decoder.collect_to_writer(&mut out).map_err(|_| corrupt("ZSTD"))?;
    if out.len() != len {
        return Err(mismatch(size, out.len() as u64));
    }
    if !source.is_empty() {
        return Err(corrupt("ZSTD"));
    }
    Ok(out)
}

fn checked_size(size: u64, limit: usize) -> Result<usize> {
    match usize::try_from(size) {
        Ok(len) if len <= limit => Ok(len),
        _ => Err(Error::new("uncompressed size", 0, ErrorKind::TooLarge { size, limit: limit as u64 })),
    }
}

/// A size that the codec cannot reach from this many bytes is a lie: found out before anything is allocated.
fn check_ratio(stored: &[u8], size: u64, ratio: u64) -> Result<()> {
    let most = (stored.len() as u64).saturating_mul(ratio);
    if size > most { Err(mismatch(size, most)) } else { Ok(()) }
}

fn mismatch(declared: u64, actual: u64) -> Error {
    Error::new("uncompressed size", 0, ErrorKind::SizeMismatch { declared, actual })
}

fn corrupt(codec: &'static str) -> Error {
    Error::new("payload", 0, ErrorKind::Corrupt { codec })
}
