//! The host's `trait Driver`: one trait per spec file, so that a backend can be spread over as many files.

use super::{HEADER, doc, has_cstr, wire_params, wire_rows};
use crate::check::Table;

pub(super) fn emit(table: &Table) -> String {
    let mut text = format!(
        "{HEADER}//! What a backend implements: one method per wire operation.
#![allow(non_snake_case, unused_variables, clippy::too_many_arguments)]

{}use protocol::status::{{CuResult, Status}};

use crate::session::Call;

fn unsupported() -> CuResult {{
    Err(Status::NOT_SUPPORTED)
}}

",
        if wire_rows(table).any(has_cstr) { "use core::ffi::CStr;\n\n" } else { "" }
    );
    let mut modules: Vec<&str> = Vec::new();
    for row in wire_rows(table) {
        if !modules.contains(&row.module.as_str()) {
            modules.push(&row.module);
        }
    }
    for module in &modules {
        text.push_str(&format!(
            "/// The calls of `spec/{module}.rs`.\npub trait {} {{\n",
            trait_name(module)
        ));
        for row in wire_rows(table).filter(|row| row.module == *module) {
            let params = wire_params(row);
            let comma = if params.is_empty() { "" } else { ", " };
            text.push_str(&format!(
                "{}fn {}(&self, call: &mut Call<'_>{comma}{params}) -> CuResult {{ unsupported() }}\n\n",
                doc(row, ""),
                row.name
            ));
        }
        text.push_str("}\n\n");
    }
    let bounds: Vec<String> = modules.iter().map(|module| trait_name(module)).collect();
    let bounds = bounds.join(" + ");
    text.push_str(&format!(
        "/// A backend. Every method defaults to CUDA_ERROR_NOT_SUPPORTED.
///
/// Absent options are NULL pointers of the program: checking them is the backend's, so that the order of errors is the driver's.
/// Handles are ids, addresses are those of the session's region.
pub trait Driver: Send + Sync + {bounds} {{}}

impl<T: Send + Sync + {bounds}> Driver for T {{}}
"
    ));
    text
}

/// `host_memory` is `HostMemoryCalls`.
pub(super) fn trait_name(module: &str) -> String {
    let words = module.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    });
    words.collect::<String>() + "Calls"
}
