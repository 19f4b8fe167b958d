//! Runs PTX kernels on the CPU.
//!
//! * [`abi`], [`kernel`]: the contract between generated code and the engine;
//! * [`program`]: loads modules and compiles kernels (syntax tree -> IR -> machine code);
//! * [`region`]: the device address space of a process;
//! * [`fault`]: recovery from hardware faults of generated code;
//! * [`engine`]: runs grids of blocks on all cores;
//! * [`helpers`]: functions that generated code calls.

pub mod abi;
mod codegen;
pub mod engine;
pub mod fault;
pub mod helpers;
mod ir;
pub mod kernel;
mod lower;
pub mod program;
pub mod region;
