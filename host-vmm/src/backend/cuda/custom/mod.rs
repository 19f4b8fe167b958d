//! Rows of the table whose host side is written by hand: one file per spec file, one function per row, with the parameters of the
//! trait's method.
#![allow(non_snake_case)] // The driver's names.

pub mod capture;
pub mod context;
pub mod device;
pub mod event;
pub mod graph;
pub mod graph_node;
pub mod host_memory;
pub mod init;
pub mod internal;
pub mod memory;
pub mod pool;
pub mod stream;
pub mod user_object;
