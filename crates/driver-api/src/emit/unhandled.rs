//! Exported names without a row.

use super::HEADER;
use crate::check::Table;

pub(super) fn emit(table: &Table) -> String {
    let mut text = format!(
        "{HEADER}#![allow(unsafe_code)]
//! Names that the driver exports and that are not handled: CUDA_ERROR_NOT_SUPPORTED, logged once each.
//!
//! Unsafe because the names are exported to C. They look at no argument, so their prototypes do not matter on this ABI.
#![allow(non_snake_case, clippy::missing_safety_doc)]

use crate::call::unhandled;
use crate::types::CUresult;
"
    );
    for (name, reason) in symbols(table) {
        let reason = reason.unwrap_or("not yet");
        text.push_str(&format!(
            "\n/// Not handled.\n#[unsafe(no_mangle)]\npub extern \"C\" fn {name}() -> CUresult {{\nunhandled(\"{name}\", {reason:?})\n}}\n"
        ));
    }
    text
}

/// Names and twins with their reasons, sorted.
fn symbols(table: &Table) -> Vec<(String, Option<&str>)> {
    let mut symbols: Vec<(String, Option<&str>)> = table
        .unhandled
        .iter()
        .flat_map(|name| {
            let twin = name.twin.as_ref().map(|twin| format!("{}{}", name.name, twin.suffix));
            let reason = name.reason.as_deref();
            std::iter::once(name.name.clone()).chain(twin).map(move |symbol| (symbol, reason))
        })
        .collect();
    symbols.sort();
    symbols
}
