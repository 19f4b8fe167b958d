//! The shim's exported functions.

use std::collections::BTreeSet;

use super::{HEADER, doc, local_name, zero};
use crate::check::Table;
use crate::ir::{Class, Length, Mark, Param, Row};
use crate::types::{Kind, Type, is_rust_name};

pub(super) fn emit(table: &Table) -> String {
    let mut body = String::new();
    for row in table.rows.iter().filter(|row| !row.internal) {
        let other = match &row.class {
            Class::Like(name) => table.rows.iter().find(|other| other.name == *name),
            _ => None,
        };
        function(&mut body, row, other.unwrap_or(row), None);
        if let Some(twin) = &row.twin {
            function(&mut body, row, row, Some(twin.suffix));
        }
    }
    let mut types = BTreeSet::from(["CUresult"]);
    let mut core_types = BTreeSet::new();
    for name in table
        .rows
        .iter()
        .filter(|row| !row.internal)
        .flat_map(|row| &row.params)
        .filter_map(|param| param.ty.base_name())
    {
        if name.starts_with("c_") {
            core_types.insert(name);
        } else if !is_rust_name(name) {
            types.insert(name);
        }
    }
    let constants = ["CU_STREAM_LEGACY", "CU_STREAM_PER_THREAD"];
    types.extend(constants.iter().filter(|name| body.contains(*name)));
    format!(
        "{HEADER}#![allow(unsafe_code)]
//! The functions that programs call. Unsafe because they are C functions: pointers are what the caller says they are.
//!
//! A pointer is read or written here as the driver's documentation of the call allows; NULL is passed on as absent.
#![allow(non_snake_case, clippy::too_many_arguments, clippy::missing_safety_doc, clippy::redundant_closure)]
// Some handles are numbers already.
#![allow(clippy::unnecessary_cast)]
// Hand-written functions without pointers are safe.
#![allow(unused_unsafe)]

{core}use protocol::ops::info;

use super::wire;
use crate::call::entry;
use crate::types::{{{types}}};
use crate::{{custom, marshal}};
{body}",
        core = if core_types.is_empty() {
            String::new()
        } else {
            format!("use core::ffi::{{{}}};\n\n", core_types.into_iter().collect::<Vec<_>>().join(", "))
        },
        types = types.into_iter().collect::<Vec<_>>().join(", "),
    )
}

/// The exported function of `row`, answered as `answer` says: the row itself, or the one that it is like.
fn function(text: &mut String, row: &Row, answer: &Row, twin: Option<&'static str>) {
    let name = format!("{}{}", row.name, twin.unwrap_or_default());
    let params: Vec<String> = answer
        .params
        .iter()
        .map(|param| format!("{}: {}", param.name, param.ty.print(&local_name)))
        .collect();
    let traces: String = answer.params.iter().map(trace).collect();
    let (t, open, close) = if traces.is_empty() { ("_", "", "") } else { ("t", "{\n", "}") };
    let traces = if traces.is_empty() { "{}".to_owned() } else { format!("{open}{traces}{close}") };
    let call =
        if answer.by_hand() { by_hand(answer, twin.is_some()) } else { by_wire(answer, twin.is_some()) };
    text.push_str(&format!(
        "\n{}#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn {name}({}) -> CUresult {{\nentry(&info::{name}, |{t}| {traces}, || {{\n{call}}})\n}}\n",
        doc(row, ""),
        params.join(", ")
    ));
}

fn trace(param: &Param) -> String {
    if param.mark == Mark::Cstr {
        return format!(
            "// SAFETY: NULL or, by the call's contract, a C string.\nt.arg(\"{0}\", unsafe {{ marshal::text({0}) }});\n",
            param.name
        );
    }
    // Structures by value are shown by their address.
    let value = match param.ty.kind() {
        Some(Kind::Fixed(_) | Kind::Struct(_)) => format!("&raw const {}", param.name),
        _ => param.name.clone(),
    };
    format!("t.arg(\"{}\", {value});\n", param.name)
}

/// The argument for a stream: in a twin, NULL is the thread's default stream.
fn stream(param: &Param, per_thread: bool) -> String {
    if param.stream && per_thread {
        format!("marshal::per_thread({})", param.name)
    } else {
        param.name.clone()
    }
}

fn by_hand(row: &Row, per_thread: bool) -> String {
    let mut args: Vec<String> = row.params.iter().map(|param| stream(param, per_thread)).collect();
    if row.default_stream() {
        args.push(if per_thread { "CU_STREAM_PER_THREAD" } else { "CU_STREAM_LEGACY" }.to_owned());
    }
    format!(
        "// SAFETY: the arguments are the caller's, unchanged.\nunsafe {{ custom::{}::{}({}) }}\n",
        row.module,
        row.name,
        args.join(", ")
    )
}

