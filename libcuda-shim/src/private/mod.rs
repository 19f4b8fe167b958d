#![allow(unsafe_code)]
//! `cuGetExportTable`: the private function tables that CUDA runtimes and libraries ask a driver for.
//!
//! What is known of them, and from where, is in the project's facts on the private interface: each was observed from the outside, by
//! answering a runtime's requests. They are answered in the guest, without traffic. A slot that nobody has been seen to use holds a
//! function that reports its use and returns an error, so that a new use is a line in the log and not a crash.
//!
//! Unsafe because the slots are C functions that write through the caller's pointers.

#[cfg(feature = "cudart-handshake")]
mod handshake;
mod tables;

pub use tables::find;
