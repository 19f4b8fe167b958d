//! The cuda backend's table of the real driver's functions, and the kinds of its handles.

use super::HEADER;
use crate::check::Table;
use crate::ir::{Class, Row};
use crate::types::{Kind, Type, handle_names};

pub(super) fn emit(table: &Table) -> String {
    let functions: Vec<Function<'_>> = table.rows.iter().flat_map(functions).collect();
    let mut text = format!(
        "{HEADER}//! The real driver's functions, by ABI name, and the kinds of its handles.
//!
//! Handles and device pointers are numbers here: the host never follows them. Structures are `c_void`, a pointer to a pointer is a pointer
//! to a number, by value a structure is [`Bytes`].
#![allow(unsafe_code, non_snake_case, non_camel_case_types, clippy::enum_variant_names, clippy::too_many_arguments, clippy::type_complexity)]

use core::ffi::{{CStr, c_char, c_void}};

use protocol::status::{{CuResult, Status}};

/// A structure that is passed by value.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bytes<const N: usize>(pub [u8; N]);

"
    );
    text.push_str(
        "/// Kinds of handles, by the driver's type names.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\npub enum Kind {\n",
    );
    for name in handle_names() {
        text.push_str(&format!("{name},\n"));
    }
    text.push_str("}\n\n/// The driver's functions; those that it does not have are `None`.\n#[derive(Default)]\npub struct Raw {\n");
    for function in &functions {
        text.push_str(&format!(
            "{}: Option<unsafe extern \"C\" fn({}) -> u32>,\n",
            function.symbol,
            function.types().join(", ")
        ));
    }
    text.push_str(
        "}

fn called(result: u32) -> CuResult {
    Status(result).ok()
}

impl Raw {
    /// Looks all functions up; `find` gives the address of a symbol, or NULL.
    ///
    /// # Safety
    /// `find` returns addresses of the driver API's functions of these names, which stay valid.
    pub unsafe fn load(mut find: impl FnMut(&CStr) -> *mut c_void) -> Self {
        Self {
",
    );
    for function in &functions {
        text.push_str(&format!(
            "// SAFETY: by the caller's promise; NULL is `None`.\n{0}: unsafe {{ core::mem::transmute::<*mut c_void, Option<unsafe extern \"C\" fn({1}) -> u32>>(find(c\"{0}\")) }},\n",
            function.symbol,
            function.types().join(", ")
        ));
    }
    text.push_str("}\n}\n\n");
    for function in &functions {
        let params: Vec<String> = function.params.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
        let names: Vec<&str> = function.params.iter().map(|(name, _)| name.as_str()).collect();
        text.push_str(&format!(
            "/// # Safety\n/// That of the driver's function.\n#[inline]\npub unsafe fn {0}(&self, {1}) -> CuResult {{\n\
             let Some(driver) = self.{0} else {{ return Err(Status::NOT_SUPPORTED) }};\n\
             // SAFETY: by the caller's promise.\ncalled(unsafe {{ driver({2}) }})\n}}\n\n",
            function.symbol,
            params.join(", "),
            names.join(", ")
        ));
    }
    text.push_str("}\n");
    text
}

/// One symbol of the driver.
struct Function<'a> {
    symbol: String,
    params: Vec<(&'a String, String)>,
}

impl Function<'_> {
    fn types(&self) -> Vec<String> {
        self.params.iter().map(|(_, ty)| ty.clone()).collect()
    }
}

/// The symbols of a row: of an older name nothing, and both twins where no parameter says which stream is meant.
fn functions(row: &Row) -> Vec<Function<'_>> {
    if row.internal || matches!(row.class, Class::Like(_)) {
        return Vec::new();
    }
    let params: Vec<_> = row.params.iter().map(|param| (&param.name, raw_type(&param.ty))).collect();
    let mut functions = vec![Function { symbol: row.name.clone(), params: params.clone() }];
    if let (true, Some(twin)) = (row.default_stream(), &row.twin) {
        functions.push(Function { symbol: format!("{}{}", row.name, twin.suffix), params });
    }
    functions
}

/// A type in the table's prototypes.
pub(super) fn raw_type(ty: &Type) -> String {
    match ty {
        Type::Pointer(mutable, inner) => {
            format!("*{} {}", if *mutable { "mut" } else { "const" }, behind_pointer(inner))
        }
        _ => match ty.kind() {
            Some(Kind::Fixed(len) | Kind::Struct(len)) => format!("Bytes<{len}>"),
            Some(kind) => kind.wire().map_or_else(|| "*mut c_void".to_owned(), |wire| wire.rust()),
            None => "*mut c_void".to_owned(),
        },
    }
}

fn behind_pointer(ty: &Type) -> String {
    match ty {
        Type::Pointer(..) => "u64".to_owned(),
        Type::Named(name) if name == "c_char" => "c_char".to_owned(),
        _ => match ty.kind() {
            Some(Kind::Fixed(_) | Kind::Struct(_)) | None => "c_void".to_owned(),
            Some(kind) => kind.wire().map_or_else(|| "c_void".to_owned(), |wire| wire.rust()),
        },
    }
}
