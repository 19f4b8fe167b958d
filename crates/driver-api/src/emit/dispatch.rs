//! The host's decoding of requests and encoding of replies.

use super::{HEADER, wire_rows, zero};
use crate::check::Table;
use crate::ir::{Length, Mark, Param, Row};
use crate::types::{Kind, Wire};

pub(super) fn emit(table: &Table) -> String {
    let mut text = format!(
        "{HEADER}//! Decodes a request, calls the backend, encodes the reply.
#![allow(non_snake_case)]

use protocol::ops;
use protocol::status::Status;
use protocol::wire::{{NULL, Reader, WireError, Writer}};

use super::driver::*;
use crate::session::Call;

/// Runs the operation `op` with the parameters in `body`; on success the outputs are in `reply`.
///
/// `body` is a private copy of what the program sent. An operation that this build does not know is NOT_SUPPORTED.
///
/// # Errors
/// The body is malformed: the program did not send it by way of the generated client, and the session is to end.
pub fn dispatch(
    driver: &dyn Driver,
    call: &mut Call<'_>,
    op: u16,
    body: &mut Reader<'_>,
    reply: &mut Writer<'_>,
) -> Result<Status, WireError> {{
    match op {{
"
    );
    for row in wire_rows(table) {
        arm(&mut text, row);
    }
    text.push_str("_ => return Ok(Status::NOT_SUPPORTED),\n}\nOk(Status::SUCCESS)\n}\n");
    for (helper, code) in [("narrow(", NARROW), ("zeroed(", ZEROED), ("check_len(", CHECK_LEN)] {
        if text.contains(helper) {
            text.push_str(code);
        }
    }
    if !text.contains("NULL =>") {
        text = text.replace("{NULL, Reader", "{Reader");
    }
    text
}

const NARROW: &str = "
/// A value that fits a narrower type.
fn narrow<T: TryFrom<u32>>(body: &mut Reader<'_>) -> Result<T, WireError> {
    let at = body.position();
    let value = body.u32()?;
    T::try_from(value).map_err(|_| WireError::Range { at, value: value.into() })
}
";

const ZEROED: &str = "
/// A zeroed buffer for an output of `len` bytes, of at most `max`; the inner `None` is a null pointer.
fn zeroed(len: u64, max: usize) -> Result<Option<Vec<u8>>, Status> {
    match len {
        NULL => Ok(None),
        len => match usize::try_from(len) {
            Ok(len) if len <= max => Ok(Some(vec![0; len])),
            _ => Err(Status::INVALID_VALUE),
        },
    }
}
";

const CHECK_LEN: &str = "
/// A block has the length that the parameter with its count says.
fn check_len(len: Option<u64>, expected: u64) -> Result<(), WireError> {
    match len {
        Some(len) if len != expected => {
            Err(WireError::Length { at: 0, len, max: usize::try_from(expected).unwrap_or(usize::MAX) })
        }
        _ => Ok(()),
    }
}
";

fn arm(text: &mut String, row: &Row) {
    let mut decode = String::new();
    let mut prepare = String::new();
    let mut args = vec!["call".to_owned()];
    let mut encode = String::new();
    for param in &row.params {
        param_code(row, param, &mut decode, &mut prepare, &mut args, &mut encode);
    }
    if row.default_stream() {
        decode.push_str("let default_stream = body.u64()?;\n");
        args.push("default_stream".to_owned());
    }
    text.push_str(&format!(
        "ops::{0} => {{\n{decode}body.clone().finish()?;\n{prepare}\
         if let Err(status) = driver.{0}({1}) {{ return Ok(status); }}\n{encode}}}\n",
        row.name,
        args.join(", ")
    ));
}

fn param_code(
    row: &Row,
    param: &Param,
    decode: &mut String,
    prepare: &mut String,
    args: &mut Vec<String>,
    encode: &mut String,
) {
    let name = &param.name;
    match (&param.mark, param.wire()) {
        (Mark::Plain | Mark::Address, Some(wire)) => {
            decode.push_str(&match wire {
                Wire::Scalar("u16" | "u8") => format!("let {name} = narrow(body)?;\n"),
                Wire::Scalar("f32") => format!("let {name} = f32::from_bits(body.u32()?);\n"),
                Wire::Scalar(scalar) => format!("let {name} = body.{scalar}()?;\n"),
                Wire::Fixed(len) => {
                    format!("let mut {name} = [0u8; {len}];\n{name}.copy_from_slice(body.fixed({len})?);\n")
                }
            });
            args.push(name.clone());
        }
        (Mark::Out, Some(wire)) => {
            decode.push_str(&format!("let mut {name} = body.present()?.then_some({});\n", zero(wire)));
            args.push(format!("{name}.as_mut()"));
            let write = match wire {
                Wire::Scalar("u16" | "u8") => "reply.u32(u32::from(value));",
                Wire::Scalar("f32") => "reply.u32(value.to_bits());",
                Wire::Scalar("i32") => "reply.i32(value);",
                Wire::Scalar("u32") => "reply.u32(value);",
                Wire::Scalar(_) => "reply.u64(value);",
                Wire::Fixed(_) => "reply.fixed(&value);",
            };
            encode.push_str(&format!("if let Some(value) = {name} {{ {write} }}\n"));
        }
        (Mark::Input, Some(Wire::Fixed(len))) => {
            decode.push_str(&format!("let {name} = body.exact({len})?;\n"));
            args.push(format!("{name}.and_then(|data| data.first_chunk::<{len}>())"));
        }
        (Mark::Cstr, _) => {
            decode.push_str(&format!("let {name} = body.cstr(usize::MAX)?;\n"));
            args.push(name.clone());
        }
        (Mark::DataIn(length), _) => {
            decode.push_str(&format!("let {name} = body.bytes(usize::MAX)?;\n"));
            if let Some(length) = length {
                prepare.push_str(&format!(
                    "check_len({name}.map(|data| data.len() as u64), {})?;\n",
                    expected(row, length)
                ));
            }
            args.push(name.clone());
        }
        (Mark::DataOut(Some(length)), _) => {
            decode.push_str(&format!("let {name} = body.u64()?;\n"));
            prepare.push_str(&format!(
                "check_len(({name} != NULL).then_some({name}), {})?;\n\
                 let mut {name} = match zeroed({name}, call.max_body()) {{\nOk(buffer) => buffer,\nErr(status) => return Ok(status),\n}};\n",
                expected(row, length)
            ));
            args.push(format!("{name}.as_deref_mut()"));
            encode.push_str(&format!("if let Some(data) = {name} {{ reply.fixed(&data); }}\n"));
        }
        (Mark::DataOut(None), _) => {
            decode.push_str(&format!("let mut {name} = body.present()?.then(Vec::new);\n"));
            args.push(format!("{name}.as_mut()"));
            encode.push_str(&format!("if let Some(data) = {name} {{ reply.bytes(Some(&data)); }}\n"));
        }
        // The checks let no other combination through.
        _ => {}
    }
}

/// The number of bytes that `length` stands for, as a u64 expression.
fn expected(row: &Row, length: &Length) -> String {
    let param = &length.param;
    let kind = row.params.iter().find(|other| other.name == *param).and_then(|other| other.ty.kind());
    let count = match kind {
        // A negative count becomes a length that no block has.
        Some(Kind::Int) => format!("{param} as u64"),
        Some(Kind::Uint) => format!("u64::from({param})"),
        _ => param.clone(),
    };
    if length.unit == 1 { count } else { format!("({count}).wrapping_mul({})", length.unit) }
}
