//! `protocol::ops`: opcodes and their descriptions.

use super::{HEADER, wire_rows};
use crate::check::Table;
use crate::ir::{Class, Row};

pub(super) fn emit(table: &Table) -> String {
    let mut text = format!(
        "{HEADER}//! Opcodes of the wire operations, and names for tracing and statistics.
#![allow(non_upper_case_globals)]

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {{
    /// In the guest, with no traffic.
    Local,
    /// By hand-written code that uses other wire operations.
    Via,
    /// Asked once, remembered for the life of the process.
    Cached,
    /// Written to the lane and not waited for.
    Posted,
    /// Waits for the answer.
    Sync,
}}

/// Description of a call.
#[derive(Debug)]
pub struct OpInfo {{
    /// Opcode; 0 for a call without a wire operation of its own.
    pub op: u16,
    /// The driver's name, or the internal operation's.
    pub name: &'static str,
    /// How the call is answered.
    pub class: Class,
    /// Names of the arguments, in order.
    pub args: &'static [&'static str],
}}

"
    );
    let mut wire: Vec<&Row> = wire_rows(table).collect();
    wire.sort_by_key(|row| row.op);
    for row in &wire {
        let op = row.op.unwrap_or_default();
        text.push_str(&format!(
            "/// `{}`, {}.\npub const {}: u16 = {op:#06x};\n",
            row.name,
            row.class.name(),
            row.name
        ));
    }
    text.push_str("\n/// Every wire operation, by opcode.\npub static ALL: &[&OpInfo] = &[\n");
    for row in &wire {
        text.push_str(&format!("&info::{},\n", row.name));
    }
    text.push_str(
        "];

/// The description of a wire operation.
pub fn by_opcode(op: u16) -> Option<&'static OpInfo> {
    ALL.binary_search_by_key(&op, |info| info.op).ok().map(|index| ALL[index])
}

/// Descriptions by name.
pub mod info {
use super::{Class, OpInfo};
",
    );
    for row in &table.rows {
        info(&mut text, row, &row.name);
        if let Some(twin) = &row.twin {
            info(&mut text, row, &format!("{}{}", row.name, twin.suffix));
        }
    }
    text.push_str("}\n");
    text
}

fn info(text: &mut String, row: &Row, name: &str) {
    let class = match row.class {
        Class::Local => "Local",
        // As far as tracing and statistics go, an older name is hand-written.
        Class::Via(_) | Class::Like(_) => "Via",
        Class::Cached => "Cached",
        Class::Posted => "Posted",
        Class::Sync => "Sync",
    };
    let args: Vec<String> = row.params.iter().map(|param| format!("\"{}\"", param.name)).collect();
    text.push_str(&format!(
        "/// `{name}`\npub static {name}: OpInfo = OpInfo {{ op: {:#06x}, name: \"{name}\", class: Class::{class}, args: &[{}] }};\n",
        row.op.unwrap_or_default(),
        args.join(", ")
    ));
}
