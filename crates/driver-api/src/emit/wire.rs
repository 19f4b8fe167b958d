//! The shim's client functions: one per wire operation.

use super::{HEADER, doc, has_cstr, wire_params, wire_rows};
use crate::check::Table;
use crate::ir::{Class, Mark, Param, Row};
use crate::types::Wire;

pub(super) fn emit(table: &Table) -> String {
    let mut text = format!(
        "{HEADER}//! One function per wire operation: encodes the request, decodes the reply.
#![allow(non_snake_case, clippy::too_many_arguments)]
// Not every operation has a user yet.
#![allow(dead_code)]

{}use protocol::ops;
use protocol::status::CuResult;

use crate::call::{{cached, posted, sync, sync_beside}};
",
        if wire_rows(table).any(has_cstr) { "use core::ffi::CStr;\n\n" } else { "" }
    );
    for row in wire_rows(table) {
        function(&mut text, row);
    }
    text
}

fn function(text: &mut String, row: &Row) {
    let name = &row.name;
    let outs: Vec<&Param> =
        row.params.iter().filter(|param| matches!(param.mark, Mark::Out | Mark::DataOut(_))).collect();
    let beside = if row.beside { ", beside: impl FnOnce()" } else { "" };
    text.push_str(&format!("\n{}pub fn {name}({}{beside}) -> CuResult {{\n", doc(row, ""), wire_params(row)));
    for param in &outs {
        match param.mark {
            Mark::DataOut(Some(_)) => {
                text.push_str(&format!(
                    "let {0}_len = {0}.as_ref().map(|data| data.len() as u64);\n",
                    param.name
                ));
            }
            _ => text.push_str(&format!("let {0}_present = {0}.is_some();\n", param.name)),
        }
    }
    let send = match row.class {
        Class::Cached => "cached",
        Class::Posted => "posted",
        _ if row.beside => "sync_beside",
        _ => "sync",
    };
    let writes: String = row.params.iter().map(write).collect();
    let writes = if row.default_stream() { writes + "w.u64(default_stream);\n" } else { writes };
    let w = if writes.is_empty() { "_" } else { "w" };
    text.push_str(&format!("{send}(ops::{name}, |{w}| {{\n{writes}}}"));
    if row.class != Class::Posted {
        let reads: String = outs.iter().map(|param| read(param)).collect();
        let r = if reads.is_empty() { "_" } else { "r" };
        text.push_str(&format!(", |{r}| {{\n{reads}Ok(())\n}}"));
    }
    text.push_str(if row.beside { ", beside)\n}\n" } else { ")\n}\n" });
}

fn write(param: &Param) -> String {
    let name = &param.name;
    match &param.mark {
        Mark::Plain | Mark::Address => match param.wire() {
            Some(Wire::Fixed(_)) => format!("w.fixed(&{name});\n"),
            Some(Wire::Scalar("u16" | "u8")) => format!("w.u32(u32::from({name}));\n"),
            Some(Wire::Scalar("f32")) => format!("w.u32({name}.to_bits());\n"),
            Some(Wire::Scalar(scalar)) => format!("w.{scalar}({name});\n"),
            None => String::new(),
        },
        Mark::Out | Mark::DataOut(None) => format!("w.present({name}_present);\n"),
        Mark::Input => format!("w.bytes({name}.map(|data| data.as_slice()));\n"),
        Mark::Cstr => format!("w.cstr({name});\n"),
        Mark::DataIn(_) => format!("w.bytes({name});\n"),
        Mark::DataOut(Some(_)) => format!("w.u64({name}_len.unwrap_or(protocol::wire::NULL));\n"),
    }
}

fn read(param: &Param) -> String {
    let name = &param.name;
    match &param.mark {
        Mark::DataOut(Some(_)) => {
            format!(
                "if let Some(data) = {name} {{ let len = data.len(); data.copy_from_slice(r.fixed(len)?); }}\n"
            )
        }
        Mark::DataOut(None) => {
            format!(
                "if let Some(data) = {name} {{ data.clear(); data.extend_from_slice(r.bytes(usize::MAX)?.unwrap_or_default()); }}\n"
            )
        }
        _ => {
            let value = match param.wire() {
                Some(Wire::Fixed(len)) => {
                    return format!(
                        "if let Some(value) = {name} {{ value.copy_from_slice(r.fixed({len})?); }}\n"
                    );
                }
                Some(Wire::Scalar("u16")) => "r.u32()? as u16",
                Some(Wire::Scalar("u8")) => "r.u32()? as u8",
                Some(Wire::Scalar("f32")) => "f32::from_bits(r.u32()?)",
                Some(Wire::Scalar("i32")) => "r.i32()?",
                Some(Wire::Scalar("u32")) => "r.u32()?",
                _ => "r.u64()?",
            };
            format!("if let Some(value) = {name} {{ *value = {value}; }}\n")
        }
    }
}
