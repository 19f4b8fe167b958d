//! What tells this library from NVIDIA's: a daemon that loaded it as its driver would call itself.
#![allow(unsafe_code)] // Exports a symbol.
#![allow(non_upper_case_globals)] // Names of symbols.

/// Looked up by the daemon, which refuses a library that has it.
#[cfg(not(feature = "nested-driver"))]
// SAFETY: no other library of a process has a symbol of this name.
#[unsafe(no_mangle)]
pub static host_vmm_shim_marker: u8 = 1;

/// Looked up by the daemon, which then knows that this is a stand-in for a driver.
#[cfg(feature = "nested-driver")]
// SAFETY: no other library of a process has a symbol of this name.
#[unsafe(no_mangle)]
pub static host_vmm_shim_nested: u8 = 1;
