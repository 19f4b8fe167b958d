//! The 24-byte wrapper that a program hands to `__cudaRegisterFatBinary` and the runtime to `cuLibraryLoadData`.

use crate::error::{Error, ErrorKind, Result};
use crate::raw;

/// A checked wrapper. Its addresses belong to the process (or file) it was read from; nothing here follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrapper {
    /// Address of the container that is loaded first: the whole program, or what the device linker made.
    pub container: u64,
    /// What kind of wrapper it is.
    pub version: WrapperVersion,
}

/// Version of a wrapper with what only that version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrapperVersion {
    /// Version 1.
    Plain,
    /// Version 2: made by device linking (`-rdc=true`).
    Linked {
        /// Address of an array of container addresses, ended by NULL; 0 if there is none. A program fills the array
        /// in its constructors, so that it is empty in the file.
        list: u64,
    },
}

impl WrapperVersion {
    /// 1 or 2.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Plain => 1,
            Self::Linked { .. } => 2,
        }
    }
}

impl Wrapper {
    /// Size in bytes.
    pub const LEN: usize = raw::WRAPPER_LEN;

    /// Checks magic and version.
    ///
    /// # Errors
    /// [`ErrorKind::BadMagic`], or [`ErrorKind::Unsupported`] for a version other than 1 and 2.
    pub fn parse(bytes: &[u8; raw::WRAPPER_LEN]) -> Result<Self> {
        let raw = raw::Wrapper::from_bytes(bytes);
        if raw.magic != raw::WRAPPER_MAGIC {
            return Err(Error::new("wrapper magic", 0, ErrorKind::BadMagic { found: raw.magic }));
        }
        let version = match raw.version {
            1 => WrapperVersion::Plain,
            2 => WrapperVersion::Linked { list: raw.list },
            other => {
                let kind = ErrorKind::Unsupported { what: "wrapper version", found: other.into() };
                return Err(Error::new("wrapper version", 4, kind));
            }
        };
        Ok(Self { container: raw.container, version })
    }
}
