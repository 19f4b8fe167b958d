#![allow(non_snake_case, clippy::missing_safety_doc, clippy::too_many_arguments)]
//! Calls that are written by hand, one file per spec file of `crates/driver-api`.
//!
//! A function here has the C prototype of its call, but returns [`CuResult`](protocol::status::CuResult): the generated exported function traces it
//! and guards the boundary. What a call needs from the host it asks through the client functions in `generated/wire.rs`.

pub mod capture;
pub mod context;
pub mod device;
pub mod error;
pub mod event;
pub mod external;
pub mod function;
pub mod graph;
pub mod graph_node;
pub mod host_memory;
pub mod init;
pub mod ipc;
pub mod launch;
pub mod legacy;
pub mod library;
pub mod link;
pub mod logs;
pub mod memcpy;
pub mod memcpy_box;
pub mod memory;
pub mod module;
pub mod occupancy;
pub mod pointer;
pub mod pool;
pub mod pool_sharing;
pub mod profiler;
pub mod resource;
pub mod stream;
pub mod tensor_map;
pub mod texref;
pub mod user_object;
pub mod vmm;
