//! Where a daemon listens: `unix:/run/cuda.sock`, `vsock:1024`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An address in its text form `scheme:rest`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Address {
    /// `unix:/absolute/path`: a unix stream socket.
    Unix(PathBuf),
    /// `vsock:PORT`: the host's port as a guest sees it. Parsed, not yet connected to.
    Vsock {
        /// The port.
        port: u32,
    },
}

/// Why a text is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// No scheme, or an unknown one.
    #[error("address \"{0}\" begins with neither \"unix:\" nor \"vsock:\"")]
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
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(AddressError::Relative(path.into()));
            }
            if path.len() > 107 {
                return Err(AddressError::Long(path.into()));
            }
            if path.contains('\0') {
                return Err(AddressError::Nul(path.into()));
            }
            return Ok(Address::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix("vsock:") {
            // u32::MAX is VMADDR_PORT_ANY.
            return match port.parse() {
                Ok(port) if port != u32::MAX && text.as_bytes()[6].is_ascii_digit() => {
                    Ok(Address::Vsock { port })
                }
                _ => Err(AddressError::Port(port.into())),
            };
        }
        Err(AddressError::Scheme(text.into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Vsock { port } => write!(f, "vsock:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(path in "/[a-zA-Z0-9 ./:_-]{0,100}", port in 0..u32::MAX) {
            for text in [format!("unix:{path}"), format!("vsock:{port}")] {
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
        }
    }
}
