//! The error of every reader in this crate: which field, where, and what is wrong with it.

/// A defect found in untrusted bytes.
///
/// `offset` counts from the start of the slice that was given to the function that failed; a caller who knows
/// where that slice lies in a file moves it with [`Error::moved`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} at offset {offset:#x}: {kind}")]
pub struct Error {
    /// What was being read, in words.
    pub field: &'static str,
    /// Byte offset of that field.
    pub offset: u64,
    /// What is wrong.
    pub kind: ErrorKind,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input ends before the field does.
    #[error("truncated: needs {need} bytes, {have} are there")]
    Truncated {
        /// Bytes the field needs.
        need: u64,
        /// Bytes left in the input.
        have: u64,
    },
    /// The four magic bytes (read as a little-endian number) are not those of the format.
    #[error("bad magic {found:#010x}")]
    BadMagic {
        /// The number found.
        found: u32,
    },
    /// A version, codec or feature this reader does not know.
    #[error("unsupported: {what} ({found:#x})")]
    Unsupported {
        /// What it is, in words.
        what: &'static str,
        /// The number found.
        found: u64,
    },
    /// A value that breaks a rule of the format.
    #[error("value {found:#x} {rule}")]
    BadValue {
        /// The number found.
        found: u64,
        /// The rule, as the end of a sentence that starts with the value.
        rule: &'static str,
    },
    /// A range reaches outside of the thing that contains it.
    #[error("ends at {end:#x}, beyond the end of the {container} at {limit:#x}")]
    OutOfBounds {
        /// Where the range ends.
        end: u64,
        /// Where it had to end at the latest.
        limit: u64,
        /// What contains it.
        container: &'static str,
    },
    /// More data than the caller allows.
    #[error("{size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Declared size.
        size: u64,
        /// The caller's limit.
        limit: u64,
    },
    /// More items than a reader keeps.
    #[error("more than {limit} of them")]
    TooMany {
        /// The reader's limit.
        limit: u64,
    },
    /// Compressed data that does not decode.
    #[error("corrupt {codec} data")]
    Corrupt {
        /// Name of the codec.
        codec: &'static str,
    },
    /// Data that decoded, but not to the declared size.
    #[error("declares {declared} bytes but holds {actual}")]
    SizeMismatch {
        /// Size in the header.
        declared: u64,
        /// Size found; if decoding stopped early, the most or the least that it can be.
        actual: u64,
    },
    /// LTO-IR that the toolkit scrambled after compression; only the toolkit's own linker reads it.
    #[error("obfuscated LTO-IR, {size} bytes: only the CUDA linker can read it")]
    Obfuscated {
        /// Stored bytes.
        size: u64,
    },
    /// A part that must be there is not.
    #[error("missing")]
    Missing,
    /// Text that does not follow the grammar.
    #[error("expected {expected}")]
    Syntax {
        /// What was expected, in words.
        expected: &'static str,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) const fn new(field: &'static str, offset: u64, kind: ErrorKind) -> Self {
        Self { field, offset, kind }
    }

    /// The same error with `base` added to its offset.
    #[must_use]
    pub const fn moved(mut self, base: u64) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }

    /// True when more bytes of the same input could have made it readable.
    #[must_use]
    pub const fn is_truncation(&self) -> bool {
        matches!(self.kind, ErrorKind::Truncated { .. })
    }
}

/// Something that is not what the format says.
pub(crate) fn bad(field: &'static str, offset: u64, expected: &'static str) -> Error {
    Error::new(field, offset, ErrorKind::Syntax { expected })
}
