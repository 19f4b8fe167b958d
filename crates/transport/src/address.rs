//! Where a daemon listens: `unix:/run/cuda.sock`, `vsock:1024`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An address in its text form `scheme:rest`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Address {
    /// `unix:/absolute/path`: a unix stream socket; both sides share memory.
    Unix(PathBuf),
    /// `unix-stream:/absolute/path`: a unix stream socket that carries bytes only, as one does that stands for a virtual machine's vsock port.
    UnixStream(PathBuf),
    /// `vsock:PORT` or `vsock:CID:PORT`.
    Vsock {
        /// Whom to connect to, by default the host; at which of our own to listen, by default all.
        cid: Option<u32>,
        /// The port.
        port: u32,
    },
}

impl Address {
    /// Whether descriptors, and with them shared memory, can pass.
    pub fn passes_descriptors(&self) -> bool {
        matches!(self, Address::Unix(_))
    }
}

/// Why a text is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// No scheme, or an unknown one.
    #[error("address \"{0}\" begins with none of \"unix:\", \"unix-stream:\" and \"vsock:\"")]
    Scheme(String),
    /// The path is relative: program and daemon rarely share a working directory.
    #[error("socket path \"{0}\" is not absolute")]
    Relative(String),
    /// Longer than a socket address can hold.
    #[error("socket path \"{0}\" is longer than 107 bytes")]
    Long(String),
    /// A NUL inside the path.
    #[error("socket path {0:?} contains a NUL")]
    Nul(String),
    /// Not a port number.
    #[error("vsock port \"{0}\" is not a number from 0 to 4294967294")]
    Port(String),
    /// Not a context id.
    #[error("vsock context id \"{0}\" is not a number from 0 to 4294967294")]
    Cid(String),
}

fn path(path: &str) -> Result<PathBuf, AddressError> {
    if !path.starts_with('/') {
        return Err(AddressError::Relative(path.into()));
    }
    if path.len() > 107 {
        return Err(AddressError::Long(path.into()));
    }
    if path.contains('\0') {
        return Err(AddressError::Nul(path.into()));
    }
    Ok(path.into())
}

/// A number in plain digits; u32::MAX stands for "any" in vsock addresses.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number != u32::MAX)
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return path(rest).map(Address::Unix);
        }
        if let Some(rest) = text.strip_prefix("unix-stream:") {
            return path(rest).map(Address::UnixStream);
        }
        if let Some(rest) = text.strip_prefix("vsock:") {
            let (cid, port) = match rest.split_once(':') {
                Some((cid, port)) => (Some(number(cid).ok_or_else(|| AddressError::Cid(cid.into()))?), port),
                None => (None, rest),
            };
            let port = number(port).ok_or_else(|| AddressError::Port(port.into()))?;
            return Ok(Address::Vsock { cid, port });
        }
        Err(AddressError::Scheme(text.into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::UnixStream(path) => write!(f, "unix-stream:{}", path.display()),
            Address::Vsock { cid: None, port } => write!(f, "vsock:{port}"),
            Address::Vsock { cid: Some(cid), port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(path in "/[a-zA-Z0-9 ./:_-]{0,100}", cid in 0..u32::MAX, port in 0..u32::MAX) {
            let texts = [
                format!("unix:{path}"),
                format!("unix-stream:{path}"),
                format!("vsock:{port}"),
                format!("vsock:{cid}:{port}"),
            ];
            for text in texts {
                prop_assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
            }
        }

        #[test]
        fn any_text(text: String) {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }

    #[test]
    fn errors() {
        use AddressError::*;
        let parse = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(parse("/run/x"), Scheme("/run/x".into()));
        assert_eq!(parse(""), Scheme("".into()));
        assert_eq!(parse("unix:x"), Relative("x".into()));
        assert_eq!(parse("unix:"), Relative("".into()));
        assert_eq!(parse("unix:/a\0b"), Nul("/a\0b".into()));
        assert!(matches!(parse(&format!("unix:/{}", "x".repeat(107))), Long(_)));
        for port in ["", "x", "-1", "+1", "4294967295", "1 "] {
            assert_eq!(parse(&format!("vsock:{port}")), Port(port.into()));
            assert_eq!(parse(&format!("vsock:2:{port}")), Port(port.into()));
            assert_eq!(parse(&format!("vsock:{port}:1")), Cid(port.into()));
        }
        assert_eq!(parse("unix-stream:x"), Relative("x".into()));
        assert_eq!(parse("vsock:1:2:3"), Port("2:3".into()));
    }
}
