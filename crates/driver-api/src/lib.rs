//! The table of CUDA driver calls.
//!
//! `spec/*.rs` declares each call once: Rust syntax, one prototype per ABI name, with marks. This crate parses the
//! spec ([`parse`]), checks it together with the lock files ([`check`]) and writes everything that follows from it
//! ([`emit`]): the exported functions of the shim, the wire encoding on both sides, the host's trait, the
//! cuGetProcAddress table, the comparison with cudarc's prototypes, and `docs/api-coverage.md`.
//!
//! `cargo xtask codegen` is the only user. What the marks mean is in ARCHITECTURE.md, section "The driver-call table".

pub mod check;
pub mod diagnostic;
pub mod emit;
#[doc(hidden)]
pub mod fuzz;
pub mod ir;
pub mod parse;
pub mod sources;
pub mod types;

pub use check::Table;
pub use diagnostic::{Diagnostic, Error};
pub use emit::{Output, outputs};
pub use sources::Sources;
