//! Runs PTX kernels on the CPU.
//!
//! * [`abi`], [`kernel`]: the contract between generated code and the engine;
//! * [`region`]: the device address space of a process;
//! * [`fault`]: recovery from hardware faults of generated code;
//! * [`engine`]: runs grids of blocks on all cores;
//! * [`helpers`]: functions that generated code calls.

pub mod abi;
pub mod engine;
pub mod fault;
pub mod helpers;
pub mod kernel;
pub mod region;
