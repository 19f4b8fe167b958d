//! Spec files to rows.
//!
//! A spec file is a list of function prototypes in Rust syntax, each with marks as attributes. It is parsed with
//! syn and never compiled.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, FnArg, Ident, Lit, LitInt, Meta, Pat, Token, TraitItemFn};

use crate::diagnostic::Diagnostic;
use crate::ir::{Class, Length, Mark, Param, Row, Twin};
use crate::types::{Type, kind_of};

/// Parses one spec file; `module` is its stem.
///
/// Rows with a mistake are left out; every mistake is in the second list.
pub fn parse_spec(module: &str, text: &str) -> (Vec<Row>, Vec<Diagnostic>) {
    let file = format!("spec/{module}.rs");
    let spec: Spec = match syn::parse_str(text) {
        Ok(spec) => spec,
        Err(error) => {
            return (Vec::new(), vec![Diagnostic::new(file, error.span().start().line, error.to_string())]);
        }
    };
    let mut rows = Vec::new();
    let mut diagnostics = Vec::new();
    for item in spec.items {
        match row(module, &item) {
            Ok(row) => rows.push(row),
            Err(errors) => {
                diagnostics.extend(errors.into_iter().map(|error| {
                    Diagnostic::new(file.as_str(), error.span().start().line, error.to_string())
                }))
            }
        }
    }
    (rows, diagnostics)
}

struct Spec {
    items: Vec<TraitItemFn>,
}

impl Parse for Spec {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        // `//!` lines describe the file.
        input.call(Attribute::parse_inner)?;
        let mut items = Vec::new();
        while !input.is_empty() {
            items.push(input.parse()?);
        }
        Ok(Self { items })
    }
}

/// Marks of a row, as they are met.
#[derive(Default)]
struct Marks {
    doc: Vec<String>,
    op: Option<u16>,
    has_op: bool,
    since: Option<u32>,
    twin: Option<Twin>,
    class: Option<Class>,
    custom: bool,
    internal: bool,
    host_custom: bool,
    beside: bool,
    unchecked: Option<String>,
}

fn row(module: &str, item: &TraitItemFn) -> Result<Row, Vec<syn::Error>> {
    let name = &item.sig.ident;
    let mut errors = Vec::new();
    let mut marks = Marks::default();
    for attribute in &item.attrs {
        if let Err(error) = row_mark(&mut marks, attribute) {
            errors.push(error);
        }
    }
    if let Some(body) = &item.default {
        errors.push(syn::Error::new(body.span(), format!("{name}: a row is a prototype and has no body")));
    }
    if let syn::ReturnType::Type(_, ty) = &item.sig.output {
        errors
            .push(syn::Error::new(ty.span(), format!("{name}: the result is always CUresult; leave it out")));
    }
    let mut params = Vec::new();
    for input in &item.sig.inputs {
        match param(input) {
            Ok(param) => params.push(param),
            Err(error) => errors.push(error),
        }
    }
    if marks.class.is_none() {
        errors.push(syn::Error::new(
            name.span(),
            format!("{name}: no class: mark it local, via(..), like(..), cached, posted or sync"),
        ));
    }
    if !marks.has_op {
        errors.push(syn::Error::new(name.span(), format!("{name}: no #[op(..)] mark")));
    }
    match (errors.is_empty(), marks.class) {
        (true, Some(class)) => Ok(Row {
            name: name.to_string(),
            doc: marks.doc,
            module: module.to_owned(),
            line: name.span().start().line,
            class,
            op: marks.op,
            since: marks.since,
            twin: marks.twin,
            custom: marks.custom,
            internal: marks.internal,
            host_custom: marks.host_custom || marks.internal,
            beside: marks.beside,
            unchecked: marks.unchecked,
            params,
        }),
        _ => Err(errors),
    }
}

