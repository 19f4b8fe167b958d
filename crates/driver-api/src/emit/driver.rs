//! The host's `trait Driver`.

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

/// A backend. Every method defaults to CUDA_ERROR_NOT_SUPPORTED.
///
/// Absent options are NULL pointers of the program: checking them is the backend's, so that the order of errors is the driver's.
/// Handles are ids, addresses are those of the session's region.
pub trait Driver: Send + Sync {{
",
        if wire_rows(table).any(has_cstr) { "use core::ffi::CStr;\n\n" } else { "" }
    );
    for row in wire_rows(table) {
        let params = wire_params(row);
        let comma = if params.is_empty() { "" } else { ", " };
        text.push_str(&format!(
            "{}fn {}(&self, call: &mut Call<'_>{comma}{params}) -> CuResult {{ unsupported() }}\n\n",
            doc(row, ""),
            row.name
        ));
    }
    text.push_str("}\n");
    text
}
