//! Placeholder until `cargo xtask codegen` writes this file.

/// How an operation travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Answered with a reply frame.
    Sync,
    /// Not answered.
    Posted,
}

/// What is known of an operation by its opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpInfo {
    /// Name of the driver call, or of the internal operation.
    pub name: &'static str,
    /// Posted or sync.
    pub class: Class,
    /// Names of the arguments in order.
    pub args: &'static [&'static str],
}

/// The operation of an opcode.
pub fn info(_op: u16) -> Option<&'static OpInfo> {
    None
}