fn by_wire(row: &Row, per_thread: bool) -> String {
    let mut before = String::new();
    let mut after = String::new();
    let mut args = Vec::new();
    for param in &row.params {
        args.push(argument(row, param, per_thread, &mut before, &mut after));
    }
    if row.default_stream() {
        args.push(if per_thread { "2" } else { "1" }.to_owned());
    }
    let call = format!("wire::{}({})", row.name, args.join(", "));
    if after.is_empty() { format!("{before}{call}\n") } else { format!("{before}{call}?;\n{after}Ok(())\n") }
}

fn argument(row: &Row, param: &Param, per_thread: bool, before: &mut String, after: &mut String) -> String {
    let name = &param.name;
    match &param.mark {
        Mark::Plain => match param.ty.kind() {
            Some(Kind::Size) => format!("{name} as u64"),
            Some(Kind::Handle) => format!("{} as u64", stream(param, per_thread)),
            Some(Kind::Fixed(len) | Kind::Struct(len)) => {
                before.push_str(&format!(
                    "// SAFETY: the structure is {len} bytes without padding.\n\
                     let {name}_value = unsafe {{ (&raw const {name}).cast::<[u8; {len}]>().read() }};\n"
                ));
                format!("{name}_value")
            }
            _ => name.clone(),
        },
        Mark::Address => format!("{name} as u64"),
        Mark::Out => {
            let zero = param.wire().map(zero).unwrap_or_default();
            before.push_str(&format!("let mut {name}_value = (!{name}.is_null()).then_some({zero});\n"));
            if param.ty.pointee().and_then(Type::base_name) == Some("CUdeviceptr") {
                after.push_str(&format!("custom::init::learn_address({name}_value)?;\n"));
            }
            after.push_str(&format!(
                "// SAFETY: not NULL, so by the call's contract it points to room for the value.\n\
                 unsafe {{ marshal::put({name}.cast(), {name}_value) }};\n"
            ));
            format!("{name}_value.as_mut()")
        }
        Mark::Input => {
            let rust = param.wire().map(crate::types::Wire::rust).unwrap_or_default();
            before.push_str(&format!(
                "// SAFETY: NULL or, by the call's contract, a structure of that size.\n\
                 let {name}_value = unsafe {{ marshal::input::<{rust}>({name}.cast()) }};\n"
            ));
            format!("{name}_value.as_ref()")
        }
        Mark::Cstr => {
            before.push_str(&format!(
                "// SAFETY: NULL or, by the call's contract, a C string.\n\
                 let {name}_value = unsafe {{ marshal::cstr({name}) }};\n"
            ));
            format!("{name}_value")
        }
        Mark::DataIn(length) => {
            before.push_str(&format!(
                "let {name}_len = {};\n\
                 // SAFETY: NULL or, by the call's contract, that many readable bytes.\n\
                 let {name}_value = unsafe {{ marshal::data_in({name}.cast(), {name}_len) }};\n",
                byte_count(row, length.as_ref())
            ));
            format!("{name}_value")
        }
        // Text ends at its NUL: what lies behind it is the program's, even if the length it gives goes further.
        Mark::DataOut(length) if param.ty.base_name() == Some("c_char") => {
            before.push_str(&format!(
                "let {name}_len = {};\n\
                 let mut {name}_value = (!{name}.is_null()).then(|| vec![0u8; {name}_len]);\n",
                byte_count(row, length.as_ref())
            ));
            after.push_str(&format!(
                "// SAFETY: not NULL, so by the call's contract it has room for the text.\n\
                 unsafe {{ marshal::put_text({name}, {name}_value) }};\n"
            ));
            format!("{name}_value.as_deref_mut()")
        }
        Mark::DataOut(length) => {
            before.push_str(&format!(
                "let {name}_len = {};\n\
                 // SAFETY: NULL or, by the call's contract, that many writable bytes.\n\
                 let {name}_value = unsafe {{ marshal::data_out({name}.cast(), {name}_len) }};\n",
                byte_count(row, length.as_ref())
            ));
            format!("{name}_value")
        }
    }
}

fn byte_count(row: &Row, length: Option<&Length>) -> String {
    let Some(length) = length else { return "0".to_owned() };
    let param = &length.param;
    let is_size =
        row.params.iter().any(|other| other.name == *param && matches!(other.ty.kind(), Some(Kind::Size)));
    let count = if is_size { param.clone() } else { format!("{param} as i64 as usize") };
    format!("marshal::length({count}, {})?", length.unit)
}
