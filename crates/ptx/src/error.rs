//! Errors of the parser.

use thiserror::Error;

/// A PTX text that is not accepted: where and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct ParseError {
    /// From 1.
    pub line: u32,
    /// In bytes, from 1.
    pub column: u32,
    /// The reason.
    pub kind: ParseErrorKind,
}

/// Why a text is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseErrorKind {
    /// A token that does not fit.
    #[error("found {found}, expected {expected}")]
    Unexpected {
        /// The token, quoted and shortened.
        found: String,
        /// What would fit.
        expected: String,
    },
    /// The text ends too early.
    #[error("unexpected end of text, expected {expected}")]
    UnexpectedEnd {
        /// What would fit.
        expected: String,
    },
    /// A name that is declared nowhere.
    #[error("undeclared {what} '{name}'")]
    Undeclared {
        /// Register, label, symbol.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name that is declared twice in one scope.
    #[error("'{name}' is declared twice in one scope (first in line {first_line})")]
    Redeclared {
        /// The name.
        name: String,
        /// Line of the first declaration.
        first_line: u32,
    },
    /// A number that cannot be.
    #[error("bad number '{text}': {why}")]
    BadNumber {
        /// As written, shortened.
        text: String,
        /// The reason.
        why: &'static str,
    },
    /// A limit of this parser is exceeded.
    #[error("{what} {value} exceeds the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many there are (or at least there are).
        value: u64,
        /// How many are accepted.
        limit: u64,
    },
    /// Anything else that is against the rules.
    #[error("{0}")]
    Invalid(String),
}
