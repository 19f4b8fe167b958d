//! The cuda backend's methods: handles translated, the real driver called, new handles entered.

use super::driver::trait_name;
use super::{HEADER, has_cstr, wire_params, wire_rows};
use crate::check::Table;
use crate::ir::{Mark, Param, Row};
use crate::types::{Kind, Type, Wire};

pub(super) fn emit(table: &Table) -> String {
    let mut text = format!(
        "{HEADER}//! The cuda backend's side of each wire operation: handles and structures with handles in them become the driver's, the driver
//! is called, and what it has made gets an id. Rows marked `host_custom`, and internal operations, are in `backend/cuda/custom`.
#![allow(unsafe_code)] // Calls the driver.
#![allow(non_snake_case, unused_imports, unused_variables, unused_mut, clippy::too_many_arguments)]

{}use protocol::status::CuResult;

use super::cuda_raw::{{Bytes, Kind}};
use super::driver::*;
use crate::backend::cuda::buffer::{{self, Buffer}};
use crate::backend::cuda::{{CudaBackend, custom, translate}};
use crate::session::Call;

",
        if wire_rows(table).any(has_cstr) { "use core::ffi::CStr;\n" } else { "" }
    );
    let mut modules: Vec<&str> = Vec::new();
    for row in wire_rows(table) {
        if !modules.contains(&row.module.as_str()) {
            modules.push(&row.module);
        }
    }
    for module in &modules {
        text.push_str(&format!("impl {} for CudaBackend {{\n", trait_name(module)));
        for row in wire_rows(table).filter(|row| row.module == *module) {
            method(&mut text, row);
        }
        text.push_str("}\n\n");
    }
    text
}

fn method(text: &mut String, row: &Row) {
    let params = wire_params(row);
    let comma = if params.is_empty() { "" } else { ", " };
    text.push_str(&format!("fn {}(&self, call: &mut Call<'_>{comma}{params}) -> CuResult {{\n", row.name));
    if row.host_custom {
        let mut args: Vec<&str> = row.params.iter().map(|param| param.name.as_str()).collect();
        if row.default_stream() {
            args.push("default_stream");
        }
        text.push_str(&format!(
            "custom::{}::{}(self, call{comma}{})\n}}\n\n",
            row.module,
            row.name,
            args.join(", ")
        ));
        return;
    }
    let mut before = String::new();
    let mut args = Vec::new();
    let mut after = String::new();
    if row.params.iter().any(|param| born(param).is_some()) {
        before.push_str("self.room()?;\n");
    }
    // A parent's number is needed after its name stands for the driver's handle.
    for param in &row.params {
        if let Some(parent) = &param.parent {
            let line = format!("let {parent}_id = {parent};\n");
            if !before.contains(&line) {
                before.push_str(&line);
            }
        }
    }
    // Last: what has been declared dying must be settled, so nothing may fail in between.
    let mut dying = String::new();
    for param in &row.params {
        param_code(param, &mut before, &mut dying, &mut args, &mut after);
    }
    before.push_str(&dying);
    let args = args.join(", ");
    let call = match (row.default_stream(), &row.twin) {
        (true, Some(twin)) => format!(
            "if default_stream == buffer::PER_THREAD {{\n\
             // SAFETY: every pointer is NULL or of a buffer of the size that the driver expects; handles and addresses have been checked.\n\
             unsafe {{ self.raw().{0}{1}({args}) }}\n}} else {{\n\
             // SAFETY: as above.\nunsafe {{ self.raw().{0}({args}) }}\n}}",
            row.name, twin.suffix
        ),
        _ => format!(
            "// SAFETY: every pointer is NULL or of a buffer of the size that the driver expects; handles and addresses have been checked.\n\
             unsafe {{ self.raw().{}({args}) }}",
            row.name
        ),
    };
    let dying: Vec<&Param> = row.params.iter().filter(|param| param.dies).collect();
    let result = match dying.as_slice() {
        [] => format!("{before}{call}"),
        dying => {
            let ids: Vec<String> = dying.iter().map(|param| format!("{}_dying", param.name)).collect();
            format!(
                "{before}let result = {{\n{call}\n}};\nself.settle(&result, [{}]);\nresult",
                ids.join(", ")
            )
        }
    };
    if after.is_empty() {
        text.push_str(&format!("{result}\n}}\n\n"));
    } else if dying.is_empty() {
        text.push_str(&format!("{result}?;\n{after}Ok(())\n}}\n\n"));
    } else {
        text.push_str(&format!("let () = {{\n{result}\n}}?;\n{after}Ok(())\n}}\n\n"));
    }
}

/// The type of the handles that a call makes through a parameter.
fn born(param: &Param) -> Option<&str> {
    let inner = param.ty.pointee()?;
    let makes = matches!(param.mark, Mark::Out | Mark::DataOut(_)) && inner.kind() == Some(Kind::Handle);
    makes.then(|| inner.base_name()).flatten()
}

