//! Structures with handles in them: the ids of a request become the driver's handles, and the driver's become ids.
//!
//! One pair of functions per type of `Kind::Struct` in the table, by the type's name: `inward_NAME(cuda, bytes)` before the call,
//! `outward_NAME(cuda, call, bytes)` after it. Offsets are those of the header for 64-bit systems; `buffer::word` and `buffer::set_word` read and write
//! fields.
#![allow(non_snake_case)] // The driver's names.
