//! The wire protocol: frames, words and blobs, handshake, status codes, the session's address region.
//!
//! Both sides link this crate. It does no I/O, owns no thread and keeps no state; everything that reads bytes of the other side is
//! bounds-checked and returns a small `Copy` error. The format is described in `docs/wire-protocol.md`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod broker;
#[cfg(test)]
mod broker_tests;
pub mod copy;
pub mod devices;
pub mod frame;
pub mod function;
#[doc(hidden)]
pub mod fuzz;
pub mod graph;
pub mod handshake;
pub mod lane;
pub mod named;
pub mod region;
pub mod status;
pub mod stream;
pub mod text;
pub mod window;
pub mod wire;

/// Opcodes and their descriptions, written by `cargo xtask codegen`.
#[path = "generated/ops.rs"]
pub mod ops;

pub use frame::{Flags, FrameError, FrameHeader, HEADER_LEN, Kind};
pub use handshake::{Capabilities, Limits, Token};
pub use lane::LanePlacement;
pub use region::Region;
pub use status::{CuResult, Status};
pub use wire::{Reader, WireError, Writer};