fn is_struct(ty: Option<&Type>) -> Option<&str> {
    let ty = ty?;
    matches!(ty.kind(), Some(Kind::Struct(_))).then(|| ty.base_name()).flatten()
}

fn param_code(
    param: &Param,
    before: &mut String,
    dying: &mut String,
    args: &mut Vec<String>,
    after: &mut String,
) {
    let name = &param.name;
    let inner = param.ty.pointee();
    let parent = match &param.parent {
        Some(parent) => format!("Some({parent}_id)"),
        None => "None".to_owned(),
    };
    let constant = matches!(param.ty, Type::Pointer(false, _));
    let pointer = if constant { "as_ptr" } else { "as_mut_ptr" };
    match &param.mark {
        Mark::Plain => match (param.ty.kind(), param.ty.base_name().unwrap_or_default()) {
            (Some(Kind::Handle), ty) => {
                if param.dies {
                    dying.push_str(&format!(
                        "let ({name}, {name}_dying) = self.dying(Kind::{ty}, {name})?;\n"
                    ));
                } else {
                    before.push_str(&format!("let {name} = self.inward(Kind::{ty}, {name})?;\n"));
                }
                args.push(name.clone());
            }
            (_, "CUdeviceptr") => {
                before.push_str(&format!("let {name} = self.address({name})?;\n"));
                args.push(name.clone());
            }
            (Some(Kind::Fixed(_)), _) => args.push(format!("Bytes({name})")),
            (Some(Kind::Struct(_)), ty) => {
                before.push_str(&format!(
                    "let mut {name} = {name};\ntranslate::inward_{ty}(self, &mut {name})?;\n"
                ));
                args.push(format!("Bytes({name})"));
            }
            _ => args.push(name.clone()),
        },
        Mark::Address => args.push(format!("buffer::pointer({name})")),
        Mark::Cstr => args.push(format!("{name}.map_or(core::ptr::null(), CStr::as_ptr)")),
        Mark::Out => match (born(param), param.wire()) {
            (Some(ty), _) => {
                before.push_str(&format!("let mut {name}_raw = 0u64;\n"));
                args.push(format!("buffer::out({name}.is_some(), &mut {name}_raw)"));
                after.push_str(&format!(
                    "if let Some({name}) = {name} {{ *{name} = self.born(call, Kind::{ty}, {name}_raw, {parent})?; }}\n"
                ));
            }
            (None, Some(Wire::Fixed(_))) => {
                before.push_str(&format!(
                    "let mut {name}_buffer = Buffer::new({name}.as_ref().map(|bytes| &bytes[..]));\n"
                ));
                args.push(format!("{name}_buffer.as_mut_ptr()"));
                if let Some(ty) = is_struct(inner) {
                    after.push_str(&format!(
                        "{name}_buffer.each(|bytes| translate::outward_{ty}(self, call, bytes))?;\n"
                    ));
                }
                after.push_str(&format!("{name}_buffer.give({name}.map(|bytes| &mut bytes[..]));\n"));
            }
            // A pointer that travels as a number, or a scalar.
            _ => args.push(format!("buffer::scalar({name})")),
        },
        Mark::Input => {
            before.push_str(&format!("let mut {name} = Buffer::new({name}.map(|bytes| &bytes[..]));\n"));
            if let Some(ty) = is_struct(inner) {
                before.push_str(&format!("{name}.each(|bytes| translate::inward_{ty}(self, bytes))?;\n"));
            }
            args.push(format!("{name}.{pointer}()"));
        }
        Mark::DataIn(_) => {
            before.push_str(&format!("let mut {name} = Buffer::new({name});\n"));
            if let Some(Kind::Handle) = inner.and_then(Type::kind) {
                let ty = inner.and_then(Type::base_name).unwrap_or_default();
                before.push_str(&format!("self.inward_all(Kind::{ty}, &mut {name})?;\n"));
            } else if let (Some(ty), Some(Kind::Struct(len))) = (is_struct(inner), inner.and_then(Type::kind))
            {
                before.push_str(&format!(
                    "{name}.each_of({len}, |bytes| translate::inward_{ty}(self, bytes))?;\n"
                ));
            }
            args.push(format!("{name}.{pointer}()"));
        }
        Mark::DataOut(_) => {
            before.push_str(&format!("let mut {name}_buffer = Buffer::new({name}.as_deref());\n"));
            args.push(format!("{name}_buffer.as_mut_ptr()"));
            if let Some(ty) = born(param) {
                after.push_str(&format!("self.born_all(call, Kind::{ty}, &mut {name}_buffer, {parent})?;\n"));
            } else if let (Some(ty), Some(Kind::Struct(len))) = (is_struct(inner), inner.and_then(Type::kind))
            {
                after.push_str(&format!(
                    "{name}_buffer.each_of({len}, |bytes| translate::outward_{ty}(self, call, bytes))?;\n"
                ));
            }
            after.push_str(&format!("{name}_buffer.give({name});\n"));
        }
    }
}
