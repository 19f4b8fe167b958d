//! PTX front end: syntax tree, parser, printer, parameter layout and linker.
//!
//! [`parse`] turns the text of one translation unit into a [`Module`]. Grammar and semantics follow NVIDIA's public
//! PTX ISA document (versions 6 to 9).

pub mod ast;
mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod layout;
mod lexer;
pub mod link;
mod parser;
mod print;
mod types;

pub use ast::*;
pub use error::{ParseError, ParseErrorKind};
pub use link::{LinkError, LinkProblem, Unit, link};
pub use print::InstructionText;

/// Parses the PTX text of one translation unit. A NUL byte ends the text (images in fat binaries carry one).
///
/// # Errors
/// The first error, with line and column. Memory and time are linear in the source's length.
pub fn parse(source: &[u8]) -> Result<Module, ParseError> {
    let end = source.iter().position(|b| *b == 0).unwrap_or(source.len());
    match std::str::from_utf8(&source[..end]) {
        Ok(text) => parser::parse_module(text),
        // Only comments and strings can hold anything but ASCII, and what they hold does not matter.
        Err(_) => parser::parse_module(&String::from_utf8_lossy(&source[..end])),
    }
}