fn row_mark(marks: &mut Marks, attribute: &Attribute) -> syn::Result<()> {
    let path = attribute.path();
    let name = path.get_ident().map(ToString::to_string).unwrap_or_default();
    let class = match name.as_str() {
        "doc" => {
            marks.doc.push(string(&attribute.meta)?.trim().to_owned());
            return Ok(());
        }
        "op" => {
            marks.has_op = true;
            return attribute.parse_args_with(|input: ParseStream<'_>| op_arguments(marks, input));
        }
        "unchecked" => {
            marks.unchecked = Some(string(&attribute.meta)?);
            return Ok(());
        }
        "custom" => {
            attribute.meta.require_path_only()?;
            marks.custom = true;
            return Ok(());
        }
        "internal" => {
            attribute.meta.require_path_only()?;
            marks.internal = true;
            return Ok(());
        }
        "host_custom" => {
            attribute.meta.require_path_only()?;
            marks.host_custom = true;
            return Ok(());
        }
        "beside" => {
            attribute.meta.require_path_only()?;
            marks.beside = true;
            return Ok(());
        }
        "via" => {
            let names = attribute.parse_args_with(Punctuated::<Ident, Token![,]>::parse_terminated)?;
            Class::Via(names.iter().map(ToString::to_string).collect())
        }
        "like" => Class::Like(attribute.parse_args::<Ident>()?.to_string()),
        "local" | "cached" | "posted" | "sync" => {
            attribute.meta.require_path_only()?;
            match name.as_str() {
                "local" => Class::Local,
                "cached" => Class::Cached,
                "posted" => Class::Posted,
                _ => Class::Sync,
            }
        }
        other => return Err(syn::Error::new(path.span(), format!("unknown mark `{other}` on a row"))),
    };
    if let Some(first) = &marks.class {
        return Err(syn::Error::new(
            path.span(),
            format!("two classes: `{}` and `{}`", first.name(), class.name()),
        ));
    }
    marks.class = Some(class);
    Ok(())
}

/// `0x0310, since = 3020, ptds = 7000`, each part optional.
fn op_arguments(marks: &mut Marks, input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() {
        if input.peek(LitInt) {
            let literal: LitInt = input.parse()?;
            marks.op = Some(literal.base10_parse()?);
        } else {
            let key: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            let value = input.parse::<LitInt>()?.base10_parse()?;
            match key.to_string().as_str() {
                "since" => marks.since = Some(value),
                "ptds" => marks.twin = Some(Twin { suffix: "_ptds", since: value }),
                "ptsz" => marks.twin = Some(Twin { suffix: "_ptsz", since: value }),
                other => {
                    return Err(syn::Error::new(key.span(), format!("unknown key `{other}` in #[op(..)]")));
                }
            }
        }
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

fn param(input: &FnArg) -> syn::Result<Param> {
    let FnArg::Typed(input) = input else {
        return Err(syn::Error::new(input.span(), "a prototype has no receiver"));
    };
    let Pat::Ident(name) = &*input.pat else {
        return Err(syn::Error::new(input.pat.span(), "a parameter is `name: type`"));
    };
    let mut mark = None;
    let mut stream = false;
    let mut dies = false;
    let mut parent = None;
    for attribute in &input.attrs {
        let path = attribute.path();
        let new = match path.get_ident().map(ToString::to_string).unwrap_or_default().as_str() {
            "stream" => {
                stream = true;
                continue;
            }
            "dies" => {
                attribute.meta.require_path_only()?;
                dies = true;
                continue;
            }
            "parent" => {
                parent = Some(attribute.parse_args::<Ident>()?.to_string());
                continue;
            }
            "out" => Mark::Out,
            "input" => Mark::Input,
            "cstr" => Mark::Cstr,
            "address" => Mark::Address,
            "data_in" => Mark::DataIn(length(attribute)?),
            "data_out" => Mark::DataOut(length(attribute)?),
            other => {
                return Err(syn::Error::new(path.span(), format!("unknown mark `{other}` on a parameter")));
            }
        };
        if mark.replace(new).is_some() {
            return Err(syn::Error::new(path.span(), format!("{}: two directions", name.ident)));
        }
    }
    Ok(Param {
        name: name.ident.to_string(),
        ty: ty(&input.ty)?,
        mark: mark.unwrap_or(Mark::Plain),
        stream,
        dies,
        parent,
        line: name.ident.span().start().line,
    })
}

/// `(count)` or `(count * 8)`; nothing for internal operations, whose blocks bring their length.
fn length(attribute: &Attribute) -> syn::Result<Option<Length>> {
    if matches!(attribute.meta, Meta::Path(_)) {
        return Ok(None);
    }
    attribute.parse_args_with(|input: ParseStream<'_>| {
        let param: Ident = input.parse()?;
        let unit = if input.parse::<Option<Token![*]>>()?.is_some() {
            input.parse::<LitInt>()?.base10_parse()?
        } else {
            1
        };
        Ok(Some(Length { param: param.to_string(), unit }))
    })
}

fn ty(input: &syn::Type) -> syn::Result<Type> {
    match input {
        syn::Type::Path(path) => {
            let name = path
                .path
                .get_ident()
                .ok_or_else(|| syn::Error::new(path.span(), "types are single names"))?
                .to_string();
            if kind_of(&name).is_none() {
                return Err(syn::Error::new(
                    path.span(),
                    format!("unknown type `{name}`: add it to src/types.rs"),
                ));
            }
            Ok(Type::Named(name))
        }
        syn::Type::Ptr(pointer) => {
            let mutable = matches!(pointer.mutability, syn::PointerMutability::Mut(_));
            Ok(Type::Pointer(mutable, Box::new(ty(&pointer.elem)?)))
        }
        syn::Type::Array(array) => match &array.len {
            Expr::Lit(ExprLit { lit: Lit::Int(len), .. }) => Ok(Type::Bytes(len.base10_parse()?)),
            other => Err(syn::Error::new(other.span(), "the length of an array is a number")),
        },
        other => Err(syn::Error::new(other.span(), "unsupported type")),
    }
}

fn string(meta: &Meta) -> syn::Result<String> {
    match &meta.require_name_value()?.value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.value()),
        other => Err(syn::Error::new(other.span(), "expected a string")),
    }
}
