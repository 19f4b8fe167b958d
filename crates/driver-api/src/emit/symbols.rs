//! Addresses of the exported functions.

use super::HEADER;
use crate::check::Table;

pub(super) fn emit(table: &Table) -> String {
    let mut text = format!(
        "{HEADER}//! The exported functions by name.

use super::{{exports, unhandled}};
use crate::symbols::Address;

/// Sorted by name.
pub static SYMBOLS: &[(&str, Address)] = &[
"
    );
    for name in &table.exports {
        let module = if table.is_unhandled(name) { "unhandled" } else { "exports" };
        text.push_str(&format!("(\"{name}\", Address::new({module}::{name} as *const ())),\n"));
    }
    text.push_str("];\n");
    text
}
