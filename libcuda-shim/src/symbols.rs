#![allow(unsafe_code)]
//! Addresses of the exported functions. Unsafe because a table of addresses is shared between threads.

use core::ffi::c_void;

use crate::generated::symbols::SYMBOLS;

/// Address of an exported function.
#[derive(Debug)]
pub struct Address(*const ());

impl Address {
    pub const fn new(function: *const ()) -> Address {
        Address(function)
    }
}

// SAFETY: the address of a function of this library, never read through.
unsafe impl Sync for Address {}

/// The address of an exported symbol.
pub fn address(symbol: &str) -> Option<*mut c_void> {
    let index = SYMBOLS.binary_search_by(|(name, _)| (*name).cmp(symbol)).ok()?;
    Some(SYMBOLS[index].1.0.cast_mut().cast())
}
