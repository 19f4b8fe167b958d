//! The comparison with cudarc's prototypes.

use std::collections::BTreeSet;

use super::{HEADER, sys_name};
use crate::check::Table;
use crate::ir::Row;
use crate::types::is_rust_name;

pub(super) fn emit(table: &Table) -> String {
    let exported = || table.rows.iter().filter(|row| !row.internal);
    let mut text = format!(
        "{HEADER}//! Compile-time comparison with the prototypes that cudarc has from NVIDIA's header.
#![allow(non_snake_case, clippy::type_complexity)]

use core::mem::{{align_of, size_of}};

use cudarc::driver::sys;

use crate::types;

/// Our prototypes are those of the header: the same text, once with cudarc's types.
#[test]
fn prototypes_are_those_of_the_header() {{
"
    );
    for row in exported().filter(|row| row.unchecked.is_none()) {
        text.push_str(&format!("let _: unsafe fn({}) -> sys::CUresult = sys::{};\n", params(row), row.name));
    }
    text.push_str(
        "}\n\n/// Our types have the sizes of the header's.\n#[test]\nfn types_are_those_of_the_header() {\n",
    );
    let names: BTreeSet<&str> = exported()
        .flat_map(|row| &row.params)
        .filter_map(|param| param.ty.base_name())
        .filter(|name| !is_rust_name(name))
        .collect();
    for name in names {
        text.push_str(&format!(
            "assert_eq!((size_of::<types::{name}>(), align_of::<types::{name}>()), (size_of::<sys::{name}>(), align_of::<sys::{name}>()), \"{name}\");\n"
        ));
    }
    text.push_str("}\n");
    let unchecked: Vec<&Row> = exported().filter(|row| row.unchecked.is_some()).collect();
    if !unchecked.is_empty() {
        text.push_str(
            "\n/// Rows that are marked `unchecked`. If cudarc had one of these names, its use below would be ambiguous.\nmod unchecked {\n",
        );
        for row in &unchecked {
            let reason = row.unchecked.as_deref().unwrap_or_default();
            text.push_str(&format!("/// {reason}\npub fn {}() {{}}\n", row.name));
        }
        text.push_str(
            "}\n\nmod absent {\nuse super::unchecked::*;\n#[allow(unused_imports)]\nuse cudarc::driver::sys::*;\n\n#[test]\nfn unchecked_marks_are_needed() {\n",
        );
        for row in &unchecked {
            text.push_str(&format!("{}();\n", row.name));
        }
        text.push_str("}\n}\n");
    }
    text
}

fn params(row: &Row) -> String {
    row.params.iter().map(|param| param.ty.print(&sys_name)).collect::<Vec<_>>().join(", ")
}
